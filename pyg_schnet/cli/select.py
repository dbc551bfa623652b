"""The verb ``select``: structures that are worth labelling."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.files import check_output, checkpoints, read_structures, split_models
from pyg_schnet.cli.options import add_files, with_model
from pyg_schnet.cli.terminal import out


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Choose the structures on whose forces several models disagree most, to label them: the next round "
        "of active learning. "
        "Example: pyg-schnet select A/model.safetensors,B/model.safetensors pool.xyz chosen.xyz --k 100",
    )
    add_files(parser)
    parser.add_argument("--k", type=int, default=100, help="how many to choose")
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    return "structures that are worth labelling", parser


def run(options: Namespace) -> int:
    """Choose structures."""
    from ase.io import write

    from pyg_schnet.simulation import select

    check_output(options.out, options.overwrite)
    if options.k < 1:
        raise ValueError(f"`--k` must be at least 1, got {options.k}")
    models = split_models(options.model)
    if len(checkpoints(models)) < 2:
        raise ValueError("`model` must be two checkpoints or more, joined by commas, to disagree; got one")
    pool = read_structures(options.input, ":")
    chosen = select(models, pool, options.k, options.batch_size, options.device)
    write(options.out, [pool[number] for number, _ in chosen])
    (_, most), (_, least) = chosen[0], chosen[-1]
    out.print(
        f"{len(chosen):,} of {len(pool):,} structures, whose forces deviate by {most:.3g} to {least:.3g} "
        f"eV/Å on some atom: {options.out}"
    )
    return 0
