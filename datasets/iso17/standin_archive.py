"""Archives in the layout of ISO17 from simulated isomers: splits, databases, README."""

import contextlib
import gzip
import json
import sqlite3
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import ase.db
import numpy as np
from ase import Atoms

KCAL_PER_MOL = 4184 / (6.02214076e23 * 1.602176634e-19)  # eV, exact in the SI of 2019
KNOWN = 0.8  # share of the molecules in the reference, and of their steps
TRAINING = 400_000 / 404_000  # share of the rows of reference.db
FOLDS = ("reference", "reference_eq", "test_within", "test_other", "test_eq")
MOLECULES, STEPS, IDS = range(3)  # streams of random numbers: none depends on how many another one took
README = """\
STAND-IN: this is not ISO17. It has the layout of ISO17, but its molecules are others, and its labels
come from GFN2-xTB, a semi-empirical method, not from DFT: do not compare errors with published ones.

{isomers} isomers of C7H10O2, drawn from QM9, {frames} frames each, {interval:g} fs apart: Langevin dynamics
at {temperature:g} K (measured: {measured:.1f} K), time step {step:g} fs, friction {friction:g} 1/fs, after
{equilibration:g} fs from the relaxed geometry. Seed {seed}, tblite {tblite}, ase {ase}.

Databases of ASE: key-value `total_energy` in eV, data `atomic_forces` in eV/Å, positions in Å. Besides,
which ISO17 does not have: `isomer`, the number in GDB-9 from 1, and `frame`, the step from 0.
train_ids.txt and validation_ids.txt hold ids of rows of reference.db, which count from 1.

In reference.db and test_within.db, by number in GDB-9:
{known}
In test_other.db:
{unseen}
Left out, as they did not stay whole:
{left_out}
"""


class Isomer(NamedTuple):
    """A molecule of QM9: its number in GDB-9 from 1, and its B3LYP geometry in Å."""

    index: int
    smiles: str
    numbers: list[int]
    positions: list[list[float]]


class Part(NamedTuple):
    """A simulated isomer: its file, and why it is left out, if it is."""

    isomer: Isomer
    path: Path
    defect: str


def split_molecules(indices: list[int], seed: int) -> tuple[list[int], list[int]]:
    """Split molecules at random into known and unseen ones, both sorted."""
    order = np.random.default_rng([seed, MOLECULES]).permutation(sorted(indices)).tolist()
    count = round(KNOWN * len(order))
    return sorted(order[:count]), sorted(order[count:])


