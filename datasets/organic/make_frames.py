r"""Make the data set of organic molecules off equilibrium, labeled by GFN2-xTB.

The first two commands make training and validation structures, the third prints what a folder holds::

    python datasets/organic/make_frames.py data/organic --shards 150
    python datasets/organic/make_frames.py data/organic --shards 4 --fold validation
    python datasets/organic/make_frames.py data/organic --describe

A shard is a file ``FOLD/00000.npz`` with the frames of 100 molecules, about 1,200. It depends on seed and
number alone, so that the same command adds the shards that are missing: a run that was killed goes on, and
``--shards 300`` doubles a set of 150. One process and one thread; run several with other ``--first``.

A second round of active learning labels those frames of a large pool on which an ensemble disagrees most.
With ``--model RUN`` a potential drives dynamics and relaxations of the pool in place of the force field::

    python datasets/organic/make_frames.py data/pool --shards 100 --seed 24 --unlabeled
    pyg-schnet select RUN,OTHER data/pool/train.xyz chosen.xyz --k 20000
    python datasets/organic/make_frames.py data/round2 --label chosen.xyz

Frames are left out, and counted, if no geometry is found for a molecule, if atoms overlap, if the electrons
do not converge, or if a force exceeds 30 eV/Å.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tblite's threads slow down so small molecules

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.io import iread, write
from ase.optimize import LBFGS
from geometries import KINDS, EmbeddingError, Geometry, embed, geometries, overlaps
from molecules import FOLDS, draw, read_qm9
from rdkit import RDLogger

MOLECULES = 100  # of a shard
ACCURACY = 0.1  # tblite's: forces within 4e-5 eV/Å of converged ones (measured, ../iso17/make_standin.py)
LARGEST_FORCE = (
    30.0  # eV/Å; a C–C bond of 1.0 Å has 60: larger ones would dominate the loss, and 1000 K has 10
)
RELAXATION_STEPS = (2, 4, 6)  # between frames of a relaxation
RELAXED_SHARE = 0.4  # of the molecules
PER_ATOM = ("numbers", "positions", "forces", "charges")


class Teacher:
    """GFN2-xTB (Bannwarth et al. 2019): closed shell, neutral, gas phase, electronic temperature 300 K."""

    name = "GFN2-xTB"

    def calculator(self) -> Calculator:
        """Return a calculator of ASE."""
        from tblite.ase import TBLite  # optional dependency: describing a folder works without it

        return TBLite(method=self.name, charge=0, accuracy=ACCURACY, verbosity=0)

    def label(self, numbers: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Return the labels of one structure, in eV, eV/Å, e and Debye.

        Raises:
            CalculationFailed: If the electrons do not converge.
        """
        atoms = Atoms(numbers, positions, calculator=self.calculator())
        moment = np.linalg.norm(atoms.get_dipole_moment()) / _DEBYE
        return {
            "energy": np.array(atoms.get_potential_energy()),
            "forces": atoms.get_forces().astype(np.float32),
            "charges": atoms.get_charges().astype(np.float32),
            "dipole": np.array(moment, dtype=np.float32),
        }


_DEBYE = 0.20819433442462576  # e Å in a Debye, as ase.units has it


def relaxation(numbers: np.ndarray, positions: np.ndarray, calculator: Calculator) -> Iterator[Geometry]:
    """Take steps of LBFGS and yield the geometry after some of them."""
    atoms = Atoms(numbers, positions, calculator=calculator)
    optimizer = LBFGS(atoms, logfile=None)
    for steps in RELAXATION_STEPS:
        optimizer.run(fmax=0.005, steps=steps)
        yield Geometry("relaxation", numbers, atoms.get_positions())


def geometries_of(
    smiles: str, rng: np.random.Generator, driver: Calculator | None, drive_dynamics: bool
) -> Iterator[Geometry]:
    """Yield all geometries of a molecule.

    Args:
        smiles: The molecule.
        rng: Source of random numbers.
        driver: Calculator of the relaxations; ``None`` for no relaxations.
        drive_dynamics: Whether it drives dynamics, too, in place of the force field.
    """
    mol = embed(smiles, rng, conformers=2)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])

    def gradient(positions: np.ndarray) -> np.ndarray:
        return -Atoms(numbers, positions, calculator=driver).get_forces()

    yield from geometries(mol, rng, gradient if drive_dynamics else None)
    if driver is not None and rng.random() < RELAXED_SHARE:
        yield from relaxation(numbers, mol.GetConformer().GetPositions(), driver)


