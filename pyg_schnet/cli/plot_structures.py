"""The structures that ``plot`` compares a model on, and of whose atoms it draws the energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pyg_schnet.cli.plot_source import Source

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from torch import Tensor
    from torch_geometric.data import Data

    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.potentials.potential import Potential

KEYS = ("energy_key", "forces_key", "stress_key", "units")


@dataclass(frozen=True)
class Structures:
    """Structures, of which some are drawn.

    Attributes:
        whole: All of the file.
        numbers: Of those that are drawn, in the file, from 0.
        name: What they are, in words.
        unlabelled: Why there are no labels to compare with; ``None`` where there are.
    """

    whole: AtomsDataset | list[Data]
    numbers: Tensor
    name: str
    unlabelled: str | None = None

    @property
    def drawn(self) -> AtomsDataset:
        """Those that are drawn, with labels."""
        assert self.unlabelled is None
        return cast("AtomsDataset", cast("AtomsDataset", self.whole)[self.numbers])

    def some(self, count: int) -> Data:
        """Take so many of them, evenly, into one batch."""
        from torch_geometric.data import Batch

        numbers = self.at_most(count).numbers.tolist()
        return cast("Data", Batch.from_data_list([cast("Data", self.whole[number]) for number in numbers]))

    def at_most(self, count: int) -> Structures:
        """Leave out some, evenly from the first to the last, if there are more."""
        import torch

        if len(self.numbers) <= count:
            return self
        places = torch.linspace(0, len(self.numbers) - 1, count, dtype=torch.float64).round().long()
        return replace(self, numbers=self.numbers[places], name=f"{count:,} of {self.name}")


def structures_of_run(source: Source, part: str | None) -> Structures:
    """Open what a run left to test or, where it left nothing, what validated it.

    Raises:
        FileNotFoundError: If the data are not there any more.
        ValueError: If ``part`` is none, or is empty and was asked for.
    """
    import torch

    from pyg_schnet.training.data import hash_files

    assert source.run is not None
    options = source.data_options()
    assert options is not None
    paths = [options["path"]] if isinstance(options["path"], str) else options["path"]
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(
                f"{path}: not here any more, the data that {source.run.config} names; give them, as "
                f"`pyg-schnet plot {source.run.path} FILE`, or name pictures that need none by --only"
            )
    whole = _open(options, options["path"], options["root"])
    split = source.run.read_split()
    if part is None and len(split.test) == 0:
        part = "val"
        if options["val_path"] is not None:
            other = _open(options, options["val_path"], options["root"])
            return Structures(other, torch.arange(len(other)), _named(other, options["val_path"]))
    part = part or "test"
    numbers = source.run.read_part(part, len(whole), hash_files(options["path"]))
    return Structures(whole, numbers, f"the {part} part of {_named(numbers, whole.path)}")


def structures_of_file(source: Source, path: str, part: str | None, keys: dict[str, Any]) -> Structures:
    """Open a file; of the one that the model was trained on, only what was left to test, if anything was.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or the part is empty and was asked for.
    """
    import torch

    from pyg_schnet.training import RunDirectory
    from pyg_schnet.training.data import hash_files

    run = RunDirectory(source.model.parent)
    sha256 = hash_files(path) if run.split.is_file() and Path(path).exists() else None
    is_trained_on = sha256 is not None and run.read_hashes()[:1] == [sha256]
    if is_trained_on:  # its labels are known
        keys = {**(source.data_options() or {}), **{key: value for key, value in keys.items() if value}}
    try:
        whole = _open(keys, path, None)
    except ValueError as error:
        if part is not None or any(keys.values()):
            raise
        return _without_labels(path, error)
    if part is None and is_trained_on and len(run.read_split().test):
        part = "test"
    if part is None:
        return Structures(whole, torch.arange(len(whole)), _named(whole, path))
    numbers = run.read_part(part, len(whole), sha256)
    return Structures(whole, numbers, f"the {part} part of {_named(numbers, path)}")


def choose(index: str | None, structures: Structures) -> list[int]:
    """Give the numbers in the file of the structures whose atoms are drawn; the first one by default.

    Raises:
        ValueError: If ``index`` is no number or slice, or there are none, or too many.
    """
    from ase.utils import string2index

    from pyg_schnet.plots.atomic_energies import MOST

    if index is None:
        return structures.numbers[:1].tolist()
    try:
        chosen = string2index(index)
    except ValueError:
        chosen = None
    total = len(structures.whole)
    if isinstance(chosen, int) and not -total <= chosen < total:
        raise ValueError(
            f"`--index` must be below {total}, the number of structures in the file, got {index}"
        )
    if not isinstance(chosen, int | slice):
        raise ValueError(f"`--index` must be a number or a slice, as ::10, got {index!r}")
    numbers = list(range(total)[chosen]) if isinstance(chosen, slice) else [chosen % total]
    if not 1 <= len(numbers) <= MOST:
        raise ValueError(f"`--index` must choose 1 to {MOST} structures, got {len(numbers)} of {total}")
    return numbers


def atomic_energies(
    potential: Potential, structures: Structures, numbers: Sequence[int]
) -> tuple[list[Atoms], list[np.ndarray]]:
    """Give structures and what their atoms add to the energy, in eV."""
    from pyg_schnet.transforms.ase_atoms import to_ase

    items = [cast("Data", structures.whole[number]) for number in numbers]
    device = potential.scale.device
    energies = [potential.atomic_energies(item.to(str(device))).cpu().numpy() for item in items]
    return [cast("Atoms", to_ase(item, with_results=False)) for item in items], energies


def _open(options: dict[str, Any], path: str | list[str], root: str | None) -> AtomsDataset:
    from pyg_schnet.datasets import AtomsDataset

    keys: dict[str, Any] = {name: options.get(name) for name in KEYS}
    on_disk = isinstance(path, str) and path.endswith(".safetensors")
    return AtomsDataset(None if on_disk else root, path, **keys, memory_map=on_disk)


def _without_labels(path: str, error: ValueError) -> Structures:
    """Read structures that could not be read with labels."""
    import torch

    from pyg_schnet.datasets.structure_file import StructureFile
    from pyg_schnet.transforms.ase_atoms import from_ase

    try:
        items = [from_ase(atoms) for _, atoms in StructureFile(path)]
    except ValueError:
        raise error from None
    return Structures(items, torch.arange(len(items)), _named(items, path), str(error))


def _named(structures: Any, path: str | list[str]) -> str:
    name = path if isinstance(path, str) else ", ".join(path)
    count = len(structures)
    return f"{name}, {count:,} structure{'s' if count > 1 else ''}"
