"""The flat layout of every processed data set: one safetensors file, written as a stream, read at once.

All molecules of a field lie behind each other in one tensor, as in PyG's ``InMemoryDataset``. Fields with a
varying number of rows (``z, pos, forces`` have one an atom) have a tensor ``ptr:FIELD`` of offsets, shared
where it is the same; indices of atoms are stored as ``(edges, 2)``; texts as JSON strings, one a line. The
JSON header ``pyg_schnet`` says which field is which, and holds what the data set wants to remember. Checksums
are in the last tensor, see :mod:`pyg_schnet.datasets.storage.checksums`.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage.checksums import verify
from pyg_schnet.datasets.storage.chunks import Chunk, is_index
from pyg_schnet.datasets.storage.mapped import MappedTensors
from pyg_schnet.datasets.storage.writer import KEY, PER_ATOM, StorageWriter
from pyg_schnet.io.atomic import rename_durably

KIND = "data set"
FORMAT = 1  # raise it when an older pyg_schnet could not read the file


@dataclass(frozen=True)
class Stored:
    """What a file holds.

    Attributes:
        fields: As in :class:`Chunk`.
        slices: Offsets of the molecules by field, shape ``(molecules + 1,)``.
        header: What the data set remembered.
        splits: Official splits by name.
        mapped: The tensors on disk, if they were left there.
    """

    fields: dict[str, Tensor | list[str]]
    slices: dict[str, Tensor]
    header: dict[str, Any]
    splits: dict[str, Split]
    mapped: MappedTensors | None


def write(
    path: str | os.PathLike,
    chunks: Iterable[Chunk],
    header: Callable[[], Mapping[str, Any]] = dict,
    splits: Callable[[], Mapping[str, Split]] = dict,
) -> None:
    """Write a data set at once or not at all, holding one chunk and 32 MiB in memory at most.

    Args:
        path: The file.
        chunks: All with the same fields.
        header: Gives what is to be remembered, anything that JSON can hold; called after the last chunk.
        splits: Gives the official splits by name; called after the last chunk.

    Raises:
        OSError: If it cannot be written, as on a full disk; a file that is there stays.
        ValueError: If there is no molecule, or if the chunks differ in their fields.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        writer = StorageWriter(Path(folder))
        for chunk in chunks:
            with _told(path):
                writer.append(chunk)
        entry = {"format": FORMAT, "kind": KIND, **header()}
        whole, named = Path(folder) / "whole", splits()
        with _told(path):
            writer.finish(whole, entry, named)
            rename_durably(whole, path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say which file cannot be written, as on a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{path}: cannot be written ({reason}); make room or choose another folder") from error


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left; the caller holds the lock, so that nobody is at it."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*/"):
        shutil.rmtree(folder, ignore_errors=True)


def read(path: str | os.PathLike, memory_map: bool = False) -> Stored:
    """Read a data set.

    Args:
        path: A file of :func:`write`.
        memory_map: Leave the tensors on disk, from where they are paged in as they are used; they may be
            written to, but the file does not change.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, of another kind, or written by a newer version.
    """
    header = read_header(path)
    try:
        if memory_map:
            tensors = MappedTensors(path)
            for name in _read_at_once(header, tensors):
                tensors.check(name)
        else:
            verify(path)
            tensors = load_file(path)
        fields, slices = _unpack(header, tensors)
        splits = _splits(tensors, header["molecules"])
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: is damaged ({error}); make this data set again") from None
    return Stored(fields, slices, header, splits, tensors if isinstance(tensors, MappedTensors) else None)


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """Read what a data set remembered; see :func:`read` for what it raises."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such data set")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a complete safetensors file ({error}); it is truncated or of another kind, make "
            "this data set again"
        ) from None
    try:
        header = json.loads(text or "")
        form, kind, version = header["format"], header["kind"], header.get("version", "of another version")
    except (ValueError, TypeError, KeyError, RecursionError):
        header, form, kind, version = {}, 0, "", ""
    if kind != KIND:
        raise ValueError(
            f"{path}: must be a data set of pyg_schnet, got another safetensors file; a checkpoint is no data"
        )
    if not isinstance(form, int) or form > FORMAT:
        raise ValueError(
            f"{path}: a {kind} written by pyg_schnet {version} in format {form}, this version reads up to "
            f"{FORMAT}; upgrade with pip install -U pyg-schnet"
        )
    return header


def _read_at_once(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that are read whole though they are left on disk: offsets, splits and texts."""
    texts = {name for name, layout in dict(header["fields"]).items() if layout["kind"] == "text"}
    return [name for name in tensors if name.startswith(("ptr:", "split:")) or name in texts]


def _unpack(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    molecules, fields, slices = header["molecules"], {}, {}
    if type(molecules) is not int or molecules < 1 or not header["fields"]:
        raise ValueError(f"{molecules!r} structures")
    for name, layout in dict(header["fields"]).items():
        value = tensors[name]
        rows = len(value)
        if layout["kind"] == "text":
            fields[name] = _decode(value)
            rows = len(fields[name])
        else:
            fields[name] = value.movedim(0, -1) if is_index(name) else value
        if "ptr" in layout:
            slices[name] = tensors[layout["ptr"]]
            _check_offsets(slices[name], molecules, rows, name)
        elif rows != molecules:
            raise ValueError(f"{rows} rows of `{name}` for {molecules} structures")
    per_atom = [name for name in PER_ATOM if name in slices]
    for name in per_atom[1:]:
        if not torch.equal(slices[name], slices[per_atom[0]]):
            raise ValueError(f"offsets of `{name}`, which are not those of `{per_atom[0]}`")
    one_each = torch.arange(molecules + 1)  # now that so many are known to be there
    return fields, {name: slices.get(name, one_each) for name in fields}


def _check_offsets(pointer: Tensor, molecules: int, rows: int, name: str) -> None:
    """Refuse offsets that would point beyond the rows; differences alone might overflow."""
    low, high = (int(value) for value in pointer.aminmax())
    if (
        pointer.dtype != torch.long
        or pointer.shape != (molecules + 1,)
        or (low, high) != (0, rows)
        or (int(pointer[0]), int(pointer[-1])) != (0, rows)
        or bool((pointer.diff() < 0).any())
    ):
        raise ValueError(f"offsets of `{name}`")


def _splits(tensors: Mapping[str, Tensor], molecules: int) -> dict[str, Split]:
    names = {name.split(":", 1)[1].rpartition(":")[0]: None for name in tensors if name.startswith("split:")}
    splits = {name: Split(*(tensors[f"split:{name}:{part}"] for part in Split._fields)) for name in names}
    for name, split in splits.items():
        split.check(name, molecules)
    return splits


def _decode(value: Tensor) -> list[str]:
    """Read JSON strings, one a line; a line feed within one is written as an escape."""
    lines = bytes(value.numpy()).decode().removesuffix("\n").replace("\n", ",")
    texts = json.loads(f"[{lines}]")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("something else among the texts")
    return texts
