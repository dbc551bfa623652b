"""Molecular dynamics: of one molecule by ASE, of many side by side where an implementation can."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
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
        pos = torch.from_numpy(self.atoms.positions).to(self.peer.device, self.peer.pos[0].dtype)
        energy, forces = self.peer.evaluate(pos)
        assert forces is not None
        self.results = {"energy": energy.item(), "forces": forces.detach().double().cpu().numpy()}


class Dynamics:
    """Runs at constant energy, each from the same start."""

    def __init__(self, peer: Peer):
        self.calculator = peer.calculator() if hasattr(peer, "calculator") else EdgesGiven(peer)
        self.numbers, self.positions = peer.z.cpu().numpy(), peer.pos[0].double().cpu().numpy()

    def __call__(self, steps: int) -> None:
        """Take steps of 0.5 fs."""
        self.run(Atoms(self.numbers, self.positions), steps)

    def run(self, atoms: Atoms, steps: int) -> None:
        """Take steps of 0.5 fs with a structure, from velocities of 50 K."""
        atoms.calc = self.calculator
        noise = np.random.default_rng(0).standard_normal((len(atoms), 3))
        atoms.set_momenta(noise * np.sqrt(atoms.get_masses()[:, None] * 50 * units.kB))
        VelocityVerlet(atoms, timestep=0.5 * units.fs).run(steps)


class BatchedSystem:
    """The same of many molecules side by side, each from a start of its own.

    Args:
        peer: With ``move_together``.
        count: Number of molecules.
    """

    def __init__(self, peer: Peer, count: int):
        self.peer, self.count = peer, count
        self.atoms = Atoms(peer.z.cpu().numpy(), peer.pos[0].double().cpu().numpy())

    def __call__(self, steps: int) -> float:
        """Take steps of 0.5 fs; give the seconds, those at the start included."""
        start = time.perf_counter()
        self.peer.move_together(self.count * [self.atoms], steps)
        return (time.perf_counter() - start) / self.count
