"""pyg_schnet by its public interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from benchmarks.peers import peer
from pyg_schnet import Potential, SchNet


class Peer(peer.Peer):
    """``Potential(batch)``. The variants are words: "search" leaves the edges out, "pyg" has PyG's function.

    Without "pyg", the paper's configuration is ``SchNet.paper(num_gaussians=300)``.
    """

    def build(self) -> nn.Module:
        if self.weights is not None:
            return Potential(transplanted(self.spec["model"], self.weights))
        if "pyg" in self.spec.get("variant", ""):
            return peer.shake(Potential(SchNet.from_pyg(pyg_model(self.spec["model"]))))
        if self.spec["paper"]:
            return peer.shake(Potential(SchNet.paper(num_gaussians=self.spec["model"]["num_gaussians"])))
        return peer.shake(Potential(SchNet(**self.spec["model"])))

    def load(self) -> None:
        if self.spec.get("compile"):
            self.model.compile(constant=self.spec["kind"] != "train")
        edges = "search" not in self.spec.get("variant", "")
        self.data = [self._data(pos, edges) for pos in self.pos]

    def frame(self, number: int) -> tuple[Tensor, Tensor | None]:
        out = self.model(self.data[number], forces=self.spec["forces"])
        return out["energy"], out.get("forces")

    def calculator(self) -> Calculator:
        """Give the ASE calculator."""
        from pyg_schnet.simulation import SchNetCalculator

        calculator = SchNetCalculator(self.model)
        if self.spec.get("compile"):
            calculator.potential.compile(constant=True)  # as the calculator itself does, later
        return calculator

    def move_together(self, structures: list[Atoms], steps: int) -> None:
        """Run molecular dynamics of all, side by side."""
        from pyg_schnet.simulation import run_md_batched

        run_md_batched(self.model, structures, temperature=50, duration=steps * 0.5e-3)

    def _data(self, pos: Tensor, edges: bool) -> Data:
        if self.molecules == 1:
            return Data(z=self.z, pos=pos, edge_index=self.edge_index if edges else None)
        items, first = [], 0
        of_edge = self.batch[self.edge_index[0]]
        for molecule, atoms in enumerate(torch.bincount(self.batch).tolist()):
            item = Data(z=self.z[first : first + atoms], pos=pos[first : first + atoms])
            if edges:
                item.edge_index = self.edge_index[:, of_edge == molecule] - first
            items.append(item)
            first += atoms
        return Batch.from_data_list(items)


def pyg_model(arguments: dict[str, Any]) -> nn.Module:
    """Make PyG's model."""
    from torch_geometric.nn import SchNet as PyGSchNet

    return PyGSchNet(**arguments)


def transplanted(arguments: dict[str, Any], path: str) -> SchNet:
    """Make our model of PyG's or SchNetPack's weights."""
    with np.load(path) as file:
        weights = {name: torch.from_numpy(file[name]) for name in file}
    if any(name.startswith("representation.") for name in weights):
        return SchNet.from_schnetpack(weights, activation="shifted_softplus")
    model = pyg_model(arguments).to(weights["lin1.weight"].dtype)
    model.load_state_dict(weights)
    return SchNet.from_pyg(model)
