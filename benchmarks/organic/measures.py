"""Errors of a potential against what its teacher computed for the test molecules."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from scipy.stats import spearmanr

from benchmarks.organic import references
from benchmarks.organic.references import Arrays, reference
from pyg_schnet import Potential, load
from pyg_schnet.prediction.predictor import predict
from pyg_schnet.simulation import SchNetCalculator, relax_batched, run_md_batched

KCAL = units.kcal / units.mol
STABLE_PS = 20.0
_TEMPERATURE = 300.0  # K
_STRETCHED = 1.5  # a bond longer than this, in units of its first length, is broken
_GROUP = 10  # molecules whose dynamics run in one batch


class Measured(NamedTuple):
    """A number of the table.

    Attributes:
        row: Set of molecules.
        quantity: What was measured.
        value: The number; errors are mean absolute ones.
        unit: Its unit.
        bound: What it must be, as text; empty if nothing is demanded.
        count: Number of molecules or structures.
    """

    row: str
    quantity: str
    value: float
    unit: str
    bound: str
    count: int

    @property
    def holds(self) -> bool | None:
        """Whether the bound is kept; ``None`` without one."""
        if not self.bound:
            return None
        sign, limit = self.bound.split()
        return bool(self.value <= float(limit) if sign == "≤" else self.value >= float(limit))


@dataclass
class Subject:
    """The potential that is tested, with the molecules and the cache.

    Attributes:
        model: Path of its checkpoint.
        molecules: SMILES by set.
        cache: Folder of the teacher's files, and of the dynamics of this potential.
        name: Name of the potential's own folder in the cache.
    """

    model: str
    molecules: dict[str, list[str]]
    cache: Path
    name: str
    teacher: references.Teacher = field(default_factory=references.Teacher)

    def __post_init__(self) -> None:
        self.potential: Potential = load(self.model).eval()

    def known(self, part: str, row: str) -> Iterator[Arrays]:
        """Yield what the teacher found for the molecules whose elements the potential knows."""
        elements = set(self.potential.elements)
        for smiles in self.molecules[row]:
            found = reference(part, smiles, self.cache / "teacher", self.teacher)
            if found and set(found["numbers"].tolist()) <= elements:
                yield found

    def predict(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Predict energies and forces."""
        return list(predict(self.potential, structures))


def frames(subject: Subject) -> Iterator[Measured]:
    """Measure errors of frames as in training, of all kinds, and of dynamics alone."""
    dynamics = references.KINDS.index("dynamics")
    for row in subject.molecules:
        energies, forces, moving = [], [], []
        for found in subject.known("frames", row):
            ends = np.cumsum(found["n_atoms"])[:-1]
            structures = map(Atoms, np.split(found["numbers"], ends), np.split(found["positions"], ends))
            labels = np.split(found["forces"], ends)
            predicted = subject.predict(list(structures))
            for atoms, label, energy, kind in zip(
                predicted, labels, found["energy"], found["kind"], strict=True
            ):
                energies.append(abs(atoms.get_potential_energy() - energy) / len(atoms))
                forces.append(np.abs(atoms.get_forces() - label).ravel())
                moving += [forces[-1]] if kind == dynamics else []
        if forces:
            error, of_dynamics = (np.concatenate(parts).mean() / KCAL for parts in (forces, moving))
            yield Measured(row, "forces", error, "kcal/mol/Å", "≤ 2", len(forces))
            yield Measured(row, "forces, dynamics", of_dynamics, "kcal/mol/Å", "≤ 2", len(moving))
            yield Measured(
                row, "energy per atom", float(np.mean(energies)) / KCAL, "kcal/mol", "", len(energies)
            )


def torsion(subject: Subject) -> Iterator[Measured]:
    """Measure errors of energies along scans, relative to the mean of a scan."""
    for row in subject.molecules:
        errors = []
        for found in subject.known("torsion", row):
            low = found["energy"] < found["energy"].min() + 1.0  # eV: beyond it, atoms overlap
            errors.append(np.abs(_relative_errors(subject, found, low)).mean())
        if errors:
            yield Measured(row, "torsion energy", float(np.mean(errors)) / KCAL, "kcal/mol", "", len(errors))


def conformers(subject: Subject) -> Iterator[Measured]:
    """Measure relative energies and ranks of relaxed conformers, and how far they move."""
    for row in subject.molecules:
        errors, own_errors, ranks, distances = [], [], [], []
        for found in subject.known("conformers", row):
            if len(found["energy"]) < 2:
                continue
            errors.append(np.abs(_relative_errors(subject, found)))
            starts = [Atoms(found["numbers"], positions) for positions in found["positions"]]
            relaxed = relax_batched(subject.potential, starts, fmax=references.FMAX)
            own = np.array([result.energy for result in relaxed])
            own_errors.append(np.abs(_centered(own) - _centered(found["energy"])))
            pairs = zip(relaxed, found["positions"], strict=True)
            distances += [references.rmsd(result.atoms.positions, positions) for result, positions in pairs]
            if len(own) > 2:
                ranks.append(spearmanr(own, found["energy"]).statistic)
        if errors:
            count = sum(map(len, errors))
            error, own_error = (np.concatenate(parts).mean() / KCAL for parts in (errors, own_errors))
            yield Measured(row, "conformer energy", error, "kcal/mol", "≤ 1", count)
            yield Measured(row, "conformer energy, relaxed", own_error, "kcal/mol", "≤ 1", count)
            yield Measured(row, "geometry RMSD, median", float(np.median(distances)), "Å", "", count)
        if ranks:
            yield Measured(row, "conformer ranks, Spearman", float(np.mean(ranks)), "", "", len(ranks))


