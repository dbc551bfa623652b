"""The command ``data``: summary of a published data set or of a file, with warnings."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pyg_schnet.cli.options import add_keys, add_verbosity, group, make_parser
from pyg_schnet.io.console import out
from pyg_schnet.io.outputs import check_distinct, check_picture, check_replaceable

if TYPE_CHECKING:
    from pyg_schnet.datasets.base import MoleculeDataset
    from pyg_schnet.datasets.report.summary import Summary

# Published sets: the class, and its options besides root and source.
_PUBLISHED = {
    "qm9": ("QM9", ()),
    "md17": ("MD17", ("name", "energy_key", "forces_key")),
    "md22": ("MD22", ("name", "energy_key", "forces_key")),
    "iso17": ("ISO17", ("fold",)),
}
_OF_FILES = ("root", "energy_key", "forces_key", "stress_key", "units")
_OPTIONS = ("root", "name", "fold", "source", "energy_key", "forces_key", "stress_key", "units")


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser(
        "Show what a file holds: recognized labels and units, statistics, and warnings where something looks "
        "wrong. Published data sets are downloaded, with checksums, and shown with license and citation. "
        "Example: pyg-schnet data frames.extxyz\n"
        'pyg-schnet data frames.npz --units "Hartree, Bohr"\n'
        "pyg-schnet data md17 --name ethanol --root data/md17",
    )
    parser.add_argument(
        "name_or_file",
        nargs="+",
        metavar="NAME|FILE",
        help=f"{', '.join(_PUBLISHED)}; or files or a folder, as for data.path of train",
    )
    published = group(parser, "published data sets")
    published.add_argument("--root", type=str | None, help="folder of the downloaded and processed files")
    published.add_argument(
        "--name", type=str | None, help="molecule of md17 or md22, such as 'revised ethanol'"
    )
    published.add_argument("--fold", type=str | None, help="fold of iso17; 'reference' by default")
    published.add_argument("--source", type=str | None, help="local copy of the published file")
    add_keys(
        parser,
        'units of FILE, such as "kcal/mol", "Hartree, Bohr" or, for forces too, "Hartree, Hartree/Bohr"',
    )
    group(parser, "structures").add_argument(
        "--properties",
        type=str | None,
        metavar="NAMES",
        help="further values of structures or atoms to show, joined by commas, such as 'gap,charges'",
    )
    group(parser, "output").add_argument(
        "--plot",
        type=str | None,
        metavar="PICTURE",
        help="picture of energies, sizes and forces; ROOT/NAME.png by default for a published set",
    )
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Open a data set, print its summary, and draw it."""
    from pyg_schnet.datasets.report.summary import summarize
    from pyg_schnet.io.locks import locked
    from pyg_schnet.plots import plot_data_set

    if options.plot is not None:
        check_picture(options.plot)
        check_distinct({"FILE": options.name_or_file}, {"--plot": options.plot})
    published = len(options.name_or_file) == 1 and options.name_or_file[0] in _PUBLISHED
    dataset = _open_published(options) if published else _open_files(options)
    picture = options.plot or (_picture(options) if published else None)
    if picture is not None:
        check_replaceable(picture)
    summary = summarize(dataset, _properties(options))
    if picture is not None:
        with locked(picture, wait=True):
            plot_data_set(dataset, picture)
    if options.json:
        print(json.dumps(_as_dict(options, dataset, summary, picture)))
        return 0
    if options.quiet:
        return 0
    out.print(_recognized(dataset) if not published else _card(options.name_or_file[0]), soft_wrap=False)
    if published and options.source not in (None, "auto", "figshare", "sdf", "qm9pack"):
        warning = f"\nRead from {options.source}, not from the published file of the card above."
        out.print(Text(warning, style="bold"))
    out.print(Text("\nSummary", style="bold"))
    out.print(summary, soft_wrap=False)
    if picture is not None:
        out.print(f"\npicture: {picture}", markup=False, highlight=False)
    return 0


