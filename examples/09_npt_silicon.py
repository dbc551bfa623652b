"""
Silicon at constant temperature and pressure
============================================

The lattice constant by a barostat. A potential of energies, forces and stresses is trained first, for half a
minute, on structures labelled by Tersoff's potential: so its lattice constants can be checked, 5.431 Å at
rest and 5.428 Å at 300 K. So quick a potential meets them within half a per cent. For silicon by DFT train
the recipe of ``datasets/silicon/README.md``, and give its ``--model``.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.optimize import BFGS

import pyg_schnet
from pyg_schnet.simulation import SchNetCalculator

parser = argparse.ArgumentParser()
parser.add_argument("--model", help="checkpoint of a potential for silicon, trained on stresses")
parser.add_argument("--temperature", type=float, default=300.0, help="temperature in K")
parser.add_argument("--pressure", type=float, default=0.0, help="pressure in GPa")
parser.add_argument("--duration", type=float, default=3.0, help="duration in ps")
parser.add_argument("--n_train", type=int, default=200, help="number of labelled structures, without --model")
parser.add_argument("--steps", type=int, default=1000, help="training steps, without --model")
parser.add_argument("--out", type=Path, help="folder for structures, trained model and trajectory")
options = parser.parse_args()
out = options.out or Path(tempfile.mkdtemp())
out.mkdir(parents=True, exist_ok=True)

# %%
# Tersoff, Phys. Rev. B 37, 6991 (1988), for silicon.
parameters = TersoffParameters(
    m=3, gamma=1, lambda3=1.3258, c=4.8381, d=2.0417, h=0, n=22.956, beta=0.33675, lambda2=1.3258, B=95.373,
    R=3.0, D=0.2, lambda1=3.2394, A=3264.7,
)  # fmt: skip
tersoff = Tersoff({("Si", "Si", "Si"): parameters})


def lattice_constant(calculator: Calculator) -> float:
    """Return the lattice constant of the relaxed cubic cell in Å."""
    atoms = bulk("Si", cubic=True)
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms, hydrostatic_strain=True), logfile=None).run(fmax=1e-3, steps=100)
    return atoms.get_volume() ** (1 / 3)


def shaken(rng: np.random.Generator) -> Atoms:
    """Strain a cell by 2 %, move atoms by 0.1 Å at most, label energy, forces and stress."""
    atoms = bulk("Si", cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(scale=rng.uniform(0, 0.1), size=(len(atoms), 3))
    atoms.calc = Tersoff({("Si", "Si", "Si"): parameters})  # its own, which keeps the results
    atoms.get_forces()
    atoms.get_stress()
    return atoms


# %%
# Training, with stresses.

model = options.model
if model is None:
    rng = np.random.default_rng(0)
    write(out / "silicon.extxyz", [shaken(rng) for _ in range(options.n_train)])
    model = pyg_schnet.train(
        out / "silicon.extxyz",
        recipe="mlearn",
        out=out / "run",
        data={"n_val": options.n_train // 10},
        model={"cutoff": 4.5},
        trainer={"max_steps": options.steps},
    )
    print(f"Tersoff potential, relaxed: a = {lattice_constant(tersoff):.3f} Å")

calculator = SchNetCalculator(model)
print(f"SchNet, relaxed:            a = {lattice_constant(calculator):.3f} Å")

# %%
# Dynamics of 64 atoms with the barostat of Martyna, Tobias and Klein.

atoms = bulk("Si", cubic=True).repeat(2)
atoms.calc = calculator
spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * options.temperature)
momenta = spread * np.random.default_rng(0).normal(size=(len(atoms), 3))
atoms.set_momenta(momenta - momenta.mean(axis=0))  # the crystal at rest
dynamics = IsotropicMTKNPT(
    atoms,
    timestep=1 * units.fs,
    temperature_K=options.temperature,
    pressure_au=options.pressure * units.GPa,
    tdamp=100 * units.fs,
    pdamp=500 * units.fs,
    trajectory=str(out / "npt.traj"),
    loginterval=10,
)
constants, pressures = [], []
for _ in range(10):
    for _ in range(max(1, round(10 * options.duration))):
        dynamics.run(10)
        constants.append((atoms.get_volume() / 8) ** (1 / 3))
        pressures.append(-atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa)
    print(
        f"{dynamics.get_time() / units.fs / 1000:6.2f} ps  T {atoms.get_temperature():4.0f} K  "
        f"a {constants[-1]:.3f} Å  pressure {pressures[-1]:+.2f} GPa"
    )
half = len(constants) // 2
print(
    f"SchNet at {options.temperature:g} K: a = {np.mean(constants[half:]):.3f} Å at "
    f"{np.mean(pressures[half:]):+.2f} GPa, means of the second half"
)
