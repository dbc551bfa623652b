"""Tests that an interrupted run continues as if it had not been interrupted."""

import copy
import itertools
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLengths, FixCom, FixConstraint, Hookean
from ase.io import read
from safetensors.torch import save_file

from pyg_schnet import Ensemble, Potential, SchNet
from pyg_schnet.potentials import checkpoint
from pyg_schnet.simulation import SchNetCalculator, md, restart, run_md
from pyg_schnet.simulation.restart import RestartFile
from pyg_schnet.simulation.trajectory import TrajectoryFile

DATA = Path(__file__).parent / "data"
KINDS = {
    "nve": {"equilibration": 0.005},
    "langevin": {"thermostat": "langevin", "friction": 0.1},
    "barostat": {"thermostat": "langevin", "pressure": 1.0, "pressure_time": 50.0},
}


class Killed(BaseException):
    pass


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.02, seed=3)
    atoms.calc = EMT()
    return atoms


@pytest.fixture
def run(copper, tmp_path):
    """Run 40 steps of copper with a frame every 5, and be killed at one if asked to."""

    def go(name="run.extxyz", kind="nve", kill=None, atoms=copper, duration=0.04, **options):
        def on_step(step, frame):
            if step == kill:
                go.is_killed = True
                raise Killed

        defaults = {"timestep": 1.0, "interval": 5, **KINDS[kind]}
        path = tmp_path / name
        options = {"log": path.with_suffix(".csv"), **defaults, **options}
        go.is_killed = False
        return run_md(atoms, duration=duration, trajectory=path, on_step=on_step, **options)

    return go


@pytest.fixture
def sudden(run, monkeypatch):
    """End runs as the kill of a process does, without writing the last frame to the restart file.

    The clock advances by one per call, and a file is due at steps 10, 25 and 40.
    """
    ticks = iter(range(10**6))
    monkeypatch.setattr(restart, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(restart, "MIN_PAUSE", 3)
    flush = RestartFile.flush
    monkeypatch.setattr(RestartFile, "flush", lambda *arguments: run.is_killed or flush(*arguments))


def kill(run, step=23, **options):
    with pytest.raises(Killed):
        run(kill=step, **options)


@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_as_one_that_was_not(run, tmp_path, kind, suffix):
    whole = run(f"whole.{suffix}", kind)
    name = f"run.{suffix}"
    kill(run, name=name, kind=kind)
    with (tmp_path / name).open("ab") as file:
        file.write(b"4\nLattice=")  # a frame that was being written
    with (tmp_path / "run.csv").open("a") as file:
        file.write("25,0.02")
    kill(run, step=31, name=name, kind=kind, resume=True)
    result = run(name, kind, resume=True)
    assert (result.atoms.positions == whole.atoms.positions).all()
    assert (result.atoms.get_momenta() == whole.atoms.get_momenta()).all()
    assert (result.atoms.cell == whole.atoms.cell).all()
    for number in ("steps", "duration", "temperature", "drift", "fluctuation", "pressure", "volume"):
        assert getattr(result, number) == getattr(whole, number), number
    frames, expected = read(tmp_path / name, ":"), read(tmp_path / f"whole.{suffix}", ":")
    assert [frame.info["step"] for frame in frames] == list(range(0, 41, 5))
    assert all((a.positions == b.positions).all() for a, b in zip(frames, expected, strict=True))
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "whole.csv").read_text()


