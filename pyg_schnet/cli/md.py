"""The command ``md``: molecular dynamics."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_files, add_verbosity, group, with_model
from pyg_schnet.io.console import out
from pyg_schnet.io.outputs import format_without_results

if TYPE_CHECKING:
    from ase import Atoms

    from pyg_schnet.simulation import BatchedDynamics, Dynamics

_SETTINGS = ("temperature", "timestep", "duration", "equilibration", "thermostat", "friction", "pressure")
_SETTINGS += (
    "pressure_time",
    "barostat",
    "fix",
    "rigid_hydrogens",
    "interval",
    "seed",
    "log",
    "closest",
    "max_force",
    "stop_if_uncertain",
    "index",
)
_SETTINGS += ("overwrite", "resume", "device", "threads")


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Run molecular dynamics, with constant energy or, by --thermostat and --pressure, at constant "
        "temperature and pressure. Frames go to OUT, energies and temperature to a CSV file beside it. "
        "The run stops, with its last valid frame, where atoms come closer or forces become larger than in "
        "training; the exit code is 1 then. --resume continues OUT, with the result of an uninterrupted run. "
        "Example: pyg-schnet md RUN in.xyz out.extxyz --duration 10\n"
        "pyg-schnet md RUN in.xyz out.extxyz --thermostat langevin",
    )
    add_files(parser, "trajectory: .traj or .extxyz, or another format in which ASE writes many frames")
    parser.add_argument(
        "--temperature",
        type=float,
        default=300.0,
        help="temperature of the bath in K, without a bath of the initial velocities; a relaxed structure "
        "then settles near half of it",
    )
    parser.add_argument("--timestep", type=float, default=0.5, help="time step in fs")
    parser.add_argument(
        "--duration", type=float, default=1.0, help="simulated time in ps, that of a resumed run included"
    )
    parser.add_argument(
        "--equilibration", type=float, default=0.0, help="time in ps with the bath before the run"
    )
    parser.add_argument(
        "--thermostat",
        default="nve",
        help="'nve' (no bath), 'langevin', 'baoab' (Langevin, moves the center of mass), 'bussi' (velocity "
        "rescaling) or 'nose-hoover' (a chain); several structures: nve or langevin",
    )
    parser.add_argument(
        "--friction", type=float, default=0.01, help="friction of the bath in 1/fs, the inverse of its time"
    )
    parser.add_argument(
        "--pressure",
        type=float | None,
        help="pressure in GPa (1 bar is 0.0001) that the cell of a crystal keeps; requires 'langevin', "
        "'baoab' or 'nose-hoover'",
    )
    parser.add_argument(
        "--pressure_time", type=float, default=1000.0, help="time constant of the barostat in fs"
    )
    parser.add_argument(
        "--barostat",
        default="isotropic",
        help="'isotropic' keeps the shape of the cell, 'full' changes all of it and requires 'nose-hoover'",
    )
    parser.add_argument(
        "--fix",
        type=str | None,
        metavar="ATOMS",
        help="atoms that do not move: indices from 0, slices and elements with commas, as 0:8,Si",
    )
    parser.add_argument(
        "--rigid_hydrogens",
        action="store_true",
        help="keep the lengths of bonds of hydrogen, for a longer --timestep",
    )
    group(parser, "output").add_argument(
        "--interval", type=int, default=10, help="number of steps between frames, and between rows of the log"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of velocities and bath")
    group(parser, "output").add_argument(
        "--log",
        type=str | None,
        metavar="FILE",
        help="CSV file of energies, temperature and drift; OUT with .csv by default",
    )
    group(parser, "output").add_argument(
        "--resume",
        action="store_true",
        help="continue the run of OUT if there is one, after an interruption or to a longer --duration",
    )
    limits = group(parser, "limits")
    limits.add_argument(
        "--closest",
        type=float | None,
        default=0.9,
        help="stop when two atoms are closer than this fraction of the shortest distance of their elements "
        "in training; null for no limit",
    )
    limits.add_argument(
        "--max_force",
        type=float | str | None,
        default="auto",
        help="stop when a force in eV/Å is larger; auto is 3 times the largest in training, null no limit",
    )
    limits.add_argument(
        "--stop_if_uncertain",
        type=float | None,
        help="stop when several models disagree on a force by more than this in eV/Å",
    )
    group(parser, "structures").add_argument(
        "--index",
        default="-1",
        help="index of the structure in the file, from 0; several, as in ':' or '0:10', run in a batch, each "
        "as if alone, without log, pressure, equilibration or constraints",
    )
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Run molecular dynamics."""
    from pyg_schnet.simulation import Dynamics
    from pyg_schnet.simulation.dynamics import md

    prints = not (options.quiet or options.json)
    settings = {name: options[name] for name in _SETTINGS}
    with _report_saved_steps(options), _Progress(options, prints) as progress, warnings.catch_warnings():
        if not prints:
            warnings.filterwarnings("ignore", "the potential was not trained on stresses")
        result = md(options.model, options.input, options.out, **settings, on_step=progress.show)
    if isinstance(result, Dynamics):
        return _report_one(result, options)
    return _report_several(result, options)


def _report_one(result: Dynamics, options: Namespace) -> int:
    if options.json:
        print(json.dumps(_numbers(result)))
    elif not options.quiet:
        _print_table(result)
        _print_format(options.out)
    if result.stopped is None:
        return 0
    if not options.json:
        out.print(
            f"stopped: {result.stopped}; label such structures and train on them, or change --closest, "
            "--max_force or --stop_if_uncertain and --resume"
        )
    return 1


