"""Stresses are trained on, validated, reported and drawn like energies and forces."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pyg_schnet import load
from pyg_schnet.cli.app import main
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.io.units import GPa
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.training import train


@pytest.fixture
def copper(tmp_path):
    """Strained and shaken cells of four copper atoms, with ASE's effective medium theory."""

    def to_file(name="copper.extxyz", frames=24, seed=0):
        rng = np.random.default_rng(seed)
        structures = []
        for _ in range(frames):
            atoms = bulk("Cu", cubic=True)
            strain = rng.uniform(-0.04, 0.04, (3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
            atoms.rattle(0.05, rng=rng)
            atoms.calc = EMT()
            results = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")}
            atoms.calc = SinglePointCalculator(atoms, **results)
            structures.append(atoms)
        write(tmp_path / name, structures)
        return str(tmp_path / name)

    return to_file


@pytest.fixture
def config(recipe, copper):
    def make(out="run", stress_key=None, **trainer):
        data = {"path": copper(), "n_train": 16, "n_val": 8, "stress_key": stress_key}
        options = {"max_steps": 150, "val_every": 75, "lr": 1e-2, **trainer}
        return recipe(out, model={"cutoff": 5.0, "envelope": "polynomial"}, data=data, **options)

    return make


def stress_error(run, copper):
    return evaluate(load(run.model), AtomsDataset(path=copper("other.extxyz", seed=1))).stress_rmse


def test_training_on_stresses_lowers_their_errors(config, copper, report):
    with_stress = train(config(energy_weight=0.01, stress_weight=10.0), report())
    without = train(config("other", stress_key="none", energy_weight=0.01), report())
    assert "val_stress_mae_eV_per_A3" in with_stress.read_metrics()[0]
    assert "val_stress_mae_eV_per_A3" not in without.read_metrics()[0]
    rows = with_stress.read_metrics()
    assert rows[-1]["val_stress_rmse_eV_per_A3"] < rows[0]["val_stress_rmse_eV_per_A3"]
    # Forces of cubic cells say little of stress; measured 0.008 and 0.05 eV/Å³.
    assert stress_error(with_stress, copper) < 0.5 * stress_error(without, copper)


def test_what_is_trained_on_and_how_large_errors_are_is_told(config, report):
    told = report()
    train(config(max_steps=5, val_every=5), told)
    text = told.text.getvalue()
    assert "energies, forces and stresses in eV and Å" in text
    assert " meV/Å³ (" in text
    assert " GPa)" in text


def test_the_best_weights_are_chosen_by_stresses_too(config, report, monkeypatch):
    from pyg_schnet.training import validation

    found, real = iter([3.0, 1.0, 2.0]), validation.evaluate

    def measured(*arguments):
        return replace(real(*arguments), energy_rmse=0.0, forces_rmse=0.0, virial_rmse=next(found))

    monkeypatch.setattr(validation, "evaluate", measured)
    told = report()
    train(config(max_steps=15, val_every=5), told)
    assert "Best validation at step 10 of 15" in told.text.getvalue()


def test_errors_of_stresses_are_given_in_electronvolts_and_gigapascal(
    config, copper, report, capsys, tmp_path
):
    run = train(config(max_steps=5, val_every=5), report())
    path = copper()
    assert main(["evaluate", str(run.model), path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stress = evaluate(load(run.model), AtomsDataset(path=path)).stress
    difference = (stress[1] - stress[0]).numpy()
    assert found["stress_mae"] == pytest.approx(np.abs(difference).mean(), rel=1e-10)
    assert found["stress_rmse_GPa"] == pytest.approx(np.sqrt((difference**2).mean()) / GPa, rel=1e-10)
    assert main(["evaluate", str(run.model), path, "--stress_key", "none", "--json"]) == 0
    assert "stress_mae" not in json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(run.model), path, "--plot", str(tmp_path / "parity.png")]) == 0
    assert "GPa" in capsys.readouterr().out
    assert (tmp_path / "parity.png").stat().st_size > 10_000


def test_validation_without_the_stresses_of_training_is_refused(config, copper, report, tmp_path):
    from ase.io import read

    frames = read(copper("val.extxyz", seed=2), ":")
    for atoms in frames:
        atoms.calc.results.pop("stress")
    write(tmp_path / "val.extxyz", frames)
    run = config()
    run = replace(run, data=replace(run.data, val_path=str(tmp_path / "val.extxyz"), n_val=None))
    with pytest.raises(ValueError, match=r"stresses.*`data\.stress_key`"):
        train(run, report())


@pytest.fixture
def mixed(copper, tmp_path):
    """Crystals with stresses among molecules whose stress is zero, as some programs write it."""
    from ase.io import read

    structures = read(copper(), ":")
    for number in range(0, len(structures), 2):
        results = {name: structures[number].calc.results[name] for name in ("energy", "forces")}
        structures[number].pbc = False
        structures[number].calc = SinglePointCalculator(structures[number], **results, stress=np.zeros(6))
    write(tmp_path / "mixed.extxyz", structures)
    return str(tmp_path / "mixed.extxyz")


@pytest.mark.parametrize("batch_size", [1, 8])
def test_sets_that_mix_crystals_and_molecules_are_trained_on(config, mixed, report, batch_size):
    run = config(max_steps=12, val_every=6, batch_size=batch_size, stress_weight=1.0)
    run = replace(run, data=replace(run.data, path=mixed, n_train=16, n_val=8))
    directory = train(run, report())
    dataset = AtomsDataset(path=mixed)
    found = [evaluate(load(directory.model), dataset, size) for size in (1, 24)]
    assert found[0].stress.shape == (2, 12, 3, 3)
    assert found[0].stress_rmse == pytest.approx(found[1].stress_rmse, rel=1e-4)


def test_molecules_with_stresses_are_trained_on_without(config, mixed, report, tmp_path):
    from ase.io import read

    write(tmp_path / "molecules.extxyz", read(mixed, "::2"))
    run = config(max_steps=4, val_every=2)
    run = replace(run, data=replace(run.data, path=str(tmp_path / "molecules.extxyz"), n_train=6, n_val=4))
    told = report()
    assert "val_stress_mae_eV_per_A3" not in train(run, told).read_metrics()[0]
    assert "energies and forces in eV" in told.text.getvalue()
