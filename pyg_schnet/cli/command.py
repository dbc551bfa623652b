"""The command line: verbs, and what is said when something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentError

from pyg_schnet.cli import check, data, evaluate, md, plot, predict, relax, select, train
from pyg_schnet.cli.options import parser_of, prepare_device

# torch, ASE and matplotlib take seconds to import: each verb imports what it needs, so that --help and
# mistakes in the command line are answered at once.
_VERBS = {
    "train": train,
    "evaluate": evaluate,
    "check": check,
    "plot": plot,
    "predict": predict,
    "relax": relax,
    "md": md,
    "select": select,
    "data": data,
}
_EXPECTED = (
    ArgumentError,
    ValueError,
    TypeError,
    OSError,
    ImportError,
    ArithmeticError,
    RuntimeError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit code: 0, or 1 after an error, which is told on standard error. Set the environment
        variable ``PYG_SCHNET_TRACEBACK`` to see where an error comes from.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    parser = parser_of(
        prog="pyg-schnet",
        description="Train SchNet potentials and run simulations with them, in eV and Å.",
    )
    verbs = parser.add_subcommands(dest="verb", metavar="VERB")
    wanted = next((name for name in arguments if name in _VERBS), None)
    for name, verb in _VERBS.items():
        help_line, subparser = verb.build(full=name == wanted)
        verbs.add_subcommand(name, subparser, help=help_line)
    try:
        if wanted == "train":
            from pyg_schnet.training.recipe import with_recipe

            arguments = with_recipe(arguments)
        options = parser.parse_args(arguments)
        chosen = options[options.verb]
        if "device" in chosen:
            prepare_device(chosen.device, chosen.threads)
        return _VERBS[options.verb].run(chosen)
    except _EXPECTED as error:
        if os.environ.get("PYG_SCHNET_TRACEBACK"):
            raise
        print(f"pyg-schnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pyg-schnet: interrupted", file=sys.stderr)
        return 130
