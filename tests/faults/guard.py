"""What code does beside what it is asked for: pickles, programs, modules, connections, writing elsewhere."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

# Events of `sys.audit` that no file may cause.
_NEVER = frozenset(
    {
        *("pickle.find_class", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
        *("subprocess.Popen", "pty.spawn", "socket.connect", "socket.getaddrinfo", "urllib.Request"),
        *("sqlite3.enable_load_extension", "sqlite3.load_extension"),
        *("os.symlink", "os.link", "os.chown", "os.setxattr", "os.mkfifo", "ftplib.connect"),
    }
)
# Events that name, in these places, what is changed.
_CHANGES = {
    **dict.fromkeys(("os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.utime"), (0,)),
    **dict.fromkeys(("os.rename", "shutil.move"), (0, 1)),
    **dict.fromkeys(("shutil.rmtree", "shutil.unpack_archive"), (0,)),
    **dict.fromkeys(("shutil.copyfile", "shutil.copytree"), (1,)),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CODE = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))

_folder: str | None = None  # where writing is allowed; nothing is watched without
_seen: list[str] = []
_installed = False


@contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """Note what is done that no file may cause; writing is allowed in a folder.

    Not what libraries in C do by themselves: those are only kept from reading pickles.
    """
    global _folder, _installed
    if not _installed:
        sys.addaudithook(_hook)  # for the rest of the process
        _installed = True
    _seen.clear()
    _folder = os.path.realpath(folder)
    try:
        yield _seen
    finally:
        _folder = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    global _folder
    if _folder is None:
        return
    folder, _folder = _folder, None  # what follows is not watched
    try:
        if (wrong := _judge(event, arguments, folder)) is not None:
            _seen.append(wrong)
    finally:
        _folder = folder


def _judge(event: str, arguments: tuple[Any, ...], folder: str) -> str | None:
    if event in _NEVER:
        return f"{event} {arguments!r}"[:300]
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        return _outside(arguments[0], folder, "open for writing")
    if event in _CHANGES:
        if event in ("os.remove", "os.rmdir") and arguments[-1] != -1:
            return None  # in a folder that is open: by shutil.rmtree, which is an event, too
        places = (os.path.split(os.path.abspath(os.fsdecode(arguments[n]))) for n in _CHANGES[event])
        found = (_outside(os.path.join(os.path.realpath(head), tail), folder, event) for head, tail in places)
        return next((one for one in found if one), None)
    if event == "exec" and isinstance(arguments[0], CodeType):
        source = arguments[0].co_filename
        return None if source.startswith(_CODE) or _is_asked_by_library() else f"exec of code from {source}"
    if event == "import":
        root = str(arguments[0]).partition(".")[0]
        known = root in sys.modules or root in sys.stdlib_module_names or _is_installed(root)
        return None if known else f"import of {arguments[0]}"
    return None


def _outside(path: Any, folder: str, what: str) -> str | None:
    """Tell of a path that is not in the folder; links are followed where they are opened."""
    if isinstance(path, int) or path in ("/dev/null", b"/dev/null"):
        return None
    real = os.path.realpath(os.fsdecode(path)) if what == "open for writing" else path
    return None if real == folder or real.startswith(folder + os.sep) else f"{what}: {real}"


def _is_asked_by_library() -> bool:
    """Tell whether a library asks for it, as dataclasses and NumPy do, whose code is in their files."""
    frame = sys._getframe(3)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith((*_CODE, "<frozen"))


def _is_installed(root: str) -> bool:
    return any((Path(place) / root).exists() or list(Path(place).glob(f"{root}.*")) for place in _CODE)
