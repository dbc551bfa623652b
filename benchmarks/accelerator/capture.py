"""Steps of training as ``fit`` does them: batches cut on the device, and each step one recorded graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from benchmarks.accelerator.rows import Skipped
from benchmarks.peers.peer import Peer
from pyg_schnet.training import Report, TrainerConfig
from pyg_schnet.training.captured_step import CapturedStep, choose_step
from pyg_schnet.training.device_data import DeviceData
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.state import TrainingState
from pyg_schnet.training.step import StepLoss, TrainingStep
from pyg_schnet.training.validation import RecentNumbers


class Frames(InMemoryDataset):
    """The molecules of all frames of an implementation, one frame after the other.

    Args:
        peer: Ours.
    """

    def __init__(self, peer: Peer):
        super().__init__(None)
        sizes = torch.bincount(peer.batch).tolist()
        z, items = peer.z.cpu().split(sizes), []
        for pos, energy, forces in zip(peer.pos, peer.energy, peer.forces, strict=True):
            parts = pos.cpu().split(sizes), energy.cpu().double(), forces.cpu().split(sizes)
            for own_z, own_pos, own_energy, own_forces in zip(z, *parts, strict=True):
                labels = {"energy": own_energy.view(1)}
                labels |= {"forces": own_forces} if peer.spec["forces"] else {}
                items.append(Data(z=own_z, pos=own_pos, **labels))
        self._data, self.slices = self.collate(items)


class _Lines(Report):
    """A report that keeps its lines."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def training_step(peer: Peer, captured: bool = True) -> Callable[[], Tensor]:
    """Return a step of training, which returns its loss.

    Args:
        peer: Ours, in training mode.
        captured: Whether steps are recorded.

    Raises:
        Skipped: If steps are not captured here, with the reason.
    """
    potential, device, lines = peer.model, peer.device, _Lines()
    dataset = Frames(peer)
    data = DeviceData(dataset, potential, device).to(device)
    config = TrainerConfig(optimizer="adam", compile=True)
    devices = 1 if device.index is None else [device.index]
    processes = Processes(Fabric(accelerator=device.type, devices=devices))
    state = TrainingState(potential, config.optimizer, 1e-3, config.ema_decay)
    loss = StepLoss(potential, config, 0.01 if peer.spec["forces"] else 1.0, peer.molecules)
    recent = RecentNumbers(None, dataset, together=device.type != "cpu")  # pyright: ignore
    step = TrainingStep(processes, state, loss, data, dataset, recent, None)
    step = choose_step(step, config, lines) if captured else step
    if captured and not isinstance(step, CapturedStep):
        raise Skipped(lines.lines[0] if lines.lines else "steps are captured on GPUs only")
    frames = itertools.cycle(torch.arange(len(dataset)).view(-1, peer.molecules))

    def advance() -> Tensor:
        ids = next(frames)
        found, _ = step(ids, [ids], lambda: ())
        state.counters.step += 1
        if lines.lines:  # recording failed, and steps run one operation after the other
            raise RuntimeError(lines.lines[0])
        return found

    return advance
