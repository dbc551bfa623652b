"""Limits: what is far apart, or made of something else than in training."""

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
from pyg_schnet.checks.model_output import ModelError, NotFinite
from pyg_schnet.checks.result import FAIL, LIMIT, PASS, CheckResult
from pyg_schnet.checks.samples import Samples, diameter, is_periodic, moved

_FAR = 100.0  # Å; SchNet's Gaussians end at 30
_MANY = 200  # atoms of many copies
_FOREIGN = (2, 10, 18, 36, 54)  # noble gases, which hardly any training set holds, and no molecule


def check_extensivity(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Add up: copies far apart have the energy of each, and so have the cells of a crystal.

    Of each structure there are two copies, of the smallest so many that there are hundreds of atoms, too.
    """
    worst = largest = 0.0
    smallest = min(samples.structures, key=lambda data: len(data.z))
    many = max(2, math.ceil(_MANY / len(smallest.z)))
    for data, number in [*((data, 2) for data in samples.structures), (smallest, many)]:
        copies = _copies(subject, data, number)
        one, all_of_them = (float(subject.exact([each]).energy[0]) for each in (data, copies))
        error = abs(all_of_them - number * one) / (len(data.z) * (number - 1))
        worst, largest = max(worst, error), max(largest, abs(all_of_them))
    bound = subject.tolerance.energy + subject.tolerance.relative * largest
    note = "what is far apart must add up; is there a cutoff, or are all pairs connected?"
    finding = CheckResult.measured("extensivity", "energy", worst, bound, "eV/atom", note)
    if finding.verdict == FAIL and subject.connects_all:
        note = (
            "without a cutoff all atoms see each other: for one molecule; train with model.cutoff for several"
        )
        finding = CheckResult("extensivity", "energy", LIMIT, worst, bound, "eV/atom", note)
    yield finding


def _copies(subject: ModelAdapter, data: Data, number: int) -> Data:
    """Place copies of a molecule on a grid, out of each other's reach, or repeat a cell along one vector."""
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
        shifts = grid * (diameter(pos) + (_FAR if subject.cutoff is None else subject.cutoff + 1))
    return moved(data, (shifts[:, None] + pos).reshape(-1, 3), data.z.repeat(number), cell)


def check_elements(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Put an element in that training had not: it must be refused, not guessed."""
    data = samples.structures[0]
    known = set(samples.elements if subject.elements is None else subject.elements)
    accepted = []
    tried = [z for z in _FOREIGN if z not in known]
    for element in tried:
        z = data.z.clone()
        z[-1] = element
        try:
            subject.exact([moved(data, cast(Tensor, data.pos), z)])
        except ModelError:
            continue
        accepted.append(chemical_symbols[element])
    if not tried:
        note = "it accepts all elements; Potential(elements=…) refuses those that training had not"
        yield CheckResult("elements", "foreign", FAIL, 5, 0, "of 5", note)
        return
    note = (
        f"it gives energies to {', '.join(accepted)}, which the structures do not hold; unless trained "
        "on them, it must refuse them, as Potential(elements=…) does"
    )
    finding = CheckResult.measured("elements", "foreign", len(accepted), 0, f"of {len(tried)}", note)
    yield _limit_of_others(finding, subject)


def check_padding(subject: ModelAdapter, samples: Samples) -> Iterator[CheckResult]:
    """Add an atom of number 0, as padded batches have: it must be refused, or change nothing."""
    data = samples.structures[0]
    z = torch.cat([data.z, torch.tensor([0])])
    pos = torch.cat([cast(Tensor, data.pos), cast(Tensor, data.pos).mean(0, keepdim=True) + 0.7])
    padded = moved(data, pos, z)
    try:
        change = float((subject.exact([padded]).energy - subject.exact([data]).energy).abs())
    except NotFinite:
        raise
    except ModelError:
        yield CheckResult("padding", "", PASS)
        return
    bound = subject.tolerance.energy
    note = "an atom of number 0 changes the energy; do not pad, or mask such atoms"
    yield _limit_of_others(CheckResult.measured("padding", "energy", change, bound, "eV", note), subject)


def _limit_of_others(finding: CheckResult, subject: ModelAdapter) -> CheckResult:
    """Turn a failure into a limit, where the model is a plain network: an embedding takes any number."""
    return finding if subject.is_ours or finding.verdict != FAIL else replace(finding, verdict=LIMIT)


CHECKS: dict[str, Callable[[ModelAdapter, Samples], Iterator[CheckResult]]] = {
    "extensivity": check_extensivity,
    "elements": check_elements,
    "padding": check_padding,
}
