"""The command ``report``: everything about a run in one HTML file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_device, add_labeled_structures, add_verbosity, group, make_parser
from pyg_schnet.cli.plot_inputs import KEYS, PlotTarget, Structures, structures_of_file, structures_of_run
from pyg_schnet.io.console import out
from pyg_schnet.io.outputs import check_distinct, check_output

if TYPE_CHECKING:
    from pyg_schnet.checks import Report
    from pyg_schnet.potentials.potential import Potential
    from pyg_schnet.report import Contents, DataSet


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser(
        "Write a report of a run as one HTML file, which needs no network: a verdict, data and warnings, "
        "settings, learning curve, errors, structures that can be turned, filters, checks of physics, "
        "dynamics and timings. Errors are those of the test structures that training left or, without any, "
        "of the validation structures; with FILE those of other structures. It names no folders. "
        "Example: pyg-schnet report RUN\n"
        "pyg-schnet report RUN --md path.csv --out report.html",
    )
    add_labeled_structures(parser)
    output = group(parser, "output")
    output.add_argument(
        "--out", type=str | None, metavar="HTML", help="file to write; report.html in RUN by default"
    )
    parser.add_argument(
        "--md",
        type=str | None,
        metavar="DYNAMICS",
        help="log (.csv) or trajectory of a run of `pyg-schnet md`",
    )
    parser.add_argument("--skip_checks", action="store_true", help="leave out the checks of physics")
    add_device(parser)
    output.add_argument("--overwrite", action="store_true", help="replace an existing report")
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Measure what a report shows, and write it."""
    from pyg_schnet.io.locks import locked
    from pyg_schnet.report.page import write_page
    from pyg_schnet.report.verdict import find_warnings, verdict

    if options.max_structures < 1:
        raise ValueError(f"`--max_structures` must be at least 1, got {options.max_structures}")
    target = PlotTarget.open(options.source, "report")
    path = options.out if options.out is not None else os.fspath(target.model.parent / "report.html")
    _check_output(path, target, options)
    with locked(path):
        _check_output(path, target, options)  # again: another process may just have written it
        with out.status("reading data") as status:
            contents = _contents(options, target, status.update)
            status.update("drawing")
            write_page(contents, path)
    sentences, warnings = verdict(contents), list(find_warnings(contents))
    if options.json:
        print(json.dumps(_as_dict(path, contents, sentences, warnings)))
    elif not options.quiet:
        for sentence in sentences:
            out.print(sentence, soft_wrap=False, highlight=False)
        for sentence in warnings:
            out.print(f"* {sentence}", soft_wrap=False, highlight=False)
        out.print(f"report: {path} ({Path(path).stat().st_size / 1e6:.1f} MB)", highlight=False)
    return 0


def _check_output(path: str, target: PlotTarget, options: Namespace) -> None:
    inputs = {"MODEL": [target.model]}
    inputs |= {name: [options[key]] for name, key in (("FILE", "file"), ("--md", "md")) if options[key]}
    check_distinct(inputs, {"--out": path})
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"`--out` must end in .html, got {path!r}")
    check_output(path, options.overwrite, structures=False)


def _contents(options: Namespace, target: PlotTarget, on_step: Any) -> Contents:
    from pyg_schnet.potentials.checkpoint import provenance
    from pyg_schnet.report.contents import Accuracy, Contents, Simulation

    potential = _load(target, options.device)
    simulation = None if options.md is None else Simulation.read(Path(options.md), potential)
    structures = _structures(options, target, potential)
    origin = provenance(target.model)
    settings = {"model": asdict(cast(Any, potential.model).config)}
    settings |= {name: origin[name] for name in ("data", "trainer") if isinstance(origin.get(name), dict)}
    data = _data_sets(target, structures, potential)
    on_step("measuring errors")
    chosen = structures.at_most(options.max_structures)
    name = Path(structures.whole.path).name  # pyright: ignore[reportAttributeAccessIssue] - it has labels
    accuracy = Accuracy.of_structures(
        potential, chosen.drawn, name, structures.part, len(structures.numbers), data[0]
    )
    has_checks = potential.has_energy and not options.skip_checks
    checks = _check(potential, structures, on_step) if has_checks else None
    rows = target.run.read_metrics() if target.run is not None else []
    title = target.model.absolute().parent.name if target.run is not None else target.model.name
    return Contents(
        title, potential, origin, settings, rows, data, accuracy, checks, simulation, options.labels
    )


def _load(target: PlotTarget, device: str) -> Potential:
    from pyg_schnet.potentials.checkpoint import read
    from pyg_schnet.simulation.calculator import evaluation_copy

    if not target.model.is_file():
        raise FileNotFoundError(
            f"{target.model}: does not exist yet; the first validation writes it, wait for it"
        )
    header, _ = read(target.model, "potential")
    if "class" in header:
        raise ValueError(
            f"{target.model}: is of {header['class']}, which is not a SchNet and cannot be reported; "
            "`pyg-schnet evaluate` and `check` measure other models"
        )
    potential = evaluation_copy(target.model, device, needs_energy=False)
    return cast("Potential", potential)


def _structures(options: Namespace, target: PlotTarget, potential: Potential) -> Structures:
    """Return the labeled structures that errors are measured on."""
    if options.file is not None:
        keys = {key: options[key] for key in KEYS}
        structures = structures_of_file(target, options.file, options.part, keys, potential)
        if structures.unlabeled is not None:
            raise ValueError(structures.unlabeled)
        return structures
    if target.run is None:
        raise ValueError(
            f"`FILE` must be given with the checkpoint {target.model}, labeled structures to measure errors "
            "on; or pass the folder of its run"
        )
    return structures_of_run(target, options.part, potential)


def _data_sets(target: PlotTarget, structures: Structures, potential: Potential) -> list[DataSet]:
    """Summarize the data of the training, if they still exist, and the file that errors are measured on."""
    from pyg_schnet.cli.plot_inputs import open_training_data
    from pyg_schnet.report.contents import DataSet

    trained = open_training_data(target, potential)
    measured, names = cast(Any, structures.whole), [own.name for own in potential.properties]
    if trained is None:
        return [DataSet.of(Path(measured.path).name, measured, properties=names)]
    dataset, split, sha256 = trained
    data = [DataSet.of(Path(dataset.path).name, dataset, split, sha256, names)]
    if [file.resolve() for file in measured.files] != [file.resolve() for file in dataset.files]:
        data.append(DataSet.of(Path(measured.path).name, measured, properties=names))
    return data


def _check(potential: Potential, structures: Structures, on_step: Any) -> Report:
    from pyg_schnet.checks import check

    return check(potential, structures.drawn, on_check=lambda name: on_step(f"checking: {name}"))


def _as_dict(path: str, contents: Contents, sentences: list[str], warnings: list[str]) -> dict[str, Any]:
    checks = contents.checks
    return {
        "report": path,
        "bytes": Path(path).stat().st_size,
        "verdict": sentences,
        "warnings": warnings,
        "errors": contents.accuracy.evaluation.as_dict(),
        "checks": None if checks is None else checks.as_dict()["counts"],
    }
