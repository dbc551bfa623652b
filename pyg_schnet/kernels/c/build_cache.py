"""The user's folder of compiled libraries, each named by a hash of its sources and a digest of its content.

A library is code that runs as the user. One that another user could have written is not loaded, nor is a
damaged one, as after a full disk or a power cut, which would end the process by a signal.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pooch

_MAX_PROGRAMS = 200  # of some 40 kB
_log = logging.getLogger(__name__)


def cached_libraries(stem: str) -> Iterator[Path]:
    """Yield the user's libraries whose names begin with a stem; remove damaged ones."""
    folder = _users_folder()
    if folder is None:
        return
    for path in sorted(folder.glob(f"{stem}-*.so")):
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or _why_unsafe(status) is not None:
                continue
            digest = _digest(path)
        except OSError:
            continue
        if path.stem.endswith(f"-{digest}"):
            yield path
        else:
            with suppress(OSError):  # a folder that cannot be written to
                path.unlink()


def writable_folder() -> Path:
    """Return the folder for new libraries: the user's, or a temporary one where that cannot be used."""
    folder = _users_folder()
    if folder is not None and os.access(folder, os.W_OK | os.X_OK):
        return folder
    return _temporary_folder()


def store(library: Path, stem: str) -> Path:
    """Rename a new library in :func:`writable_folder` to its final name, once its content is on the disk.

    Only the newest generated programs are kept, as a user may have many.
    """
    os.chmod(library, 0o700)  # compilers write as the umask says, which may let others change it
    with library.open("rb+") as file:
        os.fsync(file.fileno())  # otherwise a power cut may leave the name without the content
    stored = library.with_name(f"{stem}-{_digest(library)}.so")
    os.replace(library, stored)
    with suppress(OSError):  # another process may remove the same
        programs = sorted(library.parent.glob("program-*.so"), key=lambda path: path.stat().st_mtime)
        for path in programs[:-_MAX_PROGRAMS]:
            path.unlink()
    return stored


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _users_folder() -> Path | None:
    """Return the user's folder, created if necessary; ``None`` if that fails or others may write to it."""
    folder = Path(os.environ.get("PYG_SCHNET_CACHE") or pooch.os_cache("pyg_schnet"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = _why_unsafe(folder.stat())
    except OSError:
        return None  # a home that cannot be written to
    if reason is not None:
        _warn(folder, reason)
        return None
    return folder


def _why_unsafe(status: os.stat_result) -> str | None:
    """Return why another user may have written a file or folder; ``None`` if none can."""
    if not hasattr(os, "geteuid"):  # Windows, where a profile is private
        return None
    if status.st_uid != os.geteuid():
        return f"it belongs to the user with the number {status.st_uid}"
    return "others may write to it" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


@cache
def _warn(folder: Path, reason: str) -> None:
    _log.warning(
        "the cache %s is not used, because %s: kernels are compiled again by each process; set "
        "PYG_SCHNET_CACHE to a folder of your own (chmod go-w)",
        *(folder, reason),
    )


@cache
def _temporary_folder() -> Path:
    """Return a folder for this process alone, which is removed at its end."""
    folder = tempfile.mkdtemp(prefix="pyg_schnet-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
