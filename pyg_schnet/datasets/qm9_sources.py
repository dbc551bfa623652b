"""Sources of QM9: the published archive, PyG's archive, an installed package, or a file of the user."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

from pyg_schnet.datasets import qm9_files
from pyg_schnet.datasets.cards.card import Card
from pyg_schnet.datasets.qm9_files import RawMolecules
from pyg_schnet.io.hashes import file_signature
from pyg_schnet.io.remote.archive import extract
from pyg_schnet.io.remote.download import DownloadError, RemoteFile, download, verify

_log = logging.getLogger(__name__)
SOURCES = ("figshare", "sdf", "qm9pack")  # in the order of "auto"
_ARCHIVE, _PYG_ARCHIVE, _SDF, _LIST = "dsgdb9nsd.xyz.tar.bz2", "qm9.zip", "gdb9.sdf", "uncharacterized.txt"


def is_whole(source: str) -> bool:
    """Return whether a source is the whole QM9 instead of a file of the user."""
    return source in ("auto", *SOURCES)


def open_source(source: str, card: Card, folder: Path | None) -> tuple[str, Iterator[RawMolecules]]:
    """Open a source of QM9, downloading it if necessary.

    Args:
        source: One of ``SOURCES``; ``"auto"`` for the first available one, beginning with those whose files
            are in the folder; or the path of a file in one of their layouts.
        card: Card of QM9 with addresses and checksums of the files.
        folder: Folder of the published files; ``None`` disables downloads.

    Returns:
        Name of the source or file, and an iterator over its molecules.

    Raises:
        DownloadError: If no source is available; the message names the files and their folder.
        FileNotFoundError: If there is no file at the path.
        ValueError: If the checksum of a file differs from that of the card.
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
    raise DownloadError("\n".join(["QM9: no source is available", *reasons]))


def stamps(path: Path) -> list[list[str | int]]:
    """Return the signatures of a file of the user and of the files that belong to it."""
    files = [file for file in (path, _table_of(path), path.with_name(_LIST)) if file.is_file()]
    return [file_signature(file) for file in files]


def _order(folder: Path | None) -> list[str]:
    """Return the sources, first those whose files are in the folder."""
    there: dict[str, bool] = {}
    if folder is not None:
        table = _table_of(folder / _SDF)
        there["figshare"] = (folder / _ARCHIVE).is_file()
        there["sdf"] = (folder / _PYG_ARCHIVE).is_file() or ((folder / _SDF).is_file() and table.is_file())
    return sorted(SOURCES, key=lambda name: not there.get(name, False))


def _from_raw(name: str, card: Card, folder: Path | None) -> Iterator[RawMolecules]:
    if folder is None:
        raise DownloadError("`root` must be given, a folder for the downloaded files, got None")
    skip = qm9_files.read_uncharacterized(download(card.file(_LIST).remote, folder))  # small, so first
    if name == "figshare":
        return qm9_files.read_xyz_archive(download(card.file(_ARCHIVE).remote, folder), skip)
    path = folder / _SDF
    if not path.is_file() or not _table_of(path).is_file():
        archive = download(card.file(_PYG_ARCHIVE).remote, folder)
        extract(archive, folder, [path.name, _table_of(path).name])
    return qm9_files.read_sdf(path, _table_of(path), skip)


def _from_package(card: Card) -> Iterator[RawMolecules]:
    spec = importlib.util.find_spec("qm9pack")  # not imported: the package requires pandas
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package is not installed; pip install 'pyg-schnet[qm9]' brings it")
    parts = [file for file in card.files if file.package is not None]
    paths = [Path(spec.submodule_search_locations[0]).parent / file.name for file in parts]
    for path, file in zip(paths, parts, strict=True):
        if not path.is_file():
            raise ImportError(f"{path}: no such file; pip install --force-reinstall {file.package} brings it")
        verify(path, RemoteFile(path.name, (), f"sha256:{file.sha256}", file.bytes))
    return qm9_files.read_package(paths)


def _from_file(path: Path) -> Iterator[RawMolecules]:
    """Open a file of the user, with any number of molecules."""
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
    """Return the path of the targets of an SDF file."""
    return path.with_name(f"{path.name}.csv")
