"""What is timed: the tasks, their models and the goal of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Arguments that PyG's SchNet and ours share.
MODELS: dict[str, dict[str, Any]] = {
    "paper": {
        "hidden_channels": 64,
        "num_filters": 64,
        "num_interactions": 3,
        "num_gaussians": 300,
        "cutoff": 30.0,  # Å: all pairs, and the envelope of the peers is near one
    },
    "today": {
        "hidden_channels": 128,
        "num_filters": 128,
        "num_interactions": 6,
        "num_gaussians": 50,
        "cutoff": 5.0,  # Å
    },
}


@dataclass(frozen=True)
class Task:
    """One kind of work, timed for each implementation.

    Attributes:
        name: On the command line.
        title: In the table.
        kind: "train", "infer", "dynamics", or "replicas" for the dynamics of many molecules.
        data: Name of the structures, see ``inputs.py``.
        goal: How many times as fast as the fastest of PyG and SchNetPack it is to be.
        forces: Whether forces are trained on, or computed.
        model: Key of ``MODELS``.
        replicas: How many molecules are moved; times are a step of one.
        memory_goal: Largest fraction of the peers' peak memory; memory is measured where it is given.
    """

    name: str
    title: str
    kind: str
    data: str
    goal: float
    forces: bool = True
    model: str = "paper"
    memory_goal: float | None = None
    replicas: int = 1

    def spec(self) -> dict[str, Any]:
        """Describe the task to a worker."""
        return {
            "kind": self.kind,
            "forces": self.forces,
            "paper": self.model == "paper",
            "model": MODELS[self.model],
            "replicas": self.replicas,
        }


TASKS = {
    task.name: task
    for task in (
        Task("ethanol-train", "MD17 ethanol, energy + forces, training step", "train", "ethanol", 10),
        Task("aspirin-train", "MD17 aspirin, energy + forces, training step", "train", "aspirin", 20),
        Task("qm9-energy", "QM9, energy, training step", "train", "qm9", 12, forces=False),
        Task("qm9-forces", "QM9, energy + forces, training step", "train", "qm9", 15, memory_goal=1 / 3),
        Task("aspirin-infer", "MD17 aspirin, energy + forces, inference", "infer", "aspirin", 20),
        Task("ethanol-one", "one ethanol molecule, energy + forces, a call", "infer", "molecule", 10),
        Task("ethanol-nve", "one ethanol molecule, a step of ASE's NVE", "dynamics", "molecule", 6),
        Task(
            "replicas", "256 ethanol molecules, NVE, a step of each", "replicas", "molecule", 20, replicas=256
        ),
        Task("box", "1,000 atoms within 5 Å, energy + forces, a call", "infer", "box", 4, model="today"),
    )
}
