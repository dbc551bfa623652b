"""Progress of a training run, as reported to the caller."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


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
        """Report a validation.

        Args:
            row: Row of ``metrics.csv``, in eV and Å.
            improved: Whether its loss is the best so far.
        """

    def stop(self) -> None:
        """Report the end of the last step."""
