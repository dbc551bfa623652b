"""The verb ``relax``: the nearest minimum."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.files import check_output, structure
from pyg_schnet.cli.options import add_files, with_model
from pyg_schnet.cli.terminal import out


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Move the atoms of a structure to where no force is left. "
        "Example: pyg-schnet relax RUN/model.safetensors in.xyz out.xyz --fmax 0.01",
    )
    add_files(parser)
    parser.add_argument("--fmax", type=float, default=0.01, help="longest force allowed, in eV/Å")
    parser.add_argument("--steps", type=int, default=500, help="the most to take")
    parser.add_argument("--optimizer", default="BFGS", help="BFGS, LBFGS or FIRE")
    parser.add_argument("--index", type=int, default=-1, help="which structure of the file, from 0")
    return "relax a structure", parser


def run(options: Namespace) -> int:
    """Relax a structure."""
    from ase.io import write

    from pyg_schnet.simulation import relax

    check_output(options.out, options.overwrite)
    result = relax(structure(options), fmax=options.fmax, steps=options.steps, optimizer=options.optimizer)
    write(options.out, result.atoms)
    state = "converged" if result.converged else "NOT converged"
    out.print(
        f"{state} after {result.steps} steps: energy {result.energy:.6f} eV, longest force "
        f"{result.fmax:.4f} eV/Å: {options.out}"
    )
    return 0 if result.converged else 1
