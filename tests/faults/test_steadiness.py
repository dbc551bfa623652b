"""A leak is noticed; what does not leak is left alone."""

from __future__ import annotations

import argparse
import contextlib
import mmap
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc"),
]


@pytest.fixture
def steadiness(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from tests.faults import steadiness

    return steadiness


def watch(steadiness, work, steps=2000):
    """Watch some steps of work; garbage of other tests is none of theirs."""
    import gc

    gc.collect()
    gc.freeze()
    try:
        seen = steadiness.Watch(steps, samples=20)
        for step in range(steps):
            work(step)
            seen(step)
    finally:
        gc.unfreeze()
    return seen.complaints()


def test_work_that_keeps_nothing_is_steady(steadiness):
    assert watch(steadiness, lambda step: bytearray(10_000)) == []


def fresh_memory(size):
    """Take memory from the system: the allocator may have some left of earlier tests, which would hide it."""
    taken = mmap.mmap(-1, size)
    taken.write(bytes(size))
    return taken


@pytest.mark.parametrize(
    ("leak", "complaint"),
    [
        (lambda kept, step: kept.append(fresh_memory(100_000)), "memory grows by"),
        (lambda kept, step: kept.append([step]), "objects grows by 1"),
    ],
)
def test_a_leak_of_memory_is_noticed(steadiness, leak, complaint):
    kept = []
    found = watch(steadiness, lambda step: leak(kept, step))
    assert found[0].startswith(complaint)
    assert all(text.startswith(("memory", "objects")) for text in found)


def test_a_file_that_stays_open_is_noticed(steadiness):
    with contextlib.ExitStack() as files:

        def leak(step):
            if step == 1500:
                files.enter_context(open(sys.executable, "rb"))

        (found,) = watch(steadiness, leak)
    assert found.startswith("files grow from")


@pytest.mark.parametrize("name", ["md", "predict", "evaluate"])
def test_short_runs_open_no_files_and_threads(steadiness, tmp_path, name):
    length = {"md": 200, "predict": 200, "evaluate": 6}[name]
    seen = steadiness.Watch(length, samples=3)
    getattr(steadiness, name)(tmp_path, seen, 0)
    assert len(seen.taken) >= 3
    assert not [text for text in seen.complaints() if text.startswith(("files", "threads"))]


def test_long_runs_are_steady(steadiness):
    options = argparse.Namespace(
        only=None, seed=0, train_steps=4000, md_steps=20_000, predictions=10_000, evaluations=100
    )
    assert [entry.figures for entry in steadiness.run(options) if entry.failed] == []
