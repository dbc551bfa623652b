"""Iteration over a data set in bounded memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.loader import collate

_ATOMS_AT_ONCE = 2**18  # some ten numbers each: 20 MB
_STRUCTURES_AT_ONCE = 2**14


def stream(
    dataset: MoleculeDataset, fields: Iterable[str], numbers: Tensor | None = None
) -> Iterator[tuple[Tensor, Data]]:
    """Yield batches of structures with some of their fields.

    Args:
        dataset: The data set, whose ``transform`` is not applied.
        fields: Names of the fields, besides ``z``; absent ones are ignored.
        numbers: Numbers of the structures in the order of the batches; all by default.

    Yields:
        Numbers of structures, shape ``(structures,)``, and their batch.
    """
    bare = _bare(dataset, fields)
    if numbers is None:
        numbers = torch.arange(len(dataset))
    if len(numbers) == 0:
        return
    largest = int(sizes(dataset)[numbers].max())
    step = max(1, min(_STRUCTURES_AT_ONCE, _ATOMS_AT_ONCE // largest))
    for part in numbers.split(step):
        yield part, collate(bare, part)
        if bare.mapped is not None:
            bare.mapped.release()  # pages that were read would stay in memory


def sizes(dataset: MoleculeDataset) -> Tensor:
    """Return the number of atoms of each structure, shape ``(structures,)``."""
    offsets = cast(dict[str, Tensor], dataset.slices)["z"]
    return offsets.diff()[torch.tensor(dataset.indices())]


def _bare(dataset: MoleculeDataset, fields: Iterable[str]) -> MoleculeDataset:
    """Return the same structures with fewer fields, sharing memory."""
    bare = copy.copy(dataset)
    wanted = {"z", *fields}
    bare.transform = None
    bare.slices = {key: value for key, value in (dataset.slices or {}).items() if key in wanted}
    return bare
