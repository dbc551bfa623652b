"""An interrupted batched run continues to the bits of one that was not."""

import copy

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read

from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation import batched_restart, run_md_batched
from pyg_schnet.simulation.trajectory import TrajectoryFile

OPTIONS = {"timestep": 0.5, "interval": 4, "seed": 3}


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def own(potential):
    """The potential, compiled once for all tests."""
    copied = copy.deepcopy(potential)
    copied.compile(constant=True)
    return copied


@pytest.fixture
def structures():
    return [molecule(name) for name in ("CH3CH2OH", "H2O", "CH3OH", "NH3")]


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Write the restart file at every frame."""
    monkeypatch.setattr(batched_restart, "MIN_PAUSE", 0.0)


@pytest.fixture
def kill(monkeypatch):
    """Return a function that lets the writing of a frame fail, after which nothing is written."""

    def after(frames):
        written, original = [], TrajectoryFile.write

        def write(self, frame):
            if len(written) == frames:
                raise Interrupted
            written.append(frame)
            original(self, frame)

        monkeypatch.setattr(TrajectoryFile, "write", write)
        return lambda: monkeypatch.setattr(TrajectoryFile, "write", original)

    return after


def assert_same(one, other):
    for a, b in zip(one.atoms, other.atoms, strict=True):
        assert a.positions.tobytes() == b.positions.tobytes()
        assert a.get_momenta().tobytes() == b.get_momenta().tobytes()
        assert a.get_forces().tobytes() == b.get_forces().tobytes()
        assert a.get_potential_energy() == b.get_potential_energy()
        assert a.info == b.info
    for name in ("stopped", "temperature", "potential_energy", "drift", "fluctuation", "steps"):
        assert getattr(one, name) == getattr(other, name), name


# The whole batch, and one structure after the other; killed within the first and the second block of noise.
@pytest.mark.parametrize(
    ("thermostat", "frames", "max_pairs"),
    [
        ("langevin", 74, 200_000),
        pytest.param("nve", 22, 200_000, marks=pytest.mark.process),
        pytest.param("langevin", 9, 200_000, marks=pytest.mark.process),
        pytest.param("langevin", 74, 1, marks=pytest.mark.process),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(
    own, structures, kill, tmp_path, thermostat, frames, max_pairs
):
    options = {**OPTIONS, "thermostat": thermostat, "duration": 0.04, "max_pairs": max_pairs}
    straight = run_md_batched(own, structures, trajectory=tmp_path / "straight.extxyz", **options)
    unharmed = kill(frames)
    path = tmp_path / "parts.extxyz"
    with pytest.raises(Interrupted):
        run_md_batched(own, structures, trajectory=path, **options)
    unharmed()
    resumed = run_md_batched(own, structures, trajectory=path, resume=True, **options)
    assert_same(resumed, straight)
    assert path.read_bytes() == (tmp_path / "straight.extxyz").read_bytes()


@pytest.mark.parametrize("thermostat", ["nve", pytest.param("langevin", marks=pytest.mark.process)])
def test_a_finished_run_may_become_longer(own, structures, tmp_path, thermostat):
    options = {**OPTIONS, "thermostat": thermostat}
    paths = [tmp_path / name for name in ("straight.traj", "parts.traj")]
    straight = run_md_batched(own, structures, trajectory=paths[0], duration=0.05, **options)
    shorter = run_md_batched(own, structures, trajectory=paths[1], duration=0.021, **options)
    again = run_md_batched(own, structures, trajectory=paths[1], duration=0.021, resume=True, **options)
    assert_same(again, shorter)
    assert again.ns_per_day is None
    resumed = run_md_batched(own, structures, trajectory=paths[1], duration=0.05, resume=True, **options)
    assert_same(resumed, straight)
    frames = [[(frame.info["step"], frame.info["system"]) for frame in read(path, ":")] for path in paths]
    assert frames[0] == frames[1]
    assert resumed.ns_per_day > 0


@pytest.mark.process
def test_stopped_structures_stay_stopped(own, structures, kill, tmp_path):
    pairs = {(a, b): 0.1 for a in (1, 6, 7, 8) for b in (1, 6, 7, 8) if a <= b}
    pairs[7, 7] = 0.1
    own.domain = TrainingDomain({**pairs, (1, 7): 1.0 / 0.9}, separation=1.3)  # of ammonia alone
    options = {**OPTIONS, "duration": 0.06, "temperature": 3000, "closest": 0.88}
    try:
        straight = run_md_batched(own, structures, trajectory=tmp_path / "straight.extxyz", **options)
        assert {reason is None for reason in straight.stopped} == {True, False}
        unharmed = kill(50)
        with pytest.raises(Interrupted):
            run_md_batched(own, structures, trajectory=tmp_path / "parts.extxyz", **options)
        unharmed()
        header, _ = checkpoint.read(tmp_path / "parts.extxyz.restart", "batched dynamics")
        assert len(header["stopped"]) > 0
        resumed = run_md_batched(
            own, structures, trajectory=tmp_path / "parts.extxyz", resume=True, **options
        )
    finally:
        own.domain = None
    assert_same(resumed, straight)


def test_a_run_begins_where_there_is_none(own, structures, tmp_path):
    options = {**OPTIONS, "duration": 0.01}
    begun = run_md_batched(own, structures, trajectory=tmp_path / "begun.extxyz", resume=True, **options)
    assert_same(begun, run_md_batched(own, structures, **options))


@pytest.fixture
def run(own, structures, tmp_path):
    path = tmp_path / "run.extxyz"

    def start(**changes):
        given = {"potential": own, "structures": structures, "trajectory": path, "duration": 0.002}
        return run_md_batched(**(given | OPTIONS | changes))

    start()
    return start


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 301.0}, "`temperature` must be 300.0 as in the run of"),
        ({"thermostat": "langevin"}, "`thermostat` must be nve"),
        ({"max_pairs": 1}, "`max_pairs` must be 200000"),
        ({"structures": [molecule("H2O")] * 4}, "the structures must be those"),
    ],
)
def test_another_run_is_refused(run, changes, message):
    with pytest.raises(ValueError, match=message):
        run(resume=True, **changes)


def test_another_potential_is_refused(run, potential):
    other = copy.deepcopy(potential)
    other.scale.mul_(1.01)
    with pytest.raises(ValueError, match="the potential must be"):
        run(resume=True, potential=other)


def test_a_trajectory_without_its_restart_file_is_refused(run, tmp_path):
    (tmp_path / "run.extxyz.restart").unlink()
    with pytest.raises(FileNotFoundError, match="begin a new run"):
        run(resume=True)


def test_without_a_trajectory_there_is_nothing_to_resume(run):
    with pytest.raises(ValueError, match="`resume` needs the `trajectory`"):
        run(resume=True, trajectory=None)


def test_the_restart_file_of_one_structure_is_refused(run, tmp_path):
    path = tmp_path / "run.extxyz.restart"
    header, arrays = checkpoint.read(path, "batched dynamics")
    checkpoint.write(path, "dynamics", {**header, "kind": "dynamics"}, arrays)
    with pytest.raises(ValueError, match="must hold a batched dynamics, got a dynamics"):
        run(resume=True)


@pytest.mark.parametrize("name", ["state", "done", "stopped", "size"])
def test_a_damaged_restart_file_is_refused(run, tmp_path, name):
    path = tmp_path / "run.extxyz.restart"
    header, arrays = checkpoint.read(path, "batched dynamics")
    checkpoint.write(path, "batched dynamics", {**header, name: "?"}, arrays)
    with pytest.raises(ValueError, match="is damaged"):
        run(resume=True)


def test_positions_that_are_not_numbers_are_refused(run, tmp_path):
    path = tmp_path / "run.extxyz.restart"
    header, arrays = checkpoint.read(path, "batched dynamics")
    arrays["state.pos"] = arrays["state.pos"] * np.nan
    checkpoint.write(path, "batched dynamics", header, arrays)
    with pytest.raises(ValueError, match="is damaged"):
        run(resume=True)
