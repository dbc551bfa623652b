"""Structures for the view that can be turned: atoms colored by the errors of their forces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from matplotlib import colormaps
from matplotlib.colors import to_hex

from pyg_schnet.plots.structure_view import View
from pyg_schnet.plots.style import DIVERGING, readable_on
from pyg_schnet.potentials.metrics import Evaluation
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.report.contents import Accuracy, Contents
from pyg_schnet.report.quantities import number
from pyg_schnet.transforms.ase_atoms import to_ase

MOST_ATOMS = 1000  # of a structure that is shown
_SEQUENTIAL = "viridis"
_STOPS = 12  # colors of the bar
_BOND = 0.16  # Å, width


def structure_views(contents: Contents) -> list[dict[str, Any]]:
    """Return structures with typical and large errors for the page, as values for JSON.

    With forces, atoms are colored by the length of the error vector of their force in meV/Å: of all
    structures together if they have the same atoms, of the structure with the median error, and of that with
    the largest. Without, they are colored by their energies relative to the mean of the element, in meV.
    Empty if the model is not a sum over atoms, or all structures are too large.
    """
    accuracy = contents.accuracy
    if accuracy.evaluation.forces is not None:
        return list(_by_force_errors(accuracy, accuracy.evaluation))
    config = contents.model.config
    return [] if config.dipole or config.readout == "mean" else _by_energies(contents.potential, accuracy)


def _by_force_errors(accuracy: Accuracy, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    assert evaluation.forces is not None
    assert evaluation.sizes is not None
    length = 1e3 * (evaluation.forces[1] - evaluation.forces[0]).norm(dim=1)
    sizes = evaluation.sizes.tolist()
    parts, elements = list(length.split(sizes)), list(evaluation.z.split(sizes))
    size = [float(part.square().mean().sqrt()) if len(part) <= MOST_ATOMS else -1 for part in parts]
    order = [place for place in np.argsort(size, kind="stable").tolist() if size[place] >= 0]
    if not order:
        return
    unit = "meV/Å"
    middle, worst = order[(len(order) - 1) // 2], order[-1]
    same = len(parts) > 1 and all(torch.equal(z, elements[0]) for z in elements)
    if same:
        values = torch.stack(parts).square().mean(0).sqrt()
        title = f"all {len(parts):,} structures: root mean square of each atom"
        yield _view(_atoms(accuracy, middle), title, values.numpy(), unit)
    chosen = {
        f"median error, {number(size[middle])} {unit}": middle,
        f"largest error, {number(size[worst])} {unit}": worst,
    }
    for name, place in dict.fromkeys(chosen.items()):
        title = f"structure {accuracy.numbers[place]}: {name}"
        yield _view(_atoms(accuracy, place), title, parts[place].numpy(), unit)


def _by_energies(potential: Potential, accuracy: Accuracy) -> list[dict[str, Any]]:
    evaluation = accuracy.evaluation
    error = (evaluation.energy[1] - evaluation.energy[0]).abs()
    order = [
        place
        for place in error.argsort(stable=True).tolist()
        if len(accuracy.structure(place).z) <= MOST_ATOMS
    ]
    if not order:
        return []
    chosen = list(dict.fromkeys([order[(len(order) - 1) // 2], order[-1]]))
    device = str(potential.scale.device)
    energies, structures = [], [_atoms(accuracy, place) for place in chosen]
    for place in chosen:
        energies.append(1e3 * potential.atomic_energies(accuracy.structure(place).to(device)).cpu().numpy())
    relative = _relative_to_element(structures, energies)
    views = []
    for place, atoms, values in zip(chosen, structures, relative, strict=True):
        title = f"structure {accuracy.numbers[place]}: energy error {number(1e3 * float(error[place]))} meV"
        views.append(_view(atoms, title, values, "meV", diverging=True))
    return views


def _relative_to_element(structures: Sequence[Atoms], energies: Sequence[np.ndarray]) -> list[np.ndarray]:
    from pyg_schnet.plots.atomic_energies import relative_energies

    return relative_energies(structures, energies, None)


def _atoms(accuracy: Accuracy, place: int) -> Atoms:
    return cast(Atoms, to_ase(accuracy.structure(place), with_results=False))


def _view(atoms: Atoms, title: str, values: np.ndarray, unit: str, diverging: bool = False) -> dict[str, Any]:
    """Return a structure for the page: positions in Å about its center, radii, bonds, cell and colors."""
    view = View.of(atoms)
    top = max(float(np.abs(values).max()), 1e-9)
    low, name = (-top, DIVERGING) if diverging else (0.0, _SEQUENTIAL)
    colors = [colormaps[name](float(share)) for share in (values - low) / (top - low)]
    stops = [to_hex(colormaps[name](share)) for share in np.linspace(0, 1, _STOPS)]
    box = view.box()
    return {
        "title": title,
        "symbols": [chemical_symbols[z] for z in atoms.numbers],
        "positions": view.positions.round(3).tolist(),
        "radii": view.radii.round(3).tolist(),
        "bonds": view.bonds.tolist(),
        "cell": view.cell.round(3).tolist(),
        "values": [number(float(value)) for value in values],
        "colors": [to_hex(color) for color in colors],
        "inks": [readable_on(color) for color in colors],
        "scale": {
            "low": number(low),
            "middle": number((low + top) / 2),
            "high": number(top),
            "unit": unit,
            "stops": stops,
        },
        "projection": _projection(view, colors),
        "box": [float(round(value, 3)) for value in (box[0, 0], -box[1, 1], *(box[1] - box[0]))],
    }


def _projection(view: View, colors: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return lines and circles of a still view, those behind first."""
    shapes: list[tuple[float, dict[str, Any]]] = []
    for (x1, y1, z1), (x2, y2, z2) in view.cell.round(3).tolist():
        line = {"x1": x1, "y1": -y1, "x2": x2, "y2": -y2, "width": 0.06}
        shapes.append((min(z1, z2) - 100, line))
    for first, second in view.bonds.tolist():
        ends = view.positions[[first, second]]
        along = (ends[1] - ends[0]) / max(float(np.linalg.norm(ends[1] - ends[0])), 1e-9)
        ends = ends + np.stack([view.radii[first] * along, -view.radii[second] * along])  # at the surfaces
        (x1, y1, z1), (x2, y2, z2) = ends.round(3).tolist()
        shapes.append(((z1 + z2) / 2, {"x1": x1, "y1": -y1, "x2": x2, "y2": -y2, "width": _BOND}))
    for atom, (x, y, z) in enumerate(view.positions.round(3).tolist()):
        circle = {
            "cx": x,
            "cy": -y,
            "r": round(float(view.radii[atom]), 3),
            "fill": to_hex(colors[atom]),
            "atom": atom,
        }
        shapes.append((z, circle))
    return [shape for _, shape in sorted(shapes, key=lambda pair: pair[0])]
