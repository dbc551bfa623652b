r"""Make a stand-in for ISO17: GFN2-xTB molecular dynamics of isomers of C7H10O2 in ISO17's layout.

The shipped sample comes from the first command, a set of ISO17's shape from the second; the third prints
the numbers of a card::

    python datasets/iso17/make_standin.py --isomers 12 --frames 80 --out iso17_standin_sample.tar.gz
    python datasets/iso17/make_standin.py --isomers 129 --frames 1000 --out iso17_standin.tar.gz
    python datasets/iso17/make_standin.py --describe iso17_standin_sample.tar.gz

Each isomer is one task of one process and one thread. What is done lies in a folder beside the output,
``iso17_standin.parts``, so that the same command goes on where it was interrupted. The same command gives
the same bits only with the same library versions and processor; the order of isomers, the splits and the
velocities at the start depend on the seed alone.

An isomer is left out, and the next one of the random order takes its place, if its geometry does not relax,
if relaxing makes or breaks a bond, if a bond stretches to 1.5 times its relaxed length (dissociation, or
transfer of a hydrogen), if a force exceeds 20 eV/Å (explosion), or if the electrons do not converge. The
README of the archive lists these.
"""

import argparse
import ast
import csv
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.constraints import FixCom
from ase.data import atomic_numbers, covalent_radii
from ase.md.langevin import Langevin
from ase.optimize import LBFGS
from standin_archive import Isomer, Part, describe, write_archive

FORMULA = "[10,7,0,2,0]"  # C7H10O2, as the csv files count H, C, N, O, F
TEMPERATURE = 500.0  # K
STEP = 0.5  # fs
INTERVAL = 2  # steps between frames: 1 fs, as in ISO17
EQUILIBRATION = 1000  # steps, ten times the thermostat's memory
FRICTION = 0.02  # 1/fs
ACCURACY = 0.1  # tblite's: energies within 1e-9 eV, forces within 4e-5 eV/Å of converged ones (measured)
RELAXED = 0.002  # eV/Å
STRETCH = 1.5
LARGEST_FORCE = 20.0  # eV/Å; 500 K bring about 6
ORDER, VELOCITIES = 3, 4  # streams of random numbers, besides those of standin_archive


def read_isomers() -> list[Isomer]:
    """Read QM9's isomers of C7H10O2 from the package ``qm9pack``, without importing it."""
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or spec.origin is None:
        raise SystemExit("QM9 must be installed: pip install qm9pack==1.0.3")
    found = []
    for part in (1, 2, 3):
        path = Path(spec.origin).parent / "data" / f"qm9_part{part}.csv"
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["Stoichiometry"] == FORMULA:
                    numbers = [atomic_numbers[symbol] for symbol in ast.literal_eval(row["Elements"])]
                    positions = ast.literal_eval(row["XYZ_Ang"])
                    found.append(Isomer(int(row["Index"]), row["SMILES"], numbers, positions))
    return found


def bonds(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Find the pairs of atoms nearer than 1.25 times the sum of their covalent radii, ``(bonds, 2)``."""
    pairs = np.stack(np.triu_indices(len(numbers), k=1), axis=1)
    return pairs[lengths(positions, pairs) < 1.25 * covalent_radii[numbers[pairs]].sum(axis=1)]


def lengths(positions: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return distances of pairs of atoms, in Å."""
    return np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=-1)


def defect(frame: dict, bonded: np.ndarray, relaxed: np.ndarray) -> str:
    """Say what is wrong with a frame whose bonds had the lengths ``relaxed``; nothing if it is sound."""
    stretch = lengths(frame["R"], bonded) / relaxed
    worst = int(np.argmax(stretch))
    if not stretch[worst] < STRETCH:  # NaN too
        first, second = bonded[worst]
        return f"bond {first}-{second} stretched to {stretch[worst] * relaxed[worst]:.2f} Å"
    force = np.linalg.norm(frame["F"], axis=-1).max()
    return "" if force < LARGEST_FORCE else f"a force of {force:.0f} eV/Å"


def simulate(isomer: Isomer, frames: int, seed: int) -> dict[str, np.ndarray]:
    """Relax an isomer, and run Langevin dynamics from there.

    Returns:
        ``z``; ``R``, ``F`` ``(frames, atoms, 3)`` in Å and eV/Å, ``E`` ``(frames,)`` in eV and the kinetic
        temperature ``T`` ``(frames,)`` in K; the same of the relaxed geometry as ``relaxed_R`` and so on;
        and ``defect``, empty if there is none.
    """
    atoms, problem = relax(isomer)
    if problem:
        return {"defect": np.array(problem)}
    relaxed = {f"relaxed_{key}": np.array(value) for key, value in record(atoms).items()}
    rng = np.random.default_rng([seed, VELOCITIES, isomer.index])
    records, problem = walk(atoms, frames, rng)
    columns = {key: np.array([each[key] for each in records]) for key in "REFT"}
    return {"z": atoms.numbers, **relaxed, **columns, "defect": np.array(problem)}


