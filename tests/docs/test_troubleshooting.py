"""The page of troubleshooting quotes messages of the package, and the complete list holds what is raised."""

import importlib.util
from pathlib import Path

import pytest

from pyg_schnet import cli

DOCS = Path(__file__).parents[2] / "docs"
if not (DOCS.parent / "pyg_schnet").is_dir():
    pytest.skip("there is no source of the package here", allow_module_level=True)


@pytest.fixture(scope="module")
def errors():
    """Load `docs/_ext/errors.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("errors", DOCS / "_ext" / "errors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def messages(errors):
    return [message.text for message in errors.collect_messages()]


def test_every_quotation_of_the_page_is_in_a_message(errors, messages):
    quotations = [each for entry in errors.read_explanations() for each in entry.quotations]
    assert len(quotations) > 80
    gone = [each for each in quotations if not any(errors.quotes(each, text) for text in messages)]
    assert gone == [], "the page explains messages that the package does not have"


@pytest.mark.parametrize(
    "arguments",
    [
        ["md"],
        ["train", "no_such_recipe"],
        ["train", "own_file"],
        ["data", "no_such_file.xyz"],
        ["evaluate", "no_such_run", "frames.xyz", "--part", "test"],
    ],
)
def test_a_message_that_a_user_sees_is_in_the_list(
    arguments, errors, messages, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    seen = capsys.readouterr().err.strip().removeprefix("pyg-schnet: ")
    assert any(errors.quotes(text, seen) for text in messages), seen


def test_parts_of_a_message_are_joined_and_values_are_left_out(errors, tmp_path):
    (tmp_path / "one.py").write_text(
        'UNIT = "Å"\n'
        "def f(path, wrong):\n"
        '    raise ValueError(f"{path}: must be in {UNIT}, "\n'
        '                     f"got {wrong!r}; " + ("convert it" if wrong else "leave it"))\n'
    )
    (message,) = errors.collect_messages(tmp_path)
    assert message == ("…: must be in Å, got …; convert it", "ValueError", "one")
