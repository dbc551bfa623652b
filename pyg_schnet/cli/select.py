"""The command ``select``: structures to label next in active learning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_batch_size, add_files, add_verbosity, with_model
from pyg_schnet.io.console import out
from pyg_schnet.io.outputs import check_distinct, check_output, check_stores_many

if TYPE_CHECKING:
    from ase import Atoms


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Select the structures on whose forces several models disagree most, to be labeled in the next round "
        "of active learning. "
        "Example: pyg-schnet select A,B,C pool.xyz chosen.xyz --k 100",
    )
    add_files(parser)
    parser.add_argument("--k", type=int, default=100, help="number of structures to select")
    add_batch_size(parser)
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Select structures."""
    from pyg_schnet.io.locks import locked
    from pyg_schnet.potentials.model_files import (
        checkpoint_paths,
        model_files,
        require_angstrom,
        resolve_models,
    )

    check_distinct({"MODEL": model_files(options.model), "IN": [options.input]}, {"OUT": options.out})
    check_output(options.out, options.overwrite)
    if options.k < 1:
        raise ValueError(f"`--k` must be at least 1, got {options.k}")
    if options.k > 1:
        check_stores_many(options.out)
    models = resolve_models(options.model)
    if len(checkpoint_paths(models)) < 2:
        raise ValueError("`model` must be two checkpoints or more, joined by commas, got one")
    require_angstrom(options.model, options.input)
    with locked(options.out):
        check_output(options.out, options.overwrite)  # again: another process may just have written it
        return _select(options, models)


def _select(options: Namespace, models: list[str]) -> int:
    from ase.io import write

    from pyg_schnet.datasets.structure_file import StructureFile
    from pyg_schnet.io.atomic import atomic_write
    from pyg_schnet.simulation import StructureError, select

    source, size = StructureFile(options.input), 0

    def pool() -> Iterator[Atoms]:
        nonlocal size
        for _, atoms in source:
            size += 1
            yield atoms

    try:
        chosen = select(models, pool(), options.k, options.batch_size, options.device)
    except StructureError as error:
        raise ValueError(
            f"{options.input}: frame {error.number}, counted from 0: {error.reason}; correct or remove it"
        ) from None
    deviations = dict(chosen)  # in descending order
    frames = {number: atoms for number, atoms in source if number in deviations}
    with atomic_write(options.out) as part:
        write(part, [frames[number] for number in deviations])
    if options.json:
        selected = [{"frame": number, "max_forces_deviation": value} for number, value in chosen]
        print(json.dumps({"structures": size, "chosen": selected, "out": options.out}))
    elif not options.quiet:
        (_, largest), (_, smallest) = chosen[0], chosen[-1]
        text = (
            f"{len(chosen):,} of {size:,} structures, with largest deviations of a force from {largest:.3g} "
            f"to {smallest:.3g} eV/Å: {options.out}"
        )
        out.print(text, highlight=False)
    return 0
