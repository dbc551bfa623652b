"""Data of a run: structures, their split, and atomic reference energies."""

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
from pyg_schnet.datasets.report.summary import Summary, summarize
from pyg_schnet.datasets.splits import Split, random_split, read_split, without_copies
from pyg_schnet.io.formats.registry import list_files, parts_of
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.training.config import DataConfig
from pyg_schnet.training.progress import Report

_MAX_SUMMARIZED = 20_000  # structures, sampled evenly; it takes a second
_PLACEHOLDER = "FILE"  # `data.path` of shipped recipes


class TrainingData(NamedTuple):
    """Structures for training and validation.

    Attributes:
        train: Training structures.
        val: Validation structures, by which the best weights are selected.
        split: Indices of the structures in ``data.path``.
        structures: Number of structures in ``data.path``.
        references: Atomic reference energies, fitted to or given for the training structures.
    """

    train: AtomsDataset
    val: AtomsDataset
    split: Split
    structures: int
    references: References


def read_data(
    config: DataConfig, dtype: torch.dtype, report: Report, check_units: bool = True
) -> TrainingData:
    """Read and split the structures, and determine their atomic reference energies.

    Args:
        config: Files, keys, units, split and references.
        dtype: Dtype of the positions.
        report: Output for the user: warnings, and structures that are left out.
        check_units: Reject data whose values contradict the assumed units; units of ``config`` are trusted.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file lacks what ``config`` asks for, or its units are implausible.
    """
    check_units = check_units and config.units is None
    whole = _open(config, config.path, dtype)
    atoms = isolated_atoms(whole)
    split = _split(config, whole, atoms)
    train = _subset(whole, split.train)
    _warn(train, report, check_units)
    if not config.has_energy:
        references = References(torch.zeros(100, dtype=torch.float64), None, tuple(train.elements()))
    elif config.references == "fit" and atoms:
        references = _isolated_atom_references(train, energies_of(whole, atoms), report)
    else:
        references = _references(config.references, train)
    if config.val_path is None:
        val, source = _subset(whole, split.val), whole.path
    else:
        val, source = _read_validation(config, train, dtype, report), config.val_path
        if check_units:
            _check_units(val, _summarize(val))
    if len(val) == 0:
        raise ValueError(
            "`data.n_val` must be at least 1, to select the best weights, got 0; or pass `data.val_path`"
        )
    if config.has_energy:
        references.check(val.compositions(), source)
    elif foreign := set(val.elements()) - set(train.elements()):
        raise ValueError(
            f"{source}: has {chemical_symbols[min(foreign)]}, which no training structure has; train on some"
        )
    return TrainingData(train, val, split, len(whole), references)


def hash_files(path: str | Sequence[str] | None) -> str:
    """Return the SHA-256 of a file, or of the hashes of several files or a folder's; ``""`` for ``None``."""
    if path is None:
        return ""
    if not isinstance(path, str):
        return hashlib.sha256("".join(map(hash_files, path)).encode()).hexdigest()
    if Path(path).is_dir():
        return hash_files([os.fspath(part) for file in list_files(path) for part in parts_of(file)])
    return hash_file(path)


def _warn(train: AtomsDataset, report: Report, check_units: bool) -> None:
    """Report warnings, as ``pyg-schnet data`` does, and reject impossible units."""
    summary = _summarize(train)
    if check_units:
        _check_units(train, summary)
    for warning in summary.warnings:
        report.warning(warning)


def _summarize(part: AtomsDataset) -> Summary:
    return summarize(cast(AtomsDataset, part[:: -(-len(part) // _MAX_SUMMARIZED)]))


def _check_units(part: AtomsDataset, summary: Summary) -> None:
    if summary.unit_doubt is None:
        return
    assumed, how = f'"{part.units}"', ""
    if part.is_processed:
        assumed, how = '"eV"', ", by processing its source again"
    raise ValueError(
        f"{part.path}: was read in {part.units.sentence()}, which is implausible: {summary.unit_doubt} "
        f"Set `data.units`{how}, or pass --data.units {assumed} if the units are correct"
    )


def _open(config: DataConfig, path: str | list[str], dtype: torch.dtype) -> AtomsDataset:
    if path == _PLACEHOLDER and not Path(_PLACEHOLDER).exists():
        raise FileNotFoundError("`data.path` must name your data, got the recipe's FILE; add --data.path …")
    return AtomsDataset(
        config.root,
        path,
        config.energy_key if config.has_energy else "none",
        config.forces_key,
        config.stress_key,
        units=config.units,
        dtype=dtype,
        memory_map=config.memory_map,
        properties=[target.name for target in config.properties],
    )


def _split(config: DataConfig, whole: AtomsDataset, atoms: Collection[int]) -> Split:
    """Split the structures without isolated atoms, unless a file defines the split."""
    n_val = 0 if config.val_path is not None else config.n_val
    if config.split == "random":
        ids = torch.tensor([number for number in range(len(whole)) if number not in atoms])
        split = random_split(len(ids), config.n_train, n_val, config.seed)
        return Split(*(ids[part] for part in split)) if atoms else split
    if config.split.endswith(".npz"):
        return _read_split_file(config.split, len(whole))
    return whole.split(config.split)


def _read_split_file(path: str, structures: int) -> Split:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such file; `data.split` must be 'random', the name of a published split or a file"
        )
    split = read_split(Path(path))
    numbers = torch.cat(split)
    if len(numbers.unique()) != len(numbers) or not bool(((numbers >= 0) & (numbers < structures)).all()):
        raise ValueError(
            f"{path}: must hold distinct numbers of structures, 0 to {structures - 1}, got others"
        )
    if len(split.train) == 0:
        raise ValueError(f"{path}: must name at least one structure to train on, got none in 'train'")
    return split


def _references(given: str | dict[str, float], train: AtomsDataset) -> References:
    if given in ("fit", "keep"):  # kept ones are those of the model to start from
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


def _isolated_atom_references(train: AtomsDataset, atoms: dict[int, float], report: Report) -> References:
    """Return the energies of isolated atoms as references if there is one of each element; fit otherwise."""
    symbols = ", ".join(chemical_symbols[z] for z in sorted(atoms))
    missing = [chemical_symbols[z] for z in train.elements() if z not in atoms]
    if missing:
        report.line(f"Isolated atoms ({symbols}) are left out; without {missing[0]}, references are fitted.")
        return train.references()
    report.line(f"Isolated atoms ({symbols}) are the atomic references; they are not trained on.")
    return References.given({z: energy for z, energy in atoms.items() if z in train.elements()})


def _read_validation(
    config: DataConfig, train: AtomsDataset, dtype: torch.dtype, report: Report
) -> AtomsDataset:
    """Read the structures of ``val_path`` that are not training structures."""
    assert config.val_path is not None
    val = _open(config, config.val_path, dtype)
    if val.has_forces != train.has_forces:
        raise ValueError(
            f"{config.val_path}: must have forces if and only if {train.path} has; set `data.forces_key`"
        )
    if val.has_stress != train.has_stress:
        raise ValueError(
            f"{config.val_path}: must have stresses if and only if {train.path} has; set `data.stress_key`"
        )
    new = without_copies(val.fingerprints(), train.fingerprints())
    if len(new) < len(val):
        report.line(
            f"{len(val) - len(new)} of the {len(val):,} validation structures are also training structures "
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
