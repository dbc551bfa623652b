"""Safe extraction of archives: bounded size and memory, no links, nothing outside of the target folder."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import math
import os
import secrets
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

_CHUNK = 2**20  # bytes of an archive in memory
_LARGE, _INFLATION = 2**28, 250  # an archive may unpack to 256 MiB or 250 times its size
_SHOWN = 100  # characters of a name in a message
_TOKEN = 8  # bytes, in the names of files that are being written
_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_LINKS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
# Exceptions of the standard library: RuntimeErrors from zipfile, the last three from damaged headers.
_DAMAGES = (
    EOFError,
    RuntimeError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True)
class _Member:
    """Member of an archive.

    Attributes:
        name: Name in the archive.
        kind: ``"file"``, ``"folder"``, or a description of another kind, which is never extracted.
        open: Function that returns the content of a file as a stream.
    """

    name: str
    kind: str
    open: Callable[[], io.BufferedIOBase]


def extract(
    archive: str | os.PathLike,
    folder: str | os.PathLike,
    members: Sequence[str] | None = None,
    *,
    max_bytes: int = 64 * 2**30,
    max_members: int = 2**20,
) -> list[Path]:
    """Extract files of a tar (plain, gzip, bzip2 or xz) or zip archive into a folder.

    Each file is complete or absent. A file of the same name is replaced. The archive is read to its end, so
    that damage anywhere in a tar is detected.

    Args:
        archive: Archive, which need not be trusted: nothing is written outside of the folder, no links are
            made, and memory is bounded.
        folder: Target folder, created if necessary.
        members: Names of files in the archive; all files by default.
        max_bytes: Maximum number of extracted bytes; also limited to 250 times the size of the archive, or
            256 MiB if that is more.
        max_members: Maximum number of members of the archive.

    Returns:
        Paths of the files, in the order of ``members``, else of the archive.

    Raises:
        FileNotFoundError: If the archive does not exist.
        TypeError: If ``members`` is a single name.
        ValueError: If the archive is damaged or too large, lacks a member, or has a member outside of the
            folder or of another kind than file or folder.
    """
    archive, folder = Path(archive), Path(folder)
    if isinstance(members, str):
        raise TypeError(f"`members` must be a list of names, got {members!r}; write [{members!r}]")
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: no such file; an archive is needed")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = None if members is None else dict.fromkeys(PurePosixPath(name) for name in members)
    paths: dict[PurePosixPath, Path] = {}
    limit = min(max_bytes, _max_size(archive))
    first, count, left = [], 0, limit
    with closing(_members(archive)) as found:
        for count, member in enumerate(found, start=1):
            first += [member.name] if count <= 10 else []
            if count > max_members:
                raise ValueError(
                    f"{archive}: must hold at most {max_members:,} members, got more; do not use it"
                )
            name = PurePosixPath(member.name)
            if wanted is not None and name not in wanted:
                continue
            _check_member(archive, member)
            if member.kind == "file":
                paths[name] = _inside(folder, name)
                left -= _write(archive, member, paths[name], left, limit)
    for name in wanted or ():
        if name not in paths:
            more = f" and {count - 10:,} more" if count > 10 else ""
            there = ", ".join(repr(name) for name in first) or "none"
            raise ValueError(f"{archive}: has no file '{name}'; it has {there}{more}")
    return [paths[name] for name in (paths if wanted is None else wanted)]


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove partially extracted files of killed processes; the caller must hold the lock of the folder."""
    for path in Path(folder).rglob(f".{'[0-9a-f]' * 2 * _TOKEN}.part"):
        path.unlink(missing_ok=True)


