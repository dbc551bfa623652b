"""Symmetries: what must not change an energy, and turns its forces along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.model_output import Result
from pyg_schnet.checks.result import CheckResult
from pyg_schnet.checks.samples import Samples, diameter, is_periodic, moved, rotation


def check_rotation(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Turn structures: energies stay, forces turn along."""
    turns = [rotation(samples.generator) for _ in samples.with_crowd()]
    note = "energies and forces must not depend on the orientation; use distances, or equivariant features"
    yield from _turned("rotation", subject, samples, turns, note)


def check_reflection(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Mirror structures: energies stay, forces are mirrored."""
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    turns = [mirror @ rotation(samples.generator) for _ in samples.with_crowd()]
    note = "mirror images have one energy in nature; something in the model tells left from right"
    yield from _turned("reflection", subject, samples, turns, note)


def check_translation(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Move structures as a whole, by some 10 Å."""
    structures = samples.with_crowd()
    there = [moved(one, cast(Tensor, one.pos) + 10 * samples.random(3)) for one in structures]
    note = "energies must not depend on where the origin is; use differences of positions"
    before, after = subject.exact(structures), _one_by_one(subject, there)
    yield from compare("translation", subject, before, after, note)


def check_permutation(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Number the atoms in another order."""
    note = "energies must not depend on the order of atoms; are neighbors dropped beyond some number?"
    structures = samples.with_crowd()
    orders = [torch.randperm(len(one.z), generator=samples.generator) for one in structures]
    other = [moved(s, cast(Tensor, s.pos)[o], s.z[o]) for s, o in zip(structures, orders, strict=True)]
    before, after = subject.exact(structures), subject.exact(other)
    back = torch.cat(
        [part[order.argsort()] for part, order in zip(_split(after.forces, structures), orders, strict=True)]
    )
    yield from compare("permutation", subject, before, Result(after.energy, back), note)


def check_batching(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compute structures together and one by one; single atoms among them."""
    structures = samples.with_crowd()
    origin = torch.zeros(1, 3, dtype=torch.float64)
    structures[1:1] = [samples.cluster(torch.tensor([z]), origin) for z in samples.elements]
    together, alone = subject.exact(structures), _one_by_one(subject, structures)
    note = "molecules of a batch must not see each other; does every layer respect `batch`?"
    yield from compare("batching", subject, alone, together, note)


def check_repetition(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compute the same twice, and look whether the positions are still what was given."""
    structures = samples.with_crowd()
    first, second = subject.exact(structures), subject.exact(structures)
    note = "the same input must give the same energies; is dropout, or noise, still on?"
    yield from compare("repetition", subject, first, second, note)
    note = "a model must not change its input"
    yield CheckResult.measured("repetition", "positions", subject.change, 0.0, "Å", note)


def check_balance(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Add up forces and, of molecules, torques: nothing moves or turns by itself."""
    structures = samples.structures
    result = subject.exact(structures)
    bound = subject.tolerance.forces + subject.tolerance.relative * float(result.forces.abs().max())
    force, torque, note = 0.0, 0.0, "forces must add up to zero, or a molecule at rest would start to move"
    for one, forces in zip(structures, _split(result.forces, structures), strict=True):
        force = max(force, float(forces.sum(0).norm()))
        if not is_periodic(one):
            pos = cast(Tensor, one.pos)
            torque = max(torque, float(torch.linalg.cross(pos - pos.mean(0), forces).sum(0).norm()))
    atoms = max(len(one.z) for one in structures)
    yield CheckResult.measured("balance", "forces", force, bound * atoms, "eV/Å", note)
    if samples.molecules:
        size = max(diameter(cast(Tensor, one.pos)) for one in structures)
        yield CheckResult.measured("balance", "torques", torque, bound * atoms * max(size, 1.0), "eV", note)


def compare(
    check: str, subject: ModelAdapter, before: Result, after: Result, note: str
) -> Iterator[CheckResult]:
    """Compare energies and forces that ought to be equal but for rounding."""
    tolerance = subject.tolerance
    for quantity, unit, a, b, least in (
        ("energy", "eV", before.energy, after.energy, tolerance.energy),
        ("forces", "eV/Å", before.forces, after.forces, tolerance.forces),
    ):
        bound = least + tolerance.relative * float(a.abs().max())
        yield CheckResult.measured(check, quantity, float((a - b).abs().max()), bound, unit, note)


def _turned(
    check: str, subject: ModelAdapter, samples: Samples, turns: list[Tensor], note: str
) -> Iterator[CheckResult]:
    structures = samples.with_crowd()
    turned = [
        moved(one, cast(Tensor, one.pos) @ turn, cell=one.cell @ turn if "cell" in one else None)
        for one, turn in zip(structures, turns, strict=True)
    ]
    before, after = subject.exact(structures), _one_by_one(subject, turned)
    back = torch.cat([f @ turn.T for f, turn in zip(_split(after.forces, structures), turns, strict=True)])
    yield from compare(check, subject, before, Result(after.energy, back), note)


def _one_by_one(subject: ModelAdapter, structures: list[Data]) -> Result:
    results = [subject.exact([one]) for one in structures]
    return Result(torch.cat([r.energy for r in results]), torch.cat([r.forces for r in results]))


def _split(values: Tensor, structures: list[Data]) -> list[Tensor]:
    return list(values.split([len(one.z) for one in structures]))


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {
    "rotation": check_rotation,
    "reflection": check_reflection,
    "translation": check_translation,
    "permutation": check_permutation,
    "batching": check_batching,
    "repetition": check_repetition,
    "balance": check_balance,
}