@pytest.mark.parametrize("step", [2, 12, 23, 38])
def test_a_process_that_is_killed_loses_nothing_but_time(run, tmp_path, sudden, step):
    run("whole.extxyz")
    kill(run, step)
    kill(run, 39, resume=True)
    run(resume=True)
    for name in ("{}.extxyz", "{}.csv"):
        assert (tmp_path / name.format("run")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()


def test_restart_files_are_rare_and_the_last_is_of_the_end(run, tmp_path, monkeypatch):
    steps, write = [], checkpoint.write

    def count(path, kind, header, arrays):
        steps.append(header["step"])
        write(path, kind, header, arrays)

    monkeypatch.setattr(checkpoint, "write", count)
    monkeypatch.setattr(restart, "MIN_PAUSE", 1e9)
    run(interval=1)
    assert steps == [None, 40]
    kill(run, name="other.traj", interval=1)
    assert steps == [None, 40, None, 23]


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are those of /proc")
@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
def test_a_power_cut_finds_frames_and_rows_where_the_restart_file_is(
    run, tmp_path, monkeypatch, disk, suffix
):
    monkeypatch.setattr(restart, "MIN_PAUSE", 0)
    (tmp_path / "logs").mkdir()
    run(f"run.{suffix}", log=tmp_path / "logs" / "run.csv")
    renames = [k for k, (name, _) in enumerate(disk) if name == f"renamed run.{suffix}.restart"]
    assert len(renames) == 10  # the beginning, and nine frames
    for before, now in itertools.pairwise(renames):
        names = [name for name, _ in disk[before + 1 : now]]
        assert {f"run.{suffix}", "run.csv", tmp_path.name, "logs"} <= set(names)
        assert names[-1] == f"run.{suffix}.restart"
    last = dict(disk)
    assert last[f"run.{suffix}"] == (tmp_path / f"run.{suffix}").stat().st_size
    assert last["run.csv"] == (tmp_path / "logs" / "run.csv").stat().st_size


def test_a_network_in_float32_goes_on_to_its_rounding(potential, ethanol, tmp_path):
    from pyg_schnet.simulation import SchNetCalculator

    ends = []
    for name in ("whole", "parts"):
        for duration in (0.03,) if name == "whole" else (0.01, 0.03):
            ethanol.calc = SchNetCalculator(potential, dtype=torch.float32)
            end = run_md(ethanol, duration=duration, trajectory=tmp_path / f"{name}.traj", resume=True)
        ends.append(end.atoms.positions)
    assert np.abs(ends[1] - ends[0]).max() < 1e-9


def test_numbers_may_be_numpys(run):
    kinds = {"seed": np.int64(3), "interval": np.int32(5), "temperature": np.float32(250)}
    kill(run, **kinds)
    assert run(resume=True, seed=3, temperature=250.0).steps == 40


def test_a_finished_run_may_become_longer(run, tmp_path):
    run(duration=0.02)
    again = run(duration=0.02, resume=True)
    assert again.steps == 20
    longer = run(duration=0.04, resume=True)
    assert (longer.atoms.positions == run("whole.traj").atoms.positions).all()
    assert longer.steps == 40


def test_a_run_begins_where_there_is_none(run, tmp_path):
    result = run(resume=True)
    assert result.steps == 40
    assert len(read(tmp_path / "run.extxyz", ":")) == 9


def _kill_before_a_frame(run, monkeypatch):
    def fail(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(md, "draw_momenta", fail)
        kill(run)


def test_a_run_that_had_no_frame_yet_begins_again(run, monkeypatch):
    _kill_before_a_frame(run, monkeypatch)
    assert run(resume=True).steps == 40


def test_the_limits_may_change(run):
    stopped = run(max_force=0.65)
    assert "the force on atom" in stopped.stopped
    assert 0 < stopped.steps < 40
    assert run(max_force=None, resume=True).steps == 40


def test_a_stricter_limit_holds_at_the_frame_to_go_on_from(run, tmp_path):
    run(duration=0.02)
    stopped = run(max_force=0.01, resume=True)
    assert stopped.stopped.startswith("at step 20 the force on atom")
    assert stopped.steps == 20
    assert len(read(tmp_path / "run.extxyz", ":")) == 5


def test_the_last_frame_before_a_resumed_run_stops_is_written_once(run, tmp_path):
    run("whole.traj", max_force=None, interval=1)
    forces = [
        np.linalg.norm(frame.get_forces(), axis=1).max() for frame in read(tmp_path / "whole.traj", ":")
    ]
    step = next(k for k in range(2, 40) if forces[k + 1] > forces[k])
    run(duration=step / 1000, interval=1, max_force=None)
    stopped = run(interval=1, max_force=(forces[step] + forces[step + 1]) / 2, resume=True)
    assert stopped.stopped.startswith(f"at step {step + 1} the force")
    assert [frame.info["step"] for frame in read(tmp_path / "run.extxyz", ":")] == list(range(step + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"temperature": 301.0},
            r"`temperature`.*300\.0.*resume.*301\.0",
        ),
        ({"timestep": 2.0}, r"`timestep` must be 1\.0"),
        ({"seed": 1}, r"`seed` must be 0"),
        ({"interval": 10}, r"`interval` must be 5"),
        ({"kind": "langevin"}, "`thermostat`.*'nve'.*'langevin'"),
    ],
)
def test_other_settings_are_named(run, options, message):
    kill(run)
    with pytest.raises(ValueError, match=message):
        run(resume=True, **options)


def test_a_damaged_restart_file_is_refused(run, tmp_path, flip):
    kill(run)
    path = tmp_path / "run.extxyz.restart"
    flip(path, 8 * path.stat().st_size - 70)  # a low bit of a momentum
    with pytest.raises(ValueError, match=r"run.extxyz.restart: .* checksum"):
        run(resume=True)


