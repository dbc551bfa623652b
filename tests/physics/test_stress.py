import numpy as np
import pytest
import torch
from ase.build import bulk, make_supercell
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential, RadiusGraph, SchNet
from pyg_schnet.transforms.ase_atoms import from_ase

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # ASE's


@pytest.fixture
def potential(randomize):
    """Twice differentiable at its cutoff, which is longer than the cells below are wide."""
    options = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12}
    return Potential(
        randomize(SchNet(**options, cutoff=4.0, envelope="polynomial").double()), scale=3.0
    ).eval()


def crystal(seed=0):
    """A sheared, shaken cell of silicon and carbon, with atoms outside of it."""
    rng = np.random.default_rng(seed)
    atoms = bulk("SiC", "zincblende", a=4.4, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    atoms.positions[2] += 2 * atoms.cell[0] - atoms.cell[2]
    return atoms


def strained(atoms, strain):
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ (np.eye(3) + strain))
    other.positions = atoms.positions @ (np.eye(3) + strain)
    return other


def energy(potential, atoms):
    return float(potential(from_ase(atoms), forces=False)["energy"])


# 2e-10 eV/Å³ of 0.2: four-point differences of step 1e-4 and energies of 10 eV; measured 8e-12.
@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (0, 0, 1)])
def test_the_stress_is_the_derivative_of_the_energy_by_strain_over_the_volume(potential, pbc):
    atoms = crystal()
    atoms.pbc = pbc
    numeric = np.zeros((3, 3))
    h = 1e-4
    for a, b in VOIGT:
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        for steps, weight in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
            there = energy(potential, strained(atoms, steps * h * strain))
            numeric[a, b] += weight * there / (h * atoms.get_volume())
        numeric[b, a] = numeric[a, b]
    stress = potential(from_ase(atoms), stress=True)["stress"][0]
    assert stress.abs().max() > 1e-3
    assert_close(stress, torch.from_numpy(numeric), atol=2e-10, rtol=0)


def test_a_stretched_crystal_pulls_back_which_is_positive_as_in_ase():
    class Spring(torch.nn.Module):  # at rest where all neighbors are 2.35 Å away
        def forward(self, z, pos, batch, edge_index=None, shift=None, cell=None):
            d = (pos[edge_index[0]] - pos[edge_index[1]] + shift.to(pos) @ cell[0]).norm(dim=1)
            return ((d - 2.35) ** 2).sum()[None] / 2

    for factor, sign in ((1.02, 1), (0.98, -1)):
        data = from_ase(bulk("Si", a=factor * 2.35 * 4 / 3**0.5))
        graph = RadiusGraph(3.0)(data)
        stress = Potential(Spring()).eval()(graph, stress=True)["stress"][0]
        assert (sign * stress.diagonal() > 0.005).all()


def test_the_stress_is_symmetric_and_turns_with_the_crystal(potential):
    atoms = crystal()
    stress = potential(from_ase(atoms), stress=True)["stress"][0]
    assert_close(stress, stress.T, atol=1e-15, rtol=0)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ turn.T)
    turned.positions = atoms.positions @ turn.T
    turn = torch.from_numpy(turn)
    assert_close(
        potential(from_ase(turned), stress=True)["stress"][0], turn @ stress @ turn.T, atol=1e-13, rtol=0
    )


@pytest.mark.parametrize(
    "matrix", [np.diag([2, 1, 1]), np.diag([2, 2, 3]), [[1, 1, 0], [0, 1, 0], [0, 0, 2]]]
)
def test_supercells_have_the_same_stress_and_so_many_times_the_energy(potential, matrix):
    atoms = crystal()
    larger = make_supercell(atoms, matrix)
    one, many = (potential(from_ase(a), stress=True) for a in (atoms, larger))
    factor = len(larger) / len(atoms)
    assert_close(many["energy"], factor * one["energy"], atol=0, rtol=1e-12)
    assert_close(many["stress"], one["stress"], atol=1e-12, rtol=0)


