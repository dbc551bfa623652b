"""Limits: separated fragments, unknown elements, padding atoms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.checks.model_adapter import ModelAdapter
from pyg_schnet.checks.model_output import ModelError, NotFiniteError
from pyg_schnet.checks.result import FAIL, LIMIT, PASS, CheckResult
from pyg_schnet.checks.samples import Samples, diameter, is_periodic, with_positions

_FAR = 100.0  # Å; the Gaussians of SchNet end at 30
_MANY = 200  # atoms at least of many copies
_FOREIGN = (2, 10, 18, 36, 54)  # noble gases, which are in hardly any training set


def check_extensivity(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Compare the energy of separated copies, or of a supercell, with the sum of their energies.

    Two copies of each structure, and copies of the smallest with at least 200 atoms together.
    """
    worst = largest = 0.0
    smallest = min(samples.structures, key=lambda data: len(data.z))
    many = max(2, math.ceil(_MANY / len(smallest.z)))
    for data, number in [*((data, 2) for data in samples.structures), (smallest, many)]:
        copies = _copies(adapter, data, number)
        one, together = (float(adapter.compute_exact([each]).energy[0]) for each in (data, copies))
        error = abs(together - number * one) / (len(data.z) * (number - 1))
        worst, largest = max(worst, error), max(largest, abs(together))
    bound = adapter.tolerance.energy + adapter.tolerance.relative * largest
    note = "energies of separated fragments must add up; is there a cutoff, or do all pairs interact?"
    finding = CheckResult.measured("extensivity", "energy", worst, bound, "eV/atom", note)
    if finding.verdict == FAIL and adapter.has_no_cutoff:
        note = "without a cutoff all atoms interact; train with model.cutoff for several molecules"
        finding = CheckResult("extensivity", "energy", LIMIT, worst, bound, "eV/atom", note)
    yield finding


def _copies(adapter: ModelAdapter, data: Data, number: int) -> Data:
    """Place copies of a molecule on a grid beyond the cutoff, or repeat a cell along one vector."""
    pos, places = cast(Tensor, data.pos), torch.arange(number, dtype=torch.float64)[:, None]
    cell = None
    if is_periodic(data):
        far, cell = torch.tensor([_FAR, 0, 0], dtype=torch.float64), data.cell
        if bool(data.pbc[0, 0]):
            far, cell = data.cell[0, 0], data.cell * torch.tensor([[number], [1], [1]])
        shifts = places * far
    else:
        side = math.ceil(round(number ** (1 / 3), 6))
        grid = torch.cat([places % side, places // side % side, places // side**2], dim=1)
        shifts = grid * (diameter(pos) + (_FAR if adapter.cutoff is None else adapter.cutoff + 1))
    return with_positions(data, (shifts[:, None] + pos).reshape(-1, 3), data.z.repeat(number), cell)


def check_elements(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Replace an atom by an element that was not in training: the model must raise."""
    data = samples.structures[0]
    known = set(samples.elements if adapter.elements is None else adapter.elements)
    accepted = []
    tried = [z for z in _FOREIGN if z not in known]
    for element in tried:
        z = data.z.clone()
        z[-1] = element
        try:
            adapter.compute_exact([with_positions(data, cast(Tensor, data.pos), z)])
        except ModelError:
            continue
        accepted.append(chemical_symbols[element])
    if not tried:
        note = "it accepts all elements; Potential(elements=…) rejects those that were not in training"
        yield CheckResult("elements", "foreign", FAIL, 5, 0, "of 5", note)
        return
    note = (
        f"it accepts {', '.join(accepted)}, which the structures do not contain; unless trained on them, it "
        "must reject them, as Potential(elements=…) does"
    )
    finding = CheckResult.measured("elements", "foreign", len(accepted), 0, f"of {len(tried)}", note)
    yield _limit_of_others(finding, adapter)


def check_padding(adapter: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Add an atom of number 0, as in padded batches: the model must raise, or ignore it."""
    data = samples.structures[0]
    z = torch.cat([data.z, torch.tensor([0])])
    pos = torch.cat([cast(Tensor, data.pos), cast(Tensor, data.pos).mean(0, keepdim=True) + 0.7])
    padded = with_positions(data, pos, z)
    try:
        change = float((adapter.compute_exact([padded]).energy - adapter.compute_exact([data]).energy).abs())
    except NotFiniteError:
        raise
    except ModelError:
        yield CheckResult("padding", "", PASS)
        return
    bound = adapter.tolerance.energy
    note = "an atom of number 0 changes the energy; mask such atoms, or do not pad"
    yield _limit_of_others(CheckResult.measured("padding", "energy", change, bound, "eV", note), adapter)


def _limit_of_others(finding: CheckResult, adapter: ModelAdapter) -> CheckResult:
    """Return a failure of a plain network as a limit: its embedding accepts any number."""
    return finding if adapter.is_potential or finding.verdict != FAIL else replace(finding, verdict=LIMIT)


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {
    "extensivity": check_extensivity,
    "elements": check_elements,
    "padding": check_padding,
}
