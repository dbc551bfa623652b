"""Precision: errors by float32, compilation and splines of filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch_geometric.data import Data

from pyg_schnet.checks.model_adapter import ModelAdapter, potentials_of
from pyg_schnet.checks.model_output import ModelOutput
from pyg_schnet.checks.result import FAIL, SKIP, CheckResult
from pyg_schnet.checks.samples import Samples

# A hundredth of the errors of good models (0.1 meV/atom, 5 meV/Å).
_ENERGY = 1e-2  # meV/atom
_FORCES = 0.1  # meV/Å


def check_float32(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare float32 with float64."""
    if not isinstance(adapter.model, nn.Module) or adapter.dtype != torch.float64:
        yield CheckResult("float32", "", SKIP, note=adapter.why_single or "it has no weights to convert")
        return
    single = adapter.variant(torch.float32)
    after = adapter.compute_variant(single, samples.structures, torch.float32)
    note = "use float64 for positions, sums and large energies; train on energies relative to references"
    yield from _changes("float32", adapter.compute_exact(samples.structures), after, samples.structures, note)


def check_compiled(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare the compiled potential with its eager execution, both in float32."""
    if not adapter.is_potential:
        yield CheckResult("compiled", "", SKIP, note="only a Potential is compiled")
        return
    eager, compiled = (adapter.variant(torch.float32, "auto", compiled=on) for on in (False, True))
    own = potentials_of(compiled)
    reason = next((reason for one in own if (reason := one.why_eager()) is not None), None)
    if reason is not None:
        yield CheckResult("compiled", "", SKIP, note=reason)
        return
    before = adapter.compute_variant(eager, samples.structures, torch.float32)
    after = adapter.compute_variant(compiled, samples.structures, torch.float32)
    for one in own:
        if one.compiled is not None and one.compiled.failure is not None:
            yield CheckResult("compiled", "", FAIL, note=one.compiled.failure)
            return
    note = "the compiled program differs from the model; please report it"
    yield from _changes("compiled", before, after, samples.structures, note)


def check_splines(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare splines of filters with exact filters, both in float64."""
    if not adapter.networks:
        yield CheckResult("splines", "", SKIP, note="only SchNet has splines of filters")
        return
    if all(network.filters == "exact" for network in adapter.networks):
        yield CheckResult("splines", "", SKIP, note="this model uses filters='exact'")
        return
    splines = adapter.variant(torch.float64, "spline")
    after = adapter.compute_variant(splines, samples.structures, torch.float64)
    note = "the filters are not smooth enough for splines; train with model.filters=exact"
    yield from _changes("splines", adapter.compute_exact(samples.structures), after, samples.structures, note)


def _changes(
    check: str, before: ModelOutput, after: ModelOutput, structures: list[Data], note: str
) -> Iterator[CheckResult]:
    atoms = torch.tensor([len(one.z) for one in structures])
    energy = 1e3 * ((after.energy - before.energy).abs() / atoms).max()
    forces = 1e3 * (after.forces - before.forces).abs().max()
    largest = max(1.0, float(before.forces.abs().max()))
    yield CheckResult.measured(check, "energy", float(energy), _ENERGY, "meV/atom", note)
    yield CheckResult.measured(check, "forces", float(forces), _FORCES * largest, "meV/Å", note)


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {
    "float32": check_float32,
    "compiled": check_compiled,
    "splines": check_splines,
}
