"""The verb ``evaluate``: errors on labelled structures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from pyg_schnet.cli.options import add_verbosity, with_model
from pyg_schnet.cli.trained_data import count_trained, read_part, units_of_runs
from pyg_schnet.io.console import out
from pyg_schnet.io.outputs import check_distinct, check_output, check_picture

if TYPE_CHECKING:
    from pyg_schnet.potentials.calibration import Calibration
    from pyg_schnet.potentials.metrics import Evaluation


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Return the help line and the parser of the command; with all options if ``full``."""
    parser = with_model(
        "Compare predictions with labels. Energies are per molecule; forces are over all atoms and "
        "components. Several models, joined by commas, are measured as one, their mean, and how far they "
        "disagree is compared with their errors. "
        "Example: pyg-schnet evaluate RUN/model.safetensors FILE --part test",
    )
    parser.add_argument("file", metavar="FILE", help="labelled structures, as for train's data.path")
    parser.add_argument("--energy_key", type=str | None, help="key of the energies")
    parser.add_argument("--forces_key", type=str | None, help="key of the forces, 'none' for none")
    parser.add_argument("--stress_key", type=str | None, help="key of the stresses, 'none' for none")
    parser.add_argument(
        "--units",
        type=str | None,
        help='of the file, as "kcal/mol"; those given to the run of MODEL where FILE is of that format',
    )
    parser.add_argument(
        "--part",
        type=str | None,
        help="'train', 'val' or 'test': this part of FILE, by the split.npz beside MODEL",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    parser.add_argument("--plot", type=str | None, help="draw predictions over labels into this picture")
    parser.add_argument(
        "--plot_calibration",
        type=str | None,
        help="draw errors over deviations of several models into this picture",
    )
    parser.add_argument(
        "--calibrate",
        type=str | None,
        help="write an ensemble.json, whose deviations are as large as errors are here; use --part val",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the ensemble.json if it exists")
    add_verbosity(parser)
    return "errors on labelled structures", parser


def run(options: Namespace) -> int:
    """Compare a potential with labels."""
    from pyg_schnet.io.locks import locked
    from pyg_schnet.potentials.model_files import checkpoint_paths, resolve_models

    models = resolve_models(options.model)
    paths = checkpoint_paths(models)
    _check(options, len(paths))
    with locked(options.plot, options.plot_calibration, options.calibrate):
        _check(options, len(paths))  # again: another process may just have written them
        return _evaluate(options, models, paths)


def _evaluate(options: Namespace, models: list[str], paths: list[str]) -> int:
    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.plots import plot_calibration, plot_parity
    from pyg_schnet.potentials.calibration import MIN_STRUCTURES, calibrations, with_factors
    from pyg_schnet.potentials.metrics import evaluate
    from pyg_schnet.simulation.calculator import evaluation_copy

    potential = evaluation_copy(models, options.device)
    units = units_of_runs(paths, options.file) if options.units is None else None
    dataset = AtomsDataset(
        path=options.file,
        energy_key=options.energy_key,
        forces_key=options.forces_key,
        stress_key=options.stress_key,
        units=units or options.units,
        memory_map=options.file.endswith(".safetensors"),
    )
    if options.part is not None:
        dataset = dataset[read_part(paths, options.part, options.file, len(dataset))]
        assert isinstance(dataset, AtomsDataset)
    trained = count_trained(paths, options.file, len(dataset)) if options.part is None else 0
    evaluation = evaluate(potential, dataset, options.batch_size)
    evaluation.require_finite(dataset.indices())
    deviation = evaluation.energy_deviation
    enough = deviation is not None and evaluation.n >= MIN_STRUCTURES and bool((deviation > 0).any())
    found = calibrations(evaluation) if enough or _wants_calibration(options) else {}
    written = {}
    if options.plot is not None:
        plot_parity(evaluation, options.plot)
        written["predictions over labels"] = options.plot
    if options.plot_calibration is not None:
        plot_calibration(found, options.plot_calibration)
        written["errors over deviations"] = options.plot_calibration
    if options.calibrate is not None:
        with_factors(potential, found).save(options.calibrate, paths)
        written["calibrated ensemble"] = options.calibrate
    if options.json:
        calibration = {name: one.as_dict() for name, one in found.items()}
        told = ({"trained_on": trained} if trained else {}) | ({"units": units} if units else {})
        print(json.dumps(evaluation.as_dict() | told | ({"calibration": calibration} if found else {})))
        return 0
    if options.quiet:
        return 0
    out.print(_table(evaluation), soft_wrap=False)
    if units:
        out.print(
            f"{options.file} was read in {dataset.units.sentence()}, as the run of the model read its data"
        )
    if trained:
        out.print(
            f"{trained:,} of these structures were trained on, which makes errors small; --part test leaves "
            "them out"
        )
    if found:
        out.print(_deviations(found, len(paths), potential.is_calibrated), soft_wrap=False)
    for what, path in written.items():
        out.print(f"{what}: {path}")
    return 0


def _wants_calibration(options: Namespace) -> bool:
    return options.calibrate is not None or options.plot_calibration is not None


def _check(options: Namespace, potentials: int) -> None:
    """Refuse before the work what cannot be done after it."""
    from pyg_schnet.potentials.model_files import model_files

    names = ("plot", "plot_calibration", "calibrate")
    inputs = {"MODEL": model_files(options.model), "FILE": [options.file]}
    check_distinct(inputs, {f"--{name}": options[name] for name in names})
    for picture in (options.plot, options.plot_calibration):
        if picture is not None:
            check_picture(picture)
    if _wants_calibration(options) and potentials < 2:
        raise ValueError(
            "`--calibrate` and `--plot_calibration` need two checkpoints or more, joined by commas, got one"
        )
    if options.calibrate is None:
        return
    check_output(options.calibrate, options.overwrite, structures=False)
    if not options.calibrate.endswith(".json"):
        raise ValueError(f"`--calibrate` must end in .json, got {options.calibrate}")
    if options.part == "train":
        raise ValueError(
            "`--calibrate` must not be on structures that were trained on, where errors are too small; use "
            "--part val"
        )


def _table(evaluation: Evaluation) -> Table:
    from pyg_schnet.io.units import GPa, kcal_per_mol

    title = f"Errors on {evaluation.n:,} structures"
    table = Table(title=title, title_justify="left")
    for name in ("", "MAE", "RMSE", "unit", "MAE", "RMSE", "unit"):
        table.add_column(name, justify="left" if name in ("", "unit") else "right")
    rows = [("energy", evaluation.energy_mae, evaluation.energy_rmse, "meV", "kcal/mol")]
    if evaluation.forces_mae is not None and evaluation.forces_rmse is not None:
        rows.append(("forces", evaluation.forces_mae, evaluation.forces_rmse, "meV/Å", "kcal/mol/Å"))
    if evaluation.stress_mae is not None and evaluation.stress_rmse is not None:
        rows.append(("stress", evaluation.stress_mae, evaluation.stress_rmse, "meV/Å³", "GPa"))
    for name, mae, rmse, unit, other in rows:
        small = [f"{1e3 * value:.2f}" for value in (mae, rmse)]
        large = [f"{value / (GPa if other == 'GPa' else kcal_per_mol):.4f}" for value in (mae, rmse)]
        table.add_row(name, *small, unit, *large, other)
    return table


def _deviations(found: dict[str, Calibration], potentials: int, is_calibrated: bool) -> Table:
    title = f"How far {potentials} potentials deviate from each other, beside their errors"
    table = Table(title=title, title_justify="left", caption=_CAPTION, caption_justify="left")
    table.add_column("")
    given = ("calibrated", "again") if is_calibrated else ("raw", "calibrated")
    for name in (*given, "if perfect"):
        table.add_column(name, justify="right")
    for name, before in found.items():
        unit = "meV/atom" if name == "energy" else "meV/Å"
        both = (before, before.scaled(before.factor))
        shares = {
            f"{name}: errors within {k}σ (%)": [one.share_within(k) for one in both]
            + [before.expected_share(k)]
            for k in (1, 2)
        }
        table.add_row(f"{name}: factor", "1", f"{before.factor:.3f}", "")
        rms = (both[0].sharpness, both[1].sharpness, before.rmse)
        table.add_row(f"{name}: RMS deviation ({unit})", *(f"{1e3 * value:.3g}" for value in rms))
        for what, values in shares.items():
            table.add_row(what, *(f"{100 * value:.1f}" for value in values))
        areas = (f"{one.miscalibration_area:.3f}" for one in both)
        table.add_row(f"{name}: area of miscalibration", *areas, "0")
        table.add_row(f"{name}: ENCE", *(f"{one.ence:.2f}" for one in both), "")
        ranks = (f"{one.rank_correlation:.2f}" for one in both)
        table.add_row(f"{name}: Spearman correlation", *ranks, "", end_section=True)
    return table


_CAPTION = (
    "σ: deviation. Energies are per atom, RMS of forces of vectors, shares of components. Perfect: RMS of "
    "the errors; shares of Student's distribution, with many potentials 68.3 and 95.4 %. ENCE (expected "
    "normalized calibration error): by which part of σ the RMS error differs from it, on average over bins "
    "of σ"
)
