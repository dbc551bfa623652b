"""The command ``evaluate``: errors on structures with reference labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from pyg_schnet.cli.options import add_batch_size, add_keys, add_verbosity, group, with_model
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from pyg_schnet.training.evaluation import ModelEvaluation

_SETTINGS = ("energy_key", "forces_key", "stress_key", "units", "batch_size", "plot", "plot_calibration")
_SETTINGS += ("calibrate", "overwrite", "device", "threads")
_OUTPUTS = {
    "plot": "predictions over labels",
    "plot_calibration": "errors over deviations",
    "calibrate": "calibrated ensemble",
}


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Compare predictions with labels: mean absolute and RMS errors of energies (per structure), forces "
        "(over all components) and stresses. Several models are evaluated as an ensemble: the errors are "
        "those of its mean, and its deviations are compared with them. "
        "Example: pyg-schnet evaluate RUN FILE --part test\n"
        "pyg-schnet evaluate A,B,C FILE --part val --calibrate ensemble.json",
    )
    parser.add_argument("file", metavar="FILE", help="structures with labels, as for train's data.path")
    parser.add_argument(
        "--part",
        type=str | None,
        help="'train', 'val' or 'test': evaluate this part of FILE, read from split.npz beside MODEL",
    )
    add_keys(parser, 'units of FILE, such as "kcal/mol"; by default those of the run, for the same format')
    add_batch_size(parser)
    parser.add_argument(
        "--plot", type=str | None, metavar="PICTURE", help="picture of predictions over labels to draw"
    )
    parser.add_argument(
        "--plot_calibration",
        type=str | None,
        metavar="PICTURE",
        help="picture of errors over deviations of several models to draw",
    )
    parser.add_argument(
        "--calibrate",
        type=str | None,
        metavar="FILE",
        help="ensemble.json to write, with deviations scaled to the errors on FILE; use --part val",
    )
    group(parser, "output").add_argument(
        "--overwrite", action="store_true", help="replace ensemble.json if it exists"
    )
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Compare the predictions of a potential with labels."""
    from pyg_schnet.training.evaluation import evaluate

    settings = {name: options[name] for name in _SETTINGS}
    errors = evaluate(options.model, options.file, options.part, **settings)
    if options.json:
        print(json.dumps(errors.as_dict()))
    elif not options.quiet:
        _print(errors, options)
    return 0


def _print(errors: ModelEvaluation, options: Namespace) -> None:
    from pyg_schnet.io.units import Units

    out.print(_table(errors), soft_wrap=False)
    if errors.units:
        sentence = Units.parse(errors.units).sentence()
        out.print(f"{options.file}: read in {sentence}, the units of the model's training data")
    if errors.keys:
        keys = ", ".join(f"{name} {key!r}" for name, key in errors.keys.items())
        out.print(f"{options.file}: read with {keys}, as in training")
    if note := errors.note():
        out.print(f"{note}; --part test leaves them out")
    if errors.calibration:
        out.print(_calibration_table(errors), soft_wrap=False)
    for name, what in _OUTPUTS.items():
        if options[name] is not None:
            out.print(f"{what}: {options[name]}")


def _table(errors: ModelEvaluation) -> Table:
    from pyg_schnet.io.units import kcal_per_mol

    table = Table(title=f"Errors on {errors.n:,} structures", title_justify="left")
    rows, properties = errors.rows(), errors.properties.values()
    in_eV = any(own.target.unit == "eV" for own in properties)
    columns = ("", "MAE", "RMSE", "unit", *(("MAE", "RMSE", "unit") if rows or in_eV else ()))
    for name in columns:
        table.add_column(name, justify="left" if name in ("", "unit") else "right")
    for name, mae, rmse, unit, other_mae, other_rmse, other in rows:
        table.add_row(name, f"{mae:.2f}", f"{rmse:.2f}", unit, f"{other_mae:.4f}", f"{other_rmse:.4f}", other)
    for own in properties:
        in_kcal = [f"{error / kcal_per_mol:.4g}" for error in (own.mae, own.rmse)]
        other = (*in_kcal, "kcal/mol") if own.target.unit == "eV" else ()
        table.add_row(own.target.name, f"{own.mae:.4g}", f"{own.rmse:.4g}", own.target.shown_unit, *other)
    return table


def _calibration_table(errors: ModelEvaluation) -> Table:
    title = f"Deviations of {errors.potentials} potentials compared with their errors"
    table = Table(title=title, title_justify="left", caption=_CAPTION, caption_justify="left")
    table.add_column("")
    states = ("calibrated", "recalibrated") if errors.is_calibrated else ("raw", "calibrated")
    for name in (*states, "ideal"):
        table.add_column(name, justify="right")
    for name, before in errors.calibration.items():
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
