"""Potentials: a model's energy with its physical unit, and the forces and the stress that follow from it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.data.storage import GlobalStorage

from pyg_schnet.cell_list import spatial_order
from pyg_schnet.compilation import CompiledPotential, Inputs
from pyg_schnet.domain import Domain
from pyg_schnet.molecules import MAX_ATOMIC_NUMBER, check_atomic_numbers, check_molecules, count_molecules
from pyg_schnet.native import has_kernels, positions_only, why_not
from pyg_schnet.nn import SchNet
from pyg_schnet.nn.readout import DoubleBuffers, element_table, sum_by_molecule
from pyg_schnet.strain import Strain, per_volume, volumes

_MODELS_METHODS = ("forward", "locate", "locate_fast", "predict")  # what a program does instead
_OWN_METHODS = ("_run", "_energy", "scaled")
_ATOMS_TO_ORDER = 4000  # their features outgrow the caches, and sorting is a hundredth of the time


class Potential(DoubleBuffers):
    r"""A potential-energy surface: energies, forces as its negative gradient, stress by strain.

    .. math::
        E = \sigma \, \mathrm{model}(z, \mathbf{r}) + \sum_i a_{z_i},
        \qquad \mathbf{F}_i = -\frac{\partial E}{\partial \mathbf{r}_i},
        \qquad \sigma_{\alpha\beta} = \frac1V \frac{\partial E}{\partial \varepsilon_{\alpha\beta}}

    A strain :math:`\varepsilon` moves atoms and lattice vectors alike, :math:`\mathbf r (1 + \varepsilon)`;
    the stress is positive under tension, as ASE's.

    The model runs in its own precision, on energies relative to the atomic references; the sum is taken
    in float64, because an aspirin molecule's energy in float32 has steps of 1.3 meV.

    In training mode the forces are differentiable, so that a loss may contain them; in evaluation mode
    they are not.

    Args:
        model: Called with ``(z, pos, batch)`` and whatever else its ``forward`` names among
            ``num_molecules``, ``dtype`` and the fields of the data (``edge_index``, ``cell``, ``x``, …);
            returns one number a molecule, as :class:`~pyg_schnet.SchNet` and PyG's own models do.
        scale: :math:`\sigma`, the unit of the model's output in eV.
        atomref: :math:`a_z`, energy of an isolated atom in eV by atomic number, shape ``(100,)``.
        elements: Atomic numbers seen in training; others are refused. All are allowed if ``None``.

    Attributes:
        domain: The distances and forces seen in training, which simulations are stopped outside of;
            ``None`` if they are not known.

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
        self._fields = _fields_of(model)
        self.compiled: CompiledPotential | None = None
        self.domain: Domain | None = None
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

    def forward(self, data: Data, forces: bool = True, stress: bool = False) -> dict[str, Tensor]:
        """Compute energies, forces and stresses.

        Args:
            data: A molecule or a batch, with ``z`` and ``pos`` in Å; ``cell`` and ``pbc`` where there are
                any. ``edge_index`` and ``shift`` are used where they are there, and must then hold all
                pairs within the model's cutoff, as :class:`~pyg_schnet.RadiusGraph` makes them. It is not
                modified.
            forces: Whether forces are wanted; energies alone cost no gradient.
            stress: Whether the stress of periodic systems is wanted.

        Returns:
            ``energy``, shape ``(molecules,)``, in eV and float64; ``forces``, shape ``(atoms, 3)``, in
            eV/Å; ``stress``, shape ``(molecules, 3, 3)``, in eV/Å³, NaN for molecules of a batch that have no
            cell with a volume.

        Raises:
            ValueError: If the input is not a set of molecules, holds an element that was absent from
                training, or stress is asked for where no system is periodic.
        """
        if self.compiled is not None and (out := self._run_compiled(data, forces, stress)) is not None:
            return out
        pos = data.pos
        if pos is None:
            raise ValueError("`data` must hold `pos`, positions in Å; got None")
        if "z" not in data:
            raise ValueError("`data` must hold `z`, atomic numbers; got None")
        check_molecules(data.z, pos, getattr(data, "batch", None), 0)
        if (forces or stress) and torch.is_inference_mode_enabled():
            raise RuntimeError(
                f"`{'forces' if forces else 'stress'}` need gradients, which torch.inference_mode() switches "
                "off for good; use torch.no_grad() instead"
            )
        self._check_elements(data.z)
        ordered, order = _in_spatial_order(data)
        try:
            return _in_old_order(self._run(ordered, forces, stress), order)
        except ValueError:
            if order is None:
                raise
            return self._run(data, forces, stress)  # which tells the caller's own numbers of the atoms

    def atomic_energies(self, data: Data) -> Tensor:
        """Compute what each atom adds to the energy; only the sums have a physical meaning.

        Args:
            data: As for :meth:`forward`.

        Returns:
            ``(atoms,)``, in eV and float64, without gradients.

        Raises:
            TypeError: If the model is not a :class:`~pyg_schnet.SchNet` that adds up atoms.
            ValueError: As :meth:`forward`.
        """
        model = self.model
        if not isinstance(model, SchNet) or model.config.dipole or model.config.readout == "mean":
            raise TypeError(
                "`atomic_energies` needs a SchNet with readout='add', whose energy is a sum over atoms; got "
                f"{model}"
            )
        (batch, _), pos = _molecules(data), cast(Tensor, data.pos)
        check_molecules(data.z, pos, batch, 0)
        self._check_elements(data.z)
        fields = {name: getattr(data, name, None) for name in ("edge_index", "shift", "cell", "pbc")}
        with torch.no_grad(), positions_only():
            place = model.locate(pos, batch, **fields)
            each = torch.arange(len(batch), device=batch.device)  # each atom a molecule, to the readout
            own = model.predict(data.z, pos, each, len(batch), *place)
            return self.scaled(own.double(), data.z, each, len(batch))

    def compile(self, constant: bool = False) -> Potential:
        """Compute by straight programs from now on: the same numbers, several times faster.

        A program for each kind of call (with or without forces, training or not) is made at its first use, in
        seconds, and compared there with what it replaces: energies, forces and the gradients of all weights.
        It serves batches of any size. Call this again after another module was put into the model.

        Calls that have no program run as before: with ``filters="exact"``, in float64 unless
        ``filters="spline"``, positions or cells that need a gradient, and models that are not a ``SchNet``.

        Args:
            constant: Promise that neither weights that do not require gradients nor modules will change: they
                are not looked at again, which saves half of the time of one small molecule (254 to 125 µs).

        Returns:
            Itself; ``compiled`` tells about the programs, :meth:`why_eager` why there are none.
        """
        self.compiled = CompiledPotential(constant)
        return self

    def why_eager(self) -> str | None:
        """Say in one line why a compiled potential runs as if it were not; ``None`` if it does not."""
        if self.compiled is None:
            return "compile() was not called"
        model = self.model
        if not isinstance(model, SchNet):
            return f"only SchNet is compiled, not {type(model).__name__}"
        for own, kind, methods in ((model, SchNet, _MODELS_METHODS), (self, Potential, _OWN_METHODS)):
            if type(own) is not kind and any(
                getattr(type(own), name) is not getattr(kind, name) for name in methods
            ):
                return f"{type(own).__name__} computes in a way of its own, which is not compiled"
        weight = model.embedding.weight
        if model.filters == "exact":
            return "filters='exact' is not compiled"
        if model.filters == "auto" and weight.dtype != torch.float32:
            return f"filters='auto' is exact in {weight.dtype}, which is not compiled; use filters='spline'"
        return None if has_kernels(weight) else why_not(weight)

    def _run_compiled(self, data: Data, forces: bool, stress: bool) -> dict[str, Tensor] | None:
        """Compute by a program, if this kind of call has one; what is wrong with input is told elsewhere."""
        fields = data._store._mapping if type(data._store) is GlobalStorage else data.to_dict()
        z, pos, batch = (cast(Tensor, fields.get(name)) for name in ("z", "pos", "batch"))
        edge_index, periodic = fields.get("edge_index"), _is_periodic(fields.get("pbc"))
        if (
            self.why_eager() is not None
            or torch.compiler.is_compiling()
            or ((forces or stress) and torch.is_inference_mode_enabled())
            or torch.is_autocast_enabled("cpu")
            or not _is_plain(z, pos, batch, edge_index)
            or (fields.get("shift") is not None) != (periodic and edge_index is not None)
            or (stress and not periodic)
        ):
            return None
        assert self.compiled is not None
        order = None
        if len(pos) > _ATOMS_TO_ORDER and not periodic:
            data, order = _in_spatial_order(data)
            z, pos = cast(Tensor, data.z), cast(Tensor, data.pos)
        try:
            with nullcontext() if self.training else positions_only():
                make = self._periodic_inputs if periodic else self._plain_inputs
                inputs = make(data, z, pos, batch, edge_index)
        except ValueError:
            return None  # of atoms in another order: eager tells it with the caller's numbers
        if inputs is None:
            return None
        if periodic:
            volume = volumes(data, inputs.molecules) if stress else None
            inputs = replace(inputs, finish=functools.partial(_from_sites, inputs, volume, forces))
        eager = functools.partial(Potential._run, data=data, forces=forces, stress=stress)
        return _in_old_order(self.compiled(self, inputs, forces or stress, eager), order)

    def _plain_inputs(
        self, data: Data, z: Tensor, pos: Tensor, batch: Tensor | None, edge_index: Tensor | None
    ) -> Inputs | None:
        place = cast(SchNet, self.model).locate_fast(z, self.allowed, pos, batch, edge_index)
        if place is None:
            return None
        batch, molecules = (torch.zeros_like(z), 1) if batch is None else _molecules(data)
        if int(batch[-1]) >= molecules:
            return None
        return Inputs(z, pos, batch, place[0], molecules, place[1])

    def _periodic_inputs(
        self, data: Data, z: Tensor, pos: Tensor, batch: Tensor | None, edge_index: Tensor | None
    ) -> Inputs | None:
        """Turn periodic systems into sites: their atoms, and the images that these see."""
        cell = getattr(data, "cell", None)
        if cell is None or cell.requires_grad or len(z) == 0:
            return None
        batch, molecules = _molecules(data)
        if int(batch[-1]) >= molecules:
            return None
        check_molecules(z, pos, batch, molecules)
        self._check_elements(z)
        found = cast(SchNet, self.model).locate_images(data, batch)
        if found is None:
            return None
        images, sites, knots = found
        return Inputs(z, sites, batch, images.pairs, molecules, knots, images)

    def _run(self, data: Data, forces: bool, stress: bool = False) -> dict[str, Tensor]:
        pos = cast(Tensor, data.pos)
        if not forces and not stress:
            with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
                return {"energy": self._energy(data, pos)}
        with torch.enable_grad():
            if forces and not pos.requires_grad:
                pos = pos.detach().requires_grad_()
            strain = Strain(data, _molecules(data)[1]) if stress else None
            with nullcontext() if self.training else positions_only():
                energy = self._energy(*((data, pos) if strain is None else strain.deform(data, pos)))
            by = ([pos] if forces else []) + ([] if strain is None else [strain.strain])
            with positions_only():
                gradients = list(
                    torch.autograd.grad(energy, by, torch.ones_like(energy), create_graph=self.training)
                )
        out = {"energy": energy if self.training else energy.detach()}
        if forces:
            out["forces"] = -gradients.pop(0)
        if strain is not None:
            out["stress"] = strain.stress(gradients.pop(0))
        return out

    def _energy(self, data: Data, pos: Tensor) -> Tensor:
        batch, molecules = _molecules(data)
        known = {"num_molecules": molecules, "dtype": torch.float64}
        fields = {name: known[name] if name in known else getattr(data, name, None) for name in self._fields}
        for name, needed in self._fields.items():
            if needed and fields[name] is None:
                raise ValueError(
                    f"`data` must hold `{name}`, which {type(self.model).__name__} needs; got None"
                )
        relative = self.model(data.z, pos, batch, **fields)
        return self.scaled(relative.reshape(molecules).double(), data.z, batch, molecules)

    def scaled(self, relative: Tensor, z: Tensor, batch: Tensor, molecules: int) -> Tensor:
        """Turn the model's output, ``(molecules,)``, into energies in eV."""
        references = sum_by_molecule(self.atomref.index_select(0, z), batch, molecules)
        return self.scale * relative + references

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


