"""Sanity checks of a data set, in sentences with the numbers and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyg_schnet.datasets.report.distances import REACH
from pyg_schnet.io.units import kcal_per_mol

if TYPE_CHECKING:
    from pyg_schnet.datasets.report.summary import Forces, Summary

_NET_FORCE = 1e-3  # share of the forces; 6e-4 in liquid water on a grid, below 1e-5 if well converged
_FORCES = (1e-3, 12.0)  # eV/Å; relaxed structures are below; at 500 K it is 1, which is 23 in kcal/mol/Å
_SHORTEST = 0.5  # Å; the bond of H2 is 0.74
_ANTICORRELATED = -0.7  # energy difference and work; 0.90 and more in the sets of MD17
_CORRELATED = 0.8
_FACTOR = 3.0  # units differ by 4.184 and more; structures far apart have factors down to 0.6


def sanity_warnings(summary: Summary) -> Iterator[str]:
    """Yield warnings about a data set, most serious first."""
    if summary.unknown_elements:
        yield (
            f"Atomic number {summary.unknown_elements[0]} occurs; models accept 1 to 99: remove these "
            "structures."
        )
    energy = summary.energy
    if energy is not None and summary.structures > 1 and energy.min == energy.max:
        yield f"All energies are {energy.min:.6g} eV: there is nothing to learn; check the key."
    for name, label in summary.properties.items():
        if label.count == 0:
            yield f"No structure has a value of '{name}': there is nothing to learn; check the key."
        elif label.count > 1 and label.min == label.max:
            yield f"All values of '{name}' are {label.min:.6g}: there is nothing to learn; check the key."
    if summary.unit_doubt is not None:
        yield summary.unit_doubt
    yield from _outlier_warnings(summary)
    if summary.forces is not None:
        yield from _force_warnings(summary.forces)
        yield from _consistency_warnings(summary)
    if summary.charged:
        yield (
            f"{summary.charged:,} structures of the file have a charge, which models ignore: structures that "
            "differ only in their charge are the same to them; keep one charge for each composition."
        )
    yield from _distance_warnings(summary)
    yield from _duplicate_warnings(summary)


def _outlier_warnings(summary: Summary) -> Iterator[str]:
    energies, forces = summary.energy_outliers, summary.force_outliers
    if energies is not None:
        side = "above" if energies.deviation > 0 else "below"
        yield (
            f"The energy of structure {energies.worst} is {abs(energies.deviation):.3g} eV per atom {side} "
            f"those of the others{_and_more(energies.number)}: it dominates the loss; check or remove it."
        )
    if forces is not None:
        yield (
            f"A force of structure {forces.worst} is {forces.deviation:.3g} eV/Å, far beyond those of the "
            f"others{_and_more(forces.number)}: it dominates the loss; check or remove it."
        )


def _and_more(number: int) -> str:
    return "" if number == 1 else f", and {number - 1:,} more are as far off"


def _force_warnings(forces: Forces) -> Iterator[str]:
    low, high = _FORCES
    if forces.rms < low:
        yield (
            f"The forces' RMS is {forces.rms:.2g} eV/Å, as in relaxed structures, from which no "
            "forces can be learned; if they are not relaxed, check the units."
        )
    elif forces.rms > high:
        yield (
            f"The forces' RMS is {forces.rms:.4g} eV/Å, too much for structures near equilibrium: check the "
            "units."
        )
    if forces.net_share > _NET_FORCE:
        yield (
            f"Forces do not sum to zero: the net force has an RMS of {forces.net_rms:.2g} eV/Å "
            f"({forces.net_rms / kcal_per_mol:.2g} kcal/mol/Å); divided by the number of atoms this is "
            f"{forces.net_share:.2%} of the forces, which no model with a translation-invariant energy "
            "can fit."
        )


def _consistency_warnings(summary: Summary) -> Iterator[str]:
    work = summary.work
    if work is None or "are inconsistent" in (summary.unit_doubt or ""):
        return
    if work.correlation < _ANTICORRELATED:
        yield (
            f"Forces have the wrong sign: between {work.pairs:,} pairs of similar structures the energy "
            f"increases along them (correlation {work.correlation:.2f}); are they gradients? Change the sign."
        )
    elif work.correlation > _CORRELATED and not 1 / _FACTOR < work.factor < _FACTOR:
        yield (
            f"Energies and forces are inconsistent: between {work.pairs:,} pairs of similar structures the "
            f"energy changes by {work.factor:.3g} times the work of the forces; check the unit of both."
        )


def _distance_warnings(summary: Summary) -> Iterator[str]:
    distances = summary.distances
    if distances.shortest is not None and distances.shortest < _SHORTEST:
        yield (
            f"Two atoms of structure {distances.shortest_in} are {distances.shortest:.2f} Å apart: remove "
            "it, or check the unit of the positions."
        )
    if distances.solitary is not None and distances.solitary > REACH:
        yield (
            f"An atom of structure {distances.solitary_in} has no neighbor within {REACH:g} Å, beyond any "
            "usual cutoff: nothing can be learned about it."
        )


def _duplicate_warnings(summary: Summary) -> Iterator[str]:
    copies = summary.copies
    if copies.example is None:
        return
    copy, original = copies.example
    many = f"{copies.number:,} structures are copies" if copies.number > 1 else "A structure is a copy"
    text = f"{many} of earlier ones (structure {copy} of {original})"
    if copies.energy_difference > 0:
        text += (
            f", with energies that differ by up to {copies.energy_difference:.2g} eV "
            f"({copies.energy_difference / kcal_per_mol:.2g} kcal/mol)"
        )
    yield f"{text}: in both training and test set they make errors too small; remove them."
