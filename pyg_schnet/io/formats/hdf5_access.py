"""Access to HDF5 files that may be damaged or hostile; nothing outside the file is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import h5py
import numpy as np
from h5py import h5d, h5l, h5o  # pyright: ignore[reportAttributeAccessIssue] - compiled

_DAMAGES = (OSError, RuntimeError, KeyError, MemoryError, TypeError, ValueError)  # raised by h5py
_SHOWN = 12  # arrays in a message
_LARGE, _INFLATION = 2**26, 200  # largest size in bytes, or ratio to its stored size, of an array
_TEXTS_AT_ONCE, _LONGEST_TEXT = 64, 64
# Within a process, HDF5 requires the locking mode of the first open; without locking, nobody waits.
_LOCKINGS = (False, None, True, "best-effort")


@dataclass(frozen=True)
class Node:
    """A group of a file.

    Attributes:
        path: The file.
        name: Name of the group, from the root of the file.
        group: The group.
        members: Names of its arrays and groups.
    """

    path: Path
    name: str
    group: h5py.Group
    members: frozenset[str]

    def __str__(self) -> str:
        return f"{self.path}: '{self.name}'"

    def open(self, name: str) -> h5py.Dataset:
        """Open an array.

        Raises:
            ValueError: If it is damaged, or stored in another file.
        """
        self.check_no_link(name)
        with _readable(self._place(name)):
            array = self.group[name]
        if not isinstance(array, h5py.Dataset):
            raise ValueError(f"{self._place(name)} must be an array, got a group")
        with _readable(self._place(name)):
            properties = array.id.get_create_plist()
            is_elsewhere = properties.get_layout() == h5d.VIRTUAL or properties.get_external_count() > 0
            stored = array.id.get_storage_size()
            is_missing, size = stored == 0 and bool(array.size), array.nbytes
        if is_elsewhere:
            raise ValueError(
                f"{self._place(name)} must be in this file, got a reference to another, which is not followed"
            )
        if is_missing:
            raise ValueError(f"{self._place(name)} must hold data, got an array that was never written")
        if size > max(_LARGE, _INFLATION * stored):  # a single chunk, or zeros only
            raise ValueError(
                f"{self._place(name)} must unpack to at most {_INFLATION} times its size, got "
                f"{size:,} bytes from {stored:,}; write the file again without compression"
            )
        return array

    def values(self, name: str, array: h5py.Dataset, rows: slice | None = None) -> np.ndarray:
        """Read an array, or some of its rows.

        Raises:
            ValueError: If it is damaged.
        """
        with _readable(self._place(name)):
            if h5py.check_dtype(vlen=array.dtype) is not None and rows is None:
                return self._texts(name, array)
            return np.asarray(array[() if rows is None else rows])

    def _texts(self, name: str, array: h5py.Dataset) -> np.ndarray:
        """Read strings of variable length, few at once: all of them may refer to the same gigabyte."""
        if array.ndim != 1:
            raise ValueError(f"texts of shape {array.shape}")
        found: list[str | bytes] = []
        for start in range(0, len(array), _TEXTS_AT_ONCE):
            found += list(array[start : start + _TEXTS_AT_ONCE])
            if any(not isinstance(text, str | bytes) or len(text) > _LONGEST_TEXT for text in found):
                raise ValueError(f"more than {_LONGEST_TEXT} characters where a symbol is expected")
        return np.array(found, dtype=object)

    def stated_unit(self, name: str, array: h5py.Dataset | None = None) -> str | None:
        """Return the attribute ``units`` (modelforge: ``u``) of an array; ``None`` if there is none."""
        array = self.open(name) if array is None else array
        with _readable(self._place(name)):
            value = array.attrs.get("units", array.attrs.get("u"))
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return value[:_LONGEST_TEXT] if isinstance(value, str) else None

    def describe(self) -> dict[str, str]:
        """Return name and shape of each array, for error messages."""
        return {name: f"'{name}' {self.open(name).shape}" for name in self.members if not self.is_group(name)}

    def is_group(self, name: str) -> bool:
        """Return whether a member is a group, without opening it."""
        self.check_no_link(name)
        with _readable(self._place(name)):
            return h5o.get_info(self.group.id, name.encode()).type == h5o.TYPE_GROUP

    def check_no_link(self, name: str) -> None:
        """Raise if a member is a soft or external link.

        Raises:
            ValueError: If it is one.
        """
        with _readable(self._place(name)):
            kind = self.group.id.links.get_info(name.encode()).type
        if kind != h5l.TYPE_HARD:
            raise ValueError(f"{self._place(name)} must be in its place, got a link, which is not followed")

    def _place(self, name: str) -> str:
        return f"{self.path}: '{self.name.rstrip('/')}/{name}'"


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open a file.

    Raises:
        ValueError: If it is not an HDF5 file, or truncated.
    """
    for locking in _LOCKINGS:
        try:
            file = h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "locking" in str(error) and locking != _LOCKINGS[-1]:  # open in this process with another mode
                continue
            reason = error if path.stat().st_size else "it is empty"
            raise ValueError(
                f"{path}: must be an HDF5 file, got another or a damaged file ({reason}); "
                "download or write it again"
            ) from None
        with file:
            yield file
        return


def nodes(path: Path, file: h5py.File, wanted: Callable[[frozenset[str]], bool]) -> Iterator[Node]:
    """Yield the groups, at any depth, whose member names satisfy a condition, in the order of their names.

    Raises:
        ValueError: If the file is damaged, or a member is a link.
    """
    waiting: list[tuple[h5py.Group, str, str]] = [(file, "/", "")]
    seen: set[int] = set()
    while waiting:
        parent, member, above = waiting.pop()
        name = f"{above.rstrip('/')}/{member}" if above else member
        with _readable(f"{path}: '{name}'"):
            group = cast(h5py.Group, parent[member])
            address = h5o.get_info(group.id).addr
            members = [str(one) for one in group]
        if address in seen:  # a group within itself
            continue
        seen.add(address)
        node = Node(path, name, group, frozenset(members))
        if wanted(node.members):
            yield node
        else:
            waiting += [(group, one, name) for one in reversed(members) if node.is_group(one)]


def listing(path: Path, file: h5py.File) -> str:
    """Return names and shapes of the first arrays in a file, for error messages."""
    found: list[str] = []

    def visit(name: str, member: h5py.Group | h5py.Dataset) -> bool | None:
        if isinstance(member, h5py.Dataset):
            found.append(f"'{name}' {member.shape}")
        return len(found) == _SHOWN or None  # anything but None ends the visit

    with _readable(str(path)):
        file.visititems(visit)  # follows no links
    return ", ".join(found) or "no arrays"


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        raise ValueError(f"{where} is damaged ({error}); download the file again") from None
