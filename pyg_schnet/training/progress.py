"""Progress of a training run, as reported to the caller."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from torch import Tensor

from pyg_schnet.io.units import GPa, kcal_per_mol
from pyg_schnet.plots.learning_curve import property_of


class Report:
    """Receiver of the progress of a training run, which discards it; subclasses show it.

    Attributes:
        is_closed: Whether nobody reads the output any more, for which the run ends with a checkpoint.
    """

    is_closed = False

    def line(self, text: str) -> None:
        """Report a line of text.

        Args:
            text: The line.
        """

    def warning(self, text: str) -> None:
        """Report what looks wrong in the data; by default a line.

        Args:
            text: The warning.
        """
        self.line(f"Warning: {text}")

    def start(self, step: int, done: float) -> None:
        """Report the first step.

        Args:
            step: Number of completed steps; not 0 in a resumed run.
            done: Completed fraction of the run, from 0 to 1.
        """

    def step(self, step: int, done: float, loss: Tensor) -> None:
        """Report a completed step.

        Args:
            step: Number of completed steps.
            done: Completed fraction of the run, from 0 to 1.
            loss: Loss, dimensionless, shape ``()``; reading it makes the host wait for a GPU.
        """

    def validated(self, row: Mapping[str, float], improved: bool) -> None:
        """Report a validation; by default a line.

        Args:
            row: Row of ``metrics.csv``, in eV and Å.
            improved: Whether its loss is the best so far.
        """
        self.line(validation_line(row) + ("  best" if improved else ""))

    def stop(self) -> None:
        """Report the end of the last step."""


class WarningReport(Report):
    """Receiver that raises Python warnings for what looks wrong in the data, and discards the rest."""

    def warning(self, text: str) -> None:
        """Raise a Python warning.

        Args:
            text: The warning.
        """
        warnings.warn(text, stacklevel=2)


class LineReport(Report):
    """Receiver that passes on lines of text, one for each validation among them.

    Args:
        write: Function that takes a line, such as ``print``.
    """

    def __init__(self, write: Callable[[str], object]):
        self._write = write

    def line(self, text: str) -> None:
        """Pass on a line.

        Args:
            text: The line.
        """
        self._write(text)


def validation_line(row: Mapping[str, float]) -> str:
    """Return the errors of a validation in one line, in meV, kcal/mol and Å.

    Args:
        row: Row of ``metrics.csv``, in eV and Å.
    """
    parts = [f"step {row['step']:>7,}", f"loss {row['loss']:.2e}"]
    if "val_energy_mae_eV" in row:
        parts.append(f"validation: energy {_in_two_units(row['val_energy_mae_eV'], 'meV', 'kcal/mol')}")
    else:
        parts.append("validation:")
    if "val_forces_mae_eV_per_A" in row:
        parts.append(f"forces {_in_two_units(row['val_forces_mae_eV_per_A'], 'meV/Å', 'kcal/mol/Å')}")
    if "val_stress_mae_eV_per_A3" in row:
        stress = row["val_stress_mae_eV_per_A3"]
        parts.append(f"stress {stress * 1e3:.2f} meV/Å³ ({stress / GPa:.3f} GPa)")
    for column, value in row.items():
        if (own := property_of(column)) is not None:
            parts.append(f"{own[0]} {value:.4g} {own[1]}".rstrip())
    return "  ".join(parts)


def _in_two_units(value: float, unit: str, second_unit: str) -> str:
    return f"{value * 1e3:.1f} {unit} ({value / kcal_per_mol:.3f} {second_unit})"
