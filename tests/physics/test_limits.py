import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from pyg_schnet import Potential


def atom(number: int) -> Data:
    return Data(z=torch.tensor([number]), pos=torch.zeros(1, 3, dtype=torch.float64))


def combine(one: Data, two: Data, distance: float) -> Data:
    moved = two.pos + torch.tensor([distance, 0.0, 0.0], dtype=torch.float64)
    return Data(z=torch.cat([one.z, two.z]), pos=torch.cat([one.pos, moved]))


def test_a_single_atom_has_an_energy(potential):
    assert potential(atom(6))["energy"].isfinite().all()


def test_a_single_atom_feels_no_force(potential):
    assert potential(atom(6))["forces"].tolist() == [[0, 0, 0]]


def test_the_energy_of_a_single_atom_is_its_elements(potential):
    assert not torch.equal(potential(atom(6))["energy"], potential(atom(8))["energy"])


def test_a_molecule_without_neighbors_is_the_sum_of_its_atoms(default):
    potential = Potential(default).eval()
    apart = combine(atom(6), atom(8), 4.5)
    expected = potential(atom(6))["energy"] + potential(atom(8))["energy"]
    assert_close(potential(apart)["energy"], expected, atol=1e-14, rtol=0)  # order 1, one rounding


def test_a_molecule_without_neighbors_feels_no_force(default):
    out = Potential(default).eval()(combine(atom(6), atom(8), 4.5))
    assert out["forces"].eq(0).all()


def test_an_atom_without_neighbors_beside_a_molecule_keeps_its_energy(default, water):
    potential = Potential(default).eval()
    expected = potential(water)["energy"] + potential(atom(10))["energy"]
    out = potential(combine(water, atom(10), 30.0))
    assert_close(out["energy"], expected, atol=1e-13, rtol=0)


# 1e-13: other sums of ten numbers of order one.
def test_two_molecules_40_angstrom_apart_add_up(default, ethanol, water):
    potential = Potential(default).eval()
    ethanol_alone, water_alone, both = map(potential, (ethanol, water, combine(ethanol, water, 40.0)))
    assert_close(both["energy"], ethanol_alone["energy"] + water_alone["energy"], atol=1e-13, rtol=0)
    forces = torch.cat([ethanol_alone["forces"], water_alone["forces"]])
    assert_close(both["forces"], forces, atol=1e-13, rtol=0)


# The paper has no cutoff and its filters need not vanish: ssp(b) beyond the last Gaussian at 30 Å.
def test_all_pairs_of_the_paper_interact_at_40_angstrom(paper, ethanol, water):
    potential = Potential(paper).eval()
    alone = potential(ethanol)["energy"] + potential(water)["energy"]
    assert abs(float(potential(combine(ethanol, water, 40.0))["energy"] - alone)) > 1e-3


def test_the_papers_interaction_beyond_the_last_gaussian_is_constant(paper, ethanol, water):
    potential = Potential(paper).eval()
    at_40, at_50 = (potential(combine(ethanol, water, d))["energy"] for d in (40.0, 50.0))
    assert_close(at_40, at_50, atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", ["paper", "default"])
def test_an_isolated_atom_returns_its_reference(name, request):
    model = request.getfixturevalue(name)
    model.readout.network.dense2.weight.data.zero_()
    model.readout.network.dense2.bias.data.zero_()
    atomref = torch.zeros(100, dtype=torch.float64)
    atomref[6] = -1035.0
    assert Potential(model, atomref=atomref).eval()(atom(6))["energy"].tolist() == [-1035.0]


def test_a_batch_may_hold_molecules_without_atoms(potential, water):
    nothing = Data(z=torch.empty(0, dtype=torch.long), pos=torch.empty(0, 3, dtype=torch.float64))
    out = potential(Batch.from_data_list([nothing, water, nothing, water, nothing]))["energy"]
    alone = float(potential(water)["energy"])
    assert out.tolist() == pytest.approx([0, alone, 0, alone, 0], abs=1e-13)


def test_no_atoms_have_no_energy_and_no_forces(potential):
    nothing = Data(z=torch.empty(0, dtype=torch.long), pos=torch.empty(0, 3, dtype=torch.float64))
    out = potential(nothing)
    assert (out["energy"].tolist(), out["forces"].shape) == ([0.0], (0, 3))


def test_coincident_atoms_are_refused(potential):
    with pytest.raises(ValueError, match=r"`pos`.*atoms.*point.*atoms.*0.*1"):
        potential(combine(atom(1), atom(1), 0.0))
