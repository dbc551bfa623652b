"""The verb ``evaluate``: errors on labelled structures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from pyg_schnet.cli.files import check_picture, read_part, split_models
from pyg_schnet.cli.options import with_model
from pyg_schnet.cli.terminal import out

if TYPE_CHECKING:
    from pyg_schnet.evaluation import Evaluation


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Compare predictions with labels. Energies are per molecule; forces are over all atoms and "
        "components. Several models, joined by commas, are measured as one: their mean. Example: "
        "pyg-schnet evaluate RUN/model.safetensors FILE --json",
    )
    parser.add_argument("file", help="labelled structures, as for train's data.path")
    parser.add_argument("--energy_key", type=str | None, help="key of the energies")
    parser.add_argument("--forces_key", type=str | None, help="key of the forces, 'none' for none")
    parser.add_argument("--stress_key", type=str | None, help="key of the stresses, 'none' for none")
    parser.add_argument("--units", type=str | None, help='of the file, as "kcal/mol"')
    parser.add_argument(
        "--part",
        type=str | None,
        help="'train', 'val' or 'test': this part of FILE, by the split.npz beside MODEL",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    parser.add_argument("--plot", type=str | None, help="draw predictions over labels into this picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return "errors on labelled structures", parser


def run(options: Namespace) -> int:
    """Compare a potential with labels."""
    from pyg_schnet import Ensemble, load
    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.evaluation import evaluate
    from pyg_schnet.plots import plot_parity

    if options.plot is not None:
        check_picture(options.plot)
    models = split_models(options.model)
    potential = load(models[0], options.device) if len(models) == 1 else Ensemble.load(models, options.device)
    dataset = AtomsDataset(
        path=options.file,
        energy_key=options.energy_key,
        forces_key=options.forces_key,
        stress_key=options.stress_key,
        units=options.units,
        memory_map=options.file.endswith(".safetensors"),
    )
    if options.part is not None:
        dataset = dataset[read_part(models, options.part, options.file, len(dataset))]
        assert isinstance(dataset, AtomsDataset)
    evaluation = evaluate(potential, dataset, options.batch_size)
    if options.json:
        print(json.dumps(evaluation.as_dict()))
    else:
        out.print(_table(evaluation))
    if options.plot is not None:
        plot_parity(evaluation, options.plot)
        if not options.json:
            out.print(f"predictions over labels: {options.plot}")
    return 0


def _table(evaluation: Evaluation) -> Table:
    from pyg_schnet.units import GPa, kcal_per_mol

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
