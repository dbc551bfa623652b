"""Results survive kills: each structure once, in order, and nothing incomplete has the name of OUT."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from pyg_schnet import Potential, SchNet, cli, load
from pyg_schnet.io.locks import FileLock
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.prediction.export import encode
from pyg_schnet.prediction.partial_output import PartialOutput, PredictionResult
from pyg_schnet.prediction.results import ResultFile
from pyg_schnet.simulation.structures import with_results

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, num_gaussians=8, cutoff=4.0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(Potential(network, scale=0.3, elements=[1, 6, 8]), path)
    return str(path)


@pytest.fixture
def frames():
    """Eight: molecules, a crystal and an atom."""
    found = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH4", "C6H6", "CO", "H2O", "O")]
    found.insert(2, bulk("C", "diamond", a=3.6))
    for seed, atoms in enumerate(found):
        atoms.rattle(0.05, seed=seed)
    return found


@pytest.fixture
def here(tmp_path, monkeypatch, frames):
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.xyz", frames)
    return tmp_path


def fails(capsys, *arguments: str) -> str:
    assert cli.main(list(arguments)) == 2
    return capsys.readouterr().err


def results(frames):
    """The same frames with numbers and made-up energies."""
    for number, atoms in enumerate(frames):
        frame = with_results(atoms, -float(number), 0.1 * atoms.positions)
        frame.info["input_frame"] = number
        yield frame


def same(one, other):
    assert [a.info["input_frame"] for a in one] == [a.info["input_frame"] for a in other]
    for a, b in zip(one, other, strict=True):
        assert np.abs(a.positions - b.positions).max() < 1e-7
        assert a.get_potential_energy() == pytest.approx(b.get_potential_energy(), abs=1e-6)
        assert np.abs(a.get_forces() - b.get_forces()).max() < 1e-6


def add(file, frame):
    file.add([PredictionResult(frame.info["input_frame"], encode(frame, file.kind))])


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz", ".traj", ".db", ".json", ".xyz.gz"])
def test_a_file_exists_when_it_is_complete(suffix, frames, tmp_path):
    out = tmp_path / f"out{suffix}"
    expected = list(results(frames))
    with ResultFile(str(out), {}) as file:
        for frame in expected:
            add(file, frame)
            assert not out.exists()
            assert len(list(file.frames())) == file.written
        file.finish()
    assert {path.name for path in tmp_path.iterdir()} == {out.name}
    found = ase.io.read(out, ":")
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
def test_after_a_power_cut_at_any_byte_whole_frames_are_left(suffix, seed, frames, tmp_path):
    """The write-ahead log is cut, or its end is lost and full of zeros."""
    out, expected = str(tmp_path / f"out{suffix}"), list(results(frames))
    (tmp_path / "after").mkdir()
    with ResultFile(out, {"fmax": 0.1}) as file:
        for frame in expected[:6]:
            add(file, frame)
        after = tmp_path / "after" / file.path.name
        wal = Path(f"{file.partial}-wal").read_bytes()
        size = random.Random(seed).randrange(len(wal) + 1)
        Path(f"{after}.partial").write_bytes(file.partial.read_bytes())
        Path(f"{after}.partial-wal").write_bytes(wal[:size] + bytes(seed % 2 * (len(wal) - size)))
    with ResultFile(str(after), {"fmax": 0.1}, resume=True) as file:
        found = list(file.frames())
        assert len(found) == file.written
        assert len(found) == 6 or size < len(wal)
        same(found, expected[: len(found)])
        for frame in expected[len(found) :]:
            add(file, frame)
        file.finish()
    same(ase.io.read(after, ":"), expected)
    assert [path.name for path in after.parent.iterdir()] == [after.name]


@pytest.mark.parametrize("suffix", [".traj", ".db", ".json"])
def test_formats_with_all_digits_get_all_digits(suffix, frames, tmp_path):
    frames[0].set_constraint(FixAtoms([0, 1]))
    frames[0].set_velocities(frames[0].positions / 3)
    frames[0].info |= {"note": "½", "spacegroup": object()}
    out, expected = str(tmp_path / f"out{suffix}"), list(results(frames))
    with ResultFile(out, {}) as file:
        for frame in expected:
            add(file, frame)
        file.finish()
    for one, other in zip(ase.io.read(out, ":"), expected, strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert np.array_equal(one.get_momenta(), other.get_momenta())
        assert np.array_equal(one.get_forces(), other.get_forces())
        assert [c.todict() for c in one.constraints] == [c.todict() for c in other.constraints]


@pytest.mark.parametrize("damage", ["cut", "no database", "other tables", "no settings"])
def test_damaged_results_are_not_resumed(damage, frames, tmp_path):
    out = str(tmp_path / "out.extxyz")
    with ResultFile(out, {}) as file:
        for frame in 40 * list(results(frames[:1])):
            frame.info["input_frame"] = file.written
            add(file, frame)
    if damage == "cut":
        os.truncate(file.partial, file.partial.stat().st_size - 5000)
    elif damage == "no database":
        file.partial.write_text("years of work")
    else:
        change = {
            "other tables": "CREATE VIEW endless AS SELECT 1",
            "no settings": "UPDATE run SET value = printf('%.*c', 100000, '[')",
        }[damage]
        with closing(sqlite3.connect(file.partial)) as database, database:
            database.execute(change)
    before = file.partial.read_bytes()
    with pytest.raises(ValueError, match=r"out.extxyz.partial.*damaged.*--overwrite"):
        ResultFile(out, {}, resume=True)
    with pytest.raises(FileExistsError, match=r"out.extxyz.partial.*--resume.*--overwrite"):
        ResultFile(out, {})
    assert file.partial.read_bytes() == before
    with ResultFile(out, {}, overwrite=True) as file:
        add(file, next(results(frames)))
        file.finish()
    assert len(ase.io.read(out, ":")) == 1


def test_a_damaged_result_and_those_after_it_are_computed_again(model, here, monkeypatch):
    command = ["relax", model, "in.xyz", "out.extxyz", "--steps", "3", "--quiet"]
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert cli.main(command) == 130
    with closing(sqlite3.connect("out.extxyz.partial")) as database, database:
        database.execute("UPDATE frames SET frame = replace(frame, '-', ' ') WHERE number = 2")
    add, added = ResultFile.add, []
    monkeypatch.setattr(ResultFile, "add", lambda self, rows: added.extend(rows) or add(self, rows))
    cli.main([*command, "--resume"])
    assert [row.number for row in added] == [2, 3, 4, 5, 6, 7]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    cli.main([*command[:3], "straight.extxyz", *command[4:]])
    same(ase.io.read("out.extxyz", ":"), ase.io.read("straight.extxyz", ":"))


def test_a_file_system_without_locks_holds_partial_results(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(FileLock, "is_supported", False)
    path = str(tmp_path / "out.extxyz")
    with ResultFile(path, {}) as file:
        add(file, next(results(frames)))
    with closing(sqlite3.connect(f"{path}.partial")) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            PartialOutput(Path(f"{path}.partial")).open()
        with ResultFile(path, {}, resume=True) as file:  # it asks for no lock
            assert file.written == 1
            file.finish()
    assert len(ase.io.read(path, ":")) == 1


@pytest.mark.parametrize("kind", ["extxyz", "traj"])
def test_partial_results_of_version_0_1_are_rejected_and_overwritten(kind, frames, tmp_path):
    out = tmp_path / f"out.{kind}"
    earlier = [Path(f"{out}.part.{suffix}") for suffix in (kind, "json")]
    for path in earlier:
        path.write_text("{}")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match=r"earlier version.*--overwrite"):
            ResultFile(str(out), {}, resume=resume)
    assert all(path.exists() for path in earlier)
    with ResultFile(str(out), {}, overwrite=True) as file:
        add(file, next(results(frames)))
        file.finish()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.process
def test_a_killed_process_goes_on_where_it_was(model, here, frames):
    many = [atoms for k in range(40) for atoms in frames]
    ase.io.write("many.xyz", many)
    command = [sys.executable, "-m", "pyg_schnet.cli", "predict", model, "many.xyz", "out.extxyz"]
    partial = Path("out.extxyz.partial")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--batch_size", "1"], env=environment)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and not (partial.exists() and frames_in(partial)):
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = frames_in(partial)
    assert 0 < done < len(many)
    assert not Path("out.extxyz").exists()
    assert cli.main(["predict", model, "many.xyz", "out.extxyz", "--resume", "--quiet"]) == 0
    assert cli.main(["predict", model, "many.xyz", "straight.extxyz", "--quiet"]) == 0
    same(ase.io.read("out.extxyz", ":"), ase.io.read("straight.extxyz", ":"))
    assert not partial.exists()


def frames_in(partial):
    """Count the frames by their bytes: a database that a process writes is locked."""
    paths = (partial, Path(f"{partial}-wal"))
    return sum(path.read_bytes().count(b"Properties") for path in paths if path.exists())


def stop_after(monkeypatch, count):
    """Interrupt when so many frames are written."""
    add = ResultFile.add

    def interrupted(self, results):
        if self.written == count:
            raise KeyboardInterrupt
        add(self, results)

    monkeypatch.setattr(ResultFile, "add", interrupted)


@pytest.mark.parametrize("options", [["--steps", "30"], ["--steps", "5", "--optimizer", "LBFGS"]])
def test_an_interrupted_relaxation_reports_it_and_continues(options, model, here, capsys, monkeypatch):
    command = ["relax", model, "in.xyz", "out.extxyz", "--fmax", "0.05", *options]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert cli.main(command) == 130
    assert "3 structures are done, in out.extxyz.partial; --resume" in capsys.readouterr().err
    assert "--resume continues it, --overwrite starts again" in fails(capsys, *command)
    code = cli.main([*command, "--resume", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["structures"] == 8
    assert [row["frame"] for row in told["results"]] == list(range(8))
    straight = ["relax", model, "in.xyz", "straight.extxyz", "--fmax", "0.05", *options, "--json"]
    assert cli.main(straight) == code
    expected = json.loads(capsys.readouterr().out)
    for one, other in zip(told["results"], expected["results"], strict=True):
        assert (one["converged"], one["steps"]) == (other["converged"], other["steps"])
        assert one["energy"] == pytest.approx(other["energy"], abs=1e-5)
    same(ase.io.read("out.extxyz", ":"), ase.io.read("straight.extxyz", ":"))
    assert cli.main([*command, "--resume"]) == code  # what is complete stays
    assert f"{told['converged']} of 8 structures converged" in capsys.readouterr().out


def test_a_run_goes_on_with_its_own_settings_models_and_input(model, here, frames, capsys, monkeypatch):
    command = ["relax", model, "in.xyz", "out.extxyz", "--steps", "3"]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert cli.main(command) == 130
    capsys.readouterr()
    partial = Path("out.extxyz.partial").read_bytes()
    message = fails(capsys, *command, "--resume", "--fmax", "0.5")
    assert "`--resume` must have the settings of the run" in message
    assert "fmax was 0.01, now it is 0.5" in message
    ase.io.write("other.xyz", frames[::-1])
    message = fails(capsys, "relax", model, "other.xyz", *command[3:], "--resume")
    assert "its frame 0 does not come from other.xyz" in message
    ase.io.write("short.xyz", frames[:2])
    assert "its frame 2 does not come from short.xyz" in fails(
        capsys, "relax", model, "short.xyz", *command[3:], "--resume"
    )
    assert "exclude each other" in fails(capsys, *command, "--resume", "--overwrite")
    assert Path("out.extxyz.partial").read_bytes() == partial
    cli.main([*command, "--overwrite", "--quiet"])
    assert len(ase.io.read("out.extxyz", ":")) == 8


def test_a_refused_structure_is_named_then_mended_or_left_out(model, here, frames, capsys):
    bad = [atoms.copy() for atoms in frames]
    bad[4] = molecule("SiH4")
    ase.io.write("bad.xyz", bad)
    command = ["predict", model, "bad.xyz", "out.xyz", "--batch_size", "3"]
    message = fails(capsys, *command)
    assert "bad.xyz: frame 4, counted from 0: `z` contains 14, which was absent from training" in message
    assert "4 structures are done, in out.xyz.partial" in message
    assert cli.main([*command, "--resume", "--skip"]) == 0
    text = capsys.readouterr().out
    assert "7 structures" in text
    assert "left out: frame 4, `z` contains 14" in " ".join(text.split())
    assert [atoms.info["input_frame"] for atoms in ase.io.read("out.xyz", ":")] == [0, 1, 2, 3, 5, 6, 7]
    assert "--skip" in fails(capsys, "predict", model, "bad.xyz", "mended.xyz")
    assert cli.main(["predict", model, "in.xyz", "mended.xyz", "--resume", "--quiet"]) == 0
    assert len(ase.io.read("mended.xyz", ":")) == 8


def change_a_digit(path, frame):
    """Change the last position in a frame of extended xyz by some 1e-5 Å; the size stays."""
    lines = Path(path).read_text().splitlines(keepends=True)
    end = 0
    for _ in range(frame + 1):
        end += int(lines[end]) + 2
    old = lines[end - 1].rstrip()
    lines[end - 1] = lines[end - 1].replace(old, old[:-4] + ("1" if old[-4] != "1" else "2") + old[-3:])
    Path(path).write_text("".join(lines))


def test_a_finished_file_is_of_all_of_its_input(model, here, frames, capsys):
    for atoms in frames[:3]:
        atoms.info["note"] = "x" * 2**19
    ase.io.write("long.xyz", frames[:4])
    command = ["predict", model, "long.xyz", "out.extxyz", "--quiet"]
    assert cli.main(command) == 0
    assert cli.main([*command, "--resume"]) == 0
    size = Path("long.xyz").stat().st_size
    change_a_digit("long.xyz", 3)
    assert Path("long.xyz").stat().st_size == size
    assert "another input" in fails(capsys, *command, "--resume")


@pytest.mark.parametrize("changed", [1, 5])
def test_a_run_continues_where_only_later_structures_changed(changed, model, here, frames, capsys):
    bad = [atoms.copy() for atoms in frames]
    bad[4] = molecule("SiH4")
    ase.io.write("in.xyz", bad)
    command = ["predict", model, "in.xyz", "out.xyz", "--batch_size", "1"]
    assert "4 structures are done" in fails(capsys, *command)
    ase.io.write("in.xyz", frames)
    change_a_digit("in.xyz", changed)
    if changed == 1:
        assert "does not come from in.xyz" in fails(capsys, *command, "--resume")
        return
    assert cli.main([*command, "--resume", "--quiet"]) == 0
    found, asked = ase.io.read("out.xyz", ":"), ase.io.read("in.xyz", ":")
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(found, asked, strict=True))


@pytest.mark.parametrize("changed", [1, 5])
def test_a_relaxation_continues_where_only_later_structures_changed(
    changed, model, here, capsys, monkeypatch
):
    command = ["relax", model, "in.xyz", "out.extxyz", "--steps", "3"]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert cli.main(command) == 130
    change_a_digit("in.xyz", changed)
    if changed == 1:
        assert "does not come from in.xyz" in fails(capsys, *command, "--resume")
        return
    assert cli.main([*command, "--resume", "--quiet"]) in (0, 1)
    assert len(ase.io.read("out.extxyz", ":")) == 8


def test_a_frame_that_cannot_be_read_is_named_and_those_before_are_kept(model, here, capsys):
    lines = Path("in.xyz").read_text().splitlines(keepends=True)
    lines[11 + 5 + 4 + 3] = "H  zero 0 0\n"  # in the fourth
    Path("in.xyz").write_text("".join(lines))
    message = fails(capsys, "predict", model, "in.xyz", "out.xyz", "--batch_size", "1")
    assert "in.xyz: frame 3, counted from 0, cannot be read" in message
    assert "3 structures are done" in message


@pytest.mark.parametrize("change", ["model", "input", "settings"])
def test_a_finished_file_of_another_run_is_not_taken_for_this_one(change, model, here, frames, capsys):
    ase.io.write("in.extxyz", frames[:2])
    assert cli.main(["relax", model, "in.extxyz", "out.extxyz", "--steps", "2", "--quiet"]) == 1
    again = ["relax", model, "in.extxyz", "out.extxyz", "--steps", "2", "--resume", "--quiet"]
    assert cli.main(again) == 1  # nothing is left to do, and it had not converged
    if change == "model":
        other = load(model)
        save(other, "other.safetensors", {"another": True})
        again[1] = "other.safetensors"
    elif change == "input":
        ase.io.write("in.extxyz", frames[1:3])
    else:
        again[5] = "3"
    capsys.readouterr()
    assert cli.main(again) == 2
    assert "nothing is left to resume, --overwrite starts again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "in.extxyz", "in.extxyz", "--overwrite"], "`IN` and `OUT` must be different files"),
        (["select", "in.extxyz", "in.extxyz", "--overwrite"], "`IN` and `OUT` must be different files"),
        (["relax", "in.extxyz", "o.traj", "--trajectory", "o.traj"], "`OUT` and `--trajectory` must be"),
        (["md", "in.extxyz", "o.extxyz", "--log", "o.extxyz"], "`OUT` and `--log` must be different files"),
        (["predict", "in.extxyz", "out.pdb"], "out.pdb: proteindatabank holds no energies and forces"),
    ],
)
def test_no_file_destroys_another_and_no_result_is_lost(arguments, message, model, here, frames, capsys):
    ase.io.write("in.extxyz", frames[:1])
    before = Path("in.extxyz").read_bytes()
    verb, *rest = arguments
    assert cli.main([verb, model, *rest]) == 2
    assert message in capsys.readouterr().err
    assert Path("in.extxyz").read_bytes() == before


@pytest.mark.parametrize("verb", ["predict", "relax"])
def test_structures_unlike_the_training_set_are_told(verb, model, here, frames, capsys):
    known = load(model)
    known.domain = TrainingDomain({(1, 8): 5.0, (1, 6): 5.0})  # Å: anything is closer
    save(known, "known.safetensors")
    ase.io.write("in.extxyz", frames[:2])
    cli.main([verb, "known.safetensors", "in.extxyz", "out.extxyz"])
    told = " ".join(capsys.readouterr().out.split())
    assert "are outside the training domain, and their energies may be far off; the first is frame" in told
    cli.main([verb, model, "in.extxyz", "other.extxyz"])
    assert "training domain" not in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_no_model(here, frames, capsys):
    ase.io.write("in.extxyz", frames[:1])
    assert cli.main(["predict", ".", "in.extxyz", "out.extxyz"]) == 2
    assert ".: must be a checkpoint or the directory of a training run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("index", "numbers"),
    [("3", [3]), ("-1", [7]), ("::3", [0, 3, 6]), ("=-2:", [6, 7]), ("1:-5", [1, 2]), (":2", [0, 1])],
)
@pytest.mark.parametrize("name", ["in.xyz", "in.traj", "in.json"])
def test_an_index_chooses(index, numbers, name, model, here, frames):
    ase.io.write(name, frames)
    option = [f"--index{index}"] if index.startswith("=") else ["--index", index]
    assert cli.main(["predict", model, name, "out.traj", *option, "--quiet"]) == 0
    found = ase.io.read("out.traj", ":")
    assert [atoms.info["input_frame"] for atoms in found] == numbers
    for number, atoms in zip(numbers, found, strict=True):
        assert np.abs(atoms.positions - frames[number].positions).max() < 1e-7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["out.xyz", "--index", "x"],
            "`--index` must be a number or a slice that counts up, as ::10, got 'x'",
        ),
        (["out.xyz", "--index", "::-1"], "a slice that counts up"),
        (["out.xyz", "--index", "8"], "in.xyz: has no structure 8; they count from 0"),
        (["out.xyz", "--index=-9"], "in.xyz: has no structure -9"),
        (["out.xyz", "--index", "9:"], "must hold at least one structure of this `--index`, got none"),
        (["POSCAR"], "POSCAR: vasp holds no energies and forces, which would be lost"),
        (["OUTCAR"], "OUTCAR: ASE reads vasp-out and does not write it"),
    ],
)
def test_what_cannot_be_chosen_or_written_is_told_before_the_work(arguments, message, model, here, capsys):
    assert message in fails(capsys, "predict", model, "in.xyz", *arguments)
    assert [path.name for path in here.iterdir()] == ["in.xyz"]


def test_relaxed_structures_tell_how_far_they_got(model, here, frames, capsys):
    frames[0].set_constraint(FixAtoms([0, 1]))
    ase.io.write("in.xyz", frames)
    assert cli.main(["relax", model, "in.xyz", "out.extxyz", "--steps", "2", "--fmax", "1e-6"]) == 1
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 110
    assert "1 of 8 structures converged, in 0 to 2 steps, half of them within 2: out.extxyz" in text
    found = ase.io.read("out.extxyz", ":")
    assert [bool(atoms.info["converged"]) for atoms in found] == 7 * [False] + [True]
    assert [atoms.info["steps"] for atoms in found] == 7 * [2] + [0]
    assert np.abs(found[0].positions[:2] - frames[0].positions[:2]).max() < 1e-7


def test_one_structure_may_leave_its_path(model, here, capsys):
    command = ["relax", model, "in.xyz", "out.xyz", "--steps", "3", "--fmax", "1e-6"]
    message = fails(capsys, *command, "--trajectory", "path.traj")
    assert "`--trajectory` must be used with a single structure" in message
    cli.main([*command, "--trajectory", "path.traj", "--index", "0"])
    assert [atoms.info["step"] for atoms in ase.io.read("path.traj", ":")] == [0, 1, 2, 3]
    assert "NOT converged after 3 steps" in capsys.readouterr().out


def test_cells_relax_and_molecules_have_none(model, here, capsys):
    command = ["relax", model, "in.xyz", "out.traj", "--cell", "--steps", "2", "--fmax", "1e-6"]
    assert "frame 0, counted from 0: `cell` needs a structure that is periodic" in fails(capsys, *command)
    assert cli.main([*command, "--index", "2", "--pressure", "1"]) == 1
    (atoms,) = ase.io.read("out.traj", ":")
    assert atoms.get_stress().shape == (6,)
    assert abs(atoms.cell.volume / bulk("C", "diamond", a=3.6).cell.volume - 1) > 1e-6


def test_quiet_and_json_say_no_more_than_asked_for(model, here, capsys):
    assert cli.main(["predict", model, "in.xyz", "out.xyz", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["predict", model, "in.xyz", "out.xyz", "--json", "--overwrite"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["structures"], told["refused"], told["out"]) == (8, [], "out.xyz")
    assert cli.main(["relax", model, "in.xyz", "r.xyz", "--quiet", "--fmax", "9"]) == 0
    assert capsys.readouterr().out == ""


def test_stale_results_of_the_input_do_not_pass_through(model, here, frames):
    frames[0].info |= {"converged": True, "energy_deviation": 7.0, "energy": -3.0}
    frames[0].arrays["forces_deviation"] = np.ones(len(frames[0]))
    ase.io.write("in.traj", frames)
    assert cli.main(["predict", model, "in.traj", "out.extxyz", "--quiet"]) == 0
    assert set(ase.io.read("out.extxyz", 0).info) == {"input_frame", "run"}


def test_crystals_get_their_stress_and_several_models_their_doubt(model, here, tmp_path):
    torch.manual_seed(1)
    network = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, num_gaussians=8, cutoff=4.0)
    save(Potential(network, scale=0.3, elements=[1, 6, 8]), "other.safetensors")
    assert cli.main(["predict", f"{model},other.safetensors", "in.xyz", "out.extxyz", "--quiet"]) == 0
    found = ase.io.read("out.extxyz", ":")
    assert [k for k, atoms in enumerate(found) if "stress" in atoms.calc.results] == [2]
    for atoms in found:
        assert atoms.info["energy_deviation"] > 0
        assert atoms.arrays["forces_deviation"].max() == pytest.approx(
            atoms.info["max_forces_deviation"], abs=1e-7
        )