def _open_published(options: Namespace) -> MoleculeDataset:
    from pyg_schnet import datasets

    (name,) = options.name_or_file
    class_name, allowed = _PUBLISHED[name]
    _reject_options(options, ("root", "source", *allowed), name)
    make = getattr(datasets, class_name)
    if options.root is None:
        raise ValueError(f"`--root` must be given, a folder for the files of {name}, got none")
    if "name" in allowed and options.name is None:
        known = ", ".join(map(repr, make.names()))
        raise ValueError(f"`--name` must be given with {name}, one of {known}; got none")
    given = {key: options[key] for key in ("source", *allowed) if options[key] is not None}
    try:
        return make(options.root, **given)
    except (KeyboardInterrupt, OSError):
        for part in sorted(Path(options.root).glob("raw/*.part")):
            size = f"{part.stat().st_size:,} bytes"
            print(
                f"pyg-schnet: {part} is kept, {size}; the same command continues from there", file=sys.stderr
            )
        raise


def _open_files(options: Namespace) -> MoleculeDataset:
    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.io.spelling import nearest

    first, *others = options.name_or_file
    if not others and not Path(first).exists():
        known = ", ".join(_PUBLISHED)
        raise FileNotFoundError(
            f"{first}: no such file, and none of the published data sets {known}.{nearest(first, _PUBLISHED)}"
        )
    _reject_options(options, _OF_FILES, "files")
    given = {key: options[key] for key in _OF_FILES if options[key] is not None}
    path = options.name_or_file if others else first
    return AtomsDataset(path=path, properties=_properties(options), **given)


def _properties(options: Namespace) -> list[str]:
    return [] if options.properties is None else [name.strip() for name in options.properties.split(",")]


def _reject_options(options: Namespace, allowed: tuple[str, ...], what: str) -> None:
    for key in _OPTIONS:
        if options[key] is not None and key not in allowed:
            raise ValueError(f"`--{key}` must be left out with {what}, got {options[key]!r}")


def _picture(options: Namespace) -> str:
    """Return the path of the picture, named after the set and its part."""
    parts = (options.name_or_file[0], options.name, options.fold)
    stem = "_".join(re.sub(r"\W+", "_", part).strip("_") for part in parts if part is not None)
    return str(Path(options.root) / f"{stem}.png")


def _as_dict(
    options: Namespace, dataset: MoleculeDataset, summary: Summary, picture: str | None
) -> dict[str, Any]:
    units = getattr(dataset, "units", None)
    return {
        "data": options.name_or_file,
        "labels": getattr(dataset, "labels", None),
        "units": None if units is None else {k: v for k, v in asdict(units).items() if v is not None},
        "summary": summary.as_dict(),
        "picture": picture,
    }


def _card(name: str) -> Any:
    from pyg_schnet.datasets.cards.card import read_card

    return read_card(name)


def _recognized(dataset: Any) -> Table:
    """Return a table of labels and units as they were recognized in a file."""
    from ase.data import chemical_symbols

    from pyg_schnet.datasets.references import isolated_atoms

    table = Table.grid()
    table.add_row(Text(dataset.path, style="bold", overflow="fold"))
    grid = Table.grid(padding=(0, 2))
    for name, text in dataset.labels.items():
        unit = ", in the unit of the file" if name in dataset.keys.properties else ""
        grid.add_row(Text(name, style="dim"), Text(f"{text}{unit}"))
    units = dataset.units.sentence()
    if not dataset.is_processed:
        units += ", converted to eV and Å; set --units if this is wrong"
    if atoms := isolated_atoms(dataset):
        symbols = ", ".join(chemical_symbols[z] for z in sorted({int(dataset[n].z) for n in atoms}))
        grid.add_row(Text("isolated atoms", style="dim"), Text(f"{symbols}: atomic references for train"))
    grid.add_row(Text("units", style="dim"), Text(units))
    table.add_row(Padding(grid, (0, 0, 0, 2), expand=False))
    return table
