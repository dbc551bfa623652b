"""MD17, revised MD17 and its coupled-cluster subsets: molecular dynamics of single molecules."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.cards.card import CardFile, read_card
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.formats.npz import open_npz, read_array
from pyg_schnet.io.formats.registry import read_frames
from pyg_schnet.io.hashes import file_signature
from pyg_schnet.io.remote.archive import extract
from pyg_schnet.io.remote.download import download
from pyg_schnet.io.spelling import nearest

_log = logging.getLogger(__name__)
_SPLITS = range(1, 6)  # of the revised set
_ALIASES = {"benzene FHI-aims": "benzene 2018", "naphtalene": "naphthalene"}  # names in PyG
_FINGERPRINTED = ("z", "R", "E", "F")


class MD17(MoleculeDataset):
    """Frames of molecular dynamics of one molecule at 500 K, with energies and forces.

    Items have ``z (atoms,)``, ``pos (atoms, 3)`` in Å, ``energy (1,)`` in eV and ``forces (atoms, 3)`` in
    eV/Å, both float64, and ``idx``, the number of the frame. Published are kcal/mol and Å.

    Names are those of PyG: ``"ethanol"`` (DFT, 2017), ``"revised ethanol"`` (DFT with tight convergence,
    2020; ``energy_key="old_energies"`` selects the original labels of its frames), ``"ethanol CCSD(T)"``. The
    revised sets have five published splits, ``dataset.split("1")`` to ``"5"``, the coupled-cluster sets one,
    ``"official"``; none has a validation part.

    Successive frames of the original sets are 0.5 fs apart: with more than 1,000 random training frames, the
    test frames are nearly copies of training frames.

    Args:
        root: Folder of the raw and processed files, which all molecules may share.
        name: Name of molecule and set, one of :meth:`names`.
        transform: Transform of each item.
        pre_transform: Transform of each item before it is stored.
        pre_filter: Function that returns whether an item is kept.
        force_reload: Whether to process again.
        source: ``"auto"`` downloads files that are not in ``root/raw``; otherwise the path of an npz file
            with the keys of MD17 or revised MD17.
        energy_key: Name of the energies in the file, if not the default.
        forces_key: Name of the forces in the file, if not the default.
        dtype: Type of the positions; PyTorch's default type by default.
        memory_map: Whether to leave the tensors on disk.

    Raises:
        ValueError: If the name is unknown, or the file is damaged: its fingerprint is recomputed.
        DownloadError: If the file cannot be downloaded; the message names the file and its folder.

    Source:
        Chmiela et al., Sci. Adv. 3, e1603015 (2017); Chmiela et al., Nat. Commun. 9, 3887 (2018); Christensen
        and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020).
    """

    _card: ClassVar[str] = "md17"

    def __init__(
        self,
        root: str | None,
        name: str,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
        *,
        source: str | os.PathLike = "auto",
        energy_key: str | None = None,
        forces_key: str | None = None,
        dtype: torch.dtype | None = None,
        memory_map: bool = False,
    ):
        self.card = read_card(self._card)
        self.file = self._find(name)
        self.name = name
        self.source = os.fspath(source)
        self.keys = energy_key, forces_key
        if root is None and self.source == "auto":
            raise ValueError("`root` must be given, a folder for the downloaded files, got None")
        super().__init__(
            root, transform, pre_transform, pre_filter, force_reload, dtype=dtype, memory_map=memory_map
        )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return all names, in the order of the card."""
        return tuple(_named(cls._card))

    @property
    def processed_file_names(self) -> str:
        """Name of the processed file."""
        keys = [f"_{kind}_{key}" for kind, key in zip("EF", self.keys, strict=True) if key is not None]
        labels = re.sub(r"[^\w-]", "-", "".join(keys))
        return f"{Path(self.file.name).stem}{labels}.safetensors"

    @property
    def recipe(self) -> dict[str, Any]:
        """Name, keys and, for a file of the user, its signature."""
        recipe: dict[str, Any] = {"name": self.file.name, "keys": list(self.keys)}
        if self.source != "auto" and Path(self.source).is_file():
            recipe["file"] = file_signature(Path(self.source).resolve())
        return recipe

    def chunks(self) -> Iterator[Chunk]:
        self._counts: list[int] = []  # number of frames in each file
        for path in self._files():
            count = 0
            for frames in read_frames(path, *self.keys):
                count += len(frames)
                yield Chunk.from_frames(frames.loaded() if self.in_memory else frames)
            check_fingerprint(path)  # after reading, which reports other damage
            self._counts.append(count)
        total, published = sum(self._counts), self.file.records
        if self.source == "auto" and published not in (None, total):
            _log.warning("%s: has %d frames, published are %s", self.file.name, total, published)

    def official_splits(self) -> dict[str, Split]:
        """Return the published splits: lists of frames, or one file for training and one for test."""
        if self.source != "auto":
            return {}
        if self.file.group == "revised":
            return {str(number): self._revised_split(number) for number in _SPLITS}
        if len(self._counts) == 1:
            return {}
        train, test = torch.arange(sum(self._counts)).split(self._counts)
        return {"official": Split(train, torch.empty(0, dtype=torch.long), test)}

    @classmethod
    def _find(cls, name: str) -> CardFile:
        known = _named(cls._card)
        name = _ALIASES.get(name, name)
        if name not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(f"`name` must be one of {names}; got {name!r}.{nearest(str(name), known)}")
        return known[name]

    def _files(self) -> list[Path]:
        """Return the npz files, after downloading and unpacking missing ones."""
        if self.source != "auto":
            if not Path(self.source).is_file() or Path(self.source).suffix != ".npz":
                raise FileNotFoundError(f"`source` must be 'auto' or an npz file, got {self.source!r}")
            return [Path(self.source)]
        folder = Path(self.raw_dir)
        if self.file.archive is not None:
            return self._unpacked(self.card.file(self.file.archive), [self.file.name, *_split_names()])[:1]
        if self.file.name.endswith(".zip"):
            stem = Path(self.file.name).stem
            return self._unpacked(self.file, [f"{stem}-train.npz", f"{stem}-test.npz"])
        return [download(self.file.remote, folder)]

    def _unpacked(self, archive: CardFile, members: list[str]) -> list[Path]:
        folder = Path(self.raw_dir)
        paths = [folder / member for member in members]
        if not all(path.is_file() for path in paths):
            extract(download(archive.remote, folder), folder, members)
        return paths

    def _revised_split(self, number: int) -> Split:
        frames = sum(self._counts)
        train, test = (_numbers(Path(self.raw_dir) / name, frames) for name in _split_names(number))
        return Split(train, torch.empty(0, dtype=torch.long), test)


