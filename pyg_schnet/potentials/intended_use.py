"""Warnings of uses that pretrained models are not made for, by their cards."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.model_card import ModelCard
from pyg_schnet.potentials.potential import Potential

if TYPE_CHECKING:
    from ase import Atoms


def warn_of_other_molecules(potential: object, structures: Iterable[Atoms]) -> None:
    """Warn, once in a process, if a model of one molecule is used for another one.

    Args:
        potential: A potential or an ensemble; of others nothing is known.
        structures: What it is used for.
    """
    for card in _cards(potential):
        if not card.formula:
            continue
        for formula in {atoms.symbols.get_chemical_formula() for atoms in structures} - {card.formula}:
            warnings.warn(
                f"{card.name} was trained on {card.formula} alone, and its results for {formula} mean "
                "nothing",
                stacklevel=1,  # so that it is shown once for all callers
            )


def warn_of_motion(potential: object) -> None:
    """Warn, once in a process, if a model of relaxed structures moves atoms.

    Args:
        potential: A potential or an ensemble; of others nothing is known.
    """
    for card in _cards(potential):
        if card.equilibrium:
            warnings.warn(
                f"{card.name} was trained on energies of relaxed structures alone: its forces are "
                "unreliable, use a model that was trained on forces",
                stacklevel=1,
            )


def _cards(potential: object) -> Iterator[ModelCard]:
    members = potential.potentials if isinstance(potential, Ensemble) else [potential]
    for member in members:
        if isinstance(member, Potential) and member.card is not None:
            yield cast(ModelCard, member.card)
