"""The command line: verbs, and what is said when something is wrong."""

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
from pyg_schnet.cli.mistakes import check_options, check_verb, told
from pyg_schnet.cli.options import parser_of, prepare_device
from pyg_schnet.io.console import printable_errors

# torch, ASE and matplotlib take seconds to import: each verb imports what it needs, so that --help and
# mistakes in the command line are answered at once.
_VERBS = {  # in the order in which they are used
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
DONE, NOT_REACHED, WRONG, INTERRUPTED, UNREAD, TERMINATED = 0, 1, 2, 130, 141, 143  # the exit codes
_MISTAKES = (ArgumentError, ValueError, TypeError, OSError, ImportError)  # in what was given
_FAILURES = (ArithmeticError, MemoryError, RuntimeError)  # of what was begun
_ABOUT = (
    "Train SchNet potentials and run simulations with them, in eV and Å. VERB --help tells of a verb. "
    f"Exit codes: {DONE} done; {NOT_REACHED} a result was not reached, as by a relaxation that did not "
    f"converge; {WRONG} the command line or a file is wrong; {INTERRUPTED} interrupted; {UNREAD} the "
    f"reader of its output, as head, ended; {TERMINATED} terminated. "
    "Example: pyg-schnet data frames.extxyz\n"
    "pyg-schnet train RECIPE.yaml --data.path frames.extxyz --out RUN\n"
    "pyg-schnet check RUN/model.safetensors frames.extxyz\n"
    "pyg-schnet plot RUN\n"
    "pyg-schnet md RUN/model.safetensors start.xyz path.extxyz --duration 10"
)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it: the work ends in order, as after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit code: 0; 1 where a result was not reached, as by a relaxation that did not converge; 2 where
        the command line or a file is wrong; 130 after Ctrl-C; 141 where the reader of its output, as
        ``head``, has ended; 143 after SIGTERM. Errors are told on standard
        error. Set the environment variable ``PYG_SCHNET_TRACEBACK`` to see where one comes from.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        with printable_errors(), _terminable(), _short_warnings():
            code = _run(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _discard_output()
        return UNREAD
    except (*_MISTAKES, *_FAILURES) as error:
        if os.environ.get("PYG_SCHNET_TRACEBACK"):
            raise
        with printable_errors():
            print(f"pyg-schnet: {_one_line(error)}", file=sys.stderr)
        return NOT_REACHED if isinstance(error, _FAILURES) else WRONG
    except KeyboardInterrupt as end:
        terminated = isinstance(end, Terminated)
        print(f"pyg-schnet: {'terminated' if terminated else 'interrupted'}", file=sys.stderr)
        return TERMINATED if terminated else INTERRUPTED


def _discard_output() -> None:
    """Let what is left to be printed go nowhere: Python would complain of it as it ends."""
    with suppress(OSError, ValueError):  # where standard output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split("\n"))
    return f"there is not enough memory ({text or 'MemoryError'})" if isinstance(error, MemoryError) else text


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Write warnings as errors are written, without the line of our code that they come from."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"pyg-schnet: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into :class:`Terminated`, where it would end the process at once.

    More of them are passed over while the work ends: ``timeout`` and schedulers send two, to the process and
    to its group.
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
    check_verb(wanted, _VERBS)
    parser, verbs = _parsers(wanted)
    if wanted is None:
        check_options(parser, arguments)
    else:
        check_options(verbs[wanted], arguments)
    if wanted == "train":
        from pyg_schnet.cli.train import with_recipe

        arguments = with_recipe(arguments)
    try:
        options = parser.parse_args(arguments)
    except ArgumentError as error:
        raise ValueError(told(error, verbs[wanted] if wanted else parser)) from None
    chosen = options[options.verb]
    if "device" in chosen:
        prepare_device(chosen.device, chosen.threads)
    with _silence() if chosen.get("quiet") or chosen.get("json") else nullcontext():
        return _VERBS[options.verb].run(chosen)


def _silence() -> AbstractContextManager[None]:
    from pyg_schnet.io.progress import silence

    return silence()


def _parsers(wanted: str | None) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Make the parser of the command, and those of the verbs; all options of the one that is wanted."""
    parser = parser_of(_ABOUT, prog="pyg-schnet", version=__version__)
    verbs = parser.add_subcommands(dest="verb", metavar="VERB", title="verbs", description=None)
    made = {}
    for name, verb in _VERBS.items():
        help_line, made[name] = verb.build(full=name == wanted)
        verbs.add_subcommand(name, made[name], help=help_line)
        made[name].prog = f"pyg-schnet {name}"
    return parser, made