class Frames:
    """Frames of a shard, with the reasons for which others were left out."""

    def __init__(self, teacher: Teacher | None):
        self.teacher = teacher
        self.rows: list[dict[str, np.ndarray]] = []
        self.left_out: Counter[str] = Counter()

    def add(self, geometry: Geometry, molecule: int) -> None:
        """Label a geometry and keep it, or count why not."""
        positions = geometry.positions.astype(np.float32)  # labels are of the positions that are stored
        row = {
            "numbers": geometry.numbers.astype(np.uint8),
            "positions": positions,
            "kind": np.array(KINDS.index(geometry.kind), dtype=np.uint8),
            "molecule": np.array(molecule, dtype=np.int32),
        }
        if overlaps(geometry):
            self.left_out["overlap"] += 1
            return
        if self.teacher is not None:
            try:
                row |= self.teacher.label(geometry.numbers, positions.astype(np.float64))
            except CalculationFailed:
                self.left_out["not converged"] += 1
                return
            if not np.linalg.norm(row["forces"], axis=1).max() < LARGEST_FORCE:  # NaN too
                self.left_out["large force"] += 1
                return
        self.rows.append(row)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the frames as arrays: rows of atoms one after another, with ``n_atoms`` of each frame."""
        joined = {
            key: (np.concatenate if key in PER_ATOM else np.stack)([row[key] for row in self.rows])
            for key in self.rows[0]
        }
        return joined | {"n_atoms": np.array([len(row["numbers"]) for row in self.rows], dtype=np.int32)}


@dataclass(frozen=True)
class Plan:
    """What a shard depends on besides its number.

    Attributes:
        seed: Seed of all random numbers.
        fold: Fold of the molecules.
        molecules: Number of molecules of a shard.
        model: Checkpoint that drives dynamics and relaxations, if any.
        labeled: Whether the frames are labeled.
    """

    seed: int = 23
    fold: str = "train"
    molecules: int = MOLECULES
    model: str | None = None
    labeled: bool = True

    def settings(self) -> str:
        """Return the plan and the versions of the libraries as JSON, in eV and Å."""
        versions = {name: importlib.metadata.version(name) for name in ("tblite", "ase", "rdkit", "numpy")}
        limits = {"accuracy": ACCURACY, "largest_force": LARGEST_FORCE}
        return json.dumps({**asdict(self), "teacher": Teacher.name, **limits, **versions})


def make_shard(
    number: int, plan: Plan, qm9: list[str], teacher: Teacher
) -> tuple[Frames, list[str], list[str]]:
    """Make the frames of a shard; return them with SMILES and origins of the molecules."""
    frames, all_smiles, origins = Frames(teacher if plan.labeled else None), [], []
    driver = None
    if plan.model is not None:
        driver = model_calculator(plan.model)
    elif plan.labeled:  # a pool without labels costs no calculations of the teacher
        driver = teacher.calculator()
    for index in range(plan.molecules):
        rng = np.random.default_rng([plan.seed, FOLDS.index(plan.fold), number, index])
        smiles, origin = draw(rng, qm9, plan.fold)
        all_smiles.append(smiles)
        origins.append(origin)
        made = geometries_of(smiles, rng, driver, plan.model is not None)
        while True:
            try:
                geometry = next(made)
            except StopIteration:
                break
            except EmbeddingError:  # of the molecule, or of its partner
                frames.left_out["no geometry"] += 1
                break
            except (CalculationFailed, ValueError):  # of the driver
                frames.left_out["not driven"] += 1
                break
            frames.add(geometry, index)
    return frames, all_smiles, origins


def model_calculator(model: str) -> Calculator:
    """Return the calculator of a trained potential."""
    from pyg_schnet.simulation import SchNetCalculator

    return SchNetCalculator(model)


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")  # no extension that a reader of the folder knows
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)


def make(folder: Path, shards: range, plan: Plan) -> None:
    """Make the shards that are missing."""
    teacher, qm9, settings = Teacher(), read_qm9(), plan.settings()
    for number in shards:
        path = folder / plan.fold / f"{number:05d}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as file:
                made = str(file["settings"])
            if made != settings:
                raise SystemExit(f"{path}: was made with {made}, not {settings}; use another folder")
            continue
        start = time.monotonic()
        frames, smiles, origins = make_shard(number, plan, qm9, teacher)
        texts = {
            "smiles": smiles,
            "origin": origins,
            "settings": settings,
            "left_out": json.dumps(frames.left_out),
        }
        save(path, frames.arrays() | {key: np.array(value) for key, value in texts.items()})
        count, seconds = len(frames.rows), time.monotonic() - start
        print(
            f"{path}: {count} frames, {count / seconds:.1f} a second; left out: {dict(frames.left_out)}",
            flush=True,
        )


def write_pool(folder: Path, fold: str) -> None:
    """Write the frames of all shards of a fold to one file for ``pyg-schnet select``."""
    pool = []
    for path in sorted((folder / fold).glob("[0-9]*.npz")):
        with np.load(path, allow_pickle=False) as file:
            ends = np.cumsum(file["n_atoms"])[:-1]
            rows = zip(*(np.split(file[key], ends) for key in ("numbers", "positions")), strict=True)
            for kind, (numbers, positions) in zip(file["kind"], rows, strict=True):
                pool.append(Atoms(numbers, positions, info={"kind": KINDS[kind]}))
    write(folder / f"{fold}.xyz", pool, format="extxyz")


def label(folder: Path, frames: Iterable[Atoms], teacher: Teacher) -> None:
    """Label frames of a file, 1,000 a shard; shards that are there are kept."""
    shard: list[Atoms] = []
    number = 0
    frames = iter(frames)
    while shard := [atoms for _, atoms in zip(range(1000), frames, strict=False)]:
        path = folder / "train" / f"{number:05d}.npz"
        number += 1
        if path.exists():
            continue
        labeled = Frames(teacher)
        for index, atoms in enumerate(shard):
            kind = atoms.info.get("kind", "dynamics")
            labeled.add(Geometry(kind, atoms.numbers, atoms.positions), index)
        save(path, labeled.arrays() | {"left_out": np.array(json.dumps(labeled.left_out))})
        print(f"{path}: {len(labeled.rows)} frames; left out: {dict(labeled.left_out)}", flush=True)


def describe(folder: Path) -> str:
    """Return what the shards of a folder hold, as text."""
    lines = []
    for fold in FOLDS:
        paths = sorted((folder / fold).glob("[0-9]*.npz"))
        if not paths:
            continue
        kinds, left_out, elements, forces, smiles, atoms = Counter(), Counter(), Counter(), [], set(), []
        for path in paths:
            with np.load(path, allow_pickle=False) as file:
                kinds.update(KINDS[kind] for kind in file["kind"].tolist())
                left_out.update(json.loads(str(file["left_out"])))
                atoms.append(file["n_atoms"])
                smiles.update(file["smiles"].tolist() if "smiles" in file else [])
                starts = np.cumsum(file["n_atoms"]) - file["n_atoms"]
                for z in np.unique(file["numbers"]).tolist():
                    elements[z] += int(np.add.reduceat(file["numbers"] == z, starts).astype(bool).sum())
                if "forces" in file:
                    forces.append(file["forces"])
        frames = sum(kinds.values())
        size = np.concatenate(atoms)
        lines += [
            f"{fold}: {frames} frames of {len(smiles)} molecules in {len(paths)} shards, {size.min()} to "
            f"{size.max()} atoms, mean {size.mean():.1f}",
            "  kinds       " + ", ".join(f"{kind} {kinds[kind]}" for kind in KINDS),
            "  frames with "
            + ", ".join(f"{Atoms([z]).symbols}: {n / frames:.1%}" for z, n in sorted(elements.items())),
            "  left out    "
            + (", ".join(f"{key} {value}" for key, value in left_out.most_common()) or "none"),
        ]
        if forces:
            lengths = np.linalg.norm(np.concatenate(forces), axis=1)
            rms = np.sqrt((lengths**2).mean() / 3)
            lines.append(f"  forces      RMS {rms:.3f} eV/Å of a component, largest {lengths.max():.1f} eV/Å")
    return "\n".join(lines)


def main() -> None:
    """Make, label or describe frames."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the shards")
    parser.add_argument("--shards", type=int, default=150, help="number of the last shard, and one more")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--molecules", type=int, default=MOLECULES, help="of a shard")
    parser.add_argument("--fold", choices=FOLDS, default="train")
    parser.add_argument("--seed", type=int, default=23)
    parser.add_argument("--model", help="checkpoint that drives dynamics and relaxations")
    parser.add_argument("--unlabeled", action="store_true", help="also write FOLD.xyz, without labels")
    parser.add_argument("--label", type=Path, metavar="FILE", help="only label the frames of a file")
    parser.add_argument("--describe", action="store_true", help="only print what the folder holds")
    args = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    if args.describe:
        print(describe(args.folder))
    elif args.label:
        label(args.folder, iread(args.label, index=":"), Teacher())
    else:
        plan = Plan(args.seed, args.fold, args.molecules, args.model, not args.unlabeled)
        make(args.folder, range(args.first, args.shards), plan)
        if args.unlabeled:
            write_pool(args.folder, args.fold)


if __name__ == "__main__":
    main()
