"""QM9: equilibrium structures and properties of small organic molecules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from pyg_schnet.datasets import qm9_bonds as bonds
from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.cards.card import read_card
from pyg_schnet.datasets.qm9_files import MOLECULES, TARGETS, RawMolecules
from pyg_schnet.datasets.qm9_sources import SOURCES, is_whole, open_source, stamps
from pyg_schnet.datasets.splits import Split, random_split
from pyg_schnet.datasets.storage import processed_file as storage
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.units import Bohr

_SPLITS = {"schnet": (110_462, 1_000), "custom": (110_000, 10_000)}  # training and validation
# PyG's order of its nineteen targets; those that end in _atom are relative to the isolated atoms.
_PYG_TARGETS = (
    *("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv"),
    *("U0_atom", "U_atom", "H_atom", "G_atom", "A", "B", "C"),
)


class QM9(MoleculeDataset):
    """130,831 molecules of up to nine heavy atoms C, N, O, F in B3LYP/6-31G(2df,p) equilibrium geometry.

    Items have ``z (atoms,)``, ``pos (atoms, 3)`` in Å, ``energy (1,)``, which is ``U0``, the fifteen targets
    ``A, B, C`` (GHz), ``mu`` (D), ``alpha`` (Å³), ``homo, lumo, gap`` (eV), ``r2`` (Å²), ``zpve, U0, U, H,
    G`` (eV, total energies) and ``Cv`` (cal/mol/K), each ``(1,)`` and float64, ``smiles``, ``name``
    (``"gdb_1"`` is the first) and ``idx``, the number in GDB-9 from 0, as PyG counts. The 3,054 molecules
    whose relaxed geometry does not match their SMILES are left out; :meth:`uncharacterized` returns them. All
    sources hold the same data, but PyG's SDF archive has positions rounded to 1e-4 Å and SMILES as written by
    RDKit. The splits ``dataset.split("schnet")`` (110,462 training and 1,000 validation molecules, as in the
    paper) and ``"custom"`` (110,000 and 10,000) are random with a fixed seed.

    Args:
        root: Folder of the raw and processed files.
        transform: Transform of each item.
        pre_transform: Transform of each item before it is stored.
        pre_filter: Function that returns whether an item is kept.
        force_reload: Whether to process again.
        source: ``"figshare"`` (the published archive), ``"sdf"`` (PyG's archive), ``"qm9pack"`` (the
            installed package, ``pip install 'pyg-schnet[qm9]'``), ``"auto"`` (files in ``root/raw``, then
            these sources in this order), or the path of a file in one of the three layouts with any number of
            molecules, of which those in an ``uncharacterized.txt`` beside it are left out.
        features: Whether to add the features of PyG's ``QM9``: ``x (atoms, 11)``, ``edge_index``, ``edge_attr
            (edges, 4)`` and ``y (1, 19)`` in PyG's order and units. Aromaticity and hybridization are set,
            which are zero in PyG. Bonds are those of the SMILES, checked against the geometry.
        dtype: Type of the positions; PyTorch's default type by default.
        memory_map: Whether to leave the tensors on disk.

    Raises:
        DownloadError: If no source is available; the message names the files and their folder.
        FileNotFoundError: If there is no file at ``source``.
        ValueError: If a file is damaged or of another kind.

    Source:
        Ramakrishnan, Dral, Rupp, von Lilienfeld, Scientific Data 1, 140022 (2014), table 3.
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
        *,
        source: str | os.PathLike = "auto",
        features: bool = False,
        dtype: torch.dtype | None = None,
        memory_map: bool = False,
    ):
        self.source = os.fspath(source)
        self.features = features
        self.card = read_card("qm9")
        super().__init__(
            root, transform, pre_transform, pre_filter, force_reload, dtype=dtype, memory_map=memory_map
        )
        if root is None:
            self.header = {"notes": self.notes}

    @property
    def processed_file_names(self) -> str:
        """Name of the processed file."""
        return "qm9_features.safetensors" if self.features else "qm9.safetensors"

    @property
    def recipe(self) -> dict[str, Any]:
        """Signatures of a file of the user; empty for the whole QM9."""
        return {} if is_whole(self.source) else {"files": stamps(Path(self.source).resolve())}

    @property
    def notes(self) -> dict[str, Any]:
        return {"source": self._found, "uncharacterized": self._absent()}

    def _is_current(self) -> bool:
        """Return whether the processed file exists and, if a source is named, was made from it."""
        if not super()._is_current():
            return False
        made_from = storage.read_header(self.processed_paths[0]).get("notes", {}).get("source")
        return self.source not in SOURCES or self.source == made_from

    def isolated_atoms(self, target: str = "U0") -> Tensor:
        """Return the published values of isolated atoms, which are atomic references.

        Args:
            target: ``"zpve"``, ``"U0"``, ``"U"``, ``"H"``, ``"G"`` (in eV) or ``"Cv"`` (in cal/mol/K).

        Returns:
            Values by atomic number, shape ``(100,)``, float64.

        Raises:
            ValueError: If there are no published values of the target.
        """
        table = self.card.atomref
        if target not in table:
            raise ValueError(
                f"`target` must have published values of isolated atoms, {', '.join(table)}; got {target!r}"
            )
        values = torch.zeros(100, dtype=torch.float64)
        for symbol, value in table[target].items():
            values[atomic_numbers[symbol]] = value * self.card.factor(target)
        return values

    def uncharacterized(self) -> Tensor:
        """Return the numbers in GDB-9, from 0 as ``idx``, of the molecules that are left out.

        Raises:
            ValueError: If the data set was made from a file of the user, whose omissions are unknown.
        """
        absent = self.header["notes"]["uncharacterized"]
        if absent is None:
            raise ValueError(
                f"`source` must be the whole QM9 to know which molecules are left out, got {self.source}"
            )
        return torch.tensor(absent)

    def chunks(self) -> Iterator[Chunk]:
        folder = None if self.in_memory else Path(self.raw_dir)
        self._found, pieces = open_source(self.source, self.card, folder)
        parts = [torch.empty(0, dtype=torch.long)]
        for records in pieces:
            parts.append(torch.tensor(records.ids))
            yield self._chunk(records)
        self._ids = torch.cat(parts)
        self._check_ids()

    def official_splits(self) -> dict[str, Split]:
        """Return random splits of the usual sizes with seed 0; the paper published no indices."""
        if not is_whole(self.source):
            return {}
        place = self._ids.argsort()  # positions by rank: the split does not depend on the order
        splits = {name: random_split(len(place), *sizes, seed=0) for name, sizes in _SPLITS.items()}
        return {name: Split(*(place[part].sort().values for part in split)) for name, split in splits.items()}

    def _check_ids(self) -> None:
        count, expected = len(self._ids), self.card.records
        ids, times = self._ids.unique(return_counts=True)
        if len(ids) < count:
            twice = int(ids[times > 1][0])
            raise ValueError(
                f"{self._found}: must hold each molecule once, got gdb_{twice} twice; get it again"
            )
        if is_whole(self.source) and count != expected:
            raise ValueError(
                f"{self._found}: must hold {expected:,} characterized molecules, got {count:,}; "
                "download it again"
            )
        if count > expected:
            raise ValueError(
                f"{self.source}: must come with its list of uncharacterized molecules, for it holds "
                f"{count:,}; put uncharacterized.txt beside it"
            )

    def _absent(self) -> list[int] | None:
        if not is_whole(self.source):
            return None
        absent = torch.ones(MOLECULES, dtype=torch.bool)
        absent[self._ids - 1] = False
        return absent.nonzero().flatten().tolist()

    def _chunk(self, records: RawMolecules) -> Chunk:
        counts, numbers, positions, targets = records.arrays(self._found)
        factors = np.array([self.card.factor(name) for name in TARGETS])
        columns = torch.from_numpy((targets * factors).T.copy())
        ids = torch.tensor(records.ids)
        fields: dict[str, Tensor | list[str]] = {
            "z": torch.from_numpy(numbers),
            "pos": torch.from_numpy(positions),
            "energy": columns[TARGETS.index("U0")],
            **dict(zip(TARGETS, columns, strict=True)),
            "idx": ids - 1,
            "name": [f"gdb_{number}" for number in records.ids],
        }
        per_molecule = {"z": torch.from_numpy(counts), "pos": torch.from_numpy(counts)}
        if not self.features and not records.blocks:
            return Chunk({**fields, "smiles": records.smiles}, per_molecule)
        fields["smiles"], graphs = self._bonds(records, counts, numbers, positions)
        if self.features:
            fields["x"] = torch.cat([graph.x for graph in graphs])
            fields["edge_index"] = torch.cat([graph.edge_index for graph in graphs], dim=1)
            fields["edge_attr"] = torch.cat([graph.edge_attr for graph in graphs])
            fields["y"] = self._pyg_targets(fields, torch.from_numpy(counts))
            edges = torch.tensor([len(graph.edge_attr) for graph in graphs])
            per_molecule |= {"x": per_molecule["z"], "edge_index": edges, "edge_attr": edges}
        return Chunk(fields, per_molecule)

    def _bonds(
        self, records: RawMolecules, counts: np.ndarray, numbers: np.ndarray, positions: np.ndarray
    ) -> tuple[list[str], list[bonds.BondGraph]]:
        """Return SMILES and, if ``features`` is set, features of each molecule."""
        smiles, graphs = [], []
        ends = np.cumsum(counts)
        for row, (start, end) in enumerate(zip(ends - counts, ends, strict=True)):
            try:
                if records.blocks:
                    molecule = bonds.molecule_from_block(records.blocks[row])
                    smiles.append(bonds.smiles_from(molecule))
                else:
                    atoms = numbers[start:end], positions[start:end]
                    molecule = bonds.molecule_from_smiles(records.smiles[row], *atoms)
                    smiles.append(records.smiles[row])
                if self.features:
                    graphs.append(bonds.bond_graph(molecule))
            except ValueError as error:
                raise ValueError(f"{self._found}: gdb_{records.ids[row]}: {error}") from None
        return smiles, graphs

    def _pyg_targets(self, fields: dict[str, Any], counts: Tensor) -> Tensor:
        """Return PyG's ``y``, shape ``(molecules, 19)``, in its order and with Bohr instead of Å."""
        molecule = torch.repeat_interleave(torch.arange(len(counts)), counts)
        columns = dict(fields)
        columns["alpha"], columns["r2"] = fields["alpha"] / Bohr**3, fields["r2"] / Bohr**2
        for name in ("U0", "U", "H", "G"):
            atoms = self.isolated_atoms(name)[fields["z"].long()]
            columns[f"{name}_atom"] = fields[name] - torch.zeros_like(fields[name]).index_add_(
                0, molecule, atoms
            )
        return torch.stack([columns[name] for name in _PYG_TARGETS], dim=1)
