"""The SchNet of graph-pes."""

from __future__ import annotations

import torch
from graph_pes.atomic_graph import AtomicGraph
from graph_pes.models import SchNet
from torch import Tensor, nn

from benchmarks.peers import peer


class Peer(peer.Peer):
    """graph-pes' SchNet with ready-made neighbors. It has no envelope and shares no layout of weights."""

    def build(self) -> nn.Module:
        model = self.spec["model"]
        return SchNet(
            cutoff=model["cutoff"],
            channels=model["hidden_channels"],
            expansion_features=model["num_gaussians"],
            layers=model["num_interactions"],
        )

    def evaluate(self, pos: Tensor) -> tuple[Tensor, Tensor | None]:
        wanted = ["energy", "forces"] if self.spec["forces"] else ["energy"]
        with torch.set_grad_enabled(self.spec["forces"] or self.model.training):
            out = self.model.predict(self._graph(pos), wanted)
        return out["energy"], out.get("forces")

    def _graph(self, pos: Tensor) -> AtomicGraph:
        source, target = self.edge_index
        sizes = torch.bincount(self.batch)
        return AtomicGraph(
            Z=self.z,
            R=pos,
            cell=pos.new_zeros(self.molecules, 3, 3),
            neighbour_list=torch.stack([target, source]),
            neighbour_cell_offsets=pos.new_zeros(len(source), 3),
            properties={},
            cutoff=self.spec["model"]["cutoff"],
            other={},
            batch=self.batch,
            ptr=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
        )
