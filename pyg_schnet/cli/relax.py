"""The verb ``relax``: the nearest minima."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_files, add_resume, add_talk, with_model
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from pyg_schnet.prediction.run import BatchRun
    from pyg_schnet.simulation import Relaxation

_ROWS = 20  # of the table
_PAIRS = 20_000  # of neighbors at once: as fast as ten times more, and less is lost in a kill


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Move the atoms of structures to where no force is left. Many structures move side by side, by FIRE. "
        "The exit code is 1 if some did not converge. A run that was killed goes on with --resume. "
        "Example: pyg-schnet relax RUN/model.safetensors in.xyz out.extxyz --fmax 0.01",
    )
    add_files(parser)
    parser.add_argument("--fmax", type=float, default=0.01, help="longest force allowed, in eV/Å")
    parser.add_argument("--steps", type=int, default=500, help="the most to take")
    parser.add_argument(
        "--optimizer",
        type=str | None,
        help="BFGS, LBFGS or FIRE; by default FIRE for many, side by side, and BFGS for one",
    )
    parser.add_argument("--cell", action="store_true", help="relax the cells too, one structure by one")
    parser.add_argument("--pressure", type=float, default=0.0, help="on the cell, in GPa")
    parser.add_argument("--trajectory", type=str | None, help="the path of one structure: .traj or .extxyz")
    add_resume(parser)
    add_talk(parser)
    return "relax structures", parser


def run(options: Namespace) -> int:
    """Relax structures."""
    from pyg_schnet.prediction.run import BatchRun, has_same_start
    from pyg_schnet.simulation.relaxation import check_goal, check_method

    check_goal(options.fmax, options.steps)
    check_method(options.optimizer or "FIRE", options.cell, options.pressure)
    settings = {name: options[name] for name in ("fmax", "steps", "optimizer", "cell", "pressure")}
    work = BatchRun(options, {"verb": "relax", **settings}, has_same_start)
    if work.results.is_complete:
        rows = [_row(atoms) for atoms in _frames_of(options.out)]
    else:
        if options.trajectory and work.is_of_many:
            raise ValueError(
                "`--trajectory` is the path of one structure, and there are several; choose with --index"
            )
        with work.results:
            rows = [_row(frame) for frame in work.earlier()]
            frames = (_labelled(result) for result in _relax(options, work))
            rows += [_row(frame) for frame in work.write(frames, "relaxing")]
            work.finish()
    converged = sum(row["converged"] for row in rows)
    if options.json:
        refused = [{"frame": number, "reason": reason} for number, reason in work.refused]
        outside = [{"frame": number, "reason": reason} for number, reason in work.outside]
        told = {
            "structures": len(rows),
            "converged": converged,
            "out": options.out,
            "refused": refused,
            "outside": outside,
        }
        print(json.dumps({**told, "results": rows}))
    elif not options.quiet:
        _tell(rows, options, work)
    return 0 if converged == len(rows) else 1


def _relax(options: Namespace, work: BatchRun) -> Iterator[Relaxation]:
    """Relax side by side where that is possible, else one by one."""
    from pyg_schnet.potentials.model_files import resolve_models
    from pyg_schnet.simulation import SchNetCalculator, StructureError, relax, relax_stream

    models, goal = resolve_models(options.model), {"fmax": options.fmax, "steps": options.steps}
    if work.is_of_many and not options.cell and options.optimizer in (None, "FIRE"):
        yield from relax_stream(
            models,
            work.structures(),
            **goal,
            max_pairs=_PAIRS,
            device=options.device,
            on_refused=work.refuse,
        )
        return
    calculator = SchNetCalculator(models, device=options.device)
    method = options.optimizer or "BFGS"
    with_path = {"trajectory": options.trajectory, "overwrite": options.overwrite}
    for place, atoms in enumerate(work.structures()):
        atoms.calc = calculator
        try:
            yield relax(
                atoms, **goal, optimizer=method, cell=options.cell, pressure=options.pressure, **with_path
            )
        except StructureError as error:
            work.refuse(StructureError(place, error.reason))
        except ValueError as error:
            work.refuse(StructureError(place, str(error)))


def _labelled(result: Relaxation) -> Atoms:
    frame = result.atoms
    frame.info |= {"converged": result.converged, "steps": result.steps}
    if result.stopped is not None:
        frame.info["stopped"] = result.stopped
    return frame


def _row(frame: Atoms) -> dict[str, Any]:
    """Give what the table tells of a frame."""
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


def _frames_of(path: str) -> Iterator[Atoms]:
    from pyg_schnet.datasets.structure_file import StructureFile

    return (atoms for _, atoms in StructureFile(path))


def _tell(rows: list[dict[str, Any]], options: Namespace, work: BatchRun) -> None:
    """Print how far the structures got: all of a few, those that did not converge of many."""
    shown = rows if len(rows) <= _ROWS else [row for row in rows if not row["converged"]]
    if len(rows) == 1:
        (row,) = rows
        state = "converged" if row["converged"] else "NOT converged"
        work.tell(
            f"{state} after {row['steps']} steps: energy {row['energy']:.6f} eV, longest force "
            f"{row['fmax']:.4f} eV/Å: {options.out}"
        )
        if not row["converged"] and not row["stopped"]:
            work.tell(f"take more than --steps {options.steps} from there, or a larger --fmax")
    else:
        if shown:
            out.print(_table(shown[:_ROWS]), soft_wrap=False)
        if len(shown) > _ROWS:
            work.tell(f"and {len(shown) - _ROWS:,} more that did not converge")
        steps = sorted(row["steps"] for row in rows)
        work.tell(
            f"{sum(row['converged'] for row in rows):,} of {len(rows):,} structures converged, in {steps[0]} "
            f"to {steps[-1]} steps, half of them within {steps[len(steps) // 2]}: {options.out}"
        )
    for row in [row for row in shown if row["stopped"]][:_ROWS]:
        work.tell(f"stopped: frame {row['frame']} at step {row['steps']}: {row['stopped']}")
    work.tell_refused()
    work.tell_outside()


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
