"""Numbers of a run that must be finite, or it ends."""

from __future__ import annotations

import math

from torch import Tensor
from torch_geometric.data import InMemoryDataset

from pyg_schnet.loader import collate
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.state import Counters


def require_finite(
    name: str,
    value: float,
    count: Counters,
    run: RunDirectory,
    train: InMemoryDataset | None = None,
    ids: Tensor | None = None,
) -> None:
    """Stop a run whose numbers are not.

    Args:
        name: Of the number.
        value: It.
        count: How far the run is.
        run: Where its last good checkpoint is.
        train: What it trains on.
        ids: Structures of the batch, if the number comes from one.

    Raises:
        FloatingPointError: If it is not finite, with the step, the structures and what to do.
    """
    if math.isfinite(value):
        return
    where = ""
    if train is not None and ids is not None:
        where = f", for the structures {', '.join(map(str, collate(train, ids).idx.tolist()))}"
    kept = f"{run.model} (step {count.best_step:,})" if run.model.exists() else "none yet"
    raise FloatingPointError(
        f"the {name} is {value} after {count.step:,} steps{where}; the last good checkpoint is {kept}. "
        "Look at the structures' labels; if they are right, lower `trainer.lr` or set `trainer.clip_norm`"
    )