def _fields_of(model: nn.Module) -> dict[str, bool]:
    """Name what a model takes beside elements, positions and batch, and whether it cannot do without."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps takes anything
    named = list(inspect.signature(model.forward).parameters.values())[3:]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default is inspect.Parameter.empty for p in named if p.kind in kinds}


def _molecules(data: Data) -> tuple[Tensor, int]:
    """Give the batch vector and the number of molecules."""
    batch = getattr(data, "batch", None)
    if batch is None:
        return torch.zeros_like(data.z), 1
    molecules = getattr(data, "num_graphs", None)
    return batch, count_molecules(batch) if molecules is None else molecules  # a batch by hand has none


def _in_spatial_order(data: Data) -> tuple[Data, Tensor | None]:
    """Put near atoms near in memory, where one system is large and edges do not name its atoms."""
    pos, batch = cast(Tensor, data.pos), getattr(data, "batch", None)
    if len(pos) <= _ATOMS_TO_ORDER or "edge_index" in data or (batch is not None and bool(batch.any())):
        return data, None
    order, data = spatial_order(pos), copy(data)
    data.z, data.pos = cast(Tensor, data.z)[order], pos[order]
    return data, order


def _in_old_order(out: dict[str, Tensor], order: Tensor | None) -> dict[str, Tensor]:
    if order is None or "forces" not in out:
        return out
    return {**out, "forces": out["forces"][order.argsort()]}


def _from_sites(
    inputs: Inputs, volume: Tensor | None, forces: bool, out: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Add up forces on sites to those on atoms, and their moments to stresses."""
    if "forces" not in out:
        return out
    assert inputs.images is not None
    on_sites, atom = out["forces"], inputs.images.atom
    found = {"energy": out["energy"]}
    if forces:
        found["forces"] = on_sites.new_zeros(len(inputs.z), 3).index_add(0, atom, on_sites)
    if volume is not None:
        moments = (on_sites[:, :, None] * inputs.pos[:, None, :]).double().flatten(1)  # (sites, 9)
        own = inputs.batch.index_select(0, atom)
        virial = moments.new_zeros(len(volume), 9).index_add(0, own, moments).view(-1, 3, 3)
        found["stress"] = per_volume(-(virial + virial.mT) / 2, volume)
    return found


def _is_periodic(pbc: Tensor | Sequence[bool] | bool | None) -> bool:
    return pbc is not None and bool(torch.as_tensor(pbc).any())


def _is_plain(z: Any, pos: Any, batch: Any, edge_index: Any) -> bool:
    """Whether these are the tensors that a compiled potential takes without further questions."""
    if not isinstance(z, Tensor) or not isinstance(pos, Tensor) or z.dtype != torch.long:
        return False
    if pos.dtype not in (torch.float32, torch.float64) or pos.requires_grad or pos.dim() != 2:
        return False
    if pos.size(1) != 3 or z.shape != pos.shape[:1] or pos.device.type != "cpu":
        return False
    if any(
        t is not None and (t.device.type != "cpu" or t.layout != torch.strided)
        for t in (z, batch, edge_index)
    ):
        return False
    if edge_index is not None and (
        edge_index.dtype != torch.long or edge_index.dim() != 2 or len(edge_index) != 2
    ):
        return False
    return batch is None or (batch.dtype == torch.long and batch.shape == z.shape)
