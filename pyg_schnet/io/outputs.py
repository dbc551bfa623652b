"""Checks of output files before the work that fills them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

_WITH_RESULTS = ("extxyz", "traj", "json", "db")  # ASE's names of formats that hold energies and forces


def check_replaceable(path: str | os.PathLike) -> None:
    """Raise if ``path`` exists and no output may replace it.

    Only regular files may be replaced: no folders, and no targets of links. Checkpoints and processed data
    sets take long to make, so that other outputs never replace them.

    Raises:
        FileExistsError: If it is something else; the message names what.
    """
    path = Path(path)
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    advice = "which is never replaced; use another name"
    if stat.S_ISLNK(mode):
        raise FileExistsError(f"{path}: is a link, {advice}, as that of the file that it leads to")
    if stat.S_ISDIR(mode):
        raise FileExistsError(f"{path}: is a folder, {advice}")
    if not stat.S_ISREG(mode):
        raise FileExistsError(f"{path}: is a pipe or device, {advice}")
    if _is_safetensors(path):
        raise FileExistsError(f"{path}: is a checkpoint or data set in safetensors, {advice}")


def check_appendable(path: str | os.PathLike) -> None:
    """Raise if ``path`` exists and nothing may be appended to it: see :func:`check_replaceable`.

    Raises:
        FileExistsError: If it may not be replaced, or has several names, under all of which it would grow.
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
    """Raise if an output is also an input or another output, which writing would destroy.

    Args:
        inputs: Files by the name of their argument.
        outputs: File by the name of its argument; ``None`` for none.

    Raises:
        ValueError: If two are the same file; the message names both arguments.
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


def check_output(path: str, overwrite: bool, structures: bool = True) -> None:
    """Raise if an output file could not be written.

    Args:
        path: File to write.
        overwrite: Whether it may exist.
        structures: Whether ASE writes structures to it.

    Raises:
        FileExistsError: If it exists and must stay.
        FileNotFoundError: If its folder does not exist.
        ValueError: If ASE writes no format of this extension.
    """
    check_replaceable(path)
    if Path(path).exists() and not overwrite:
        raise FileExistsError(f"{path}: exists; use another name, or --overwrite to replace it")
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist; create it first")
    if structures:
        from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

        try:
            kind = get_ioformat(filetype(path, read=False))
        except UnknownFileTypeError:
            raise ValueError(
                f"{path}: ASE has no format of this extension; use .extxyz, for example"
            ) from None
        if not kind.can_write:
            raise ValueError(f"{path}: ASE reads {kind.name} and does not write it; use .extxyz, for example")


def check_picture(path: str) -> None:
    """Raise if matplotlib could not write a picture.

    Raises:
        ValueError: If matplotlib writes no format of this extension; other errors as :func:`check_output`.
    """
    from matplotlib.figure import Figure

    check_output(path, overwrite=True, structures=False)
    known = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in known:
        raise ValueError(
            f"{path}: must be a picture with extension {', '.join(f'.{name}' for name in known)}"
        )


def format_without_results(path: str) -> str | None:
    """Return the name of a file's format if that stores no energies and forces, otherwise ``None``."""
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        kind = filetype(path, read=False)
    except UnknownFileTypeError:
        return None
    return None if kind in _WITH_RESULTS else kind


def check_stores_results(path: str) -> None:
    """Raise if the format of a file would silently drop energies and forces.

    Raises:
        ValueError: With formats that store them.
    """
    if kind := format_without_results(path):
        raise ValueError(
            f"{path}: {kind} holds no energies and forces, which would be lost; .extxyz, .traj, .json and "
            ".db hold them"
        )


def check_stores_many(path: str) -> None:
    """Raise if the format of a file stores only one structure.

    Raises:
        ValueError: With a format that stores many.
    """
    from ase.io.formats import filetype, get_ioformat

    kind = get_ioformat(filetype(path, read=False))
    if kind.single:
        raise ValueError(
            f"{path}: {kind.name} holds one structure, and there are several; .extxyz holds many, --index "
            "chooses one"
        )


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins like safetensors: the length of the header, then the header in JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8
