"""
Measurements scattered in space and time
========================================

Sensors at irregular places read the temperature at irregular times, while the wind carries warm and cold air
across them. What was measured upwind an hour ago then tells more than what is measured nearby now. A filter
that depends on Δx, Δy and Δt, not on a distance, learns that from the measurements. For such data, unevenly
spaced as "astronomical observations" and "climate data", the SchNet paper proposes continuous filters
(arXiv:1706.08566, sections 1 and 3).

The convolution is bipartite, from measurements to the points that are asked for. Baselines are the nearest
measurement and inverse-distance weighting of the same neighbors, both with the best of several speeds that
make km of hours, by the measurements themselves. The temperature is made up, of waves that drift.
"""

import argparse
import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet import CFConv

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1200)
parser.add_argument(
    "--neighbors", type=int, default=32, help="number of measurements that a prediction depends on"
)
options = parser.parse_args()
# %%
# The measured field
# ------------------
# Waves of temperature that drift with the wind, and a daily cycle.

generator = torch.Generator().manual_seed(0)
WIND = torch.tensor([9.0, -4.0])  # km/h; unknown to the model and the baselines
NOISE = 0.2  # °C, of a reading
SCALE = torch.tensor([15.0, 15.0, 1.5])  # km, km, h: length scales, and units of the edge features


def temperature(points: Tensor, generator: torch.Generator) -> Tensor:
    """Return temperatures in °C: 30 waves of 30 to 80 km that drift with the wind, and a daily cycle."""
    wavelength = 30 + 50 * torch.rand(30, generator=generator)
    angle, phase = 2 * math.pi * torch.rand(2, 30, generator=generator)
    drifting = points[:, :2] - points[:, 2:] * WIND
    along = drifting @ torch.stack([angle.cos(), angle.sin()])
    waves = (2 * math.pi * along / wavelength + phase).cos().mean(dim=1) * math.sqrt(30)
    return 12 + 3 * (2 * math.pi * (points[:, 2] - 9) / 24).sin() + 2 * waves


# %%
# The model --------- Edges lead from the nearest measurements; their features are Δx, Δy and Δt. Filters are
# positive, so that the convolution of values and of ones gives weighted means.


class Edges:
    """Edges from the nearest sources to each target, excluding the target itself."""

    def __init__(self, targets: Tensor, sources: Tensor, itself: bool):
        distance = torch.cdist(targets / SCALE, sources / SCALE)
        near = distance.topk(options.neighbors + itself, largest=False).indices[:, int(itself) :]
        self.source = near  # (targets, neighbors)
        self.offset = (sources[near] - targets[:, None]) / SCALE  # (targets, neighbors, 3)

    def of(self, targets: Tensor) -> Data:
        """Return the edges of some targets, renumbered."""
        source = self.source[targets]
        target = torch.arange(len(targets))[:, None].expand_as(source)
        edge_index = torch.stack([source.flatten(), target.flatten()])
        return Data(edge_index=edge_index, edge_attr=self.offset[targets].flatten(0, 1))


class Interpolation(nn.Module):
    """Weighted means of the measurements, with learned weights, combined by a network."""

    def __init__(self, channels: int = 32):
        super().__init__()
        filters = [nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, channels)]
        self.conv = CFConv(nn.Sequential(*filters, nn.Softplus()))
        self.out = nn.Sequential(nn.Linear(channels, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, values: Tensor, edges: Data, targets: int) -> Tensor:
        x = torch.stack([values, torch.ones_like(values)])[..., None]  # two sets of features on one graph
        x = x.expand(-1, -1, self.out[0].in_features)
        total, weight = self.conv((x, None), edges.edge_index, edges.edge_attr, size=(len(values), targets))
        means = total / weight  # (targets, channels)
        level = means.mean(dim=1, keepdim=True)
        return (level + self.out(means - level)).squeeze(-1)


# %%
# The baseline weights the same measurements by a power of the distance.


def inverse_distance(values: Tensor, edges: Edges, speed: float, power: float) -> Tensor:
    """Interpolate with weights by a power of the distance; a speed converts hours to km."""
    offset = edges.offset * SCALE
    distance = (offset[..., :2].square().sum(2) + (speed * offset[..., 2]).square()).sqrt()
    weight = (-power * distance.clamp(min=0.1).log()).softmax(dim=1)
    return (weight * values[edges.source]).sum(1)


# %%
# Training
# --------
# Each measurement is predicted from its neighbors, without itself.

points = torch.rand(3000, 3, generator=generator) * torch.tensor([100.0, 100.0, 48.0])  # km, km, h
truth = temperature(points, generator)
readings = truth + NOISE * torch.randn(3000, generator=generator)
known, asked = points[:2500], points[2500:]
mean, std = readings[:2500].mean(), readings[:2500].std()
values = (readings[:2500] - mean) / std
among, to_asked = Edges(known, known, itself=True), Edges(asked, known, itself=False)

torch.manual_seed(0)
model = Interpolation()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, options.steps)
for step in range(1, options.steps + 1):
    targets = torch.randperm(len(known), generator=generator)[:100]
    batch = among.of(targets)
    loss = nn.functional.mse_loss(model(values, batch, len(targets)), values[targets])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % 200 == 0:
        print(f"step {step:5}  leave-one-out error: {loss.sqrt() * std:.2f} °C")


# %%
# Errors
# ------
# At places and times without a measurement.


def error(prediction: Tensor) -> float:
    """Return the root mean square error at the test points in °C."""
    return (prediction * std + mean - truth[2500:]).square().mean().sqrt().item()


def best(powers: list[float]) -> float:
    """Return the error of the baseline with the lowest leave-one-out error."""
    choices = [(speed, power) for speed in (1.0, 2.0, 5.0, 10.0, 20.0, 40.0) for power in powers]
    scores = [(inverse_distance(values, among, *choice) - values).square().mean() for choice in choices]
    return error(inverse_distance(values, to_asked, *choices[int(torch.stack(scores).argmin())]))


with torch.no_grad():
    batch = to_asked.of(torch.arange(len(asked)))
    ours = error(model(values, batch, len(asked)))
rows = {
    "guessing the mean": error(torch.zeros(500)),
    "nearest measurement": best([100.0]),
    "inverse-distance weighting": best([1.0, 2.0, 3.0, 4.0]),
    "CFConv of Δx, Δy, Δt": ours,
}
print(f"\nerror at 500 places and times without a measurement (readings are {NOISE} °C uncertain)")
for name, value in rows.items():
    print(f"{name:28} {value:5.2f} °C")
times = rows["inverse-distance weighting"] / ours
print(f"CFConv's error is {times:.1f} times smaller than that of inverse-distance weighting")
