"""Inputs of ``plot``: a run or a checkpoint, and the structures that its model is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from torch import Tensor
    from torch_geometric.data import Data

    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.potentials.potential import Potential
    from pyg_schnet.training import RunDirectory

KEYS = ("energy_key", "forces_key", "stress_key", "units")


@dataclass(frozen=True)
class PlotTarget:
    """Run or checkpoint to draw.

    Attributes:
        run: Directory of the run; ``None`` for a checkpoint alone.
        model: Path of the checkpoint.
        command: Name of the command, for messages.
    """

    run: RunDirectory | None
    model: Path
    command: str = "plot"

    @classmethod
    def open(cls, target: str, command: str = "plot") -> PlotTarget:
        """Open the run or checkpoint that a path names.

        Args:
            target: The path.
            command: Name of the command, for messages.

        Raises:
            FileNotFoundError: If it does not exist and no pretrained model has this name.
            ValueError: If it is a directory other than a run, or names several models.
        """
        from pyg_schnet.potentials.ensemble import is_ensemble_file
        from pyg_schnet.potentials.pretrained import find_model
        from pyg_schnet.training import RunDirectory

        path = Path(target)
        several = "," in target and not path.exists()
        if several or is_ensemble_file(path):
            raise ValueError(
                f"`{command}` takes one model, got {target}; `pyg-schnet evaluate {target} FILE "
                "--plot_calibration PICTURE` draws the errors of several"
            )
        path = Path(find_model(target))
        if not path.exists():
            raise FileNotFoundError(f"{target}: no such run or checkpoint; `pyg-schnet train` makes both")
        if path.is_file():
            return cls(None, path, command)
        run = RunDirectory(path)
        if not run.config.is_file():
            raise ValueError(
                f"{target}: is not a run of pyg-schnet (it has no config.yaml); pass the folder that "
                "`train --out` wrote, or a checkpoint"
            )
        return cls(run, run.model, command)

    @property
    def folder(self) -> Path:
        """Default directory of the pictures."""
        return self.model.parent / "plots"

    def rows(self) -> list[dict[str, float]]:
        """Read the rows of ``metrics.csv``, one for each validation.

        Raises:
            ValueError: If there are none.
        """
        assert self.run is not None
        rows = self.run.read_metrics()
        if not rows:
            raise ValueError(
                f"{self.run.metrics}: must hold a validation to draw the learning curve, got none; wait for "
                "the first, or select other pictures by --only"
            )
        return rows

    def data_options(self) -> dict[str, Any] | None:
        """Read the data options of the run from ``config.yaml``; ``None`` without such a file.

        Raises:
            ValueError: If the file has no section ``data``.
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


@dataclass(frozen=True)
class Structures:
    """Structures of a file, and the selection that is drawn.

    Attributes:
        whole: All structures of the file.
        numbers: Indices of the selection in the file.
        name: Description of the selection.
        unlabeled: Reason why there are no labels; ``None`` if there are.
        part: "train", "val" or "test" of the split; "" for a whole file.
    """

    whole: AtomsDataset | list[Data]
    numbers: Tensor
    name: str
    unlabeled: str | None = None
    part: str = ""

    @property
    def drawn(self) -> AtomsDataset:
        """The selection as a data set with labels."""
        assert self.unlabeled is None
        return cast("AtomsDataset", cast("AtomsDataset", self.whole)[self.numbers])

    def some(self, count: int) -> Data:
        """Return at most ``count`` evenly spaced structures in one batch."""
        from torch_geometric.data import Batch

        numbers = self.at_most(count).numbers.tolist()
        return cast("Data", Batch.from_data_list([cast("Data", self.whole[number]) for number in numbers]))

    def at_most(self, count: int) -> Structures:
        """Return a selection of at most ``count`` evenly spaced structures."""
        import torch

        if len(self.numbers) <= count:
            return self
        places = torch.linspace(0, len(self.numbers) - 1, count, dtype=torch.float64).round().long()
        return replace(self, numbers=self.numbers[places], name=f"{count:,} of {self.name}")


def structures_of_run(target: PlotTarget, part: str | None, potential: Potential) -> Structures:
    """Open the test structures of a run or, without any, its validation structures.

    Args:
        target: The run.
        part: "train", "val" or "test" instead.
        potential: Its model, which determines the labels.

    Raises:
        FileNotFoundError: If the data do not exist any more.
        ValueError: If ``part`` is unknown or empty.
    """
    import torch

    from pyg_schnet.training.data import hash_files

    assert target.run is not None
    options = target.data_options()
    assert options is not None
    paths = [options["path"]] if isinstance(options["path"], str) else options["path"]
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(
                f"{path}: does not exist, but {target.run.config} names it as the data; pass them, as "
                f"`pyg-schnet {target.command} {target.run.path} FILE`"
                + (", or select pictures without data by --only" if target.command == "plot" else "")
            )
    whole = _open(options, options["path"], options["root"], potential)
    split = target.run.read_split()
    if part is None and len(split.test) == 0:
        part = "val"
        if options["val_path"] is not None:
            other = _open(options, options["val_path"], options["root"], potential)
            numbers = torch.arange(len(other))
            return Structures(other, numbers, _description(other, options["val_path"]), part="val")
    part = part or "test"
    numbers = target.run.read_part(part, len(whole), hash_files(options["path"]))
    name = f"the {part} part of {_description(numbers, whole.path)}"
    return Structures(whole, numbers, name, part=part)


