"""Train a potential, test it, run dynamics with it: everything of `make demo`.

python examples/demo.py --out runs/demo
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import pyg_schnet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.plots import plot_parity
from pyg_schnet.potentials import Evaluation
from pyg_schnet.simulation import Dynamics
from pyg_schnet.training import RunDirectory
from pyg_schnet.transforms import to_ase

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "datasets" / "md17" / "recipes" / "demo.yaml"
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
console = Console(soft_wrap=True)


def main() -> int:
    """Run the demo and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="directory of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time in minutes")
    parser.add_argument("--duration", type=float, default=1.0, help="duration of the dynamics in ps")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the molecule is too small for a second thread to help

    console.rule("1/3  Training on energies and forces of 1,000 frames of ethanol (GFN2-xTB)")
    try:
        run = pyg_schnet.train(
            SAMPLE,
            recipe=RECIPE,
            out=options.out,
            trainer={"max_minutes": options.minutes},
            overwrite=options.overwrite,
            report=lambda line: console.print(line, markup=False, highlight=False),
        )
    except (OSError, ValueError) as error:
        console.print(f"demo: {error}", markup=False, style="red")
        return 2

    console.rule("2/3  Testing on frames that it never saw")
    evaluation = pyg_schnet.evaluate(run, SAMPLE, part="test")
    plot_parity(evaluation, run.path / "parity.png", labels="GFN2-xTB")
    console.print(f"{evaluation.n} frames.")

    console.rule(
        f"3/3  Molecular dynamics: {options.duration:g} ps at constant energy, after as much at 300 K"
    )
    start = to_ase(AtomsDataset(path=SAMPLE)[int(run.read_split().test[0])])
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("dynamics", total=round(2000 * options.duration))
        dynamics = pyg_schnet.md(
            *(run, start, run.path / "dynamics.extxyz"),
            temperature=300.0,
            timestep=0.5,
            duration=options.duration,
            equilibration=options.duration,
            overwrite=options.overwrite,
            on_step=lambda step, _: progress.update(task, completed=step),
        )
    report(evaluation, dynamics, run)
    return 0


def report(evaluation: Evaluation, dynamics: Dynamics, run: RunDirectory) -> None:
    """Print the results."""
    table = Table(title="Ethanol, 1,000 training frames: mean absolute errors", title_justify="left")
    for name in ("labels", "energy", "", "forces", ""):
        table.add_column(name, justify="left" if name == "labels" else "right")
    assert evaluation.forces_mae is not None
    table.add_row(
        "GFN2-xTB",
        f"{1e3 * evaluation.energy_mae:.2f} meV",
        f"{evaluation.energy_mae / kcal_per_mol:.3f} kcal/mol",
        f"{1e3 * evaluation.forces_mae:.1f} meV/Å",
        f"{evaluation.forces_mae / kcal_per_mol:.3f} kcal/mol/Å",
    )
    table.add_row(
        "[dim]DFT[/dim]",
        f"[dim]{1e3 * 0.08 * kcal_per_mol:.1f} meV[/dim]",
        "[dim]0.08 kcal/mol[/dim]",
        f"[dim]{1e3 * 0.39 * kcal_per_mol:.0f} meV/Å[/dim]",
        "[dim]0.39 kcal/mol/Å[/dim]",
    )
    console.print(table)
    console.print(
        f"First row: this run, {evaluation.n} test frames of the shipped sample, labelled by GFN2-xTB. "
        "Second row: the paper's, on MD17, labelled by DFT. They are two data sets and cannot be compared."
    )
    console.print(
        f"Dynamics over {dynamics.duration:g} ps at {dynamics.temperature:.0f} K: energy drift "
        f"{dynamics.drift:+.4f} meV/atom/ps, fluctuation {dynamics.fluctuation:.3f} meV/atom"
    )
    files = {
        "model": run.model,
        "learning curve": run.learning_curve,
        "parity plots": run.path / "parity.png",
        "trajectory": dynamics.trajectory,
    }
    for name, path in files.items():
        console.print(f"{name:>15}  {path}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
