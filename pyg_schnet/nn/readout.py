"""Readouts: from the features of atoms to a property of the molecule."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_schnet.graph.csr import sum_by_molecule as sum_by_molecule
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.nn.radial import ShiftedSoftplus, SiLU

_ACTIVATIONS = {"shifted_softplus": ShiftedSoftplus, "silu": SiLU, "tanh": nn.Tanh}


class AtomwiseNetwork(nn.Module):
    """One number for each atom: dense to half the channels, activation, dense to one.

    Args:
        hidden_channels: Number of features of an atom.
        zero_output: Whether the last layer starts at zero, so that the first prediction is zero.
        activation: ``"shifted_softplus"``, ``"silu"`` (the default of SchNetPack 2) or ``"tanh"``.

    Source:
        Schütt et al., NeurIPS 2017, figure 2 (left): atom-wise 32, ssp, atom-wise 1.
    """

    def __init__(self, hidden_channels: int, zero_output: bool = False, activation: str = "shifted_softplus"):
        super().__init__()
        self.dense1 = nn.Linear(hidden_channels, hidden_channels // 2)
        self.activation = _ACTIVATIONS[activation]()
        self.dense2 = nn.Linear(hidden_channels // 2, 1)
        self.zero_output = zero_output
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier-uniform, biases zero."""
        for dense in (self.dense1, self.dense2):
            nn.init.xavier_uniform_(dense.weight)
            nn.init.zeros_(dense.bias)
        if self.zero_output:
            nn.init.zeros_(self.dense2.weight)

    def forward(self, x: Float[Tensor, "atoms channels"]) -> Float[Tensor, " atoms"]:
        """Compute one number for each atom.

        Args:
            x: Features of the atoms.

        Returns:
            The contributions of the atoms, in the unit of the network's output.
        """
        return self.dense2(self.activation(self.dense1(x))).squeeze(-1)


class DoubleBuffers(nn.Module):
    """A module whose own buffers stay in float64 when its network changes precision."""

    def _apply(self, fn, recurse=True):
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers(recurse=False):
            setattr(self, name, exact[name].to(buffer.device))
        return self


