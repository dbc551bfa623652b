"""YAML files are read as plain values within bounds."""

import pytest

from pyg_schnet.io.yaml_file import read_yaml


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "file.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_values_are_read(file):
    text = "a: {b: [1, 2.5, null], c: true}\nÅ: text\n"
    assert read_yaml(file(text)) == {"a": {"b": [1, 2.5, None], "c": True}, "Å": "text"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("!!python/object/apply:os.system ['true']", "constructor"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: 1\nb: {c: 1, c: 2}", "`c` twice"),
        ("[" * 30 + "]" * 30, "nested"),
        ("a: [", "must be YAML"),
        ("[[1]]: 2\n[2]: 3", "must be YAML"),
        ("a: " + "1" * 10_000, "must be YAML"),
        (b"\x89PNG\r\n\x1a\n\xff", "not text"),
    ],
    ids=["tag", "alias", "duplicate", "depth", "cut", "list as name", "long number", "binary"],
)
def test_anything_but_plain_values_is_rejected(file, content, problem):
    path = file(content)
    with pytest.raises(ValueError, match=problem) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: must be ")


def test_large_files_and_folders_are_rejected(file, tmp_path):
    path = file("a: " + "x" * 100)
    assert read_yaml(path, max_bytes=200) == {"a": "x" * 100}
    for other in (path, tmp_path):
        with pytest.raises(ValueError, match="at most 50 bytes"):
            read_yaml(other, max_bytes=50)
