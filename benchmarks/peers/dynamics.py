"""Molecular dynamics: of one molecule by ASE, of many side by side where an implementation can."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from benchmarks.peers.peer import Peer


class EdgesGiven(Calculator):
    """The least that ASE needs: edges are not searched for, which favors the peer."""

    implemented_properties: ClassVar = ["energy", "forces"]

    def __init__(self, peer: Peer):
        super().__init__()
        self.peer = peer

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Evaluate; called by ASE."""
        super().calculate(atoms, list(properties), list(system_changes))
        pos = torch.from_numpy(self.atoms.positions).to(self.peer.pos[0].dtype)
        energy, forces = self.peer.evaluate(pos)
        assert forces is not None
        self.results = {"energy": energy.item(), "forces": forces.detach().double().numpy()}


class Dynamics:
    """Runs at constant energy, each from the same start."""

    def __init__(self, peer: Peer):
        self.calculator = peer.calculator() if hasattr(peer, "calculator") else EdgesGiven(peer)
        self.numbers, self.positions = peer.z.numpy(), peer.pos[0].double().numpy()

    def __call__(self, steps: int) -> None:
        """Take steps of 0.5 fs."""
        atoms = Atoms(self.numbers, self.positions)
        atoms.calc = self.calculator
        MaxwellBoltzmannDistribution(atoms, temperature_K=50, rng=np.random.default_rng(0))
        VelocityVerlet(atoms, timestep=0.5 * units.fs).run(steps)


class BatchedSystem:
    """The same of many molecules side by side, each from a start of its own.

    Args:
        peer: With ``move_together``.
        count: Number of molecules.
    """

    def __init__(self, peer: Peer, count: int):
        self.peer, self.count = peer, count
        self.atoms = Atoms(peer.z.numpy(), peer.pos[0].double().numpy())

    def __call__(self, steps: int) -> float:
        """Take steps of 0.5 fs; give the seconds, those at the start included."""
        start = time.perf_counter()
        self.peer.move_together(self.count * [self.atoms], steps)
        return (time.perf_counter() - start) / self.count