class Readout(DoubleBuffers):
    """Base class of readouts: from one output of a network for each atom to a property of the molecule.

    Args:
        network: Maps features to one number for each atom.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def reset_parameters(self) -> None:
        """Draw new weights of the network."""
        reset(self.network)

    def forward(
        self,
        x: Float[Tensor, "atoms channels"],
        z: Int[Tensor, " atoms"],
        pos: Float[Tensor, "atoms 3"],
        batch: Int[Tensor, " atoms"],
        molecules: int,
    ) -> Float[Tensor, " molecules"]:
        """Compute the property of each molecule.

        Args:
            x: Features of the atoms.
            z: Atomic numbers.
            pos: Positions in Å.
            batch: Index of the molecule of each atom.
            molecules: Number of molecules.

        Returns:
            The property, in float64.
        """
        return self.combine(self.network(x).double(), z, pos, batch, molecules)

    def combine(self, out: Tensor, z: Tensor, pos: Tensor, batch: Tensor, molecules: int) -> Tensor:
        """Compute the property of each molecule from the outputs of the network.

        Args:
            out: Output of the network for each atom, ``(atoms,)``, in float64.
            z: Atomic numbers, ``(atoms,)``.
            pos: Positions in Å, ``(atoms, 3)``.
            batch: Index of the molecule of each atom, ``(atoms,)``.
            molecules: Number of molecules.

        Returns:
            The property, ``(molecules,)``, in float64.
        """
        raise NotImplementedError


class AtomicSum(Readout):
    r"""Extensive properties: the sum of the atoms' contributions.

    .. math::
        \sum_i (\sigma e_i + \mu + a_{z_i})

    Args:
        network: Maps features to one number :math:`e_i` for each atom.
        mean: :math:`\mu`, added to each atom.
        std: :math:`\sigma`, the unit of the network's output.
        atomref: Property :math:`a_z` of an isolated atom by atomic number, shape ``(100,)``, in the unit of
            the property; fixed, not learned.

    Source:
        Schütt et al., NeurIPS 2017, section 4 (arXiv:1706.08566); references of atoms as in PyG's and
        SchNetPack's SchNet.
    """

    atomref: Tensor  # (100,)

    def __init__(
        self,
        network: nn.Module,
        mean: float | None = None,
        std: float | None = None,
        atomref: Tensor | None = None,
    ):
        super().__init__(network)
        self.mean = 0.0 if mean is None else float(mean)
        self.std = 1.0 if std is None else float(std)
        self.register_buffer("atomref", element_table(atomref))

    def combine(self, out: Tensor, z: Tensor, pos: Tensor, batch: Tensor, molecules: int) -> Tensor:
        contribution = out * self.std + self.mean
        contribution = contribution + self.atomref.index_select(0, z)
        return sum_by_molecule(contribution, batch, molecules)


class AtomicMean(AtomicSum):
    """Intensive properties: the mean of the atoms' contributions; zero for a molecule without atoms.

    Args:
        network: Maps features to one number for each atom.
        mean: Added to each atom's number.
        std: Factor of each atom's number, the unit of the network's output.
        atomref: Property of an isolated atom by atomic number, shape ``(100,)``, in the unit of the property;
            fixed, not learned.
    """

    def combine(self, out: Tensor, z: Tensor, pos: Tensor, batch: Tensor, molecules: int) -> Tensor:
        ones = torch.ones_like(batch, dtype=torch.float64)
        atoms = sum_by_molecule(ones, batch, molecules).clamp(min=1)
        return super().combine(out, z, pos, batch, molecules) / atoms


class CenteredReadout(Readout):
    """Base class of readouts of positions relative to the center of mass.

    Args:
        network: Maps features to one number for each atom.
    """

    masses: Tensor  # (100,), u

    def __init__(self, network: nn.Module):
        super().__init__(network)
        from ase.data import atomic_masses  # ASE is slow to import, and only these readouts need it

        masses = torch.tensor(atomic_masses[: MAX_ATOMIC_NUMBER + 1], dtype=torch.float64)
        self.register_buffer("masses", masses, persistent=False)

    def relative_to_center(self, z: Tensor, pos: Tensor, batch: Tensor, molecules: int) -> Tensor:
        """Compute positions relative to the center of mass of each molecule.

        Args:
            z: Atomic numbers, ``(atoms,)``.
            pos: Positions in Å, ``(atoms, 3)``.
            batch: Index of the molecule of each atom, ``(atoms,)``.
            molecules: Number of molecules.

        Returns:
            ``(atoms, 3)``, in Å, in float64.
        """
        pos, mass = pos.double(), self.masses.index_select(0, z)[:, None]
        total = sum_by_molecule(mass, batch, molecules).clamp(min=1e-300)
        center = sum_by_molecule(mass * pos, batch, molecules) / total
        return pos - center.index_select(0, batch)

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        """Load the buffers; files written before they had a scale lack it, which was 1."""
        for name, default in (("scale", 1.0), ("charges", 0.0)):
            if name in self._buffers and name not in self._non_persistent_buffers_set:
                state_dict.setdefault(prefix + name, torch.full_like(getattr(self, name), default))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class DipoleMagnitude(CenteredReadout):
    r"""Length of the dipole moment of the atoms' learned charges.

    .. math::
        \Big| \sum_i (\sigma q_i + a_{z_i}) (\mathbf{r}_i - \mathbf{c}) \Big|

    The origin :math:`\mathbf{c}` is the center of mass, which matters because the charges need not sum to
    zero. A dipole of zero has the slope zero (its length has no derivative there).

    Args:
        network: Maps features to one number :math:`q_i` for each atom.
        scale: :math:`\sigma`, the unit of the network's output in the unit of the property over Å; fixed. It
            is stored with the weights only if it is given, as the charges.
        charges: Charge :math:`a_z` of an atom by atomic number, shape ``(100,)``, in the unit of the property
            over Å; fixed, zero by default.

    Source:
        Schütt et al., J. Chem. Phys. 148, 241722 (2018), which has :math:`q_i` alone; the center is PyG's and
        SchNetPack 1's.
    """

    scale: Tensor  # ()
    charges: Tensor  # (100,)

    def __init__(self, network: nn.Module, scale: float | None = None, charges: Tensor | None = None):
        super().__init__(network)
        unit = torch.tensor(1.0 if scale is None else scale, dtype=torch.float64)
        self.register_buffer("scale", unit, persistent=scale is not None)
        self.register_buffer("charges", element_table(charges), persistent=charges is not None)

    def combine(self, out: Tensor, z: Tensor, pos: Tensor, batch: Tensor, molecules: int) -> Tensor:
        relative = self.relative_to_center(z, pos, batch, molecules)
        charges = out * self.scale + self.charges.index_select(0, z)
        dipole = sum_by_molecule(charges[:, None] * relative, batch, molecules)
        square = dipole.square().sum(dim=-1)
        nonzero = square > 0
        return torch.where(nonzero, torch.where(nonzero, square, 1).sqrt(), 0)


class SpatialExtent(CenteredReadout):
    r"""Electronic spatial extent, from weights that the network learns for the atoms.

    .. math::
        \langle R^2 \rangle
        = \sum_i \big( (\sigma q_i + n_{z_i}) \, |\mathbf{r}_i - \mathbf{c}|^2 + a_{z_i} \big)

    The origin :math:`\mathbf{c}` is the center of mass. An atom with :math:`n` electrons contributes
    :math:`n` times its squared distance, and its own extent :math:`a`.

    Args:
        network: Maps features to one weight :math:`q_i` for each atom.
        scale: :math:`\sigma`, the unit of the network's output in the unit of the property over Å²; fixed.

    Attributes:
        electrons: Number of electrons :math:`n_z` by atomic number, ``(100,)``; fixed, zero at first.
        atomref: Extent :math:`a_z` of an atom by atomic number, ``(100,)``, in the unit of the property;
            fixed, zero at first.

    Source:
        Schütt et al., J. Chem. Theory Comput. 15, 448 (2019), SchNetPack's ``ElectronicSpatialExtent``,
        which has :math:`q_i` alone.
    """

    scale: Tensor  # ()
    electrons: Tensor  # (100,)
    atomref: Tensor  # (100,)

    def __init__(self, network: nn.Module, scale: float = 1.0):
        super().__init__(network)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))
        self.register_buffer("electrons", element_table(None))
        self.register_buffer("atomref", element_table(None))

    def combine(self, out: Tensor, z: Tensor, pos: Tensor, batch: Tensor, molecules: int) -> Tensor:
        square = self.relative_to_center(z, pos, batch, molecules).square().sum(dim=-1)
        electrons = out * self.scale + self.electrons.index_select(0, z)
        return sum_by_molecule(electrons * square + self.atomref.index_select(0, z), batch, molecules)


class AtomicValues(AtomicSum):
    r"""A value for each atom, such as its charge: :math:`\sigma e_i + \mu + a_{z_i}`.

    Args:
        network: Maps features to one number for each atom.
        mean: Added to each atom's number.
        std: Factor of each atom's number, the unit of the network's output.
        atomref: Mean value of an element by atomic number, shape ``(100,)``, in the unit of the property;
            fixed, not learned.
    """

    def combine(self, out: Tensor, z: Tensor, pos: Tensor, batch: Tensor, molecules: int) -> Tensor:
        return out * self.std + self.mean + self.atomref.index_select(0, z)


def element_table(atomref: Tensor | None) -> Tensor:
    """Return a property of the elements with the shape ``(100,)``, float64; zero for elements without."""
    table = torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
    if atomref is None:
        return table
    atomref = torch.as_tensor(atomref, dtype=torch.float64).detach().reshape(-1)
    if len(atomref) > len(table):
        raise ValueError(
            f"`atomref` must have at most {len(table)} entries, one for each atomic number from 0; "
            f"got {len(atomref)}"
        )
    table[: len(atomref)] = atomref
    return table