def split_steps(frames: int, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the steps of a known molecule at random into reference and ``test_within``, both sorted."""
    order = np.random.default_rng([seed, STEPS, index]).permutation(frames)
    count = round(KNOWN * frames)
    return np.sort(order[:count]), np.sort(order[count:])


def split_ids(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of ``reference.db``, counted from 1, at random into training and validation."""
    order = 1 + np.random.default_rng([seed, IDS]).permutation(rows)
    count = min(round(TRAINING * rows), rows - 1)
    return np.sort(order[:count]), np.sort(order[count:])


def write_archive(path: Path, parts: list[Part], rest: list[Part], seed: int) -> None:
    """Write the archive, whole or not at all, with nothing in it that depends on the clock or the user."""
    known = set(split_molecules([part.isomer.index for part in parts], seed)[0])
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        folder = Path(temporary)
        rows = write_databases(folder, parts, known, seed)
        for name, ids in zip(("train_ids", "validation_ids"), split_ids(rows, seed), strict=True):
            (folder / f"{name}.txt").write_text("".join(f"{number}\n" for number in ids), encoding="ascii")
        (folder / "README").write_text(readme(parts, rest, known), encoding="utf-8")
        members = sorted(folder.iterdir())
        pack(members, folder / "archive")
        (folder / "archive").replace(path)


def write_databases(folder: Path, parts: list[Part], known: set[int], seed: int) -> int:
    """Write the five databases, isomer by isomer; return the number of rows of ``reference.db``."""
    with contextlib.ExitStack() as stack:
        databases = {
            fold: stack.enter_context(ase.db.connect(folder / f"{fold}.db", create_indices=False))
            for fold in FOLDS
        }
        for part in parts:
            with np.load(part.path, allow_pickle=False) as file:
                data = dict(file)
            index = part.isomer.index
            if index in known:
                reference, within = split_steps(len(data["E"]), seed, index)
                write_frames(databases["reference"], data, index, reference)
                write_frames(databases["test_within"], data, index, within)
            else:
                write_frames(databases["test_other"], data, index, np.arange(len(data["E"])))
            equilibrium = databases["reference_eq" if index in known else "test_eq"]
            write_row(equilibrium, data["z"], *(data[f"relaxed_{key}"] for key in "REF"), isomer=index)
    for fold in FOLDS:
        forget_origin(folder / f"{fold}.db")
    with contextlib.closing(sqlite3.connect(folder / "reference.db")) as connection:
        return connection.execute("SELECT COUNT(*) FROM systems").fetchone()[0]


def write_frames(database, data: dict[str, np.ndarray], index: int, frames: np.ndarray) -> None:
    """Append frames of an isomer, with its number in GDB-9 and theirs in the trajectory."""
    for frame in frames.tolist():
        columns = (data[key][frame] for key in "REF")
        write_row(database, data["z"], *columns, isomer=index, frame=frame)


def write_row(
    database, numbers: np.ndarray, positions: np.ndarray, energy: np.ndarray, forces: np.ndarray, **keys: int
) -> None:
    """Append a structure as ISO17 has it."""
    data = {"atomic_forces": forces.tolist()}
    database.write(Atoms(numbers, positions), total_energy=float(energy), **keys, data=data)


def forget_origin(path: Path) -> None:
    """Replace what ASE writes of clock, user and chance, so that the same rows are the same bytes."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE systems SET unique_id = printf('%032d', id), ctime = 0, mtime = 0, username = ''"
        )
        connection.commit()
        connection.execute("VACUUM")


def pack(members: list[Path], path: Path) -> None:
    """Write files into ``iso17/`` of a tar.gz, the same bytes at any time."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for member in members:
            info = tarfile.TarInfo(f"iso17/{member.name}")
            info.size = member.stat().st_size
            with member.open("rb") as file:
                archive.addfile(info, file)


def readme(parts: list[Part], rest: list[Part], known: set[int]) -> str:
    """Return the README of the archive."""
    temperatures, settings = [], {}
    for part in parts:
        with np.load(part.path, allow_pickle=False) as file:
            temperatures.append(file["T"].mean())
            settings = json.loads(str(file["settings"]))
    names = {part.path: f"  {part.isomer.index:6d}  {part.isomer.smiles}" for part in (*parts, *rest)}
    return README.format(
        **settings,
        isomers=len(parts),
        measured=np.mean(temperatures),
        known="\n".join(names[part.path] for part in parts if part.isomer.index in known),
        unseen="\n".join(names[part.path] for part in parts if part.isomer.index not in known),
        left_out="\n".join(f"{names[part.path]}: {part.defect}" for part in rest) or "  none",
    )


def describe(path: Path) -> str:
    """Return the card's numbers, measured on the archive."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
        for fold in FOLDS:
            content = archive.extractfile(f"iso17/{fold}.db")
            (Path(folder) / f"{fold}.db").write_bytes(content.read())
        folds = {fold: read_fold(Path(folder) / f"{fold}.db") for fold in FOLDS}
    lines = ["fold          rows  isomers  energy, mean +- std in eV  force RMS, largest in eV/Å"]
    for fold, (energy, forces, isomers) in folds.items():
        rms, largest = np.sqrt((forces**2).mean()), np.linalg.norm(forces, axis=-1).max()
        numbers = f"{len(energy):5d}  {len(set(isomers)):7d}  {energy.mean():12.4f} +- {energy.std():9.4f}"
        lines.append(f"{fold:12s} {numbers}  {rms:9.4f}, {largest:14.4f}")
    energy, forces, _ = folds["reference"]
    lines.append("MAE of the mean of reference.db, energy in kcal/mol, forces in kcal/mol/Å")
    for fold in ("test_within", "test_other"):
        errors = [np.abs(folds[fold][0] - energy.mean()).mean(), np.abs(folds[fold][1]).mean()]
        lines.append(f"{fold:12s} {errors[0] / KCAL_PER_MOL:8.2f} {errors[1] / KCAL_PER_MOL:8.2f}")
    return "\n".join(lines)


def read_fold(path: Path) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Read energies, forces and isomers of a database, as anybody would."""
    with ase.db.connect(path) as database:
        rows = [(row.total_energy, row.data["atomic_forces"], row.isomer) for row in database.select()]
    energy, forces, isomers = zip(*rows, strict=True)
    return np.array(energy), np.array(forces), list(isomers)
