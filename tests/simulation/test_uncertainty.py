"""Tests of ensembles: mean forces, deviations, and the selection of structures to label."""

import copy

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError

from pyg_schnet import Ensemble
from pyg_schnet.cli import main
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.simulation import SchNetCalculator, run_md, select
from pyg_schnet.transforms.ase_atoms import from_ase


@pytest.fixture
def potentials(potential):
    """Three that differ by noise of their weights."""
    members = []
    for seed in range(3):
        member = copy.deepcopy(potential)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in member.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter += 0.05 * noise
        members.append(member)
    return members


@pytest.fixture
def paths(potentials, tmp_path):
    names = [str(tmp_path / f"{number}.safetensors") for number in range(len(potentials))]
    for name, potential in zip(names, potentials, strict=True):
        save(potential, name)
    return names


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("system", ["ethanol", "crystal"])
def test_atoms_move_by_the_mean(potentials, request, system, compile):
    atoms = request.getfixturevalue(system)
    expected = Ensemble(potentials).eval()(from_ase(atoms), stress=system == "crystal")
    atoms.calc = SchNetCalculator(Ensemble(potentials), compile=compile)
    if system == "crystal":
        assert np.abs(atoms.get_stress(voigt=False) - expected["stress"][0].numpy()).max() < 1e-10
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"].item(), abs=1e-8)
    assert np.abs(atoms.get_forces() - expected["forces"].numpy()).max() < 1e-8
    results = atoms.calc.results
    assert results["energy_deviation"] == pytest.approx(expected["energy_deviation"].item(), abs=1e-8)
    assert np.abs(results["forces_deviation"] - expected["forces_deviation"].numpy()).max() < 1e-8


def test_deviations_which_ase_has_no_name_for_are_no_obstacle_to_it(potentials, crystal, tmp_path):
    crystal.calc = SchNetCalculator(Ensemble(potentials))
    forces = crystal.get_forces()
    exported = crystal.calc.export_properties()
    assert set(exported) == {"energy", "free_energy", "forces", "natoms"}
    ase.io.write(tmp_path / "crystal.extxyz", crystal)
    assert np.abs(ase.io.read(tmp_path / "crystal.extxyz").get_forces() - forces).max() < 1e-7


def test_several_files_are_an_ensemble_and_one_is_none(paths, ethanol):
    ethanol.calc = SchNetCalculator(paths)
    ethanol.get_forces()
    assert "forces_deviation" in ethanol.calc.results
    ethanol.calc = SchNetCalculator(paths[:1])
    ethanol.get_forces()
    assert "forces_deviation" not in ethanol.calc.results


def test_energies_of_atoms_need_one_potential(potentials, ethanol):
    ethanol.calc = SchNetCalculator(Ensemble(potentials))
    with pytest.raises(PropertyNotImplementedError, match=r"atoms.*potential"):
        ethanol.get_potential_energies()


