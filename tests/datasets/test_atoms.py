"""The user's own file is a PyG data set with the fields, types and statistics that training needs."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet import RadiusGraph
from pyg_schnet.datasets import AtomsDataset

EV = 0.0433641042418009  # eV in a kcal/mol


@pytest.fixture
def dataset(md17, write):
    return AtomsDataset(write(md17))


def test_items_have_the_fields_of_the_documentation(dataset):
    item = dataset[1]
    assert isinstance(dataset, InMemoryDataset)
    assert isinstance(item, Data)
    assert {key: (tuple(item[key].shape), item[key].dtype) for key in item.keys()} == {  # noqa: SIM118
        "z": ((2,), torch.int64),
        "pos": ((2, 3), torch.float32),
        "energy": ((1,), torch.float64),
        "forces": ((2, 3), torch.float64),
        "idx": ((1,), torch.int64),
    }
    assert item.num_nodes == 2


def test_items_have_the_values_of_the_file(dataset):
    assert len(dataset) == 2
    assert dataset[1].z.tolist() == [8, 1]
    assert_close(dataset[1].pos, torch.tensor([[0.1, 0, 0], [0, -0.9, 0]]))
    assert dataset[0].energy.item() == pytest.approx(-4.33641042418009, rel=1e-14)
    assert dataset[1].forces[0, 0].item() == pytest.approx(0.0216820521209005, rel=1e-14)


def test_positions_have_the_dtype_that_is_asked_for(md17, write):
    item = AtomsDataset(write(md17), dtype=torch.float64)[1]
    assert item.pos.dtype == torch.float64
    assert item.pos[1, 1].item() == -0.9  # not the nearest float32


def test_positions_have_pytorchs_default_dtype_otherwise(md17, write):
    torch.set_default_dtype(torch.float64)
    try:
        assert AtomsDataset(write(md17))[0].pos.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_file_of_one_frame_is_a_data_set_of_one_item(md17, write):
    dataset = AtomsDataset(write({key: md17[key][:1] for key in "REF"} | {"z": md17["z"]}))
    assert len(dataset) == 1
    assert dataset[0].energy.tolist() == pytest.approx([-100 * EV])
    assert dataset.scale() > 0


def test_a_subset_keeps_the_numbers_of_the_file(dataset):
    subset = dataset[torch.tensor([1])]
    assert len(subset) == 1
    assert subset[0].idx.tolist() == [1]


def test_energies_alone_leave_no_forces(md17, write):
    dataset = AtomsDataset(write(md17), forces_key="none")
    assert not dataset.has_forces
    assert "forces" not in dataset[0]


def test_forces_are_announced(dataset):
    assert dataset.has_forces


def test_path_and_units_are_kept(md17, write):
    path = write(md17)
    dataset = AtomsDataset(path, units="Hartree, Bohr")
    assert dataset.path == str(path)
    assert (dataset.units.energy, dataset.units.length) == ("Hartree", "Bohr")
    assert dataset[0].energy.item() == pytest.approx(-2721.1386245988)


def test_unknown_units_are_refused(md17, write):
    with pytest.raises(ValueError, match=r"`units` must name an energy unit .* Did you mean 'kcal/mol'\?"):
        AtomsDataset(write(md17), units="kcalmol")


def test_a_transform_is_applied_to_each_item(md17, write):
    dataset = AtomsDataset(write(md17), transform=RadiusGraph(0.95))
    assert dataset[0].edge_index.tolist() == [[], []]  # 1 Å apart
    assert sorted(dataset[1].edge_index.T.tolist()) == [[0, 1], [1, 0]]  # 0.906 Å apart


def test_references_of_one_composition_are_those_of_minimum_norm(dataset):
    atomref = dataset.atomref()
    # OH of mean energy -99.5 kcal/mol: the shortest (a_O, a_H) with a_O + a_H = mean shares it equally.
    assert atomref.shape == (100,)
    assert atomref.dtype == torch.float64
    assert atomref[[1, 8]].tolist() == pytest.approx([-99.5 / 2 * EV] * 2, rel=1e-12)
    assert atomref.nonzero().flatten().tolist() == [1, 8]


def test_references_sum_to_the_mean_energy(ethanol, write):
    rng = np.random.default_rng(0)
    energy = -97000 + rng.normal(size=5)
    file = {"z": ethanol.z, "R": rng.normal(size=(5, 9, 3)), "E": energy}
    atomref = AtomsDataset(write(file)).atomref()
    assert atomref[ethanol.z].sum().item() == pytest.approx(energy.mean() * EV, rel=1e-12)


def test_references_of_a_subset_are_its_own(dataset):
    assert dataset[[1]].atomref()[1].item() == pytest.approx(-99 / 2 * EV, rel=1e-12)


def test_the_scale_is_the_rms_of_the_forces(dataset):
    # Components: 2, -2, 0.5, -0.5 and eight zeros.
    assert dataset.scale() == pytest.approx(np.sqrt((4 + 4 + 0.25 + 0.25) / 12) * EV, rel=1e-12)


def test_the_scale_of_energies_alone_is_their_spread_an_atom(md17, write):
    dataset = AtomsDataset(write(md17), forces_key="none")
    assert dataset.scale() == pytest.approx(0.5 / 2 * EV, rel=1e-9)  # -100 and -99: ±0.5, two atoms


def test_the_scale_is_one_where_nothing_spreads(md17, write):
    assert AtomsDataset(write(md17), forces_key="none")[[0]].scale() == 1.0


def test_the_elements_are_sorted(dataset):
    assert dataset.elements() == [1, 8]


def test_statistics_leave_the_tensors_as_they_were(dataset):
    before = {key: dataset._data[key].clone() for key in dataset.slices}
    dataset.atomref(), dataset.scale(), dataset.elements()
    for key, value in before.items():
        assert torch.equal(dataset._data[key], value)
