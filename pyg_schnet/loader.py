"""Mini-batches from in-memory data sets by a few index operations, not by one object a molecule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, Dataset, InMemoryDataset
from torch_geometric.data.data import BaseData


def collate(dataset: InMemoryDataset, indices: Sequence[int] | Tensor) -> Data:
    """Gather items of a data set into a batch, as ``Batch.from_data_list`` would.

    Args:
        dataset: A subset ``dataset[...]`` counts within itself. Molecules whose tensors are in memory as
            they are handed out are gathered at once, all else (a ``transform``, graphs without ``z``,
            fields that are no tensors) item by item.
        indices: Which items, in this order.

    Returns:
        A :class:`~torch_geometric.data.Batch`; its ``energy`` has the shape ``(molecules,)``, its ``pos``
        and ``forces`` have ``(atoms, 3)``.
    """
    numbers: list[int] = torch.as_tensor(indices, dtype=torch.long).tolist()
    if not _is_gatherable(dataset):
        return _as_data(Batch.from_data_list(_items(dataset, numbers)))
    own = dataset.indices()
    store, slices = dataset._data, dataset.slices
    assert store is not None
    assert slices is not None
    device = store["z"].device
    rows = torch.tensor([own[number] for number in numbers], dtype=torch.long, device=device)
    slices = {key: value.to(device) for key, value in slices.items()}
    atoms = _lengths(slices["z"], rows)
    ptr = _offsets(atoms)
    batch = Batch(_base_cls=Data)
    batch_slices, increments = {}, {}
    for key in slices:
        lengths = _lengths(slices[key], rows)
        offsets = _offsets(lengths)
        dimension = int(store.__cat_dim__(key, store[key]))
        position = torch.arange(int(offsets[-1]), device=device) - torch.repeat_interleave(
            offsets[:-1], lengths
        )
        position += torch.repeat_interleave(slices[key].index_select(0, rows), lengths)
        value = store[key].index_select(dimension, position)
        increments[key] = torch.zeros_like(lengths)
        if "index" in key:  # PyG's convention: numbers of nodes, counted within a molecule
            increments[key] = ptr[:-1]
            value = value + torch.repeat_interleave(ptr[:-1], lengths)
        batch[key] = value
        batch_slices[key] = offsets
    batch.batch = torch.repeat_interleave(torch.arange(len(rows), device=device), atoms)
    batch.ptr = ptr
    batch._num_graphs = len(rows)
    batch._slice_dict = batch_slices
    batch._inc_dict = increments
    return _as_data(batch)


def _as_data(batch: Batch) -> Data:
    return cast(Data, batch)  # which it is at run time; type checkers do not see its fields otherwise


def _items(dataset: Dataset, numbers: Iterable[int]) -> list[BaseData]:
    return [cast(BaseData, dataset[number]) for number in numbers]


def _is_gatherable(dataset: InMemoryDataset) -> bool:
    store, slices = dataset._data, dataset.slices
    return (
        dataset.transform is None
        and type(dataset).get is InMemoryDataset.get
        and type(store) is Data
        and slices is not None
        and "z" in slices
        and "num_nodes" not in store
        # PyG counts up the values of these two by rules of their own.
        and not any("batch" in key or key == "face" for key in slices)
        and all(type(store[key]) is Tensor and not store[key].is_sparse for key in slices)
    )


def _lengths(slices: Tensor, rows: Tensor) -> Tensor:
    return slices.index_select(0, rows + 1) - slices.index_select(0, rows)


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


class _Gathered(torch.utils.data.Dataset):
    """Hands whole lists of indices to :func:`collate`; PyTorch's loader asks for them by ``__getitems__``."""

    def __init__(self, dataset: Dataset, follow_batch: list[str] | None, exclude_keys: list[str] | None):
        self.dataset = dataset
        self.options = {"follow_batch": follow_batch, "exclude_keys": exclude_keys}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> Data:
        if isinstance(self.dataset, InMemoryDataset) and not any(self.options.values()):
            return collate(self.dataset, indices)
        return _as_data(Batch.from_data_list(_items(self.dataset, indices), **self.options))


def _identity(batch: Any) -> Any:
    return batch


class DataLoader(torch.utils.data.DataLoader):
    """PyG's ``DataLoader``, several times faster for in-memory data sets.

    Args:
        dataset: Best with its tensors in memory, see :func:`collate`; otherwise it is as fast as PyG's.
        batch_size: Molecules a batch.
        shuffle: Whether the order changes each epoch.
        follow_batch: Fields that get a ``batch`` of their own, as in PyG.
        exclude_keys: Fields that are left out, as in PyG.
        **kwargs: Arguments of :class:`torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        follow_batch: list[str] | None = None,
        exclude_keys: list[str] | None = None,
        **kwargs,
    ):
        kwargs.pop("collate_fn", None)  # as PyG's does: batches are gathered, not collated
        gathered = _Gathered(dataset, follow_batch, exclude_keys)
        super().__init__(gathered, batch_size, shuffle, collate_fn=_identity, **kwargs)
