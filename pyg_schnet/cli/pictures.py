"""Pictures of a run or a checkpoint: one method for each; a new plot gets its method and entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pyg_schnet.cli.plot_inputs import (
    KEYS,
    PlotTarget,
    Structures,
    atomic_energies,
    choose,
    structures_of_file,
    structures_of_run,
)

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from torch import Tensor

    from pyg_schnet.nn import SchNet
    from pyg_schnet.potentials.metrics import Evaluation
    from pyg_schnet.potentials.potential import Potential

_ONE_COMPOSITION = (
    "the training data are of one composition, which does not determine how similar elements are; "
    "--only elements draws it"
)
_SAMPLED = 100  # structures for the mean energies of elements and for distances


@dataclass
class Pictures:
    """Everything that the pictures show, read before the first one is drawn.

    Attributes:
        target: Run or checkpoint.
        labels: Name of the labels on axes.
        rows: Validations of the run.
        potential: Model; ``None`` if no picture needs it.
        structures: Structures that it is evaluated on; ``None`` without any.
        chosen: Indices of the structures whose atoms are drawn.
        left_out: Pictures that cannot be drawn, with reasons.
        evaluation: Errors on the structures, computed for the first picture that needs them.
    """

    target: PlotTarget
    labels: str
    rows: Sequence[dict[str, float]]
    potential: Potential | None
    structures: Structures | None
    chosen: Sequence[int]
    left_out: dict[str, str]
    evaluation: Evaluation | None = None

    @classmethod
    def open(cls, options: Namespace, target: PlotTarget, names: Sequence[str]) -> Pictures:
        """Open the inputs of some pictures.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a picture of ``--only`` cannot be drawn, with the reason.
        """
        rows, left_out = [], {}
        if target.run is None:
            left_out["learning_curve"] = f"{target.model} is a checkpoint; pass the folder of a run"
        elif "learning_curve" in names:
            rows = target.rows()
        potential = _load(target, options.device) if set(names) - set(_names_with("run")) else None
        if potential is not None:
            left_out |= _impossible(potential)
        structures = None
        if target.run is None and options.file is None:
            reason = "a checkpoint alone has no structures; pass FILE"
            left_out |= dict.fromkeys(_names_with("structures", "labels"), reason)
        elif any(PICTURES[name].uses_structures for name in names if name not in left_out):
            assert potential is not None
            structures = _structures(options, target, potential).at_most(options.max_structures)
            if structures.unlabeled is not None:
                left_out |= dict.fromkeys(_names_with("labels"), structures.unlabeled)
            if options.file is None and not options.only and not structures.drawn.is_mixture():
                left_out.setdefault("elements", _ONE_COMPOSITION)
        for name in names:
            if options.only and name in left_out:
                raise ValueError(f"`--only {name}` cannot be drawn: {left_out[name]}")
        chosen = choose(options.index, structures) if structures is not None and "atoms" in names else []
        left_out = {name: reason for name, reason in left_out.items() if name in names}
        return cls(target, options.labels, rows, potential, structures, chosen, left_out)

    def draw(self, name: str, path: str) -> str:
        """Draw a picture, and return a description of its content."""
        return PICTURES[name].draw(self, path)

    def draw_learning_curve(self, path: str) -> str:
        from pyg_schnet.plots import plot_learning_curve

        plot_learning_curve(self.rows, path)
        steps = self.rows[-1]["step"]
        return f"{len(self.rows):,} validations, training loss and learning rate up to step {steps:,}"

    def draw_parity(self, path: str) -> str:
        from pyg_schnet.plots import plot_parity

        assert self.structures is not None
        assert self.potential is not None
        several = self.structures.drawn.is_mixture()
        plot_parity(self._evaluate(), path, self.labels, self.potential.atomref if several else None)
        evaluation = self._evaluate()
        of = {"energies": evaluation.energy_mae, "forces": evaluation.forces, "stresses": evaluation.stress}
        names = [*(name for name, errors in of.items() if errors is not None), *evaluation.properties]
        return f"predictions over labels: {', '.join(names)}"

    def draw_errors(self, path: str) -> str:
        from pyg_schnet.plots import plot_errors

        assert self.structures is not None
        plot_errors(self._evaluate(), path)
        return "distributions of the errors, and their quantiles"

    def draw_filters(self, path: str) -> str:
        from pyg_schnet.plots import plot_filters
        from pyg_schnet.plots.filters import MAX_FILTERS, DistanceRange

        model, distances = self._model(), self._distances()
        plot_filters(model, path, *distances)
        number, edge = model.config.num_filters, 2 * DistanceRange.of(model, *distances).reach
        which = (
            f"all {number}"
            if number <= MAX_FILTERS
            else f"the {MAX_FILTERS} of {number} that vary most of the"
        )
        return f"cuts of {edge:g} Å by {edge:g} Å through {which} filters, as the paper's figure 3"

    def draw_filter_profiles(self, path: str) -> str:
        from pyg_schnet.plots import plot_filter_profiles
        from pyg_schnet.plots.filter_profiles import FILTERS_SHOWN
        from pyg_schnet.plots.filters import DistanceRange, strongest_filters

        model, distances = self._model(), self._distances()
        plot_filter_profiles(model, path, *distances)
        distance_range = DistanceRange.of(model, *distances)
        numbers = [
            ", ".join(map(str, row))
            for row in strongest_filters(model, FILTERS_SHOWN, distance_range).tolist()
        ]
        within = f"{distance_range.shortest:.2f} to {distance_range.longest:.2f} Å"
        return f"filters {'; '.join(numbers)} of the interactions, which vary most from {within}"

    def draw_atoms(self, path: str) -> str:
        from pyg_schnet.plots import plot_atomic_energies
        from pyg_schnet.plots.atomic_energies import element_means

        assert self.structures is not None
        assert self.potential is not None
        some = self.structures.at_most(_SAMPLED).numbers.tolist()
        both = sorted({*some, *self.chosen})
        means = element_means(*atomic_energies(self.potential, self.structures, both))
        titles = [f"structure {number}" for number in self.chosen]
        numbers = ", ".join(map(str, self.chosen))
        chosen = atomic_energies(self.potential, self.structures, self.chosen)
        plot_atomic_energies(*chosen, path, means, titles)
        return f"energies of the atoms of structure{'s' if titles[1:] else ''} {numbers}"

    def draw_elements(self, path: str) -> str:
        from ase.data import chemical_symbols

        from pyg_schnet.plots import plot_elements

        assert self.potential is not None
        plot_elements(self._model(), self.potential.elements, path)
        symbols = [chemical_symbols[z] for z in self.potential.elements]
        return f"similarity of the embeddings of {', '.join(symbols)}"

    def _model(self) -> SchNet:
        assert self.potential is not None
        return cast("SchNet", self.potential.model)

    def _distances(self) -> tuple[Tensor | None, float]:
        """Return distances of the data if known, otherwise ``None``; and the shortest distance."""
        from pyg_schnet.plots import pair_distances

        assert self.potential is not None
        if self.structures is None:
            domain = self.potential.domain
            return None, min(domain.shortest.values(), default=0.0) if domain is not None else 0.0
        return pair_distances(self.structures.some(_SAMPLED), self._model().config.cutoff), 0.0

    def _evaluate(self) -> Evaluation:
        from pyg_schnet.potentials.metrics import evaluate

        if self.evaluation is None:
            assert self.structures is not None
            assert self.potential is not None
            self.evaluation = evaluate(self.potential, self.structures.drawn)
            self.evaluation.require_finite(self.structures.drawn.indices())
        return self.evaluation


@dataclass(frozen=True)
class Picture:
    """An entry of :data:`PICTURES`.

    Attributes:
        draw: Method of :class:`Pictures` that draws it to a path and returns a description.
        needs: Required input besides the model: "run", "structures", "labels" (of structures), or "".
        uses_structures: Whether structures are read for it if there are any.
    """

    draw: Callable[[Pictures, str], str]
    needs: str = ""
    uses_structures: bool = True


PICTURES = {
    "learning_curve": Picture(Pictures.draw_learning_curve, "run", uses_structures=False),
    "parity": Picture(Pictures.draw_parity, "labels"),
    "errors": Picture(Pictures.draw_errors, "labels"),
    "filters": Picture(Pictures.draw_filters),
    "filter_profiles": Picture(Pictures.draw_filter_profiles),
    "atoms": Picture(Pictures.draw_atoms, "structures"),
    "elements": Picture(Pictures.draw_elements, uses_structures=False),
}


def _names_with(*needs: str) -> list[str]:
    """Return the names of the pictures that need one of some inputs."""
    return [name for name, picture in PICTURES.items() if picture.needs in needs]


def _structures(options: Namespace, target: PlotTarget, potential: Potential) -> Structures:
    if options.file is None:
        return structures_of_run(target, options.part, potential)
    keys = {key: options[key] for key in KEYS}
    return structures_of_file(target, options.file, options.part, keys, potential)


def _load(target: PlotTarget, device: str) -> Potential:
    from pyg_schnet.potentials.checkpoint import read
    from pyg_schnet.simulation.calculator import evaluation_copy

    if target.run is not None and not target.model.is_file():
        raise FileNotFoundError(
            f"{target.model}: does not exist yet; the first validation writes it. Use --only learning_curve "
            "to draw without it"
        )
    header, _ = read(target.model, "potential")
    if "class" in header:
        raise ValueError(
            f"{target.model}: is of {header['class']}, which is not a SchNet and has no filters to draw; "
            "draw its learning curve with --only learning_curve"
        )
    return evaluation_copy(target.model, device, needs_energy=False)


def _impossible(potential: Potential) -> dict[str, str]:
    """Return which pictures cannot be drawn for a potential, with reasons."""
    from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER

    found, config = {}, cast("SchNet", potential.model).config
    if config.dipole or config.readout == "mean":
        kind = "a dipole moment" if config.dipole else "a mean over atoms"
        found["atoms"] = f"the model predicts {kind}, which is not a sum over atoms"
    if not potential.has_energy:
        found["atoms"] = "the model predicts no energies"
    if len(potential.elements) == 1:
        found["elements"] = "the model has one element only, so there is nothing to compare"
    if len(potential.elements) == MAX_ATOMIC_NUMBER:
        found["elements"] = "the checkpoint does not name the elements of its training data"
    return found
