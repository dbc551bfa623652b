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

from pyg_schnet.cli.options import add_files, add_verbosity, with_model
from pyg_schnet.io.console import out
from pyg_schnet.io.outputs import check_distinct, check_replaceable, format_without_results

if TYPE_CHECKING:
    from ase import Atoms

    from pyg_schnet.simulation import BatchedDynamics, Dynamics

_SHARED = ("temperature", "timestep", "duration", "thermostat", "friction", "seed", "interval", "overwrite")
_SHARED += ("closest", "max_force")
_ALONE = ("pressure", "pressure_time", "equilibration", "resume", "stop_if_uncertain")


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Run molecular dynamics. Example: pyg-schnet md RUN/model.safetensors in.xyz out.extxyz --duration 1",
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
    parser.add_argument("--thermostat", default="nve", help="'nve' (no bath) or 'langevin'")
    parser.add_argument("--friction", type=float, default=0.01, help="friction of the bath in 1/fs")
    parser.add_argument(
        "--pressure",
        type=float | None,
        help="pressure in GPa (1 bar is 0.0001) to which the cell of a crystal is scaled; requires the bath",
    )
    parser.add_argument(
        "--pressure_time", type=float, default=1000.0, help="time constant of the barostat in fs"
    )
    parser.add_argument(
        "--interval", type=int, default=10, help="number of steps between frames, and between rows of the log"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of velocities and bath")
    parser.add_argument(
        "--log",
        type=str | None,
        help="CSV file of energies, temperature and drift; OUT with .csv by default",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run of OUT if there is one, after an interruption or to a longer --duration",
    )
    parser.add_argument(
        "--closest",
        type=float | None,
        default=0.9,
        help="stop when two atoms are closer than this fraction of the shortest distance of their elements "
        "in training; null for no limit",
    )
    parser.add_argument(
        "--max_force",
        type=float | str | None,
        default="auto",
        help="stop when a force in eV/Å is larger; auto is 3 times the largest in training, null no limit",
    )
    parser.add_argument(
        "--stop_if_uncertain",
        type=float | None,
        help="stop when several models disagree on a force by more than this in eV/Å",
    )
    parser.add_argument(
        "--index",
        default="-1",
        help="index of the structure in the file, from 0; several, as in ':' or '0:10', run in a batch, each "
        "as if alone, without log, pressure, equilibration or --resume",
    )
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Run molecular dynamics."""
    from pyg_schnet.datasets.structure_file import StructureFile

    path = Path(options.out)
    check_replaceable(path)
    if path.exists() and not (options.overwrite or options.resume):
        raise FileExistsError(
            f"{path}: exists; choose another name, --resume to continue it, or --overwrite to replace it"
        )
    if options.overwrite and options.resume:
        raise ValueError("`--resume` and `--overwrite` exclude each other: continue, or begin again")
    index = _index(options.index)
    _check_outputs(options, _log_of(options) if isinstance(index, int) else None)
    frames = [atoms for _, atoms in StructureFile(options.input, options.index)]
    if (kind := format_without_results(options.out)) and not (options.quiet or options.json):
        text = f"{path}: {kind} holds no energies and forces; {path}.extxyz beside it has them."
        out.print(text, markup=False, highlight=False)
    return _run_one(frames[0], options) if isinstance(index, int) else _run_several(frames, options)


def _check_outputs(options: Namespace, log: Path | None) -> None:
    """Raise if files of the command are the same, or if the default log belongs to another run."""
    from pyg_schnet.potentials.model_files import model_files
    from pyg_schnet.simulation.restart import restart_path
    from pyg_schnet.simulation.trajectory import append_only_path

    path = Path(options.out)
    frames, restart = append_only_path(path), restart_path(path)
    inputs = {"MODEL": model_files(options.model), "IN": [options.input]}
    outputs = {"OUT": path, "OUT.extxyz": None if frames == path else frames, "OUT.restart": restart}
    check_distinct(inputs, {**outputs, "--log": log})
    if not options.log and log is not None and log.exists() and not (path.exists() or restart.exists()):
        raise FileExistsError(
            f"{log}: exists without {path}, so it belongs to another run; choose another by --log"
        )


def _log_of(options: Namespace) -> Path:
    return Path(options.log) if options.log else Path(options.out).with_suffix(".csv")


def _index(text: str) -> int | str:
    try:
        if ":" not in text:
            return int(text)
        slice(*(int(part) if part else None for part in text.split(":")))
    except (ValueError, TypeError):
        raise ValueError(
            f"`--index` must be a number or a slice such as ':' or '0:10', got {text!r}"
        ) from None
    return text


def _run_one(atoms: Atoms, options: Namespace) -> int:
    from pyg_schnet.potentials.model_files import resolve_models
    from pyg_schnet.simulation import SchNetCalculator, run_md
    from pyg_schnet.simulation.limits import training_domain_of

    atoms.calc = SchNetCalculator(resolve_models(options.model), device=options.device)
    prints = not (options.quiet or options.json)
    domain = training_domain_of(atoms.calc)
    if prints and options.pressure is not None and domain is not None and not domain.stress:
        out.print("The model was not trained on stresses: its pressure may be far off.")
    settings = {name: options[name] for name in (*_SHARED, *_ALONE)}
    with _report_saved_steps(options), _Progress(options, prints) as progress, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the potential was not trained on stresses")
        result = run_md(
            atoms, **settings, trajectory=options.out, log=_log_of(options), on_step=progress.show
        )
    if options.json:
        print(json.dumps(_numbers(result)))
    elif prints:
        _print_table(result)
    if result.stopped is None:
        return 0
    if not options.json:
        out.print(
            f"stopped: {result.stopped}; label such structures and train on them, or change --closest, "
            "--max_force or --stop_if_uncertain and --resume"
        )
    return 1


@contextmanager
def _report_saved_steps(options: Namespace) -> Iterator[None]:
    """Print how far OUT can be resumed if a signal or a full disk ends the run."""
    from pyg_schnet.simulation.restart import restart_path, resumable_step

    restart = restart_path(options.out)
    before = _modification_time(restart)
    try:
        yield
    except (KeyboardInterrupt, OSError):
        if _modification_time(restart) != before and (step := resumable_step(options.out)) is not None:
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
        self._rotation, self._barostat = options.thermostat != "nve", options.pressure is not None
        self._began: tuple[int, float] | None = None
        self._shown = 0.0

    def show(self, step: int, frame: Atoms) -> None:
        """Show a step, at most ten times a second."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown < 0.1:
            return
        from pyg_schnet.simulation.velocities import degrees_of_freedom, kinetic_temperature

        self._began, self._shown = self._began or (step, now), now
        seconds = now - self._began[1]
        rate = f"{(step - self._began[0]) / seconds:.0f} steps/s, " if seconds > 0 else ""
        rotation = self._rotation or bool(frame.pbc.any())
        count = 3 * len(frame) if self._barostat else degrees_of_freedom(frame, rotation)
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
    rows += [("trajectory", str(result.trajectory)), ("log", str(result.log))]
    for name, value in rows:
        out.print(f"{name:<14}{value}", highlight=False)


def _run_several(frames: list[Atoms], options: Namespace) -> int:
    """Run several structures in a batch; options that are not available there are rejected."""
    from pyg_schnet.potentials.model_files import resolve_models
    from pyg_schnet.simulation import run_md_batched

    defaults = build().get_defaults()
    for name in (*_ALONE, "log"):
        if options[name] != defaults[name]:
            raise ValueError(
                f"`--{name}` needs one structure, got {len(frames)} by --index {options.index}; choose one"
            )
    settings = {name: options[name] for name in _SHARED}
    before = _modification_time(options.out)
    try:
        result = run_md_batched(
            resolve_models(options.model), frames, **settings, trajectory=options.out, device=options.device
        )
    except (KeyboardInterrupt, OSError):
        if _modification_time(options.out) != before:
            text = f"{options.out} holds the frames so far; runs in a batch cannot be resumed"
            print(f"pyg-schnet: {text}", file=sys.stderr)
        raise
    if options.json:
        print(json.dumps(_batched_numbers(result)))
    elif not options.quiet:
        out.print(f"{len(frames)} structures, {result.duration:g} ps each: {options.out}")
        drifts = result.drift or [None] * len(frames)
        for number, (temperature, drift) in enumerate(zip(result.temperature, drifts, strict=True)):
            energy = "" if drift is None else f"   energy drift {drift:+.4f} meV/atom/ps"
            out.print(f"{number:>6}  {temperature:5.0f} K{energy}", highlight=False)
            if result.stopped[number] is not None:
                out.print(f"        stopped: {result.stopped[number]}", highlight=False)
    return 0 if not any(result.stopped) else 1


def _batched_numbers(result: BatchedDynamics) -> dict[str, Any]:
    names = ("steps", "duration", "stopped", "temperature", "potential_energy", "drift", "fluctuation")
    return {name: getattr(result, name) for name in names} | {"trajectory": str(result.trajectory)}
