import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from pyg_schnet import Ensemble
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.simulation import SchNetCalculator, StructureError, predict
from pyg_schnet.transforms.ase_atoms import from_ase


@pytest.fixture
def frames(ethanol, crystal):
    frames = [molecule("H2O"), ethanol, crystal, molecule("C6H6"), molecule("N2")]
    for number, frame in enumerate(frames):
        frame.info["number"] = number
    return frames


def one_by_one(calculator, frames):
    for frame in frames:
        frame = frame.copy()
        frame.calc = calculator
        yield frame.get_potential_energy(), frame.get_forces()


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_batch_equals_one_by_one_in_order(potential, calculator, frames, batch_size):
    results = list(predict(potential, frames, batch_size))
    assert [frame.info["number"] for frame in results] == list(range(5))
    for frame, (energy, forces) in zip(results, one_by_one(calculator, frames), strict=True):
        assert frame.get_potential_energy() == pytest.approx(energy, abs=1e-10)
        assert np.abs(frame.get_forces() - forces).max() < 1e-10


def test_a_frame_may_be_an_atom(potential):
    atom = Atoms("O")
    (result,) = predict(potential, [atom])
    expected = potential(from_ase(atom))["energy"].item()
    assert result.get_potential_energy() == pytest.approx(expected, abs=1e-12)
    assert (result.get_forces() == 0).all()


def test_frames_are_read_when_results_are_asked_for(potential, frames):
    taken = []

    def source():
        for frame in frames:
            taken.append(frame)
            yield frame

    results = predict(potential, source(), batch_size=2)
    assert len(taken) == 0
    next(results)
    assert len(taken) == 2
    next(results)
    assert len(taken) == 2
    next(results)
    assert len(taken) == 4


def test_energies_alone_need_no_gradient(potential, frames, no_gradient):
    (result, *_) = predict(potential, frames, forces=False)
    assert np.isfinite(result.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="forces"):
        result.get_forces()


def test_info_and_arrays_are_kept_and_the_frames_unchanged(potential, ethanol):
    ethanol.info["source"] = "here"
    ethanol.arrays["label"] = np.arange(9)
    ethanol.calc = SinglePointCalculator(ethanol, energy=-1.0)
    (result,) = predict(potential, [ethanol])
    assert result.info == {"source": "here"}
    assert (result.arrays["label"] == np.arange(9)).all()
    assert ethanol.get_potential_energy() == -1.0
    result.positions += 1
    assert np.abs(result.positions - ethanol.positions).min() > 0.5


def test_results_survive_a_file(potential, frames, tmp_path):
    results = list(predict(potential, frames))
    write(tmp_path / "out.extxyz", results)
    for frame, result in zip(read(tmp_path / "out.extxyz", ":"), results, strict=True):
        energy = result.get_potential_energy()
        assert frame.get_potential_energy() == pytest.approx(energy, rel=1e-8)
        assert np.abs(frame.get_forces() - result.get_forces()).max() < 1e-7  # eight digits


def test_a_file_of_a_potential_serves_as_well(potential, ethanol, tmp_path):
    save(potential, tmp_path / "model.safetensors")
    (result,) = predict(tmp_path / "model.safetensors", [ethanol])
    ethanol.calc = SchNetCalculator(potential)
    assert result.get_potential_energy() == ethanol.get_potential_energy()


def test_nothing_in_nothing_out(potential):
    assert list(predict(potential, [])) == []


def test_one_structure_is_refused(potential, ethanol):
    with pytest.raises(TypeError, match=r"Atoms.*\[atoms\]"):
        predict(potential, ethanol)


def test_other_things_are_refused(potential):
    with pytest.raises(TypeError, match=r"ase.Atoms.*index.*0"):
        list(predict(potential, ["H2O"]))


def test_a_batch_of_nothing_is_refused(potential):
    with pytest.raises(ValueError, match=r"`batch_size`.*at least 1.*0"):
        predict(potential, [], batch_size=0)


def test_a_refused_structure_is_located(potential, frames):
    frames[3] = molecule("SiH4")
    results = predict(potential, frames, batch_size=2)
    for _ in range(3):
        next(results)
    with pytest.raises(StructureError, match=r"structure 3: `z` contains 14") as caught:
        next(results)
    assert caught.value.number == 3


