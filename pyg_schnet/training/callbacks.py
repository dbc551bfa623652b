"""Callbacks of a training run: your own code, called by the loop after steps and validations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

    from pyg_schnet.potentials.potential import Potential
    from pyg_schnet.training.config import TrainerConfig
    from pyg_schnet.training.run_directory import RunDirectory
    from pyg_schnet.training.state import TrainingState


class Training:
    """A training run as its callbacks see it.

    Args:
        run: Directory of the run.
        config: Options of the training.
        state: State of the training, which the properties show.

    Attributes:
        is_stopping: Whether a callback has called :meth:`stop`.
    """

    def __init__(self, run: RunDirectory, config: TrainerConfig, state: TrainingState):
        self.run, self.config, self.is_stopping = run, config, False
        self._state = state

    @property
    def potential(self) -> Potential:
        """The potential with the current weights."""
        return self._state.potential

    @property
    def averaged(self) -> Potential:
        """The potential with averaged weights, which is validated and, when it is the best, kept."""
        self._state.copy_buffers()
        return self._state.averaged

    @property
    def step(self) -> int:
        """Number of completed steps, those before a resume included."""
        return self._state.counters.step

    @property
    def minutes(self) -> float:
        """Time of the training in minutes."""
        return self._state.counters.seconds / 60

    @property
    def best_step(self) -> int:
        """Step of the validation with the lowest loss so far; 0 before the first."""
        return self._state.counters.best_step

    @property
    def best_loss(self) -> float:
        """Lowest validation loss so far; infinite before the first."""
        return self._state.counters.best_loss

    def stop(self) -> None:
        """End the run as if its steps were done: after a validation, with the best potential kept.

        In :meth:`Callback.on_step` one more step may follow.
        """
        self.is_stopping = True


class Callback:
    """Base class of callbacks; a subclass overrides the methods that it needs.

    In a run of several processes, callbacks are called in rank 0. An exception in a method ends the run: the
    state is saved, so that the run can be resumed, and the exception is raised from
    :func:`~pyg_schnet.training.train`. Callbacks have no state in the checkpoint.

    Example:
        End the training when forces are good enough::

            class StopAtForceError(Callback):
                def on_validation(self, training, metrics):
                    if metrics["val_forces_mae_eV_per_A"] < 0.01:
                        training.stop()
    """

    def on_start(self, training: Training) -> None:
        """Act before the first step.

        Args:
            training: The run; its ``step`` is not 0 if it is resumed.
        """

    def on_step(self, training: Training, loss: Tensor) -> None:
        """Act after a step.

        Args:
            training: The run.
            loss: Loss of the step, float64, shape ``()``. Converting it to a number synchronizes host and
                GPU; do so in few of the steps.
        """

    def on_validation(self, training: Training, metrics: Mapping[str, float]) -> None:
        """Act after a validation, when its row of metrics and the checkpoints are written.

        Args:
            training: The run.
            metrics: Row of ``metrics.csv``, with units in the names: ``step``, ``minutes``, ``lr``, ``loss``,
                ``val_energy_mae_eV``, ``val_forces_mae_eV_per_A``, …
        """

    def on_end(self, training: Training, error: BaseException | None) -> None:
        """Act at the end of the run.

        Args:
            training: The run.
            error: The exception that ended it; ``None`` if it is complete, stopped or interrupted by a
                signal.
        """


class Callbacks:
    """Calls the callbacks of a run, from its start to its end, as a context manager.

    Args:
        callbacks: The callbacks, called in this order.
        training: The run.
        save: Saves the state of the run, called before an exception of a callback is raised.
    """

    def __init__(self, callbacks: Iterable[Callback], training: Training, save: Callable[[], None]):
        self._callbacks, self._training, self._save = tuple(callbacks), training, save

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            for callback in self._callbacks:
                callback.on_start(self._training)
                ends.push(self._end_of(callback))
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ends.__exit__(*error)

    def _end_of(self, callback: Callback) -> Callable[[Any, BaseException | None, Any], None]:
        def end(_: Any, error: BaseException | None, __: Any) -> None:
            callback.on_end(self._training, error)

        return end

    def step(self, loss: Tensor) -> None:
        """Call all after a step."""
        self._call(lambda callback: callback.on_step(self._training, loss))

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Call all after a validation."""
        self._call(lambda callback: callback.on_validation(self._training, metrics))

    def _call(self, method: Callable[[Callback], None]) -> None:
        try:
            for callback in self._callbacks:
                method(callback)
        except BaseException:
            self._save()
            raise
