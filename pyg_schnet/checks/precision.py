"""Precision: errors by float32, mixed precision, compilation and splines of filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
    with full_precision(adapter.device):
        after = adapter.compute_variant(single, samples.structures, torch.float32)
    note = "use float64 for positions, sums and large energies; train on energies relative to references"
    yield from _changes("float32", adapter.compute_exact(samples.structures), after, samples.structures, note)


def check_mixed(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare float32 in the mixed precision that the user switched on with full float32."""
    reduced = reduced_precision(adapter.device)
    if not reduced:
        yield CheckResult("mixed", "", SKIP, note="mixed precision is off: neither TF32 nor autocast")
        return
    if not isinstance(adapter.model, nn.Module):
        yield CheckResult("mixed", "", SKIP, note="it has no weights to convert")
        return
    single = adapter.variant(torch.float32) if adapter.dtype == torch.float64 else adapter.model
    after = adapter.compute_variant(single, samples.structures, torch.float32)
    with full_precision(adapter.device):
        before = adapter.compute_variant(single, samples.structures, torch.float32)
    note = f"this is what {reduced} costs on {adapter.device}; switch it off where this is too much"
    yield from _changes("mixed", before, after, samples.structures, note)


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


def reduced_precision(device: torch.device) -> str:
    """Return what the user has switched on that rounds more than float32 on a device; usually ``""``."""
    names = []
    backend, setting = _setting_of_products(device)
    value = getattr(backend, setting)
    if value in (True, "tf32", "bf16"):
        names.append(f"{'bfloat16' if value == 'bf16' else 'TF32'} in matrix products")
    if torch.is_autocast_enabled(device.type):
        names.append(f"autocast to {str(torch.get_autocast_dtype(device.type)).removeprefix('torch.')}")
    return " and ".join(names)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute the body in full float32, whatever the user has switched on."""
    backend, setting = _setting_of_products(device)
    before = getattr(backend, setting)
    setattr(backend, setting, "ieee" if setting == "fp32_precision" else False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        setattr(backend, setting, before)


def _setting_of_products(device: torch.device) -> tuple[Any, str]:
    """Return PyTorch's setting of the precision of matrix products, as an object and an attribute."""
    products: Any = torch.backends.cuda.matmul
    if not hasattr(torch.backends.mkldnn, "matmul"):  # before 2.9; later, both names must not be mixed
        return products, "allow_tf32"
    if device.type == "cpu":
        products = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    return products, "fp32_precision"


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
    "mixed": check_mixed,
    "compiled": check_compiled,
    "splines": check_splines,
}
