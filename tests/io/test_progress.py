"""Bars for what takes minutes: on terminals only, and not where silence is asked for."""

import io

import pytest
import torch
from rich.console import Console

from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io import progress as display

CHUNKS = [Chunk({"energy": torch.zeros(size)}) for size in (2000, 3000, 500)]


@pytest.fixture
def screen(monkeypatch):
    """What a terminal would get."""
    text = io.StringIO()

    def console(stderr):
        assert stderr
        return Console(file=text, force_terminal=True, width=80)

    monkeypatch.setattr(display, "Console", console)
    return text


def test_structures_are_counted_on_a_terminal_and_given_on(screen):
    assert list(display.counted(CHUNKS)) == CHUNKS
    assert "5,500 structures processed" in screen.getvalue()


@pytest.mark.parametrize("chunks", [CHUNKS[:1], []])
def test_one_chunk_and_none_are_given_on(screen, chunks):
    assert list(display.counted(chunks)) == chunks


def test_silence_has_no_bars_and_ends(screen):
    with display.silence():
        assert list(display.counted(CHUNKS)) == CHUNKS
    assert screen.getvalue() == ""
    assert not display.bar().disable


def test_a_pipe_gets_nothing(capsys):
    assert list(display.counted(CHUNKS)) == CHUNKS
    assert capsys.readouterr() == ("", "")
