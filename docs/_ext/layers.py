"""The directive ``layers``: a picture of the layers of packages, from the contract in pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from html import escape
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
WIDTH, GAP, ROW_GAP, MARGIN = 760, 12, 30, 48  # pixels; the margin is that of the arrow beside the layers
LETTER, LINE = 6.1, 16  # width and height of the small letters
STYLE = """
.layers { overflow-x: auto; margin-bottom: 1rem; }
.layers svg { display: block; width: 100%; min-width: 640px; font-family: inherit; }
.layers rect { fill: var(--color-background-secondary, #f8f9fb); }
.layers rect { stroke: var(--color-foreground-border, #878787); }
.layers text { fill: var(--color-foreground-primary, #222); font-size: 12px; }
.layers .name { font-weight: 600; font-size: 15px; font-family: var(--font-stack--monospace, monospace); }
.layers path { fill: none; stroke: var(--color-foreground-secondary, #555); stroke-width: 1.4; }
.layers .exception { stroke: var(--color-brand-primary, #0a4bff); stroke-dasharray: 5 4; }
.layers marker path { stroke: none; fill: var(--color-foreground-secondary, #555); }
.layers marker.exception path { stroke: none; fill: var(--color-brand-primary, #0a4bff); }
"""


class Box(NamedTuple):
    """A package in the picture.

    Attributes:
        name: Name of the package.
        lines: Its docstring, wrapped.
        x: Left edge in pixels.
        y: Upper edge in pixels.
        width: Width in pixels.
        height: Height in pixels.
    """

    name: str
    lines: list[str]
    x: float
    y: float
    width: float
    height: float


def contract(text: str) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Return the layers of the contract, the highest first, and the exceptions as pairs of packages.

    Args:
        text: Content of pyproject.toml.
    """
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    (own,) = (one for one in contracts if one["type"] == "layers")
    layers = [[_package(name) for name in row.split(" : ")] for row in own["layers"]]
    pairs = (line.split(" -> ") for line in own["ignore_imports"])
    exceptions = dict.fromkeys((_package(first), _package(second)) for first, second in pairs)
    return layers, list(exceptions)


def sentence(package: str, root: Path = ROOT) -> str:
    """Return the first sentence of the docstring of a package."""
    source = (root / "pyg_schnet" / package / "__init__.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    first = re.split(r"\n\n|\.(?:\s|$)", docstring, maxsplit=1)[0]
    return " ".join(first.replace("``", "").split())


def boxes(layers: list[list[str]]) -> list[list[Box]]:
    """Place the packages of each layer side by side, the highest layer at the top."""
    placed, y = [], 2.0
    for row in layers:
        width = (WIDTH - MARGIN - GAP * (len(row) - 1)) / len(row)
        texts = [textwrap.wrap(sentence(name), int((width - 20) / LETTER)) for name in row]
        height = 42 + LINE * max(map(len, texts))
        starts = [2 + number * (width + GAP) for number in range(len(row))]
        placed.append(
            [Box(name, text, x, y, width, height) for name, text, x in zip(row, texts, starts, strict=True)]
        )
        y += height + ROW_GAP
    return placed


def draw(text: str) -> str:
    """Return the picture as SVG, in the colors of the page.

    Args:
        text: Content of pyproject.toml.
    """
    layers, exceptions = contract(text)
    rows = boxes(layers)
    place = {box.name: box for row in rows for box in row}
    end = rows[-1][0].y + rows[-1][0].height
    beside = f"translate({WIDTH - 12} {end / 2:.0f}) rotate(90)"
    label = "; ".join(" and ".join(row) for row in layers)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {end + 2:.0f}" role="img" aria-label="Layers, from the top: {label}">',
        f"<style>{STYLE}</style><defs>{_arrowhead('down')}{_arrowhead('exception')}</defs>",
        *(_draw_box(box) for row in rows for box in row),
        *(_draw_exception(place[first], place[second]) for first, second in exceptions),
        f'<path d="M {WIDTH - 28} 4 V {end - 6:.0f}" marker-end="url(#layers-down)"/>',
        f'<text transform="{beside}" text-anchor="middle">imports</text>',
        "</svg>",
    ]
    return f'<div class="layers">{"".join(parts)}</div>'


def _draw_box(box: Box) -> str:
    x, y = box.x + 10, box.y + 24
    lines = (
        f'<text x="{x:.1f}" y="{y + 20 + LINE * number:.1f}">{escape(line)}</text>'
        for number, line in enumerate(box.lines)
    )
    rect = f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="6"/>'
    return f'{rect}<text class="name" x="{x:.1f}" y="{y:.1f}">{box.name}</text>{"".join(lines)}'


def _draw_exception(lower: Box, upper: Box) -> str:
    """Draw a dashed arrow from the top of a box to the bottom of one above it."""
    start, end = lower.x + lower.width / 2, upper.x + upper.width / 2
    top, bottom = upper.y + upper.height + 6, lower.y
    middle = (top + bottom) / 2
    curve = f"{start:.1f} {middle - 6:.1f} {end:.1f} {middle + 10:.1f} {end:.1f} {top:.1f}"
    path = f"M {start:.1f} {bottom:.1f} C {curve}"
    return f'<path class="exception" d="{path}" marker-end="url(#layers-exception)"/>'


def _arrowhead(kind: str) -> str:
    return (
        f'<marker id="layers-{kind}" class="{kind}" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M 0 0 L 8 4 L 0 8 z"/></marker>'
    )


def _package(module: str) -> str:
    return module.split(".")[1]


def setup(app) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    from docutils import nodes  # only here, so that tests draw without Sphinx
    from sphinx.util.docutils import SphinxDirective

    class Layers(SphinxDirective):
        """Insert the picture, which is drawn again when the contract changes."""

        def run(self) -> list[nodes.Node]:
            path = ROOT / "pyproject.toml"
            self.env.note_dependency(str(path))
            return [nodes.raw("", draw(path.read_text(encoding="utf-8")), format="html")]

    app.add_directive("layers", Layers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
