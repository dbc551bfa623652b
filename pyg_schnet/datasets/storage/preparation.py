"""Numbering, filters and transforms of chunks before they are stored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.collate import collate
from torch_geometric.data.data import BaseData
from torch_geometric.data.separate import separate

from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage.chunks import Chunk, join


class PreparedChunks:
    """Chunks as they are stored: numbered by ``idx``, filtered and transformed, one at a time.

    Args:
        chunks: Chunks as read.
        pre_filter: Function that returns whether an item is kept.
        pre_transform: Transform of each item that is kept.

    Attributes:
        kept: Numbers of the structures that were kept; ``None`` without a filter.
        count: Number of structures that were read.
    """

    def __init__(self, chunks: Iterable[Chunk], pre_filter: Callable | None, pre_transform: Callable | None):
        self.chunks = chunks
        self.pre_filter = pre_filter
        self.pre_transform = pre_transform
        self.kept: list[int] | None = [] if pre_filter is not None else None
        self.count = 0

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self.chunks:
            if len(chunk) == 0:
                continue
            first, self.count = self.count, self.count + len(chunk)
            fields = dict(chunk.fields)
            fields.setdefault("idx", torch.arange(first, self.count))
            yield from self._changed(Chunk(fields, chunk.counts), first)

    def renumber(self, splits: dict[str, Split]) -> dict[str, Split]:
        """Renumber the structures of splits after the filter; call it after the last chunk.

        Raises:
            ValueError: If a split holds a number that is not that of a structure.
        """
        for name, split in splits.items():
            split.check(name, self.count)
        if self.kept is None:
            return splits
        new = {old: number for number, old in enumerate(self.kept)}
        return {name: Split(*(_renumbered(part, new) for part in split)) for name, split in splits.items()}

    def _changed(self, chunk: Chunk, first: int) -> Iterator[Chunk]:
        if self.pre_filter is None and self.pre_transform is None:
            yield chunk
            return
        fields, slices = join([chunk])
        fields["z"] = cast(Tensor, fields["z"]).long()
        batch, items = Data.from_dict(fields), []
        for number in range(len(chunk)):
            item = separate(Data, batch, number, slices, decrement=False)
            if self.pre_filter is not None and not self.pre_filter(item):
                continue
            if self.kept is not None:
                self.kept.append(first + number)
            items.append(item if self.pre_transform is None else self.pre_transform(item))
        if items:
            yield _chunk(items)


def describe(step: Callable | None) -> str:
    """Describe a filter or transform: equal in all processes, different if the code of a function changes."""
    text = repr(step)
    shown = _without_address(text)
    if isinstance(step, FunctionType):
        inner = [cell.cell_contents for cell in step.__closure__ or ()]
        whole = _code(step.__code__) + repr((step.__defaults__, step.__kwdefaults__, inner))
        return f"{shown} {hashlib.sha256(_without_address(whole).encode()).hexdigest()}"
    if text != shown and hasattr(step, "__dict__"):  # an object whose repr does not show its attributes
        return f"{shown} {_without_address(repr(vars(step)))}"
    return shown


def _code(code: CodeType) -> str:
    constants = []
    for value in code.co_consts:
        if isinstance(value, frozenset):
            value = sorted(value, key=repr)  # the order of a set differs among processes
        constants.append(_code(value) if isinstance(value, CodeType) else repr(value))
    return repr((code.co_code, code.co_names, constants))


def _without_address(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _renumbered(part: Tensor, new: dict[int, int]) -> Tensor:
    return torch.tensor([new[i] for i in part.tolist() if i in new], dtype=torch.long)


def collate_items(items: Sequence[BaseData]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Collate items, also a single one, to the fields and slices of PyG's ``InMemoryDataset``."""
    whole, slices, _ = collate(Data, list(items), increment=False, add_batch=False)
    fields = whole.to_dict()
    fields.pop("num_nodes", None)
    return fields, {key: cast(Tensor, slices[key]) for key in fields}


def _chunk(items: list[Data]) -> Chunk:
    """Build a chunk of the items that a transform returned.

    Raises:
        ValueError: If the items have different fields, or fields other than tensors, numbers and texts.
    """
    keys = set(items[0].keys())
    for item in items:
        if other := sorted(keys.symmetric_difference(item.keys())):
            raise ValueError(f"`pre_transform` must add `{other[0]}` to all structures, not to some of them")
    fields, slices = collate_items(items)
    for key, value in fields.items():
        if not isinstance(value, Tensor) and not _are_texts(value):
            raise ValueError(f"`pre_transform` must add tensors, numbers or texts, got others as `{key}`")
    return Chunk(fields, {key: slices[key].diff() for key in fields if isinstance(fields[key], Tensor)})


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
