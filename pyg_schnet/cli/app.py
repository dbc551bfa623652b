"""Entry point of the command line: commands, exit codes, signals and error messages."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from pyg_schnet import __version__
from pyg_schnet.io.console import printable_errors
from pyg_schnet.io.spelling import nearest

if TYPE_CHECKING:
    from jsonargparse import Namespace

# Modules of this package by name, with their lines in the list of commands. A command is imported when it is
# run, and imports torch, ASE and matplotlib after its command line was read: they take seconds, for which
# --version, --help and errors in the command line need not wait.
_GROUPS = {
    "data and training": {
        "data": "show what a file or a published data set holds, with warnings",
        "recipes": "list the recipes that come with the package, or print one",
        "train": "train a potential on energies and forces",
    },
    "quality of a potential": {
        "evaluate": "compare predictions with labels",
        "check": "check symmetries, forces, stresses, dynamics and limits",
        "plot": "draw learning curve, errors, filters and embeddings",
        "report": "write everything about a run into one page",
    },
    "use of a potential": {
        "models": "list the pretrained models, or show the card of one",
        "predict": "predict energies, forces and stresses",
        "relax": "relax structures",
        "md": "run molecular dynamics",
        "lammps": "write a model for LAMMPS, or compile its pair style",
        "select": "select the structures to label next, by several potentials",
    },
}
COMMANDS = {name: line for group in _GROUPS.values() for name, line in group.items()}
DONE, NOT_REACHED, WRONG, INTERRUPTED, BROKEN_PIPE, TERMINATED = 0, 1, 2, 130, 141, 143  # exit codes
_INPUT_ERRORS = (ValueError, TypeError, OSError, ImportError)
_RUNTIME_ERRORS = (ArithmeticError, MemoryError, RuntimeError)
_DOCUMENTATION = "https://pyg-schnet.readthedocs.io/en/latest"
_HELP = """\
usage: pyg-schnet COMMAND [--key value …]

Train SchNet potentials on energies and forces, and simulate with them.
Units are eV and Å.

{commands}
options:
  -h, --help  show this help and exit; after COMMAND, that of the command
  --version   show the version and exit

From a file to molecular dynamics:
  pyg-schnet data frames.extxyz
  pyg-schnet train own_file --data.path frames.extxyz --out RUN
  pyg-schnet check RUN frames.extxyz
  pyg-schnet plot RUN
  pyg-schnet report RUN
  pyg-schnet md RUN start.xyz path.extxyz --duration 10

Exit codes: {done} success; {not_reached} a result was not reached, for example a relaxation did
not converge; {wrong} the command line or a file is wrong; {interrupted} interrupted;
{broken_pipe} the reader of the output (such as head) ended; {terminated} terminated.

Documentation: {documentation}
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers send it: the command ends in order, as after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Command line without the name of the program; ``sys.argv`` by default.

    Returns:
        Exit code: 0 on success; 1 if a result was not reached, for example a relaxation did not converge; 2
        if the command line or a file is wrong; 130 after Ctrl-C; 141 if the reader of the output (such as
        ``head``) has ended; 143 after SIGTERM. Errors are printed to standard error, with a traceback if the
        environment variable ``PYG_SCHNET_TRACEBACK`` is set.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        with printable_errors(), _handle_sigterm(), _short_warnings():
            code = _run(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except (*_INPUT_ERRORS, *_RUNTIME_ERRORS) as error:
        if os.environ.get("PYG_SCHNET_TRACEBACK"):
            raise
        from pyg_schnet.cli.errors import name_options

        with printable_errors():
            print(f"pyg-schnet: {name_options(_one_line(error), arguments[0])}", file=sys.stderr)
        return NOT_REACHED if isinstance(error, _RUNTIME_ERRORS) else WRONG
    except KeyboardInterrupt as end:
        terminated = isinstance(end, Terminated)
        print(f"pyg-schnet: {'terminated' if terminated else 'interrupted'}", file=sys.stderr)
        return TERMINATED if terminated else INTERRUPTED


def _discard_output() -> None:
    """Redirect remaining output to the null device; Python would report an error for it at exit."""
    with suppress(OSError, ValueError):  # standard output may not be a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split("\n"))
    return f"there is not enough memory ({text or 'MemoryError'})" if isinstance(error, MemoryError) else text


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Print warnings like errors, without the line of code that raised them."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"pyg-schnet: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def _handle_sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM, if that would otherwise end the process at once.

    Further SIGTERMs are ignored meanwhile: ``timeout`` and schedulers send two, to the process and to its
    group.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(arguments: list[str]) -> int:
    name, *rest = arguments
    if name in ("-h", "--help"):
        print(_help(), end="")
        return DONE
    if name == "--version":
        print(f"pyg-schnet {__version__}")
        return DONE
    if name.startswith("-"):
        raise ValueError(f"`{name}` is not an option. See pyg-schnet --help.")
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise ValueError(f"COMMAND must be one of {known}; got '{name}'.{nearest(name, COMMANDS)}")
    command = import_module(f"pyg_schnet.cli.{name}")
    options = _parse(name, command, rest)
    if "device" in options:
        from pyg_schnet.cli.options import prepare_device

        prepare_device(options.device, options.threads)
    if name != "models" and not (options.get("quiet") or options.get("json")):
        _print_limits(options.get("model") or options.get("source"))
    with _silence() if options.get("quiet") or options.get("json") else nullcontext():
        return command.run(options)


def _parse(name: str, command: ModuleType, arguments: list[str]) -> Namespace:
    from jsonargparse import ArgumentError

    from pyg_schnet.cli.errors import check_options, explain

    parser = command.build()
    parser.prog = f"pyg-schnet {name}"
    parser.epilog = f"{parser.epilog}\n\nDocumentation: {_DOCUMENTATION}/cli/{name}.html"
    check_options(parser, arguments)
    if name == "train":
        arguments = command.with_recipe(arguments)
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise ValueError(explain(error, parser)) from None


def _print_limits(model: object) -> None:
    """Print what the pretrained models that a command uses are not for, a line each."""
    if not isinstance(model, str):
        return
    from pyg_schnet.cli.models import limits

    for line in limits(model):
        print(f"pyg-schnet: {line}", file=sys.stderr)


def _silence() -> AbstractContextManager[None]:
    from pyg_schnet.io.progress import silence

    return silence()


def _help() -> str:
    """Return the help of the program."""
    width = max(map(len, COMMANDS))
    commands = "".join(
        f"{title}:\n" + "".join(f"  {name:<{width}}  {line}\n" for name, line in group.items()) + "\n"
        for title, group in _GROUPS.items()
    )
    return _HELP.format(
        commands=commands.strip("\n") + "\n",
        done=DONE,
        not_reached=NOT_REACHED,
        wrong=WRONG,
        interrupted=INTERRUPTED,
        broken_pipe=BROKEN_PIPE,
        terminated=TERMINATED,
        documentation=_DOCUMENTATION,
    )
