"""Batches of training structures: collated on the host, or cut from data that stay on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet.graph.csr import Csr
from pyg_schnet.graph.memory import device_memory, host_memory
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.graph.pair_store import PairStore
from pyg_schnet.graph.sites import Sites
from pyg_schnet.kernels import has_kernels, on_accelerator
from pyg_schnet.loader import collate
from pyg_schnet.loader.dataloader import batch_of
from pyg_schnet.loader.sampler import bound_edges, split_by_edges
from pyg_schnet.potentials.metrics import labeled_outputs
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.progress import Report

_STRUCTURES_AT_ONCE = 1024
_LABELS = ("energy", "forces", "stress", "cell", "pbc")
_MAX_SHARE = 1 / 3  # of the free memory of the device, for the data
_BYTES_PER_PAIR = 24  # in molecules, with compressed rows
_DIRECTED = "edges lack their reverse"


class TrainingBatch(NamedTuple):
    """Structures of one step.

    Attributes:
        batch: Structures and labels.
        graph: Checked atoms and pairs; ``None`` where the potential finds them.
        outputs: Options of a potential's call that request the outputs with labels.
    """

    batch: Data
    graph: PairGraph | None
    outputs: dict[str, bool]


class Batches(Protocol):
    """A source of batches."""

    def cut(self, ids: Sequence[int]) -> TrainingBatch:
        """Return the structures with these indices, in this order, on the device."""
        ...


class DirectedEdgesError(ValueError):
    """Edges without their reverse, which cannot be stored as pairs."""


class CollatedBatches:
    """Batches collated on the host and copied to the device, whose pairs the potential finds at each step.

    Args:
        dataset: Training structures.
        device: Device of the potential.
    """

    def __init__(self, dataset: InMemoryDataset, device: torch.device):
        self._dataset, self._device = dataset, device

    def cut(self, ids: Sequence[int]) -> TrainingBatch:
        """Return the structures with these indices, in this order, on the device."""
        batch = collate(self._dataset, ids).to(self._device)
        return TrainingBatch(batch, None, labeled_outputs(batch))


class DeviceData:
    """Structures, labels and pairs of a data set, checked and found once, and kept where they are needed.

    Batches are cut without waiting for the device. Data in the memory of the host are cut there, and copied
    while the device computes.

    Args:
        dataset: Training structures.
        potential: A potential that takes pairs, which checks the structures.
        device: Device of the potential.

    Attributes:
        bytes: Memory of the data.

    Raises:
        ValueError: If a structure is invalid.
        DirectedEdgesError: If edges of a structure lack their reverse.
        MemoryError: If the pairs do not fit into half of the memory of the host.
    """

    def __init__(self, dataset: InMemoryDataset, potential: Potential, device: torch.device):
        sample = collate(dataset, [0])
        like = torch.empty(0, dtype=cast(Tensor, sample.pos).dtype, device=device)
        labels: dict[str, list[Tensor]] = {name: [] for name in _LABELS if name in sample}
        pbc = cast(Data, dataset._data).to_dict().get("pbc")
        self._pairs = PairStore(
            _graphs(dataset, potential, labels),
            periodic=pbc is not None and bool(pbc.any()),
            compressed=on_accelerator(like) and has_kernels(like),
            shared=math.isinf(potential.cutoff) and "edge_index" not in sample,
        )
        self._labels = {name: torch.cat(parts) for name, parts in labels.items()}
        self._has_forces = "forces" in labels
        self._has_stress = np.zeros(len(dataset), dtype=bool)
        if "stress" in labels and "pbc" in labels:
            self._has_stress = self._labels["pbc"].any(1).numpy()
        self._device, self._place = device, torch.device("cpu")

    @property
    def bytes(self) -> int:
        """Memory of the data."""
        return self._pairs.bytes + sum(label.nbytes for label in self._labels.values())

    def to(self, place: torch.device) -> DeviceData:
        """Move the data to the device, or leave them on the host, in place."""
        self._place = place
        self._pairs.to(place)
        self._labels = {name: label.to(place) for name, label in self._labels.items()}
        return self

    def cut(self, ids: Sequence[int]) -> TrainingBatch:
        """Return the structures with these indices, in this order, on the device."""
        graph, structure, atom, ptr = self._pairs.cut(ids)
        fields: dict[str, Any] = {"z": graph.z, "pos": graph.pos, "batch": graph.batch, "ptr": ptr}
        for name, label in self._labels.items():
            fields[name] = label.index_select(0, atom if name == "forces" else structure)
        if self._place != self._device:
            fields, graph = _send((fields, graph), self._device, {})
        graph = graph._replace(cell=fields.get("cell"), pbc=fields.get("pbc"))
        outputs = {"forces": self._has_forces, "stress": bool(self._has_stress[ids].any())}
        return TrainingBatch(batch_of(fields, graph.num_molecules), graph, outputs)


def _graphs(
    dataset: InMemoryDataset, potential: Potential, labels: dict[str, list[Tensor]]
) -> Iterator[PairGraph]:
    """Check structures and find their pairs, some at a time; append their labels."""
    bounds, most, stored = bound_edges(dataset, potential.cutoff), host_memory() / 2, 0
    for chunk in torch.arange(len(dataset)).split(_STRUCTURES_AT_ONCE):
        for part in [chunk] if bounds is None else split_by_edges(chunk, bounds):
            batch = collate(dataset, part)
            for name, parts in labels.items():
                parts.append(batch[name])
            graph = potential.build_graph(batch, sort_atoms=False)
            assert graph is not None
            if graph.is_directed:
                raise DirectedEdgesError(_DIRECTED)
            stored += _BYTES_PER_PAIR * graph.pairs.size(1)
            if stored > most:
                raise MemoryError("the pairs of the training structures do not fit into half of the memory")
            yield graph


def _send(value: Any, device: torch.device, sent: dict[Tensor, Tensor]) -> Any:
    """Copy all tensors of a structure from pinned memory to the device, each once, without waiting for it."""
    match value:
        case Tensor():
            if value not in sent:
                sent[value] = value.pin_memory().to(device, non_blocking=True)
            return sent[value]
        case dict():
            return {name: _send(own, device, sent) for name, own in value.items()}
        case PairGraph() | Sites() | Csr():
            return type(value)(*(_send(own, device, sent) for own in value))
        case tuple():
            return tuple(_send(own, device, sent) for own in value)
        case _:
            return value


def choose_batches(
    dataset: InMemoryDataset,
    potential: Potential,
    config: TrainerConfig,
    device: torch.device,
    report: Report,
) -> Batches:
    """Return a source of batches: on the CPU and for models of other kinds, collated at each step.

    Args:
        dataset: Training structures.
        potential: Potential to train, on its device.
        config: Option ``data_device``.
        device: Device of the potential.
        report: Output for the user.

    Raises:
        ValueError: If ``data_device`` is ``"cuda"`` and the run computes elsewhere.
    """
    asked = config.data_device
    if asked == "cuda" and device.type != "cuda":
        raise ValueError(
            f"`trainer.data_device` must be 'auto' or 'cpu' for a run on {device}, got 'cuda'; or set "
            "`fabric.accelerator` to cuda"
        )
    is_default = (
        not on_accelerator(torch.empty(0, device=device)) or dataset.__dict__.get("mapped") is not None
    )
    if asked == "auto" and is_default:
        return CollatedBatches(dataset, device)
    reason = _why_collated(dataset, potential)
    if reason is None:
        try:
            data = DeviceData(dataset, potential, device)
        except (MemoryError, DirectedEdgesError) as error:
            reason = str(error)
        else:
            fits = data.bytes <= _MAX_SHARE * device_memory(device)
            place = torch.device("cpu") if asked == "cpu" or (asked == "auto" and not fits) else device
            report.line(
                f"Structures and their pairs, {data.bytes / 1e6:,.0f} MB, are in the memory of {place}."
            )
            return data.to(place)
    report.line(f"Batches are collated and copied at each step: {reason}.")
    return CollatedBatches(dataset, device)


def _why_collated(dataset: InMemoryDataset, potential: Potential) -> str | None:
    """Return why batches cannot be cut from stored structures, in a few words."""
    if dataset.transform is not None:
        return "the data set has a transform, whose results may differ from step to step"
    if potential.properties:
        return "only labels of energies, forces and stresses are stored"
    graph = potential.build_graph(collate(dataset, [0]).to(potential.scale.device))
    if graph is None:
        return f"{type(potential.model).__name__} finds its pairs itself"
    return _DIRECTED if graph.is_directed else None
