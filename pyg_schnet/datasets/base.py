"""Base class of all data sets: raw files, the processed file, and statistics that models need."""

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

from pyg_schnet.datasets.label_statistics import LabelStatistics
from pyg_schnet.datasets.references import Compositions, References
from pyg_schnet.datasets.splits import Split, fingerprints
from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.datasets.storage.chunks import Chunk, join
from pyg_schnet.datasets.storage.mapped import MappedTensors
from pyg_schnet.datasets.storage.preparation import PreparedChunks, collate_items, describe
from pyg_schnet.io.locks import locked
from pyg_schnet.io.progress import counted
from pyg_schnet.io.remote.archive import remove_leftovers
from pyg_schnet.loader import collate
from pyg_schnet.transforms.radius_graph import RadiusGraph

_log = logging.getLogger(__name__)
_REVISION = 1  # increase it to process all existing sets again
_STRUCTURES_AT_ONCE = 2**14  # bounds the memory of statistics


class MoleculeDataset(InMemoryDataset):
    """Molecules in eV and Å, for any PyG project.

    The raw files are processed once into ``root/processed``, atomically; of several processes one does the
    work. No file is ever unpickled. Subclasses implement :meth:`chunks`, :meth:`download`,
    ``processed_file_names`` and :attr:`recipe`.

    Args:
        root: Folder of the raw and processed files.
        transform: Transform of each item, for instance :class:`~pyg_schnet.RadiusGraph`.
        pre_transform: Transform of each item before it is stored; it must add tensors, numbers or strings.
        pre_filter: Function that returns whether an item is kept.
        force_reload: Whether to process again.
        dtype: Type of the positions; PyTorch's default type by default. Labels are always float64.
        memory_map: Whether to leave the tensors on disk, for sets larger than the memory.

    Raises:
        ValueError: If ``root`` is empty, or missing where ``memory_map`` needs it.
    """

    per_node = "z"  # field by which `collate` counts atoms

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
        self.casts = {
            "z": torch.long,
            "pos": dtype,
            "cell": dtype,
        }  # types in items; the file may have others
        self.mapped: MappedTensors | None = None
        self.splits: dict[str, Split] = {}
        self.header: dict[str, Any] = {}
        if root is None and memory_map:
            raise ValueError(
                "`memory_map` must be False without `root`, where the processed file would be, got True; "
                "pass a `root`, or a processed file"
            )
        if root is not None and not os.fspath(root):
            raise ValueError("`root` must name a folder, got ''; '.' is this one")
        self._reload = force_reload
        self.in_memory = root is None  # PyG then sets `root` to '???'
        folder = None if root is None else os.fspath(root)
        super().__init__(folder, transform, pre_transform, pre_filter)
        if root is None:
            prepared = PreparedChunks(counted(self.chunks()), pre_filter, pre_transform)
            self._take(*join(prepared))
            self.splits = self._renumbered_splits(prepared)
        else:
            self._open_or_process(memory_map)

    def chunks(self) -> Iterator[Chunk]:
        """Read the raw files.

        Yields:
            Chunks of structures, in Å, with labels in eV and Å and float64.
        """
        raise NotImplementedError

    def official_splits(self) -> dict[str, Split]:
        """Return the published splits by name; called after the last chunk."""
        return {}

    @property
    def recipe(self) -> dict[str, Any]:
        """Inputs of the processed file, in types of JSON; a file of another recipe is processed again."""
        return {}

    @property
    def notes(self) -> dict[str, Any]:
        """Metadata for the processed file, in types of JSON; read after the last chunk."""
        return {}

    def split(self, name: str) -> Split:
        """Return a published split.

        Args:
            name: Name of the split, a key of ``splits``.

        Returns:
            Indices of the structures for training, validation and test, each of shape ``(structures,)``.

        Raises:
            ValueError: If there is no split of this name, or the data set is a subset.
        """
        if name not in self.splits:
            known = ", ".join(f"'{key}'" for key in self.splits) or "none"
            raise ValueError(f"`split` must be one of the set's published splits, {known}; got {name!r}")
        if self._indices is not None:
            raise ValueError(
                f"`split` numbers the structures of the whole set, got {name!r} for a subset; use "
                "the whole set"
            )
        return self.splits[name]

    @property
    def has_energy(self) -> bool:
        """Return whether there are labels of energies."""
        return "energy" in (self.slices or ())

    @property
    def has_forces(self) -> bool:
        """Return whether there are labels of forces."""
        assert self._data is not None
        return "forces" in self._data

    @property
    def has_stress(self) -> bool:
        """Return whether there are labels of stress, and periodic systems that may have one."""
        assert self._data is not None
        return "stress" in self._data and "pbc" in self._data and bool(self._data["pbc"].any())

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the labels besides the energies, fields with a number for each structure or atom."""
        slices, fields = self.slices or {}, cast(Data, self._data)
        rows = (torch.arange(len(slices["z"])), slices["z"])
        return tuple(
            name
            for name, offsets in slices.items()
            if isinstance(fields[name], Tensor)
            and fields[name].is_floating_point()
            and fields[name].dim() == 1
            and name != "energy"
            and any(torch.equal(offsets, own) for own in rows)
        )

    def is_atomic(self, name: str) -> bool:
        """Return whether a label has a value for each atom in place of each structure.

        Args:
            name: ``"energy"``, or one of :attr:`properties`.

        Raises:
            ValueError: If there is no such label.
        """
        self._require_label(name)
        offsets = cast(dict[str, Tensor], self.slices)[name]
        return not torch.equal(offsets, torch.arange(len(offsets)))

    def statistics(self, name: str = "energy") -> LabelStatistics:
        """Compute number, mean, standard deviation and range of a label where it is known.

        Args:
            name: ``"energy"``, or one of :attr:`properties`.

        Raises:
            ValueError: If there is no such label.
        """
        self._require_label(name)
        return LabelStatistics.of(batch[name] for _, batch in self._batches(name))

    def is_mixture(self) -> bool:
        """Return whether structures have different compositions."""
        parts = (
            Compositions.of(batch.z, cast(Tensor, batch.batch), torch.zeros(batch.num_graphs))
            for _, batch in self._batches("z")
        )
        return len(functools.reduce(Compositions.merged, parts).counts) > 1

    def compositions(self, name: str = "energy") -> Compositions:
        """Return the compositions that occur, with their mean energies or mean values of another label.

        Structures whose label is missing are left out. For a label of atoms, each atom counts as a structure.

        Args:
            name: ``"energy"``, or one of :attr:`properties`.

        Raises:
            ValueError: If there is no such label, or it is missing in all structures.
        """
        atomic = self.is_atomic(name)
        parts = (_compositions(batch, name, atomic) for _, batch in self._batches(name))
        found = functools.reduce(Compositions.merged, parts)
        if len(found.frames) == 0:
            raise ValueError(f"`{name}` must be known for at least one structure, got none; check the file")
        return found

    def references(self, name: str = "energy") -> References:
        """Fit atomic references to the energies or to another label, see :meth:`References.fit`.

        For a label of atoms, these are the mean values of the elements.

        Args:
            name: ``"energy"``, or one of :attr:`properties`.

        Raises:
            ValueError: If there is no such label, or it is missing in all structures.
        """
        return References.fit(self.compositions(name))

    def atomref(self) -> Tensor:
        """Fit atomic references.

        This is the minimum-norm least-squares fit of the energies by the composition. For a single molecule
        it divides the mean energy among the atoms; the result then differs from energies of isolated atoms.

        Returns:
            Energies in eV by atomic number, shape ``(100,)``, float64.
        """
        return self.references().energy

    def elements(self) -> list[int]:
        """Return the atomic numbers that occur, sorted."""
        counts = sum(torch.bincount(cast(Tensor, batch.z), minlength=256) for _, batch in self._batches("z"))
        return cast(Tensor, counts).nonzero().flatten().tolist()

    def scale(self, references: References | None = None, name: str = "energy") -> float:
        """Compute the scale of a network's output.

        Args:
            references: Atomic references; fitted ones by default.
            name: ``"energy"``, or one of :attr:`properties`.

        Returns:
            The RMS of the force components, in eV/Å. Without forces, the standard deviation of the energy per
            atom relative to the references, in eV. For another label, its RMS relative to the references, per
            atom, in its unit. 1 if all values are equal.

        Raises:
            ValueError: If there is no such label, or it is missing in all structures.
        """
        self._require_label(name)
        if name == "energy" and self.has_forces:
            parts = (batch.forces for _, batch in self._batches("forces"))
        else:
            atomref, atomic = (references or self.references(name)).energy, self.is_atomic(name)
            parts = (_residual(batch, name, atomref, atomic) for _, batch in self._batches(name))
        squares, numbers = 0.0, 0
        for values in parts:
            squares += float(values.square().sum())
            numbers += values.numel()
        spread = math.sqrt(squares / max(numbers, 1))
        return spread if spread > 1e-12 else 1.0

    def energy_std(self) -> float:
        """Return the standard deviation of the energies of structures, in eV; 0 for a single one."""
        if len(self) < 2:
            return 0.0
        mean = self.compositions().mean_energy()
        squares = sum(float((batch.energy - mean).square().sum()) for _, batch in self._batches("energy"))
        return math.sqrt(squares / (len(self) - 1))

    def fingerprints(self) -> Tensor:
        """Return the fingerprints of structures, equal for duplicates: shape ``(len(self),)``, int64."""
        found = torch.empty(len(self), dtype=torch.long)
        for part, batch in self._batches("pos"):
            found[part] = fingerprints(batch)
        return found

    def process(self) -> None:
        """Write the processed file."""
        prepared = PreparedChunks(counted(self.chunks()), self.pre_filter, self.pre_transform)
        splits = functools.partial(self._renumbered_splits, prepared)
        storage.write(self.processed_paths[0], prepared, self._header, splits)

    def _header(self) -> dict[str, Any]:
        return {"version": _version(), "recipe": self._whole_recipe(), "notes": self.notes}

    def _renumbered_splits(self, prepared: PreparedChunks) -> dict[str, Split]:
        return prepared.renumber(self.official_splits())

    def _download(self) -> None:
        """Do nothing: raw files are downloaded only if there is no processed file."""

    def download(self) -> None:
        """Download the raw files into ``raw_dir``, if the data set needs any."""

    def _process(self) -> None:
        if self.in_memory or (self._is_current() and not self._reload):
            return
        Path(self.processed_dir).mkdir(parents=True, exist_ok=True)
        with locked(self.processed_dir, is_folder=True, wait=True):
            if self._is_current() and not self._reload:
                return  # processed by another process while this one waited
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
        return json.loads(json.dumps(recipe))  # as read from a file: lists instead of tuples

    def _open_or_process(self, memory_map: bool) -> None:
        try:
            self._open(self.processed_paths[0], memory_map)
        except ValueError as error:  # the header is valid, the rest is not
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
        """Return an item without its ``transform``; a memory-mapped item is read each time.

        Args:
            idx: Index in the whole set.
        """
        if self.mapped is None and self.len() > 1:
            return super().get(idx)
        assert self._data is not None
        if self.mapped is not None:
            self.mapped.check_molecules(self.slices or {}, torch.tensor([idx]))
        data = separate(Data, self._data, idx, self.slices, decrement=False)
        if self.mapped is None:  # PyG would return the text of a single molecule as a list
            return data
        for key, value in data.to_dict().items():
            data[key] = self._cast(key, value.clone() if isinstance(value, Tensor) else value)
        self.mapped.count_read()
        return data

    get.reads_store = True  # pyright: ignore[reportFunctionMemberAccess] - `collate` may gather from the store directly

    def __getattr__(self, key: str) -> Any:
        """Return a field of all structures, as PyG does, in the type of items."""
        return self._cast(key, super().__getattr__(key))

    def copy(self, idx: Any = None) -> MoleculeDataset:
        """Return a data set with copies of all or some structures in memory.

        Args:
            idx: Structures to copy: a slice, or indices as a list, tensor or array; all by default.
        """
        items = [self.get(number) for number in (self if idx is None else self.index_select(idx)).indices()]
        whole = idx is None and self._indices is None
        return self._of(items, self.splits if whole else {})  # splits number the whole set

    def with_edges(self, cutoff: float) -> MoleculeDataset:
        """Return a data set in memory whose structures have precomputed edges.

        Args:
            cutoff: Cutoff of the edges, in Å.

        Returns:
            A data set whose items have ``edge_index`` and, with a cell, ``shift``.
        """
        search = RadiusGraph(cutoff)
        return self._of([search(cast(Data, self.get(number))) for number in self.indices()], {})

    def _of(self, items: list[BaseData], splits: dict[str, Split]) -> MoleculeDataset:
        """Return a data set of this class of some items, in memory."""
        other = self.__copy__()
        other._indices = other.mapped = None
        other.splits = splits
        other._take(*collate_items(items))
        return other

    def _require_label(self, name: str) -> None:
        """Raise if there is no label of this name."""
        if name == "energy" and not self.has_energy:
            raise ValueError("`energy` must be among the labels of the data, got none; set `energy_key`")
        if name != "energy" and name not in self.properties:
            known = ", ".join(map(repr, ("energy",) * self.has_energy + self.properties)) or "none"
            raise ValueError(f"`name` must be a label of the data, one of {known}; got {name!r}")

    def _batches(self, field: str) -> Iterator[tuple[Tensor, Data]]:
        """Yield batches of all structures: their numbers, and a batch of ``z`` and one more field."""
        if len(self) == 0:
            raise ValueError(
                "a data set must hold at least one structure to compute statistics of it, got none"
            )
        others = [key for key in self.slices or () if key not in ("z", field)]
        order = torch.arange(len(self))
        if self.mapped is not None:  # in the order of the file: random access would read all of it
            order = torch.tensor(self.indices()).argsort()
        for part in order.split(_STRUCTURES_AT_ONCE):
            yield part, collate(self, part, exclude_keys=others)
            if self.mapped is not None:
                self.mapped.release()

    def __copy__(self) -> MoleculeDataset:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.mapped is not None:  # worker processes map the file themselves
            state.update(_data=None, slices=None, splits={}, mapped=None, _plan=None, _reopen=True)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        reopen = state.pop("_reopen", False)
        self.__dict__.update(state)
        if reopen:
            self._open(self._path, memory_map=True)


def _compositions(batch: Data, name: str, atomic: bool) -> Compositions:
    z = cast(Tensor, batch.z)
    if atomic:
        return Compositions.of_atoms(z, batch[name])
    return Compositions.of(z, cast(Tensor, batch.batch), batch[name])


def _residual(batch: Data, name: str, atomref: Tensor, atomic: bool) -> Tensor:
    """Compute known values relative to references, those of structures per atom."""
    values = batch[name]
    if atomic:
        residual = values - atomref[batch.z]
    else:
        references = torch.zeros_like(values).index_add_(0, cast(Tensor, batch.batch), atomref[batch.z])
        residual = (values - references) / batch.ptr.diff()
    return residual[~residual.isnan()]


def _version() -> str:
    from pyg_schnet import __version__  # pyg_schnet imports this package's users

    return __version__
