"""Parts of a section of the page: facts, tables, lists, figures and turnable structures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, TypeAlias

_NARROW = 500  # CSS pixels: half of the page


@dataclass(frozen=True)
class Facts:
    """Names and values, a line each."""

    rows: Mapping[str, str]
    kind: str = "facts"


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        header: Titles of the columns, with the unit where all rows have the same.
        rows: Cells of each row.
        numbers: Columns of numbers, which are aligned at the right.
        caption: Sentence above the table.
        folded: Line that unfolds the table; it is shown at once if empty.
        spanning: Number of leading columns in which an empty cell belongs to the cell above.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    caption: str = ""
    folded: str = ""
    spanning: int = 0
    kind: str = "table"

    def cells(self) -> Iterator[list[tuple[int, str, int]]]:
        """Yield the cells of each row: column, text, and number of rows that the cell spans."""
        for place, row in enumerate(self.rows):
            found = []
            for column, text in enumerate(row):
                if column >= self.spanning:
                    found.append((column, text, 1))
                elif text:
                    below = (other[column] for other in self.rows[place + 1 :])
                    found.append((column, text, 1 + sum(1 for _ in takewhile(lambda cell: not cell, below))))
            yield found


@dataclass(frozen=True)
class Notes:
    """Sentences, with a mark: "good", "warning", "bad" or "" for none."""

    sentences: Sequence[str]
    mark: str = ""
    kind: str = "notes"


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        svg: Inline SVG, which is not escaped.
        caption: What it shows, with units.
        width: Width in CSS pixels at which its text is as large as that of the page.
    """

    svg: str
    caption: str
    width: int
    kind: str = "figure"

    @property
    def is_narrow(self) -> bool:
        """Whether it fits beside the other parts of a section."""
        return self.width <= _NARROW


@dataclass(frozen=True)
class Structures:
    """Structures that can be turned.

    Attributes:
        views: Values for JSON by structure, see :mod:`pyg_schnet.report.molecule_view`.
        caption: What the colors show, with the unit.
    """

    views: Sequence[Mapping[str, Any]]
    caption: str
    kind: str = "structures"


Block: TypeAlias = Facts | Table | Notes | Figure | Structures


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        key: Name in links.
        title: Heading.
        shows: Sentence that states what is shown.
        blocks: Its parts.
        missing: Sentence that states what is missing and which command adds it.
    """

    key: str
    title: str
    shows: str
    blocks: Sequence[Block] = field(default=())
    missing: str = ""

    @property
    def has_narrow_figure(self) -> bool:
        """Whether a figure fits beside the other parts."""
        return any(isinstance(block, Figure) and block.is_narrow for block in self.blocks)
