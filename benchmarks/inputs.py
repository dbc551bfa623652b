"""Structures for the tasks: the same arrays, with ready-made edges, for every implementation.

Each is an npz file with ``z (atoms,)``, ``pos (frames, atoms, 3)`` in Å, ``batch (atoms,)``, ``edge_index
(2, edges)``, row 0 the sources, ``energy (frames, molecules)`` and ``forces (frames, atoms, 3)``. The frames
are batches of equal shape that take turns, so that nobody profits from having seen a batch before.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyg_schnet import radius_graph

ROOT = Path(__file__).parents[1]
MOLECULES, FRAMES = 32, 4
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"

Arrays = dict[str, np.ndarray]


def build(name: str, ethanol: Path | None = None, aspirin: Path | None = None) -> tuple[Arrays, str]:
    """Make the structures of that name, and say where they are from."""
    if name == "ethanol":
        return md17(ethanol, MOLECULES)
    if name == "molecule":
        return md17(ethanol, 1)
    if name == "aspirin":
        return shaken_aspirin() if aspirin is None else md17(aspirin, MOLECULES)
    if name == "qm9":
        return qm9()
    return box(1000), "1,000 atoms H, C, N, O on a shaken grid, 0.1 atoms/Å³, not periodic"


def md17(path: Path | None, molecules: int) -> tuple[Arrays, str]:
    """Take random frames of an npz file in revised MD17's or our sample's layout."""
    path = path or ROOT / "datasets/md17/ethanol_gfn2_xtb.npz"
    with np.load(path) as file:
        keys = ("nuclear_charges", "coords", "old_energies", "old_forces")
        z, pos, energy, forces = (file[key] for key in (keys if keys[0] in file else ("z", "R", "E", "F")))
    chosen = np.random.default_rng(0).permutation(len(pos))[: FRAMES * molecules]
    energy = energy.reshape(-1)[chosen]
    # Labels relative to their mean: in float32 absolute ones would be rounded.
    return assemble(
        np.tile(z, molecules),
        pos[chosen].reshape(FRAMES, -1, 3),
        np.repeat(np.arange(molecules), len(z)),
        (energy - energy.mean()).reshape(FRAMES, molecules),
        forces[chosen].reshape(FRAMES, -1, 3),
    ), f"{molecules} frames of {path.name}"


def shaken_aspirin() -> tuple[Arrays, str]:
    """Displace the atoms of a force field's aspirin by 0.1 Å; the labels are zero, and time needs none."""
    from pyg_schnet.transforms.smiles import from_smiles

    molecule = from_smiles(ASPIRIN)
    atoms = len(molecule.z)
    pos = molecule.pos.numpy() + np.random.default_rng(0).normal(0, 0.1, (FRAMES, MOLECULES, atoms, 3))
    batch = np.repeat(np.arange(MOLECULES), atoms)
    arrays = unlabelled(np.tile(molecule.z.numpy(), MOLECULES), pos.reshape(FRAMES, -1, 3), batch)
    return arrays, "synthetic: RDKit's structure, atoms displaced at random by 0.1 Å, no labels"


def qm9(molecules: int = MOLECULES, sample: bool = False) -> tuple[Arrays, str]:
    """Take random molecules of QM9, energies of U0 less a fit by element, forces zero.

    Of the sample, which is read in no time, molecules are taken again where a batch is larger.
    """
    from pyg_schnet.datasets import QM9

    installed = find_spec("qm9pack") is not None and not sample
    source = "qm9pack" if installed else ROOT / "datasets/qm9/sample.xyz.tar.bz2"
    with tempfile.TemporaryDirectory() as folder:
        dataset = QM9(folder, source=source)
        order = np.random.default_rng(0).permutation(len(dataset))
        items = [dataset[number] for number in np.resize(order, molecules).tolist()]
    counts = np.array([np.bincount(item.z.numpy(), minlength=10) for item in items])
    energy = np.array([item.energy.item() for item in items])
    energy -= counts @ np.linalg.lstsq(counts, energy, rcond=None)[0]
    batch = np.repeat(np.arange(molecules), [len(item.z) for item in items])
    pos = np.concatenate([item.pos.numpy() for item in items])
    pos = pos + np.random.default_rng(1).normal(0, 0.01, (FRAMES, *pos.shape))
    arrays = unlabelled(np.concatenate([item.z.numpy() for item in items]), pos, batch)
    arrays["energy"] = np.tile(energy, (FRAMES, 1))
    return arrays, f"{molecules} molecules of {'QM9' if installed else 'the sample of QM9 in datasets/qm9'}"


def box(atoms: int, density: float = 0.1, cutoff: float = 5.0, edges: bool = True) -> Arrays:
    """Fill a cube with random atoms at least 1 Å apart: a grid, displaced by up to 0.5 Å a coordinate."""
    rng = np.random.default_rng(0)
    side = math.ceil(atoms ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[rng.permutation(len(grid))[:atoms]] * density ** (-1 / 3)
    pos = grid + rng.uniform(-0.5, 0.5, grid.shape)
    z = rng.choice([1, 6, 7, 8], atoms, p=[0.5, 0.3, 0.1, 0.1])
    return unlabelled(z, pos[None], np.zeros(atoms, int), cutoff, edges)


def unlabelled(
    z: np.ndarray, pos: np.ndarray, batch: np.ndarray, cutoff: float = math.inf, edges: bool = True
) -> Arrays:
    """Assemble arrays with labels of zero."""
    energy = np.zeros((len(pos), int(batch[-1]) + 1))
    return assemble(z, pos, batch, energy, np.zeros_like(pos), cutoff, edges)


def assemble(
    z: np.ndarray,
    pos: np.ndarray,
    batch: np.ndarray,
    energy: np.ndarray,
    forces: np.ndarray,
    cutoff: float = math.inf,
    edges: bool = True,
) -> Arrays:
    """Add the edges of the first frame, which are those of all where all pairs are connected."""
    edge_index: Tensor | Sequence = np.zeros((2, 0), int)
    if edges:
        edge_index = radius_graph(torch.tensor(pos[0]), cutoff, torch.tensor(batch)).numpy()
    arrays = {"z": z, "pos": pos, "batch": batch, "edge_index": edge_index, "energy": energy}
    return {key: np.asarray(array) for key, array in {**arrays, "forces": forces}.items()}
