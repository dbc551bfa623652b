"""ISO17: molecular dynamics of isomers of C7H10O2."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.cards.card import read_card
from pyg_schnet.datasets.iso17_files import read_database, read_ids
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.hashes import file_signature
from pyg_schnet.io.remote.archive import extract
from pyg_schnet.io.remote.download import download
from pyg_schnet.io.spelling import nearest

FOLDS = ("reference", "reference_eq", "test_within", "test_other", "test_eq")
_ARCHIVE = "iso17.tar.gz"
_IDS = ("train_ids.txt", "validation_ids.txt")


class ISO17(MoleculeDataset):
    """Energies and forces along trajectories of 129 isomers of C7H10O2, PBE with van der Waals correction.

    Items have ``z (19,)``, ``pos (19, 3)`` in Å, ``energy (1,)`` in eV, ``forces (19, 3)`` in eV/Å and
    ``idx``, the number of the row in its database, from 0. The fold ``"reference"`` has the published split
    into training and validation, ``dataset.split("official")``, without a test part: the folds
    ``"test_within"`` and ``"test_other"`` are the test sets.

    Args:
        root: Folder of the raw and processed files. A fold is processed when it is first opened.
        fold: ``"reference"`` (training and validation: 80 % of the steps of 80 % of the molecules),
            ``"test_within"`` (the other steps of these molecules), ``"test_other"`` (the other molecules),
            ``"reference_eq"`` or ``"test_eq"`` (equilibrium geometries of the former or latter molecules).
        transform: Transform of each item, for instance :class:`~pyg_schnet.RadiusGraph`.
        pre_transform: Transform of each item before it is stored.
        pre_filter: Function that returns whether an item is kept.
        force_reload: Whether to process again.
        source: Path of an archive with the layout of the published one, such as the stand-in of
            ``datasets/iso17``; ``"auto"`` reads ``root/raw/iso17/*.db`` if these files exist, otherwise
            ``root/raw/iso17.tar.gz``, which is downloaded (0.8 GB) if it is missing.
        dtype: Type of the positions; PyTorch's default type by default.
        memory_map: Whether to leave the tensors on disk.

    Raises:
        DownloadError: If the archive cannot be downloaded; the message names the file and its folder.
        FileNotFoundError: If there is no file at ``source``.
        ValueError: If the fold is unknown, or a file is damaged or of another kind.

    Source:
        Schütt et al., NeurIPS 2017, section 5.3 (arXiv:1706.08566).
    """

    def __init__(
        self,
        root: str,
        fold: str = "reference",
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
        *,
        source: str | os.PathLike = "auto",
        dtype: torch.dtype | None = None,
        memory_map: bool = False,
    ):
        if fold not in FOLDS:
            names = ", ".join(map(repr, FOLDS))
            raise ValueError(f"`fold` must be one of {names}; got {fold!r}.{nearest(str(fold), FOLDS)}")
        if root is None:
            raise ValueError("`root` must be given, a folder for the unpacked and processed files, got None")
        self.fold = fold
        self.source = os.fspath(source)
        if self.source != "auto" and not Path(self.source).is_file():
            raise FileNotFoundError(
                f'{self.source}: no such file; `source` must be "auto" or the path of an archive like '
                f"{_ARCHIVE}"
            )
        super().__init__(
            root, transform, pre_transform, pre_filter, force_reload, dtype=dtype, memory_map=memory_map
        )

    @property
    def raw_file_names(self) -> str:
        """Names of the raw files."""
        return _ARCHIVE

    @property
    def processed_file_names(self) -> str:
        """Name of the processed file."""
        return f"{self.fold}.safetensors"

    @property
    def recipe(self) -> dict[str, Any]:
        """The fold and, for a local archive, its signature."""
        if self.source == "auto":
            return {"fold": self.fold}
        return {"fold": self.fold, "source": file_signature(Path(self.source).resolve())}

    @property
    def notes(self) -> dict[str, Any]:
        return {"source": self._place}

    def download(self) -> None:
        if self.source == "auto" and not self._is_extracted:
            download(read_card("iso17").file(_ARCHIVE).remote, self.raw_dir)

    def process(self) -> None:
        with self._unpacked() as self._folder:
            super().process()
        self._rows.clear()

    def chunks(self) -> Iterator[Chunk]:
        self._rows: list[np.ndarray] = []  # ids of the rows, by which the split files refer to them
        name = f"{self.fold}.db"
        for rows, frames in read_database(self._folder / name, f"{self._place}/{name}"):
            self._rows.append(rows)
            yield Chunk.from_frames(frames)

    def official_splits(self) -> dict[str, Split]:
        """Return the published split of the fold ``"reference"``; called after the last chunk.

        Raises:
            ValueError: If a structure is in both parts.
        """
        if self.fold != "reference":
            return {}
        rows = np.concatenate(self._rows)
        train, val = (read_ids(self._folder / name, f"{self._place}/{name}", rows) for name in _IDS)
        both = np.intersect1d(train, val)
        if len(both):
            other = f"{self._place}/{_IDS[1]}"
            raise ValueError(f"{other}: must name no row of {_IDS[0]}, got {rows[both[0]]} in both")
        test = torch.empty(0, dtype=torch.long)
        return {"official": Split(torch.from_numpy(train), torch.from_numpy(val), test)}

    @property
    def _members(self) -> list[str]:
        names = [f"{self.fold}.db", *(_IDS if self.fold == "reference" else ())]
        return [f"iso17/{name}" for name in names]

    @property
    def _is_extracted(self) -> bool:
        """Return whether the raw folder contains the extracted files."""
        return all((Path(self.raw_dir) / name).is_file() for name in self._members)

    @contextmanager
    def _unpacked(self) -> Iterator[Path]:
        """Extract the archive if necessary, and return the folder of its members within the context."""
        if self.source == "auto" and self._is_extracted:
            folder = Path(self.raw_dir) / "iso17"
            self._place = str(folder)  # name of the folder in messages
            yield folder
            return
        archive = Path(self.raw_dir) / _ARCHIVE if self.source == "auto" else Path(self.source)
        self._place = f"{archive}: iso17"
        folder = Path(self.processed_dir) / ".unpacked"  # raw_dir may be read-only
        try:
            extract(archive, folder, self._members)
            yield folder / "iso17"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
