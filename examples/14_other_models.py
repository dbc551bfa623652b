"""
Other models: PyG's SchNet and ViSNet
=====================================

Whatever has ``forward(z, pos, batch)`` and returns an energy a molecule goes into
:class:`~pyg_schnet.Potential`, and gets units, references, forces, data sets, loss, metrics and checkpoints
there. PyG's models search neighbors by a function that needs pyg-lib or torch-cluster; these two let it be
replaced by ours, which needs neither and has no limit of 32 neighbors. (DimeNet++ does not, and needs
torch-sparse beside.)

A hundred steps are far from converged: the table is how to compare, not who is best. A converged comparison
is ``--root data/md17 --molecule ethanol --n_train 1000 --steps 20000``; ``pyg_schnet.train(path, model=...)``
is the whole training run for such models.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch_geometric.nn import SchNet as PyGSchNet
from torch_geometric.nn.models import ViSNet

import pyg_schnet
from pyg_schnet import Potential, SchNet, load, radius_graph
from pyg_schnet.datasets import MD17, AtomsDataset
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.loader import DataLoader
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.training import potential_loss

SAMPLE = Path(pyg_schnet.__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
CUTOFF = 5.0  # Å

parser = argparse.ArgumentParser()
parser.add_argument("--root", help="folder of the full MD17, downloaded if absent")
parser.add_argument("--molecule", default="ethanol", help="molecule of MD17")
parser.add_argument("--n_train", type=int, default=400)
parser.add_argument("--n_test", type=int, default=200)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--channels", type=int, default=32)
parser.add_argument("--out", help="folder to write the potentials to")
options = parser.parse_args()


# %%
# Neighbors, without pyg-lib and without a limit of their number.


def edges(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Find neighbors and their distances, as the `interaction_graph` of PyG's SchNet does."""
    source, target = edge_index = radius_graph(pos, CUTOFF, batch)
    return edge_index, (pos[source] - pos[target]).norm(dim=1)


class Distance(nn.Module):
    """Edges for ViSNet as PyG's module of this name: with vectors, and a loop for each atom."""

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        edge_index, distance = edges(pos, batch)
        loops = torch.arange(len(pos), device=pos.device).expand(2, -1)
        vector = torch.cat([pos[edge_index[0]] - pos[edge_index[1]], torch.zeros_like(pos)])
        return torch.cat([edge_index, loops], 1), torch.cat([distance, distance.new_zeros(len(pos))]), vector


def pyg_visnet() -> ViSNet:
    """Build PyG's ViSNet with our neighbor search."""
    model = ViSNet(hidden_channels=options.channels, num_layers=2, num_heads=4, cutoff=CUTOFF)
    model.representation_model.distance = Distance()
    return model


# %%
# Three models, which are trained alike.

sizes = (options.channels, options.channels, 3, 25, CUTOFF)  # both SchNets' arguments are the same
models = {
    "SchNet": lambda: SchNet(*sizes),
    "PyG's SchNet": lambda: PyGSchNet(*sizes, interaction_graph=edges),
    "PyG's ViSNet": pyg_visnet,
}
dataset = MD17(options.root, options.molecule) if options.root else AtomsDataset(path=SAMPLE)
order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
train, test = dataset[order[: options.n_train]], dataset[order[options.n_train :][: options.n_test]]
out = Path(options.out or tempfile.mkdtemp())
out.mkdir(parents=True, exist_ok=True)
rows = []
for name, make in models.items():
    torch.manual_seed(0)
    potential = Potential(make(), train.scale(), train.atomref(), train.elements())
    potential.compile()  # only our SchNet is compiled; the other two run eagerly
    optimizer = torch.optim.Adam(potential.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    milliseconds = []
    while len(milliseconds) < options.steps:
        for batch in DataLoader(train, batch_size=16, shuffle=True):
            began = time.perf_counter()
            loss = potential_loss(potential(batch), batch, energy_weight=0.1, scale=potential.scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            milliseconds.append(1e3 * (time.perf_counter() - began))
            if len(milliseconds) == options.steps:
                break
    print(f"{name}: loss {loss.item():.3f} after {options.steps:,} steps", flush=True)
    file = out / f"{type(potential.model).__name__}_{len(rows)}.safetensors"
    save(potential, file)
    errors = evaluate(load(file, model=make()), test)  # load into a new model
    weights = sum(parameter.numel() for parameter in potential.parameters())
    rows.append((name, weights, errors.energy_mae, errors.forces_mae, median(milliseconds)))

# %%
# Errors, of energies and forces, and the time of a step.

print(
    f"\n{len(test)} test frames       weights   energy: meV  kcal/mol   forces: meV/Å  kcal/mol/Å   ms/step"
)
for name, weights, energy, forces, step in rows:
    in_kcal = energy / kcal_per_mol, forces / kcal_per_mol
    print(
        f"{name:20} {weights:7,} {1e3 * energy:13.1f} {in_kcal[0]:9.2f} {1e3 * forces:15.0f} "
        f"{in_kcal[1]:11.2f} {step:9.1f}"
    )
energy, forces = errors.energy[0], errors.forces[0]  # the labels
guess = 1e3 * (energy - energy.mean()).abs().mean(), 1e3 * forces.abs().mean()
print(f"baseline, mean energy and zero forces: {guess[0]:.1f} meV, {guess[1]:.0f} meV/Å")
