"""Uses that the card of a pretrained model excludes cause a warning."""

from dataclasses import replace

import pytest
import torch
from ase.build import molecule

import pyg_schnet
from pyg_schnet import Ensemble, Potential, SchNet
from pyg_schnet.potentials.model_card import ModelCard
from pyg_schnet.simulation import SchNetCalculator, relax_batched, run_md_batched

CARD = ModelCard(
    name="water",
    title="Water",
    limits="water alone",
    predicts={"energy": "eV"},
    elements=("H", "O"),
    level_of_theory="none",
    data="none",
    data_license="none",
    split="none",
    recipe="none",
    commit="none",
    license="none",
    errors=(),
)


@pytest.fixture
def potential():
    torch.manual_seed(0)
    own = Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=5.0)).eval()
    return own.compile(backend="python")  # which is ready at once


def energy(potential, atoms):
    atoms.calc = SchNetCalculator(potential)
    return atoms.get_potential_energy()


def run_md(potential):
    pyg_schnet.md(potential, molecule("H2O"), duration=0.001)


USES = {
    "md": run_md,
    "relax": lambda potential: pyg_schnet.relax(potential, molecule("H2O"), steps=1),
    "run_md_batched": lambda potential: run_md_batched(potential, [molecule("H2O")], duration=0.001),
    "relax_batched": lambda potential: relax_batched(potential, [molecule("H2O")], steps=1),
}


@pytest.mark.parametrize("use", USES)
def test_motion_by_a_model_of_relaxed_structures_causes_a_warning(potential, use):
    potential.card = replace(CARD, equilibrium=True)
    with pytest.warns(UserWarning, match="water was trained on energies of relaxed structures alone"):
        USES[use](potential)


@pytest.mark.parametrize("use", USES)
def test_motion_of_the_molecule_of_the_training_causes_none(potential, use):
    potential.card = replace(CARD, formula="H2O")
    USES[use](potential)


def test_an_energy_of_a_model_of_relaxed_structures_causes_none(potential):
    potential.card = replace(CARD, equilibrium=True)
    energy(potential, molecule("H2O"))
    pyg_schnet.predict(potential, molecule("H2O"))


@pytest.mark.parametrize(
    "use",
    [
        energy,
        pyg_schnet.predict,
        lambda potential, atoms: run_md_batched(potential, [atoms], duration=0.001),
        lambda potential, atoms: relax_batched(potential, [atoms], steps=1),
    ],
)
def test_another_molecule_than_that_of_the_training_causes_a_warning(potential, use):
    potential.card = replace(CARD, formula="H2O")
    with pytest.warns(UserWarning, match="trained on H2O alone, and its results for H2O2 mean nothing"):
        use(potential, molecule("H2O2"))


def test_the_cards_of_all_members_of_an_ensemble_are_heeded(potential):
    other = Potential(SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=5.0)).eval()
    other.card = replace(CARD, formula="CH4")
    with pytest.warns(UserWarning, match="trained on CH4 alone"):
        energy(Ensemble([potential, other]).eval(), molecule("H2O"))
