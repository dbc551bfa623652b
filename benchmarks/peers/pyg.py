"""PyTorch Geometric's SchNet."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch_geometric.nn import SchNet
from torch_geometric.nn.models.schnet import ShiftedSoftplus

from benchmarks.peers import peer


class Peer(peer.Peer):
    """PyG's SchNet with ready-made edges, forces by autograd."""

    transplants = True

    def build(self) -> nn.Module:
        return peer.shake(SchNet(**self.spec["model"], interaction_graph=self._edges))

    def sharpen(self) -> None:
        basis, last = self.model.distance_expansion, self.spec["model"]["cutoff"]
        basis.offset = torch.linspace(0, last, len(basis.offset), dtype=torch.float64)
        basis.coeff = -0.5 / (last / (len(basis.offset) - 1)) ** 2
        for module in self.model.modules():
            if isinstance(module, ShiftedSoftplus):
                module.shift = math.log(2.0)

    def evaluate(self, pos: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.spec["forces"]:
            with torch.set_grad_enabled(self.model.training):
                return self.model(self.z, pos, self.batch).squeeze(-1), None
        pos = pos.detach().requires_grad_()
        energy = self.model(self.z, pos, self.batch).squeeze(-1)
        return energy, self.minus_gradient(energy, pos)

    def _edges(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        source, target = self.edge_index
        return self.edge_index, (pos[source] - pos[target]).norm(dim=-1)
