"""SchNetPack's SchNet."""

from __future__ import annotations

import typing

import torch
from torch import Tensor, nn
from torch.utils.data import dataloader

from benchmarks.peers import peer
from benchmarks.peers.dynamics import EdgesGiven

if not hasattr(dataloader, "T_co"):  # SchNetPack 2.1.1 imports it, and torch 2.13 has renamed it
    dataloader.T_co = typing.TypeVar("T_co", covariant=True)

from ase.calculators.calculator import Calculator
from schnetpack import properties
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.interfaces.ase_interface import SpkCalculator
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF, shifted_softplus
from schnetpack.representation import SchNet
from schnetpack.transform import MatScipyNeighborList


class Peer(peer.Peer):
    """SchNetPack's SchNet with ready-made neighbors."""

    transplants = True

    def build(self) -> nn.Module:
        model = self.spec["model"]
        features, cutoff = model["hidden_channels"], model["cutoff"]
        network = SchNet(
            n_atom_basis=features,
            n_interactions=model["num_interactions"],
            radial_basis=GaussianRBF(model["num_gaussians"], cutoff),
            cutoff_fn=CosineCutoff(cutoff),
            n_filters=model["num_filters"],
        )
        readout = Atomwise(features, output_key="energy", activation=shifted_softplus)
        outputs = [readout, Forces(force_key="forces")] if self.spec["forces"] else [readout]
        return peer.shake(NeuralNetworkPotential(network, [PairwiseDistances()], outputs))

    def sharpen(self) -> None:
        basis, last = self.model.representation.radial_basis, self.spec["model"]["cutoff"]
        basis.offsets = torch.linspace(0, last, basis.n_rbf, dtype=torch.float64)
        basis.widths = torch.full_like(basis.offsets, last / (basis.n_rbf - 1))

    def load(self) -> None:
        super().load()
        source, target = self.edge_index
        self.inputs = {
            properties.Z: self.z,
            properties.idx_i: target,
            properties.idx_j: source,
            properties.offsets: self.pos[0].new_zeros(len(source), 3),
            properties.idx_m: self.batch,
            properties.n_atoms: torch.bincount(self.batch),
        }

    def evaluate(self, pos: Tensor) -> tuple[Tensor, Tensor | None]:
        grad = self.spec["forces"] or self.model.training
        with torch.set_grad_enabled(grad):
            out = self.model({**self.inputs, properties.R: pos.detach()})  # it writes into the dictionary
        return out["energy"], out.get("forces")

    def calculator(self) -> Calculator:
        """Give the least that ASE needs, or SchNetPack's own calculator with its fastest neighbor list."""
        if self.spec["variant"] != "calculator":
            return EdgesGiven(self)
        neighbors = MatScipyNeighborList(self.spec["model"]["cutoff"])
        return _Calculator(self.model, neighbors, energy_unit="eV")


class _Calculator(SpkCalculator):
    """SchNetPack's, of a model that is in no file."""

    def _load_model(self, model: nn.Module) -> nn.Module:
        return model
