"""Tables and picture of speed: from benchmarks/results/speed.csv to docs/benchmarks.md and README.md.

    python benchmarks/speed_pages.py

The file has the medians of `python benchmarks/speed.py`, in ms and MB, as they were measured in one session.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.pop(0)  # this folder, whose `profile.py` the standard library would take for its own
sys.path.insert(0, str(Path(__file__).parents[1]))

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyg_schnet.plots.style import BLUE, GRAY, ORANGE, PAGE, VERMILION, finish, paper, tidy

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "speed.csv"
PICTURE = RESULTS.with_name("speed.png")
PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
_SIDES = {  # column: title, color, marker
    "pyg": ("PyG", VERMILION, "s"),
    "schnetpack": ("SchNetPack", ORANGE, "^"),
    "compiled": ("the faster of them, compiled", GRAY, "D"),
    "ours": ("pyg_schnet", BLUE, "o"),
}

Row = dict[str, str]


def main() -> None:
    """Write the tables between their markers, and draw the picture."""
    rows = read()
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8"), rows), encoding="utf-8")
    finish(draw(rows), PICTURE)


def read() -> list[Row]:
    """Read the measured times."""
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def with_tables(text: str, rows: Sequence[Row]) -> str:
    """Replace what stands between ``<!-- speed -->`` or ``<!-- speed-summary -->`` and ``<!-- end -->``."""
    tables: dict[str, Callable[[], str]] = {
        "speed": lambda: table(rows),
        "speed-summary": lambda: table([row for row in rows if row["in_readme"] == "yes"]),
    }
    return re.sub(
        rf"<!-- ({'|'.join(tables)}) -->\n.*?<!-- end -->",
        lambda mark: f"<!-- {mark[1]} -->\n{tables[mark[1]]()}<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def table(rows: Sequence[Row]) -> str:
    """Format times in Markdown, with the factors by which ours are shorter."""
    lines = [
        "| batch of 32 | PyG | SchNetPack | compiled | pyg_schnet | faster (than compiled) |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        cells = [row["task"], *(_cell(row, side) for side in _SIDES), _factors(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row, side: str) -> str:
    if not row[f"{side}_ms"]:
        return "–"
    memory = row.get(f"{side}_mb")
    return f"{row[f'{side}_ms']} ms" + (f", {memory} MB" if memory else "")


def _factors(row: Row) -> str:
    ours, peers = float(row["ours_ms"]), min(float(row["pyg_ms"]), float(row["schnetpack_ms"]))
    factor = _digits(peers / ours)
    return f"{factor} ({_digits(float(row['compiled_ms']) / ours)})" if row["compiled_ms"] else factor


def _digits(factor: float) -> str:
    return f"{factor:.0f}×" if factor >= 10 else f"{factor:.1f}×"


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the times of all sides on a logarithmic axis, with the factors beside ours."""
    with paper():
        figure = Figure(figsize=(PAGE, 2.8), layout="constrained")
        _draw(figure.subplots(), rows)
        figure.legend(loc="outside upper center", ncols=4)
    return figure


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    for title, color, marker in _SIDES.values():
        axes.scatter([], [], s=22, color=color, marker=marker, label=title)
    for place, row in enumerate(rows):
        times = {side: float(row[f"{side}_ms"]) for side in _SIDES if row[f"{side}_ms"]}
        axes.plot(
            [min(times.values()), max(times.values())], [place] * 2, color=GRAY, lw=1, alpha=0.5, zorder=1
        )
        for side, ms in times.items():
            _, color, marker = _SIDES[side]
            axes.scatter(ms, place, s=22, color=color, marker=marker, linewidth=0, zorder=2)
        factor = _factors(row).partition(" ")[0]
        axes.annotate(
            factor, (times["ours"], place), (-7, 0), textcoords="offset points", ha="right", va="center",
            color=BLUE,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(0.03, 600)
    axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
    axes.set_yticks(range(len(rows)), [row["short"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time (ms), median")
    tidy(axes)
    axes.grid(axis="y", visible=False)


if __name__ == "__main__":
    main()