def test_another_structure_is_refused(run, copper):
    kill(run)
    copper.rattle(0.01)
    with pytest.raises(ValueError, match=r"`atoms`.*structure"):
        run(resume=True)


def test_another_potential_is_refused(run, copper, springs):
    kill(run)
    copper.calc = springs(copper)
    with pytest.raises(ValueError, match=r"`atoms.calc`.*resume.*energy"):
        run(resume=True)


@pytest.mark.parametrize("change", ["weights", "members", "cutoff"])
def test_a_potential_of_nearly_the_same_energy_is_refused(run, ethanol, potential, change):
    def calculator(changed):
        own, other = copy.deepcopy(potential), copy.deepcopy(potential)
        with torch.no_grad():
            other.scale.mul_(1.1)
            if changed:
                (own if change == "weights" else other).scale.mul_(1 + 1e-7)
        if change == "cutoff" and changed:
            own = Potential(SchNet(**{**asdict(potential.model.config), "cutoff": 20.0}))
            own.load_state_dict(potential.state_dict())
            return SchNetCalculator(own)
        return SchNetCalculator(Ensemble([own, other]) if change == "members" else own)

    ethanol.calc = calculator(False)
    kill(run, atoms=ethanol)
    ethanol.calc = calculator(True)
    with pytest.raises(ValueError, match=r"`atoms.calc`.*resume"):
        run(atoms=ethanol, resume=True)
    ethanol.calc = calculator(False)
    assert run(atoms=ethanol, resume=True).steps == 40


def test_a_restart_file_of_an_earlier_version_goes_on(run, tmp_path, ethanol, potential):
    ethanol.calc = SchNetCalculator(potential)
    kill(run, atoms=ethanol)
    header, tensors = checkpoint.read(tmp_path / "run.extxyz.restart", "dynamics")
    del header["potential"]
    save_file(tensors, tmp_path / "run.extxyz.restart", metadata={"pyg_schnet": json.dumps(header)})
    assert run(atoms=ethanol, resume=True).steps == 40


def test_a_stored_run_of_version_0_1_goes_on(tmp_path):
    """Files of commit fcd9648: a run of 40 steps that was killed at step 23, and the log of one that was not.

    The checkpoint holds ``SchNet(hidden_channels=4, num_filters=4, num_interactions=1, num_gaussians=6,
    cutoff=4.0, envelope="polynomial")`` with random weights.
    """
    for name in ("run.extxyz", "run.extxyz.restart", "run.csv"):
        shutil.copy(DATA / name, tmp_path)
    water = read(DATA / "water.traj")
    water.calc = SchNetCalculator(DATA / "water.safetensors")
    path = tmp_path / "run.extxyz"
    settings = {
        "thermostat": "langevin",
        "friction": 0.1,
        "duration": 0.02,
        "equilibration": 0.005,
        "seed": 3,
    }
    run_md(water, trajectory=path, log=tmp_path / "run.csv", interval=5, resume=True, **settings)
    found, expected = (
        np.genfromtxt(folder, delimiter=",") for folder in (tmp_path / "run.csv", DATA / "whole.csv")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert [frame.info["step"] for frame in read(path, ":")] == list(range(0, 41, 5))


@pytest.mark.parametrize(
    "constraint",
    [lambda: FixAtoms([0]), lambda: FixBondLengths([[0, 1]]), FixCom, lambda: Hookean(0, 1, rt=2.5, k=5)],
)
def test_constraints_are_told_by_what_they_do(run, copper, constraint):
    copper.set_constraint(constraint())
    kill(run)
    copper.set_constraint(constraint())
    assert run(resume=True).steps == 40
    copper.set_constraint(Hookean(0, 1, rt=2.4, k=50))
    with pytest.raises(ValueError, match=r"`atoms`.*structure"):
        run(resume=True)


class Lame:
    """A constraint with the methods that ASE requires."""

    def adjust_positions(self, atoms, new):
        new[0] = atoms.positions[0]

    def adjust_forces(self, atoms, forces):
        forces[0] = 0

    def get_removed_dof(self, atoms):
        return 3


class LameToo(Lame, FixConstraint):
    pass


@pytest.mark.parametrize("kind", [Lame, LameToo])
def test_constraints_that_do_not_tell_what_they_are_are_refused(run, copper, kind):
    copper.set_constraint(kind())
    kill(run)
    with pytest.raises(ValueError, match=r"constraints.*todict\(\).*resume"):
        run(resume=True)


def test_a_trajectory_without_its_restart_file_is_refused_and_left_alone(run, tmp_path):
    kill(run)
    (tmp_path / "run.extxyz.restart").unlink()
    before = (tmp_path / "run.extxyz").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"run\.extxyz\.restart.*no such"):
        run(resume=True)
    assert (tmp_path / "run.extxyz").read_bytes() == before