def stream(archive: str | os.PathLike) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Read the files of an archive in turn, without extracting them.

    Args:
        archive: Archive as for :func:`extract`. Names are not checked: do not use them as paths.

    Yields:
        Name, and content in pieces of at most 1 MiB, to be read before the next file or not at all.

    Raises:
        ValueError: If the archive is damaged.
    """
    archive = Path(archive)
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: no such file; an archive is needed")
    for member in _members(archive):
        if member.kind == "file":
            yield member.name, _pieces(archive, member)


def _max_size(archive: Path) -> int:
    """Return how many bytes an archive may contain; kilobytes of bzip2 may expand to gigabytes."""
    return max(_LARGE, _INFLATION * archive.stat().st_size)


def _check_member(archive: Path, member: _Member) -> None:
    path = PureWindowsPath(member.name)  # splits at / and \ and recognizes drives
    nameless = path.name == "" and member.kind != "folder"
    if nameless or path.drive or path.root or ".." in path.parts or "\0" in member.name:
        raise ValueError(f"{archive}: member {member.name!r} leads out of the folder; do not use the archive")
    if member.kind not in ("file", "folder"):
        raise ValueError(
            f"{archive}: member {member.name!r} is {member.kind}, which is not unpacked; only files are"
        )


def _inside(folder: Path, name: PurePosixPath) -> Path:
    """Return the path of a member and create its folder, unless an existing link leads elsewhere."""
    path = folder / name
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path.parent}: is a link that leads out of {folder}; remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(archive: Path, member: _Member, path: Path, left: int, limit: int) -> int:
    """Write a file of at most ``left`` bytes, and return its size in bytes."""
    size = 0
    temporary = path.with_name(f".{secrets.token_hex(_TOKEN)}.part")
    try:
        with temporary.open("xb") as file:
            for piece in _pieces(archive, member):
                size += len(piece)
                if size > left:
                    raise ValueError(
                        f"{archive}: must unpack to at most {limit:,} bytes, got more at {member.name!r}; "
                        "do not use it, or raise `max_bytes`"
                    )
                file.write(piece)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _pieces(archive: Path, member: _Member) -> Iterator[bytes]:
    with _reading(archive), member.open() as stream:
        while piece := stream.read(_CHUNK):
            yield piece


def _members(archive: Path) -> Generator[_Member, None, None]:
    with _reading(archive):
        with archive.open("rb") as file:
            start = file.read(6)
        seen: set[int] = set()  # hashes of names, to save memory
        for member in (_zip_members if start[:2] == b"PK" else _tar_members)(archive, start):
            name = hash(PurePosixPath(member.name))
            if member.kind == "file" and name in seen:
                raise ValueError(f"two members are named {member.name[:_SHOWN]!r}")
            seen.add(name)
            yield member


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Convert all exceptions of damaged archives to ValueError."""
    try:
        yield
    except (OSError, *_DAMAGES) as error:
        # Decompressors set no errno; an offset before the start of the file is EINVAL.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"{archive}: is damaged ({error}); delete it and download again") from None


def _zip_members(archive: Path, _: bytes) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        if sum(info.file_size for info in file.infolist()) > _max_size(archive):  # members may overlap
            raise zipfile.BadZipFile(
                f"it unpacks to more than {_max_size(archive):,} bytes, far more than it holds"
            )
        for info in file.infolist():
            yield _Member(info.filename, _zip_kind(info), lambda info=info: cast(Any, file.open(info)))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode == stat.S_IFLNK:
        return "a symbolic link"
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device or pipe"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {info.compress_type}"  # zipfile does not bound the memory of others
    return "folder" if info.filename.endswith("/") else "file"


def _tar_members(archive: Path, start: bytes) -> Iterator[_Member]:
    opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), open)
    with opener(archive, "rb") as content:
        forward = _ForwardReader(content, _max_size(archive))
        with tarfile.open(fileobj=cast(Any, forward), mode="r:") as tar:
            for info in tar:
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would keep all members in memory
                forward.allowed = math.inf
                yield _Member(info.name, _tar_kind(info), lambda info=info: cast(Any, tar.extractfile(info)))
                forward.allowed = _CHUNK
        if forward.last != bytes(tarfile.BLOCKSIZE):  # tarfile treats a broken header as the end
            raise tarfile.ReadError("it ends early")
        content.read(_CHUNK)  # includes the checksum of gzip


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.size < 0:
        raise tarfile.ReadError("a size is negative")
    if info.issparse():
        return "a sparse file"
    if info.isdir():
        return "folder"
    return "file" if info.isreg() else _LINKS.get(info.type, "of an unknown kind")


class _ForwardReader:
    """Stream of a tar that is only read forward, with headers of bounded size.

    tarfile does not limit headers: it would read a name of gigabytes into memory, or seek backwards forever.
    """

    def __init__(self, stream: io.BufferedIOBase, most: int):
        self.stream, self.most = stream, most
        self.position = 0
        self.allowed: float = _CHUNK  # bytes that may be read; far more than the headers of a member need
        self.last = b""  # last block

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes."""
        if not 0 <= size <= self.allowed:
            raise tarfile.ReadError("the headers of a member have no end")
        self.allowed -= size
        self.last = self.stream.read(size)
        self._advance(len(self.last))
        return self.last

    def _advance(self, size: int) -> None:
        self.position += size
        if self.position > self.most:
            raise tarfile.ReadError(f"it unpacks to more than {self.most:,} bytes, far more than it holds")

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def seek(self, position: int) -> None:
        """Skip to a position ahead."""
        if position < self.position:
            raise tarfile.ReadError("a header leads back")
        while piece := self.stream.read(min(_CHUNK, position - self.position)):
            self._advance(len(piece))
