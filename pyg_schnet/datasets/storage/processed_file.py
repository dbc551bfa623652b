"""The processed file of a data set: one safetensors file, written chunk by chunk.

Each field is one tensor with the rows of all structures, as in PyG's ``InMemoryDataset``. Fields with a
varying number of rows (``z``, ``pos`` and ``forces`` have one per atom) have a tensor ``ptr:FIELD`` of
offsets, shared among fields with equal offsets; indices of atoms are stored as ``(edges, 2)``; texts as JSON
strings, one per line. The JSON header ``pyg_schnet`` describes the fields and holds metadata of the data set.
Checksums are in the last tensor, see :mod:`pyg_schnet.datasets.storage.checksums`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
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
from pyg_schnet.io.atomic import remove_leftovers, rename_durably, write_errors

KIND = "data set"
FORMAT = 1  # increase it when older versions cannot read new files


@dataclass(frozen=True)
class ProcessedFile:
    """Content of a processed file.

    Attributes:
        fields: Fields as in :class:`Chunk`.
        slices: Offsets of the structures by field, shape ``(structures + 1,)``.
        header: Metadata of the data set.
        splits: Published splits by name.
        mapped: The memory-mapped tensors; ``None`` for a file that was read into memory.
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
    """Write a data set atomically, with at most one chunk and 32 MiB in memory.

    Args:
        path: Path of the file.
        chunks: Chunks with the same fields.
        header: Function that returns metadata, in types of JSON; called after the last chunk.
        splits: Function that returns the published splits by name; called after the last chunk.

    Raises:
        OSError: If it cannot be written, for instance on a full disk; an existing file is kept.
        ValueError: If there is no structure, or the fields of chunks differ.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)  # the caller holds the lock
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        part = Path(folder) / path.name
        writer = StorageWriter(part)
        for chunk in chunks:  # reading them raises errors of its own
            with write_errors(path):
                writer.append(chunk)
        entry, named_splits = {"format": FORMAT, "kind": KIND, **header()}, splits()
        with write_errors(path):
            writer.finish(entry, named_splits)
            rename_durably(part, path)


def read(path: str | os.PathLike, memory_map: bool = False) -> ProcessedFile:
    """Read a data set.

    Args:
        path: A file of :func:`write`.
        memory_map: Whether to map the tensors instead of reading them; writing to them does not change the
            file.

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
    return ProcessedFile(
        fields, slices, header, splits, tensors if isinstance(tensors, MappedTensors) else None
    )


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """Read the metadata of a data set; raises as :func:`read`."""
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
    """Return the names of tensors that are read completely even if mapped: offsets, splits and texts."""
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
    one_each = torch.arange(molecules + 1)  # allocated after the number was checked
    return fields, {name: slices.get(name, one_each) for name in fields}


def _check_offsets(pointer: Tensor, molecules: int, rows: int, name: str) -> None:
    """Raise for offsets beyond the rows; differences alone might overflow."""
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
    """Parse JSON strings, one per line; line feeds in them are escaped."""
    lines = bytes(value.numpy()).decode().removesuffix("\n").replace("\n", ",")
    texts = json.loads(f"[{lines}]")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("something else among the texts")
    return texts
