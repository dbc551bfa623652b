r"""Compare GFN2-xTB with ANI-1ccx as teachers: 5,000 frames, close contacts, and geometries of QM9.

ANI's weights are in the wheel of torchani 2.0 (those of 2.2.4 lack the ones of ANI-1ccx and ANI-2x)::

    python datasets/organic/compare_teachers.py data/organic/train --frames 5000

Frames with elements other than H, C, N and O are left out: ANI-1ccx does not know them.
"""

from __future__ import annotations

import argparse
import ast
import csv
import importlib.util
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.data import atomic_numbers, covalent_radii
from ase.optimize import LBFGS
from comparison import frequencies, rmsd
from geometries import KINDS, embed, shaken
from make_frames import Teacher
from molecules import SMALL

KCAL = units.kcal / units.mol
ORGANIC = (1, 6, 7, 8)
DISAGREEMENT = 0.23 * KCAL  # eV/√atom: above it, ANI-1x was trained on the frame (Smith et al. 2018)


class Ani(Calculator):
    """ANI-1ccx, a mean of eight networks; ``disagreement`` is their deviation in eV per root of the atoms."""

    implemented_properties = ("energy", "forces")

    def __init__(self):
        super().__init__()
        import torch
        import torchani

        self.torch, model = torch, torchani.models.ANI1ccx(periodic_table_index=False)
        self.model = model.double()
        self.disagreement = 0.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Compute energy and forces."""
        super().calculate(atoms, properties, system_changes)
        torch, model = self.torch, self.model
        species = torch.tensor([[ORGANIC.index(z) for z in self.atoms.numbers]])
        pos = torch.tensor(self.atoms.positions[None], requires_grad=True)
        aevs = model.aev_computer((species, pos))
        energies = torch.stack([network(aevs).energies for network in model.neural_networks])
        energy = model.energy_shifter((species, energies.mean(0))).energies
        (gradient,) = torch.autograd.grad(energy.sum(), pos)
        self.disagreement = float(energies.detach().std()) * units.Hartree / len(species[0]) ** 0.5
        self.results = {
            "energy": float(energy.detach()) * units.Hartree,
            "forces": -gradient[0].numpy() * units.Hartree,
        }


def frames_of(folder: Path, count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield kind, atomic numbers, positions and forces of frames of H, C, N and O."""
    for path in sorted(folder.glob("[0-9]*.npz")):
        with np.load(path, allow_pickle=False) as file:
            ends = np.cumsum(file["n_atoms"])[:-1]
            columns = [np.split(file[key], ends) for key in ("numbers", "positions", "forces")]
            for kind, numbers, positions, forces in zip(file["kind"], *columns, strict=True):
                if np.isin(numbers, ORGANIC).all():
                    yield KINDS[kind], numbers, positions.astype(float), forces.astype(float)
                    count -= 1
                    if count == 0:
                        return


def compare_frames(folder: Path, count: int, ani: Ani, teacher: Teacher) -> None:
    """Print differences of forces, ANI's own uncertainty and the time of a frame, for each kind."""
    rows: dict[str, list] = {kind: [] for kind in KINDS}
    times = {"GFN2-xTB": 0.0, "ANI-1ccx": 0.0}
    for index, (kind, numbers, positions, forces) in enumerate(frames_of(folder, count)):
        start = time.process_time()
        found = Atoms(numbers, positions, calculator=ani).get_forces()
        times["ANI-1ccx"] += time.process_time() - start
        if index % 20 == 0:
            start = time.process_time()
            teacher.label(numbers, positions)
            times["GFN2-xTB"] += 20 * (time.process_time() - start)
        squares = [(forces**2).mean(), (found**2).mean(), ((found - forces) ** 2).mean()]
        rows[kind].append([*squares, np.linalg.norm(found, axis=1).max(), ani.disagreement > DISAGREEMENT])
    total = sum(map(len, rows.values()))
    print(
        f"{total} frames; processor time of one: "
        + ", ".join(f"{k} {t / total * 1e3:.1f} ms" for k, t in times.items())
    )
    print("| kind | frames | RMS force GFN2 | ANI | difference, eV/Å | largest of ANI | ANI uncertain |")
    print("|---|---|---|---|---|---|---|")
    for kind in filter(rows.get, KINDS):
        table = np.array(rows[kind], dtype=float)
        gfn, other, difference = np.sqrt(table[:, :3].mean(axis=0))
        print(
            f"| {kind} | {len(table)} | {gfn:.2f} | {other:.2f} | {difference:.2f} | "
            f"{table[:, 3].max():.0f} | {table[:, 4].mean():.0%} |"
        )