def test_dynamics_stops_at_the_first_step_where_the_potentials_disagree(potentials, ethanol, tmp_path):
    ethanol.calc = SchNetCalculator(Ensemble(potentials))
    path, deviations = tmp_path / "md.extxyz", []
    options = {"temperature": 1000, "duration": 0.1, "interval": 1000}

    def watch(step, frame):
        deviations.append(ethanol.calc.results["forces_deviation"].max())

    assert run_md(ethanol, **options, on_step=watch, stop_if_uncertain=1e6).stopped is None
    limit = 0.5 * (max(deviations) + sorted(deviations)[len(deviations) // 2])
    first = int(np.argmax(np.array(deviations) > limit))
    result = run_md(ethanol, **options, stop_if_uncertain=limit, trajectory=path)
    assert result.steps == first < 200
    assert f"at step {first}, more than {limit:g}" in result.stopped
    assert ase.io.read(path, -1).info["step"] == first == result.atoms.info["step"]
    assert result.duration == first * 0.5 / 1000


def test_a_run_that_ended_in_doubt_ends_there_again_when_it_is_resumed(potentials, ethanol, tmp_path):
    ethanol.calc = SchNetCalculator(Ensemble(potentials))
    path = tmp_path / "md.extxyz"
    options = {"duration": 0.01, "interval": 1, "trajectory": path, "resume": True}
    first, again = (run_md(ethanol, **options, stop_if_uncertain=1e-9) for _ in range(2))
    assert "at step 0, more than" in first.stopped
    assert again.stopped == first.stopped
    assert len(ase.io.read(path, ":")) == 1
    assert run_md(ethanol, **options).steps == 20


def test_the_calculator_may_be_used_between_steps(potentials, ethanol):
    ethanol.calc = SchNetCalculator(Ensemble(potentials))
    water = molecule("H2O")
    options = {"duration": 0.005, "temperature": 1000}
    plain = run_md(ethanol, **options, stop_if_uncertain=1e-9)
    used = run_md(
        ethanol,
        **options,
        stop_if_uncertain=1e-9,
        on_step=lambda *_: ethanol.calc.get_potential_energy(water),
    )
    assert used.stopped == plain.stopped


def test_one_potential_has_no_doubt_to_stop_at(calculator, ethanol):
    ethanol.calc = calculator
    with pytest.raises(ValueError, match=r"`stop_if_uncertain`.*calculator.*several.*potentials"):
        run_md(ethanol, stop_if_uncertain=0.1)
    with pytest.raises(ValueError, match=r"`stop_if_uncertain`.*positive.*eV/Å.*-1"):
        run_md(ethanol, stop_if_uncertain=-1)


@pytest.fixture
def pool():
    structures = [molecule(name) for name in 3 * ("CH4", "H2O", "CH3CH2OH", "C6H6")]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.02 * seed, seed=seed)
    return structures


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_most_uncertain_are_chosen(potentials, pool, batch_size):
    ensemble = Ensemble(potentials).eval()
    each = [float(ensemble(from_ase(atoms))["forces_deviation"].max()) for atoms in pool]
    chosen = select(ensemble, pool, 4, batch_size)
    assert [number for number, _ in chosen] == np.argsort(each)[::-1][:4].tolist()
    assert [value for _, value in chosen] == pytest.approx(sorted(each)[::-1][:4], rel=1e-9)
    assert len(select(ensemble, pool, 100)) == len(pool)


def test_wrong_selections_are_refused(potential, potentials, pool):
    with pytest.raises(TypeError, match=r"`potentials`.*several"):
        select(potential, pool, 3)
    with pytest.raises(ValueError, match=r"`k`.*at least 1.*0"):
        select(Ensemble(potentials), pool, 0)
    with pytest.raises(ValueError, match=r"`pool`.*at least.*structure"):
        select(Ensemble(potentials), [], 3)


def test_the_command_line_selects_and_stops(paths, pool, tmp_path, capsys):
    ase.io.write(tmp_path / "pool.xyz", pool)
    files = [str(tmp_path / "pool.xyz"), str(tmp_path / "chosen.xyz")]
    assert main(["select", ",".join(paths), *files, "--k", "5"]) == 0
    assert "5 of 12 structures, with largest deviations of a force from" in " ".join(
        capsys.readouterr().out.split()
    )
    chosen = ase.io.read(files[1], ":")
    expected = select(paths, ase.io.read(files[0], ":"), 5)
    for atoms, (number, _) in zip(chosen, expected, strict=True):
        assert np.abs(atoms.positions - pool[number].positions).max() < 1e-6
    assert main(["select", paths[0], *files, "--overwrite"]) == 2
    assert "`model` must be two checkpoints or more" in capsys.readouterr().err
    out = str(tmp_path / "md.extxyz")
    settings = ["--duration", "2", "--temperature", "3000", "--stop_if_uncertain", "0.02", "--index", "2"]
    assert main(["md", ",".join(paths), files[0], out, *settings]) == 1
    assert "stopped: the potentials disagree" in " ".join(capsys.readouterr().out.split())
    assert len(ase.io.read(out, ":")) >= 1
