"""Charges of the elements that reproduce dipole moments as well as charges of elements can."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.streaming import stream
from pyg_schnet.graph.csr import sum_by_molecule
from pyg_schnet.nn.readout import CenteredReadout
from pyg_schnet.potentials.device import use_threads

_MOST_STRUCTURES = 20_000  # sampled evenly
_STARTS = 8  # at random, because the length of a dipole has several minima
_STEPS = 100
_SMALLEST = 1e-6  # Å; without more, as of one element, no charges make a dipole
_CONVERGED = 1e-9  # relative change of the sum of squares


class _Moments(NamedTuple):
    """Labels, and the sum of the positions of each element relative to the center of mass.

    Attributes:
        positions: ``(structures, elements, 3)``, in Å.
        labels: Lengths of dipole moments, ``(structures,)``.
    """

    positions: Tensor
    labels: Tensor

    def dipoles(self, charges: Tensor) -> Tensor:
        return torch.einsum("e,med->md", charges, self.positions)

    def loss(self, charges: Tensor) -> float:
        return float((self.dipoles(charges).norm(dim=1) - self.labels).square().sum())


def fit_element_charges(readout: CenteredReadout, name: str, train: AtomsDataset) -> Tensor:
    r"""Fit charges of the elements to lengths of dipole moments, by least squares.

    .. math::
        \min_a \sum_m \Big( \Big| \sum_i a_{z_i} (\mathbf r_i - \mathbf c) \Big| - \mu_m \Big)^2

    The Gauss-Newton method starts from several random charges, and the best result is kept.

    Args:
        readout: Readout that computes positions relative to the center of mass.
        name: Name of the labels.
        train: Training structures; at most 20,000 are used.

    Returns:
        Charges by atomic number, ``(100,)``, in the unit of the labels over Å; those of elements without a
        known label are zero.
    """
    elements, charges = train.elements(), torch.zeros(100, dtype=torch.float64)
    with use_threads(1):  # sums that do not depend on the number of threads
        moments = _moments(readout, name, train, elements)
        if len(moments.labels) == 0 or float(moments.positions.abs().max()) < _SMALLEST:
            return charges
        unit = float((moments.labels.square().sum() / moments.positions.square().sum()).sqrt())
        generator = torch.Generator().manual_seed(0)
        starts = unit * torch.randn(_STARTS, len(elements), generator=generator, dtype=torch.float64)
        charges[elements] = min((_minimize(moments, start) for start in starts), key=moments.loss)
    return charges


def _moments(readout: CenteredReadout, name: str, train: AtomsDataset, elements: list[int]) -> _Moments:
    sample = cast(AtomsDataset, train[:: -(-len(train) // _MOST_STRUCTURES)])
    positions, labels = [], []
    for _, batch in stream(sample, ("pos", name)):
        z, molecule, known = batch.z, cast(Tensor, batch.batch), batch[name].isfinite()
        relative = readout.relative_to_center(z, cast(Tensor, batch.pos), molecule, batch.num_graphs)
        of_elements = [
            sum_by_molecule(torch.where((z == element)[:, None], relative, 0.0), molecule, batch.num_graphs)
            for element in elements
        ]
        positions.append(torch.stack(of_elements, dim=1)[known])
        labels.append(batch[name][known].double())
    return _Moments(torch.cat(positions), torch.cat(labels))


def _minimize(moments: _Moments, charges: Tensor) -> Tensor:
    """Minimize the sum of squared errors; each step is halved until it decreases."""
    loss = moments.loss(charges)
    for _ in range(_STEPS):
        dipoles = moments.dipoles(charges)
        length = dipoles.norm(dim=1)
        direction = dipoles / length.clamp(min=1e-12)[:, None]
        slopes = torch.einsum("md,med->me", direction, moments.positions)
        # The normal equations: of rank less than the elements, because a charge by mass has no dipole.
        gram, right = slopes.T @ slopes, slopes.T @ (length - moments.labels)
        step = torch.linalg.lstsq(gram, right, driver="gelsd").solution
        before = loss
        for _ in range(_STEPS):
            if (loss := moments.loss(charges - step)) < before:
                charges = charges - step
                break
            step = step / 2
        if not before - loss > _CONVERGED * before:
            break
    return charges
