"""Forces, and a check that they are the negative gradient of the energy.

python examples/02_forces.py
"""

import torch
from ase.build import molecule
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet

torch.manual_seed(0)
potential = Potential(SchNet().double()).eval()

ethanol = molecule("CH3CH2OH")
data = Data(z=torch.tensor(ethanol.numbers), pos=torch.tensor(ethanol.positions))
out = potential(data)  # {"energy": (1,) in eV, "forces": (9, 3) in eV/Å}
print("forces in eV/Å")
for symbol, force in zip(ethanol.symbols, out["forces"].tolist(), strict=True):
    print(f"  {symbol:2}" + "".join(f"{component:10.4f}" for component in force))
print(f"net force: {out['forces'].sum(dim=0).norm():.1e} eV/Å")

step = 1e-4 * torch.nn.functional.normalize(out["forces"].flatten(), dim=0).view(-1, 3)  # Å
ahead = Data(z=data.z, pos=data.pos + step)
behind = Data(z=data.z, pos=data.pos - step)
energies = [potential(moved, forces=False)["energy"].item() for moved in (ahead, behind)]
print(f"energy lost along the forces:   {energies[1] - energies[0]:.12f} eV")
print(f"work of the forces on this path: {2 * (out['forces'] * step).sum().item():.12f} eV")