def test_a_run_without_a_trajectory_cannot_be_resumed(copper):
    with pytest.raises(ValueError, match=r"`resume`.*`trajectory`"):
        run_md(copper, resume=True)


@pytest.mark.parametrize("begun", [True, False])
def test_another_log_than_that_of_the_run_is_left_alone(run, tmp_path, monkeypatch, begun):
    run("other.traj")
    precious = (tmp_path / "other.csv").read_text()
    if begun:
        kill(run)
    else:
        _kill_before_a_frame(run, monkeypatch)
    with pytest.raises(FileExistsError, match=r"other\.csv.*exists.*another"):
        run(resume=True, log=tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_text() == precious
    run(resume=True, log=tmp_path / "new.csv")
    rows = (tmp_path / "new.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(25 if begun else 0, 41, 5))


def test_a_file_where_the_log_was_to_be_is_left_alone(run, tmp_path, monkeypatch):
    _kill_before_a_frame(run, monkeypatch)
    (tmp_path / "run.csv").write_text("my,own\n1,2\n")
    with pytest.raises(ValueError, match=r"run\.csv.*log.*resume"):
        run(resume=True)
    (tmp_path / "run.csv").write_text("step,ti")  # the header of ours, broken off
    assert run(resume=True).steps == 40
    assert (tmp_path / "run.csv").read_text().startswith("step,time_ps,")


def test_a_run_may_move_with_its_folder(run, tmp_path):
    (tmp_path / "here").mkdir()
    kill(run, name="here/run.traj")
    (tmp_path / "here").rename(tmp_path / "there")
    assert run("there/run.traj", resume=True).log == tmp_path / "there" / "run.csv"


def test_another_file_is_not_taken_for_the_log(run, tmp_path):
    kill(run)
    (tmp_path / "run.csv").write_text("my,own\n1,2\n")
    with pytest.raises(ValueError, match=r"run\.csv.*log.*resume"):
        run(resume=True)


def test_of_two_that_resume_one_run_one_is_refused(run, tmp_path, monkeypatch):
    kill(run)
    read_point = RestartFile.read

    def read_late(self):
        point = read_point(self)
        monkeypatch.setattr(RestartFile, "read", read_point)
        run(resume=True)  # another process, from the same point to the end
        return point

    monkeypatch.setattr(RestartFile, "read", read_late)
    with pytest.raises(FileExistsError, match=r"another.*process"):
        run(resume=True)
    assert len(read(tmp_path / "run.extxyz", ":")) == len((tmp_path / "run.csv").read_text().splitlines()) - 1


def test_a_torn_log_is_not_resumed(run, tmp_path):
    kill(run)
    log = tmp_path / "run.csv"
    header, *rows = log.read_text().splitlines(keepends=True)
    log.write_text(header + rows[0] + rows[1][:20] + "".join(rows))
    before = log.read_bytes(), (tmp_path / "run.extxyz").read_bytes()
    with pytest.raises(ValueError, match=r"run\.csv.*3.*broken"):
        run(resume=True)
    assert (log.read_bytes(), (tmp_path / "run.extxyz").read_bytes()) == before


@pytest.mark.parametrize("left", ["", "step,ti"])
def test_a_log_that_lost_its_rows_is_not_resumed(run, tmp_path, left):
    kill(run)
    (tmp_path / "run.csv").write_text(left)
    with pytest.raises(ValueError, match=r"run\.csv.*log.*resume"):
        run(resume=True)
    assert (tmp_path / "run.csv").read_text() == left


@pytest.mark.parametrize("log", ["run.extxyz", "run.extxyz.restart"])
def test_a_log_is_no_other_file_of_the_run(run, tmp_path, log):
    with pytest.raises(ValueError, match="`log` must be different files"):
        run(log=tmp_path / log)


@pytest.mark.parametrize("first", ["run.pdb", "run.pdb.extxyz"])
def test_the_frames_beside_a_trajectory_are_claimed_too(run, tmp_path, first):
    with (
        TrajectoryFile(tmp_path / first),
        pytest.raises(FileExistsError, match="another process"),
    ):
        run({"run.pdb": "run.pdb.extxyz", "run.pdb.extxyz": "run.pdb"}[first], log=None)
