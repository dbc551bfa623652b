"""
Analysis of a trajectory
========================

Radial distribution, diffusion and velocity autocorrelation of a trajectory of ``pyg-schnet md``, by
MDAnalysis, which also writes DCD for VMD. It is an extra: ``pip install 'pyg-schnet[mdanalysis]'``.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import read
from ase.units import fs, kB

from pyg_schnet.simulation import run_md

try:
    import MDAnalysis
    from MDAnalysis.analysis.msd import EinsteinMSD
    from MDAnalysis.analysis.rdf import InterRDF
except ImportError:
    raise SystemExit("MDAnalysis is not installed: pip install 'pyg-schnet[mdanalysis]'") from None

parser = argparse.ArgumentParser()
parser.add_argument("--trajectory", help="periodic trajectory with velocities; by default of liquid argon")
parser.add_argument("--spacing", type=float, default=20.0, help="time between its frames in fs")
parser.add_argument("--duration", type=float, default=6.0, help="simulated time of argon in ps")
parser.add_argument("--out", default=tempfile.mkdtemp(), help="folder of the files")
options = parser.parse_args()
out = Path(options.out)

# %%
# Liquid argon at 94 K, of which Rahman published the first dynamics of a liquid (Phys. Rev. 136, A405, 1964).
# ``run_md`` takes any calculator of ASE. Bussi's thermostat disturbs diffusion little.

if options.trajectory is None:
    argon = bulk("Ar", a=5.73, cubic=True).repeat(3)  # 108 atoms, 1.4 g/cm³
    argon.rattle(0.3, seed=0)
    argon.calc = LennardJones(sigma=3.405, epsilon=120 * kB, rc=8.5, smooth=True)
    bath = {"thermostat": "bussi", "temperature": 94, "friction": 0.005}
    run = run_md(
        argon,
        **bath,
        timestep=5.0,
        equilibration=4.0,
        duration=options.duration,
        interval=round(options.spacing / 5.0),
        trajectory=out / "argon.traj",
    )
    print(f"{run.temperature:.0f} K, {run.ns_per_day:.2g} ns/day")
frames = read(options.trajectory or out / "argon.traj", ":")

# %%
# A universe of MDAnalysis with the frames in memory. Positions of ``md`` are not wrapped into the cell, as
# diffusion needs them.

first = frames[0]
universe = MDAnalysis.Universe.empty(len(first), trajectory=True)
universe.add_TopologyAttr("names", first.get_chemical_symbols())
universe.load_new(
    np.array([frame.positions for frame in frames], dtype=np.float32),
    dimensions=np.array([frame.cell.cellpar() for frame in frames], dtype=np.float32),
    dt=options.spacing / 1000,  # ps
)
atoms = universe.atoms

# %%
# The radial distribution g(r).

rdf = InterRDF(
    atoms, atoms, nbins=80, range=(0.5, first.cell.lengths().min() / 2), exclusion_block=(1, 1)
).run()
r, g = rdf.results.bins, rdf.results.rdf
print(f"first peak of g(r): {g.max():.2f} at {r[g.argmax()]:.2f} Å")

# %%
# The mean square displacement, and the diffusion constant by Einstein's relation, ⟨Δr²⟩ = 6 D t, from its
# second quarter.

msd = EinsteinMSD(atoms, msd_type="xyz", fft=False).run().results.timeseries  # Å²
time = options.spacing / 1000 * np.arange(len(msd))  # ps
part = slice(len(msd) // 4, len(msd) // 2)
diffusion = np.polyfit(time[part], msd[part], 1)[0] / 6 * 10  # 1 Å²/ps = 10 x 1e-9 m²/s
print(f"diffusion: {diffusion:.1f}e-9 m²/s")

# %%
# The velocity autocorrelation, averaged over atoms and starts.

velocities = np.array([frame.get_velocities() for frame in frames]) * fs  # Å/fs
lags = len(frames) // 4
vacf = np.array([(velocities[: len(frames) - lag] * velocities[lag:]).sum(2).mean() for lag in range(lags)])
vacf /= vacf[0]

# %%
# Files for VMD: ``vmd trajectory.pdb trajectory.dcd``. OVITO reads extended xyz, the format of ``md`` itself.

with MDAnalysis.Writer(str(out / "trajectory.dcd"), n_atoms=len(atoms)) as writer:
    for _ in universe.trajectory:
        writer.write(atoms)
first.write(out / "trajectory.pdb")

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
left.plot(r, g, color="#0072B2")
left.set(xlabel="r (Å)", ylabel="g(r)")
middle.plot(time, msd, color="#0072B2")
middle.set(xlabel="time (ps)", ylabel="mean square displacement (Å²)")
right.plot(time[:lags], vacf, color="#0072B2")
right.set(xlabel="time (ps)", ylabel="velocity autocorrelation")
plt.show()
