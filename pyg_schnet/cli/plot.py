"""The command ``plot``: pictures of a run, of its errors and of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from pyg_schnet.cli.options import add_device, add_labeled_structures, add_verbosity, group, make_parser
from pyg_schnet.cli.pictures import PICTURES, Pictures
from pyg_schnet.cli.plot_inputs import PlotTarget
from pyg_schnet.io.console import out
from pyg_schnet.io.outputs import check_replaceable
from pyg_schnet.io.spelling import nearest

_FORMATS = ("png", "pdf", "svg")


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser(
        description="Draw pictures of a run for publication: its learning curve, its errors on the test "
        "structures, the filters of its interactions (figure 3 of the paper), the energies of atoms and the "
        "similarity of elements. For a checkpoint alone: filters and elements; with FILE also errors and "
        "atoms. "
        f"Pictures: {', '.join(PICTURES)}. "
        "Example: pyg-schnet plot RUN --only filters errors --format pdf",
    )
    add_labeled_structures(parser)
    parser.add_argument(
        "--only", nargs="+", type=str, metavar="NAME", help="pictures to draw; all by default"
    )
    output = group(parser, "output")
    output.add_argument(
        "--out", type=str | None, metavar="FOLDER", help="directory of the pictures; RUN/plots by default"
    )
    output.add_argument("--format", default="png", help="format of the pictures: png, pdf or svg")
    group(parser, "structures").add_argument(
        "--index",
        type=str | None,
        help="structures whose atoms are drawn: an index in the file from 0, or a slice such as ::100",
    )
    add_device(parser)
    output.add_argument("--overwrite", action="store_true", help="replace existing pictures")
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Draw a run or a checkpoint."""
    names = _names(options.only)
    if options.format not in _FORMATS:
        raise ValueError(f"`--format` must be png, pdf or svg, got {options.format!r}")
    if options.max_structures < 1:
        raise ValueError(f"`--max_structures` must be at least 1, got {options.max_structures}")
    if options.out == "":
        raise ValueError("`--out` must name a folder, got ''; '.' is the current one")
    target = PlotTarget.open(options.source)
    folder = Path(options.out) if options.out is not None else target.folder
    _check_folder(folder, names, options)
    pictures = Pictures.open(options, target, names)
    folder.mkdir(exist_ok=True)
    drawn = {}
    for name in names:
        if name not in pictures.left_out:
            path = folder / f"{name}.{options.format}"
            drawn[path] = pictures.draw(name, str(path))
    if options.json:
        print(json.dumps(_as_dict(pictures, drawn)))
    elif not options.quiet:
        _print_tables(pictures, drawn, folder)
    return 0


def _names(only: list[str] | None) -> list[str]:
    asked = [name for text in only or PICTURES for name in text.split(",")]
    for name in asked:
        if name not in PICTURES:
            raise ValueError(
                f"`--only` must name pictures, {', '.join(PICTURES)}; got {name!r}.{nearest(name, PICTURES)}"
            )
    return [name for name in PICTURES if name in asked]


def _check_folder(folder: Path, names: list[str], options: Namespace) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; `--out` must be a folder for the pictures")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"{folder.parent}: does not exist; create it first, for the pictures in {folder}"
        )
    for name in names:
        path = folder / f"{name}.{options.format}"
        check_replaceable(path)
        if path.exists() and not options.overwrite:
            raise FileExistsError(f"{path}: exists; use another --out, or --overwrite to replace it")


def _as_dict(pictures: Pictures, drawn: dict[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": str(pictures.target.model),
        "pictures": {path.stem: {"file": str(path), "shows": shows} for path, shows in drawn.items()},
        "left_out": pictures.left_out,
    }
    if pictures.evaluation is not None:
        quantiles, worst = _error_sizes(pictures)
        found["structures"] = pictures.structures.name if pictures.structures else None
        found["errors"] = pictures.evaluation.as_dict()
        found["quantiles"] = {
            name: {f"{100 * share:g}": value for share, value in values.items()}
            for name, values in quantiles.items()
        }
        found["worst"] = {
            name: [{"structure": number, "error": value} for number, value in values]
            for name, values in worst.items()
        }
    return found


def _error_sizes(
    pictures: Pictures,
) -> tuple[dict[str, dict[float, float]], dict[str, list[tuple[int, float]]]]:
    """Return quantiles of the errors, and the worst structures by their indices in the file."""
    from pyg_schnet.plots.errors import error_quantiles, worst_structures

    assert pictures.evaluation is not None
    assert pictures.structures is not None
    numbers = pictures.structures.numbers
    worst = {
        name: [(int(numbers[place]), error) for place, error in values]
        for name, values in worst_structures(pictures.evaluation).items()
    }
    return error_quantiles(pictures.evaluation), worst


def _print_tables(pictures: Pictures, drawn: dict[Path, str], folder: Path) -> None:
    table = Table("picture", "shows", title=f"Pictures in {folder}", title_justify="left")
    for path, shows in drawn.items():
        table.add_row(path.name, shows)
    for name, reason in pictures.left_out.items():
        table.add_row(name, f"left out: {reason}")
    out.print(table, soft_wrap=False)
    if pictures.structures is not None:
        out.print(f"structures: {pictures.structures.name}", markup=False, highlight=False)
    if pictures.evaluation is None:
        return
    from pyg_schnet.plots.errors import QUANTILES, shown_unit

    quantiles, worst = _error_sizes(pictures)
    table = Table("absolute errors below", *(f"{100 * share:g} %" for share in QUANTILES), "unit")
    for name, values in quantiles.items():
        unit, factor = shown_unit(name, pictures.evaluation)
        table.add_row(name, *(_short(factor * value) for value in values.values()), unit)
    out.print(table, soft_wrap=False)
    for name, values in worst.items():
        unit, factor = shown_unit(name, pictures.evaluation)
        what = {"energy": "energies", "forces": "forces on an atom"}.get(name, name)
        text = ", ".join(f"{number} ({_short(factor * error)})" for number, error in values)
        out.print(f"worst {what}: structures {text} {unit}", markup=False, highlight=False)


def _short(error: float) -> str:
    """Format an error with three significant digits, or all digits before the decimal point."""
    return f"{error:,.0f}" if error >= 100 else f"{error:.3g}"
