"""
Weights & Biases
================

The metrics of a run in a project of wandb: ``pip install 'pyg-schnet[wandb]'``, then ``wandb login``; or
``WANDB_MODE=offline``. Errors of energies are in eV, of forces in eV/Å, as in the run's ``metrics.csv``.
"""

import argparse
import tempfile
from pathlib import Path

import pyg_schnet

try:
    import wandb
except ImportError:
    raise SystemExit("wandb is missing: pip install 'pyg-schnet[wandb]'") from None

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=800)
parser.add_argument("--out", help="folder for the runs")
options = parser.parse_args()
out = Path(options.out or tempfile.mkdtemp())
sample = Path(pyg_schnet.__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"

# %%
# One option is enough. Two runs differ by their weight of the energies, and are compared in the project.

for weight in (0.01, 0.1):
    run = pyg_schnet.train(
        sample,
        out=out / f"weight_{weight}",
        data={"n_train": 1000},
        trainer={
            "max_steps": options.steps,
            "val_every": max(1, options.steps // 8),
            "energy_weight": weight,
            "loggers": ["tensorboard", "wandb"],
        },
    )
    energy, forces = run.best["val_energy_mae_eV"], run.best["val_forces_mae_eV_per_A"]
    print(f"energy weight {weight}: energy {1e3 * energy:.1f} meV, forces {1e3 * forces:.1f} meV/Å")
print(f"wandb {wandb.__version__}; runs: {out}")
