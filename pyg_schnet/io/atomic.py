"""Files that are whole or absent, whatever ends the process that writes them."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give a file to write to, which gets its name when all is written and on the disk.

    A file that is there is replaced then, and stays as it is where writing fails. A new file has the
    permissions of the umask, another those of the file before. What a killed process leaves begins with a dot
    and the file's name.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be written, as on a full disk, with its name and the reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _told(path):
        temporary.touch(exist_ok=False)  # with the permissions of the umask, which mkstemp ignores
        try:
            yield temporary
            rename_durably(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path to write to, which takes the file's place when all is written.

    As :func:`written_whole`, for writers that tell formats by endings: the path has the file's name, in a
    folder of its own beside it.

    Args:
        path: The file, which may be there or not.

    Raises:
        OSError: If it cannot be written, as on a full disk, with its name and the reason.
    """
    path = Path(path)
    with (
        _told(path),
        tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True
        ) as folder,
    ):
        part = Path(folder) / path.name
        yield part
        rename_durably(part, path)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a file; nobody may be writing it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not is_leftover(left, path.name):
            continue
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def is_leftover(path: Path, name: str) -> bool:
    """Return whether a killed process left a file or folder while it wrote a file of this name."""
    if not re.fullmatch(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}", path.name) or path.is_symlink():
        return False
    return not path.is_dir() or all(inner.name.startswith(name) for inner in path.iterdir())


def check_replaceable(path: str | os.PathLike) -> None:
    """Raise if there is something of this name that no output may replace.

    Only a regular file may be replaced: no folder, and nothing that a link leads to. Checkpoints and
    processed data sets take long to make, and are replaced by their like only.

    Raises:
        FileExistsError: With what it is.
    """
    path = Path(path)
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    advice = "which is never replaced; give another name"
    if stat.S_ISLNK(mode):
        raise FileExistsError(f"{path}: is a link, {advice}, as that of the file that it leads to")
    if stat.S_ISDIR(mode):
        raise FileExistsError(f"{path}: is a folder, {advice}")
    if not stat.S_ISREG(mode):
        raise FileExistsError(f"{path}: is a pipe or device, {advice}")
    if _is_safetensors(path):
        raise FileExistsError(f"{path}: is a checkpoint or data set in safetensors, {advice}")


def check_appendable(path: str | os.PathLike) -> None:
    """Raise if there is something of this name that must not grow: see :func:`check_replaceable`.

    Raises:
        FileExistsError: With what it is; also a file with several names, which would grow under all of them.
    """
    check_replaceable(path)
    path = Path(path)
    if path.exists() and path.stat().st_nlink > 1:
        raise FileExistsError(
            f"{path}: has another name (a hard link), under which it would grow, too; replace it by a "
            "copy of itself"
        )


def check_distinct(
    inputs: Mapping[str, Iterable[str | os.PathLike]], outputs: Mapping[str, str | os.PathLike | None]
) -> None:
    """Raise if an output is an input, or another output: one would destroy the other.

    Args:
        inputs: Files by the name of their argument.
        outputs: The same; ``None`` for none.

    Raises:
        ValueError: With both names.
    """
    seen = {os.path.realpath(path): name for name, paths in inputs.items() for path in paths}
    for name, path in outputs.items():
        if path is None:
            continue
        other = seen.setdefault(os.path.realpath(path), name)
        if other != name:
            raise ValueError(
                f"`{other}` and `{name}` must be different files, got {os.fspath(path)} for both"
            )


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: with the length of its header, and the header."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Name the file in errors of writing it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"{path}: cannot be written ({reason}); what was there before is left as it was. Make room or "
            "choose another folder"
        ) from error


def sha256_of(path: str | os.PathLike) -> str:
    """Compute the SHA-256 of the content of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def rename_durably(part: Path, path: Path) -> None:
    """Give a complete file its name, so that after a power cut either it or the file before has it.

    It gets the permissions of the file that it replaces.
    """
    if part.is_file():
        flush(part)
    if path.is_file():
        part.chmod(path.stat().st_mode & 0o777)
    os.replace(part, path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders, and some file systems sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def flush(path: Path) -> None:
    """Bring a file to the disk: else a power cut may leave the name without the content."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
