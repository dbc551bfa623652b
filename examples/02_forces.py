"""
Forces are the negative gradient of the energy
==============================================

A :class:`~pyg_schnet.Potential` returns both from one call. Here the work of the forces along a small
displacement is compared with the energy that is lost; weights are random, for which the statement holds as
well.
"""

import torch
from ase.build import molecule
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet

torch.manual_seed(0)
potential = Potential(SchNet().double()).eval()

# %%
# One molecule: atomic numbers ``z`` and positions ``pos`` in Å. Forces sum to zero, as the energy does not
# depend on where the molecule is.

ethanol = molecule("CH3CH2OH")
data = Data(z=torch.tensor(ethanol.numbers), pos=torch.tensor(ethanol.positions))
out = potential(data)  # {"energy": (1,) in eV, "forces": (9, 3) in eV/Å}
print("forces in eV/Å")
for symbol, force in zip(ethanol.symbols, out["forces"].tolist(), strict=True):
    print(f"  {symbol:2}" + "".join(f"{component:10.4f}" for component in force))
print(f"net force: {out['forces'].sum(dim=0).norm():.1e} eV/Å")

# %%
# A step of 10⁻⁴ Å along the forces, and the central difference of the energies.

step = 1e-4 * torch.nn.functional.normalize(out["forces"].flatten(), dim=0).view(-1, 3)  # Å
ahead = Data(z=data.z, pos=data.pos + step)
behind = Data(z=data.z, pos=data.pos - step)
energies = [potential(moved, forces=False)["energy"].item() for moved in (ahead, behind)]
print(f"energy lost along the forces:   {energies[1] - energies[0]:.12f} eV")
print(f"work of the forces on this path: {2 * (out['forces'] * step).sum().item():.12f} eV")
