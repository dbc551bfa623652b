"""Mini-batches from in-memory data sets by a few index operations, not by one object a molecule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, Dataset, InMemoryDataset
from torch_geometric.data.data import BaseData
from torch_geometric.data.storage import N_KEYS
from torch_geometric.loader.dataloader import Collater

from pyg_schnet.loader.gather import Pointers

_BATCH_CLASS: Any = type(Batch(_base_cls=Data))


def collate(
    dataset: InMemoryDataset,
    indices: Sequence[int] | np.ndarray | Tensor,
    follow_batch: Sequence[str] | None = None,
    exclude_keys: Sequence[str] | None = None,
) -> Data:
    """Gather items of a data set into a batch, as ``Batch.from_data_list`` would.

    Args:
        dataset: A subset ``dataset[...]`` counts within itself. Graphs whose tensors are in memory as they
            are handed out are gathered at once, all else (a ``transform``, graphs without ``pos`` or ``x``,
            fields that are no tensors) item by item.
        indices: Which items, in this order.
        follow_batch: Fields that get a ``batch`` of their own.
        exclude_keys: Fields that are left out.

    Returns:
        A :class:`~torch_geometric.data.Batch`; its ``energy`` has the shape ``(molecules,)``, its ``pos``
        and ``forces`` have ``(atoms, 3)``.
    """
    numbers = indices if isinstance(indices, list) else torch.as_tensor(indices, dtype=torch.long).tolist()
    plan = _plan(dataset)
    if plan is None:
        items = [cast(BaseData, dataset[number]) for number in numbers]
        options = {"follow_batch": list(follow_batch or ()), "exclude_keys": list(exclude_keys or ())}
        return _as_data(Batch.from_data_list(items, **options))
    own = dataset.indices()
    numbers = [own[number] for number in numbers]
    molecules = torch.tensor(numbers, dtype=torch.long, device=plan.pointers.device)
    rows = plan.pointers.rows(molecules)
    nodes, zeros = rows[plan.per_node], torch.zeros_like(molecules)
    mapped = dataset.__dict__.get("mapped")
    casts = cast(Any, dataset).casts if mapped is not None else {}
    if mapped is not None:
        slices = cast(dict[str, Tensor], dataset.slices)
        read = {key: value for key, value in slices.items() if key not in (exclude_keys or ())}
        mapped.check_molecules(read, molecules)
    fields: dict[str, Any] = {}
    increments: dict[str, Tensor | None] = {}
    for key, (value, dimension) in plan.fields.items():
        if exclude_keys and key in exclude_keys:
            continue
        place, increments[key] = rows[key], zeros
        if isinstance(value, list):
            fields[key], increments[key] = [value[number] for number in numbers], None
        else:
            value = place.take(value, dimension)
            if "index" in key:  # PyG's convention: numbers of nodes, counted within a molecule
                increments[key] = nodes.offsets[:-1]
                value += torch.repeat_interleave(nodes.offsets[:-1], place.lengths)
            fields[key] = value.to(casts[key]) if key in casts else value
        if follow_batch and key in follow_batch:
            fields[f"{key}_batch"], fields[f"{key}_ptr"] = place.molecules(), place.offsets
    fields["batch"], fields["ptr"] = nodes.molecules(), nodes.offsets
    batch = _new_batch(fields)
    batch._num_graphs = len(molecules)
    batch._slice_dict = {key: rows[key].offsets for key in increments}
    batch._inc_dict = increments
    if mapped is not None:
        mapped.count_read()
    return _as_data(batch)


class _Plan:
    """How the graphs of a data set are gathered, as long as it holds the same tensors."""

    def __init__(self, store: Data, stored: dict[str, Any], slices: dict[str, Tensor], per_node: str):
        self.stored = stored
        self.per_node = per_node
        self.pointers = Pointers(slices, stored[per_node].device)
        self.fields = {
            key: (
                stored[key],
                0 if isinstance(stored[key], list) else int(store.__cat_dim__(key, stored[key])),
            )
            for key in slices
            if key in stored
        }

    def fits(self, stored: dict[str, Any], slices: dict[str, Tensor]) -> bool:
        own = self.stored
        same = own.keys() == stored.keys() and all(own[key] is stored[key] for key in own)
        return same and self.pointers.fit(slices, self.pointers.device)


def _plan(dataset: InMemoryDataset) -> _Plan | None:
    """Give the plan of a data set, made once, or ``None`` where items are to be made one by one."""
    store, slices, kind = dataset._data, dataset.slices, type(dataset)
    if (
        dataset.transform is not None
        or not getattr(kind.get, "reads_store", kind.get is InMemoryDataset.get)
        or kind.__getitem__ is not Dataset.__getitem__
        or type(store) is not Data
        or slices is None
    ):
        return None
    stored = store.to_dict()
    plan = dataset.__dict__.get("_plan")
    if plan is None or not plan.fits(stored, slices):
        per_node = _per_node(kind, stored, slices)
        plan = None if per_node is None else _Plan(store, stored, slices, per_node)
        dataset.__dict__["_plan"] = plan
    return plan


def _new_batch(fields: dict[str, Any]) -> Any:
    """Make a batch, without the search for its class that ``Batch()`` does each time."""
    batch = _BATCH_CLASS.__new__(_BATCH_CLASS)
    Data.__init__(batch)
    batch._store._mapping.update(fields)  # at once: its own way looks each up among cached properties
    return batch


def _as_data(batch: Batch) -> Data:
    return cast(Data, batch)  # which it is at run time; type checkers do not see its fields otherwise


def _per_node(kind: type, stored: dict[str, Any], slices: dict[str, Tensor]) -> str | None:
    """Find the field that has one row a node, if the fields can be gathered at once."""
    keys = [key for key in slices if key in stored]
    if "num_nodes" in stored or not all(_is_plain(key, stored[key]) for key in keys):
        return None
    if (per_node := getattr(kind, "per_node", None)) is not None:
        return per_node
    # PyG counts the nodes by the first of these, and leaves the batch vector out where there is no x or pos.
    first = next((key for key in keys if key in N_KEYS), None)
    return first if first in ("x", "pos") else None


def _is_plain(key: str, value: Any) -> bool:
    """Whether PyG joins a field row by row, adding numbers of nodes at most."""
    if "batch" in key or key == "face":  # counted up by rules of their own
        return False
    if isinstance(value, list):
        return all(isinstance(text, str) for text in value[:1])
    if type(value) is not Tensor or value.layout != torch.strided or value.is_nested:
        return False
    return "index" not in key or value.dtype == torch.long


class _Gathered(torch.utils.data.Dataset):
    """Hands whole lists of indices to :func:`collate`; PyTorch's loader asks for them by ``__getitems__``."""

    def __init__(
        self, dataset: InMemoryDataset, follow_batch: list[str] | None, exclude_keys: list[str] | None
    ):
        self.dataset = dataset
        self.follow_batch = follow_batch
        self.exclude_keys = exclude_keys

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> Data:
        return collate(self.dataset, indices, self.follow_batch, self.exclude_keys)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in self.__dict__:  # as pickle asks for, which is ours
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _identity(batch: Any) -> Any:
    return batch


