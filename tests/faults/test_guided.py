"""What atheris finds is counted and kept; a module in its place gives some inputs and ends the process."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pyg_schnet.io.formats.npz import open_npz

pytestmark = pytest.mark.nightly

ATHERIS = """
import contextlib, os, sys

@contextlib.contextmanager
def instrument_imports(include, enable_loader_override):
    yield

def Setup(arguments, search):
    global options, enter
    options, enter = arguments, search

def Fuzz():
    print("#2 INITED cov: 7 ft: 9", file=sys.stderr)
    place = next(option for option in options if option.startswith("-artifact_prefix="))
    for number, content in enumerate([b"", b"\\0no npz", {last!r}]):
        with open(place.partition("=")[2] + "crash", "wb") as file:
            file.write(content)
        if number == 2:
            os._exit(77)
        enter(content)
    os.remove(file.name)
    print("#4 DONE cov: 8 ft: 9", file=sys.stderr, flush=True)
    os._exit(0)
"""


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Search at the door of npz files, by an atheris of our own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.syspath_prepend(str(tmp_path))
    from tests.faults import guided

    def run(text):
        (tmp_path / "atheris.py").write_text(text)
        options = argparse.Namespace(minutes=0.01, doors=["npz"], keep=tmp_path / "kept", seed=3)
        (entry,) = guided.run(options)
        return entry, [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]

    return run


def test_all_inputs_are_counted(search):
    text = ATHERIS.replace(", {last!r}", "")
    entry, kept = search(text)
    assert (entry.trial, entry.subject, entry.seed, entry.failed, kept) == ("guided", "npz", 3, 0, [])
    assert entry.figures == (
        f"{entry.tried - 2} read, 2 refused with a clear error; edges of our code reached by valid files 7, "
        "in the end 8"
    )


def test_an_input_that_ends_the_process_is_kept(search, capsys):
    entry, (kept,) = search(ATHERIS.replace("{last!r}", repr(b"\0the last one")))
    assert entry.failed == 1
    assert "npz: the process ended with 77" in capsys.readouterr().out
    assert kept.read_bytes() == b"the last one"
    with pytest.raises(ValueError, match=r"must be an npz"), open_npz(kept):
        pass


def test_without_atheris_it_is_told_how_to_get_it(search, monkeypatch):
    from tests.faults import guided

    monkeypatch.setattr(guided.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="guided fuzzing needs atheris: pip install atheris"):
        search("")
