"""Velocities at a temperature."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.constraints import FixBondLengths


def degrees_of_freedom(atoms: Atoms, rotation: bool, drift: bool = False) -> int:
    """Count the degrees of freedom among which the kinetic energy is distributed.

    Args:
        atoms: Structure. Constraints leave those that they do not remove; unless they hold the center of
            mass, there are three fewer.
        rotation: Whether the molecule rotates as a whole; if not, three fewer, or two if it is linear.
        drift: Whether the center of mass moves, which leaves all 3N; the molecule then rotates, too.

    Raises:
        ValueError: If none is left, as for one atom whose center of mass is at rest.
    """
    count = atoms.get_number_of_degrees_of_freedom()
    if not (holds_center(atoms) or drift):
        count -= 3
        if not rotation:
            count -= int(np.linalg.matrix_rank(_inertia(atoms), tol=1e-6, hermitian=True))
    if count < 1:
        raise ValueError(
            f"`atoms` must be free to move, got {atoms.get_chemical_formula()}, whose {len(atoms)} "
            "atoms have no degree of freedom besides those of the whole and the constrained ones"
        )
    return count


def draw_momenta(
    atoms: Atoms, temperature: float, rng: np.random.Generator, rotation: bool, drift: bool = False
) -> None:
    """Set Maxwell-Boltzmann momenta, scaled to the temperature exactly.

    The center of mass is at rest unless ``drift``; where constraints hold it, it moves as they allow.

    Args:
        atoms: Structure whose momenta are set.
        temperature: Temperature in K of the :func:`degrees_of_freedom`.
        rng: Random number generator.
        rotation: Whether the molecule may rotate as a whole.
        drift: Whether its center of mass may move, as in a bath that does not constrain it.
    """
    count = degrees_of_freedom(atoms, rotation, drift)
    deviation = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * deviation[:, None])
    if not drift:
        remove_drift(atoms, rotation)
    if temperature > 0:
        atoms.set_momenta(atoms.get_momenta() * np.sqrt(temperature / kinetic_temperature(atoms, count)))


def remove_drift(atoms: Atoms, rotation: bool) -> None:
    """Remove the momentum of a structure and, unless ``rotation``, its angular momentum.

    Nothing is removed if constraints hold the center of mass.
    """
    if holds_center(atoms):
        return
    masses = atoms.get_masses()
    momenta = atoms.get_momenta()
    momenta = momenta - masses[:, None] * momenta.sum(axis=0) / masses.sum()
    if not rotation:
        arms = atoms.positions - atoms.get_center_of_mass()
        momentum = np.cross(arms, momenta).sum(axis=0)
        # The pseudo-inverse omits the axis of a linear molecule, which has no inertia.
        spin = np.linalg.pinv(_inertia(atoms), rcond=1e-9, hermitian=True) @ momentum
        momenta -= masses[:, None] * np.cross(spin, arms)
    atoms.set_momenta(momenta)


def holds_center(atoms: Atoms) -> bool:
    """Return whether constraints act on the center of mass; those of bond lengths do not."""
    return any(not isinstance(each, FixBondLengths) for each in atoms.constraints)


def kinetic_temperature(atoms: Atoms, count: int) -> float:
    """Compute the kinetic temperature in K of a number of degrees of freedom."""
    return float(2 * atoms.get_kinetic_energy() / (count * units.kB))


def _inertia(atoms: Atoms) -> np.ndarray:
    """Compute the tensor of inertia about the center of mass, in u Å²."""
    arms = atoms.positions - atoms.get_center_of_mass()
    products = np.einsum("i,ia,ib->ab", atoms.get_masses(), arms, arms)
    return np.trace(products) * np.eye(3) - products
