"""Everything that a report shows, measured before the page is written."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_schnet.checks import Report
from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.report.summary import Summary, summarize
from pyg_schnet.nn import SchNet
from pyg_schnet.nn.readout import Readout, sum_by_molecule
from pyg_schnet.plots.distances import pair_distances
from pyg_schnet.potentials.metrics import Evaluation, evaluate, labeled_outputs
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.calculator import SchNetCalculator
from pyg_schnet.simulation.recorder import read_log
from pyg_schnet.simulation.restart import RecordedRun, hash_potential, read_recorded_run
from pyg_schnet.training.properties import label_spread
from pyg_schnet.transforms.ase_atoms import to_ase

_SAMPLED = 100  # structures, for distances
_TIMED = 20  # evaluations of one structure, after as many to warm up


@dataclass(frozen=True)
class DataSet:
    """A file of structures and its summary.

    Attributes:
        name: Name of the file.
        dataset: All of its structures.
        summary: Statistics and warnings.
        split: Indices of structures by part of the split; empty without a split.
        sha256: Hash of the file, if it is known.
    """

    name: str
    dataset: MoleculeDataset
    summary: Summary
    split: Mapping[str, Tensor]
    sha256: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        dataset: MoleculeDataset,
        split: Mapping[str, Tensor] | None = None,
        sha256: str | None = None,
        properties: Sequence[str] = (),
    ) -> DataSet:
        """Summarize a file of structures, with the labels of some properties."""
        return cls(name, dataset, summarize(dataset, properties), split or {}, sha256)

    def count_trained(self, dataset: MoleculeDataset) -> int:
        """Count the structures of another data set, or of a part of this one, that were trained on, too."""
        if "train" not in self.split:
            return 0
        trained = cast(MoleculeDataset, self.dataset[self.split["train"]])
        return int(torch.isin(dataset.fingerprints(), trained.fingerprints()).sum())


@dataclass(frozen=True)
class Accuracy:
    """Labeled structures and the errors of the potential on them.

    Attributes:
        name: Name of the file.
        part: "test", "val" or "train" of the split; "" for a whole file.
        dataset: The structures.
        of: Number of structures that they were chosen from.
        evaluation: Errors, labels and predictions.
        distances: Interatomic distances of some of them, in Å.
        outside: Reasons by index in the file of structures outside of the training domain.
        trained_on: Number of structures that occur in the training set.
        seconds: Time of the evaluation, in s.
        step: Time of energy and forces of the first structure alone, in s; ``None`` without energies.
        spreads: Standard deviations of the labels of properties relative to their references, by name.
    """

    name: str
    part: str
    dataset: MoleculeDataset
    of: int
    evaluation: Evaluation
    distances: Tensor
    outside: Mapping[int, str]
    trained_on: int
    seconds: float
    step: float | None
    spreads: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_structures(
        cls,
        potential: Potential,
        dataset: MoleculeDataset,
        name: str,
        part: str,
        of: int,
        trained: DataSet | None = None,
    ) -> Accuracy:
        """Evaluate a potential on structures, which are looked up in the data that it was trained on.

        Raises:
            ValueError: If a prediction is not finite.
        """
        _warm_up(potential, dataset)
        began = time.perf_counter()
        evaluation = evaluate(potential, dataset)
        seconds = time.perf_counter() - began
        evaluation.require_finite(dataset.indices())
        cutoff = cast(SchNet, potential.model).config.cutoff
        distances = pair_distances(_some(dataset, _SAMPLED), cutoff)
        outside = _outside(potential, dataset)
        step = _time_step(potential, cast(Data, dataset[0])) if potential.has_energy else None
        known = trained.count_trained(dataset) if trained is not None else 0
        spreads = _property_spreads(potential, evaluation, dataset)
        return cls(name, part, dataset, of, evaluation, distances, outside, known, seconds, step, spreads)

    @property
    def energy_mae(self) -> tuple[float, str]:
        """Mean absolute error of energies in eV, and its unit in thousandths: per atom for crystals."""
        energy, unit = self.evaluation.comparable_energy()
        return float((energy[1] - energy[0]).abs().mean()), f"m{unit}"

    def energy_spread(self, potential: Potential, per_atom: bool = False) -> float:
        """Compute the standard deviation of the labels of energies, in eV.

        In mixtures, they are relative to the atomic references of the potential.

        Args:
            potential: The potential.
            per_atom: Whether to divide energies by the number of atoms.
        """
        energy, z, sizes = self.evaluation.energy[0], self.evaluation.z, self.evaluation.sizes
        if sizes is None or self.evaluation.n < 2:
            return 0.0
        if self.dataset.is_mixture():
            structure = torch.arange(len(sizes)).repeat_interleave(sizes)
            energy = energy - sum_by_molecule(potential.atomref.cpu()[z], structure, len(sizes))
        return float((energy / sizes if per_atom else energy).std())

    def structure(self, place: int) -> Data:
        """Return the structure at a place in the evaluation."""
        return cast(Data, self.dataset[place])

    @property
    def numbers(self) -> Sequence[int]:
        """Indices of the structures in the file."""
        return list(self.dataset.indices())


@dataclass(frozen=True)
class Simulation:
    """A run of molecular dynamics.

    Attributes:
        name: Name of its log.
        rows: Rows of its log.
        run: Settings and statistics; ``None`` if its restart file is gone.
        same_potential: Whether the potential of the report drove it; ``None`` if that is unknown.
    """

    name: str
    rows: Sequence[dict[str, float]]
    run: RecordedRun | None
    same_potential: bool | None

    @classmethod
    def read(cls, path: Path, potential: Potential) -> Simulation:
        """Read the log of a run; ``path`` may also be its trajectory.

        Raises:
            FileNotFoundError: If the log does not exist.
            ValueError: If it is not a log, or has fewer than two rows.
        """
        log = path if path.suffix == ".csv" or not path.exists() else path.with_suffix(".csv")
        rows = read_log(log)
        if len(rows) < 2:
            raise ValueError(
                f"{log}: must hold at least two rows to draw them, got {len(rows)}; run `pyg-schnet md` "
                "for longer"
            )
        run = read_recorded_run(log)
        same = None if run is None or run.potential is None else run.potential == hash_potential(potential)
        return cls(log.name, rows, run, same)


@dataclass(frozen=True)
class Contents:
    """Everything that a report shows.

    Attributes:
        name: Name of the run.
        potential: The potential.
        provenance: Origin that its checkpoint states.
        settings: Options of the training by section; empty for a checkpoint alone.
        rows: Rows of ``metrics.csv``; empty for a checkpoint alone.
        data: Files of structures: that of the training, and another one that the errors are measured on.
        accuracy: Errors.
        checks: Checks of physics; ``None`` if they were left out.
        simulation: Molecular dynamics, if there is any.
        labels: Name of the labels on axes.
    """

    name: str
    potential: Potential
    provenance: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: Sequence[dict[str, float]]
    data: Sequence[DataSet]
    accuracy: Accuracy
    checks: Report | None = None
    simulation: Simulation | None = None
    labels: str = "reference"

    @property
    def model(self) -> SchNet:
        """The network."""
        return cast(SchNet, self.potential.model)


def _some(dataset: MoleculeDataset, number: int) -> Data:
    """Return evenly spaced structures in one batch."""
    places = torch.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().long().tolist()
    return cast(Data, Batch.from_data_list([cast(Data, dataset[place]) for place in places]))


def _outside(potential: Potential, dataset: MoleculeDataset) -> dict[int, str]:
    if potential.domain is None:
        return {}
    numbers = dataset.indices()
    return {
        int(numbers[place]): reasons[0]
        for place in range(len(dataset))
        if (reasons := potential.domain.violations(cast(Data, dataset[place])))
    }


def _warm_up(potential: Potential, dataset: MoleculeDataset) -> None:
    """Evaluate two structures, so that kernels are compiled before times are measured."""
    batch = _some(dataset, 2).to(str(potential.scale.device))
    with torch.no_grad():
        potential(batch, **labeled_outputs(batch))


def _property_spreads(
    potential: Potential, evaluation: Evaluation, dataset: MoleculeDataset
) -> dict[str, float]:
    """Compute the standard deviations of the labels of properties relative to their references."""
    heads = zip(potential.properties, potential.heads, strict=True)
    known = [(target, head) for target, head in heads if target.name in evaluation.properties]
    return {
        target.name: label_spread(cast(Readout, copy.deepcopy(head).cpu()), target, dataset)[0]
        for target, head in known
    }


def _time_step(potential: Potential, data: Data) -> float:
    """Measure the time of energy and forces of one structure as a step of dynamics takes it, in s."""
    atoms = to_ase(data, with_results=False)
    assert not isinstance(atoms, list)
    atoms.calc = SchNetCalculator(potential, compile=True)
    times = []
    for k in range(2 * _TIMED):
        atoms.positions[0, 0] += 1e-4 * (-1) ** k
        began = time.perf_counter()
        atoms.get_forces()
        times.append(time.perf_counter() - began)
    return sorted(times[_TIMED:])[_TIMED // 2]
