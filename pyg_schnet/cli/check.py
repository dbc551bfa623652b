"""The verb ``check``: is a model a potential-energy surface, and exact?"""

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

from pyg_schnet.cli.options import add_talk, with_model
from pyg_schnet.cli.trained_data import units_of_runs
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from pyg_schnet.checks import CheckResult, Report

_STYLES = {"pass": "green", "fail": "bold red", "limit": "yellow", "skip": "dim"}


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Examine a model on some structures: symmetry, forces and stress against differences of the energy, "
        "work on closed ways, smoothness, precision, conservation of energy, and limits. Each has a number "
        "and a bound; the exit code is 1 if one fails. Other models are given as FILE.py:NAME or "
        "MODULE:NAME, where NAME is called with (z, pos, batch), or makes such a model: that runs their "
        "code. "
        "Example: pyg-schnet check RUN/model.safetensors molecules.xyz",
    )
    parser.add_argument(
        "file", metavar="FILE", help="structures that the model is made for, as for train's data.path"
    )
    parser.add_argument(
        "--units",
        type=str | None,
        help='of the file, as "kcal/mol"; those given to the run of MODEL where FILE is of that format',
    )
    parser.add_argument(
        "--only",
        type=str | None,
        help="checks by the first words of the table, joined by commas, as rotation,drift",
    )
    parser.add_argument("--structures", type=int, default=4, help="how many, evenly from all of FILE")
    parser.add_argument("--duration", type=float, default=1.0, help="of the dynamics, in ps")
    parser.add_argument("--temperature", type=float, default=300.0, help="of its start, in K")
    parser.add_argument("--seed", type=int, default=0, help="of directions, orders and velocities")
    add_talk(parser)
    return "examine a model against physics", parser


def run(options: Namespace) -> int:
    """Examine a model."""
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
        told = {"file": options.file, "seconds": seconds}
        print(json.dumps({**report.as_dict(), "model": options.model, **told}))
    elif not options.quiet:
        number = min(options.structures, len(structures))
        structures = f"{number:,} structure{'s' * (number != 1)}"
        out.print(_table(report, f"Checks of {options.model} on {structures} of {options.file}"))
        if report.why_single:
            warning = Text("examined in float32", "yellow")
            out.print(warning, f", by far wider bounds: {report.why_single}", sep="")
        _tell_notes(report.findings)
        counts = report.as_dict()["counts"]
        told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
        out.print(f"{told}, in {seconds:.0f} s")
    elif not report.passed:
        print(report.text(report.failures), file=sys.stderr)
    return 0 if report.passed else 1


def _table(report: Report, title: str) -> Table:
    caption = f"exact: computed in {report.precision} without splines; drift: as the model is used"
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


def _tell_notes(findings: Sequence[CheckResult]) -> None:
    """Say why, once for what fails for one reason."""
    reasons: dict[tuple[str, str, str], None] = {}
    for finding in findings:
        if finding.note:
            reasons[finding.verdict, finding.check, finding.note] = None
    for verdict, name, note in reasons:
        out.print(Text(verdict, _STYLES[verdict]), f" {name}: {note}", sep="")


def _units_of_run(text: str, file: str) -> str | None:
    from pyg_schnet.potentials.model_files import checkpoint_paths, resolve_models

    is_foreign = ":" in text and not Path(text).exists()
    return None if is_foreign else units_of_runs(checkpoint_paths(resolve_models(text)), file)


def _model(text: str, device: str) -> Any:
    """Load potentials, or what a name in a Python file or module stands for."""
    from pyg_schnet.potentials.model_files import resolve_models
    from pyg_schnet.simulation.calculator import evaluation_copy

    place, colon, name = text.rpartition(":")
    if not colon or Path(text).exists():
        return evaluation_copy(resolve_models(text), device)
    module = _module(place)
    if not hasattr(module, name):
        raise ValueError(f"`model` names {name!r}, which {place} does not hold")
    found = getattr(module, name)
    if not callable(found):
        raise TypeError(
            f"`model` must name something that is called, got {type(found).__name__} for {name!r}"
        )
    return found if _takes_atoms(found) else found()


def _takes_atoms(found: Any) -> bool:
    """Whether it is called with (z, pos, batch), and does not make what is."""
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
        raise FileNotFoundError(f"{place}: no such file; give FILE.py:NAME, or a checkpoint")
    spec = importlib.util.spec_from_file_location(f"_checked_{Path(place).stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    sys.path.insert(0, str(Path(place).absolute().parent))  # as python FILE.py has it, for what it imports
    spec.loader.exec_module(module)
    return module
