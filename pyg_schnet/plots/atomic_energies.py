"""Picture of the atomic contributions to the energy, drawn on the molecule."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from pyg_schnet.plots.structure_view import View
from pyg_schnet.plots.style import BACKGROUND, COLUMN, DIVERGING, INK, PAGE, SMALL, finish, paper, readable_on

MAX_STRUCTURES = 12  # per picture
_TALLEST = 3.4  # inches per structure
_BOND, _HALO = 0.2, 0.28  # Å, widths
_HALVES = np.array([-0.5, 0.5])
_LEAST_LABEL = 4.0  # points; smaller labels are not on the atom but beside it
_FEW_ATOMS = 40  # with labels beside atoms
_WIDTH, _HEIGHT = 0.62, 0.75  # of a character, over the size of the font
_ANGLES = np.radians(np.arange(0, 360, 15))


def plot_atomic_energies(
    structures: Sequence[Atoms],
    energies: Sequence[np.ndarray],
    path: str | os.PathLike | None = None,
    means: Mapping[int, float] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw molecules with atoms colored by their contributions to the energy.

    Colors are energies in eV relative to the mean of the element: white is the mean, red above, blue below.
    Only their sum has a physical meaning; its partition depends on the potential. Structures are rotated such
    that few atoms are hidden (molecules by their principal axes, crystals by their lattice); nearer atoms
    cover those behind. Bonds connect atoms closer than 1.25 times the sum of their covalent radii. Atoms are
    labeled with element and index from 0: on their visible part; beside them, with a line, if there is no
    space on it. In structures of more than 40 atoms, labels without space on the atom are omitted.

    Args:
        structures: 1 to 12 structures, drawn in one row on the same scale.
        energies: Energies of their atoms, in eV, see :meth:`~pyg_schnet.Potential.atomic_energies`.
        path: Picture to write, if any: one journal column wide for one structure, otherwise two.
        means: Mean energy in eV by atomic number; by default of all atoms in ``structures``.
        titles: Titles of the structures; none by default.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no structures, or more than 12.

    Source:
        Covalent radii: Cordero et al., Dalton Trans. 2008, 2832, as in ASE.
    """
    if not 1 <= len(structures) <= MAX_STRUCTURES:
        raise ValueError(
            f"`structures` must be 1 to {MAX_STRUCTURES}, which fit a picture, got {len(structures)}"
        )
    relative = relative_energies(structures, energies, means)
    top = max(float(np.abs(np.concatenate(relative)).max()), 1e-6)
    views = [View.of(atoms) for atoms in structures]
    reach = np.max([np.ptp(view.box(), axis=0) for view in views], axis=0)  # right and up
    columns = 2 if len(structures) == 4 else min(3, len(structures))
    rows = -(-len(structures) // columns)
    width = COLUMN if columns == 1 else PAGE
    height = min(0.85 * width / columns * np.clip(reach[1] / reach[0], 0.35, 1.2), _TALLEST)
    with paper():
        figure = Figure(figsize=(width, rows * height + 0.6), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for one, view in zip(axes, views, strict=False):
            middle = view.box().mean(axis=0)
            one.set(xlim=middle[0] + reach[0] * _HALVES, ylim=middle[1] + reach[1] * _HALVES, aspect="equal")
        for one, title in zip(axes, titles or (), strict=False):
            one.set_title(title, fontsize=SMALL)
        for one in axes:
            one.set_axis_off()
        colors = ScalarMappable(Normalize(-top, top), DIVERGING)
        shrink = 0.7 if columns == 1 else 0.5
        below = {"orientation": "horizontal", "shrink": shrink, "aspect": 30, "pad": 0.02}
        bar = figure.colorbar(colors, ax=list(axes), **below)
        bar.set_label("energy of the atom − mean of its element (eV)")
        figure.draw_without_rendering()  # determines the size of an Å, of lines and labels
        for one, atoms, view, values in zip(axes, structures, views, relative, strict=False):
            _draw(one, atoms, view, np.asarray(colors.norm(values)))
        return finish(figure, path)


def relative_energies(
    structures: Sequence[Atoms], energies: Sequence[np.ndarray], means: Mapping[int, float] | None = None
) -> list[np.ndarray]:
    """Return energies of atoms relative to the mean of their element, given or of all structures."""
    if means is None:
        means = element_means(structures, energies)
    return [
        np.asarray(values) - np.array([means[z] for z in atoms.numbers.tolist()])
        for atoms, values in zip(structures, energies, strict=True)
    ]


def element_means(structures: Sequence[Atoms], energies: Sequence[np.ndarray]) -> dict[int, float]:
    """Return the mean energy of atoms by atomic number."""
    z, values = np.concatenate([atoms.numbers for atoms in structures]), np.concatenate(list(energies))
    return {int(one): float(values[z == one].mean()) for one in np.unique(z)}


def _draw(axes: Axes, atoms: Atoms, view: View, shades: np.ndarray) -> None:
    """Draw a structure; ``shades`` are positions in the color map, from 0 to 1."""
    scale = 72 / axes.figure.dpi * axes.transData.get_matrix()[0, 0]  # points an Å
    for (x1, y1, _), (x2, y2, _) in view.cell:
        axes.plot([x1, x2], [y1, y2], color="#999999", linewidth=0.6, zorder=1)
    layer = 2 + 2 * view.positions[:, 2].argsort(kind="stable").argsort()  # those behind first
    for first, second in view.bonds:
        x, y, _ = view.positions[[first, second]].T
        under = min(layer[first], layer[second])
        axes.plot(x, y, color=BACKGROUND, linewidth=_HALO * scale, zorder=under - 0.5, solid_capstyle="butt")
        axes.plot(x, y, color="#7f7f7f", linewidth=_BOND * scale, zorder=under - 0.4)
    shown = [colormaps[DIVERGING](float(shade)) for shade in shades]
    edge = {"edgecolor": "#333333", "linewidth": min(0.6, 0.04 * scale)}
    for number, (x, y, _) in enumerate(view.positions):
        face = {"facecolor": shown[number], "zorder": layer[number]}
        axes.add_patch(Circle((x, y), view.radii[number], **face, **edge))
    hidden = []  # labels, with the circles of their atoms
    for number, z in enumerate(atoms.numbers):
        label = f"{chemical_symbols[z]}{number}"
        found = _place_on_atom(view, number, len(label), scale)
        if found is None:
            hidden.append((label, view.positions[number, :2], float(view.radii[number])))
            continue
        place, size = found
        look = {"ha": "center", "va": "center", "color": readable_on(shown[number]), "fontsize": size}
        axes.text(float(place[0]), float(place[1]), label, zorder=layer[number] + 0.1, **look)
    if len(atoms) <= _FEW_ATOMS:
        _draw_beside(axes, view, hidden, scale)


def _place_on_atom(view: View, number: int, letters: int, scale: float) -> tuple[np.ndarray, float] | None:
    """Return center and size of a label on the visible part of an atom; ``None`` if it does not fit."""
    middle, radius = view.positions[number, :2], float(view.radii[number])
    depth = view.positions[:, 2].argsort(kind="stable").argsort()
    nearer = depth > depth[number]
    circles, radii = view.positions[nearer, :2], view.radii[nearer]
    largest = min(SMALL, 2 * radius * scale / (_HEIGHT * letters))
    for size in (largest, 0.8 * largest):
        half = _half_box(letters, size, scale)
        for distance, angle in product((0, 0.2 * radius, 0.4 * radius, 0.6 * radius), _ANGLES):
            place = middle + distance * np.array([np.cos(angle), np.sin(angle)])
            is_inside = np.hypot(*(np.abs(place - middle) + 0.7 * half)) < radius or distance == 0
            if size >= _LEAST_LABEL and is_inside and not _overlaps(place, half, circles, radii).any():
                return place, size
    return None


def _draw_beside(
    axes: Axes, view: View, labels: Sequence[tuple[str, np.ndarray, float]], scale: float
) -> None:
    """Draw labels outside all atoms, each with a line to its atom."""
    taken = np.empty((0, 2))
    for label, middle, radius in labels:
        half = _half_box(len(label), SMALL, scale)
        place = middle
        for distance, angle in product(np.arange(0.6, 3.0, 0.2), _ANGLES):
            place = middle + distance * np.array([np.cos(angle), np.sin(angle)])
            is_free = not _overlaps(place, 1.1 * half, view.positions[:, :2], view.radii).any()
            if is_free and (np.abs(taken - place) > 2 * half).any(axis=1).all():
                break
        taken = np.vstack([taken, place])
        line = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
        look = {"ha": "center", "va": "center", "fontsize": SMALL, "zorder": 1e3, "arrowprops": line}
        rim = middle + 0.8 * radius * (place - middle) / np.linalg.norm(place - middle)
        axes.annotate(
            label, tuple(rim), tuple(place), bbox={"pad": 0.5, "facecolor": "none", "linewidth": 0}, **look
        )


def _half_box(letters: int, size: float, scale: float) -> np.ndarray:
    """Return half the width and the height of a label, in Å."""
    return np.array([_WIDTH * letters, _HEIGHT]) * size / scale / 2


def _overlaps(place: np.ndarray, half: np.ndarray, circles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return which circles overlap with a box."""
    gap = np.maximum(np.abs(circles - place) - half, 0)
    return np.hypot(*gap.T) < radii
