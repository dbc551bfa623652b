"""What a training run shows while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from pyg_schnet.io.units import GPa, kcal_per_mol


class Report:
    """A progress bar on a terminal; a line for each validation everywhere.

    Args:
        console: Where to.
        quiet: Show nothing but errors.

    Attributes:
        is_unread: Whether the reader of a pipe has ended, as ``head`` does; lines go to standard error then.
    """

    def __init__(self, console: Console, quiet: bool = False):
        self.console = Console(quiet=True) if quiet else console
        self.is_unread = False
        self._bar: Progress | None = None
        self._task = None

    def line(self, text: str) -> None:
        """Print a line; it stays above the bar."""
        try:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        except (BrokenPipeError, SystemExit):  # Rich's own consoles end the process
            self.is_unread, self.console = True, Console(stderr=True)

    def start(self, step: int, done: float) -> None:
        """Begin to count steps; ``done`` is the part of the run that is over, from 0 to 1."""
        if not self.console.is_terminal or self.console.quiet:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("step {task.fields[step]:,}  loss {task.fields[loss]}  remaining"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("", total=1.0, step=step, loss="…")
        self._bar.update(self._task, completed=done)
        self._bar.start()

    def step(self, step: int, done: float, loss: Tensor) -> None:
        """Count a step; the bar looks at some of them only."""
        if self._bar is not None and self._task is not None and step % 20 == 0:
            self._bar.update(self._task, completed=done, step=step, loss=f"{float(loss):.2e}")

    def validated(self, row: Mapping[str, float], improved: bool) -> None:
        """Tell the errors of a validation."""
        parts = [f"step {row['step']:>7,}", f"loss {row['loss']:.2e}"]
        parts.append(f"validation: energy {_both(row['val_energy_mae_eV'], 'meV', 'kcal/mol')}")
        if "val_forces_mae_eV_per_A" in row:
            parts.append(f"forces {_both(row['val_forces_mae_eV_per_A'], 'meV/Å', 'kcal/mol/Å')}")
        if "val_stress_mae_eV_per_A3" in row:
            stress = row["val_stress_mae_eV_per_A3"]
            parts.append(f"stress {stress * 1e3:.2f} meV/Å³ ({stress / GPa:.3f} GPa)")
        self.line("  ".join(parts) + ("  best" if improved else ""))

    def stop(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _both(value: float, unit: str, chemists_unit: str) -> str:
    return f"{value * 1e3:.1f} {unit} ({value / kcal_per_mol:.3f} {chemists_unit})"
