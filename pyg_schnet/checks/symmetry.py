"""Symmetries: operations under which energies are invariant and forces covariant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.model_output import ModelOutput
from pyg_schnet.checks.result import CheckResult
from pyg_schnet.checks.samples import Samples, diameter, is_periodic, random_rotation, with_positions


def check_rotation(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Rotate structures: energies are invariant, forces rotate."""
    matrices = [random_rotation(samples.generator) for _ in samples.with_cluster()]
    note = "energies and forces must not depend on the orientation; use distances, or equivariant features"
    yield from _compare_transformed("rotation", adapter, samples, matrices, note)


def check_reflection(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Reflect structures: energies are invariant, forces are reflected."""
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    matrices = [mirror @ random_rotation(samples.generator) for _ in samples.with_cluster()]
    note = "mirror images have the same energy; the model depends on handedness"
    yield from _compare_transformed("reflection", adapter, samples, matrices, note)


def check_translation(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Translate structures by some 10 Å."""
    structures = samples.with_cluster()
    translated = [with_positions(one, cast(Tensor, one.pos) + 10 * samples.normal(3)) for one in structures]
    note = "energies must not depend on the origin; use differences of positions"
    before, after = adapter.compute_exact(structures), _one_by_one(adapter, translated)
    yield from compare("translation", adapter, before, after, note)


def check_permutation(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Permute atoms."""
    note = "energies must not depend on the order of atoms; are neighbors dropped beyond some number?"
    structures = samples.with_cluster()
    orders = [torch.randperm(len(one.z), generator=samples.generator) for one in structures]
    other = [
        with_positions(s, cast(Tensor, s.pos)[o], s.z[o]) for s, o in zip(structures, orders, strict=True)
    ]
    before, after = adapter.compute_exact(structures), adapter.compute_exact(other)
    back = torch.cat(
        [part[order.argsort()] for part, order in zip(_split(after.forces, structures), orders, strict=True)]
    )
    yield from compare("permutation", adapter, before, ModelOutput(after.energy, back), note)


def check_batching(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare structures in one batch, single atoms among them, with structures one by one."""
    structures = samples.with_cluster()
    origin = torch.zeros(1, 3, dtype=torch.float64)
    structures[1:1] = [samples.molecule(torch.tensor([z]), origin) for z in samples.elements]
    together, alone = adapter.compute_exact(structures), _one_by_one(adapter, structures)
    note = "molecules of a batch must not interact; does every layer respect `batch`?"
    yield from compare("batching", adapter, alone, together, note)


def check_repetition(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compute the same twice, and compare the input positions before and after."""
    structures = samples.with_cluster()
    first, second = adapter.compute_exact(structures), adapter.compute_exact(structures)
    note = "the same input must yield the same energies; is dropout or noise active?"
    yield from compare("repetition", adapter, first, second, note)
    note = "a model must not modify its input"
    yield CheckResult.measured("repetition", "positions", adapter.position_change, 0.0, "Å", note)


def check_balance(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Sum forces and, for molecules, torques: both must be zero."""
    structures = samples.structures
    result = adapter.compute_exact(structures)
    bound = adapter.tolerance.forces + adapter.tolerance.relative * float(result.forces.abs().max())
    force, torque, note = 0.0, 0.0, "forces must sum to zero, or a molecule at rest would accelerate"
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
    check: str, adapter: ModelAdapter, before: ModelOutput, after: ModelOutput, note: str
) -> Iterator[CheckResult]:
    """Compare energies and forces that must be equal up to rounding."""
    tolerance = adapter.tolerance
    for quantity, unit, a, b, least in (
        ("energy", "eV", before.energy, after.energy, tolerance.energy),
        ("forces", "eV/Å", before.forces, after.forces, tolerance.forces),
    ):
        bound = least + tolerance.relative * float(a.abs().max())
        yield CheckResult.measured(check, quantity, float((a - b).abs().max()), bound, unit, note)


def _compare_transformed(
    check: str, adapter: ModelAdapter, samples: Samples, matrices: list[Tensor], note: str
) -> Iterator[CheckResult]:
    structures = samples.with_cluster()
    transformed = [
        with_positions(one, cast(Tensor, one.pos) @ matrix, cell=one.cell @ matrix if "cell" in one else None)
        for one, matrix in zip(structures, matrices, strict=True)
    ]
    before, after = adapter.compute_exact(structures), _one_by_one(adapter, transformed)
    back = torch.cat(
        [f @ matrix.T for f, matrix in zip(_split(after.forces, structures), matrices, strict=True)]
    )
    yield from compare(check, adapter, before, ModelOutput(after.energy, back), note)


def _one_by_one(adapter: ModelAdapter, structures: list[Data]) -> ModelOutput:
    results = [adapter.compute_exact([one]) for one in structures]
    return ModelOutput(torch.cat([r.energy for r in results]), torch.cat([r.forces for r in results]))


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
