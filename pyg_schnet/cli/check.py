"""The command ``check``: checks of a model against physics."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text

from pyg_schnet.cli.options import add_verbosity, group, with_model
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from pyg_schnet.checks import CheckResult, Report

_STYLES = {"pass": "green", "fail": "bold red", "limit": "yellow", "skip": "dim"}


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Check a model against physics, on some structures: symmetries, forces and stresses against finite "
        "differences of the energy, work along closed paths, smoothness, precision, conservation of energy, "
        "and limits. Each check compares a number with a bound; the exit code is 1 if one fails. MODEL may "
        "also be FILE.py:NAME or MODULE:NAME, where NAME is called with (z, pos, batch) or returns such a "
        "model: this runs their code. "
        "Example: pyg-schnet check RUN molecules.xyz\n"
        "pyg-schnet check my_models.py:make molecules.xyz --only rotation,forces",
    )
    parser.add_argument(
        "file", metavar="FILE", help="structures that the model is made for, as for data.path of train"
    )
    group(parser, "structures").add_argument(
        "--units",
        type=str | None,
        help='units of FILE, such as "kcal/mol"; by default those of the run, for the same format',
    )
    parser.add_argument(
        "--only",
        type=str | None,
        metavar="NAMES",
        help="checks by the first words of the table, joined by commas, such as rotation,drift",
    )
    group(parser, "structures").add_argument(
        "--structures", type=int, default=4, help="number of structures, evenly spaced over FILE"
    )
    parser.add_argument("--duration", type=float, default=1.0, help="duration of the dynamics, in ps")
    parser.add_argument(
        "--temperature", type=float, default=300.0, help="temperature of its initial velocities, in K"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of directions, orders and velocities")
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Check a model."""
    from pyg_schnet.checks import check
    from pyg_schnet.datasets.structure_file import open_structures

    model = _model(options.model, options.device)
    units = _units_of_run(options.model, options.file) if options.units is None else options.units
    structures = open_structures(options.file, units)
    began = time.perf_counter()
    with out.status("") as status:
        report = check(
            model,
            structures,
            options.only.split(",") if options.only else None,
            number=options.structures,
            duration=options.duration,
            temperature=options.temperature,
            seed=options.seed,
            on_check=lambda name: status.update(f"checking: {name}"),
        )
    seconds = time.perf_counter() - began
    if options.json:
        run = {"file": options.file, "seconds": seconds}
        print(json.dumps({**report.as_dict(), "model": options.model, **run}))
    elif not options.quiet:
        number = min(options.structures, len(structures))
        structures = f"{number:,} structure{'s' * (number != 1)}"
        out.print(_table(report, f"Checks of {options.model} on {structures} of {options.file}"))
        if report.why_single:
            warning = Text("checked in float32", "yellow")
            out.print(warning, f", with much wider bounds: {report.why_single}", sep="")
        _print_notes(report.findings)
        counts = report.as_dict()["counts"]
        summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
        out.print(f"{summary}, in {seconds:.0f} s")
    elif not report.passed:
        print(report.text(report.failures), file=sys.stderr)
    return 0 if report.passed else 1


def _table(report: Report, title: str) -> Table:
    caption = f"computed in {report.precision} without splines; drift: with the model as it is used"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("check")
    table.add_column("found", justify="right")
    table.add_column("bound", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("")
    for finding in report.findings:
        found, bound = "", ""
        if finding.value is not None and finding.bound is not None:
            found = f"{finding.value:.2g}"
            bound = f"{'≥' if finding.at_least else '≤'} {finding.bound:.2g}"
        verdict = Text(finding.verdict, _STYLES[finding.verdict])
        table.add_row(finding.name, found, bound, finding.unit, verdict)
    return table


def _print_notes(findings: Sequence[CheckResult]) -> None:
    """Print reasons, each once."""
    reasons: dict[tuple[str, str, str], None] = {}
    for finding in findings:
        if finding.note:
            reasons[finding.verdict, finding.check, finding.note] = None
    for verdict, name, note in reasons:
        out.print(Text(verdict, _STYLES[verdict]), f" {name}: {note}", sep="")


def _units_of_run(text: str, file: str) -> str | None:
    from pyg_schnet.potentials.model_files import checkpoint_paths, resolve_models
    from pyg_schnet.potentials.pretrained import is_address
    from pyg_schnet.training.trained_data import options_of_runs

    if ":" in text and not Path(text).exists() and not is_address(text):  # a model of Python code
        return None
    return options_of_runs(checkpoint_paths(resolve_models(text)), file, ["units"]).get("units")


def _model(text: str, device: str) -> Any:
    """Load potentials, or a model from a Python file or module."""
    from pyg_schnet.potentials.model_files import resolve_models
    from pyg_schnet.potentials.pretrained import is_address
    from pyg_schnet.simulation.calculator import evaluation_copy

    place, colon, name = text.rpartition(":")
    if not colon or Path(text).exists() or is_address(text):
        return evaluation_copy(resolve_models(text), device)
    module = _module(place)
    if not hasattr(module, name):
        raise ValueError(f"`model` names {name!r}, which {place} does not define")
    found = getattr(module, name)
    if not callable(found):
        raise TypeError(f"`model` must name a callable, got {type(found).__name__} for {name!r}")
    return found if _takes_atoms(found) else found()


def _takes_atoms(found: Any) -> bool:
    """Return whether a callable is called with (z, pos, batch) itself, rather than returning a model."""
    if inspect.isclass(found):
        return False
    try:
        inspect.signature(found).bind(None, None, None)
    except TypeError:
        return False
    return True


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    if not Path(place).is_file():
        raise FileNotFoundError(f"{place}: no such file; pass FILE.py:NAME, or a checkpoint")
    spec = importlib.util.spec_from_file_location(f"_checked_{Path(place).stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up there
    sys.path.insert(0, str(Path(place).absolute().parent))  # as with python FILE.py, for its imports
    spec.loader.exec_module(module)
    return module
