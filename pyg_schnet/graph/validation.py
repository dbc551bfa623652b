"""Checks of molecules and periodic systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch_geometric.data import Data

MAX_ATOMIC_NUMBER = 99  # hydrogen to einsteinium, as PyG's and SchNetPack's embeddings


def check_molecules(
    z: Tensor, pos: Tensor, batch: Tensor | None, num_molecules: int | None
) -> tuple[Tensor, int]:
    """Check shapes, types and atomic numbers; return ``batch`` and the number of molecules."""
    check_three_dimensional(pos)
    _check_floating(pos)
    if z.shape != pos.shape[:1]:
        raise ValueError(f"`z` must have shape ({len(pos)},), one for each atom, got {tuple(z.shape)}")
    check_atomic_numbers(z)
    if batch is None:
        return torch.zeros_like(z), 1 if num_molecules is None else num_molecules
    return batch, count_molecules(batch) if num_molecules is None else num_molecules


def check_atomic_numbers(z: Tensor, name: str = "z") -> None:
    """Check atomic numbers, except while compiling."""
    if z.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"`{name}` must hold integers (int64), got {z.dtype}; use z.long()")
    if torch.compiler.is_compiling() or len(z) == 0:
        return
    low, high = (int(value) for value in z.aminmax())
    if low < 1 or high > MAX_ATOMIC_NUMBER:
        raise ValueError(
            f"`{name}` contains {low if low < 1 else high}; SchNet embeds atomic numbers 1 to "
            f"{MAX_ATOMIC_NUMBER}"
        )


def check_elements(z: Tensor, allowed: Tensor) -> None:
    """Check that all elements occurred in training, except while compiling.

    Args:
        z: Atomic numbers within the table, ``(atoms,)``.
        allowed: Whether each atomic number from 0 occurred.
    """
    if torch.compiler.is_compiling():
        return
    known = allowed.index_select(0, z)
    if not bool(known.all()):
        foreign = sorted(set(z[~known].tolist()))
        numbers = [number for number in allowed.nonzero().flatten().tolist() if number > 0]
        raise ValueError(
            f"`z` contains {foreign[0]}, which was absent from training; this potential supports the "
            f"atomic numbers {', '.join(map(str, numbers))}"
        )


def check_data_device(fields: Mapping[str, Any], device: torch.device) -> None:
    """Check that the tensors of data are on the device of a potential."""
    for name in ("pos", "z", "batch"):
        value = fields.get(name)
        if value is not None and getattr(value, "device", device) != device:
            raise ValueError(
                f"`{name}` must be on the device of the potential, {device}, got {value.device}; use "
                f"data.to({str(device)!r}), or move the potential: potential.to({str(value.device)!r})"
            )


def is_periodic(pbc: Tensor | Sequence[bool] | bool | None) -> bool:
    """Return whether any direction of any system is periodic."""
    return pbc is not None and bool(torch.as_tensor(pbc).any())


def batch_of(data: Data) -> tuple[Tensor, int]:
    """Return the index of the molecule of each atom, ``(atoms,)``, and the number of molecules."""
    batch = getattr(data, "batch", None)
    if batch is None:
        return torch.zeros_like(data.z), 1
    molecules = getattr(data, "num_graphs", None)
    if molecules is None:  # `batch` of an object other than Batch
        molecules = count_molecules(batch)
    return batch, molecules


def count_molecules(batch: Tensor) -> int:
    """Return the number of molecules of a sorted batch vector, without trailing ones that have no atoms."""
    return int(batch[-1]) + 1 if len(batch) else 0


def check_positions(pos: Tensor, batch: Tensor | None) -> Tensor:
    """Check positions of any dimension; return ``batch``, or zeros if it is ``None``."""
    if pos.dim() != 2:
        raise ValueError(f"`pos` must have shape (points, dimensions), got {tuple(pos.shape)}")
    _check_floating(pos)
    finite = pos.isfinite()
    if not bool(finite.all()):
        atom = int((~finite).any(dim=1).nonzero()[0])
        raise ValueError(
            f"`pos` must be finite, got {pos[atom].tolist()} at atom {atom}; remove this structure"
        )
    if batch is None:
        return torch.zeros(len(pos), dtype=torch.long, device=pos.device)
    if batch.shape != pos.shape[:1]:
        raise ValueError(
            f"`batch` must have one entry for each of the {len(pos)} atoms, got shape {tuple(batch.shape)}"
        )
    if batch.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"`batch` must hold integers (int64), got {batch.dtype}; use batch.long()")
    if len(batch) and int(batch[0]) < 0:
        raise ValueError(f"`batch` must count molecules from 0, got {int(batch[0])}")
    if len(batch) and bool((batch.diff() < 0).any()):
        raise ValueError(
            "`batch` must be sorted, so that the atoms of a molecule are contiguous; "
            "order the atoms by torch.argsort(batch, stable=True)"
        )
    return batch


def check_edges(edge_index: Tensor, batch: Tensor) -> None:
    """Check that edges connect atoms of one molecule."""
    if edge_index.dim() != 2 or len(edge_index) != 2:
        raise ValueError(f"`edge_index` must have shape (2, edges), got {tuple(edge_index.shape)}")
    if edge_index.dtype != torch.int64:
        raise TypeError(f"`edge_index` must hold integers (int64), got {edge_index.dtype}")
    if edge_index.numel() == 0:
        return
    low, high = (int(value) for value in edge_index.aminmax())
    if low < 0 or high >= len(batch):
        raise ValueError(
            f"`edge_index` must name atoms 0 to {len(batch) - 1}, got {low if low < 0 else high}"
        )
    source, target = batch[edge_index]
    if bool((source != target).any()):
        edge = int((source != target).nonzero()[0])
        raise ValueError(
            f"`edge_index` must connect atoms of one molecule, got atoms {edge_index[0, edge]} and "
            f"{edge_index[1, edge]} of two"
        )


def _check_floating(pos: Tensor) -> None:
    if not pos.is_floating_point():
        raise TypeError(f"`pos` must be a floating-point tensor, got {pos.dtype}; use pos.double()")


def check_cell(cell: Tensor) -> None:
    """Check lattice vectors of one system or of many: three rows each, finite."""
    if not isinstance(cell, Tensor) or not cell.is_floating_point():
        kind = cell.dtype if isinstance(cell, Tensor) else type(cell).__name__
        raise TypeError(f"`cell` must be a floating-point tensor, got {kind}; use torch.tensor(…).double()")
    if cell.shape[-2:] != (3, 3) or cell.dim() > 3:
        raise ValueError(
            f"`cell` must hold three lattice vectors in rows for each molecule, got {tuple(cell.shape)}; "
            "ase.cell.Cell.new(…).array makes them of lengths and angles"
        )
    finite = cell.isfinite()
    if not bool(finite.all()):
        wrong = cell[~finite.all(-1)][0]
        raise ValueError(f"`cell` must be finite and in Å, got a lattice vector {wrong.tolist()}")


def check_three_dimensional(pos: Tensor) -> None:
    """Check the shape of positions in space."""
    if pos.dim() != 2 or pos.size(1) != 3:
        raise ValueError(f"`pos` must have shape (atoms, 3), got {tuple(pos.shape)}")


def check_radius(r: float, name: str) -> None:
    """Check a radius in Å."""
    if not r > 0:
        raise ValueError(f"`{name}` must be positive and in Å, got {r}")


def check_predictions(out: Mapping[str, Tensor]) -> None:
    """Check that predicted energies, forces, stresses and deviations are finite.

    Raises:
        ValueError: With the quantity.
    """
    for name, values in out.items():
        if not bool(values.isfinite().all()):
            value = values[~values.isfinite()].tolist()[0]
            raise ValueError(
                f"`{name}` predicted by the potential must be finite, got {value}; the structure is unlike "
                "those of the training, or the training failed; retrain the potential"
            )


def raise_coincident(source: Tensor | int, target: Tensor | int) -> NoReturn:
    """Raise ValueError for two atoms at one point, where a distance has no direction."""
    first, second = sorted((int(source), int(target)))
    raise ValueError(
        f"`pos` must not place two atoms at one point, got atoms {first} and {second} at distance 0; "
        "remove the duplicate"
    )
