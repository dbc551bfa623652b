"""The functions of the package: the results of the commands, errors as exceptions, nothing printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from torch import nn

import pyg_schnet
from pyg_schnet import Ensemble, Potential, cli
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.potentials import Evaluation
from pyg_schnet.training import Callback, RunDirectory
from pyg_schnet.transforms.ase_atoms import to_ase

SAMPLE = Path(__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
TINY = {
    "data": {"n_train": 64, "n_val": 16},
    "model": {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 20},
    "trainer": {"max_steps": 4, "val_every": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, trained by the function."""
    return pyg_schnet.train(SAMPLE, out=tmp_path_factory.mktemp("functions") / "run", **TINY)


@pytest.fixture(autouse=True)
def _prints_nothing(capsys):
    yield
    assert capsys.readouterr() == ("", "")


def same_weights(one: Path, other: Path) -> bool:
    states = [pyg_schnet.load(path).state_dict() for path in (one, other)]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class TestTrain:
    def test_the_run_is_that_of_the_command(self, run, tmp_path, capsys):
        options = [
            f"--{section}.{name}={value}" for section, own in TINY.items() for name, value in own.items()
        ]
        out = ["--data.path", str(SAMPLE), "--out", str(tmp_path / "run")]
        assert cli.main(["train", "own_file", *options, *out, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert same_weights(run.model, tmp_path / "run" / "model.safetensors")
        assert {name: value for name, value in told["best"].items() if name != "minutes"} == {
            name: value for name, value in run.best.items() if name != "minutes"
        }

    def test_callbacks_are_called_and_may_end_the_run(self, tmp_path):
        class StopAtOnce(pyg_schnet.training.Callback):
            def on_validation(self, training, metrics):
                training.stop()

        run = pyg_schnet.train(SAMPLE, out=tmp_path / "run", **TINY, callbacks=[StopAtOnce()])
        assert run.best["step"] == 2
        assert [row["step"] for row in run.read_metrics()] == [2]

    def test_the_run_holds_its_potential_and_its_errors(self, run):
        assert isinstance(run, RunDirectory)
        assert isinstance(run.potential, Potential)
        assert not run.potential.training
        assert pyg_schnet.load(run).state_dict().keys() == run.potential.state_dict().keys()
        assert run.best["val_forces_mae_eV_per_A"] == min(
            row["val_forces_mae_eV_per_A"] for row in run.read_metrics()
        )

    def test_a_recipe_of_the_users_and_its_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        recipe = {**TINY, "data": {**TINY["data"], "path": str(SAMPLE)}, "out": "mine"}
        recipe["trainer"] = {**recipe["trainer"], "lr": "1e-3"}  # text for YAML 1.1
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
        trained = pyg_schnet.train(recipe="recipe.yaml", trainer={"max_steps": np.int64(2)})
        assert trained.path == Path("mine")
        written = yaml.safe_load(trained.config.read_text())
        assert written["trainer"]["max_steps"] == 2
        assert written["trainer"]["lr"] == 1e-3

    @pytest.mark.process
    def test_a_model_of_the_users(self, tmp_path):
        class Springs(nn.Module):
            def __init__(self):
                super().__init__()
                self.strength = nn.Parameter(torch.tensor(0.1))

            def forward(self, z, pos, batch):
                energy = (self.strength * pos.square()).sum(1)
                return energy.new_zeros(int(batch.max()) + 1).index_add(0, batch, energy)

        options = {**TINY, "model": Springs(), "out": tmp_path / "run"}
        trained = pyg_schnet.train(SAMPLE, **options)
        assert isinstance(trained.potential.model, Springs)
        assert trained.potential.model is not options["model"]
        by_run, by_potential = (pyg_schnet.evaluate(one, SAMPLE) for one in (trained, trained.potential))
        assert torch.equal(by_run.energy, by_potential.energy)

    @pytest.mark.process
    def test_print_receives_the_lines_of_the_command(self, tmp_path):
        lines = []
        pyg_schnet.train(SAMPLE, out=tmp_path / "run", report=lines.append, **TINY)
        assert any(line.startswith("Training on 64 structures, validating on 16") for line in lines)
        assert sum("validation: energy" in line for line in lines) == 2

    @pytest.mark.process
    def test_what_looks_wrong_is_a_python_warning(self, tmp_path):
        frames, rng = [molecule("CH3CH2OH") for _ in range(12)], np.random.default_rng(0)
        for number, frame in enumerate(frames):
            frame.rattle(0.02, rng=rng)
            frame.calc = SinglePointCalculator(frame, energy=float(number), forces=np.zeros((9, 3)))
        ase.io.write(tmp_path / "frames.extxyz", frames + frames[:2])
        with pytest.warns(UserWarning) as warned:  # noqa: PT030 - several; one is checked below
            pyg_schnet.train(
                tmp_path / "frames.extxyz", out=tmp_path / "run", **{**TINY, "data": {"n_val": 2}}
            )
        assert any("copy of earlier ones" in str(warning.message) for warning in warned)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (
                {"trainer": {"max_step": 3}},
                ValueError,
                r"`trainer\.max_step` is not an option.*`trainer\.max_st",
            ),
            (
                {"trainer": {"max_steps": 1.5}},
                ValueError,
                r"`trainer\.max_steps` must be a whole number, got 1\.5",
            ),
            ({"trainer": {"lr": "fast"}}, ValueError, r"`trainer\.lr` must be a number, got 'fast'"),
            ({"trainer": {"lr": True}}, ValueError, r"`trainer\.lr` must be a number, got True"),
            (
                {"trainer": {"max_minutes": "x"}},
                ValueError,
                r"max_minutes` must be a number or null, got 'x'",
            ),
            ({"data": {"n_train": 10**5}}, ValueError, r"`data\.n_train` .* fit into the 1500"),
            ({"data": {"path": "x"}}, ValueError, r"`path` .* are the same"),
            ({"model": {"cutoff": -5}}, ValueError, r"`cutoff` must be positive"),
            (
                {"trainer": 3},
                TypeError,
                r'`trainer` must be a mapping .* got int; as in trainer=\{"max_minutes"',
            ),
            ({"model": nn.Linear}, TypeError, r"`model` must be .* got the class Linear; call it"),
            (
                {"model": nn.Linear(3, 1)},
                TypeError,
                r"`model` must have forward\(z, pos, batch\), got Linear\.forward\(input\); wrap it",
            ),
            ({"trainer": {"epochs": 3}}, ValueError, r"Did you mean `trainer\.max_steps`"),
            ({"callbacks": [print]}, TypeError, r"`callbacks` must be a list .* got builtin_function"),
            ({"callbacks": Callback()}, TypeError, r"`callbacks` must be a list .* got Callback"),
            ({"report": 3}, TypeError, r"`report` must be a function"),
            ({"recipe": "own_fiel"}, FileNotFoundError, r"own_fiel: no such recipe.*'own_file'"),
            ({"resume": True, "overwrite": True}, ValueError, r"exclude each other"),
        ],
    )
    def test_a_wrong_option_is_an_exception_and_nothing_is_written(self, options, error, message, tmp_path):
        with pytest.raises(error, match=message):
            pyg_schnet.train(SAMPLE, out=tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()

    def test_a_missing_path_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"`data\.path` must name your data"):
            pyg_schnet.train(out=tmp_path / "run")

    def test_an_existing_run_is_kept(self, run):
        before = run.model.read_bytes()
        with pytest.raises(FileExistsError, match="exists"):
            pyg_schnet.train(SAMPLE, out=run, **TINY)
        assert run.model.read_bytes() == before


