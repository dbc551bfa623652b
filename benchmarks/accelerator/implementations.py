"""Implementations on one device, with equal weights: ours in its ways of execution, PyG's, SchNetPack's."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import Calculator
from torch import Tensor

from benchmarks import inputs
from benchmarks.accelerator.rows import Skipped
from benchmarks.peers import ours
from benchmarks.peers.peer import Peer
from benchmarks.tasks import MODELS
from pyg_schnet import radius_graph
from pyg_schnet.simulation import SchNetCalculator

PYG, PYG_COMPILED, SCHNETPACK = "PyG", "PyG, torch.compile", "SchNetPack"
EAGER, COMPILED, CAPTURED = "ours, eager", "ours, compiled", "ours, captured graph"
OURS = (EAGER, COMPILED, CAPTURED)
QUICK = (PYG, *OURS, SCHNETPACK)  # torch.compile takes a minute


@dataclass(frozen=True)
class Work:
    """Structures and what is computed of them.

    Attributes:
        name: In the table.
        data: npz file, see ``benchmarks/inputs.py``.
        model: Key of ``MODELS``.
        kind: "train" or "infer".
        forces: Whether forces are computed, or trained on.
    """

    name: str
    data: Path
    model: str
    kind: str = "train"
    forces: bool = True

    def spec(self, device: torch.device, small: bool, **more: Any) -> dict[str, Any]:
        """Describe the work to an implementation."""
        model = dict(MODELS[self.model])
        if small:
            model |= {"hidden_channels": 16, "num_filters": 16, "num_interactions": 2, "num_gaussians": 12}
        base = {"kind": self.kind, "forces": self.forces, "paper": False, "model": model, "variant": ""}
        return base | {"device": str(device)} | more


def save_structures(folder: Path, name: str, arrays: inputs.Arrays, model: str) -> Path:
    """Write structures, with the edges of the model's cutoff for those who need them ready-made."""
    cutoff = MODELS[model]["cutoff"]
    pos, batch = torch.from_numpy(arrays["pos"][0]), torch.from_numpy(arrays["batch"])
    edges = radius_graph(pos, cutoff, batch).numpy()
    path = folder / f"{name}-{model}.npz"
    np.savez(path, **{**arrays, "edge_index": edges})
    return path


class Ours(ours.Peer):
    """Ours with pairs found once for each batch, as training holds them."""

    def load(self) -> None:
        super().load()
        self.graphs = [self.model.build_graph(data) for data in self.data]

    def frame(self, number: int) -> tuple[Tensor, Tensor | None]:
        out = self.model(self.data[number], forces=self.spec["forces"], graph=self.graphs[number])
        return out["energy"], out.get("forces")

    def calculator(self) -> Calculator:
        return SchNetCalculator(self.model, compile=bool(self.spec["compile"]))


def build(
    variant: str,
    work: Work,
    device: torch.device,
    weights: Path | None,
    small: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Peer:
    """Build an implementation; ours takes over the weights of PyG's or SchNetPack's.

    Raises:
        Skipped: If its library is not installed here.
    """
    compiled = variant in (COMPILED, CAPTURED, PYG_COMPILED)
    spec = work.spec(device, small, compile=compiled)
    given = None if weights is None else str(weights)
    if variant in OURS:
        spec["variant"] = "search"
        return Ours(spec, str(work.data), dtype, given)
    name = "schnetpack" if variant == SCHNETPACK else "pyg"
    try:
        module = importlib.import_module(f"benchmarks.peers.{name}")
    except ImportError as error:
        raise Skipped(f"{variant} cannot be imported here: {error}") from None
    return module.Peer(spec, str(work.data), dtype)


def results(peer: Peer) -> list[Tensor]:
    """Compute what is compared: energies, forces, and in training the norms of the loss's gradients.

    The norms are logarithms, so that small ones count, in ascending order, as each implementation names and
    orders its weights otherwise.
    """
    energy, forces = peer.frame(0)
    found = [energy.detach()] + ([] if forces is None else [forces.detach()])
    if peer.spec["kind"] == "train":
        peer.model.zero_grad()
        peer.loss(0).backward()
        norms = [float(p.grad.double().norm()) for p in peer.model.parameters() if p.grad is not None]
        found.append(torch.tensor(sorted(math.log(norm) for norm in norms if norm > 0)))
        peer.model.zero_grad()
    return found


def weights_after(step: Callable[[], object], peer: Peer, steps: int) -> list[Tensor]:
    """Return the weights after some steps of training."""
    for _ in range(steps):
        step()
    return [parameter.detach().clone() for parameter in peer.model.parameters()]
