"""Loggers of a training run: callbacks that send each validation's metrics to TensorBoard and others."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.training.callbacks import Callback, Training

if TYPE_CHECKING:
    from pyg_schnet.training.config import TrainConfig
    from pyg_schnet.training.run_directory import RunDirectory


def make_loggers(config: TrainConfig, run: RunDirectory) -> list[Callback]:
    """Return the loggers that ``trainer.loggers`` names.

    Raises:
        ImportError: If the package of one is not installed.
    """
    makers = {
        "tensorboard": lambda: LightningLogger(TensorBoardLogger(run.tensorboard, "", "")),
        "wandb": lambda: WandbLogger(asdict(config)),
    }
    return [makers[name]() for name in config.trainer.logger_names]


class LightningLogger(Callback):
    """A callback that sends the metrics of each validation to a logger of Lightning.

    Args:
        logger: A logger of ``lightning.fabric`` or ``lightning.pytorch``, such as ``MLFlowLogger``.
    """

    def __init__(self, logger: Logger):
        self.logger = logger

    def on_validation(self, training: Training, metrics: Mapping[str, float]) -> None:
        self.logger.log_metrics(_without_step(metrics), training.step)

    def on_end(self, training: Training, error: BaseException | None) -> None:
        self.logger.finalize("success" if error is None else "failed")


class WandbLogger(Callback):
    """A callback that sends options and metrics of a run to Weights & Biases.

    The environment variables of wandb apply, among them ``WANDB_PROJECT`` (``pyg_schnet`` by default),
    ``WANDB_ENTITY`` and ``WANDB_MODE=offline``. A resumed run continues the same run there. If a run of wandb
    is active, as in sweeps, it is used and not finished.

    Args:
        options: Options of the run, shown as its configuration.

    Raises:
        ImportError: If wandb is not installed.
    """

    def __init__(self, options: Mapping[str, Any]):
        try:
            self._wandb: Any = importlib.import_module("wandb")
        except ImportError:
            raise ImportError(
                "`trainer.loggers` must name installed packages, got 'wandb', which is missing; pip install "
                "'pyg-schnet[wandb]', or leave it out"
            ) from None
        self._options, self._is_own = dict(options), False

    def on_start(self, training: Training) -> None:
        """Start a run of wandb, or continue that of a resumed training.

        Args:
            training: The run.

        Raises:
            RuntimeError: If wandb does not start.
        """
        self._is_own = self._wandb.run is None
        if not self._is_own:
            self._wandb.run.config.update(self._options, allow_val_change=True)
            return
        id_file = training.run.wandb_id
        try:
            run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "pyg_schnet"),
                name=training.run.path.resolve().name,
                dir=str(training.run.path),
                config=self._options,
                id=id_file.read_text(encoding="utf-8").strip() if id_file.is_file() else None,
                resume="allow",
            )
        except self._wandb.Error as error:
            raise RuntimeError(
                f"wandb could not start a run: {error}; to log without a connection, set WANDB_MODE=offline"
            ) from error
        _write(id_file, run.id)

    def on_validation(self, training: Training, metrics: Mapping[str, float]) -> None:
        self._wandb.run.log(_without_step(metrics), step=training.step)

    def on_end(self, training: Training, error: BaseException | None) -> None:
        if self._is_own:
            self._wandb.run.finish(exit_code=0 if error is None else 1)


def _without_step(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "step"}


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
