"""The base of all data sets: raw files to one processed file, and what a model needs to know of it."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.data.data import BaseData
from torch_geometric.data.separate import separate

from pyg_schnet.datasets.references import Compositions, References
from pyg_schnet.datasets.splits import Split, fingerprints
from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.datasets.storage.chunks import Chunk, join
from pyg_schnet.datasets.storage.mapped import MappedTensors
from pyg_schnet.datasets.storage.preparation import Prepared, describe, flat
from pyg_schnet.io.locks import locked
from pyg_schnet.io.progress import counted
from pyg_schnet.io.remote.archive import remove_leftovers
from pyg_schnet.loader import collate
from pyg_schnet.transforms.radius_graph import RadiusGraph

_log = logging.getLogger(__name__)
_REVISION = 1  # raise it when sets that were processed before would be wrong: they are made again
_MOLECULES_AT_ONCE = 2**14  # statistics of any set take no more memory than these do


class MoleculeDataset(InMemoryDataset):
    """Molecules in eV and Å, for any PyG project.

    Processed once into ``root/processed``, a file that is complete or not there; of two processes one does
    the work. No file is ever unpickled. Subclasses implement :meth:`chunks`, :meth:`download`,
    ``processed_file_names`` and :attr:`recipe`.

    Args:
        root: Folder of the raw and processed files.
        transform: Applied to each item, for instance :class:`~pyg_schnet.RadiusGraph`.
        pre_transform: Applied to each item once, before it is stored; what it adds must be tensors.
        pre_filter: Tells by an item whether it is kept.
        force_reload: Process again.
        dtype: Of the positions; PyTorch's own by default. Labels are always float64.
        memory_map: Leave the tensors on disk, for sets beyond the memory.
    """

    per_node = "z"  # the field by which `collate` counts the atoms

    def __init__(
        self,
        root: str | os.PathLike | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
        *,
        dtype: torch.dtype | None = None,
        memory_map: bool = False,
    ):
        dtype = dtype or torch.get_default_dtype()
        self.casts = {"z": torch.long, "pos": dtype, "cell": dtype}  # to what items hold, from what is stored
        self.mapped: MappedTensors | None = None
        self.splits: dict[str, Split] = {}
        self.header: dict[str, Any] = {}
        if root is None and memory_map:
            raise ValueError(
                "`memory_map` must be False without `root`, where the processed file would be, got True; "
                "give a `root`, or a processed file"
            )
        if root is not None and not os.fspath(root):
            raise ValueError("`root` must name a folder, got ''; '.' is this one")
        self._reload = force_reload
        self.in_memory = root is None  # PyG's own `root` then is '???'
        folder = None if root is None else os.fspath(root)
        super().__init__(folder, transform, pre_transform, pre_filter)
        if root is None:
            prepared = Prepared(counted(self.chunks()), pre_filter, pre_transform)
            self._take(*join(prepared))
            self.splits = self._renumbered_splits(prepared)
        else:
            self._open_or_process(memory_map)

    def chunks(self) -> Iterator[Chunk]:
        """Read the raw files; labels in eV and Å, float64. Subclasses say how."""
        raise NotImplementedError

    def official_splits(self) -> dict[str, Split]:
        """Read the published splits by name; asked for when all chunks were read."""
        return {}

    @property
    def recipe(self) -> dict[str, Any]:
        """What the processed file depends on; a file made by another recipe is made again."""
        return {}

    @property
    def notes(self) -> dict[str, Any]:
        """What the processed file remembers of its sources; asked for when all chunks were read."""
        return {}

    def split(self, name: str) -> Split:
        """Give a published split.

        Raises:
            ValueError: If there is none of this name.
        """
        if name not in self.splits:
            known = ", ".join(f"'{key}'" for key in self.splits) or "none"
            raise ValueError(f"`split` must be one of the set's published splits, {known}; got {name!r}")
        if self._indices is not None:
            raise ValueError(
                f"`split` numbers the structures of the whole set, got {name!r} for a subset; ask the set"
            )
        return self.splits[name]

    @property
    def has_forces(self) -> bool:
        """Whether there are labels of forces."""
        assert self._data is not None
        return "forces" in self._data

    @property
    def has_stress(self) -> bool:
        """Whether there are labels of stress, and periodic systems that may have one."""
        assert self._data is not None
        return "stress" in self._data and "pbc" in self._data and bool(self._data["pbc"].any())

    def compositions(self) -> Compositions:
        """Count which compositions occur, and their mean energies."""
        parts = (_compositions(batch) for _, batch in self._batches("energy"))
        return functools.reduce(Compositions.merged, parts)

    def references(self) -> References:
        """Fit atomic references to the energies, see :meth:`References.fit`."""
        return References.fit(self.compositions())

    def atomref(self) -> Tensor:
        """Fit atomic references, in eV by atomic number, shape ``(100,)``, float64.

        The minimum-norm least-squares fit of the energies by the composition. For one molecule it shares
        the mean energy among the atoms; an isolated atom's energy is another thing.
        """
        return self.references().energy

    def elements(self) -> list[int]:
        """Atomic numbers that occur, sorted."""
        return self.compositions().elements()

    def scale(self, references: References | None = None) -> float:
        """Compute the unit of a network's output: the RMS of the forces, in eV/Å, as a number.

        Without forces, the standard deviation of the energy per atom relative to the references (fitted
        ones by default), in eV. A set without any spread has 1.
        """
        atomref = None if self.has_forces else (references or self.references()).energy
        squares, numbers = 0.0, 0
        for _, batch in self._batches("forces" if atomref is None else "energy"):
            values = cast(Tensor, batch.forces if atomref is None else _residual(batch, atomref))
            squares += float(values.square().sum())
            numbers += values.numel()
        spread = math.sqrt(squares / numbers)
        return spread if spread > 1e-12 else 1.0

    def energy_std(self) -> float:
        """Compute the standard deviation of the energies a molecule, in eV; 0 for one alone."""
        if len(self) < 2:
            return 0.0
        mean = self.compositions().mean_energy()
        squares = sum(float((batch.energy - mean).square().sum()) for _, batch in self._batches("energy"))
        return math.sqrt(squares / (len(self) - 1))

    def fingerprints(self) -> Tensor:
        """Compute a number for each structure, equal for copies; shape ``(len(self),)``, int64."""
        found = torch.empty(len(self), dtype=torch.long)
        for part, batch in self._batches("pos"):
            found[part] = fingerprints(batch)
        return found

    def process(self) -> None:
        """Write the processed file."""
        prepared = Prepared(counted(self.chunks()), self.pre_filter, self.pre_transform)
        splits = functools.partial(self._renumbered_splits, prepared)
        storage.write(self.processed_paths[0], prepared, self._header, splits)

    def _header(self) -> dict[str, Any]:
        return {"version": _version(), "recipe": self._whole_recipe(), "notes": self.notes}

    def _renumbered_splits(self, prepared: Prepared) -> dict[str, Split]:
        return prepared.renumber(self.official_splits())

    def _download(self) -> None:
        """Nothing yet: raw files are wanted only where there is no processed one."""

    def download(self) -> None:
        """Put the raw files into ``raw_dir``; nothing where the data set needs none there."""

    def _process(self) -> None:
        if self.in_memory or (self._is_current() and not self._reload):
            return
        Path(self.processed_dir).mkdir(parents=True, exist_ok=True)
        with locked(self.processed_dir, is_folder=True, wait=True):
            if self._is_current() and not self._reload:
                return  # another process made it while this one waited
            Path(self.raw_dir).mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.raw_dir)
            self.download()
            self.process()

    def _is_current(self) -> bool:
        path = self.processed_paths[0]
        try:
            recipe = storage.read_header(path).get("recipe")
        except FileNotFoundError:
            return False
        except ValueError as error:
            _log.warning("%s", error)
            return False
        return recipe == self._whole_recipe()

    def _whole_recipe(self) -> dict[str, Any]:
        steps = {name: describe(getattr(self, name)) for name in ("pre_transform", "pre_filter")}
        recipe = {"class": type(self).__name__, "revision": _REVISION, **self.recipe, **steps}
        return json.loads(json.dumps(recipe))  # as it comes back from a file: lists in place of tuples

    def _open_or_process(self, memory_map: bool) -> None:
        try:
            self._open(self.processed_paths[0], memory_map)
        except ValueError as error:  # its header was right, what follows is not
            _log.warning("%s", error)
            self._reload = True
            self._process()
            self._open(self.processed_paths[0], memory_map)

    def _open(self, path: str, memory_map: bool) -> None:
        stored = storage.read(path, memory_map)
        self.header, self.splits, self.mapped, self._path = stored.header, stored.splits, stored.mapped, path
        self._take(stored.fields, stored.slices)

    def _take(self, fields: dict[str, Tensor | list[str]], slices: dict[str, Tensor]) -> None:
        if self.mapped is None:
            fields = {key: self._cast(key, value) for key, value in fields.items()}
        self._data, self.slices, self._data_list = Data.from_dict(fields), slices, None

    def _cast(self, key: str, value: Any) -> Any:
        return value.to(self.casts[key]) if key in self.casts else value

    def get(self, idx: int) -> BaseData:
        """Give an item; those on disk are read each time, and not kept."""
        if self.mapped is None and self.len() > 1:
            return super().get(idx)
        assert self._data is not None
        if self.mapped is not None:
            self.mapped.check_molecules(self.slices or {}, torch.tensor([idx]))
        data = separate(Data, self._data, idx, self.slices, decrement=False)
        if self.mapped is None:  # PyG would hand out the text of the only molecule as a list
            return data
        for key, value in data.to_dict().items():
            data[key] = self._cast(key, value.clone() if isinstance(value, Tensor) else value)
        self.mapped.count_read()
        return data

    get.reads_store = True  # pyright: ignore[reportFunctionMemberAccess] - so that `collate` may gather from the store at once

    def __getattr__(self, key: str) -> Any:
        """Give a field of all molecules, as PyG does; on disk it may have another type than in items."""
        return self._cast(key, super().__getattr__(key))

    def copy(self, idx: Any = None) -> MoleculeDataset:
        """Copy the molecules into memory, or some of them."""
        items = [self.get(number) for number in (self if idx is None else self.index_select(idx)).indices()]
        whole = idx is None and self._indices is None
        return self._of(items, self.splits if whole else {})  # which number the whole set

    def with_edges(self, cutoff: float) -> MoleculeDataset:
        """Copy the molecules into memory, with their neighbors found once and for all.

        Args:
            cutoff: In Å.

        Returns:
            A set whose items have ``edge_index`` and, where there is a cell, ``shift``.
        """
        search = RadiusGraph(cutoff)
        return self._of([search(cast(Data, self.get(number))) for number in self.indices()], {})

    def _of(self, items: list[BaseData], splits: dict[str, Split]) -> MoleculeDataset:
        """Give a set of this kind of some items, in memory."""
        other = self.__copy__()
        other._indices = other.mapped = None
        other.splits = splits
        other._take(*flat(items))
        return other

    def _batches(self, field: str) -> Iterator[tuple[Tensor, Data]]:
        """Give all molecules, many at once: their numbers, and a batch of ``z`` and one more field."""
        if len(self) == 0:
            raise ValueError("a data set must hold at least one structure to compute this of it, got none")
        others = [key for key in self.slices or () if key not in ("z", field)]
        order = torch.arange(len(self))
        if self.mapped is not None:  # as on disk: molecules at random would bring in all of it at once
            order = torch.tensor(self.indices()).argsort()
        for part in order.split(_MOLECULES_AT_ONCE):
            yield part, collate(self, part, exclude_keys=others)
            if self.mapped is not None:
                self.mapped.release()

    def __copy__(self) -> MoleculeDataset:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.mapped is not None:  # a worker process maps the file itself
            state.update(_data=None, slices=None, splits={}, mapped=None, _plan=None, _reopen=True)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        reopen = state.pop("_reopen", False)
        self.__dict__.update(state)
        if reopen:
            self._open(self._path, memory_map=True)


def _compositions(batch: Data) -> Compositions:
    return Compositions.of(cast(Tensor, batch.z), cast(Tensor, batch.batch), batch.energy)


def _residual(batch: Data, atomref: Tensor) -> Tensor:
    """Energies an atom relative to references, in eV."""
    references = torch.zeros_like(batch.energy).index_add_(0, cast(Tensor, batch.batch), atomref[batch.z])
    return (batch.energy - references) / batch.ptr.diff()


def _version() -> str:
    from pyg_schnet import __version__  # pyg_schnet imports this package's users

    return __version__
