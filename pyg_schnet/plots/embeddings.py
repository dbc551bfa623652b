"""Picture of the similarity of a SchNet's embeddings of elements."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyg_schnet.graph.validation import check_atomic_numbers
from pyg_schnet.nn import SchNet
from pyg_schnet.plots.style import (
    BLUE,
    DIVERGING,
    PAGE,
    SMALL,
    element_styles,
    finish,
    letter,
    paper,
    readable_on,
    tidy,
)

FEWEST_FOR_A_MAP = 4  # three points always are in a plane
_MOST_NUMBERS = 10  # elements with numbers and colors; more are not readable
_MOST_LABELS = 25  # of 7 points; more labels are smaller
_HEIGHT = 3.0  # inches


def embedding_similarity(model: SchNet, elements: Sequence[int]) -> Tensor:
    """Compute the cosines of the angles between embeddings, ``(elements, elements)``, 1 for the same."""
    vectors = torch.nn.functional.normalize(_embeddings(model, elements))
    return vectors @ vectors.T


def embedding_distance(model: SchNet, elements: Sequence[int]) -> Tensor:
    """Compute Euclidean distances of embeddings, ``(elements, elements)``, without unit."""
    vectors = _embeddings(model, elements)
    return torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")


def embedding_map(model: SchNet, elements: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Project embeddings on their first two principal components.

    Returns:
        Coordinates, ``(elements, 2)``, each column with its largest value positive; and the share of the
        variance that each explains, ``(2,)``.
    """
    vectors = _embeddings(model, elements)
    left, values, _ = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    coordinates = (left * values)[:, :2]
    farthest = coordinates.gather(0, coordinates.abs().argmax(dim=0, keepdim=True))
    share = values.square() / values.square().sum().clamp(min=1e-300)
    return coordinates * torch.where(farthest < 0, -1.0, 1.0), share[:2]


def plot_elements(model: SchNet, elements: Sequence[int], path: str | os.PathLike | None = None) -> Figure:
    r"""Draw the similarity of the embeddings :math:`a_Z` of elements, two journal columns wide.

    Left: cosine similarity. Right: map of the elements by their first two principal components, with the
    share of variance that they explain; for two or three elements the distances instead. Embeddings of
    elements that were absent from training are random numbers: omit these.

    Args:
        model: Any SchNet.
        elements: Atomic numbers of the training data, two or more, see
            :attr:`Potential.elements <pyg_schnet.Potential.elements>`.
        path: Picture to write, if any.

    Returns:
        The figure.

    Raises:
        ValueError: If there are fewer than two elements, or an atomic number is invalid.

    Source:
        Schütt et al., NeurIPS 2017, equation (3) (arXiv:1706.08566); such maps are in Schütt et al.,
        J. Chem. Phys. 148, 241722 (2018), figure 6.
    """
    elements = sorted(set(elements))
    check_atomic_numbers(torch.tensor(elements, dtype=torch.long), "elements")
    if len(elements) < 2:
        raise ValueError(f"`elements` must be two or more, to be compared, got {len(elements)}")
    with paper():
        figure = Figure(figsize=(PAGE, _HEIGHT), layout="constrained")
        left, right = figure.subplots(1, 2)
        symbols = [chemical_symbols[z] for z in elements]
        similarity = embedding_similarity(model, elements)
        look = {"cmap": DIVERGING, "norm": Normalize(-1, 1)}
        _draw_matrix(left, similarity, symbols, "cosine similarity (no unit)", look)
        if len(elements) < FEWEST_FOR_A_MAP:
            distance = embedding_distance(model, elements)
            look = {"cmap": "viridis_r", "norm": Normalize(0, max(float(distance.max()), 1e-12))}
            _draw_matrix(right, distance, symbols, "distance (no unit)", look)
        else:
            _draw_map(right, model, elements)
        letter(left, "a")
        letter(right, "b")
        return finish(figure, path)


def _draw_matrix(axes: Axes, matrix: Tensor, symbols: list[str], label: str, look: dict) -> None:
    values = matrix.numpy()
    image = axes.imshow(values, **look)
    places = range(len(symbols))
    many = len(symbols) > _MOST_LABELS
    size = SMALL * _MOST_LABELS / len(symbols) if many else SMALL
    axes.set_xticks(places, symbols, fontsize=size, rotation=90 if many else 0)
    axes.set_yticks(places, symbols, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(symbols) <= _MOST_NUMBERS:
        for row, column in np.ndindex(values.shape):
            color = readable_on(image.cmap(image.norm(values[row, column])))
            text = f"{values[row, column]:.2f}".replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=SMALL)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, aspect=20)
    bar.outline.set_linewidth(0.4)
    bar.locator = MaxNLocator(5)
    bar.set_label(label)


def _draw_map(axes: Axes, model: SchNet, elements: list[int]) -> None:
    coordinates, share = embedding_map(model, elements)
    few = len(elements) <= _MOST_NUMBERS
    for (name, color), (x, y) in zip(element_styles(elements).values(), coordinates.tolist(), strict=True):
        color = color if few else "black"  # there are not enough colors
        axes.plot([x], [y], "o", color=color if few else BLUE, markersize=4 if few else 2)
        shift = (4, 3) if few else (2, 1)
        axes.annotate(name, (x, y), shift, textcoords="offset points", color=color, fontsize=SMALL + few)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.15)
    for axis, part in zip((axes.xaxis, axes.yaxis), share.tolist(), strict=True):
        axis.set_major_locator(MaxNLocator(5))
        number = 1 if axis is axes.xaxis else 2
        axis.set_label_text(f"component {number} (no unit; {100 * part:.0f} % of variance)")
    tidy(axes)


def _embeddings(model: SchNet, elements: Sequence[int]) -> Tensor:
    return model.embedding.weight.detach().double().cpu()[list(elements)]
