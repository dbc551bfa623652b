"""Where QM9 comes from: the published archive, PyG's, an installed package, or a file of the user's."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

from pyg_schnet.datasets import qm9_files
from pyg_schnet.datasets.cards.card import Card
from pyg_schnet.datasets.qm9_files import Records
from pyg_schnet.io.hashes import file_signature
from pyg_schnet.io.remote.archive import extract
from pyg_schnet.io.remote.download import DownloadError, RemoteFile, download, verify

_log = logging.getLogger(__name__)
SOURCES = ("figshare", "sdf", "qm9pack")  # in the order in which "auto" tries them
_ARCHIVE, _PYG_ARCHIVE, _SDF, _LIST = "dsgdb9nsd.xyz.tar.bz2", "qm9.zip", "gdb9.sdf", "uncharacterized.txt"


def is_whole(source: str) -> bool:
    """Whether a source is all of QM9, not a file of the user's."""
    return source in ("auto", *SOURCES)


def open_source(source: str, card: Card, folder: Path | None) -> tuple[str, Iterator[Records]]:
    """Find QM9, downloading it where necessary.

    Args:
        source: One of ``SOURCES``, or ``"auto"``: first those whose files are in the folder, then all in
            this order, until one can be had; or the path of a file in one of their layouts.
        card: QM9's; says where and what the files are.
        folder: Of the files as published; without one nothing can be downloaded.

    Returns:
        The name of the source or file, and its molecules.

    Raises:
        DownloadError: If no source can be had; the message says what to put where.
        FileNotFoundError: If there is no file at the path.
        ValueError: If a file is another one than the card says.
    """
    if not is_whole(source):
        return Path(source).name, _from_file(Path(source))
    reasons = []
    for name in _order(folder) if source == "auto" else (source,):
        try:
            return name, _from_package(card) if name == "qm9pack" else _from_raw(name, card, folder)
        except (DownloadError, ImportError) as error:
            reasons.append(f"{name}: {error}")
            _log.info("%s: %s", name, error)
    raise DownloadError("\n".join(["QM9: no source gives it", *reasons]))


def stamps(path: Path) -> list[list[str | int]]:
    """Tell what changes when a file of the user's, or one that belongs to it, is replaced."""
    files = [file for file in (path, _table_of(path), path.with_name(_LIST)) if file.is_file()]
    return [file_signature(file) for file in files]


def _order(folder: Path | None) -> list[str]:
    """Order the sources: first those that somebody has put into the folder."""
    there: dict[str, bool] = {}
    if folder is not None:
        table = _table_of(folder / _SDF)
        there["figshare"] = (folder / _ARCHIVE).is_file()
        there["sdf"] = (folder / _PYG_ARCHIVE).is_file() or ((folder / _SDF).is_file() and table.is_file())
    return sorted(SOURCES, key=lambda name: not there.get(name, False))


def _from_raw(name: str, card: Card, folder: Path | None) -> Iterator[Records]:
    if folder is None:
        raise DownloadError("`root` must be given, a folder for the downloaded files, got None")
    skip = qm9_files.read_uncharacterized(download(card.file(_LIST).remote, folder))  # first, for it is small
    if name == "figshare":
        return qm9_files.read_xyz_archive(download(card.file(_ARCHIVE).remote, folder), skip)
    path = folder / _SDF
    if not path.is_file() or not _table_of(path).is_file():
        archive = download(card.file(_PYG_ARCHIVE).remote, folder)
        extract(archive, folder, [path.name, _table_of(path).name])
    return qm9_files.read_sdf(path, _table_of(path), skip)


def _from_package(card: Card) -> Iterator[Records]:
    spec = importlib.util.find_spec("qm9pack")  # which is not imported: it wants pandas
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package is not installed; pip install 'pyg-schnet[qm9]' brings it")
    parts = [file for file in card.files if file.package is not None]
    paths = [Path(spec.submodule_search_locations[0]).parent / file.name for file in parts]
    for path, file in zip(paths, parts, strict=True):
        if not path.is_file():
            raise ImportError(f"{path}: no such file; pip install --force-reinstall {file.package} brings it")
        verify(path, RemoteFile(path.name, (), f"sha256:{file.sha256}", file.bytes))
    return qm9_files.read_package(paths)


def _from_file(path: Path) -> Iterator[Records]:
    """Read a file of the user's, which may hold any of the molecules."""
    if not path.is_file():
        names = ", ".join(f"'{name}'" for name in SOURCES)
        raise FileNotFoundError(f"`source` must be 'auto', {names} or a file of these; {path} is no file")
    if path.suffix == ".csv":
        return qm9_files.read_package([path])
    beside = path.with_name(_LIST)
    skip = qm9_files.read_uncharacterized(beside) if beside.is_file() else frozenset()
    if path.suffix != ".sdf":
        return qm9_files.read_xyz_archive(path, skip)
    if not _table_of(path).is_file():
        raise FileNotFoundError(f"{path}: must come with its targets; put {_table_of(path).name} beside it")
    return qm9_files.read_sdf(path, _table_of(path), skip)


def _table_of(path: Path) -> Path:
    """The targets of an SDF file."""
    return path.with_name(f"{path.name}.csv")
