"""TorchSim: a potential as a model of its batched integrators and optimizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_schnet.simulation.calculator import Model
from pyg_schnet.simulation.engines.evaluator import Evaluator

try:
    from torch_sim.models.interface import ModelInterface  # pyright: ignore[reportMissingImports]
except ImportError:  # SchNetModel() raises, with the command that installs it
    ModelInterface = None

_FIELDS = ("atomic_numbers", "positions", "system_idx", "cell", "pbc")


class SchNetModel(ModelInterface or torch.nn.Module):  # pyright: ignore[reportGeneralTypeIssues]
    """Model of TorchSim, whose units are eV, Å and eV/Å³, as in this package.

    Positions, energies and forces are in float64, whatever the precision of the network.

    Args:
        potential: As for :class:`~pyg_schnet.simulation.SchNetCalculator`: a potential, an ensemble or paths;
            a copy is evaluated.
        compute_stress: Whether to compute stresses in eV/Å³ of periodic structures, which integrators with a
            barostat and optimizers of cells need.
        **options: Options of :class:`~pyg_schnet.simulation.SchNetCalculator`: ``device``, ``dtype``,
            ``compile`` and ``skin``.

    Raises:
        ImportError: If TorchSim is not installed.
    """

    def __init__(self, potential: Model, compute_stress: bool = True, **options):
        if ModelInterface is None:
            raise ImportError(
                "TorchSim is not installed: pip install 'pyg-schnet[torchsim]', for Python 3.11 or later"
            )
        super().__init__()
        self.evaluator = Evaluator(potential, **options)
        self._device, self._dtype = self.evaluator.potential.scale.device, torch.float64
        self._compute_forces, self._compute_stress = True, compute_stress

    def forward(self, state: Any, **kwargs) -> dict[str, Tensor]:
        """Compute energies, forces and stresses; called by TorchSim.

        Args:
            state: A ``SimState``, or a dictionary with its fields.
            **kwargs: Ignored.

        Returns:
            ``energy`` in eV, ``(systems,)``; ``forces`` in eV/Å, ``(atoms, 3)``; ``stress`` in eV/Å³,
            ``(systems, 3, 3)``, of periodic systems.

        Raises:
            ValueError: As of a :class:`~pyg_schnet.Potential`, or if TorchSim reads the stress of molecules.
        """
        fields = state if isinstance(state, dict) else {name: getattr(state, name) for name in _FIELDS}
        pos, cell = fields["positions"], fields["cell"].view(-1, 3, 3).mT  # columns, in TorchSim
        batch = fields.get("system_idx")
        batch = torch.zeros_like(pos[:, 0], dtype=torch.long) if batch is None else batch
        pbc = torch.as_tensor(fields["pbc"], device=pos.device).expand(len(cell), 3)
        stress = self._compute_stress and bool(pbc.any())
        out = self.evaluator(fields["atomic_numbers"], pos, batch, len(cell), cell, pbc, stress)
        names = ("energy", "forces", "stress") if stress else ("energy", "forces")
        return _Results({name: out[name].to(pos.dtype) for name in names})


class _Results(dict):
    """Results of a model, which raise where TorchSim needs a stress that there is not."""

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(
            f"`{name}` needs periodic systems and SchNetModel(…, compute_stress=True), and was not computed; "
            "for molecules, use an integrator or optimizer without a cell, and compute_stress=False"
        )