def check_fingerprint(path: Path) -> None:
    """Check the fingerprint in files of MD17: the MD5 of the MD5 digests of ``z, R, E, F``.

    Files without a fingerprint are accepted.

    Raises:
        ValueError: If the arrays have another fingerprint.
    """
    with open_npz(path) as file:
        if "md5" not in file.files or not set(_FINGERPRINTED) <= set(file.files):
            return
        stored = _fingerprint(path, file)
        digest = hashlib.md5(usedforsecurity=False)
        for key in _FINGERPRINTED:
            data = np.ascontiguousarray(read_array(path, file, key)).reshape(-1).view(np.uint8).data
            digest.update(hashlib.md5(data, usedforsecurity=False).digest())
    if digest.hexdigest() != stored:
        raise ValueError(
            f"{path}: fingerprint must be {stored[:12]}…, got {digest.hexdigest()[:12]}…; the file is "
            "damaged or was changed, download it again"
        )


def _fingerprint(path: Path, file: NpzFile) -> str:
    try:
        stored = read_array(path, file, "md5")
    except ValueError:  # pickled objects
        stored = np.empty(0)
    if stored.size != 1 or stored.dtype.kind not in "SU":
        raise ValueError(f"{path}: 'md5' must be a text, got another type; download the file again")
    text = stored.item()
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _numbers(path: Path, frames: int) -> torch.Tensor:
    """Read numbers of frames, one per line."""
    lines = path.read_text(encoding="utf-8", errors="replace").split()
    if not lines or not all(line.isdecimal() and len(line) < 10 and int(line) < frames for line in lines):
        raise ValueError(
            f"{path}: must hold one frame number from 0 to {frames - 1} per line; unpack the archive again"
        )
    return torch.tensor([int(line) for line in lines])


def _named(card: str) -> dict[str, CardFile]:
    """Return the files by PyG's names."""
    names = {}
    for file in read_card(card).files:
        if file.molecule is None:
            continue
        prefix = "revised " if file.group == "revised" else ""
        level = (file.level_of_theory or "").split("/")[0]
        suffix = f" {level}" if file.group == "coupled cluster" else ""
        names[f"{prefix}{file.molecule}{suffix}"] = file
    return names


def _split_names(number: int | None = None) -> list[str]:
    numbers = _SPLITS if number is None else [number]
    return [f"rmd17/splits/index_{part}_{n:02d}.csv" for n in numbers for part in ("train", "test")]