class TestEvaluate:
    def test_the_errors_are_those_of_the_command(self, run, capsys):
        errors = pyg_schnet.evaluate(run, SAMPLE, part="val")
        assert cli.main(["evaluate", str(run.path), str(SAMPLE), "--part", "val", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == errors.as_dict()
        assert errors.n == 16
        assert errors.forces_mae == pytest.approx(run.best["val_forces_mae_eV_per_A"], rel=1e-6)

    def test_every_kind_of_model_and_data(self, run):
        dataset = AtomsDataset(path=SAMPLE)[run.read_split().val]
        assert isinstance(dataset, AtomsDataset)
        kinds = (run, run.path, str(run.model), run.potential, [run.model])
        errors = [pyg_schnet.evaluate(kind, dataset).energy_mae for kind in kinds]
        assert errors == [errors[0]] * len(kinds)
        assert pyg_schnet.evaluate(run, SAMPLE, "val").energy_mae == errors[0]

    def test_a_table_with_units_is_printed(self, run):
        errors = pyg_schnet.evaluate(run, SAMPLE)
        lines = str(errors).splitlines()
        assert lines[0] == "Errors on 1,500 structures"
        assert f"{1e3 * errors.energy_mae:.2f}" in lines[2]
        assert lines[2].split()[3] == "meV"
        assert lines[3].endswith("kcal/mol/Å")
        assert lines[-1].startswith("64 of these structures were trained on")
        assert repr(errors).startswith("ModelEvaluation(n=1500, energy_mae=")
        assert isinstance(errors, Evaluation)

    @pytest.mark.process
    def test_an_ensemble_is_calibrated(self, run, tmp_path):
        other = pyg_schnet.train(
            SAMPLE, out=tmp_path / "b", **{**TINY, "trainer": {"max_steps": 4, "seed": 1}}
        )
        ensemble = tmp_path / "ensemble.json"
        picture = tmp_path / "picture.png"
        errors = pyg_schnet.evaluate([run, other], SAMPLE, "val", calibrate=ensemble, plot=picture)
        assert errors.calibration["forces"].factor > 0
        assert isinstance(Ensemble.load(ensemble), Ensemble)
        assert picture.read_bytes().startswith(b"\x89PNG")
        with pytest.raises(FileExistsError, match="exists"):
            pyg_schnet.evaluate([run, other], SAMPLE, "val", calibrate=ensemble)

    def test_the_number_of_threads_is_restored(self, run):
        before = torch.get_num_threads()
        pyg_schnet.evaluate(run, SAMPLE, "val", threads=before + 1)
        assert torch.get_num_threads() == before

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"part": "tset"}, ValueError, r"`part` must be one of train, val, test; got 'tset'"),
            ({"threads": 0}, ValueError, r"`threads` must be at least 1, got 0"),
            ({"batch_size": 0}, ValueError, "`--batch_size` must be at least 1, got 0"),
            ({"calibrate": "e.json"}, ValueError, "two checkpoints or more"),
            ({"plot": "parity.txt"}, ValueError, "must be a picture"),
            ({"model": nn.Linear(1, 1)}, TypeError, r"`model` must be a Potential, .* got Linear"),
            ({"model": []}, ValueError, "`model` must name at least one checkpoint"),
            ({"model": "nowhere"}, FileNotFoundError, "nowhere: no such checkpoint"),
            ({"data": "nowhere.xyz"}, FileNotFoundError, r"nowhere\.xyz: no such file"),
            ({"data": 3}, TypeError, r"`data` must be a file or a data set of PyG, got int"),
        ],
    )
    def test_a_wrong_argument_is_an_exception(self, options, error, message, run):
        arguments = {"model": run, "data": SAMPLE, **options}
        with pytest.raises(error, match=message):
            pyg_schnet.evaluate(arguments.pop("model"), arguments.pop("data"), **arguments)

    def test_calibration_needs_the_paths_that_it_stores(self, run, tmp_path):
        ensemble = Ensemble([run.potential, run.potential])
        with pytest.raises(ValueError, match="`calibrate` needs the paths"):
            pyg_schnet.evaluate(ensemble, SAMPLE, calibrate=tmp_path / "e.json")

    def test_a_part_needs_the_split_beside_the_model(self, run):
        with pytest.raises(ValueError, match="`part` needs the path of a run"):
            pyg_schnet.evaluate(run.potential, SAMPLE, "val")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of three structures within the training domain."""
    path = tmp_path_factory.mktemp("structures") / "in.extxyz"
    ase.io.write(path, [to_ase(AtomsDataset(path=SAMPLE)[number], with_results=False) for number in range(3)])
    return path


def assert_same(one: Atoms, other: Atoms) -> None:
    assert one.get_potential_energy() == other.get_potential_energy()
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.get_forces(), other.get_forces())


class TestPredict:
    def test_the_results_are_those_of_the_command(self, run, file, tmp_path):
        out = tmp_path / "out.traj"
        assert cli.main(["predict", str(run.path), str(file), str(out), "--quiet"]) == 0
        theirs = ase.io.read(out, ":")
        atoms = ase.io.read(file, ":")
        written = pyg_schnet.predict(run, file, tmp_path / "own.traj")
        for frames in (pyg_schnet.predict(run, file), pyg_schnet.predict(run.potential, atoms), written):
            assert len(frames) == 3
            for one, other in zip(frames, theirs, strict=True):
                assert_same(one, other)
        assert (tmp_path / "own.traj").read_bytes() == out.read_bytes()
        assert all(frame.calc is None for frame in atoms)

    def test_one_structure_returns_one(self, run, file):
        last = pyg_schnet.predict(run, ase.io.read(file, 2))
        assert_same(pyg_schnet.predict(run, file, index=-1), last)
        assert_same(pyg_schnet.predict(run, file, index=np.int64(2)), last)
        assert_same(pyg_schnet.predict(run, [ase.io.read(file, 2)])[0], last)

    def test_what_was_written_is_read_as_a_sequence(self, run, file, tmp_path):
        written = pyg_schnet.predict(run, str(file), tmp_path / "out.extxyz")
        assert written.path == tmp_path / "out.extxyz"
        assert [frame.info["input_frame"] for frame in written[::-1]] == [2, 1, 0]
        assert written[-1].info["input_frame"] == 2
        with pytest.raises(IndexError):
            written[3]
        assert repr(written) == f"PredictionFile('{written.path}', 3 structures)"

    @pytest.mark.parametrize("options", [{}, {"shard": "1/1"}])
    def test_a_complete_file_that_is_resumed_has_all_structures(self, options, run, file, tmp_path):
        first = pyg_schnet.predict(run, file, tmp_path / "out.extxyz", **options)
        again = pyg_schnet.predict(run, file, tmp_path / "out.extxyz", **options, resume=True)
        assert (len(first), first.earlier) == (3, 0)
        assert (len(again), again.earlier, again.was_complete) == (3, 3, True)

    def test_structures_in_memory_are_written_too(self, run, file, tmp_path):
        frame = pyg_schnet.predict(run, ase.io.read(file, 1), tmp_path / "out.traj")
        assert_same(ase.io.read(tmp_path / "out.traj"), frame)
        with pytest.raises(FileExistsError, match="exists"):
            pyg_schnet.predict(run, ase.io.read(file, 1), tmp_path / "out.traj")

    def test_rejected_structures_are_errors_or_left_out(self, run, file):
        frames = [ase.io.read(file, 0), molecule("SiH4")]
        with pytest.raises(ValueError, match="structure 1: `z` contains 14"):
            pyg_schnet.predict(run, frames)
        assert len(pyg_schnet.predict(run, frames, skip=True)) == 1

    def test_structures_outside_of_the_training_domain_are_warned_of(self, run, file, tmp_path):
        frames = ase.io.read(file, ":")
        frames[1].positions *= 0.7
        ase.io.write(tmp_path / "near.extxyz", frames)
        with pytest.warns(UserWarning, match="1 structure is outside the training domain.* first is 1: "):
            pyg_schnet.predict(run, frames)
        with pytest.warns(UserWarning, match="1 structure is outside the training domain.* first is 1: "):
            written = pyg_schnet.predict(run, tmp_path / "near.extxyz", tmp_path / "out.extxyz")
        assert [number for number, _ in written.outside.first] == [1]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"batch_size": 0}, ValueError, "`--batch_size` must be at least 1"),
            ({"processes": 2}, ValueError, "`processes` needs a file of structures, and `out`"),
            ({"out": "out.pdb"}, ValueError, "holds no energies and forces"),
            ({"structures": 3}, TypeError, "`structures` must be an ase.Atoms, a list of them, or a file"),
            ({"structures": []}, ValueError, "`structures` must hold at least one"),
            ({"structures": "nowhere.xyz"}, FileNotFoundError, "nowhere.xyz"),
            ({"model": 3}, TypeError, "`model` must be a Potential"),
        ],
    )
    def test_a_wrong_argument_is_an_exception(self, options, error, message, run):
        arguments = {"model": run, "structures": molecule("CH3CH2OH"), **options}
        with pytest.raises(error, match=message):
            pyg_schnet.predict(**arguments)


class TestRelax:
    @pytest.mark.process
    def test_the_results_are_those_of_the_command(self, run, file, tmp_path):
        out, goal = tmp_path / "out.traj", {"fmax": 0.5, "steps": 3}
        told = cli.main(
            ["relax", str(run.path), str(file), str(out), "--fmax", "0.5", "--steps", "3", "--quiet"]
        )
        theirs = ase.io.read(out, ":")
        written = pyg_schnet.relax(run, file, tmp_path / "own.traj", **goal)
        for frames in (pyg_schnet.relax(run, file, **goal), written):
            for one, other in zip(frames, theirs, strict=True):
                assert_same(one, other)
                assert one.info["converged"] == other.info["converged"]
                assert one.info["steps"] == other.info["steps"] <= 3
        assert told == (0 if all(frame.info["converged"] for frame in written) else 1)
        assert (tmp_path / "own.traj").read_bytes() == out.read_bytes()

    def test_one_structure_returns_one(self, run, file, tmp_path):
        out = tmp_path / "out.traj"
        cli.main(["relax", str(run.path), str(file), str(out), "--index", "1", "--steps", "2", "--quiet"])
        start = ase.io.read(file, 1)
        before = start.positions.copy()
        for relaxed in (
            pyg_schnet.relax(run, start, tmp_path / "own.traj", steps=2),
            pyg_schnet.relax(run, file, index=1, steps=2),
        ):
            assert_same(relaxed, ase.io.read(out))
        np.testing.assert_array_equal(start.positions, before)
        assert_same(ase.io.read(tmp_path / "own.traj"), relaxed)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"fmax": 0.0}, ValueError, "`fmax` must be positive and in eV/Å"),
            ({"optimizer": "bfgs"}, ValueError, "`optimizer` must be one of BFGS"),
            ({"resume": True}, ValueError, "`resume` needs a file"),
            ({"out": "out.nothing"}, ValueError, "ASE has no format"),
            ({"structures": molecule("SiH4")}, ValueError, "`z` contains 14"),
        ],
    )
    def test_a_wrong_argument_is_an_exception(self, options, error, message, run):
        arguments = {"model": run, "structures": molecule("CH3CH2OH"), **options}
        with pytest.raises(error, match=message):
            pyg_schnet.relax(**arguments)


class TestMd:
    SETTINGS: ClassVar = {"temperature": 50.0, "duration": 0.005, "interval": 5}
    OPTIONS: ClassVar = ["--temperature=50", "--duration=0.005", "--interval=5"]

    def test_the_trajectory_is_that_of_the_command(self, run, file, tmp_path, capsys):
        out = tmp_path / "out.extxyz"
        assert cli.main(["md", str(run.path), str(file), str(out), *self.OPTIONS, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        own = tmp_path / "own.extxyz"
        steps = []
        start = ase.io.read(file, -1)
        options = {**self.SETTINGS, "on_step": lambda step, frame: steps.append(step)}
        for structures in (file, start):
            result = pyg_schnet.md(run, structures, own, overwrite=True, **options)
            assert own.read_bytes() == out.read_bytes()
            assert own.with_suffix(".csv").read_bytes() == out.with_suffix(".csv").read_bytes()
            assert result.temperature == told["temperature"]
            assert result.log == own.with_suffix(".csv")
        assert start.calc is None
        assert steps == [*range(11)] * 2

    def test_without_out_no_file_is_written(self, run, file, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = pyg_schnet.md(run, ase.io.read(file, 0), **self.SETTINGS)
        assert result.trajectory is result.log is None
        assert not list(tmp_path.iterdir())

    @pytest.mark.process
    def test_several_structures_run_in_a_batch(self, run, file, tmp_path):
        out = tmp_path / "out.extxyz"
        assert (
            cli.main(["md", str(run.path), str(file), str(out), *self.OPTIONS, "--index=:", "--quiet"]) == 0
        )
        frames = ase.io.read(out, ":")
        for result in (
            pyg_schnet.md(run, file, index=":", **self.SETTINGS),
            pyg_schnet.md(run, ase.io.read(file, ":"), **self.SETTINGS),
        ):
            assert len(result.atoms) == 3
            last = [frame for frame in frames if frame.info["system"] == 2][-1]
            assert result.atoms[2].get_potential_energy() == pytest.approx(
                last.get_potential_energy(), abs=1e-6
            )

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"thermostat": "langevn"}, ValueError, "Did you mean 'langevin'"),
            (
                {"structures": [molecule("CH3CH2OH")] * 2, "log": "l.csv"},
                ValueError,
                "needs one structure, got 2",
            ),
            ({"structures": "in.xyz", "index": "first"}, ValueError, "`--index` must be a number or a slice"),
            ({"structures": 3}, TypeError, "`structures` must be an ase.Atoms"),
            ({"overwrite": True, "resume": True}, ValueError, "exclude each other"),
        ],
    )
    def test_a_wrong_argument_is_an_exception(self, options, error, message, run):
        arguments = {"model": run, "structures": molecule("CH3CH2OH"), **options}
        with pytest.raises(error, match=message):
            pyg_schnet.md(**arguments)

    def test_an_existing_trajectory_is_kept(self, run, file, tmp_path):
        (tmp_path / "out.extxyz").write_text("precious")
        with pytest.raises(FileExistsError, match="exists"):
            pyg_schnet.md(run, file, tmp_path / "out.extxyz")
        assert (tmp_path / "out.extxyz").read_text() == "precious"


def test_importing_the_package_stays_fast():
    code = "import sys, pyg_schnet; sys.exit('torch' in sys.modules or 'ase' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
