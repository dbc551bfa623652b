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
        """Report a line of text."""

    def start(self, step: int, done: float) -> None:
        """Report the first step; ``done`` is the completed fraction of the run, from 0 to 1."""

    def step(self, step: int, done: float, loss: Tensor) -> None:
        """Report a completed step and its loss."""

    def validated(self, row: Mapping[str, float], improved: bool) -> None:
        """Report the errors of a validation: a row of the metrics, and whether it is the best so far."""

    def stop(self) -> None:
        """Report the end of the last step."""
