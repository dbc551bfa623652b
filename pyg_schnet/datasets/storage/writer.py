"""Writer of processed files: chunks are collected in one temporary file per field, then joined."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage import checksums
from pyg_schnet.datasets.storage.checksums import BlockWriter
from pyg_schnet.datasets.storage.chunks import Chunk, is_index, offsets
from pyg_schnet.datasets.storage.mapped import DTYPES

# Bytes that are buffered in memory. A set of one chunk, or smaller than this, is written once; larger ones
# use one temporary file per field.
_BUFFERED = 2**25
KEY = "pyg_schnet"  # of the entry in the header of the file
PER_ATOM = ("z", "pos", "forces")  # have offsets even if each structure is one atom
_DTYPES = {dtype: name for name, dtype in DTYPES.items()}


class StorageWriter:
    """Writer that appends chunks to one temporary file per field, and joins these files.

    Args:
        path: File to write; the temporary files are beside it, and their names begin with its name.
    """

    def __init__(self, path: Path):
        self.path = path
        self.kinds: dict[str, str] = {}
        self.parts: dict[str, _Part] = {}
        self.counts: dict[str, list[Tensor]] = {}
        self.molecules = 0
        self.held = 0  # bytes in memory

    def append(self, chunk: Chunk) -> None:
        """Add the rows of a chunk, which has the fields of the first."""
        self.kinds = self.kinds or chunk.kinds()
        chunk.check(self.kinds)
        if self.held + chunk.size() > _BUFFERED:
            self._spill()
        for name, value in chunk.fields.items():
            self.counts.setdefault(name, []).append(chunk.counts_of(name))
            if isinstance(value, list):
                self._append(name, _encode(value), "text")
            else:
                self._append(name, value.movedim(-1, 0) if is_index(name) else value, "tensor")
        self.molecules += len(chunk)

    def _append(self, name: str, value: Tensor, kind: str) -> None:
        if value.dtype not in _DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            raise ValueError(f"`{name}` must be of one of the types {known}; got {value.dtype}")
        path = self.path.with_name(f"{self.path.name}.{len(self.parts)}.part")
        part = self.parts.setdefault(name, _Part(kind, value.dtype, tuple(value.shape[1:]), path))
        part.held.append(value)
        part.rows += len(value)
        self.held += value.numel() * value.itemsize

    def _spill(self) -> None:
        """Move buffered tensors to the temporary files."""
        self.held = 0
        for part in self.parts.values():
            with part.path.open("ab") as file:
                part.dump(file)

    def finish(self, header: dict[str, Any], splits: Mapping[str, Split]) -> None:
        """Write the file.

        Args:
            header: Metadata of the data set, in types of JSON.
            splits: Published splits by name.
        """
        if self.molecules == 0:
            raise ValueError("a data set must hold at least one structure, got none")
        extra, layout = self._pointers()
        for name, split in splits.items():
            extra |= {f"split:{name}:{part}": ids.long() for part, ids in split._asdict().items()}
        entry = {**header, "molecules": self.molecules, "fields": layout}
        entries = {name: (part.dtype, (part.rows, *part.row)) for name, part in self.parts.items()}
        entries |= {name: (value.dtype, tuple(value.shape)) for name, value in extra.items()}
        order = sorted(entries, key=lambda name: -entries[name][0].itemsize)  # aligned without holes
        size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in entries.values())
        entries[checksums.NAME] = (torch.uint8, (checksums.rows(size), 4))
        head = _safetensors_header([*order, checksums.NAME], entries, {KEY: json.dumps(entry)})
        with self.path.open("wb") as plain:
            file = BlockWriter(plain, head)
            for name in order:
                if name in extra:
                    _dump(extra[name], file)
                    continue
                part = self.parts[name]
                if part.path.exists():
                    with part.path.open("rb") as spilled:
                        while piece := spilled.read(2**22):
                            file.write(piece)
                part.dump(file)
            file.finish()

    def _pointers(self) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
        """Return the offsets of fields that need them, and the description of each field."""
        pointers: dict[str, Tensor] = {}
        layout: dict[str, dict[str, str]] = {}
        for name, part in self.parts.items():
            layout[name] = {"kind": part.kind}
            if part.kind == "text":
                continue
            counts = torch.cat(self.counts[name])
            if bool((counts == 1).all()) and name not in PER_ATOM:
                continue
            pointer = offsets(counts)
            same = next(
                (key for key, other in pointers.items() if torch.equal(other, pointer)), f"ptr:{name}"
            )
            pointers[same] = pointer
            layout[name]["ptr"] = same
        return pointers, layout


@dataclass
class _Part:
    kind: str
    dtype: torch.dtype
    row: tuple[int, ...]
    path: Path  # temporary file
    rows: int = 0
    held: list[Tensor] = field(default_factory=list)

    def dump(self, file: BinaryIO | BlockWriter) -> None:
        """Write and discard the buffered tensors."""
        for value in self.held:
            _dump(value, file)
        self.held.clear()


def _encode(texts: list[str]) -> Tensor:
    text = "".join(json.dumps(line) + "\n" for line in texts)
    return torch.from_numpy(np.frombuffer(bytearray(text.encode()), dtype=np.uint8))


def _dump(value: Tensor, file: BinaryIO | BlockWriter) -> None:
    if value.numel():
        file.write(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _safetensors_header(
    order: list[str], entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: dict[str, str]
) -> bytes:
    """Build the header of a safetensors file: length of the JSON text, and the text, padded to 8 bytes."""
    table: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name in order:
        dtype, shape = entries[name]
        end = start + dtype.itemsize * math.prod(shape)
        table[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