class DataLoader(torch.utils.data.DataLoader):
    """PyG's ``DataLoader``, several times faster for in-memory data sets.

    Args:
        dataset: Best with its tensors in memory, see :func:`collate`; otherwise it is as fast as PyG's, and
            may be anything that PyG's takes.
        batch_size: Molecules a batch.
        shuffle: Whether the order changes each epoch.
        follow_batch: Fields that get a ``batch`` of their own, as in PyG.
        exclude_keys: Fields that are left out, as in PyG.
        **kwargs: Arguments of :class:`torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: torch.utils.data.Dataset | Sequence[Any],
        batch_size: int = 1,
        shuffle: bool = False,
        follow_batch: list[str] | None = None,
        exclude_keys: list[str] | None = None,
        **kwargs,
    ):
        kwargs.pop("collate_fn", None)  # as PyG's does
        self.follow_batch, self.exclude_keys = follow_batch, exclude_keys  # Lightning makes the loader again
        source: Any = dataset.dataset if isinstance(dataset, _Gathered) else dataset
        join: Any = Collater(source, follow_batch, exclude_keys)
        if isinstance(source, InMemoryDataset):  # batches come whole
            source, join = _Gathered(source, follow_batch, exclude_keys), _identity
        super().__init__(source, batch_size, shuffle, collate_fn=join, **kwargs)
