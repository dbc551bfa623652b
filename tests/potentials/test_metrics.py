"""Errors are what NumPy finds by hand, over all structures at once."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from torch import nn

from pyg_schnet import Potential, RadiusGraph
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.potentials.metrics import evaluate

KCAL = 0.0433641042418009  # eV
ATOMS, FRAMES = 3, 7


class Shifted(nn.Module):
    """A potential that errs by what it is told to: labels plus errors, looked up by ``idx``."""

    def __init__(self, dataset, energy_error, forces_error):
        super().__init__()
        self.inner = nn.Dropout(0.5)  # something that has a mode
        self.register_buffer("atomref", torch.zeros(100, dtype=torch.float64))
        self.dataset, self.energy_error, self.forces_error = dataset, energy_error, forces_error
        self.modes, self.sizes = [], []

    def forward(self, batch, forces=True):
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.sizes.append(batch.num_graphs)
        out = {"energy": batch.energy + torch.from_numpy(self.energy_error)[batch.idx]}
        if forces:
            out["forces"] = batch.forces + torch.from_numpy(self.forces_error)[batch.idx].view(-1, 3)
        return out


class ShiftedEnergy(Shifted):
    """The same with forces that are right."""

    def forward(self, batch, forces=True):
        return super().forward(batch, forces=False) | ({"forces": batch.forces} if forces else {})


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    shape = (FRAMES, ATOMS, 3)
    arrays = {"R": rng.normal(size=shape), "E": rng.normal(size=FRAMES) - 1e4, "F": rng.normal(size=shape)}
    np.savez(tmp_path / "frames.npz", z=[8, 1, 1], **arrays)
    return tmp_path / "frames.npz"


@pytest.fixture
def dataset(path):
    return AtomsDataset(path=path)


@pytest.fixture
def errors():
    rng = np.random.default_rng(1)
    energy, forces = rng.normal(size=FRAMES), rng.normal(size=(FRAMES, ATOMS, 3))
    energy[-1] = 50.0  # the last batch, incomplete, weighs as much as it has molecules
    forces[-1] = -20.0
    return energy, forces


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_errors_are_means_over_all_structures_and_components(dataset, errors, batch_size):
    energy, forces = errors
    result = evaluate(Shifted(dataset, energy, forces), dataset, batch_size)
    assert result.n == FRAMES
    assert result.energy_mae == pytest.approx(np.abs(energy).mean(), rel=1e-10)
    assert result.energy_rmse == pytest.approx(np.sqrt((energy**2).mean()), rel=1e-10)
    assert result.forces_mae == pytest.approx(np.abs(forces).mean(), rel=1e-10)
    assert result.forces_rmse == pytest.approx(np.sqrt((forces**2).mean()), rel=1e-10)


def test_batches_have_the_size_that_is_asked_for(dataset, errors):
    potential = Shifted(dataset, *errors)
    evaluate(potential, dataset, 3)
    assert potential.sizes == [3, 3, 1]


def test_labels_and_predictions_are_handed_out_in_the_order_of_the_data_set(dataset, errors):
    energy, forces = errors
    result = evaluate(Shifted(dataset, energy, forces), dataset, 3)
    labels = torch.cat([item.energy for item in dataset])
    assert torch.equal(result.energy[0], labels)
    torch.testing.assert_close(result.energy[1] - labels, torch.from_numpy(energy), atol=1e-10, rtol=0)
    assert torch.equal(result.forces[0], torch.cat([item.forces for item in dataset]))
    difference = (result.forces[1] - result.forces[0]).view(FRAMES, ATOMS, 3)
    torch.testing.assert_close(difference, torch.from_numpy(forces), atol=1e-12, rtol=0)
    assert result.z.tolist() == [8, 1, 1] * FRAMES


def test_the_same_errors_are_given_in_kcal_per_mol(dataset, errors):
    result = evaluate(Shifted(dataset, *errors), dataset)
    report = result.as_dict()
    names = ["energy_mae", "energy_rmse", "forces_mae", "forces_rmse"]
    assert list(report) == ["n", *names, *(f"{name}_kcal" for name in names)]
    for name in names:
        assert report[name] == getattr(result, name)
        assert report[f"{name}_kcal"] == pytest.approx(report[name] / KCAL, rel=1e-14)


def test_a_data_set_of_energies_has_no_errors_of_forces(path, errors):
    dataset = AtomsDataset(path=path, forces_key="none")
    result = evaluate(Shifted(dataset, *errors), dataset, 2)
    assert result.energy_mae == pytest.approx(np.abs(errors[0]).mean(), rel=1e-10)
    assert (result.forces, result.forces_mae, result.forces_rmse) == (None, None, None)
    assert list(result.as_dict()) == ["n", "energy_mae", "energy_rmse", "energy_mae_kcal", "energy_rmse_kcal"]


@pytest.mark.parametrize("training", [True, False])
def test_the_potential_is_evaluated_without_gradients_and_handed_back_as_it_was(dataset, errors, training):
    potential = Shifted(dataset, *errors).train(training)
    evaluate(potential, dataset)
    assert potential.modes == [(False, False)]
    assert potential.training is training
    assert potential.inner.training is training


def test_the_potential_is_handed_back_as_it_was_after_an_error(dataset):
    potential = Potential(nn.MultiheadAttention(1, 1), elements=[6]).train()
    with pytest.raises(ValueError, match=r"`z`.*1.*absent.*training"):
        evaluate(potential, dataset)
    assert potential.training


def test_the_global_generator_is_left_alone(dataset, errors):
    before = torch.get_rng_state()
    evaluate(Shifted(dataset, *errors), dataset, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_data_set_is_refused(dataset, errors):
    with pytest.raises(ValueError, match=r"^`dataset`.*at least.*structure.*0"):
        evaluate(Shifted(dataset, *errors), dataset[[]])


def test_the_errors_of_a_potential_are_those_of_its_predictions(dataset, default):
    potential = Potential(default, scale=0.5)
    result = evaluate(potential, dataset, 4)
    potential.eval()
    energy = [(potential(item)["energy"] - item.energy).item() for item in dataset]
    forces = torch.cat([potential(item)["forces"] - item.forces for item in dataset])
    # Batches in float32 distances, one by one: the same to 1e-6.
    assert result.energy_mae == pytest.approx(np.abs(energy).mean(), rel=1e-9)
    assert result.forces_mae == pytest.approx(forces.abs().mean().item(), rel=1e-5)


def test_edges_of_a_transform_are_used(path, default):
    potential = Potential(default)
    plain = evaluate(potential, AtomsDataset(path=path))
    given = evaluate(potential, AtomsDataset(path=path, transform=RadiusGraph(4.0)))
    assert given.energy_mae == pytest.approx(plain.energy_mae, rel=1e-9)
    none = evaluate(potential, AtomsDataset(path=path, transform=RadiusGraph(1e-3)))
    assert none.energy_mae != pytest.approx(plain.energy_mae, rel=1e-9)


def test_each_submodule_keeps_its_own_mode(dataset, errors):
    potential = Shifted(dataset, *errors)
    potential.inner.eval()  # frozen, while the rest is trained
    evaluate(potential, dataset, 3)
    assert potential.training
    assert not potential.inner.training
    assert potential.modes[0] == (False, False)


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_a_prediction_that_is_not_finite_is_refused_with_its_structure(dataset, errors, quantity):
    energy, forces = errors
    (energy if quantity == "energy" else forces)[4] = np.nan
    evaluation = evaluate(Shifted(dataset, energy, forces), dataset, 2)
    with pytest.raises(ValueError, match=rf"`{quantity}`.*finite.*1.*7.*4"):
        evaluation.require_finite()
    with pytest.raises(ValueError, match="the first is 44,"):
        evaluation.require_finite(range(40, 47))


def test_finite_predictions_pass(dataset, errors):
    evaluate(Shifted(dataset, *errors), dataset).require_finite()


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False)])
def test_energies_of_periodic_structures_are_also_per_atom(tmp_path, errors, pbc):
    rng = np.random.default_rng(0)
    structures = []
    for number in range(FRAMES):
        size = 2 + number % 3
        atoms = Atoms(f"Si{size}", rng.uniform(0, 9, (size, 3)), cell=[9, 9, 9], pbc=pbc)
        atoms.calc = SinglePointCalculator(atoms, energy=-5.0 * size, forces=np.zeros((size, 3)))
        structures.append(atoms)
    write(tmp_path / "si.extxyz", structures)
    dataset = AtomsDataset(path=tmp_path / "si.extxyz")
    energy, _ = errors
    found = evaluate(ShiftedEnergy(dataset, energy, None), dataset, batch_size=2)
    per_atom = energy / found.sizes.numpy()
    rows = {row[0]: row[1:4] for row in found.rows()}
    assert found.periodic == any(pbc)
    assert ("energy/atom" in rows) == any(pbc)
    if any(pbc):
        expected = (1e3 * np.abs(per_atom).mean(), 1e3 * np.sqrt((per_atom**2).mean()), "meV/atom")
        assert rows["energy/atom"] == (
            pytest.approx(expected[0]),
            pytest.approx(expected[1]),
            expected[2],
        )
        assert "meV/atom" in str(found)
