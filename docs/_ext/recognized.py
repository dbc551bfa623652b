"""The directive ``recognized``: tables of the names and units that readers recognize, from the code.

``labels`` are the names of energies, forces and stresses; ``units`` all units; ``statements`` the keys by
which files state their units; ``layouts`` the arrays of published npz and HDF5 files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from pyg_schnet.io.formats import arrays, labels, stated_units
from pyg_schnet.io.units import ENERGY, LENGTH, PRESSURE

Row = tuple[str, ...]


def label_rows() -> Iterable[Row]:
    """Yield a row for each kind of label: names, and where structures of ASE hold them."""
    places = {"energy": "info", "forces": "arrays", "stress": "info"}
    for kind, names in labels.NAMES.items():
        yield kind, _code([*names, *labels.SHORT_NAMES[kind]]), f"`calculator`, `{places[kind]}`"


def unit_rows() -> Iterable[Row]:
    """Yield a row for each dimension: the names of its units."""
    yield "energy", _code(ENERGY)
    yield "length", _code(LENGTH)
    yield "force", "energy per length, such as `Hartree/Bohr` or `kcal/mol/Å`"
    yield "stress", f"{_code(PRESSURE)}, or energy per length cubed, such as `eV/Å^3`"


def statement_rows() -> Iterable[Row]:
    """Yield a row for each quantity: the keys that state its unit."""
    quantities = {"": "all, such as `Hartree, Bohr`", "length": "positions and cell"}
    for pattern, quantity in stated_units.KEYS.items():
        alternatives, is_group, end = pattern.replace("?", "").strip("(").rpartition(")")
        names = (f"{name}{end}" for name in alternatives.split("|")) if is_group else [end]
        yield quantities.get(quantity, quantity), _code(names)


def layout_rows() -> Iterable[Row]:
    """Yield a row for each published layout: its arrays and their units."""
    for name, layout in arrays.PUBLISHED.items():
        pairs = ", ".join(
            f"`{energy}`" + (f" with `{forces}`" if forces else "")
            for energy, forces in layout.partners.items()
        )
        units = "as stated in the file" if layout.units is None else layout.units.sentence()
        yield name, _code([layout.numbers, layout.positions]), pairs, units


_TABLES = {
    "labels": (("kind", "names", "in structures of ASE"), label_rows),
    "units": (("quantity", "units"), unit_rows),
    "statements": (("unit of", "keys"), statement_rows),
    "layouts": (
        ("layout", "atomic numbers and positions", "energies with their forces", "units"),
        layout_rows,
    ),
}


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class Recognized(SphinxDirective):
    """A table of recognized names; its argument is one of ``_TABLES``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table, written in Markdown and parsed as the page is."""
        head, rows = _TABLES[self.arguments[0]]
        lines = [head, ("---",) * len(head), *rows()]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return self.parse_text_to_nodes(text)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("recognized", Recognized)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
