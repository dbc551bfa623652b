r"""Make the ethanol sample: GFN2-xTB molecular dynamics in MD17's file layout.

The shipped file comes from the first command; the second prints the numbers of its card::

    python datasets/md17/make_sample.py --frames 1500 --walkers 2 --seed 17
    python datasets/md17/make_sample.py --describe

Walkers are independent trajectories, one process and one thread each; their frames are stored
one walker after the other. The same command gives the same statistics everywhere, the same bits
only with the same library versions and processor.
"""

import argparse
import hashlib
import multiprocessing
import os
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixCom
from ase.md.langevin import Langevin

SAMPLE = Path(__file__).with_name("ethanol_gfn2_xtb.npz")
KCAL_PER_MOL = 4184 / (6.02214076e23 * 1.602176634e-19)  # eV, exact in the SI of 2019
TEMPERATURE = 500.0  # K, as in MD17
STEP = 0.5 * units.fs  # as in MD17
FRICTION = 0.02 / units.fs  # a vibration forgets its energy within about 50 fs
INTERVAL = 800  # steps between frames: 400 fs, where the energy has no memory left
EQUILIBRATION = 20_000  # steps, 10 ps


def ethanol() -> Atoms:
    """Return ethanol with a tightly converged GFN2-xTB calculator."""
    from tblite.ase import TBLite  # optional dependency: describing a file works without it

    atoms = molecule("CH3CH2OH")
    # Forces at accuracy 1e-3 differ by 1e-7 eV/Å from differences of the energy; at 1, by 5e-5.
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=1e-3, verbosity=0)
    return atoms


def walk(
    frames: int,
    seed: list[int],
    interval: int = INTERVAL,
    equilibration: int = EQUILIBRATION,
) -> dict[str, np.ndarray]:
    """Run Langevin dynamics of ethanol and collect frames.

    ASE's ``Langevin(fixcm=True)`` heats nine atoms to over 650 K; the constraint does not, and
    ``get_temperature`` knows that it leaves 24 degrees of freedom.

    Args:
        frames: Number of frames to keep.
        seed: Seed of the first velocities and of the thermostat's noise.
        interval: Steps between two frames.
        equilibration: Steps before the first interval.

    Returns:
        ``E (frames, 1)`` in kcal/mol, ``F (frames, 9, 3)`` in kcal/mol/Å, ``R (frames, 9, 3)`` in
        Å and the kinetic temperature ``T (frames,)`` in K.
    """
    rng = np.random.default_rng(seed)
    atoms = ethanol()
    atoms.set_constraint(FixCom())
    thermal = np.sqrt(atoms.get_masses() * (units.kB * TEMPERATURE))[:, None]
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * thermal)
    md = Langevin(atoms, STEP, temperature_K=TEMPERATURE, friction=FRICTION, fixcm=False, rng=rng)
    md.run(equilibration)
    records = []
    for _ in range(frames):
        md.run(interval)
        # Plain xTB forces: a constraint must not leave its mark in the labels.
        forces = atoms.get_forces(apply_constraint=False) / KCAL_PER_MOL
        energy = [atoms.get_potential_energy() / KCAL_PER_MOL]
        records.append((energy, forces, atoms.get_positions(), atoms.get_temperature()))
    columns = zip(*records, strict=True)
    return {key: np.array(column) for key, column in zip("EFRT", columns, strict=True)}


def fingerprint(z: np.ndarray, R: np.ndarray, E: np.ndarray, F: np.ndarray) -> str:
    """Return MD17's ``md5`` entry, as sGDML's ``dataset_md5`` defines it.

    It is the MD5 of the concatenated 16-byte MD5 digests of ``z``, ``R``, ``E``, ``F``, in this
    order, each over the array's raw bytes (C order, stored dtype).
    """
    digests = (hashlib.md5(np.ascontiguousarray(a).tobytes()).digest() for a in (z, R, E, F))
    return hashlib.md5(b"".join(digests)).hexdigest()


def save(path: Path, walks: list[dict[str, np.ndarray]]) -> None:
    """Write the frames of all walks to ``path``, whole or not at all."""
    data = {key: np.concatenate([part[key] for part in walks]) for key in "EFRT"}
    data["z"] = molecule("CH3CH2OH").numbers.astype(np.uint8)  # MD17's type
    md5 = fingerprint(data["z"], data["R"], data["E"], data["F"])
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **data, name="ethanol", theory="GFN2-xTB", md5=md5)
    temporary.replace(path)


def describe(path: Path, walkers: int) -> str:
    """Return the card's numbers, one on a line, measured on the file."""
    with np.load(path) as file:
        data = dict(file)
    E, F, R, T = data["E"][:, 0], data["F"], data["R"], data["T"]
    deviations = np.stack([part - part.mean() for part in np.split(E, walkers)])
    correlation = (deviations[:, 1:] * deviations[:, :-1]).mean() / (deviations**2).mean()
    means = ", ".join(f"{part.mean():.4f}" for part in np.split(E, walkers))
    first, second = np.triu_indices(len(data["z"]), k=1)
    distance = np.linalg.norm(R[:, first] - R[:, second], axis=-1)
    rms = np.sqrt((F**2).mean())
    return f"""\
name, theory, md5     {data["name"]}, {data["theory"]}, {data["md5"]}
bytes, SHA-256        {path.stat().st_size}, {hashlib.sha256(path.read_bytes()).hexdigest()}
frames, atoms         {len(R)}, {len(data["z"])}
temperature           {T.mean():.1f} +- {T.std() / len(T) ** 0.5:.1f} K, std {T.std():.1f} K
energy, mean          {E.mean():.4f} kcal/mol, {E.mean() * KCAL_PER_MOL:.6f} eV
energy, std           {E.std():.4f} kcal/mol, {E.std() * KCAL_PER_MOL:.6f} eV
walkers' mean energy  {means} kcal/mol
energy, lag-one corr. {correlation:.4f} +- {len(E) ** -0.5:.4f}
force, RMS            {rms:.4f} kcal/mol/Å, {rms * KCAL_PER_MOL:.6f} eV/Å
force, largest        {np.abs(F).max():.4f} kcal/mol/Å
net force, largest    {np.abs(F.sum(axis=1)).max():.9f} kcal/mol/Å
distances             {distance.min():.4f} to {distance.max():.4f} Å"""


def main() -> None:
    """Run the walkers and write the file, or describe it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1500, help="of all walkers together")
    parser.add_argument("--walkers", type=int, default=2, help="independent trajectories")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--out", type=Path, default=SAMPLE)
    parser.add_argument("--describe", action="store_true", help="only describe the file")
    args = parser.parse_args()
    if args.frames % args.walkers:
        parser.error(f"`--frames` must be a multiple of `--walkers`, got {args.frames}")
    if not args.describe:
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the fresh interpreters of "spawn"
        tasks = [(args.frames // args.walkers, [args.seed, i]) for i in range(args.walkers)]
        with multiprocessing.get_context("spawn").Pool(args.walkers) as pool:
            save(args.out, pool.starmap(walk, tasks))
    print(describe(args.out, args.walkers))


if __name__ == "__main__":
    main()
