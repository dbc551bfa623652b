"""Mini-batches from in-memory data sets by a few index operations, not by one object a molecule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, InMemoryDataset


def collate(dataset: InMemoryDataset, indices: Sequence[int] | Tensor) -> Batch:
    """Gather items of a data set into a batch, as ``Batch.from_data_list`` would.

    Args:
        dataset: With its tensors in memory; a subset ``dataset[...]`` counts within itself. A data set
            with a ``transform`` is gathered item by item.
        indices: Which items, in this order.

    Returns:
        The batch; ``energy`` of shape ``(molecules,)``, ``pos`` and ``forces`` of shape ``(atoms, 3)``.
    """
    indices = torch.as_tensor(indices, dtype=torch.long)
    if dataset.transform is not None:
        return Batch.from_data_list([dataset[int(i)] for i in indices])
    own = torch.as_tensor(dataset.indices())
    rows = own.index_select(0, indices)
    store, slices = dataset._data, dataset.slices
    assert store is not None
    assert slices is not None
    atoms = _lengths(slices["z"], rows)
    ptr = _offsets(atoms)
    batch = Batch(_base_cls=Data)
    batch_slices, increments = {}, {}
    for key in slices:
        lengths = _lengths(slices[key], rows)
        offsets = _offsets(lengths)
        dimension = int(store.__cat_dim__(key, store[key]))
        position = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1], lengths)
        position += torch.repeat_interleave(slices[key].index_select(0, rows), lengths)
        value = store[key].index_select(dimension, position)
        increments[key] = torch.zeros_like(lengths)
        if "index" in key:  # PyG's convention: numbers of nodes, counted within a molecule
            increments[key] = ptr[:-1]
            value = value + torch.repeat_interleave(ptr[:-1], lengths)
        batch[key] = value
        batch_slices[key] = offsets
    batch.batch = torch.repeat_interleave(torch.arange(len(rows)), atoms)
    batch.ptr = ptr
    batch._num_graphs = len(rows)
    batch._slice_dict = batch_slices
    batch._inc_dict = increments
    return batch


def _lengths(slices: Tensor, rows: Tensor) -> Tensor:
    return slices.index_select(0, rows + 1) - slices.index_select(0, rows)


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


class _Gathered(torch.utils.data.Dataset):
    """Hands whole lists of indices to :func:`collate`; PyTorch's loader asks for them by ``__getitems__``."""

    def __init__(self, dataset: InMemoryDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> Batch:
        return collate(self.dataset, indices)


def _identity(batch: Batch) -> Batch:
    return batch


class DataLoader(torch.utils.data.DataLoader):
    """PyG's ``DataLoader`` for in-memory data sets, several times faster.

    Args:
        dataset: With its tensors in memory.
        batch_size: Molecules a batch.
        shuffle: Whether the order changes each epoch.
        **kwargs: Arguments of :class:`torch.utils.data.DataLoader`.
    """

    def __init__(
        self, dataset: InMemoryDataset, batch_size: int = 1, shuffle: bool = False, **kwargs
    ):
        super().__init__(_Gathered(dataset), batch_size, shuffle, collate_fn=_identity, **kwargs)
