"""What ``plot`` draws: a run or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyg_schnet.training import RunDirectory


@dataclass(frozen=True)
class Source:
    """A run or a checkpoint.

    Attributes:
        run: Of which pictures are drawn; ``None`` for a checkpoint alone.
        model: The checkpoint.
    """

    run: RunDirectory | None
    model: Path

    @classmethod
    def open(cls, target: str) -> Source:
        """Find out what is meant.

        Raises:
            FileNotFoundError: If there is no such thing.
            ValueError: If it is a folder that is no run, or several models.
        """
        from pyg_schnet.potentials.ensemble import is_ensemble_file
        from pyg_schnet.training import RunDirectory

        path = Path(target)
        several = "," in target and not path.exists()
        if several or is_ensemble_file(path):
            raise ValueError(
                f"`plot` draws one model, got {target}; `pyg-schnet evaluate {target} FILE "
                "--plot_calibration PICTURE` draws the errors of several"
            )
        if not path.exists():
            raise FileNotFoundError(f"{target}: no such run or checkpoint; `pyg-schnet train` makes both")
        if path.is_file():
            return cls(None, path)
        run = RunDirectory(path)
        if not run.config.is_file():
            raise ValueError(
                f"{target}: is not a run of pyg-schnet (it has no config.yaml); give the folder that "
                "`train --out` wrote, or a checkpoint"
            )
        return cls(run, run.model)

    @property
    def folder(self) -> Path:
        """Where a run's pictures are, or those of a checkpoint."""
        return self.model.parent / "plots"

    def rows(self) -> list[dict[str, float]]:
        """Read the validations of the run.

        Raises:
            ValueError: If there is none.
        """
        assert self.run is not None
        rows = self.run.read_metrics()
        if not rows:
            raise ValueError(
                f"{self.run.metrics}: must hold a validation to draw the learning curve, got none; wait for "
                "the first, or name other pictures by --only"
            )
        return rows

    def data_options(self) -> dict[str, Any] | None:
        """Read from ``config.yaml`` which data the checkpoint was trained on; ``None`` if it is not there.

        Raises:
            ValueError: If the file is another program's.
        """
        from pyg_schnet.io.yaml_file import read_yaml
        from pyg_schnet.training import RunDirectory

        config = RunDirectory(self.model.parent).config
        if not config.is_file():
            return None
        held = read_yaml(config)
        if not isinstance(held, dict) or not isinstance(held.get("data"), dict):
            raise ValueError(f"{config}: must have a section `data`, as `train` writes it; got none")
        return held["data"]