def left_handed(atoms):
    atoms.cell[[0, 1]] = atoms.cell[[1, 0]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.set_positions(a.positions * np.nan), "positions must be finite, got .* for atom 0"),
        (lambda a: a.set_positions(0 * a.positions), "`pos` must not place two atoms at one point"),
        (left_handed, "the cell must be right-handed, got .*; exchange two of its vectors"),
        (lambda a: a.set_cell(np.nan * a.cell), "the cell must be finite"),
        (lambda a: a.set_cell([[0, 1, 1], [0, 1, 1], [1, 0, 0]]), "a lattice vector for each periodic"),
        (lambda a: a.set_cell(None), "a lattice vector for each periodic direction"),
        (lambda a: a.__delitem__([0, 1]), "must have atoms, got none"),
        (lambda a: a.set_atomic_numbers([6, 14]), "`z` contains 14, which was absent from training"),
    ],
)
def test_what_is_wrong_with_a_structure_is_told_and_it_is_left_out(potential, frames, spoil, message):
    expected = [frame.get_potential_energy() for frame in predict(potential, frames)]
    spoil(frames[2])
    with pytest.raises(StructureError, match=rf"structure 2: .*{message}"):
        list(predict(potential, frames))
    refused = []
    results = list(predict(potential, frames, on_refused=refused.append))
    assert [frame.info["number"] for frame in results] == [0, 1, 3, 4]
    assert [error.number for error in refused] == [2]
    assert [r.get_potential_energy() for r in results] == pytest.approx(
        [expected[k] for k in (0, 1, 3, 4)], abs=1e-10
    )


def test_stresses_are_those_of_the_calculator_and_molecules_have_none(potential, calculator, frames):
    slab = frames[2].copy()
    slab.pbc, slab.cell[2] = (True, True, False), 0
    *results, flat = predict(potential, [*frames, slab], stress=True)
    crystal = frames[2].copy()
    crystal.calc = calculator
    assert np.abs(results[2].get_stress() - crystal.get_stress()).max() < 1e-10
    for frame in (*results[:2], *results[3:], flat):
        with pytest.raises(PropertyNotImplementedError, match="stress"):
            frame.get_stress()


def test_an_ensemble_tells_how_far_it_disagrees(potential, frames):
    other = copy.deepcopy(potential)
    with torch.no_grad():
        other.scale *= 1.1
    ensemble = Ensemble([potential, other]).eval()
    for frame, result in zip(frames, predict(ensemble, frames), strict=True):
        expected = ensemble(from_ase(frame))
        assert result.info["energy_deviation"] == pytest.approx(expected["energy_deviation"].item(), abs=1e-9)
        doubts = expected["forces_deviation"].numpy()
        assert np.abs(result.arrays["forces_deviation"] - doubts).max() < 1e-9
        assert result.info["max_forces_deviation"] == pytest.approx(doubts.max(), abs=1e-9)


def test_a_long_run_is_compiled_and_the_numbers_stay(potential, ethanol):
    energies = [result.get_potential_energy() for result in predict(potential, [ethanol] * 12, batch_size=1)]
    assert energies == pytest.approx(12 * energies[:1], abs=1e-9)


@pytest.mark.parametrize("forces", [True, False])
def test_a_prediction_that_is_not_finite_names_structure_and_quantity(overflowing, forces):
    frames = [Atoms("O"), Atoms("H"), molecule("H2O"), Atoms("C"), molecule("CH4")]
    found = []
    with pytest.raises(StructureError, match=r"`energy`.*finite.*(nan|inf|-inf)") as refused:
        found.extend(predict(overflowing, frames, forces=forces))
    assert (refused.value.number, len(found)) == (2, 2)
    left_out = []
    assert len(list(predict(overflowing, frames, forces=forces, on_refused=left_out.append))) == 3
    assert [error.number for error in left_out] == [2, 4]


def test_a_molecule_beside_a_crystal_needs_no_stress(potential, crystal):
    results = list(predict(potential, [molecule("H2O"), crystal], stress=True))
    assert np.isfinite(results[1].get_stress()).all()
