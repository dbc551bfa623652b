"""Potentials: the energy of a model in its physical unit, and the forces and the stress that follow."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.data.storage import GlobalStorage

from pyg_schnet.graph.pair_graph import ATOMS_TO_SORT, PairGraph
from pyg_schnet.graph.strain import Strain, volumes
from pyg_schnet.graph.validation import (
    MAX_ATOMIC_NUMBER,
    batch_of,
    check_atomic_numbers,
    check_data_device,
    check_elements,
    check_molecules,
    is_periodic,
)
from pyg_schnet.kernels import without_weight_gradients
from pyg_schnet.nn import SchNet
from pyg_schnet.nn.readout import CenteredReadout, DoubleBuffers, Readout, element_table, sum_by_molecule
from pyg_schnet.nn.snapshot import has_hooks
from pyg_schnet.potentials.model_card import ModelCard
from pyg_schnet.potentials.targets import Target, predicted_units
from pyg_schnet.potentials.training_domain import TrainingDomain


class Backend(Protocol):
    """A compiled form of a potential.

    Attributes:
        constant: Whether weights that require no gradients never change.
        seconds: Time spent on compiling.
        failure: Why some kind of call runs eagerly, or ``None``.
    """

    constant: bool
    seconds: float
    failure: str | None

    def __len__(self) -> int:
        """Return the number of programs."""
        ...

    def __call__(
        self, potential: Potential, graph: PairGraph, forces: bool, volume: Tensor | None
    ) -> dict[str, Tensor] | None:
        """Compute as :meth:`Potential.evaluate`; return ``None`` for calls without a program."""

    def why_eager(self, potential: Potential) -> str | None:
        """Return why no call of a potential has a program; ``None`` if some have."""


class Potential(DoubleBuffers):
    r"""A potential-energy surface: energies, forces as its negative gradient, stress by strain.

    .. math::
        E = \sigma \, \mathrm{model}(z, \mathbf{r}) + \sum_i a_{z_i},
        \qquad \mathbf{F}_i = -\frac{\partial E}{\partial \mathbf{r}_i},
        \qquad \sigma_{\alpha\beta} = \frac1V \frac{\partial E}{\partial \varepsilon_{\alpha\beta}}

    A strain :math:`\varepsilon` deforms atoms and lattice vectors alike, :math:`\mathbf r (1 + \varepsilon)`;
    the stress is positive under tension, as ASE's.

    The model runs in its own precision, on energies relative to the atomic references; the sum is taken
    in float64, because an aspirin molecule's energy in float32 has steps of 1.3 meV.

    In training mode the forces are differentiable, so that a loss may contain them; in evaluation mode
    they are not.

    Args:
        model: Called with ``(z, pos, batch)`` and those of ``num_molecules``, ``dtype`` and the fields of the
            data (``edge_index``, ``cell``, ``x``, …) that are arguments of its ``forward``. Returns one
            number per molecule, as :class:`~pyg_schnet.SchNet` and PyG's own models, or a tuple that begins
            with them, as PyG's ``ViSNet``. A SchNet is called with a
            :class:`~pyg_schnet.graph.pair_graph.PairGraph`.
        scale: :math:`\sigma`, the unit of the model's output in eV.
        atomref: :math:`a_z`, energy of an isolated atom in eV by atomic number, shape ``(100,)``.
        elements: Atomic numbers that occurred in training; others raise. All are allowed if ``None``.
        properties: Readouts of further properties from the features of a SchNet. A ``SchNet(readout=None)``
            has no energy, only these.

    Attributes:
        properties: The further properties, in the order of ``heads``.
        heads: Their readouts.
        domain: Distances and forces that occurred in training, outside of which simulations stop; ``None``
            if they are unknown.
        card: Card of a pretrained model, ``None`` for others.
        compiled: Backend that :meth:`compile` installed, or ``None``.

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
        properties: Mapping[Target, Readout] | None = None,
    ):
        super().__init__()
        self.model = model
        self.properties = tuple(properties or ())
        # No module without properties: names of modules are in the hash by which runs are resumed.
        self.heads = nn.ModuleList(properties.values()) if properties else ()
        self._check_properties()
        self._fields = _arguments_of(model)
        self.compiled: Backend | None = None
        self.domain: TrainingDomain | None = None
        self.card: ModelCard | None = None
        table = element_table(atomref)
        allowed = torch.ones(MAX_ATOMIC_NUMBER + 1, dtype=torch.bool)
        if elements is not None:
            check_atomic_numbers(torch.tensor(elements, dtype=torch.long), "elements")
            allowed[:] = False
            allowed[list(elements)] = True
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))
        self.register_buffer("atomref", table)
        self.register_buffer("allowed", allowed)

    def _check_properties(self) -> None:
        if not self.properties and self.has_energy:
            return
        if not isinstance(self.model, SchNet) or type(self.model).predict is not SchNet.predict:
            raise TypeError(
                "`properties` need the features of a SchNet, got "
                f"{type(self.model).__name__}; train a property of another model as its energy"
            )
        if not self.properties:
            raise ValueError(
                "`properties` must hold a readout where the model has none (readout=None), got none; use "
                "SchNet(readout='add') for energies"
            )

    def extra_repr(self) -> str:
        """Return what is predicted, with units, where there are properties beside the energy."""
        if not self.properties:
            return ""
        units = predicted_units(self.properties, self.has_energy)
        return f"predicts={', '.join(f'{name} ({unit})' if unit else name for name, unit in units.items())}"

    @property
    def has_energy(self) -> bool:
        """Whether the potential predicts energies; without them there are no forces."""
        return not isinstance(self.model, SchNet) or self.model.readout is not None

    def require_energy(self) -> None:
        """Raise if the potential predicts no energies.

        Raises:
            ValueError: If it predicts other properties only.
        """
        if not self.has_energy:
            names = ", ".join(target.name for target in self.properties)
            raise ValueError(
                f"`potential` must predict energies for forces, dynamics and checks, got one that predicts "
                f"{names}; `evaluate` and `predict` take it, or train with `energy` among `data.targets`"
            )

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that the potential accepts."""
        return [z for z in self.allowed.nonzero().flatten().tolist() if z > 0]

    @property
    def cutoff(self) -> float:
        """Distance in Å within which all neighbors of an atom are; infinite if it is unknown."""
        model = self.model
        if not isinstance(model, SchNet) or model.interaction_graph is not None:
            return math.inf
        return math.inf if model.config.cutoff is None else model.config.cutoff

    def forward(
        self, data: Data, forces: bool = True, stress: bool = False, graph: PairGraph | None = None
    ) -> dict[str, Tensor]:
        """Compute energies, forces and stresses.

        Args:
            data: A molecule or a batch, with ``z`` and ``pos`` in Å; periodic systems with ``cell`` and
                ``pbc``. ``edge_index`` and ``shift`` are used if present, and must then contain all pairs
                within the model's cutoff, as :class:`~pyg_schnet.RadiusGraph` returns them. It is not
                modified.
            forces: Whether to compute forces; energies alone need no gradient.
            stress: Whether to compute the stress of periodic systems.
            graph: Atoms and pairs of ``data``, as :meth:`build_graph` returns them, which are not checked
                again.

        Returns:
            ``energy``, shape ``(molecules,)``, in eV and float64; ``forces``, shape ``(atoms, 3)``, in
            eV/Å; ``stress``, shape ``(molecules, 3, 3)``, in eV/Å³, NaN for molecules of a batch that have no
            cell with a volume. Each property under its name, ``(molecules,)`` or, for atomic ones,
            ``(atoms,)``, in its unit and float64. Without energies there are only the properties.

        Raises:
            RuntimeError: If forces or stress are requested within :func:`torch.inference_mode`.
            ValueError: If the input is not a set of molecules, contains an element that was absent from
                training, or no system is periodic where ``stress`` is true.
        """
        if (forces or stress) and torch.is_inference_mode_enabled():
            raise RuntimeError(
                f"`{'forces' if forces else 'stress'}` need gradients, which torch.inference_mode() disables "
                "permanently; use torch.no_grad() instead"
            )
        if not self.has_energy:
            if stress:
                self.require_energy()
            forces = False
        checked = graph is not None
        if graph is None:
            check_data_device(_fields_of(data), self.scale.device)
            graph = self.build_graph(data)
        if graph is None:
            return self._evaluate_fields(data, forces, stress)
        volume = volumes(graph.cell, graph.pbc, graph.num_molecules, checked) if stress else None
        out = None
        if self.compiled is not None and not torch.compiler.is_compiling():
            out = self.compiled(self, graph, forces, volume)
        return self.evaluate(graph, forces, volume) if out is None else out

    def build_graph(self, data: Data, sort_atoms: bool = True) -> PairGraph | None:
        """Check the input and find the pairs of atoms that interact, for several calls of the potential.

        Args:
            data: As for :meth:`forward`, on any device, which becomes that of the graph.
            sort_atoms: Whether to sort the atoms of a large molecule, so that near atoms are near in memory;
                forces are in the order of ``data``.

        Returns:
            The graph; ``None`` for models that find their pairs themselves, which all but a
            :class:`~pyg_schnet.SchNet` do.

        Raises:
            ValueError: As :meth:`forward`.
        """
        fields = _fields_of(data)
        if fields.get("pos") is None:
            raise ValueError("`data` must hold `pos`, positions in Å; got None")
        if fields.get("z") is None:
            raise ValueError("`data` must hold `z`, atomic numbers; got None")
        return self._build_pairs(data, fields, sort_atoms) if self._takes_pairs(fields) else None

    def evaluate(
        self, graph: PairGraph, forces: bool = True, volume: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute energies, forces and stresses of a graph by the model itself.

        Args:
            graph: Result of :meth:`SchNet.build_pairs <pyg_schnet.SchNet.build_pairs>`.
            forces: Whether to compute forces.
            volume: Volumes in Å³, ``(molecules,)``, to compute stresses; ``None`` for no stresses.

        Returns:
            As :meth:`forward`.
        """
        if not forces and volume is None:
            with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
                return self._results(graph)
        with torch.enable_grad():
            graph = graph.with_gradient()
            with nullcontext() if self.training else without_weight_gradients():
                out = self._results(graph)
            with without_weight_gradients():
                energy, ones = out["energy"], torch.ones_like(out["energy"])
                (gradient,) = torch.autograd.grad(energy, graph.site_pos, ones, create_graph=self.training)
        if not self.training:
            out = {name: value.detach() for name, value in out.items()}
        return {**out, **graph.forces_and_stress(-gradient, forces, volume)}

    def takes_graph(self, data: Data) -> bool:
        """Return whether :meth:`forward` accepts a ``graph`` of such data.

        Args:
            data: As for :meth:`forward`.
        """
        return type(self).forward is Potential.forward and self._takes_pairs(_fields_of(data))

    def atomic_energies(self, data: Data) -> Tensor:
        """Compute the contribution of each atom to the energy; only the sums have a physical meaning.

        Args:
            data: As for :meth:`forward`.

        Returns:
            ``(atoms,)``, in eV and float64, without gradients.

        Raises:
            TypeError: If the model is not a :class:`~pyg_schnet.SchNet` that sums over atoms.
            ValueError: As :meth:`forward`.
        """
        model = self.model
        if not isinstance(model, SchNet) or model.config.dipole or model.config.readout not in ("add", "sum"):
            raise TypeError(
                "`atomic_energies` needs a SchNet with readout='add', whose energy is a sum over atoms; got "
                f"{model}"
            )
        fields = _fields_of(data)
        with torch.no_grad(), without_weight_gradients():
            graph = self._build_pairs(data, fields, sort_atoms=False)
            each = torch.arange(len(graph.z), device=graph.z.device)  # each atom a molecule of the readout
            graph = graph._replace(batch=each, num_molecules=len(each))
            own = model.predict(graph, *model.edge_features(graph))
            return self.scaled(own.double(), graph.z, each, len(each))

    def compile(self, constant: bool = False, backend: str = "auto") -> Potential:
        """Compile in place: the same numbers, several times faster.

        A program for each kind of call (with or without forces, training or not) is compiled at its first
        use, in seconds, and compared with eager evaluation: energies, forces and the gradients of all
        weights. It runs batches of any size, and all potentials of the same structure. Modules, their
        settings and hooks may be changed at any time.

        Calls without a program run eagerly: with ``filters="exact"``, in float64 unless ``filters="spline"``,
        positions or cells that need a gradient, and models that are not a ``SchNet`` or have hooks,
        parametrizations or modules of other classes.

        Args:
            constant: Whether weights that do not require gradients change only by ``load_state_dict`` and
                other operations that autograd counts. They are then not read again, which halves the time of
                one small molecule (254 to 125 µs). On GPUs, where reading weights would wait for the device,
                this always holds.
            backend: What runs the programs: ``"c"`` (generated C, for CPUs), ``"inductor"`` (PyTorch's
                compiler, for GPUs and CPUs; it takes a minute for each kind of call), ``"python"`` (one
                operation of PyTorch after another), or ``"auto"``: C on CPUs and Inductor on GPUs. What C or
                Inductor cannot compile runs in Python; the reason is logged.

        Returns:
            The potential; :meth:`why_eager` returns why there are no programs.

        Raises:
            ValueError: If ``backend`` is none of these.
        """
        from pyg_schnet.compile import CompiledPotential  # a higher layer; see `ignore_imports`

        self.compiled = CompiledPotential(constant, backend)
        return self

    def why_eager(self) -> str | None:
        """Return why execution falls back to eager mode, in one line; ``None`` if it does not."""
        if self.compiled is None:
            return "compile() was not called"
        return self.compiled.why_eager(self)

    def _takes_pairs(self, fields: Mapping[str, Any]) -> bool:
        """Return whether the model computes the energy from a graph of pairs alone."""
        model = self.model
        if not isinstance(model, SchNet) or "graph" not in self._fields:
            return False
        if model.interaction_graph is not None or type(model).build_pairs is not SchNet.build_pairs:
            return False
        needs_center = any(isinstance(head, CenteredReadout) for head in self.heads)
        if needs_center and is_periodic(fields.get("pbc")):
            raise ValueError(
                "`pbc` must be False for dipoles and spatial extents, which depend on the choice of the "
                "cell; remove the cell, or use a model without them"
            )
        return not (model.config.dipole and is_periodic(fields.get("pbc")))  # dipoles need positions of atoms

    def _build_pairs(self, data: Data, fields: Mapping[str, Any], sort_atoms: bool = True) -> PairGraph:
        model, (batch, molecules) = cast(SchNet, self.model), (fields.get("batch"), None)
        if batch is not None:
            molecules = getattr(data, "num_graphs", None)  # unknown for a `batch` without Batch
        large = sort_atoms and len(fields["pos"]) > ATOMS_TO_SORT
        return model.build_pairs(
            fields["z"],
            fields["pos"],
            batch,
            num_molecules=molecules,
            **{name: fields.get(name) for name in ("edge_index", "shift", "cell", "pbc", "sites")},
            allowed=self.allowed.to(fields["z"].device),
            sort_atoms=large and _ignores_order(model),
        )

    def _results(self, graph: PairGraph) -> dict[str, Tensor]:
        """Compute the energy and the properties of a graph."""
        if not self.properties:
            return {"energy": self._energy(graph)}
        model = cast(SchNet, self.model)
        features = model.represent(graph, *model.edge_features(graph))
        return self.in_callers_order(self.read_out(features, graph), graph)

    def in_callers_order(self, results: dict[str, Tensor], graph: PairGraph) -> dict[str, Tensor]:
        """Return results whose atomic properties are in the caller's order of atoms.

        Args:
            results: Results of a graph by name, ``(molecules,)`` or, for atomic properties, ``(atoms,)``.
            graph: The graph, whose atoms may be sorted.

        Returns:
            The results, of the same shapes.
        """
        if graph.order is None or not any(target.is_atomic for target in self.properties):
            return results
        places = graph.order.argsort()
        atomic = {t.name: results[t.name][places] for t in self.properties if t.is_atomic}
        return {**results, **atomic}

    def read_out(self, features: Tensor, graph: PairGraph) -> dict[str, Tensor]:
        """Compute the energy and the properties from features of the atoms.

        Args:
            features: Result of :meth:`SchNet.represent <pyg_schnet.SchNet.represent>`.
            graph: Its graph; atomic properties are in the order of its atoms.

        Returns:
            Results by name, ``(molecules,)`` or, for atomic properties, ``(atoms,)``, in float64.
        """
        model, results = cast(SchNet, self.model), {}
        atoms = (graph.z, graph.pos, graph.batch, graph.num_molecules)
        if model.readout is not None:
            relative = model.readout(features, *atoms)
            results["energy"] = self.scaled(relative, graph.z, graph.batch, graph.num_molecules)
        for target, head in zip(self.properties, self.heads, strict=True):
            results[target.name] = head(features, *atoms)
        return results

    def _energy(self, graph: PairGraph) -> Tensor:
        out = self.model(graph.z, graph.pos, graph.batch, graph=graph, dtype=torch.float64)
        return self.scaled(out.reshape(graph.num_molecules), graph.z, graph.batch, graph.num_molecules)

    def _evaluate_fields(self, data: Data, forces: bool, stress: bool) -> dict[str, Tensor]:
        """Evaluate a model that finds its pairs itself; stresses are derivatives by strain."""
        pos = cast(Tensor, data.pos)
        check_molecules(data.z, pos, getattr(data, "batch", None), 0)
        check_elements(data.z, self.allowed)
        if not forces and not stress:
            with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
                return {"energy": self._energy_of_fields(data, pos)}
        with torch.enable_grad():
            if forces and not pos.requires_grad:
                pos = pos.detach().requires_grad_()
            strain = Strain(data, batch_of(data)[1]) if stress else None
            with nullcontext() if self.training else without_weight_gradients():
                energy = self._energy_of_fields(
                    *((data, pos) if strain is None else strain.deform(data, pos))
                )
            by = ([pos] if forces else []) + ([] if strain is None else [strain.strain])
            with without_weight_gradients():
                gradients = list(
                    torch.autograd.grad(energy, by, torch.ones_like(energy), create_graph=self.training)
                )
        out = {"energy": energy if self.training else energy.detach()}
        if forces:
            out["forces"] = -gradients.pop(0)
        if strain is not None:
            out["stress"] = strain.stress(gradients.pop(0))
        return out

    def _energy_of_fields(self, data: Data, pos: Tensor) -> Tensor:
        batch, molecules = batch_of(data)
        known = {"num_molecules": molecules, "dtype": torch.float64}
        fields = {name: known[name] if name in known else getattr(data, name, None) for name in self._fields}
        for name, needed in self._fields.items():
            if needed and fields[name] is None:
                raise ValueError(
                    f"`data` must hold `{name}`, which {type(self.model).__name__} needs; got None"
                )
        if not isinstance(self.model, SchNet):  # which takes positions in float64, and rounds distances
            pos = pos.to(next((w.dtype for w in self.model.parameters()), pos.dtype))
        out = self.model(data.z, pos, batch, **fields)
        relative = out[0] if isinstance(out, tuple) else out
        if relative.numel() != molecules:
            raise ValueError(
                f"`model` must return one number for each of the {molecules} molecules; "
                f"{type(self.model).__name__} returned the shape {tuple(relative.shape)}"
            )
        return self.scaled(relative.reshape(molecules).double(), data.z, batch, molecules)

    def scaled(self, relative: Tensor, z: Tensor, batch: Tensor, molecules: int) -> Tensor:
        """Convert the model's output to energies.

        Args:
            relative: Output of the model, ``(molecules,)``, float64.
            z: Atomic numbers, ``(atoms,)``.
            batch: Index of the molecule of each atom, ``(atoms,)``.
            molecules: Number of molecules.

        Returns:
            Energies in eV, ``(molecules,)``.
        """
        references = sum_by_molecule(self.atomref.index_select(0, z), batch, molecules)
        return self.scale * relative + references


