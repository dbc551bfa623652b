"""Energies and forces of many structures, in batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import cast

import torch
from ase import Atoms
from torch_geometric.data import Batch, Data

from pyg_schnet.potential import Potential
from pyg_schnet.simulation.calculator import for_evaluation
from pyg_schnet.simulation.structures import with_results
from pyg_schnet.structures import from_ase


def predict(
    potential: Potential | str | os.PathLike,
    frames: Iterable[Atoms],
    batch_size: int = 32,
    forces: bool = True,
    device: str | torch.device | None = None,
) -> Iterator[Atoms]:
    """Predict energies in eV and forces in eV/Å of structures, of any sizes and periodic or not.

    Frames are read as results are asked for: a file larger than the memory may pass through.

    Args:
        potential: A potential, which is copied, or the path of a checkpoint.
        frames: Structures, for instance ``ase.io.iread(path)``; not modified.
        batch_size: Structures evaluated at once.
        forces: Whether forces are wanted; energies alone cost no gradient.
        device: Where to compute; by default where the potential is, the CPU for a path.

    Returns:
        Copies in the same order, ``info`` and ``arrays`` included; a predicted energy is
        ``frame.get_potential_energy()``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        TypeError: If ``frames`` is one structure, or holds something else.
        ValueError: If ``batch_size`` is below one or, while iterating, the potential refuses a
            structure; the message tells which frames were at work.
    """
    if isinstance(frames, Atoms):
        raise TypeError("`frames` must be an iterable of ase.Atoms, got one Atoms; use [atoms]")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    return _predict(for_evaluation(potential, device), iter(frames), batch_size, forces)


def _predict(potential: Potential, frames: Iterator[Atoms], batch_size: int, forces: bool) -> Iterator[Atoms]:
    first = 0
    while batch := list(islice(frames, batch_size)):
        try:
            results = _evaluate(potential, batch, forces)
        except (TypeError, ValueError) as error:
            where = f"frames {first} to {first + len(batch) - 1}"
            raise type(error)(f"{where}, counted from 0: {error}") from error
        yield from results
        first += len(batch)


def batch_of(frames: list[Atoms], device: torch.device) -> Data:
    """Join structures to a batch; periodic ones and others may be mixed.

    Raises:
        TypeError: If one is something else.
        ValueError: If one is empty.
    """
    for frame in frames:
        if not isinstance(frame, Atoms):
            raise TypeError(f"`frames` must hold ase.Atoms, got {type(frame).__name__}")
    lattice = any(frame.pbc.any() for frame in frames)
    batch = cast(Data, Batch.from_data_list([from_ase(frame, lattice) for frame in frames]))
    return batch.to(str(device))


def _evaluate(potential: Potential, frames: list[Atoms], forces: bool) -> list[Atoms]:
    batch = batch_of(frames, potential.scale.device)
    out = potential(batch, forces=forces)
    energy = out["energy"].tolist()
    if not forces:
        return [with_results(*pair) for pair in zip(frames, energy, strict=True)]
    sizes = [len(frame) for frame in frames]
    split = [part.numpy() for part in out["forces"].cpu().split(sizes)]
    return [with_results(*each) for each in zip(frames, energy, split, strict=True)]
