"""Energies, forces and stresses of many structures, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any, cast

import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_schnet.graph.memory import (
    MAX_PAIRS_PER_BATCH,
    check_pairs_fit,
    is_out_of_memory,
    max_pairs,
    too_large_reason,
)
from pyg_schnet.graph.validation import check_predictions
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.intended_use import warn_of_other_molecules
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation.calculator import Model, evaluation_copy
from pyg_schnet.simulation.structures import StructureError, check_structure, has_volume, with_results
from pyg_schnet.transforms.ase_atoms import from_ase

_BATCHES_TO_COMPILE_AFTER = 8  # compiling takes as long as some hundred molecules


def predict(
    potential: Model,
    frames: Iterable[Atoms],
    batch_size: int = 32,
    forces: bool = True,
    device: str | torch.device | None = None,
    stress: bool = False,
    on_refused: Callable[[StructureError], None] | None = None,
) -> Iterator[Atoms]:
    """Predict energies in eV and forces in eV/Å of structures, of any sizes and periodic or not.

    Frames are read as results are consumed: a file larger than the memory can be streamed.

    Args:
        potential: Potential or ensemble, which is copied, or paths of checkpoints.
        frames: Structures, for instance ``ase.io.iread(path)``; not modified.
        batch_size: Number of structures evaluated at once.
        forces: Whether to predict forces; energies alone need no gradient.
        device: Device of the computation; by default that of the potential, the CPU for a path.
        stress: Whether to add stresses in eV/Å³ to periodic structures whose cells have a volume.
        on_refused: Called with the error of a structure, which then is left out; without it, the error is
            raised.

    Returns:
        Copies in the same order, ``info`` and ``arrays`` included; a predicted energy is
        ``frame.get_potential_energy()``. An ensemble adds ``info["energy_deviation"]`` in eV,
        ``arrays["forces_deviation"]`` in eV/Å and its maximum, ``info["max_forces_deviation"]``. Properties
        are entries of ``info``, those of atoms of ``arrays``; ``info["property_units"]`` is a text such as
        ``"gap (eV), mu (D)"``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        StructureError: While iterating, if the potential rejects a structure or a prediction is not finite:
            a ``ValueError`` with the structure's number. All structures before it were yielded.
        TypeError: If ``frames`` is one structure, or holds something else.
        ValueError: If ``batch_size`` is below one.
    """
    if isinstance(frames, Atoms):
        raise TypeError("`frames` must be an iterable of ase.Atoms, got one Atoms; use [atoms]")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    predictor = Predictor(potential, forces, device, stress)
    return _predict(predictor, iter(frames), batch_size, on_refused)


def _predict(
    predictor: Predictor,
    frames: Iterator[Atoms],
    batch_size: int,
    on_refused: Callable[[StructureError], None] | None,
) -> Iterator[Atoms]:
    for number in count():
        batch = list(islice(frames, batch_size))
        if not batch:
            return
        for result in predictor.predict_batch(batch, number, number * batch_size):
            if not isinstance(result, StructureError):
                yield result
            elif on_refused is None:
                raise result
            else:
                on_refused(result)


class Predictor:
    """A potential that predicts some batches of a stream, to the bit as if it predicted all of them.

    Args:
        potential: Potential or ensemble, which is copied, or paths of checkpoints.
        forces: Whether to predict forces; energies alone need no gradient.
        device: Device of the computation; by default that of the potential, the CPU for a path.
        stress: Whether to add stresses to periodic structures whose cells have a volume.
    """

    def __init__(
        self,
        potential: Model,
        forces: bool = True,
        device: str | torch.device | None = None,
        stress: bool = False,
    ):
        self._potential = evaluation_copy(potential, device, needs_energy=False)
        self._forces, self._stress = forces, stress

    @property
    def domain(self) -> TrainingDomain | None:
        """Domain of the training; ``None`` if it is not known."""
        return self._potential.domain

    def predict_batch(self, frames: list[Atoms], number: int, first: int) -> Iterator[Atoms | StructureError]:
        """Predict a batch; yields an error in the place of a structure that is rejected.

        Args:
            frames: Structures of the batch.
            number: Number of the batch in the stream, from 0, ascending from call to call.
            first: Number of its first structure, for the errors.
        """
        if number >= _BATCHES_TO_COMPILE_AFTER and self._potential.compiled is None:
            self._potential.compile(constant=True)  # a copy of our own
        return _evaluate(self._potential, frames, first, self._forces, self._stress)


def _collate(frames: list[Atoms], device: torch.device) -> Data:
    """Collate structures to a batch; periodic structures and molecules may be mixed.

    Raises:
        ValueError: If one is empty, or a periodic direction has no lattice vector.
    """
    lattice = any(frame.pbc.any() for frame in frames)
    batch = cast(Data, Batch.from_data_list([from_ase(frame, lattice) for frame in frames]))
    return batch.to(str(device))


def _evaluate(
    potential: Potential | Ensemble, frames: list[Atoms], first: int, forces: bool, stress: bool
) -> Iterator[Atoms | StructureError]:
    """Evaluate structures in chunks that fit into the memory."""
    for start, stop in _chunks(frames, potential.cutoff):
        yield from _evaluate_chunk(potential, frames[start:stop], first + start, forces, stress)


def _chunks(frames: list[Atoms], cutoff: float) -> Iterator[tuple[int, int]]:
    """Yield bounds of chunks with a bounded number of pairs, which depend on the batch alone."""
    start, pairs = 0, 0.0
    for number, frame in enumerate(frames):
        own = max_pairs(len(frame), cutoff, bool(frame.pbc.any())) if isinstance(frame, Atoms) else 0.0
        if number > start and pairs + own > MAX_PAIRS_PER_BATCH:
            yield start, number
            start, pairs = number, 0.0
        pairs += own
    yield start, len(frames)


def _evaluate_chunk(
    potential: Potential | Ensemble, frames: list[Atoms], first: int, forces: bool, stress: bool
) -> Iterator[Atoms | StructureError]:
    """Evaluate structures together; if one is rejected, each alone to find it."""
    try:
        for number, frame in enumerate(frames, first):
            check_structure(frame, number)
            check_pairs_fit(len(frame), potential.cutoff)
        results: list[Atoms] | str = _evaluate_together(potential, frames, forces, stress)
    except StructureError as error:
        results = error.reason
    except ValueError as error:
        results = str(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        results = too_large_reason(len(frames[0]), potential.cutoff)
    if not isinstance(results, str):
        yield from results
    elif len(frames) == 1:
        yield StructureError(first, results)
    else:
        for number, frame in enumerate(frames, first):
            yield from _evaluate_chunk(potential, [frame], number, forces, stress)


def _evaluate_together(
    potential: Potential | Ensemble, frames: list[Atoms], forces: bool, stress: bool
) -> list[Atoms]:
    warn_of_other_molecules(potential, frames)
    batch = _collate(frames, potential.scale.device)
    have_volume = [has_volume(frame) for frame in frames]
    out = potential(batch, forces=forces, stress=stress and any(have_volume))
    check_predictions(out if "stress" not in out else {**out, "stress": out["stress"][have_volume]})
    sizes = [len(frame) for frame in frames]
    atomic = {"forces", "forces_deviation"}
    for target in potential.properties:
        atomic |= {target.name, f"{target.name}_deviation"} if target.is_atomic else set()
    voigt: list[Any] = [None] * len(frames)
    if "stress" in out:
        voigt = [full_3x3_to_voigt_6_stress(value) for value in out["stress"].cpu().numpy()]
    rows: dict[str, list[Any]] = {
        name: _by_structure(value, sizes) if name in atomic else value.tolist()
        for name, value in out.items()
        if name != "stress"
    }
    units = {"property_units": ", ".join(target.label for target in potential.properties)}
    results = []
    for k, frame in enumerate(frames):
        own: dict[str, Any] = {name: values[k] for name, values in rows.items()}
        energy, own_forces = own.pop("energy", None), own.pop("forces", None)
        result = with_results(frame, energy, own_forces, voigt[k] if have_volume[k] else None)
        if "forces_deviation" in own:
            result.info["max_forces_deviation"] = float(own["forces_deviation"].max())
        for name, value in own.items():
            (result.arrays if name in atomic else result.info)[name] = value
        result.info |= units if potential.properties else {}
        results.append(result)
    return results


def _by_structure(values: Tensor, sizes: list[int]) -> list[Any]:
    return [part.numpy() for part in values.double().cpu().split(sizes)]
