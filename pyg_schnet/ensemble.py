"""Ensembles: several potentials on one graph, their mean and how far they disagree."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet.checkpoint import load
from pyg_schnet.domain import Domain
from pyg_schnet.molecules import check_molecules
from pyg_schnet.neighbors import neighbor_list
from pyg_schnet.nn import SchNet
from pyg_schnet.potential import Potential


class Ensemble(nn.Module):
    r"""The mean of potentials that were trained apart, and their deviation from it.

    .. math::
        \bar E = \frac1K \sum_k E_k, \qquad
        \sigma_E^2 = \frac1{K-1} \sum_k (E_k - \bar E)^2, \qquad
        \sigma_{F,i}^2 = \frac1{K-1} \sum_k \| \mathbf F_{ki} - \bar{\mathbf F}_i \|^2

    The mean is itself a conservative force field. Neighbors are searched once, for the largest cutoff.

    Args:
        potentials: Two or more, of any models, that accept the same elements.

    Raises:
        ValueError: If there are fewer than two, or their elements differ.

    Example:
        >>> import torch
        >>> water = Data(z=torch.tensor([8, 1, 1]), pos=torch.eye(3))
        >>> out = Ensemble([Potential(SchNet.paper()) for _ in range(3)]).eval()(water)
        >>> sorted(out)
        ['energy', 'energy_deviation', 'forces', 'forces_deviation']
    """

    def __init__(self, potentials: Sequence[Potential]):
        super().__init__()
        if len(potentials) < 2:
            raise ValueError(f"`potentials` must be two or more, to disagree; got {len(potentials)}")
        for number, potential in enumerate(potentials):
            if potential.elements != potentials[0].elements:
                raise ValueError(
                    "`potentials` must accept the same elements; number 0 accepts "
                    f"{potentials[0].elements}, number {number} {potential.elements}"
                )
        self.potentials = nn.ModuleList(potentials)

    @classmethod
    def load(
        cls,
        paths: Sequence[str | os.PathLike],
        device: str | torch.device = "cpu",
        make: Callable[[], nn.Module] | None = None,
    ) -> Ensemble:
        """Read potentials, as :func:`pyg_schnet.load` reads one.

        Args:
            paths: Files written by ``pyg-schnet train``, two or more.
            device: Where the weights go.
            make: Makes a model that gets the weights, where they are not those of a SchNet.

        Returns:
            The ensemble, in evaluation mode.
        """
        return cls([load(path, device, make() if make else None) for path in paths]).eval()

    def compile(self, constant: bool = False) -> Ensemble:
        """Compile each potential, see :meth:`Potential.compile <pyg_schnet.Potential.compile>`."""
        for potential in self.potentials:
            cast(Potential, potential).compile(constant)
        return self

    @property
    def compiled(self) -> object | None:
        """What the first potential tells of its programs; ``None`` without."""
        return self._first.compiled

    @property
    def scale(self) -> Tensor:
        """Unit of the first model's output, in eV; on the device of all."""
        return self._first.scale

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that all of them accept."""
        return self._first.elements

    @property
    def domain(self) -> Domain | None:
        """What all of them were trained on; ``None`` if it is not known of one."""
        return Domain.common([cast(Potential, potential).domain for potential in self.potentials])

    @property
    def atomref(self) -> Tensor:
        """Energies of isolated atoms in eV by atomic number, ``(100,)``: the mean."""
        return torch.stack([cast(Potential, potential).atomref for potential in self.potentials]).mean(0)

    @property
    def _first(self) -> Potential:
        return cast(Potential, self.potentials[0])

    def forward(self, data: Data, forces: bool = True, stress: bool = False) -> dict[str, Tensor]:
        """Compute mean energies, forces and stresses, and deviations.

        Args:
            data: As for :class:`~pyg_schnet.Potential`.
            forces: Whether forces are wanted.
            stress: Whether the stress of periodic systems is wanted.

        Returns:
            ``energy (molecules,)`` and ``energy_deviation (molecules,)`` in eV; ``forces (atoms, 3)`` and
            ``forces_deviation (atoms,)`` in eV/Å; ``stress (molecules, 3, 3)`` in eV/Å³.
        """
        data = self._with_edges(data)
        results = [potential(data, forces, stress) for potential in self.potentials]
        found = {name: torch.stack([result[name] for result in results]) for name in results[0]}
        out = {name: values.mean(0) for name, values in found.items()}
        out["energy_deviation"] = found["energy"].std(0)
        if forces:
            square = (found["forces"] - out["forces"]).square().sum(-1).sum(0)
            out["forces_deviation"] = (square / (len(results) - 1)).sqrt()
        return out

    def _with_edges(self, data: Data) -> Data:
        """Search neighbors once for all, unless they are given or a model finds its own."""
        models = [cast(Potential, potential).model for potential in self.potentials]
        if "edge_index" in data or "z" not in data or data.pos is None:
            return data
        if not all(isinstance(model, SchNet) and model.interaction_graph is None for model in models):
            return data
        batch, _ = check_molecules(data.z, data.pos, getattr(data, "batch", None), None)
        cutoffs = [cast(SchNet, model).config.cutoff for model in models]
        reach = float("inf") if None in cutoffs else max(cast(list[float], cutoffs))
        cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
        if reach == float("inf") and pbc is not None and bool(torch.as_tensor(pbc).any()):
            return data  # which the potentials refuse
        edge_index, shift = neighbor_list(data.pos, reach, batch, cell, pbc)
        data = copy(data)
        data.edge_index = edge_index
        if cell is not None and pbc is not None:
            data.shift = shift
        return data
