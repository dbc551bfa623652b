"""Tests of the training domain that a potential carries, and of its violations."""

import copy

import pytest
import torch
from torch_geometric.data import Data

from pyg_schnet import Ensemble, Potential, SchNet, load
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.training_domain import SKIN, TrainingDomain

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "cutoff": 4.0}
DOMAIN = TrainingDomain({(1, 1): 1.5, (1, 8): 0.9}, largest_force=7.0, stress=True, separation=1.1)


@pytest.fixture
def potential():
    potential = Potential(SchNet(**TINY))
    potential.domain = DOMAIN
    return potential


def water(oh=1.0, hh=1.6):
    height = (oh**2 - hh**2 / 4) ** 0.5
    pos = torch.tensor([[0, 0, 0], [hh / 2, height, 0], [-hh / 2, height, 0]], dtype=torch.float64)
    return Data(z=torch.tensor([8, 1, 1]), pos=pos)


def test_atoms_may_come_to_a_part_of_the_shortest_distance():
    DOMAIN.check(water(oh=0.9 * 0.9 + 1e-9))
    with pytest.raises(
        ValueError,
        match=r"atoms.*0.*\d.*\(atomic numbers 8 and 1\).*0\.800.*distance.*training.*0\.900.*0\.9",
    ):
        DOMAIN.check(water(oh=0.8, hh=1.4))


def test_each_pair_of_elements_has_its_own_distance():
    with pytest.raises(ValueError, match=r"atoms.*1.*2.*1\.300.*1\.500"):
        DOMAIN.check(water(hh=1.3))
    DOMAIN.check(water(hh=1.3), closest=0.8)


@pytest.mark.parametrize("closest", [0.9, 0.5])
def test_elements_that_never_met_may_not_touch(closest):
    pair = Data(z=torch.tensor([8, 8]), pos=torch.tensor([[0.0, 0, 0], [2.51, 0, 0]]))
    DOMAIN.check(pair, closest)
    message = r"atoms 0 and 1 \(atomic numbers 8 and 8\) are 2\.490 Å apart; such atoms.*never"
    with pytest.raises(ValueError, match=message):
        DOMAIN.check(Data(z=pair.z, pos=2.49 / 2.51 * pair.pos), closest)


def test_images_are_atoms_too():
    data = Data(z=torch.tensor([8, 1]), pos=torch.tensor([[0.1, 0, 0], [2.9, 0, 0]]))
    DOMAIN.check(data)
    data.cell, data.pbc = 3 * torch.eye(3)[None], torch.tensor([[True, False, False]])
    with pytest.raises(ValueError, match=r"atoms.*0.*1.*0\.200"):
        DOMAIN.check(data)


def test_there_is_room_for_what_is_missing_to_the_limit():
    assert DOMAIN.clearance(water(oh=1.0)) == pytest.approx(1.0 - 0.81)
    assert DOMAIN.clearance(water(oh=0.8, hh=1.4)) == pytest.approx(0.8 - 0.81)
    assert DOMAIN.clearance(water(oh=3.0, hh=4.0)) == SKIN


def test_nothing_is_known_of_a_training_set_of_single_atoms():
    assert TrainingDomain({}).clearance(water(oh=0.1, hh=0.1)) == SKIN


def test_the_domain_is_saved_with_a_potential_and_copied(potential, tmp_path):
    checkpoint.save(potential, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").domain == DOMAIN
    assert copy.deepcopy(potential).domain == DOMAIN
    assert checkpoint.read(tmp_path / "model.safetensors", "potential")[0]["domain"] == {
        "shortest": {"1-1": 1.5, "1-8": 0.9},
        "largest_force": 7.0,
        "stress": True,
        "separation": 1.1,
    }


def test_a_potential_of_unknown_domain_has_none(tmp_path):
    potential = Potential(SchNet(**TINY))
    checkpoint.save(potential, tmp_path / "model.safetensors")
    assert potential.domain is None
    assert load(tmp_path / "model.safetensors").domain is None


def test_files_of_earlier_versions_have_no_domain(potential, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(potential, path)
    header, tensors = checkpoint.read(path, "potential")
    del header["domain"]
    checkpoint.write(path, "potential", header, tensors)
    assert load(path).domain is None


def test_files_of_earlier_versions_have_a_domain_without_separation():
    entry = {"shortest": {"1-8": 0.9}, "largest_force": None, "stress": False}
    assert TrainingDomain.from_json(entry) == TrainingDomain({(1, 8): 0.9})


@pytest.mark.parametrize(
    "entry",
    [
        "near",
        {"shortest": 3},
        {"shortest": {"H-Q": 1.0}, "largest_force": 1.0},
        {"shortest": {}, "largest_force": None, "stress": False, "separation": -1.0},
    ],
)
def test_a_damaged_domain_is_refused(entry, potential, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(potential, path)
    header, tensors = checkpoint.read(path, "potential")
    checkpoint.write(path, "potential", {**header, "domain": entry}, tensors)
    with pytest.raises(ValueError, match=r"header.*checkpoint.*damaged"):
        load(path)


def test_an_ensemble_knows_what_all_of_its_potentials_know(potential):
    other = copy.deepcopy(potential)
    other.domain = TrainingDomain({(1, 1): 1.4, (1, 8): 1.0}, largest_force=6.0, stress=True)
    assert Ensemble([potential, other]).domain == TrainingDomain({(1, 1): 1.5, (1, 8): 1.0}, 6.0, True)
    other.domain = TrainingDomain({(1, 8): 1.0}, 7.0, True, separation=1.2)
    assert Ensemble([potential, other]).domain.separation == 1.1
    other.domain = TrainingDomain({(1, 8): 1.0})
    assert Ensemble([potential, other]).domain == TrainingDomain({(1, 8): 1.0}, None)
    other.domain = None
    assert Ensemble([potential, other]).domain is None


@pytest.mark.parametrize(("stretch", "falls"), [(1.14, False), (1.16, True)])
def test_parts_may_be_a_little_farther_apart_than_in_training(stretch, falls):
    data = water(oh=1.1 * (0.66 + 0.31), hh=1.6)  # as far as in training
    data.pos[1] *= stretch
    reason = DOMAIN.fragmentation(data)
    assert (reason is not None) is falls
    if falls:
        assert "in 2 fragments" in reason
        assert "at most 1.10 sums of covalent radii" in reason


@pytest.mark.parametrize(("distance", "falls"), [(3.4, False), (3.8, True)])
def test_where_the_separation_is_unknown_parts_must_be_in_contact(distance, falls):
    one = water()
    data = Data(z=one.z.repeat(2), pos=torch.cat([one.pos, one.pos + torch.tensor([0, 0, distance])]))
    reason = TrainingDomain({(1, 8): 0.9}).fragmentation(data)
    assert (reason is not None) is falls
    assert reason is None or "must be in contact" in reason


def test_crystals_may_consist_of_any_parts():
    data = water(oh=3.0, hh=4.0)
    assert DOMAIN.fragmentation(data) is not None
    data.cell, data.pbc = 9 * torch.eye(3)[None], torch.tensor([[True, True, True]])
    assert DOMAIN.fragmentation(data) is None
