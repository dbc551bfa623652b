"""Mapped tensors are those of the file, cost no memory once they are released, and never change the file."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyg_schnet.datasets.storage import mapped as mapping
from pyg_schnet.datasets.storage.mapped import MappedTensors

MB = 2**20
on_linux = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory is counted on Linux"
)


@pytest.fixture
def tensors():
    rng = torch.Generator().manual_seed(0)
    return {
        "double": torch.randn(7, 3, generator=rng, dtype=torch.float64),
        "float": torch.randn(5, generator=rng),
        "half": torch.randn(2, 2, generator=rng).half(),
        "brain": torch.randn(3, generator=rng).bfloat16(),
        "long": torch.arange(4),
        "int": torch.arange(3, dtype=torch.int32),
        "short": torch.arange(3, dtype=torch.int16),
        "byte": torch.arange(5, dtype=torch.uint8),
        "char": torch.arange(-2, 2, dtype=torch.int8),
        "bool": torch.tensor([True, False, True]),
        "number": torch.tensor(3.5),
        "nothing": torch.zeros(0, 3),
    }


@pytest.fixture
def path(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors", {"note": "kept aside"})
    return tmp_path / "a.safetensors"


@pytest.fixture
def large(tmp_path):
    save_file({"x": torch.ones(16 * MB)}, tmp_path / "large.safetensors")
    return MappedTensors(tmp_path / "large.safetensors")


@pytest.fixture
def as_anybody():
    """Give a folder that may be read but not written, to root neither."""
    with tempfile.TemporaryDirectory() as name:  # tmp_path is root's alone
        folder = Path(name)
        folder.chmod(0o755)
        user = os.geteuid()

        def lock():
            for file in folder.iterdir():
                file.chmod(0o444)
            folder.chmod(0o555)
            if user == 0:
                os.seteuid(65534)

        yield folder, lock
        if os.geteuid() != user:
            os.seteuid(user)
        folder.chmod(0o755)


def resident():
    """Memory of this process, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def test_the_tensors_are_those_of_the_file(path, tensors):
    mapped = MappedTensors(path)
    assert set(mapped) == set(tensors)
    assert len(mapped) == len(tensors)
    for name, value in load_file(path).items():
        assert mapped[name].dtype == value.dtype
        assert mapped[name].shape == value.shape
        assert mapped[name].equal(value), name


def test_the_files_own_words_are_no_tensor(path):
    with pytest.raises(KeyError):
        MappedTensors(path)["__metadata__"]


def test_the_path_may_be_a_text(path):
    assert MappedTensors(os.fspath(path))["long"].tolist() == [0, 1, 2, 3]


def test_writing_to_a_tensor_changes_neither_the_file_nor_another_mapping(path):
    before = path.read_bytes()
    mapped, other = MappedTensors(path), MappedTensors(path)
    mapped["long"].add_(5)
    assert mapped["long"].tolist() == [5, 6, 7, 8]
    assert other["long"].tolist() == [0, 1, 2, 3]
    del mapped
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is handed back there")
def test_what_was_written_is_forgotten_when_the_memory_is_handed_back(path):
    mapped = MappedTensors(path)
    mapped["long"].add_(5)
    mapped.release()
    assert mapped["long"].tolist() == [0, 1, 2, 3]


@on_linux
def test_a_tensor_takes_memory_only_between_its_use_and_the_release(large):
    before = resident()
    assert large["x"].sum() == 16 * MB
    assert resident() - before > 60 * MB
    large.release()
    assert resident() - before < 4 * MB
    assert large["x"].sum() == 16 * MB


@on_linux
def test_memory_is_handed_back_after_some_reads(large):
    before = resident()
    for read in range(2 * mapping._READS_BETWEEN_RELEASES):
        assert large["x"][:: 512 + read].mean() == 1
        large.count_read()
    assert resident() - before < 4 * MB
    large["x"].sum()
    for _ in range(mapping._READS_BETWEEN_RELEASES - 1):
        large.count_read()
    assert resident() - before > 60 * MB


def test_a_system_that_hands_nothing_back_is_put_up_with(path, monkeypatch):
    mapped = MappedTensors(path)
    monkeypatch.setattr(mapped, "_map", object())
    mapped.release()
    assert mapped["long"].tolist() == [0, 1, 2, 3]


@pytest.mark.skipif(os.name != "posix", reason="needs users")
def test_a_file_that_may_only_be_read_is_mapped(as_anybody, tensors):
    folder, lock = as_anybody
    save_file(tensors, folder / "a.safetensors")
    lock()
    with pytest.raises(PermissionError):
        (folder / "a.safetensors").open("r+b")
    mapped = MappedTensors(folder / "a.safetensors")
    mapped["double"].zero_()  # in memory
    assert mapped["double"].sum() == 0


def test_the_mapping_outlives_the_name_of_the_file(path):
    mapped = MappedTensors(path)
    if os.name == "posix":
        path.unlink()
    assert mapped["byte"].tolist() == [0, 1, 2, 3, 4]


def test_a_tensor_outlives_its_mapping(path):
    value = MappedTensors(path)["byte"]
    assert value.tolist() == [0, 1, 2, 3, 4]