def _arguments_of(model: nn.Module) -> dict[str, bool]:
    """Return the arguments of a model after elements, positions and batch, and whether each is required.

    Raises:
        TypeError: If the model does not take these three.
    """
    model = getattr(model, "_orig_mod", model)  # a model wrapped by torch.compile has no signature
    arguments = list(inspect.signature(model.forward).parameters.values())
    by_position = [p for p in arguments if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_position) < 3 and all(p.kind != p.VAR_POSITIONAL for p in arguments):
        taken = ", ".join(p.name for p in arguments)
        raise TypeError(
            f"`model` must have forward(z, pos, batch), got {type(model).__name__}.forward({taken}); wrap it "
            "in a module that has one"
        )
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default is inspect.Parameter.empty for p in arguments[3:] if p.kind in kinds}


def _fields_of(data: Data) -> Mapping[str, Any]:
    """Return the fields of data by name; each access to an attribute of Data takes microseconds."""
    return data._store._mapping if type(data._store) is GlobalStorage else data.to_dict()


def _ignores_order(model: SchNet) -> bool:
    """Return whether results are independent of the order of the atoms: no overridden methods, no hooks."""
    methods = ("predict", "edge_features")
    if any(getattr(type(model), name) is not getattr(SchNet, name) for name in methods):
        return False
    return not any(map(has_hooks, model.modules()))