def vibrations(subject: Subject) -> Iterator[Measured]:
    """Measure errors of harmonic frequencies, each method at its own minimum."""
    calculator = SchNetCalculator(subject.potential, compile=True)
    for row in subject.molecules:
        errors = []
        for found in subject.known("vibrations", row):
            start = Atoms(found["numbers"], found["positions"])
            (relaxed,) = relax_batched(subject.potential, [start], fmax=0.1 * references.FMAX)
            own = references.frequencies(relaxed.atoms, calculator)
            errors.append(np.abs(own - found["frequencies"]).mean())
        if errors:
            yield Measured(row, "frequencies", float(np.mean(errors)), "cm⁻¹", "", len(errors))


def dynamics(subject: Subject) -> Iterator[Measured]:
    """Count the molecules that stay whole in dynamics at 300 K."""
    for row, smiles in subject.molecules.items():
        whole = []
        starts = [found for found in subject.known("speed", row)]
        for first in range(0, len(starts), _GROUP):
            path = subject.cache / subject.name / f"dynamics-{row}-{first:03d}-of-{len(smiles)}.json"
            if not path.exists():
                group = [Atoms(f["numbers"], f["positions"]) for f in starts[first : first + _GROUP]]
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps(_run_dynamics(subject, group)), encoding="utf-8")
                temporary.replace(path)
            whole += json.loads(path.read_text(encoding="utf-8"))
        if whole:
            broken = [reason for reason in whole if reason]
            for reason in broken:
                print(f"dynamics, {row}: {reason}")
            share = 100 * (1 - len(broken) / len(whole))
            yield Measured(row, f"whole after {STABLE_PS:g} ps", share, "%", "≥ 100", len(whole))


def _run_dynamics(subject: Subject, group: list[Atoms]) -> list[str | None]:
    """Return for each molecule why it did not stay whole, ``None`` if it did."""
    relaxed = [result.atoms for result in relax_batched(subject.potential, group, fmax=0.1)]
    result = run_md_batched(
        subject.potential, relaxed, temperature=_TEMPERATURE, duration=STABLE_PS, thermostat="langevin"
    )
    reasons = []
    for before, after, stopped in zip(relaxed, result.atoms, result.stopped, strict=True):
        reasons.append(stopped or broken_bond(before, after))
    return reasons


def broken_bond(before: Atoms, after: Atoms) -> str | None:
    """Return which bond of a structure broke in another one, if any."""
    distances = before.get_all_distances()
    radii = covalent_radii[before.numbers]
    near = np.triu(distances < 1.25 * (radii[:, None] + radii[None]), k=1)
    for first, second in np.argwhere(near):
        length = after.get_distance(first, second)
        if length > _STRETCHED * distances[first, second]:
            return f"{before.symbols}: the bond of atoms {first} and {second} is {length:.2f} Å long"
    return None


def speed(subject: Subject) -> Iterator[Measured]:
    """Measure the time of energy and forces of one molecule, and that of the teacher."""
    for row in subject.molecules:
        own, teacher = [], []
        for found in subject.known("speed", row):
            calculator = SchNetCalculator(subject.potential, compile=True)
            atoms = Atoms(found["numbers"], found["positions"], calculator=calculator)
            seconds = []
            for _ in range(6):  # the first ones compile
                atoms.positions += 1e-4
                start = time.perf_counter()
                atoms.get_forces()
                seconds.append(time.perf_counter() - start)
            own.append(min(seconds))
            teacher.append(float(found["seconds"]))
        if own:
            yield Measured(row, "time", 1e3 * float(np.mean(own)), "ms", "", len(own))
            yield Measured(row, "time of the teacher", 1e3 * float(np.mean(teacher)), "ms", "", len(own))


MEASURES: dict[str, Callable[[Subject], Iterator[Measured]]] = {
    function.__name__: function for function in (frames, torsion, conformers, vibrations, speed, dynamics)
}


def _relative_errors(subject: Subject, found: Arrays, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
    structures = [Atoms(found["numbers"], positions) for positions in found["positions"][chosen]]
    energies = np.array([atoms.get_potential_energy() for atoms in subject.predict(structures)])
    return _centered(energies) - _centered(found["energy"][chosen])


def _centered(energies: np.ndarray) -> np.ndarray:
    return energies - energies.mean()
