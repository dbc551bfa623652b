"""The command ``relax``: the nearest minima of structures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.batch_run import BatchProgress, print_line, print_reasons, reasons_as_dict
from pyg_schnet.cli.options import add_files, add_resume, add_verbosity, with_model
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table


_MAX_ROWS = 20  # of the table of structures
_MAX_STARTS = 5  # listed that are outside of the training domain


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Relax structures, and optionally cells, to the nearest minimum of the energy. Several structures "
        "are relaxed at once, by FIRE. The exit code is 1 if some did not converge, or ended outside of the "
        "training data: with atoms too close, or in fragments. --resume continues a run that was killed. "
        "Example: pyg-schnet relax RUN in.xyz out.extxyz --fmax 0.01\n"
        "pyg-schnet relax RUN crystal.cif out.extxyz --cell --pressure 0",
    )
    add_files(parser)
    parser.add_argument("--fmax", type=float, default=0.01, help="largest force at convergence, in eV/Å")
    parser.add_argument("--steps", type=int, default=500, help="maximum number of steps")
    parser.add_argument(
        "--optimizer",
        type=str | None,
        help="BFGS, LBFGS or FIRE; by default FIRE for several structures, and BFGS for one",
    )
    parser.add_argument(
        "--cell", action="store_true", help="also relax the cells, of one structure after the other"
    )
    parser.add_argument("--pressure", type=float, default=0.0, help="pressure on the cell, in GPa")
    parser.add_argument(
        "--trajectory",
        type=str | None,
        metavar="FILE",
        help="trajectory of the relaxation of one structure to write, .traj or .extxyz",
    )
    add_resume(parser)
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Relax structures."""
    from pyg_schnet.potentials.device import use_threads
    from pyg_schnet.prediction.relaxation import relax_file
    from pyg_schnet.simulation.relaxation import check_goal, check_method

    check_goal(options.fmax, options.steps)
    check_method(options.optimizer or "FIRE", options.cell, options.pressure)
    settings = {name: options[name] for name in ("fmax", "steps", "optimizer", "cell", "pressure")}
    files = {name: options[name] for name in ("index", "overwrite", "resume", "skip", "trajectory")}
    rows: list[dict[str, Any]] = []
    progress = BatchProgress(options, "relaxing")
    with progress.shown(), use_threads(options.threads):
        results = relax_file(
            *(options.model, options.input, options.out, settings, options.device),
            lambda frame: rows.append(_row(frame)),
            **files,
            on_progress=progress.show,
        )
    converged = sum(row["converged"] for row in rows)
    reasons = results.rejected, results.outside
    if options.json:
        report = {"structures": len(rows), "converged": converged, "out": options.out}
        print(json.dumps({**report, **reasons_as_dict(*reasons), "results": rows}))
    elif not options.quiet:
        _print(rows, options)
        print_reasons(options, *reasons)
    return 0 if converged == len(rows) else 1


def _row(frame: Atoms) -> dict[str, Any]:
    """Return the row of a frame in the table."""
    import numpy as np

    info, forces = frame.info, frame.get_forces()
    return {
        "frame": int(info.get("input_frame", -1)),
        "formula": frame.get_chemical_formula(),
        "converged": bool(info.get("converged", False)),
        "steps": int(info.get("steps", 0)),
        "energy": float(frame.get_potential_energy()),
        "fmax": float(info.get("fmax", np.linalg.norm(forces, axis=1).max())),
        "stopped": info.get("stopped"),
        "start_outside": info.get("start_outside"),
    }


def _print(rows: list[dict[str, Any]], options: Namespace) -> None:
    """Print the results of a few structures, or those that did not converge of many."""
    shown = rows if len(rows) <= _MAX_ROWS else [row for row in rows if not row["converged"]]
    if len(rows) == 1:
        (row,) = rows
        state = "converged" if row["converged"] else "NOT converged"
        print_line(
            options,
            f"{state} after {row['steps']} steps: energy {row['energy']:.6f} eV, longest force "
            f"{row['fmax']:.4f} eV/Å: {options.out}",
        )
        if not row["converged"] and not row["stopped"]:
            print_line(
                options, f"continue from there with more than --steps {options.steps}, or use a larger --fmax"
            )
    else:
        if shown:
            out.print(_table(shown[:_MAX_ROWS]), soft_wrap=False)
        if len(shown) > _MAX_ROWS:
            print_line(options, f"and {len(shown) - _MAX_ROWS:,} more that did not converge")
        steps = sorted(row["steps"] for row in rows)
        print_line(
            options,
            f"{sum(row['converged'] for row in rows):,} of {len(rows):,} structures converged, in {steps[0]} "
            f"to {steps[-1]} steps, half of them within {steps[len(steps) // 2]}: {options.out}",
        )
    for row in [row for row in shown if row["stopped"]][:_MAX_ROWS]:
        print_line(options, f"stopped: frame {row['frame']} at step {row['steps']}: {row['stopped']}")
    starts = [row for row in rows if row["start_outside"]]
    for row in starts[:_MAX_STARTS]:
        print_line(
            options,
            f"the start of frame {row['frame']} is outside of the training domain: {row['start_outside']}",
        )
    if len(starts) > _MAX_STARTS:
        print_line(options, f"and {len(starts) - _MAX_STARTS:,} more starts")


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table()
    for name in ("frame", "formula", "steps", "energy, eV", "longest force, eV/Å", ""):
        table.add_column(name, justify="left" if name in ("formula", "") else "right")
    for row in rows:
        state = "converged" if row["converged"] else "stopped" if row["stopped"] else "NOT converged"
        numbers = str(row["frame"]), row["formula"], str(row["steps"]), f"{row['energy']:.4f}"
        table.add_row(*numbers, f"{row['fmax']:.4f}", state)
    return table
