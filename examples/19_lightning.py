"""
A Lightning ``DataModule``
==========================

Our data set, loader, loss and potential in Lightning's ``Trainer``, for projects that are built on it: ``pip
install lightning``. Forces need gradients in validation, so ``inference_mode`` is off.
"""

import argparse
from pathlib import Path

import torch
from torch_geometric.data import Data

import pyg_schnet
from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import DataLoader
from pyg_schnet.training import potential_loss

try:
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer
except ImportError:
    raise SystemExit("Lightning is missing: pip install lightning") from None

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--n_train", type=int, default=1000)
options = parser.parse_args()

# %%
# The data: energies in eV, forces in eV/Å.


class Ethanol(LightningDataModule):
    """Frames of ethanol, split at random."""

    def setup(self, stage: str) -> None:
        root = Path(pyg_schnet.__file__).parents[1]  # the clone
        dataset = AtomsDataset(path=root / "datasets" / "md17" / "ethanol_gfn2_xtb.npz")
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
        self.train, self.val = dataset[order[: options.n_train]], dataset[order[options.n_train :][:200]]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=32, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=100)


# %%
# The potential, with references and unit of the training data.


class Training(LightningModule):
    """A potential that is trained on energies and forces."""

    def __init__(self, potential: Potential):
        super().__init__()
        self.potential = potential

    def training_step(self, batch: Data) -> torch.Tensor:
        return potential_loss(self.potential(batch), batch, energy_weight=0.1, scale=self.potential.scale)

    def validation_step(self, batch: Data) -> None:
        forces = self.potential(batch)["forces"]
        error = 1e3 * (forces - batch.forces).abs().mean()
        self.log("forces_mae_meV_per_A", error, batch_size=batch.num_graphs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


torch.manual_seed(0)
data = Ethanol()
data.setup("fit")
train = data.train
module = Training(Potential(SchNet.paper(), train.scale(), train.atomref(), train.elements()))
trainer = Trainer(
    max_epochs=options.epochs,
    accelerator="cpu",
    inference_mode=False,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, data)

# %%
# What was trained is a :class:`~pyg_schnet.Potential` as any other.

print(pyg_schnet.evaluate(module.potential, data.val))
