"""The command ``evaluate``: errors on structures with reference labels."""

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


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Compare predictions with labels. Errors of energies are per structure, errors of forces over all "
        "atoms and components. Several models, joined by commas, are evaluated as an ensemble: the errors "
        "are those of its mean, and its deviations are compared with them. "
        "Example: pyg-schnet evaluate RUN/model.safetensors FILE --part test",
    )
    parser.add_argument("file", metavar="FILE", help="structures with labels, as for train's data.path")
    parser.add_argument("--energy_key", type=str | None, help="key of the energies")
    parser.add_argument("--forces_key", type=str | None, help="key of the forces, or 'none'")
    parser.add_argument("--stress_key", type=str | None, help="key of the stresses, or 'none'")
    parser.add_argument(
        "--units",
        type=str | None,
        help='units of FILE, as "kcal/mol"; by default those of the run of MODEL, for the same format',
    )
    parser.add_argument(
        "--part",
        type=str | None,
        help="'train', 'val' or 'test': evaluate this part of FILE, read from split.npz beside MODEL",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="structures evaluated at once")
    parser.add_argument("--plot", type=str | None, help="picture of predictions over labels to draw")
    parser.add_argument(
        "--plot_calibration",
        type=str | None,
        help="picture of errors over deviations of several models to draw",
    )
    parser.add_argument(
        "--calibrate",
        type=str | None,
        help="ensemble.json to write, with deviations scaled to the errors on FILE; use --part val",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace ensemble.json if it exists")
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Compare the predictions of a potential with labels."""
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
    can_calibrate = deviation is not None and evaluation.n >= MIN_STRUCTURES and bool((deviation > 0).any())
    by_quantity = calibrations(evaluation) if can_calibrate or _must_calibrate(options) else {}
    written = {}
    if options.plot is not None:
        plot_parity(evaluation, options.plot)
        written["predictions over labels"] = options.plot
    if options.plot_calibration is not None:
        plot_calibration(by_quantity, options.plot_calibration)
        written["errors over deviations"] = options.plot_calibration
    if options.calibrate is not None:
        with_factors(potential, by_quantity).save(options.calibrate, paths)
        written["calibrated ensemble"] = options.calibrate
    if options.json:
        calibration = {name: one.as_dict() for name, one in by_quantity.items()}
        optional = {"trained_on": trained, "units": units, "calibration": calibration}
        print(json.dumps(evaluation.as_dict() | {name: value for name, value in optional.items() if value}))
        return 0
    if options.quiet:
        return 0
    out.print(_table(evaluation), soft_wrap=False)
    if units:
        out.print(
            f"{options.file}: read in {dataset.units.sentence()}, the units of the model's training data"
        )
    if trained:
        out.print(
            f"{trained:,} of these structures were trained on, which makes errors small; --part test leaves "
            "them out"
        )
    if by_quantity:
        out.print(_calibration_table(by_quantity, len(paths), potential.is_calibrated), soft_wrap=False)
    for what, path in written.items():
        out.print(f"{what}: {path}")
    return 0


def _must_calibrate(options: Namespace) -> bool:
    return options.calibrate is not None or options.plot_calibration is not None


def _check(options: Namespace, potentials: int) -> None:
    """Raise before the evaluation for options and outputs that would fail after it."""
    from pyg_schnet.potentials.model_files import model_files

    names = ("plot", "plot_calibration", "calibrate")
    inputs = {"MODEL": model_files(options.model), "FILE": [options.file]}
    check_distinct(inputs, {f"--{name}": options[name] for name in names})
    for picture in (options.plot, options.plot_calibration):
        if picture is not None:
            check_picture(picture)
    if _must_calibrate(options) and potentials < 2:
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
            "`--calibrate` must be on structures that were not trained on, got --part train; use --part val"
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


def _calibration_table(by_quantity: dict[str, Calibration], potentials: int, is_calibrated: bool) -> Table:
    title = f"Deviations of {potentials} potentials compared with their errors"
    table = Table(title=title, title_justify="left", caption=_CAPTION, caption_justify="left")
    table.add_column("")
    states = ("calibrated", "recalibrated") if is_calibrated else ("raw", "calibrated")
    for name in (*states, "ideal"):
        table.add_column(name, justify="right")
    for name, before in by_quantity.items():
        unit = "meV/atom" if name == "energy" else "meV/Å"
        both = (before, before.scaled(before.factor))
        table.add_row(f"{name}: factor", "1", f"{before.factor:.3f}", "")
        rms = (both[0].sharpness, both[1].sharpness, before.rmse)
        table.add_row(f"{name}: RMS deviation ({unit})", *(f"{1e3 * value:.3g}" for value in rms))
        for k in (1, 2):
            shares = (*(one.share_within(k) for one in both), before.expected_share(k))
            table.add_row(f"{name}: errors within {k}σ (%)", *(f"{100 * value:.1f}" for value in shares))
        areas = (f"{one.miscalibration_area:.3f}" for one in both)
        table.add_row(f"{name}: miscalibration area", *areas, "0")
        table.add_row(f"{name}: ENCE", *(f"{one.ence:.2f}" for one in both), "")
        ranks = (f"{one.rank_correlation:.2f}" for one in both)
        table.add_row(f"{name}: Spearman correlation", *ranks, "", end_section=True)
    return table


_CAPTION = (
    "σ: deviation. Energies are per atom; for forces, RMS values are of vectors and percentages of "
    "components. Ideal values: RMS of the errors, and percentages of Student's distribution, which are 68.3 "
    "and 95.4 for many potentials. ENCE (expected normalized calibration error): mean over bins of σ of the "
    "difference of RMS error and σ, relative to σ"
)
