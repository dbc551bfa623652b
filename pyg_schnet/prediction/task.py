"""What a process that predicts is told, and what it gives back of each structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from ase import Atoms

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.prediction.partial_output import encoded
from pyg_schnet.prediction.predictor import Predictor
from pyg_schnet.prediction.shard_spec import Share
from pyg_schnet.simulation.structures import StructureError, hash_structure
from pyg_schnet.transforms.ase_atoms import from_ase

START = "start_sha256"  # entry of a relaxed frame, of the structure that it was
# What an earlier run told of a structure, and no longer holds.
_STALE_INFO = (
    START,
    "input_frame",
    "converged",
    "steps",
    "stopped",
    "energy_deviation",
    "max_forces_deviation",
)
_STALE_ARRAYS = ("forces_deviation",)


class Row(NamedTuple):
    """What became of one structure of IN.

    Attributes:
        number: Of the structure in IN.
        frame: With its results, as :func:`~pyg_schnet.prediction.partial_output.encoded`; ``None``
            if it was refused.
        refused: Why.
        outside: How the structure is unlike those of the training, if it is.
    """

    number: int
    frame: bytes | Atoms | None
    refused: str | None = None
    outside: str | None = None


@dataclass(frozen=True)
class Job:
    """Predictions for a share of the structures of a file.

    Args:
        models: Paths of checkpoints.
        source: The file.
        share: Which of its structures.
        device: ``"cpu"`` or ``"cuda"``.
        run: Is written to each frame.
        as_text: Whether frames are given as text.
        domain: Of the training, if it is known.
        begin: Place in the stream where it begins; those before were done by an earlier run.
    """

    models: list[str]
    source: StructureFile
    share: Share
    device: str
    run: str
    as_text: bool
    domain: TrainingDomain | None = None
    begin: int = 0

    def batches(self) -> Iterator[list[Row]]:
        """Compute batch after batch; the first is computed whole, and given from where the job begins.

        Raises:
            ValueError: If a structure cannot be read.
        """
        predictor = Predictor(self.models, device=self.device, stress=True)
        stream = self.source.read(self.share.places(self.begin))
        for batch in self.share.batches(self.begin):
            given = list(islice(stream, self.share.size))
            if not given:
                return
            frames = [fresh(atoms, number) for number, atoms in given]
            first = batch * self.share.size
            found = predictor.of_batch(frames, batch, first)
            rows = [self._row(number, result) for (number, _), result in zip(given, found, strict=True)]
            yield rows[max(0, self.begin - first) :]

    def _row(self, number: int, result: Atoms | StructureError) -> Row:
        if isinstance(result, StructureError):
            return Row(number, None, result.reason)
        outside = what_is_outside(result, self.domain)
        return Row(number, encoded(result, self.run, self.as_text), None, outside)


def fresh(atoms: Atoms, number: int) -> Atoms:
    """Forget what an earlier run told of a structure, and write its number to it."""
    for name in _STALE_INFO:
        atoms.info.pop(name, None)
    for name in _STALE_ARRAYS:
        atoms.arrays.pop(name, None)
    atoms.info["input_frame"] = number
    return atoms


def start_of(atoms: Atoms) -> str:
    """Hash a structure that is relaxed; a letter first, for ASE reads some digits as a number."""
    return f"s{hash_structure(atoms)[:15]}"


def what_is_outside(frame: Atoms, domain: TrainingDomain | None) -> str | None:
    """Say how a structure is unlike those of the training, if it is: the model was never told of such."""
    if domain is None:
        return None
    try:
        domain.check(from_ase(frame))
    except ValueError as error:
        return str(error)
    return None
