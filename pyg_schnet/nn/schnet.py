"""SchNet: embedding, radial expansion, interaction blocks and readout (section 4 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyg_schnet.graph.pair_graph import PairGraph, build_pairs
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER, check_molecules
from pyg_schnet.nn.config import SchNetConfig
from pyg_schnet.nn.conversion import Convertible
from pyg_schnet.nn.filter_table import FilterTables
from pyg_schnet.nn.interaction import Interaction
from pyg_schnet.nn.radial import CosineEnvelope, CutoffEnvelope, GaussianSmearing, PolynomialEnvelope
from pyg_schnet.nn.readout import AtomicMean, AtomicSum, AtomwiseNetwork, DipoleMagnitude, Readout
from pyg_schnet.nn.spline import Knots

_ENVELOPES = {"cosine": CosineEnvelope, "polynomial": PolynomialEnvelope}
_READOUTS = {"add": AtomicSum, "sum": AtomicSum, "mean": AtomicMean}


class EdgeFeatures(NamedTuple):
    """Arguments of :class:`Interaction <pyg_schnet.nn.Interaction>` that describe the edges of a graph.

    Attributes:
        edge_index: Edges, ``(2, edges)``, row 0 the sources; with knots, both atoms of each pair.
        expansion: Radial expansion of distances, ``(pairs, gaussians)``; or knots of filter tables.
        envelope: Cutoff envelope of each pair, ``(pairs,)``.
        pair: Pair of each edge, ``(edges,)``; ``None`` where each edge has a row of its own.
    """

    edge_index: Tensor
    expansion: Tensor | Knots
    envelope: Tensor | None = None
    pair: Tensor | None = None


class SchNet(Convertible, nn.Module):
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
        cutoff: Cutoff in Å; ``None`` connects all pairs of a molecule and needs ``last_center``.
        interaction_graph: Called with ``(pos, batch)``, returns ``(edge_index, distance)``, instead of
            the graph of all neighbors within the cutoff.
        max_num_neighbors: Raise if an atom has more neighbors; none are dropped.
        readout: ``"add"`` for extensive, ``"mean"`` for intensive properties; ``None`` to return the features
            of the atoms, for readouts of your own.
        dipole: Predict the length of the dipole moment; ``readout``, ``mean``, ``std`` and ``atomref``
            have no effect on it.
        mean: Added to each atom's contribution.
        std: Factor of each atom's contribution.
        atomref: Property of isolated atoms by atomic number, ``(100,)`` or ``(100, 1)``, in the unit of the
            property; fixed.
        last_center: Position of the last Gaussian in Å; the cutoff by default.
        gamma: :math:`\gamma` of the Gaussians in Å⁻²; by default :math:`1/(2\Delta^2)`.
        envelope: ``"cosine"``, ``"polynomial"`` (twice differentiable at the cutoff) or ``None``, which
            leaves jumps at a cutoff.
        final_activation: Whether a shifted softplus ends the filter network.
        zero_output: Whether the last layer starts at zero.
        filters: ``"exact"`` evaluates the filter networks for each pair of atoms, ``"spline"`` at a few
            hundred knots of a quintic spline (``pyg_schnet.nn.filter_table``; exact to 1e-6 of the
            energies' standard deviation and 1e-5 of the forces), ``"auto"`` at knots in float32 if there are
            more pairs than knots. The attribute ``filters`` of a model may be changed.
        readout_activation: ``"shifted_softplus"``, ``"silu"`` (as in SchNetPack 2) or ``"tanh"``, between
            the two layers of the readout.

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
        readout: str | None = "add",
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
        readout_activation: str = "shifted_softplus",
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
            envelope=None if cutoff is None else envelope,
            final_activation=final_activation,
            zero_output=zero_output,
            filters=filters,
            readout_activation=readout_activation,
        )
        self.interaction_graph = interaction_graph
        self.max_num_neighbors = max_num_neighbors
        # a_Z, equation (3). Row 0 is unused: PyG keeps it for padding, and weights transfer unchanged.
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden_channels, padding_idx=0)
        self.radial_basis = GaussianSmearing(num_gaussians, self.config.gaussians_end, gamma)
        self.envelope = None
        if cutoff is not None and envelope is not None:
            self.envelope = _ENVELOPES[envelope](cutoff)
        self.interactions = nn.ModuleList(
            Interaction(hidden_channels, num_filters, num_gaussians, final_activation)
            for _ in range(num_interactions)
        )
        self.readout: Readout | None = None
        if dipole or readout is not None:
            network = AtomwiseNetwork(hidden_channels, zero_output, readout_activation)
            if dipole:
                self.readout = DipoleMagnitude(network)
            else:
                self.readout = _READOUTS[cast(str, readout)](network, mean, std, atomref)
        self.filter_tables = FilterTables()  # optional acceleration, see filter_table.py

    @classmethod
    def paper(cls, **changes) -> SchNet:
        """Build the network of the 2017 paper, see the table above.

        Args:
            **changes: Arguments of the class that differ from the paper's.
        """
        return cls(**asdict(SchNetConfig.paper(**changes)))

    @property
    def filters(self) -> str:
        """How filters are computed, ``"exact"``, ``"spline"`` or ``"auto"``; may be changed."""
        return self.config.filters

    @filters.setter
    def filters(self, value: str) -> None:
        self.config = replace(self.config, filters=value)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.embedding.reset_parameters()
        for interaction in self.interactions:
            interaction.reset_parameters()  # pyright: ignore[reportCallIssue]
        if self.readout is not None:
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
        graph: PairGraph | None = None,
    ) -> Float[Tensor, "molecules_or_atoms channels"]:
        """Predict one property of each molecule, or features of atoms without a readout.

        Args:
            z: Atomic numbers, 1 to 99.
            pos: Positions in Å, in any floating-point type: distances are computed in it, and the
                network runs in the type of its weights.
            batch: Number of the molecule of each atom, sorted; one molecule if ``None``.
            edge_index: Edges, if they are known; row 0 the sources. They must contain all edges within the
                cutoff: bonds, or a graph of a smaller radius, result in another energy. Longer edges add
                nothing.
            shift: Integer cell shift of each edge of a periodic system.
            cell: Lattice vectors in rows, in Å.
            pbc: Whether each lattice vector is periodic.
            num_molecules: Number of molecules, if trailing ones may be without atoms.
            dtype: Type of the result; that of the weights if ``None``. Sums over atoms run in float64, and
                ``torch.float64`` returns them unrounded.
            graph: Result of :meth:`build_pairs`, in place of all arguments but ``dtype``.

        Returns:
            The property in the unit of the training data, ``(molecules, 1)``; with ``readout=None``, the
            features of the atoms after the last interaction, ``(atoms, hidden_channels)``.

        Raises:
            ValueError: If the input is not a set of molecules, with the field and its requirement.
        """
        if graph is None:
            graph = self.build_pairs(z, pos, batch, edge_index, shift, cell, pbc, num_molecules)
        out = self.predict(graph, *self.edge_features(graph))
        out = out.to(dtype or self.embedding.weight.dtype)
        return out if self.readout is None else out[:, None]

    def build_pairs(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor | None = None,
        edge_index: Tensor | None = None,
        shift: Tensor | None = None,
        cell: Tensor | None = None,
        pbc: Tensor | Sequence[bool] | bool | None = None,
        num_molecules: int | None = None,
        **options: Any,
    ) -> PairGraph:
        """Check the input and find the pairs of atoms that interact.

        Args:
            z: Atomic numbers, ``(atoms,)``, 1 to 99.
            pos: Positions in Å, ``(atoms, 3)``.
            batch: Number of the molecule of each atom, ``(atoms,)``; one molecule if ``None``.
            edge_index: Edges, if they are known, ``(2, edges)``; see :meth:`forward`.
            shift: Integer cell shift of each edge, ``(edges, 3)``.
            cell: Lattice vectors in rows, in Å, ``(molecules, 3, 3)``.
            pbc: Whether each lattice vector is periodic, ``(molecules, 3)``.
            num_molecules: Number of molecules, if trailing ones may be without atoms.
            **options: Options of :func:`pyg_schnet.graph.pair_graph.build_pairs`.

        Returns:
            The graph, for :meth:`forward` and :meth:`Potential.evaluate <pyg_schnet.Potential.evaluate>`.

        Raises:
            ValueError: As :meth:`forward`.
        """
        if self.interaction_graph is not None and edge_index is None:
            batch, num_molecules = check_molecules(z, pos, batch, num_molecules)
            edges, distance = self.interaction_graph(pos, batch)
            return PairGraph(z, pos, batch, num_molecules, edges, pos, is_directed=True, distance=distance)
        given = {"edge_index": edge_index, "shift": shift, "cell": cell, "pbc": pbc}
        options.setdefault("max_num_neighbors", self.max_num_neighbors)
        return build_pairs(z, pos, batch, self._reach(), num_molecules=num_molecules, **given, **options)

    def _reach(self) -> float | None:
        """Return the distance in Å beyond which interactions are zero; ``None`` if there is none."""
        cutoff = self.config.cutoff
        if not isinstance(self.envelope, CutoffEnvelope):
            return cutoff
        return self.envelope.cutoff if cutoff is None else min(cutoff, self.envelope.cutoff)

    def edge_features(self, graph: PairGraph) -> EdgeFeatures:
        """Compute the radial expansion and the envelope of a graph, or knots where filters are tabulated.

        Args:
            graph: Result of :meth:`build_pairs`.

        Returns:
            Arguments of :meth:`predict`.
        """
        distance = graph.distances().to(self.embedding.weight.dtype)  # (pairs,), d_ij
        knots = self.filter_tables.knots(self, graph, distance)
        return self._expand(graph, distance) if knots is None else EdgeFeatures(graph.pairs, knots)

    def _expand(self, graph: PairGraph, distance: Tensor) -> EdgeFeatures:
        """Compute the radial expansion, ``e_k(d_ij)``, and the envelope, ``f(d_ij)``, of each pair."""
        edge_index, pair = graph.edges()
        basis = self.radial_basis
        expansion = basis(distance, trim=True) if isinstance(basis, GaussianSmearing) else basis(distance)
        envelope = self.envelope(distance) if self.envelope is not None else None
        if envelope is None and self.config.cutoff is not None:  # given edges may be longer
            envelope = (distance < self.config.cutoff).to(distance.dtype)
        return EdgeFeatures(edge_index, expansion, envelope, pair)

    def predict(
        self,
        graph: PairGraph,
        edge_index: Tensor,
        expansion: Tensor | Knots,
        envelope: Tensor | None = None,
        pair: Tensor | None = None,
    ) -> Tensor:
        """Predict the property of each molecule from its graph and the features of the edges.

        Args:
            graph: Result of :meth:`build_pairs`.
            edge_index: Edges, ``(2, edges)``; with knots, both atoms of each pair.
            expansion: Radial expansion, ``(pairs, gaussians)``; or knots of filter tables.
            envelope: Cutoff envelope of each pair, ``(pairs,)``.
            pair: Pair of each edge, ``(edges,)``; ``None`` where each edge has a row of its own.

        Returns:
            The property in the unit of the training data, ``(molecules,)``, in float64; with
            ``readout=None``, the result of :meth:`represent`.
        """
        x = self.represent(graph, edge_index, expansion, envelope, pair)
        if self.readout is None:
            return x
        return self.readout(x, graph.z, graph.pos, graph.batch, graph.num_molecules)

    def represent(
        self,
        graph: PairGraph,
        edge_index: Tensor,
        expansion: Tensor | Knots,
        envelope: Tensor | None = None,
        pair: Tensor | None = None,
    ) -> Tensor:
        """Compute the features of the atoms, of which readouts make properties.

        Args:
            graph: Result of :meth:`build_pairs`.
            edge_index: Edges, ``(2, edges)``; with knots, both atoms of each pair.
            expansion: Radial expansion, ``(pairs, gaussians)``; or knots of filter tables.
            envelope: Cutoff envelope of each pair, ``(pairs,)``.
            pair: Pair of each edge, ``(edges,)``; ``None`` where each edge has a row of its own.

        Returns:
            Features after the last interaction, ``(atoms, hidden_channels)``.
        """
        x = self.embedding(graph.z)  # (atoms, channels), equation (3)
        for interaction in self.interactions:
            x = x + interaction(x, edge_index, expansion, envelope, pair)
        return x

    def __repr__(self) -> str:
        c = self.config
        return (
            f"{type(self).__name__}(hidden_channels={c.hidden_channels}, num_filters={c.num_filters}, "
            f"num_interactions={c.num_interactions}, num_gaussians={c.num_gaussians}, cutoff={c.cutoff})"
        )