def _print_format(path: str) -> None:
    """Print if a file has no energies and forces."""
    if kind := format_without_results(path):
        text = f"{path}: {kind} holds no energies and forces; {path}.extxyz beside it has them."
        out.print(text, markup=False, highlight=False)


@contextmanager
def _report_saved_steps(options: Namespace) -> Iterator[None]:
    """Print what OUT holds if a signal or a full disk ends the run, and whether it can be resumed."""
    from pyg_schnet.simulation.restart import restart_path, resumable_step

    restart = restart_path(options.out)
    before = _modification_time(restart)
    try:
        yield
    except (KeyboardInterrupt, OSError):
        batched = ":" in options.index
        if (
            _modification_time(restart) != before
            and (step := resumable_step(options.out, batched)) is not None
        ):
            text = f"{step:,} steps ({step * options.timestep / 1000:g} ps) are done, in {options.out}"
            print(f"pyg-schnet: {text}; --resume continues", file=sys.stderr)
        raise


def _modification_time(path: str | Path) -> int | None:
    """Return when a file was written, if it exists."""
    return Path(path).stat().st_mtime_ns if Path(path).exists() else None


class _Progress:
    """Progress bar with steps per second, temperature and energy, on a terminal."""

    def __init__(self, options: Namespace, prints: bool):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from pyg_schnet.simulation.integrators import number_of_steps

        columns = (BarColumn(), "{task.completed}/{task.total} steps", TextColumn("{task.description}"))
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=out, disable=not (prints and out.is_terminal)
        )
        valid = options.timestep > 0 and 0 < options.duration < float("inf")  # run_md raises if not
        self._task = self._bar.add_task(
            "", total=number_of_steps(options.duration, options.timestep) if valid else 1
        )
        self._thermostat, self._barostat = options.thermostat, options.pressure is not None
        self._timestep = options.timestep
        self._began: tuple[int, float] | None = None
        self._shown = 0.0

    def show(self, step: int, frame: Atoms) -> None:
        """Show a step, at most ten times a second."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown < 0.1:
            return
        from pyg_schnet.simulation.integrators import modes_of_motion, ns_per_day
        from pyg_schnet.simulation.velocities import degrees_of_freedom, kinetic_temperature

        self._began, self._shown = self._began or (step, now), now
        seconds = now - self._began[1]
        done = step - self._began[0]
        speed = ns_per_day(done, self._timestep, seconds)
        rate = "" if speed is None else f"{done / seconds:.0f} steps/s, {speed:.3g} ns/day, "
        modes = modes_of_motion(self._thermostat, self._barostat, bool(frame.pbc.any()))
        count = degrees_of_freedom(frame, **modes)
        text = f"{rate}{kinetic_temperature(frame, count):.0f} K, {frame.get_potential_energy():.4f} eV"
        self._bar.update(self._task, completed=step, description=text)

    def __enter__(self) -> _Progress:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)


def _numbers(result: Dynamics) -> dict[str, Any]:
    """Return the values that --json prints, paths as strings."""
    numbers = {name: getattr(result, name) for name in result.__dataclass_fields__ if name != "atoms"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in numbers.items()}


def _print_table(result: Dynamics) -> None:
    rows = [
        ("run", f"{result.duration:g} ps, {result.steps:,} steps"),
        ("temperature", f"{result.temperature:.0f} K"),
    ]
    if result.drift is not None and result.fluctuation is not None:
        rows.append(("energy drift", f"{result.drift:+.4f} meV/atom/ps"))
        rows.append(("fluctuation", f"{result.fluctuation:.4f} meV/atom"))
    if result.pressure is not None and result.volume is not None:
        rows.append(("pressure", f"{result.pressure:.3f} GPa"))
        rows.append(("volume", f"{result.volume:.2f} Å³"))
    if result.ns_per_day is not None:
        rows.append(("speed", f"{result.ns_per_day:.3g} ns/day"))
    rows += [("trajectory", str(result.trajectory)), ("log", str(result.log))]
    for name, value in rows:
        out.print(f"{name:<14}{value}", highlight=False)


def _report_several(result: BatchedDynamics, options: Namespace) -> int:
    if options.json:
        print(json.dumps(_batched_numbers(result)))
    elif not options.quiet:
        count = len(result.atoms)
        speed = "" if result.ns_per_day is None else f", {result.ns_per_day:.3g} ns/day of all"
        out.print(f"{count} structures, {result.duration:g} ps each{speed}: {options.out}", highlight=False)
        drifts = result.drift or [None] * count
        for number, (temperature, drift) in enumerate(zip(result.temperature, drifts, strict=True)):
            energy = "" if drift is None else f"   energy drift {drift:+.4f} meV/atom/ps"
            out.print(f"{number:>6}  {temperature:5.0f} K{energy}", highlight=False)
            if result.stopped[number] is not None:
                out.print(f"        stopped: {result.stopped[number]}", highlight=False)
        _print_format(options.out)
    return 0 if not any(result.stopped) else 1


def _batched_numbers(result: BatchedDynamics) -> dict[str, Any]:
    names = ("steps", "duration", "stopped", "temperature", "potential_energy", "drift", "fluctuation")
    names += ("ns_per_day",)
    return {name: getattr(result, name) for name in names} | {"trajectory": str(result.trajectory)}
