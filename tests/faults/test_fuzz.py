"""Files that are hurt at random are read or refused with a clear error, and nothing else happens."""

from __future__ import annotations

import contextlib
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.doors import DOORS
from tests.faults.mutations import mutate
from tests.faults.watched import Watched, judge

pytestmark = pytest.mark.nightly

# How many inputs of a door take about a second; what C code reads goes through a child process.
EXAMPLES = {"recipe": 5, "weights": 25, "training state": 40, "structures": 40, "ensemble": 40, "archive": 40}
IN_PROCESS = [name for name, door in DOORS.items() if not door.is_native]


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Give the folder of a door, and the contents of its valid files."""
    made = {}

    def of(door):
        if door not in made:
            folder = tmp_path_factory.mktemp("door")
            DOORS[door].make(folder)
            made[door] = folder, {name: (folder / name).read_bytes() for name in DOORS[door].hurt}
            for name in DOORS[door].hurt:
                judge(door, folder / name)  # the first time libraries import, and run, code of their own
        return made[door]

    return of


@pytest.mark.parametrize("door", DOORS)
def test_files_that_are_right_are_read_and_nothing_else_happens(valid, door):
    folder, contents = valid(door)
    for name in contents:
        outcome = judge(door, folder / name)
        assert outcome.kind == "accepted", outcome.text


@pytest.mark.parametrize("door", IN_PROCESS)
def test_hurt_files_are_read_or_refused_clearly(valid, door):
    folder, contents = valid(door)

    @settings(
        max_examples=EXAMPLES.get(door, 60),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.sampled_from(sorted(contents)), st.randoms(use_true_random=False))
    def hurt(name, random):
        (folder / name).write_bytes(mutate(contents[name], name, random))
        try:
            outcome = judge(door, folder / name)
        finally:
            (folder / name).write_bytes(contents[name])
        assert outcome.kind != "failed", outcome.text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of files that ASE leaves open
        hurt()


@pytest.mark.parametrize("door", [name for name, door in DOORS.items() if door.is_native])
def test_hurt_files_do_not_take_the_process_with_them(valid, door):
    from random import Random

    folder, contents = valid(door)
    with Watched(seconds=30.0, doors=[door]) as child:
        for number in range(30):
            random = Random(f"test {number}")
            name = random.choice(sorted(contents))
            (folder / name).write_bytes(mutate(contents[name], name, random))
            outcome = child.enter(door, folder / name)
            (folder / name).write_bytes(contents[name])
            assert outcome.kind != "failed", outcome.text


def test_an_unclear_error_is_a_failure(valid, monkeypatch):
    folder, _ = valid("npz")

    def raises(path):
        raise KeyError("shape")

    door = DOORS["npz"]
    monkeypatch.setitem(DOORS, "npz", type(door)(door.make, door.hurt, raises))
    assert judge("npz", folder / "stored.npz").kind == "failed"


@pytest.mark.parametrize("deed", ["write", "unpickle", "call", "import"])
def test_what_no_file_may_cause_is_a_failure(valid, monkeypatch, tmp_path, deed):
    import os
    import pickle

    folder, _ = valid("npz")
    deeds = {
        "write": lambda: (tmp_path / "elsewhere").write_text(""),
        "unpickle": lambda: pickle.loads(pickle.dumps(os.getcwd)),
        "call": lambda: os.system("true"),
        "import": lambda: __import__("no_such_module_anywhere"),
    }

    def acts(path):
        with contextlib.suppress(ImportError):
            deeds[deed]()

    door = DOORS["npz"]
    monkeypatch.setitem(DOORS, "npz", type(door)(door.make, door.hurt, acts))
    assert judge("npz", folder / "stored.npz").kind == "failed"


def test_a_child_that_takes_too_long_is_killed_and_started_again(valid):
    folder, _ = valid("SMILES")
    with Watched(seconds=60.0, doors=["SMILES"]) as child:
        child.started()
        child.seconds = 0.0
        assert child.enter("SMILES", folder / "0.smi").kind == "failed"
        child.seconds = 60.0
        assert child.enter("SMILES", folder / "0.smi").kind == "accepted"