def structures_of_file(
    target: PlotTarget, path: str, part: str | None, keys: dict[str, Any], potential: Potential
) -> Structures:
    """Open a file; if the model was trained on it, select only its test structures, if there are any.

    Args:
        target: Run or checkpoint of the model.
        path: The file.
        part: "train", "val" or "test" of the split beside the model.
        keys: Options of the command that name labels and units.
        potential: The model, which determines the labels.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, or ``part`` is empty.
    """
    import torch

    from pyg_schnet.training import RunDirectory
    from pyg_schnet.training.data import hash_files

    run = RunDirectory(target.model.parent)
    sha256 = hash_files(path) if run.split.is_file() and Path(path).exists() else None
    is_trained_on = sha256 is not None and run.read_hashes()[:1] == [sha256]
    if is_trained_on:  # with the options of the run
        keys = {**(target.data_options() or {}), **{key: value for key, value in keys.items() if value}}
    try:
        whole = _open(keys, path, None, potential)
    except ValueError as error:
        if part is not None or any(keys.values()):
            raise
        return _without_labels(path, error)
    if part is None and is_trained_on and len(run.read_split().test):
        part = "test"
    if part is None:
        return Structures(whole, torch.arange(len(whole)), _description(whole, path))
    numbers = run.read_part(part, len(whole), sha256)
    return Structures(whole, numbers, f"the {part} part of {_description(numbers, path)}", part=part)


def open_training_data(
    target: PlotTarget, potential: Potential
) -> tuple[AtomsDataset, dict[str, Tensor], str | None] | None:
    """Open the data that a model was trained on.

    Args:
        target: Run or checkpoint of the model.
        potential: The model, which determines the labels.

    Returns:
        The data, the indices of each part of the split, and the SHA-256 of the file as it was; ``None`` if
        the data or the options of the run are gone.
    """
    from pyg_schnet.training import RunDirectory

    options = target.data_options()
    if options is None:
        return None
    paths = [options["path"]] if isinstance(options["path"], str) else options["path"]
    if not all(Path(path).exists() for path in paths):
        return None
    run = RunDirectory(target.model.parent)
    split = run.read_split()._asdict() if run.split.is_file() else {}
    hashes = run.read_hashes() if run.split.is_file() else []
    whole = _open(options, options["path"], options["root"], potential)
    return whole, split, next(iter(hashes), None) or None


def choose(index: str | None, structures: Structures) -> list[int]:
    """Return the indices of the structures whose atoms are drawn; the first one by default.

    Raises:
        ValueError: If ``index`` is not an integer or slice, or selects none or too many.
    """
    from pyg_schnet.datasets.structure_file import parse_index
    from pyg_schnet.plots.atomic_energies import MAX_STRUCTURES

    if index is None:
        return structures.numbers[:1].tolist()
    chosen = parse_index(index)
    total = len(structures.whole)
    if isinstance(chosen, int) and not -total <= chosen < total:
        raise ValueError(
            f"`--index` must be below {total}, the number of structures in the file, got {index}"
        )
    numbers = list(range(total)[chosen]) if isinstance(chosen, slice) else [chosen % total]
    if not 1 <= len(numbers) <= MAX_STRUCTURES:
        raise ValueError(
            f"`--index` must choose 1 to {MAX_STRUCTURES} structures, got {len(numbers)} of {total}"
        )
    return numbers


def atomic_energies(
    potential: Potential, structures: Structures, numbers: Sequence[int]
) -> tuple[list[Atoms], list[np.ndarray]]:
    """Return structures and the energies of their atoms, in eV."""
    from pyg_schnet.transforms.ase_atoms import to_ase

    items = [cast("Data", structures.whole[number]) for number in numbers]
    device = potential.scale.device
    energies = [potential.atomic_energies(item.to(str(device))).cpu().numpy() for item in items]
    return [cast("Atoms", to_ase(item, with_results=False)) for item in items], energies


def _open(
    options: dict[str, Any], path: str | list[str], root: str | None, potential: Potential
) -> AtomsDataset:
    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.training.trained_data import label_options

    keys: dict[str, Any] = {name: options.get(name) for name in KEYS}
    keys |= label_options(potential)
    on_disk = isinstance(path, str) and path.endswith(".safetensors")
    return AtomsDataset(None if on_disk else root, path, **keys, memory_map=on_disk)


def _without_labels(path: str, error: ValueError) -> Structures:
    """Read structures that have no labels."""
    import torch

    from pyg_schnet.datasets.structure_file import StructureFile
    from pyg_schnet.transforms.ase_atoms import from_ase

    try:
        items = [from_ase(atoms) for _, atoms in StructureFile(path)]
    except ValueError:
        raise error from None
    return Structures(items, torch.arange(len(items)), _description(items, path), str(error))


def _description(structures: Any, path: str | list[str]) -> str:
    name = path if isinstance(path, str) else ", ".join(path)
    count = len(structures)
    return f"{name}, {count:,} structure{'s' if count > 1 else ''}"