def test_wrapping_and_moving_change_nothing(potential):
    atoms = crystal()
    moved = atoms.copy()
    moved.positions += [0.3, -0.7, 11.0]
    moved.wrap()
    one, other = (potential(from_ase(a), stress=True) for a in (atoms, moved))
    for name in one:
        assert_close(other[name], one[name], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("side", [0.0, 20.0], ids=["no cell", "a cell that is not periodic"])
def test_a_batch_of_crystals_and_molecules_gives_each_its_own_and_molecules_none(potential, water, side):
    crystals = [from_ase(crystal(seed)) for seed in (0, 1)]
    cell = side * torch.eye(3, dtype=torch.float64)[None]
    loose = Data(z=water.z, pos=water.pos, cell=cell, pbc=torch.zeros(1, 3).bool())
    batch = Batch.from_data_list([crystals[0], loose, crystals[1]])
    out = potential(batch, stress=True)
    assert out["stress"][1].isnan().all()
    for number, data in ((0, crystals[0]), (2, crystals[1])):
        alone = potential(data, stress=True)
        assert_close(out["stress"][number], alone["stress"][0], atol=1e-14, rtol=0)
        assert_close(out["forces"][batch.batch == number], alone["forces"], atol=1e-13, rtol=0)
    assert_close(out["forces"][batch.batch == 1], potential(water)["forces"], atol=1e-14, rtol=0)


def test_stress_leaves_energy_and_forces_as_they_are(potential):
    data = from_ase(crystal())
    plain, out = potential(data), potential(data, stress=True)
    assert_close(out["energy"], plain["energy"], atol=0, rtol=0)
    assert_close(out["forces"], plain["forces"], atol=1e-14, rtol=0)
    assert set(potential(data, forces=False, stress=True)) == {"energy", "stress"}
    assert data.pos.grad is None
    assert not data.cell.requires_grad


def test_outputs_are_detached_in_evaluation_mode(potential):
    out = potential(from_ase(crystal()), stress=True)
    assert not any(value.requires_grad for value in out.values())


def test_given_edges_and_their_shifts_give_the_same_stress(potential):
    data = from_ase(crystal())
    graph = RadiusGraph(4.0)(data.clone())
    assert_close(
        potential(graph, stress=True)["stress"], potential(data, stress=True)["stress"], atol=1e-14, rtol=0
    )


# 1e-6: central differences of step 1e-5 in weights of order 0.4; measured 4e-9.
def test_a_loss_of_stresses_has_gradients_of_weights(potential):
    potential.train()
    data = from_ase(crystal())
    weight = potential.model.interactions[0].atomwise1.weight
    target = torch.eye(3, dtype=torch.float64)

    def loss():
        return ((potential(data, stress=True)["stress"][0] - target) ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    for place in ((0, 0), (3, 5)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * 1e-5
            values.append(loss().item())
            with torch.no_grad():
                weight[place] -= sign * 1e-5
        numeric = (values[0] - values[1]) / 2e-5
        assert float(gradient[place]) == pytest.approx(numeric, rel=1e-6, abs=1e-12)
        assert abs(numeric) > 1e-8


def test_stress_of_molecules_is_refused(potential, water):
    with pytest.raises(ValueError, match=r"`stress`.*periodic.*`cell`.*`pbc`"):
        potential(water, stress=True)
    loose = Data(
        z=water.z, pos=water.pos, cell=10 * torch.eye(3)[None].double(), pbc=torch.zeros(1, 3).bool()
    )
    with pytest.raises(ValueError, match=r"`stress`.*periodic"):
        potential(loose, stress=True)


def test_stress_of_a_slab_without_a_third_lattice_vector_is_refused(potential):
    atoms = crystal()
    atoms.pbc = (1, 1, 0)
    atoms.cell[2] = 0
    with pytest.raises(ValueError, match=r"`stress`.*volume.*lattice.*vector"):
        potential(from_ase(atoms), stress=True)


def test_stress_in_inference_mode_is_refused(potential):
    with torch.inference_mode(), pytest.raises(RuntimeError, match="`stress` need gradients"):
        potential(from_ase(crystal()), forces=False, stress=True)
