"""
Phonons of silicon
==================

Vibrations of a crystal by finite displacements in a supercell, with ASE. A potential with a cutoff is trained
on cells labelled by Tersoff's potential, whose own phonons are drawn beside it.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.io import write
from ase.phonons import Phonons

import pyg_schnet
from pyg_schnet.simulation import SchNetCalculator

parser = argparse.ArgumentParser()
parser.add_argument("--n_train", type=int, default=100, help="number of labelled structures")
parser.add_argument("--steps", type=int, default=300, help="training steps")
parser.add_argument("--supercell", type=int, default=4, help="unit cells along each direction")
options = parser.parse_args()
out = Path(tempfile.mkdtemp())

# %%
# Labelled structures: strained cubic cells with displaced atoms. Tersoff, Phys. Rev. B 37, 6991 (1988).

parameters = TersoffParameters(
    m=3, gamma=1, lambda3=1.3258, c=4.8381, d=2.0417, h=0, n=22.956, beta=0.33675, lambda2=1.3258, B=95.373,
    R=3.0, D=0.2, lambda1=3.2394, A=3264.7,
)  # fmt: skip


def shaken(rng: np.random.Generator) -> Atoms:
    """Strain a cell by 2 %, move atoms by some 0.1 Å at most, label energy, forces and stress."""
    atoms = bulk("Si", a=5.431, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(scale=rng.uniform(0, 0.1), size=(len(atoms), 3))
    atoms.calc = Tersoff({("Si", "Si", "Si"): parameters})
    atoms.get_forces()
    atoms.get_stress()
    return atoms


rng = np.random.default_rng(0)
write(out / "silicon.extxyz", [shaken(rng) for _ in range(options.n_train)])

# %%
# Training on energies, forces and stresses; atoms within 4.5 Å interact.

run = pyg_schnet.train(
    out / "silicon.extxyz",
    recipe="mlearn",
    out=out / "run",
    data={"n_val": max(1, options.n_train // 10)},
    model={"cutoff": 4.5},
    trainer={"max_steps": options.steps},
)
print(f"forces {1e3 * run.best['val_forces_mae_eV_per_A']:.1f} meV/Å, mean absolute error of validation")

# %%
# Phonons by displacements of 0.03 Å in a supercell.


def bands(calculator: Calculator) -> tuple[np.ndarray, np.ndarray, list]:
    """Return positions along the path, frequencies in THz, and the corners of the path."""
    atoms = bulk("Si", a=5.431)
    phonons = Phonons(atoms, calculator, [options.supercell] * 3, name=str(out / "phonons"), delta=0.03)
    phonons.run()
    phonons.read(acoustic=True)
    phonons.clean()
    structure = phonons.get_band_structure(atoms.cell.bandpath("GXKGL", npoints=80), verbose=False)
    return structure.get_labels()[0], structure.energies[0] / 4.135667696e-3, structure.get_labels()[1:]


figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
found = {}
for name, color, calculator in (
    ("Tersoff", "#888888", Tersoff({("Si", "Si", "Si"): parameters})),
    ("SchNet", "#0072B2", SchNetCalculator(run)),
):
    place, frequencies, (ticks, corners) = bands(calculator)
    axes.plot(place, frequencies, color=color, linewidth=1.2)
    axes.plot([], [], color=color, label=name)
    found[name] = frequencies
    print(f"{name}: highest frequency at Γ {frequencies[0].max():.2f} THz")
print(f"mean absolute difference {np.abs(found['SchNet'] - found['Tersoff']).mean():.2f} THz")
axes.set_xticks(ticks, [corner.replace("G", "Γ") for corner in corners])
axes.set_xlim(ticks[0], ticks[-1])
axes.set_ylabel("frequency (THz)")
axes.legend(frameon=False)
plt.show()
