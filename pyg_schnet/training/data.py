"""What a run trains on: structures, their split, and the references of their energies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.cards.card import card_names, read_card
from pyg_schnet.datasets.references import References, energies_of, isolated_atoms
from pyg_schnet.datasets.report.summary import Summary, summarise
from pyg_schnet.datasets.splits import Split, random_split, read_split, without_copies
from pyg_schnet.io.formats.registry import list_files, parts_of
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.training.config import DataConfig
from pyg_schnet.training.progress import Report

_MOST_TO_DOUBT = 20_000  # structures, evenly from all, of which a look takes a second
_PLACEHOLDER = "FILE"  # of shipped recipes


class TrainingData(NamedTuple):
    """Structures to train and validate on.

    Attributes:
        train: What the weights see.
        val: What chooses the best of them.
        split: Numbers of the structures of ``data.path``.
        structures: How many ``data.path`` holds.
        references: Atomic references of the training structures.
    """

    train: AtomsDataset
    val: AtomsDataset
    split: Split
    structures: int
    references: References


def read_data(
    config: DataConfig, dtype: torch.dtype, report: Report, check_units: bool = True
) -> TrainingData:
    """Read and split the structures, and find their atomic references.

    Args:
        config: Which.
        dtype: Of the positions.
        report: What is told of left-out structures.
        check_units: Refuse data that cannot be in the units in which they are read, unless these are given.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If files do not hold what is asked for, or their units are doubtful.
    """
    check_units = check_units and config.units is None
    whole = _open(config, config.path, dtype)
    atoms = isolated_atoms(whole)
    split = _split(config, whole, atoms)
    train = _subset(whole, split.train)
    _report_doubts(train, report, check_units)
    if config.references == "fit" and atoms:
        references = _of_atoms(train, energies_of(whole, atoms), report)
    else:
        references = _references(config.references, train)
    if config.val_path is None:
        val, source = _subset(whole, split.val), whole.path
    else:
        val, source = _validation(config, train, dtype, report), config.val_path
        if check_units:
            _check_units(val, _summary(val))
    if len(val) == 0:
        raise ValueError(
            "`data.n_val` must be at least 1, to choose the best weights, got 0; or give `data.val_path`"
        )
    references.check(val.compositions(), source)
    return TrainingData(train, val, split, len(whole), references)


def hash_files(path: str | Sequence[str] | None) -> str:
    """Compute the SHA-256 of a file, or of the hashes of several or of all in a folder; ``""`` of none."""
    if path is None:
        return ""
    if not isinstance(path, str):
        return hashlib.sha256("".join(map(hash_files, path)).encode()).hexdigest()
    if Path(path).is_dir():
        return hash_files([os.fspath(part) for file in list_files(path) for part in parts_of(file)])
    return hash_file(path)


def _report_doubts(train: AtomsDataset, report: Report, check_units: bool) -> None:
    """Report what looks wrong, as ``pyg-schnet data`` does, and refuse units that are impossible."""
    summary = _summary(train)
    if check_units:
        _check_units(train, summary)
    for doubt in summary.warnings:
        report.line(f"Looks wrong: {doubt}")


def _summary(part: AtomsDataset) -> Summary:
    return summarise(cast(AtomsDataset, part[:: -(-len(part) // _MOST_TO_DOUBT)]))


def _check_units(part: AtomsDataset, summary: Summary) -> None:
    if summary.unit_doubt is None:
        return
    read, again = f'"{part.units}"', ""
    if part.is_processed:
        read, again = '"eV"', ", by processing its source again"
    raise ValueError(
        f"{part.path}: was read in {part.units.sentence()}, which cannot be: {summary.unit_doubt} Give "
        f"`data.units`{again}; or --data.units {read} if nothing is wrong"
    )


def _open(config: DataConfig, path: str | list[str], dtype: torch.dtype) -> AtomsDataset:
    if path == _PLACEHOLDER and not Path(_PLACEHOLDER).exists():
        raise FileNotFoundError("`data.path` must name your data, got the recipe's FILE; add --data.path …")
    return AtomsDataset(
        config.root,
        path,
        config.energy_key,
        config.forces_key,
        config.stress_key,
        units=config.units,
        dtype=dtype,
        memory_map=config.memory_map,
    )


def _split(config: DataConfig, whole: AtomsDataset, atoms: Collection[int]) -> Split:
    """Split the structures, of which isolated atoms are no part unless a file names them."""
    n_val = 0 if config.val_path is not None else config.n_val
    if config.split == "random":
        others = torch.tensor([number for number in range(len(whole)) if number not in atoms])
        split = random_split(len(others), config.n_train, n_val, config.seed)
        return Split(*(others[part] for part in split)) if atoms else split
    if config.split.endswith(".npz"):
        return _split_file(config.split, len(whole))
    return whole.split(config.split)


def _split_file(path: str, structures: int) -> Split:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such file; `data.split` must be 'random', the name of a published split or a file"
        )
    split = read_split(Path(path))
    numbers = torch.cat(split)
    if len(numbers.unique()) != len(numbers) or not bool(((numbers >= 0) & (numbers < structures)).all()):
        raise ValueError(
            f"{path}: must number different structures, from 0 to {structures - 1}, got others or one twice"
        )
    if len(split.train) == 0:
        raise ValueError(f"{path}: must name a structure to train on, got none in 'train'")
    return split


def _references(given: str | dict[str, float], train: AtomsDataset) -> References:
    if given == "fit":
        return train.references()
    if isinstance(given, str):
        name, _, prop = given.partition(":")
        if name not in card_names():
            raise ValueError(
                f"`data.references` must be 'fit', energies in eV by element, or 'qm9:U0', got {given!r}"
            )
        card = read_card(name)
        if prop not in card.atomref:
            raise ValueError(
                f"`data.references` must be 'fit', energies in eV by element, or '{name}:PROPERTY' with "
                f"PROPERTY one of {', '.join(card.atomref) or 'none'}; got {given!r}"
            )
        given = {symbol: value * card.factor(prop) for symbol, value in card.atomref[prop].items()}
    unknown = [symbol for symbol in given if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(f"`data.references` must be energies by element, as H: -13.6, got {unknown[0]!r}")
    references = References.given({atomic_numbers[symbol]: value for symbol, value in given.items()})
    references.check(train.compositions(), train.path)
    return references


def _of_atoms(train: AtomsDataset, atoms: dict[int, float], report: Report) -> References:
    """Take the energies of isolated atoms as references, if there is one of each element."""
    symbols = ", ".join(chemical_symbols[z] for z in sorted(atoms))
    lacking = [chemical_symbols[z] for z in train.elements() if z not in atoms]
    if lacking:
        report.line(f"Isolated atoms ({symbols}) are left out; without {lacking[0]}, references are fitted.")
        return train.references()
    report.line(f"Isolated atoms ({symbols}) are the atomic references; they are not trained on.")
    return References.given({z: energy for z, energy in atoms.items() if z in train.elements()})


def _validation(config: DataConfig, train: AtomsDataset, dtype: torch.dtype, report: Report) -> AtomsDataset:
    """Read the structures of ``val_path`` that are not in the training set."""
    assert config.val_path is not None
    val = _open(config, config.val_path, dtype)
    if val.has_forces != train.has_forces:
        raise ValueError(
            f"{config.val_path}: must have forces exactly if {train.path} has; set `data.forces_key`"
        )
    if val.has_stress != train.has_stress:
        raise ValueError(
            f"{config.val_path}: must have stresses exactly if {train.path} has; set `data.stress_key`"
        )
    new = without_copies(val.fingerprints(), train.fingerprints())
    if len(new) < len(val):
        report.line(
            f"{len(val) - len(new)} of the {len(val):,} validation structures are training structures too, "
            "and are left out."
        )
    if len(new) == 0:
        raise ValueError(f"{config.val_path}: must hold a structure that is not in the training set")
    if config.n_val is not None:
        if not 1 <= config.n_val <= len(new):
            raise ValueError(f"`data.n_val` must be 1 to {len(new)} here, got {config.n_val}")
        new = new[: config.n_val]
    return _subset(val, new)


def _subset(dataset: AtomsDataset, numbers: Tensor) -> AtomsDataset:
    return cast(AtomsDataset, dataset[numbers])
