"""
Active learning
===============

Label with GFN2-xTB where potentials disagree, then retrain: ``--rounds 3 --out runs/active``. Each round
trains several potentials that differ by their seed, moves ethanol by their mean until they disagree, and
labels those of the frames on which they disagree most. Errors are those of the mean on 300 frames of a long
simulation by GFN2-xTB at 500 K, which nobody trains on: of the forces 108, 86 and 56 meV/Å with 20, 40 and 60
frames, in five minutes on one core.
"""

import argparse
import tempfile
from pathlib import Path

from ase import Atoms
from ase.io import read, write

import pyg_schnet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.prediction.selection import select
from pyg_schnet.transforms import to_ase

try:
    from tblite.ase import TBLite
except ImportError:
    raise SystemExit("tblite, which labels, is missing: pip install 'pyg-schnet[tblite]'") from None

ROOT = Path(pyg_schnet.__file__).parents[1] / "datasets" / "md17"

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--start", type=int, default=20, help="number of initial labelled frames")
parser.add_argument("--k", type=int, default=20, help="frames labelled in each round")
parser.add_argument("--potentials", type=int, default=3)
parser.add_argument("--steps", type=int, default=1000, help="steps of each training")
parser.add_argument("--temperature", type=float, default=500.0, help="temperature of the dynamics in K")
parser.add_argument("--duration", type=float, default=2.0, help="maximum duration of the dynamics in ps")
parser.add_argument(
    "--limit", type=float, default=1.0, help="force deviation that stops the dynamics, in eV/Å"
)
parser.add_argument("--out", type=Path, help="folder for frames, models and trajectories")
options = parser.parse_args()
out = options.out or Path(tempfile.mkdtemp())
out.mkdir(parents=True, exist_ok=True)


def label(atoms: Atoms) -> Atoms:
    """Compute energy and forces by GFN2-xTB."""
    copy = Atoms(atoms.numbers, atoms.positions)
    copy.calc = TBLite(method="GFN2-xTB", verbosity=0)
    copy.get_forces()
    return copy


def train(frames: list[Atoms], folder: Path) -> list[Path]:
    """Train potentials that differ by their seed; return the checkpoints."""
    write(folder / "frames.extxyz", frames)
    return [
        pyg_schnet.train(
            folder / "frames.extxyz",
            out=folder / str(seed),
            trainer={"max_steps": options.steps, "seed": seed},
        ).model
        for seed in range(options.potentials)
    ]


# %%
# Rounds of training, dynamics, selection and labelling.

sample = AtomsDataset(path=ROOT / "ethanol_gfn2_xtb.npz")
test = sample[-300:]
frames = [label(to_ase(sample[i])) for i in range(options.start)]
print("round  frames  energy MAE  forces MAE  deviation  dynamics")
print("                     (meV)    (meV/Å)    (eV/Å)      (ps)")
for number in range(options.rounds):
    folder = out / f"round_{number}"
    folder.mkdir()
    models = train(frames, folder)
    errors = pyg_schnet.evaluate(models, test)
    dynamics = pyg_schnet.md(
        *(models, frames[number], folder / "dynamics.extxyz"),
        temperature=options.temperature,
        duration=options.duration,
        thermostat="langevin",
        seed=number,
        interval=20,  # 10 fs: successive frames are nearly redundant
        stop_if_uncertain=options.limit,
    )
    pool = read(folder / "dynamics.extxyz", ":")
    chosen = select(models, pool, options.k)
    print(
        f"{number:5}  {len(frames):6}  {1e3 * errors.energy_mae:10.1f}  {1e3 * errors.forces_mae:10.1f}  "
        f"{chosen[0][1]:9.2f}  {dynamics.duration:8.3f}",
        flush=True,
    )
    frames += [label(pool[i]) for i, _ in chosen]
print(f"{len(frames)} labelled frames, models and trajectories: {out}")
