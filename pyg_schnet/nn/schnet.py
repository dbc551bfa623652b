"""SchNet, in the order of the paper's section 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet.images import Images, find_images
from pyg_schnet.molecules import MAX_ATOMIC_NUMBER, check_edges, check_molecules, check_positions
from pyg_schnet.native import pair_distances, prepare, weights_are_frozen
from pyg_schnet.neighbors import neighbor_list, radius_graph
from pyg_schnet.nn.cfconv import CFConv
from pyg_schnet.nn.config import SchNetConfig
from pyg_schnet.nn.filters import FilterNetwork
from pyg_schnet.nn.geometry import Geometry, measure
from pyg_schnet.nn.radial import (
    CosineEnvelope,
    GaussianSmearing,
    PolynomialEnvelope,
    ShiftedSoftplus,
)
from pyg_schnet.nn.readout import (
    AtomicMean,
    AtomicSum,
    AtomwiseNetwork,
    DipoleMagnitude,
)
from pyg_schnet.nn.spline import KnotFeatures, Knots

_ATOMS_TO_COMPARE = 2000  # in all; more of one molecule take longer than a search by cells
_PAIRS_A_KNOT = 1  # from which evaluating filters at knots is faster than at each pair
_ENVELOPES = {"cosine": CosineEnvelope, "polynomial": PolynomialEnvelope}
_READOUTS = {"add": AtomicSum, "sum": AtomicSum, "mean": AtomicMean}


class SchNet(nn.Module):
    r"""The continuous-filter convolutional network for quantum interactions.

    Published implementations disagree; both readings are here and pinned by tests:

    ==========================  ===============================  =======================================
    ..                          ``SchNet.paper()`` (2017)        ``SchNet()`` (PyG, SchNetPack)
    ==========================  ===============================  =======================================
    filter network              dense, ssp, dense, **ssp**       dense, ssp, dense
    Gaussians                   301 centers 0 … 30 Å every       ``num_gaussians`` over [0, cutoff],
                                0.1 Å, γ = 10 Å⁻² (the released  γ = 1/(2Δ²)
                                code: ``num_gaussians=300``)
    cutoff envelope             none, all pairs of a molecule    cosine, zero at and beyond the cutoff
    features, interactions      64, 3                            128, 6
    last layer at start         zero                             Xavier-uniform
    ==========================  ===============================  =======================================

    Args:
        hidden_channels: Number of features :math:`F` of an atom.
        num_filters: Number of filters of a continuous-filter convolution.
        num_interactions: Number of interaction blocks :math:`T`.
        num_gaussians: Number of radial functions, at least two.
        cutoff: In Å; ``None`` connects all pairs of a molecule and needs ``last_center``.
        interaction_graph: Called with ``(pos, batch)``, returns ``(edge_index, distance)``, instead of
            the graph of all neighbors within the cutoff.
        max_num_neighbors: A bound to be told of: nothing is dropped, more neighbors are an error.
        readout: ``"add"`` for extensive, ``"mean"`` for intensive properties.
        dipole: Predict the length of the dipole moment; ``readout``, ``mean``, ``std`` and ``atomref``
            have no effect on it.
        mean: Added to each atom's contribution.
        std: Factor of each atom's contribution.
        atomref: Property of isolated atoms by atomic number, ``(100,)`` or ``(100, 1)``; fixed.
        last_center: Position of the last Gaussian in Å; the cutoff by default.
        gamma: :math:`\gamma` of the Gaussians in Å⁻²; by default :math:`1/(2\Delta^2)`.
        envelope: ``"cosine"``, ``"polynomial"`` (twice differentiable at the cutoff) or ``None``, which
            leaves jumps at a cutoff.
        final_activation: Whether a shifted softplus ends the filter network.
        zero_output: Whether the last layer starts at zero.
        filters: ``"exact"`` evaluates the filter networks for each pair of atoms, ``"spline"`` at a few
            hundred knots of a quintic spline (:mod:`pyg_schnet.nn.spline`; exact to 1e-6 of the energies'
            spread and 1e-5 of the forces), ``"auto"`` at knots in float32 where there are more pairs than
            knots. The attribute ``filters`` of a model may be changed.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> z, pos = torch.tensor([8, 1, 1]), torch.eye(3)
        >>> SchNet()(z, pos).shape
        torch.Size([1, 1])

    Source:
        Schütt et al., "SchNet: A continuous-filter convolutional neural network for modeling quantum
        interactions", NeurIPS 2017 (arXiv:1706.08566); Schütt et al., J. Chem. Phys. 148, 241722 (2018).
    """

    def __init__(
        self,
        hidden_channels: int = 128,
        num_filters: int = 128,
        num_interactions: int = 6,
        num_gaussians: int = 50,
        cutoff: float | None = 10.0,
        interaction_graph: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        max_num_neighbors: int | None = None,
        readout: str = "add",
        dipole: bool = False,
        mean: float | None = None,
        std: float | None = None,
        atomref: Tensor | None = None,
        *,
        last_center: float | None = None,
        gamma: float | None = None,
        envelope: str | None = "cosine",
        final_activation: bool = False,
        zero_output: bool = False,
        filters: str = "auto",
    ):
        super().__init__()
        self.config = SchNetConfig(
            hidden_channels=hidden_channels,
            num_filters=num_filters,
            num_interactions=num_interactions,
            num_gaussians=num_gaussians,
            cutoff=cutoff,
            readout=readout,
            dipole=dipole,
            mean=mean,
            std=std,
            last_center=last_center,
            gamma=gamma,
            envelope=envelope if cutoff is not None else None,
            final_activation=final_activation,
            zero_output=zero_output,
            filters=filters,
        )
        self.filters = filters
        self.interaction_graph = interaction_graph
        self.max_num_neighbors = max_num_neighbors
        # a_Z, equation (3). Row 0 is unused: PyG keeps it for padding, and weights transfer unchanged.
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden_channels, padding_idx=0)
        last_center = cutoff if last_center is None else last_center
        assert last_center is not None  # _check
        self.radial_basis = GaussianSmearing(num_gaussians, last_center, gamma)
        self.envelope = None
        if self.config.envelope is not None and cutoff is not None:
            self.envelope = _ENVELOPES[self.config.envelope](cutoff)
        self._knots = KnotFeatures(self.radial_basis, self.envelope)
        self.interactions = nn.ModuleList(
            Interaction(hidden_channels, num_filters, num_gaussians, final_activation)
            for _ in range(num_interactions)
        )
        network = AtomwiseNetwork(hidden_channels, zero_output)
        if dipole:
            self.readout = DipoleMagnitude(network)
        else:
            self.readout = _READOUTS[readout](network, mean, std, atomref)

    @classmethod
    def paper(cls, **changes) -> SchNet:
        """Build the network of the 2017 paper; see the table above. Arguments change it by name."""
        return cls(**asdict(SchNetConfig.paper(**changes)))

    @classmethod
    def from_pyg(cls, model: nn.Module) -> SchNet:
        """Take over the weights of a :class:`torch_geometric.nn.SchNet`.

        Energies agree except where PyG drops neighbors (``max_num_neighbors``) or lets the envelope rise
        again beyond the cutoff. A custom ``interaction_graph`` is taken over.

        Args:
            model: PyG's model, trained or not.

        Returns:
            A model of the same dtype, on the same device.

        Raises:
            TypeError: If ``model`` is not PyG's SchNet.
        """
        from pyg_schnet.nn.migration import from_pyg  # it needs PyG's class, and the model does not

        return from_pyg(cls, model)

    @classmethod
    def from_schnetpack(cls, weights: Mapping[str, Tensor]) -> SchNet:
        """Take over the weights of a SchNetPack 2 model; SchNetPack need not be installed.

        Args:
            weights: The model's ``state_dict()``: SchNet with Gaussians and cosine cutoff, and one
                Atomwise output with shifted-softplus activation. SchNetPack's Atomwise has SiLU by
                default, which no entry tells.

        Returns:
            A model of the same dtype, on the same device.

        Raises:
            ValueError: If an entry is missing, with its name.
        """
        from pyg_schnet.nn.migration import from_schnetpack

        return from_schnetpack(cls, weights)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.embedding.reset_parameters()
        for interaction in self.interactions:
            interaction.reset_parameters()  # pyright: ignore[reportCallIssue]
        self.readout.reset_parameters()

    def forward(
        self,
        z: Int[Tensor, " atoms"],
        pos: Float[Tensor, "atoms 3"],
        batch: Int[Tensor, " atoms"] | None = None,
        edge_index: Int[Tensor, "2 edges"] | None = None,
        shift: Int[Tensor, "edges 3"] | None = None,
        cell: Float[Tensor, "*molecules 3 3"] | None = None,
        pbc: Tensor | Sequence[bool] | bool | None = None,
        num_molecules: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "molecules 1"]:
        """Predict one property of each molecule.

        Args:
            z: Atomic numbers, 1 to 99.
            pos: Positions in Å, in any floating-point type: distances are computed in it, and the
                network runs in the type of its weights.
            batch: Number of the molecule of each atom, sorted; one molecule if ``None``.
            edge_index: Edges, if they are known; row 0 the sources. Edges beyond the cutoff add nothing, but
                all within it must be there: bonds, or a graph of a smaller radius, give another energy.
            shift: Integer cell shift of each edge of a periodic system.
            cell: Lattice vectors in rows, in Å.
            pbc: Whether each lattice vector is periodic.
            num_molecules: Number of molecules, if trailing ones may be without atoms.
            dtype: Of the result; that of the weights if ``None``. Sums over atoms run in float64, and
                ``torch.float64`` returns them as they are.

        Returns:
            The property in the unit of the training data, one row for each molecule.

        Raises:
            ValueError: If the input is not a set of molecules, with the field and its requirement.
        """
        batch, num_molecules = check_molecules(z, pos, batch, num_molecules)
        place = self.locate(pos, batch, edge_index, shift, cell, pbc)
        out = self.predict(z, pos, batch, num_molecules, *place)
        return out.to(dtype or self.embedding.weight.dtype)[:, None]

    def locate(
        self,
        pos: Tensor,
        batch: Tensor,
        edge_index: Tensor | None = None,
        shift: Tensor | None = None,
        cell: Tensor | None = None,
        pbc: Tensor | Sequence[bool] | bool | None = None,
    ) -> tuple[Tensor, Tensor | Knots, Tensor | None, Tensor | None]:
        """Find what the convolutions need: edges, features, envelope and pairs, see :class:`CFConv`.

        Args:
            pos: As for :meth:`forward`, and so the others.
            batch: Number of the molecule of each atom.
            edge_index: Edges, if they are known.
            shift: Their cell shifts.
            cell: Lattice vectors.
            pbc: Which are periodic.
        """
        if self.interaction_graph is not None and edge_index is None:
            edges, distance = self.interaction_graph(pos, batch)
            graph = Geometry(distance, edges=edges)
        else:
            cutoff, bound = self.config.cutoff, self.max_num_neighbors
            graph = measure(pos, batch, cutoff, edge_index, shift, cell, pbc, bound)
        return self._expand(graph, graph.distance.to(self.embedding.weight.dtype))

    def locate_fast(
        self, z: Tensor, allowed: Tensor, pos: Tensor, batch: Tensor | None, edge_index: Tensor | None
    ) -> tuple[Tensor, Knots] | None:
        """Check a batch and find its pairs and knots (without distances) in one step, on a CPU.

        Returns:
            ``None`` where anything is unusual: :meth:`locate` and the checks before it tell what.
        """
        if self.interaction_graph is not None or self.max_num_neighbors is not None:
            return None
        cutoff = self.config.cutoff
        if (
            edge_index is None
            and cutoff is not None
            and len(pos) > _ATOMS_TO_COMPARE
            and z.shape == pos.shape[:1]
        ):
            edge_index = radius_graph(pos, cutoff, batch)  # by cells, where comparing all pairs takes longer
        found = prepare(z, allowed, pos, batch, cutoff, edge_index)
        if found is None:
            return None
        pairs, low, high = found
        weight = self.embedding.weight
        knots = self._knots.between(low, high, weight.detach(), weights_are_frozen())
        return None if knots is None else (pairs, knots)

    def locate_images(self, data: Data, batch: Tensor) -> tuple[Images, Tensor, Knots] | None:
        """Find the pairs of periodic systems, positions of their sites and knots (without distances).

        Args:
            data: With ``pos``, ``cell`` and ``pbc``; with ``edge_index`` and ``shift``, or with their
                ``images``, if they are known.
            batch: Number of the system of each atom.

        Returns:
            ``None`` where anything is unusual.
        """
        cutoff, pos, cell = self.config.cutoff, cast(Tensor, data.pos), cast(Tensor, data.cell)
        if self.interaction_graph is not None or self.max_num_neighbors is not None or cutoff is None:
            return None
        if self.config.dipole:
            return None  # which reads positions of atoms
        images = getattr(data, "images", None)
        if not isinstance(images, Images) or len(images.atom) < len(pos):
            edge_index, shift = data.edge_index, getattr(data, "shift", None)
            if edge_index is None:
                edge_index, shift = neighbor_list(pos, cutoff, batch, cell, data.pbc)
            else:
                check_positions(pos, batch)
                check_edges(edge_index, batch)
            images = find_images(edge_index, cast(Tensor, shift), batch)
        if images is None:
            return None
        with torch.no_grad():
            sites = images.positions(pos, cell, batch)
            distance = pair_distances(sites, images.places)
            near = distance < cutoff
            if not bool(near.all()):
                images = images._replace(pairs=images.pairs[:, near], places=images.places[:, near])
                distance = distance[near]
            if len(distance) == 0 or not bool((distance > 0).all()):
                return None
            low, high = (float(value) for value in distance.aminmax())
            knots = self._knots.between(low, high, self.embedding.weight.detach(), weights_are_frozen())
        return None if knots is None else (images, sites, knots)

    def predict(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor,
        num_molecules: int,
        edges: Tensor,
        features: Tensor | Knots,
        envelope: Tensor | None = None,
        pair: Tensor | None = None,
    ) -> Tensor:
        """Predict from a geometry that is known; the property of each molecule, ``(molecules,)``, float64."""
        x = self.embedding(z)  # (atoms, channels), equation (3)
        for interaction in self.interactions:
            x = x + interaction(x, edges, features, envelope, pair)
        return self.readout(x, z, pos, batch, num_molecules)

    def _expand(
        self, graph: Geometry, distance: Tensor
    ) -> tuple[Tensor, Tensor | Knots, Tensor | None, Tensor | None]:
        """Give the edges, and on what their filters depend: at knots, or in each row of the geometry."""
        if graph.pairs is not None and self._takes_splines(distance):
            pairs, near = graph.pairs, distance
            if self.config.cutoff is not None and bool((outside := distance >= self.config.cutoff).any()):
                pairs, near = pairs[:, ~outside], distance[~outside]
            frozen = weights_are_frozen()
            knots = self._knots.at(near, frozen) if len(near) else None
            always = frozen or self.filters == "spline"
            if knots is not None and (always or len(near) >= _PAIRS_A_KNOT * len(knots.features)):
                return pairs, knots, None, None
        edges, pair = graph.directed()
        expansion = self.radial_basis(distance, trim=not torch.compiler.is_compiling())  # (rows, gaussians)
        envelope = self.envelope(distance) if self.envelope is not None else None
        if envelope is None and self.config.cutoff is not None:  # edges that were given may be longer
            envelope = (distance < self.config.cutoff).to(distance.dtype)
        return edges, expansion, envelope, pair

    def _takes_splines(self, distance: Tensor) -> bool:
        if self.filters == "exact" or torch.compiler.is_compiling():
            return False
        if torch._C._are_functorch_transforms_active() or torch.is_autocast_enabled(distance.device.type):
            return False
        return self.filters == "spline" or distance.dtype == torch.float32

    def __repr__(self) -> str:
        c = self.config
        return (
            f"{type(self).__name__}(hidden_channels={c.hidden_channels}, num_filters={c.num_filters}, "
            f"num_interactions={c.num_interactions}, num_gaussians={c.num_gaussians}, cutoff={c.cutoff})"
        )


class Interaction(nn.Module):
    r"""How atoms influence each other: the residual of one interaction block.

    .. math::
        \mathbf{v} = \text{atomwise}(\mathrm{ssp}(\text{atomwise}(
            \text{cfconv}(\text{atomwise}(\mathbf{x})))))

    Args:
        hidden_channels: Number of features of an atom.
        num_filters: Number of filters of the convolution.
        num_gaussians: Number of radial functions.
        final_activation: Whether a shifted softplus ends the filter network.

    Source:
        Schütt et al., NeurIPS 2017, section 4.1 and figure 2 (middle). The first layer has no bias, as
        in the released code, SchNetPack and PyG.
    """

    def __init__(self, hidden_channels: int, num_filters: int, num_gaussians: int, final_activation: bool):
        super().__init__()
        self.atomwise1 = nn.Linear(hidden_channels, num_filters, bias=False)
        self.cfconv = CFConv(FilterNetwork(num_gaussians, num_filters, final_activation))
        self.atomwise2 = nn.Linear(num_filters, hidden_channels)
        self.activation = ShiftedSoftplus()
        self.atomwise3 = nn.Linear(hidden_channels, hidden_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier-uniform, biases zero."""
        self.cfconv.reset_parameters()
        nn.init.xavier_uniform_(self.atomwise1.weight)
        for dense in (self.atomwise2, self.atomwise3):
            nn.init.xavier_uniform_(dense.weight)
            nn.init.zeros_(dense.bias)

    def forward(
        self,
        x: Float[Tensor, "atoms channels"],
        edge_index: Int[Tensor, "2 edges"],
        expansion: Float[Tensor, "rows gaussians"] | Knots,
        envelope: Float[Tensor, " rows"] | None = None,
        pair: Int[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "atoms channels"]:
        v = self.cfconv(self.atomwise1(x), edge_index, expansion, envelope, pair)
        return self.atomwise3(self.activation(self.atomwise2(v)))
