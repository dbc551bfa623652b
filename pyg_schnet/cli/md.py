"""The verb ``md``: molecular dynamics."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.files import structure
from pyg_schnet.cli.options import add_files, with_model
from pyg_schnet.cli.terminal import out


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Run molecular dynamics. Example: pyg-schnet md RUN/model.safetensors in.xyz out.extxyz --duration 1",
    )
    add_files(parser, "a trajectory: .traj, .extxyz or .xyz")
    parser.add_argument(
        "--temperature",
        type=float,
        default=300.0,
        help="in K: of the start, or of the bath; without a bath, a relaxed structure settles at half of it",
    )
    parser.add_argument("--timestep", type=float, default=0.5, help="in fs")
    parser.add_argument("--duration", type=float, default=1.0, help="in ps")
    parser.add_argument("--equilibration", type=float, default=0.0, help="in ps, with the bath, before")
    parser.add_argument("--thermostat", default="nve", help="'nve' (none) or 'langevin'")
    parser.add_argument("--friction", type=float, default=0.01, help="of the bath, in 1/fs")
    parser.add_argument("--interval", type=int, default=10, help="steps between two frames")
    parser.add_argument("--seed", type=int, default=0, help="of velocities and bath")
    parser.add_argument(
        "--stop_if_uncertain",
        type=float | None,
        help="stop when several models disagree on a force by more than this, in eV/Å",
    )
    parser.add_argument("--index", type=int, default=-1, help="which structure of the file, from 0")
    return "molecular dynamics", parser


def run(options: Namespace) -> int:
    """Run molecular dynamics."""
    from rich.progress import Progress

    from pyg_schnet.simulation import run_md

    names = ("temperature", "timestep", "duration", "equilibration", "thermostat", "friction")
    others = ("interval", "seed", "overwrite", "stop_if_uncertain")
    settings = {name: options[name] for name in (*names, *others)}
    if Path(options.out).exists() and not options.overwrite:
        raise FileExistsError(f"{options.out}: exists; give another name, or --overwrite to replace it")
    atoms = structure(options)
    if not options.timestep > 0:
        raise ValueError(f"`timestep` must be positive and in fs, got {options.timestep}")
    with Progress(console=out, disable=not out.is_terminal) as progress:
        task = progress.add_task("dynamics", total=round(1000 * options.duration / options.timestep))
        result = run_md(
            atoms,
            **settings,
            trajectory=options.out,
            on_step=lambda step, _: progress.update(task, completed=step),
        )
    out.print(f"{result.duration:g} ps, mean temperature {result.temperature:.0f} K: {options.out}")
    if result.drift is not None:
        out.print(
            f"energy drift {result.drift:+.4f} meV/atom/ps, fluctuation {result.fluctuation:.4f} meV/atom"
        )
    if result.stopped is not None:
        out.print(f"stopped: {result.stopped}; label such structures, and train on them")
        return 1
    return 0
