"""Progress of a training run on the console."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from pyg_schnet.io.units import GPa
from pyg_schnet.training.progress import Report

_WIDE = 110  # columns, for a line of errors in two units each
_COLUMNS = {  # column of metrics.csv: title, unit in eV and Å, format
    "step": ("step", 1, "{:,.0f}"),
    "loss": ("loss", 1, "{:.2e}"),
    "val_energy_mae_eV": ("energy (meV)", 1e-3, "{:,.1f}"),
    "val_forces_mae_eV_per_A": ("forces (meV/Å)", 1e-3, "{:,.1f}"),
    "val_stress_mae_eV_per_A3": ("stress (GPa)", GPa, "{:.3f}"),
}


class ConsoleReport(Report):
    """A progress bar, on terminals, and a line for each validation; in narrow terminals a table of them.

    Args:
        console: Console to write to.

    Attributes:
        console: Console in use; standard error after the reader of a pipe has closed it.
        is_closed: Whether the reader of a pipe has closed it, as ``head`` does.
    """

    def __init__(self, console: Console):
        self.console = console
        self._bar: Progress | None = None
        self._task = None
        self._has_head = False

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        try:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        except (BrokenPipeError, SystemExit):  # Rich exits on a broken pipe
            self.is_closed, self.console = True, Console(stderr=True)

    def start(self, step: int, done: float) -> None:
        """Start the bar at a step; ``done`` is the completed fraction of the run, from 0 to 1."""
        if not self.console.is_terminal:
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
        """Advance the bar, which is updated every 20 steps."""
        if self._bar is not None and self._task is not None and step % 20 == 0:
            self._bar.update(self._task, completed=done, step=step, loss=f"{float(loss):.2e}")

    def validated(self, row: Mapping[str, float], improved: bool) -> None:
        """Print the errors of a validation."""
        if not self.console.is_terminal or self.console.width >= _WIDE:
            super().validated(row, improved)
            return
        cells = [
            (title, form.format(row[name] / unit))
            for name, (title, unit, form) in _COLUMNS.items()
            if name in row
        ]
        widths = [max(len(title), 9) for title, _ in cells]
        if not self._has_head:
            self.line("mean absolute errors on the validation set")
            self.line("  ".join(title.rjust(width) for (title, _), width in zip(cells, widths, strict=True)))
            self._has_head = True
        line = "  ".join(text.rjust(width) for (_, text), width in zip(cells, widths, strict=True))
        self.line(line + ("  best" if improved else ""))

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