def compare_contacts(calculators: dict[str, Calculator], scans: int, seed: int) -> None:
    """Push two small molecules together until atoms overlap: the energy must rise, without jumps."""
    rng = np.random.default_rng(seed)
    holes, rough = dict.fromkeys(calculators, 0), dict.fromkeys(calculators, 0.0)
    partners = [s for s in SMALL if set(s) <= set("HCNOcno()=#1[]")]
    for _ in range(scans):
        first, second = (embed(partners[i], rng, 1) for i in rng.integers(len(partners), size=2))
        parts = [
            (np.array([a.GetAtomicNum() for a in m.GetAtoms()]), shaken(m.GetConformer().GetPositions(), rng))
            for m in (first, second)
        ]
        numbers = np.concatenate([parts[0][0], parts[1][0]])
        axis = rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
        fixed, moved = (p - p.mean(axis=0) for _, p in parts)
        radii = covalent_radii[parts[0][0]][:, None] + covalent_radii[parts[1][0]][None]

        def closest(shift, fixed=fixed, moved=moved, radii=radii, axis=axis):
            gaps = np.linalg.norm(fixed[:, None] - (moved + shift * axis)[None], axis=-1)
            return (gaps / radii).min()

        start = next(s for s in np.arange(0.0, 20.0, 0.01)[::-1] if closest(s) < 1.6)
        path = [s for s in np.arange(start, 0, -0.02) if closest(s) > 0.7]
        for name, calculator in calculators.items():
            try:
                energy = np.array(
                    [
                        Atoms(
                            numbers, np.concatenate([fixed, moved + s * axis]), calculator=calculator
                        ).get_potential_energy()
                        for s in path
                    ]
                )
            except CalculationFailed:
                holes[name] += 1
                continue
            outside = sum(closest(s) > 1.0 for s in path)
            inside = sum(closest(s) > 0.9 for s in path)
            holes[name] += bool(energy[-1] < energy[inside - 1])
            rough[name] = max(rough[name], float(np.abs(np.diff(energy[:outside], 3)).max(initial=0.0)))
    for name in calculators:
        print(
            f"{name}: {holes[name]} of {scans} dimers fail, or have less energy at 0.7 than at 0.9 covalent "
            f"distances; largest third difference of steps of 0.02 Å before that {rough[name]:.3f} eV"
        )


def qm9_rows(count: int, seed: int) -> list[dict[str, str]]:
    """Return random rows of QM9 with H, C, N and O."""
    spec = importlib.util.find_spec("qm9pack")
    assert spec is not None
    assert spec.origin is not None
    with (Path(spec.origin).parent / "data" / "qm9_part2.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "F" not in row["Elements"]]
    return [rows[i] for i in np.random.default_rng(seed).choice(len(rows), count, replace=False)]


def compare_geometries(calculators: dict[str, Calculator], count: int, seed: int) -> None:
    """Relax molecules of QM9, and compare geometries and frequencies with QM9's, of B3LYP."""
    for name, calculator in calculators.items():
        distances, errors = [], []
        for row in qm9_rows(count, seed):
            numbers = [atomic_numbers[symbol] for symbol in ast.literal_eval(row["Elements"])]
            atoms = Atoms(numbers, ast.literal_eval(row["XYZ_Ang"]), calculator=calculator)
            before = atoms.positions.copy()
            if not LBFGS(atoms, logfile=None).run(fmax=0.005, steps=300):
                continue
            distances.append(rmsd(before, atoms.positions))
            if len(errors) < 20:
                found = frequencies(atoms, calculator)
                known = np.array(ast.literal_eval(row["Harmonic_Freq_cmi"]))
                errors.append(found - np.sort(known))
        off = np.concatenate(errors)
        print(
            f"{name}: {len(distances)} of {count} molecules of QM9 relax; RMSD to B3LYP median "
            f"{np.median(distances):.3f}, 95 % below {np.quantile(distances, 0.95):.3f} Å; frequencies of "
            f"{len(errors)}: mean error {off.mean():+.0f}, mean absolute {np.abs(off).mean():.0f} cm⁻¹"
        )


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of labeled shards")
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--scans", type=int, default=100)
    parser.add_argument("--molecules", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    teacher, ani = Teacher(), Ani()
    calculators = {"GFN2-xTB": teacher.calculator(), "ANI-1ccx": ani}
    if args.scans:
        compare_contacts(calculators, args.scans, args.seed)
    if args.molecules:
        compare_geometries(calculators, args.molecules, args.seed)
    if args.frames:
        compare_frames(args.folder, args.frames, ani, teacher)


if __name__ == "__main__":
    main()
