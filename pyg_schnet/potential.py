"""Potentials: a model's energy with its physical unit, and the forces that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet.molecules import MAX_ATOMIC_NUMBER, check_atomic_numbers, check_molecules, count_molecules
from pyg_schnet.nn.readout import DoubleBuffers, element_table, sum_by_molecule


class Potential(DoubleBuffers):
    r"""A potential-energy surface: energies of molecules, and forces as its negative gradient.

    .. math::
        E = \sigma \, \mathrm{model}(z, \mathbf{r}) + \sum_i a_{z_i},
        \qquad \mathbf{F}_i = -\frac{\partial E}{\partial \mathbf{r}_i}

    The model runs in its own precision, on energies relative to the atomic references; the sum is taken
    in float64, because an aspirin molecule's energy in float32 has steps of 1.3 meV.

    In training mode the forces are differentiable, so that a loss may contain them; in evaluation mode
    they are not.

    Args:
        model: Called like :class:`~pyg_schnet.SchNet`, returns ``(molecules, 1)``.
        scale: :math:`\sigma`, the unit of the model's output in eV.
        atomref: :math:`a_z`, energy of an isolated atom in eV by atomic number, shape ``(100,)``.
        elements: Atomic numbers seen in training; others are refused. All are allowed if ``None``.

    Example:
        >>> import torch
        >>> from pyg_schnet import SchNet
        >>> water = Data(z=torch.tensor([8, 1, 1]), pos=torch.eye(3))
        >>> out = Potential(SchNet.paper()).eval()(water)
        >>> out["energy"].shape, out["forces"].shape
        (torch.Size([1]), torch.Size([3, 3]))

    Source:
        Schütt et al., NeurIPS 2017, section 4, equation (4) (arXiv:1706.08566).
    """

    scale: Tensor  # (), eV
    atomref: Tensor  # (100,), eV
    allowed: Tensor  # (100,), bool

    def __init__(
        self,
        model: nn.Module,
        scale: float = 1.0,
        atomref: Tensor | None = None,
        elements: Sequence[int] | None = None,
    ):
        super().__init__()
        self.model = model
        table = element_table(atomref)
        allowed = torch.ones(MAX_ATOMIC_NUMBER + 1, dtype=torch.bool)
        if elements is not None:
            check_atomic_numbers(torch.tensor(elements, dtype=torch.long), "elements")
            allowed[:] = False
            allowed[list(elements)] = True
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))
        self.register_buffer("atomref", table)
        self.register_buffer("allowed", allowed)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that the potential accepts."""
        return [z for z in self.allowed.nonzero().flatten().tolist() if z > 0]

    def forward(self, data: Data, forces: bool = True) -> dict[str, Tensor]:
        """Compute energies and forces.

        Args:
            data: A molecule or a batch, with ``z`` and ``pos`` in Å; ``cell`` and ``pbc`` where there are
                any. ``edge_index`` and ``shift`` are used where they are there, and must then hold all
                pairs within the model's cutoff, as :class:`~pyg_schnet.RadiusGraph` makes them. It is not
                modified.
            forces: Whether forces are wanted; energies alone cost no gradient.

        Returns:
            ``energy``, shape ``(molecules,)``, in eV and float64; ``forces``, shape ``(atoms, 3)``, in
            eV/Å.

        Raises:
            ValueError: If the input is not a set of molecules, or holds an element that was absent from
                training.
        """
        pos = data.pos
        if pos is None:
            raise ValueError("`data` must hold `pos`, positions in Å; got None")
        if "z" not in data:
            raise ValueError("`data` must hold `z`, atomic numbers; got None")
        check_molecules(data.z, pos, getattr(data, "batch", None), 0)
        if forces and torch.is_inference_mode_enabled():
            raise RuntimeError(
                "`forces` need gradients, which torch.inference_mode() switches off for good; use "
                "torch.no_grad() instead"
            )
        self._check_elements(data.z)
        if not forces:
            with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
                return {"energy": self._energy(data, pos)}
        with torch.enable_grad():
            if not pos.requires_grad:
                pos = pos.detach().requires_grad_()
            energy = self._energy(data, pos)
            (gradient,) = torch.autograd.grad(energy.sum(), pos, create_graph=self.training)
        if not self.training:
            energy = energy.detach()
        return {"energy": energy, "forces": -gradient}

    def _energy(self, data: Data, pos: Tensor) -> Tensor:
        batch = getattr(data, "batch", None)
        if batch is None:
            batch, molecules = torch.zeros_like(data.z), 1
        elif (molecules := getattr(data, "num_graphs", None)) is None:  # not a Batch, but one by hand
            molecules = count_molecules(batch)
        relative = self.model(
            data.z,
            pos,
            batch,
            edge_index=data.edge_index,
            shift=getattr(data, "shift", None),
            cell=getattr(data, "cell", None),
            pbc=getattr(data, "pbc", None),
            num_molecules=molecules,
            dtype=torch.float64,
        )
        references = sum_by_molecule(self.atomref.index_select(0, data.z), batch, molecules)
        return self.scale * relative.squeeze(-1) + references

    def _check_elements(self, z: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        allowed = self.allowed.index_select(0, z)
        if not bool(allowed.all()):
            foreign = sorted(set(z[~allowed].tolist()))
            raise ValueError(
                f"`z` contains {foreign[0]}, which was absent from training; this potential knows the "
                f"atomic numbers {', '.join(map(str, self.elements))}"
            )
