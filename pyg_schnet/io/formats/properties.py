"""Properties: further values of structures or atoms under any name, such as gaps and charges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pyg_schnet.io.formats.frames import Frames

STRUCTURE, ATOM = "structure", "atom"  # what a property has a value for
_VECTOR = "length of the vector"


def is_dipole(name: str) -> bool:
    """Return whether a property is a dipole moment by its name, of which the length is read."""
    return "dipole" in name.lower()


def description(name: str, section: str, is_vector: bool) -> str:
    """Return the source of a property, for instance ``"'dipole' (calculator, length of the vector)"``."""
    notes = ", ".join(filter(None, (section, _VECTOR if is_vector else "")))
    return f"'{name}' ({notes})" if notes else f"'{name}'"


def is_vector(value: Any, name: str) -> bool:
    """Return whether the value of a structure is the vector of a dipole moment."""
    return is_dipole(name) and np.shape(value) in ((3,), (1, 3))


def value_of(value: Any, atoms: int, name: str) -> np.ndarray | None:
    """Convert the value of a structure to float64.

    Args:
        value: A number, a number for each atom, or the vector of a dipole moment.
        atoms: Number of atoms of the structure.
        name: Name of the property.

    Returns:
        Shape ``()`` or, for a value of each of several atoms, ``(atoms,)``; ``None`` if it is something else.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        return None
    if array.dtype.kind not in "fiu":
        return None
    array = array.astype(np.float64)
    if is_vector(array, name):
        return np.asarray(np.linalg.norm(array))
    if array.size == 1:
        return array.reshape(())
    return array.reshape(atoms) if array.shape in ((atoms,), (atoms, 1)) else None


def values_of(
    array: np.ndarray, name: str, sites: tuple[int, ...], real: np.ndarray | None, frames: int
) -> np.ndarray | None:
    """Convert the array of all structures to a copy in float64.

    Args:
        array: A number for each structure or atom, or the vectors of dipole moments.
        name: Name of the property.
        sites: Shape of the positions without the last dimension.
        real: Mask of atoms without padding, of shape ``sites``; ``None`` without padding.
        frames: Number of structures.

    Returns:
        Shape ``(frames,)`` or ``(atoms,)``; ``None`` if the shape is another.
    """
    if array.dtype.kind not in "fiu":
        return None
    if is_dipole(name) and array.shape in ((frames, 3), (frames, 1, 3)):
        return np.linalg.norm(array.reshape(frames, 3).astype(np.float64), axis=1)
    if array.shape in ((frames,), (frames, 1)) or (frames == 1 and array.shape == ()):
        return np.array(array.reshape(frames), dtype=np.float64)
    if array.shape not in (sites, (*sites, 1)):
        return None
    array = array.reshape(sites)
    return np.array(array.reshape(-1) if real is None else array[real], dtype=np.float64)


def possible(shapes: Mapping[str, tuple[int, ...]], sites: tuple[int, ...], frames: int) -> dict[str, str]:
    """Return which arrays could be properties by their shapes, each with ``"structure"`` or ``"atom"``.

    Args:
        shapes: Shapes of numeric arrays by name.
        sites: Shape of the positions without the last dimension.
        frames: Number of structures.
    """
    kinds: dict[str, str] = {}
    for name, shape in shapes.items():
        vectors = ((frames, 3), (frames, 1, 3)) if is_dipole(name) else ()
        if shape in ((frames,), (frames, 1), *vectors):
            kinds[name] = STRUCTURE
        elif shape in (sites, (*sites, 1)):
            kinds[name] = ATOM
    return kinds


def concatenated(values: Sequence[np.ndarray | None], counts: np.ndarray) -> np.ndarray:
    """Concatenate the values of structures of :func:`value_of`; ``None`` becomes NaN.

    Args:
        values: One for each structure.
        counts: Number of atoms of each structure, shape ``(frames,)``.

    Returns:
        Shape ``(frames,)`` or, if any structure has a value for each of several atoms, ``(atoms,)``.
    """
    if not any(value is not None and value.ndim for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    pairs = zip(values, counts, strict=True)
    return np.concatenate([np.full(n, np.nan) if value is None else value.reshape(-1) for value, n in pairs])


def complete(pieces: Iterable[Frames], names: Sequence[str], source: str) -> Iterator[Frames]:
    """Add NaN for the properties that some pieces lack.

    Pieces are held back until the shape of each property is known.

    Args:
        pieces: Frames with some of the properties.
        names: Names of the properties.
        source: Name of the files, for error messages.

    Raises:
        ValueError: If no structure has a property, or it is of structures in one piece and of atoms in
            another.
    """
    held: list[Frames] = []
    kinds: dict[str, str] = {}
    for piece in pieces:
        for name, values in piece.properties.items():
            own = kind_of_values(values, piece)
            if own is not None and kinds.setdefault(name, own) != own:
                raise ValueError(
                    f"{source}: property '{name}' must have a value for each {kinds[name]} everywhere, got "
                    f"one for each {own} in some structures; read the files apart"
                )
        held.append(piece)
        if len(kinds) == len(names):
            for one in held:
                yield _with_all(one, kinds)
            held.clear()
    found = {name for piece in held for name in piece.properties} | kinds.keys()
    missing = next((name for name in names if name not in found), None) if held else None
    if missing is not None:
        available = {name: kind for piece in held for name, kind in piece.available.items()}
        raise ValueError(
            f"{source}: no structure has a property '{missing}', but {listing(available)}; choose another, "
            "or leave it out of `properties`"
        )
    for one in held:  # structures of one atom only, in which both shapes are equal
        yield _with_all(one, {name: kinds.get(name, STRUCTURE) for name in names})


def kind_of_values(values: np.ndarray, frames: Frames) -> str | None:
    """Return what a property has a value for; ``None`` if all structures have one atom."""
    if len(frames.numbers) == len(frames):
        return None
    return ATOM if len(values) == len(frames.numbers) else STRUCTURE


def listing(available: Mapping[str, str]) -> str:
    """List the names of possible properties, for error messages."""
    texts = []
    for kind in (STRUCTURE, ATOM):
        if names := sorted(name for name, own in available.items() if own == kind):
            article = "an" if kind == ATOM else "a"
            texts.append(f"for {article} {kind}: {', '.join(map(repr, names))}")
    return "; ".join(texts) or "nothing that could be one"


def _with_all(frames: Frames, kinds: Mapping[str, str]) -> Frames:
    size = {STRUCTURE: len(frames), ATOM: len(frames.numbers)}
    own = {
        name: frames.properties[name] if name in frames.properties else np.full(size[kind], np.nan)
        for name, kind in kinds.items()
    }
    return replace(frames, properties=own)
