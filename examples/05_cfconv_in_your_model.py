"""
CFConv in your own PyG model
============================

Outside of chemistry: points lie on spheres of different radii, and a model tells the radius from the points'
positions. Its filters depend on the distance of two points, as in SchNet, and on nothing else.
"""

import argparse

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import Sequential, global_mean_pool

from pyg_schnet import CFConv, RadiusGraph
from pyg_schnet.nn import FilterNetwork, GaussianSmearing

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
options = parser.parse_args()

# %%
# Data: 40 points on each sphere; points within 1.5 are neighbors.


def points_on_a_sphere(generator: torch.Generator) -> Data:
    """Draw 40 points on a sphere of a radius between 1 and 2."""
    radius = 1 + torch.rand(1, generator=generator)
    pos = radius * nn.functional.normalize(torch.randn(40, 3, generator=generator), dim=1)
    return RadiusGraph(1.5)(Data(x=torch.ones(40, 16), pos=pos, y=radius))


def distance(pos: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
    """Compute the length of each edge."""
    return (pos[edge_index[0]] - pos[edge_index[1]]).norm(dim=1)


# %%
# The model: distances, Gaussians of them, two convolutions whose filters are networks of the Gaussians.

torch.manual_seed(0)
model = Sequential(
    "x, pos, edge_index, batch",
    [
        (distance, "pos, edge_index -> d"),
        (GaussianSmearing(num_gaussians=16, last_center=1.5), "d -> e"),
        (CFConv(FilterNetwork(16, 16)), "x, edge_index, e -> x"),
        nn.Linear(16, 16),
        nn.Softplus(),
        (CFConv(FilterNetwork(16, 16)), "x, edge_index, e -> x"),
        (global_mean_pool, "x, batch -> x"),
        nn.Linear(16, 16),
        nn.Softplus(),
        nn.Linear(16, 1),
    ],
)

# %%
# Training on 200 spheres, as any PyG model.

generator = torch.Generator().manual_seed(0)
spheres = [points_on_a_sphere(generator) for _ in range(250)]
train, test = DataLoader(spheres[:200], batch_size=20, shuffle=True), spheres[200:]
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(1, options.epochs + 1):
    for batch in train:
        prediction = model(batch.x, batch.pos, batch.edge_index, batch.batch).squeeze(-1)
        loss = nn.functional.mse_loss(prediction, batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 0:
        print(f"epoch {epoch:3}  loss {loss.item():.4f}")

# %%
# Fifty other spheres.

with torch.no_grad():
    batch = next(iter(DataLoader(test, batch_size=50)))
    prediction = model(batch.x, batch.pos, batch.edge_index, batch.batch).squeeze(-1)
print(
    f"radius: mean absolute error {(prediction - batch.y).abs().mean():.3f}, "
    f"guessing the mean {(batch.y - batch.y.mean()).abs().mean():.3f}"
)

figure, axes = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
axes.plot([1, 2], [1, 2], color="#888888", linewidth=0.8)
axes.plot(batch.y, prediction, "o", markersize=4, color="#0072B2")
axes.set_xlabel("radius")
axes.set_ylabel("predicted radius")
plt.show()
