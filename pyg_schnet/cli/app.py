"""Entry point of the command line: commands, exit codes, signals and error messages."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType

from jsonargparse import ArgumentError, ArgumentParser

from pyg_schnet import __version__
from pyg_schnet.cli import check, data, evaluate, md, plot, predict, relax, select, train
from pyg_schnet.cli.errors import check_command, check_options, explain
from pyg_schnet.cli.options import make_parser, prepare_device
from pyg_schnet.io.console import printable_errors

# torch, ASE and matplotlib take seconds to import. Commands import them when they run, so that --help and
# errors in the command line are printed at once.
_COMMANDS = {  # in the order in which they are used
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
DONE, NOT_REACHED, WRONG, INTERRUPTED, BROKEN_PIPE, TERMINATED = 0, 1, 2, 130, 141, 143  # exit codes
_INPUT_ERRORS = (ArgumentError, ValueError, TypeError, OSError, ImportError)
_RUNTIME_ERRORS = (ArithmeticError, MemoryError, RuntimeError)
_ABOUT = (
    "Train SchNet potentials and run simulations with them, in eV and Å. COMMAND --help describes a command. "
    f"Exit codes: {DONE} success; {NOT_REACHED} a result was not reached, for example a relaxation did not "
    f"converge; {WRONG} the command line or a file is wrong; {INTERRUPTED} interrupted; {BROKEN_PIPE} the "
    f"reader of the output (such as head) ended; {TERMINATED} terminated. "
    "Example: pyg-schnet data frames.extxyz\n"
    "pyg-schnet train RECIPE.yaml --data.path frames.extxyz --out RUN\n"
    "pyg-schnet check RUN/model.safetensors frames.extxyz\n"
    "pyg-schnet plot RUN\n"
    "pyg-schnet md RUN/model.safetensors start.xyz path.extxyz --duration 10"
)


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
        with printable_errors():
            print(f"pyg-schnet: {_one_line(error)}", file=sys.stderr)
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
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    check_command(wanted, _COMMANDS)
    parser, parsers = _parsers(wanted)
    if wanted is None:
        check_options(parser, arguments)
    else:
        check_options(parsers[wanted], arguments)
    if wanted == "train":
        arguments = train.with_recipe(arguments)
    try:
        options = parser.parse_args(arguments)
    except ArgumentError as error:
        raise ValueError(explain(error, parsers[wanted] if wanted else parser)) from None
    chosen = options[options.command]
    if "device" in chosen:
        prepare_device(chosen.device, chosen.threads)
    with _silence() if chosen.get("quiet") or chosen.get("json") else nullcontext():
        return _COMMANDS[options.command].run(chosen)


def _silence() -> AbstractContextManager[None]:
    from pyg_schnet.io.progress import silence

    return silence()


def _parsers(wanted: str | None) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Build the parser of the program and those of the commands; all options only for the wanted one."""
    parser = make_parser(_ABOUT, prog="pyg-schnet", version=__version__)
    commands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", description=None)
    parsers = {}
    for name, command in _COMMANDS.items():
        help_line, parsers[name] = command.build(full=name == wanted)
        commands.add_subcommand(name, parsers[name], help=help_line)
        parsers[name].prog = f"pyg-schnet {name}"
    return parser, parsers
