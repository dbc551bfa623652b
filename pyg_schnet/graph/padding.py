"""Batches padded to fixed sizes, for programs that are recorded for one size, as CUDA graphs are."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.csr import Csr
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.graph.sites import Sites

_STEPS = 8  # buckets from one power of two to the next, so that at most an eighth is padding
# Distances among which padding pairs are distributed: filters of one distance are summed one by one.
_DISTANCES = 8
_LABELS = ("energy", "forces", "stress")

_foreach_copy_: Any = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]


class Sizes(NamedTuple):
    """Sizes of a batch.

    Attributes:
        atoms: Number of atoms.
        pairs: Number of pairs, or of edges of a directed graph.
        molecules: Number of molecules.
        sites: Number of sites of periodic systems; 0 in molecules.
    """

    atoms: int
    pairs: int
    molecules: int
    sites: int = 0

    @classmethod
    def of(cls, graph: PairGraph) -> Sizes:
        """Return the sizes of a graph."""
        sites = 0 if graph.sites is None else len(graph.sites.atom)
        return cls(len(graph.z), graph.pairs.size(1), graph.num_molecules, sites)

    def bucket(self) -> Sizes:
        """Return the smallest bucket with room for the padding, common to batches of about the same sizes."""
        molecules = round_up(self.molecules + 1)
        atoms = round_up(self.atoms + molecules - self.molecules + _DISTANCES)
        sites = round_up(self.sites + _DISTANCES + 1) if self.sites else 0
        return Sizes(atoms, round_up(self.pairs), molecules, sites)

    def fits(self, bucket: Sizes) -> bool:
        """Return whether these sizes and the padding that they need have room."""
        molecules = bucket.molecules - self.molecules
        if molecules <= 0:
            return self == bucket  # there is no padding
        atoms, sites = bucket.atoms - self.atoms, bucket.sites - self.sites
        room = sites > _DISTANCES if self.sites else bucket.sites == 0
        return atoms >= molecules + _DISTANCES and room and bucket.pairs >= self.pairs


def round_up(count: int) -> int:
    """Return the next of the sizes of buckets, eight from one power of two to the next."""
    step = max(1, 1 << max(0, (count - 1).bit_length() - _STEPS.bit_length()))
    return -(-count // step) * step


class PaddedBatch:
    """Tensors of fixed sizes, which batches are copied into; the padding changes no result of a batch.

    A batch is filled up by further molecules without interaction with its own, of atoms with atomic number 0
    and labels of zero, whose weight in the loss is zero. All padding pairs connect atoms of the padding, at
    distances within the bounds of the graph; they are in no compressed row.

    Args:
        batch: A batch with labels, whose fields and types are those of all batches.
        graph: Its atoms and pairs.
        sizes: Sizes after padding.

    Attributes:
        sizes: Sizes after padding.
        data: Labels, and what else the loss needs.
        graph: Atoms and pairs.
        weights: Weight of each molecule in the loss, ``(molecules,)``, float64; zero for padding.
    """

    def __init__(self, batch: Data, graph: PairGraph, sizes: Sizes):
        self.sizes = sizes
        rows = _rows(sizes)
        values = _values(batch, graph)
        self._padding = {name: t.new_zeros(rows[name], *t.shape[1:]) for name, t in values.items()}
        self._set_padding(graph.distance_range)
        own = self._tensors = {name: padding.clone() for name, padding in self._padding.items()}
        for prefix in ("", "site_"):
            if f"{prefix}first" in own:
                pairs = own[f"{prefix}pairs"] = torch.stack([own[f"{prefix}first"], own[f"{prefix}second"]])
                own[f"{prefix}first"], own[f"{prefix}second"] = pairs
        self.weights = graph.pos.new_zeros(sizes.molecules, dtype=torch.float64)
        self._weighted: tuple[int, float] | None = None  # number of molecules and their weight
        self.graph = self._graph(graph)
        fields = ("z", "pos", "batch", "ptr", "cell", "pbc", *_LABELS)
        self.data = Data(**{name: own[name] for name in fields if name in own})

    def fill(self, batch: Data, graph: PairGraph, weight: float) -> None:
        """Copy a batch into the tensors, without waiting for the device.

        Args:
            batch: Batch with labels.
            graph: Its atoms and pairs.
            weight: Weight of each molecule in the loss, such as the reciprocal of their number.

        Raises:
            ValueError: If there is no room for the batch and its padding.
        """
        sizes = Sizes.of(graph)
        if not sizes.fits(self.sizes):
            raise ValueError(f"`sizes` must have room for {sizes} and its padding, got {self.sizes}")
        if self._weighted != (sizes.molecules, weight):
            self._weigh(sizes.molecules, weight)
        if self.graph.distance_range != graph.distance_range:
            self._set_padding(graph.distance_range)
            self.graph = self.graph._replace(distance_range=graph.distance_range)
        copies: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        with torch.no_grad():
            for name, value in _values(batch, graph).items():
                own, padding = self._tensors[name], self._padding[name][len(value) :]
                targets, sources = copies.setdefault(own.dtype, ([], []))
                targets.append(own[: len(value)])
                sources.append(value)
                if len(padding) == 0:
                    continue
                if name.endswith("rowptr"):  # the rows of padding are empty
                    own[len(value) :].copy_(value[-1:])
                else:
                    targets.append(own[len(value) :])
                    sources.append(padding)
            for targets, sources in copies.values():
                _foreach_copy_(targets, sources)

    def _weigh(self, molecules: int, weight: float) -> None:
        """Set what depends on the number of molecules: weights, and the molecules of padding atoms."""
        self._weighted = molecules, weight
        self.weights[:molecules].fill_(weight)
        self.weights[molecules:].zero_()
        batch = self._padding["batch"]
        number = torch.arange(len(batch), device=batch.device)
        # The last molecules have one atom each, and the first of the padding the others.
        batch.copy_((number - (self.sizes.atoms - self.sizes.molecules)).clamp(min=molecules))

    def _set_padding(self, distances: tuple[float, float] | None) -> None:
        """Set all rows of padding that are not zero; only the last ones are used."""
        (atoms, pairs, molecules, sites), own = self.sizes, self._padding
        number = torch.arange(max(atoms, 2 * pairs, molecules + 1, sites), device=own["z"].device)
        low, high = distances or (0.0, 2.0)
        high = min(high, low + 10.0)  # of bounds without an upper one
        # Pairs connect the last atom, at the origin, with those before it on the x axis.
        place = (atoms - 2 - number[:atoms]) % _DISTANCES
        own["pos"][:, 0] = low + (high - low) * (1 + place) / (_DISTANCES + 1)
        own["pos"][-1, 0] = 0.0
        own["ptr"].copy_(number[: molecules + 1] + (atoms - molecules))
        own["first"].fill_(atoms - 1)
        own["second"].copy_(atoms - 2 - number[:pairs] % _DISTANCES)
        # Each pair is twice in an order of entries, and each row once, of padding behind all others.
        orders = {
            "order": (atoms, 1),
            "atom_order": (sites, 1),
            "pair": (2 * pairs, 2),
            "site_pair": (2 * pairs, 2),
        }
        for name, (rows, repeats) in orders.items():
            if name in own:
                own[name].copy_(number[:rows] // repeats)
        if sites:
            # The last sites are the last atoms, in the same order; all others are of the first of these.
            own["site_atom"].copy_((number[:sites] + (atoms - sites)).clamp(min=atoms - 1 - _DISTANCES))
            own["site_pos"].copy_(own["pos"].index_select(0, own["site_atom"]))
            own["site_first"].copy_(own["first"] + (sites - atoms))
            own["site_second"].copy_(own["second"] + (sites - atoms))

    def _graph(self, like: PairGraph) -> PairGraph:
        own = self._tensors
        sites, atom_sites = None, None
        if like.sites is not None:
            sites = Sites(own["site_pairs"], own["site_atom"], own["site_shift"])
        if like.atom_sites is not None:
            atom_sites = own["atom_rowptr"], own["atom_order"]
        csr = Csr(own["rowptr"], own["col"], own["pair"]) if like.csr is not None else None
        site_csr = csr
        if like.site_csr is not None and like.sites is not None:
            site_csr = Csr(own["site_rowptr"], own["site_col"], own["site_pair"])
        return like._replace(
            **{name: own[name] for name in ("z", "pos", "batch", "pairs")},
            **{name: own.get(name) for name in ("cell", "pbc", "order")},
            num_molecules=self.sizes.molecules,
            site_pos=own.get("site_pos", own["pos"]),
            sites=sites,
            csr=csr,
            site_csr=site_csr,
            atom_sites=atom_sites,
        )


def _values(batch: Data, graph: PairGraph) -> dict[str, Tensor]:
    """Return the tensors of a batch by name; the first dimension of each is padded."""
    if graph.distance is not None:
        raise ValueError("`graph` must not have distances of its own, got those of an `interaction_graph`")
    molecules = graph.num_molecules
    values = {"z": graph.z, "pos": graph.pos, "batch": graph.batch, "ptr": cast(Tensor, batch.ptr)}
    values |= {"first": graph.pairs[0], "second": graph.pairs[1]}
    values |= {name: batch[name] for name in _LABELS if name in batch}
    if graph.order is not None:
        values["order"] = graph.order
    if graph.cell is not None:
        values["cell"] = graph.cell.reshape(-1, 3, 3).expand(molecules, 3, 3)
    if graph.pbc is not None:
        flags = torch.as_tensor(graph.pbc, device=graph.pos.device)
        values["pbc"] = flags.reshape(-1, 3 if flags.dim() else 1).expand(molecules, 3)
    if graph.csr is not None:
        values |= graph.csr._asdict()
    if graph.sites is not None:
        sites = graph.sites
        values |= {"site_pos": graph.site_pos, "site_atom": sites.atom, "site_shift": sites.shift}
        values |= {"site_first": sites.pairs[0], "site_second": sites.pairs[1]}
        if graph.site_csr is not None:
            values |= {f"site_{name}": value for name, value in graph.site_csr._asdict().items()}
    if graph.atom_sites is not None:
        values |= zip(("atom_rowptr", "atom_order"), graph.atom_sites, strict=True)
    return values


def _rows(sizes: Sizes) -> dict[str, int]:
    """Return the number of rows of each tensor."""
    atoms, pairs, molecules, sites = sizes
    return {
        **dict.fromkeys(("z", "pos", "batch", "order", "forces"), atoms),
        **dict.fromkeys(("first", "second", "site_first", "site_second"), pairs),
        **dict.fromkeys(("energy", "stress", "cell", "pbc"), molecules),
        **dict.fromkeys(("site_pos", "site_atom", "site_shift", "atom_order"), sites),
        **dict.fromkeys(("col", "pair", "site_col", "site_pair"), 2 * pairs),
        "ptr": molecules + 1,
        "rowptr": atoms + 1,
        "atom_rowptr": atoms + 1,
        "site_rowptr": sites + 1,
    }
