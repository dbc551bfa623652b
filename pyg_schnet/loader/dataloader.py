"""Mini-batches of in-memory data sets, gathered by a few index operations."""

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

from pyg_schnet.loader.gather import DatasetOffsets

_BATCH_CLASS: Any = type(Batch(_base_cls=Data))


def collate(
    dataset: InMemoryDataset,
    indices: Sequence[int] | np.ndarray | Tensor,
    follow_batch: Sequence[str] | None = None,
    exclude_keys: Sequence[str] | None = None,
) -> Data:
    """Gather items of a data set into a batch, equal to that of ``Batch.from_data_list``.

    Args:
        dataset: A data set or a subset ``dataset[...]``. Graphs that are returned as they are stored are
            gathered at once; others (with a ``transform``, without ``pos`` or ``x``, with fields that are not
            tensors) item by item.
        indices: Indices of the items within ``dataset``, ``(structures,)``, in the order of the batch.
        follow_batch: Fields that get their own ``batch`` vector.
        exclude_keys: Fields to leave out.

    Returns:
        A :class:`~torch_geometric.data.Batch`; its ``energy`` has shape ``(structures,)``, its ``pos`` and
        ``forces`` have shape ``(atoms, 3)``.
    """
    numbers = indices if isinstance(indices, list) else torch.as_tensor(indices, dtype=torch.long).tolist()
    plan = _plan(dataset)
    if plan is None:
        items = [cast(BaseData, dataset[number]) for number in numbers]
        options = {"follow_batch": list(follow_batch or ()), "exclude_keys": list(exclude_keys or ())}
        return _as_data(Batch.from_data_list(items, **options))
    stored_indices = dataset.indices()
    numbers = [stored_indices[number] for number in numbers]
    ids = torch.tensor(numbers, dtype=torch.long, device=plan.offsets.device)
    rows = plan.offsets.rows(ids)
    nodes, zeros = rows[plan.node_field], torch.zeros_like(ids)
    mapped = dataset.__dict__.get("mapped")
    casts = cast(Any, dataset).casts if mapped is not None else {}
    if mapped is not None:
        slices = cast(dict[str, Tensor], dataset.slices)
        read = {key: value for key, value in slices.items() if key not in (exclude_keys or ())}
        mapped.check_molecules(read, ids)
    fields: dict[str, Any] = {}
    increments: dict[str, Tensor | None] = {}
    for key, (value, dimension) in plan.fields.items():
        if exclude_keys and key in exclude_keys:
            continue
        own_rows, increments[key] = rows[key], zeros
        if isinstance(value, list):
            fields[key], increments[key] = [value[number] for number in numbers], None
        else:
            value = own_rows.take(value, dimension)
            if "index" in key:  # PyG's convention: numbers of nodes within a structure
                increments[key] = nodes.offsets[:-1]
                value += torch.repeat_interleave(nodes.offsets[:-1], own_rows.lengths)
            fields[key] = value.to(casts[key]) if key in casts else value
        if follow_batch and key in follow_batch:
            fields[f"{key}_batch"], fields[f"{key}_ptr"] = own_rows.structures(), own_rows.offsets
    fields["batch"], fields["ptr"] = nodes.structures(), nodes.offsets
    batch = batch_of(fields, len(ids))
    batch._slice_dict = {key: rows[key].offsets for key in increments}
    batch._inc_dict = increments
    if mapped is not None:
        mapped.count_read()
    return _as_data(batch)


class _Plan:
    """Fields of a data set and their offsets, valid as long as it holds the same tensors."""

    def __init__(self, store: Data, stored: dict[str, Any], slices: dict[str, Tensor], node_field: str):
        self.stored = stored
        self.node_field = node_field  # with one row per node
        self.offsets = DatasetOffsets(slices, stored[node_field].device)
        self.fields = {
            key: (
                stored[key],
                0 if isinstance(stored[key], list) else int(store.__cat_dim__(key, stored[key])),
            )
            for key in slices
            if key in stored
        }

    def matches(self, stored: dict[str, Any], slices: dict[str, Tensor]) -> bool:
        own = self.stored
        same = own.keys() == stored.keys() and all(own[key] is stored[key] for key in own)
        return same and self.offsets.match(slices, self.offsets.device)


def _plan(dataset: InMemoryDataset) -> _Plan | None:
    """Return the cached plan of a data set, or ``None`` if its items must be collated one by one."""
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
    if plan is None or not plan.matches(stored, slices):
        node_field = _node_field(kind, stored, slices)
        plan = None if node_field is None else _Plan(store, stored, slices, node_field)
        dataset.__dict__["_plan"] = plan
    return plan


def batch_of(fields: dict[str, Any], structures: int) -> Any:
    """Return a batch with some fields, without the search for its class that ``Batch()`` does each time."""
    batch = _BATCH_CLASS.__new__(_BATCH_CLASS)
    Data.__init__(batch)
    batch._store._mapping.update(fields)  # setting them one by one looks each up among properties
    batch._num_graphs = structures
    return batch


def _as_data(batch: Batch) -> Data:
    return cast(Data, batch)  # a Data at run time, with fields for type checkers


def _node_field(kind: type, stored: dict[str, Any], slices: dict[str, Tensor]) -> str | None:
    """Return the field with one row per node if all fields can be gathered at once; otherwise ``None``."""
    keys = [key for key in slices if key in stored]
    if "num_nodes" in stored or not all(_is_plain(key, stored[key]) for key in keys):
        return None
    if (per_node := getattr(kind, "per_node", None)) is not None:
        return per_node
    # PyG counts nodes by the first of these, and omits the batch vector if there is neither x nor pos.
    first = next((key for key in keys if key in N_KEYS), None)
    return first if first in ("x", "pos") else None


def _is_plain(key: str, value: Any) -> bool:
    """Return whether PyG concatenates a field by rows, adding at most numbers of nodes."""
    if "batch" in key or key == "face":  # incremented by their own rules
        return False
    if isinstance(value, list):
        return all(isinstance(text, str) for text in value[:1])
    if type(value) is not Tensor or value.layout != torch.strided or value.is_nested:
        return False
    return "index" not in key or value.dtype == torch.long


class _BatchedDataset(torch.utils.data.Dataset):
    """A data set that returns collated batches from ``__getitems__``, which PyTorch's loader calls."""

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
        if name.startswith("__") or "dataset" not in self.__dict__:  # looked up by pickle before __init__
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _identity(batch: Any) -> Any:
    return batch


class DataLoader(torch.utils.data.DataLoader):
    """PyG's ``DataLoader``, several times faster for in-memory data sets.

    Args:
        dataset: An ``InMemoryDataset``, see :func:`collate`. Anything else that PyG's class accepts is loaded
            as fast as by PyG.
        batch_size: Structures per batch.
        shuffle: Whether the order changes each epoch.
        follow_batch: Fields that get their own ``batch`` vector, as in PyG.
        exclude_keys: Fields to leave out, as in PyG.
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
        self.follow_batch, self.exclude_keys = (
            follow_batch,
            exclude_keys,
        )  # read by Lightning, which recreates the loader
        source: Any = dataset.dataset if isinstance(dataset, _BatchedDataset) else dataset
        join: Any = Collater(source, follow_batch, exclude_keys)
        if isinstance(source, InMemoryDataset):  # whole batches
            source, join = _BatchedDataset(source, follow_batch, exclude_keys), _identity
        super().__init__(source, batch_size, shuffle, collate_fn=join, **kwargs)