def relax(isomer: Isomer) -> tuple[Atoms, str]:
    """Relax an isomer; say what went wrong, if anything."""
    from tblite.ase import TBLite  # optional dependency: describing a file works without it

    atoms = Atoms(isomer.numbers, isomer.positions)
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=ACCURACY, verbosity=0)
    bonded = bonds(atoms.numbers, atoms.positions)
    try:
        if not LBFGS(atoms, logfile=None).run(fmax=RELAXED, steps=500):
            return atoms, "not relaxed after 500 steps"
    except CalculationFailed:
        return atoms, "the electrons did not converge while it relaxed"
    same = np.array_equal(bonds(atoms.numbers, atoms.positions), bonded)
    return atoms, "" if same else "relaxing changed its bonds"


def walk(atoms: Atoms, frames: int, rng: np.random.Generator) -> tuple[list[dict], str]:
    """Run Langevin dynamics from a relaxed geometry; return the frames, and what went wrong, if anything."""
    bonded = bonds(atoms.numbers, atoms.positions)
    relaxed = lengths(atoms.positions, bonded)
    # ASE's Langevin(fixcm=True) is far too hot for so few atoms, see ../md17/README.md
    atoms.set_constraint(FixCom())
    thermal = np.sqrt(atoms.get_masses() * (units.kB * TEMPERATURE))[:, None]
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * thermal)
    settings = {"temperature_K": TEMPERATURE, "friction": FRICTION / units.fs, "fixcm": False, "rng": rng}
    md = Langevin(atoms, STEP * units.fs, **settings)
    records = []
    try:
        md.run(EQUILIBRATION)
        while len(records) < frames:
            md.run(INTERVAL)
            records.append(record(atoms))
            problem = defect(records[-1], bonded, relaxed)
            if problem:
                return records, f"{problem} in frame {len(records) - 1}"
    except CalculationFailed:
        return records, f"the electrons did not converge in frame {len(records)}"
    return records, ""


def record(atoms: Atoms) -> dict:
    """Return positions, energy, forces and kinetic temperature."""
    forces = atoms.get_forces(apply_constraint=False)  # plain xTB forces: no mark of the constraint
    energy = atoms.get_potential_energy()
    return {"R": atoms.get_positions(), "E": energy, "F": forces, "T": atoms.get_temperature()}


def simulate_once(task: tuple[Isomer, int, int, Path]) -> Part:
    """Simulate an isomer, unless it is there with the same settings; write its file whole or not at all."""
    isomer, frames, seed, folder = task
    path = folder / f"{isomer.index:06d}.npz"
    settings = describe_settings(frames, seed)
    if not path.exists() or read_text(path, "settings") != settings:
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, settings=settings, **simulate(isomer, frames, seed))
        temporary.replace(path)
    return Part(isomer, path, read_text(path, "defect"))


def read_text(path: Path, key: str) -> str:
    """Read a text from an npz file."""
    with np.load(path, allow_pickle=False) as file:
        return str(file[key])


def describe_settings(frames: int, seed: int) -> str:
    """Return all that a trajectory depends on besides the isomer, as JSON, in K, fs, Å and eV."""
    settings = {
        "frames": frames,
        "seed": seed,
        "temperature": TEMPERATURE,
        "step": STEP,
        "interval": INTERVAL * STEP,
        "equilibration": EQUILIBRATION * STEP,
        "friction": FRICTION,
        "limits": [ACCURACY, RELAXED, STRETCH, LARGEST_FORCE],
        "tblite": importlib.metadata.version("tblite"),
        "ase": importlib.metadata.version("ase"),
    }
    return json.dumps(settings)


def simulate_all(
    isomers: int, frames: int, seed: int, folder: Path, processes: int
) -> tuple[list[Part], list[Part]]:
    """Simulate isomers of QM9 in random order until enough stayed whole; return these and the others."""
    known = read_isomers()
    if isomers > len(known):
        raise SystemExit(f"`--isomers` must be at most {len(known)}, got {isomers}")
    order = np.random.default_rng([seed, ORDER]).permutation(len(known)).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the fresh interpreters of "spawn"
    whole, rest = [], []
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        while len(whole) < isomers and order:
            missing = isomers - len(whole)
            batch, order = order[:missing], order[missing:]
            tasks = [(known[number], frames, seed, folder) for number in batch]
            for part in pool.imap_unordered(simulate_once, tasks):
                (rest if part.defect else whole).append(part)
                state = f"left out: {part.defect}" if part.defect else "done"
                progress = f"{len(whole)}/{isomers} after {(time.monotonic() - start) / 60:.1f} min"
                print(f"{progress}: isomer {part.isomer.index} {state}", flush=True)
    return sorted(whole), sorted(rest)


def main() -> None:
    """Simulate and write the archive, or describe one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isomers", type=int, default=129, help="ISO17 has 129")
    parser.add_argument("--frames", type=int, default=1000, help="of each isomer; ISO17 has 5,000")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--out", type=Path, default=Path("iso17_standin.tar.gz"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--describe", type=Path, metavar="ARCHIVE", help="only describe an archive")
    args = parser.parse_args()
    if args.isomers < 3 or args.frames < 3:  # nothing would be left for one of the folds
        parser.error(f"`--isomers` and `--frames` must be at least 3, got {args.isomers} and {args.frames}")
    if not args.describe:
        folder = args.out.with_name(f"{args.out.name.removesuffix('.tar.gz')}.parts")
        whole, rest = simulate_all(args.isomers, args.frames, args.seed, folder, args.processes)
        write_archive(args.out, whole, rest, args.seed)
    print(describe(args.describe or args.out))


if __name__ == "__main__":
    main()
