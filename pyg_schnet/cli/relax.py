"""The command ``relax``: the nearest minima of structures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_files, add_resume, add_verbosity, with_model
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from pyg_schnet.cli.batch_run import CommandRun
    from pyg_schnet.simulation import Relaxation

_MAX_ROWS = 20  # of the table of structures
_MAX_PAIRS = 20_000  # pairs of neighbors at once: as fast as ten times more, and a kill loses less work


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Relax structures to the nearest minimum of the energy. Several structures are relaxed at once, by "
        "FIRE. The exit code is 1 if some did not converge. --resume continues a run that was killed. "
        "Example: pyg-schnet relax RUN/model.safetensors in.xyz out.extxyz --fmax 0.01",
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
        help="trajectory of the relaxation of one structure to write, .traj or .extxyz",
    )
    add_resume(parser)
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Relax structures."""
    from pyg_schnet.cli.batch_run import CommandRun
    from pyg_schnet.datasets.structure_file import StructureFile
    from pyg_schnet.potentials.checkpoint import load
    from pyg_schnet.potentials.model_files import checkpoint_paths, resolve_models
    from pyg_schnet.potentials.training_domain import TrainingDomain
    from pyg_schnet.prediction.run import has_same_start
    from pyg_schnet.simulation.relaxation import check_goal, check_method

    check_goal(options.fmax, options.steps)
    check_method(options.optimizer or "FIRE", options.cell, options.pressure)
    settings = {name: options[name] for name in ("fmax", "steps", "optimizer", "cell", "pressure")}
    models = resolve_models(options.model)
    paths = [path for path in checkpoint_paths(models) if Path(path).is_file()]
    domain = TrainingDomain.intersection([load(path).domain for path in paths])
    command = CommandRun(options, {"verb": "relax", **settings}, has_same_start, domain=domain)
    if command.results.is_complete:
        rows = [_row(atoms) for _, atoms in StructureFile(options.out)]
    else:
        if options.trajectory and command.is_of_many:
            raise ValueError(
                "`--trajectory` must be used with a single structure, got several; select one with --index"
            )
        with command.open_results():
            command.run.check_earlier()
            rows = [_row(frame) for frame in command.results.frames()]
            with command.progress("relaxing") as advance:
                for result in _relax(options, command, models):
                    frame = result.atoms
                    frame.info |= {"converged": result.converged, "steps": result.steps}
                    if result.stopped is not None:
                        frame.info["stopped"] = result.stopped
                    command.run.write(frame)
                    rows.append(_row(frame))
                    advance(1)
            command.results.finish()
    converged = sum(row["converged"] for row in rows)
    if options.json:
        report = {"structures": len(rows), "converged": converged, "out": options.out, **command.reasons()}
        print(json.dumps({**report, "results": rows}))
    elif not options.quiet:
        _report(rows, options, command)
    return 0 if converged == len(rows) else 1


def _relax(options: Namespace, command: CommandRun, models: list[str]) -> Iterator[Relaxation]:
    """Relax structures in batches if the options allow it, else one after the other."""
    from pyg_schnet.simulation import SchNetCalculator, StructureError, relax, relax_stream

    run, goal = command.run, {"fmax": options.fmax, "steps": options.steps}
    if command.is_of_many and not options.cell and options.optimizer in (None, "FIRE"):
        yield from relax_stream(
            models,
            run.structures(),
            **goal,
            max_pairs=_MAX_PAIRS,
            device=options.device,
            on_refused=run.reject,
        )
        return
    calculator = SchNetCalculator(models, device=options.device)
    settings = {
        **goal,
        "optimizer": options.optimizer or "BFGS",
        "cell": options.cell,
        "pressure": options.pressure,
        "trajectory": options.trajectory,
        "overwrite": options.overwrite,
    }
    for number, atoms in enumerate(run.structures()):
        atoms.calc = calculator
        try:
            yield relax(atoms, **settings)
        except StructureError as error:
            run.reject(StructureError(number, error.reason))
        except ValueError as error:
            run.reject(StructureError(number, str(error)))


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
        "fmax": float(np.linalg.norm(forces, axis=1).max()),
        "stopped": info.get("stopped"),
    }


def _report(rows: list[dict[str, Any]], options: Namespace, command: CommandRun) -> None:
    """Print the results of a few structures, or those that did not converge of many."""
    shown = rows if len(rows) <= _MAX_ROWS else [row for row in rows if not row["converged"]]
    if len(rows) == 1:
        (row,) = rows
        state = "converged" if row["converged"] else "NOT converged"
        command.print(
            f"{state} after {row['steps']} steps: energy {row['energy']:.6f} eV, longest force "
            f"{row['fmax']:.4f} eV/Å: {options.out}"
        )
        if not row["converged"] and not row["stopped"]:
            command.print(
                f"continue from there with more than --steps {options.steps}, or use a larger --fmax"
            )
    else:
        if shown:
            out.print(_table(shown[:_MAX_ROWS]), soft_wrap=False)
        if len(shown) > _MAX_ROWS:
            command.print(f"and {len(shown) - _MAX_ROWS:,} more that did not converge")
        steps = sorted(row["steps"] for row in rows)
        command.print(
            f"{sum(row['converged'] for row in rows):,} of {len(rows):,} structures converged, in {steps[0]} "
            f"to {steps[-1]} steps, half of them within {steps[len(steps) // 2]}: {options.out}"
        )
    for row in [row for row in shown if row["stopped"]][:_MAX_ROWS]:
        command.print(f"stopped: frame {row['frame']} at step {row['steps']}: {row['stopped']}")
    command.print_reasons()


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
