"""What a program takes beside weights: a batch whose pairs and knots are known."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.storage import GlobalStorage

from pyg_schnet.graph.images import Images, find_images
from pyg_schnet.graph.neighbors import neighbor_list, radius_graph
from pyg_schnet.graph.ordering import in_spatial_order
from pyg_schnet.graph.strain import per_volume, volumes
from pyg_schnet.graph.validation import (
    check_edges,
    check_elements,
    check_molecules,
    check_positions,
    is_periodic,
    molecules_of,
)
from pyg_schnet.kernels import pair_distances, positions_only, prepare, weights_are_frozen
from pyg_schnet.nn.filter_table import KnotFeatures, Knots

if TYPE_CHECKING:
    from pyg_schnet.nn import SchNet
    from pyg_schnet.potentials.potential import Potential

_ATOMS_TO_COMPARE = 2000  # in all; more of one molecule take longer than a search by cells


@dataclass(frozen=True)
class Inputs:
    """What a program needs beside weights: a batch whose geometry is known.

    Attributes:
        data: The batch, with its atoms in the order of the others.
        z: Atomic numbers, ``(atoms,)``.
        pos: Positions in Å of atoms, ``(atoms, 3)``; of sites, ``(sites, 3)``, where there are images.
        batch: Number of the molecule of each atom, ``(atoms,)``.
        pairs: ``(2, pairs)``.
        molecules: Number of molecules.
        knots: Of the filters' splines.
        images: Of periodic systems; ``pairs`` are theirs.
        order: Number of each atom in the caller's batch, where that has another order.
        finish: Turns a program's results, with forces on sites, into those of the potential.
    """

    data: Data
    z: Tensor
    pos: Tensor
    batch: Tensor
    pairs: Tensor
    molecules: int
    knots: Knots
    images: Images | None = None
    order: Tensor | None = None
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda results: results

    def values(self) -> tuple[Any, ...]:
        """Give them in the order of a program's arguments."""
        knots = self.knots
        envelope = () if knots.envelope is None else (knots.envelope,)
        images = () if self.images is None else (self.images.places, self.images.atom)
        place = (knots.start, knots.features, *envelope, *images)
        return (self.z, self.pos, self.batch, self.pairs, self.molecules, *place)

    def tensors(self) -> list[Tensor]:
        """Give the tensors among them, contiguous."""
        knots = self.knots
        tensors = [self.z, self.pos, self.batch, self.pairs, knots.features]
        tensors += [] if knots.envelope is None else [knots.envelope]
        tensors += [] if self.images is None else [self.images.places, self.images.atom]
        return [tensor.contiguous() for tensor in tensors]

    def sizes(self) -> tuple[int, ...]:
        """Give the extents in the order of a machine's symbols."""
        sites = 0 if self.images is None else len(self.pos)
        return (0, len(self.z), self.pairs.size(1), *self.knots.features.shape, self.molecules, sites)


def find_inputs(
    potential: Potential, features: KnotFeatures, data: Data, forces: bool, stress: bool
) -> Inputs | None:
    """Check a batch, and find its pairs and knots.

    Args:
        potential: A potential of a SchNet.
        features: Of the model's knots.
        data: As its ``forward`` takes it.
        forces: Whether forces are wanted.
        stress: Whether stresses are wanted.

    Returns:
        ``None`` for calls that have no program, wrong input included: eager tells what is wrong.
    """
    # Not by attributes of Data, each of which takes a hundredth of the time of one small molecule.
    fields = data._store._mapping if type(data._store) is GlobalStorage else data.to_dict()
    z, pos, batch, edge_index = (
        cast(Tensor, fields.get(name)) for name in ("z", "pos", "batch", "edge_index")
    )
    periodic = is_periodic(fields.get("pbc"))
    if (
        torch.compiler.is_compiling()
        or ((forces or stress) and torch.is_inference_mode_enabled())
        or torch.is_autocast_enabled("cpu")
        or not _are_plain(z, pos, batch, edge_index)
        or (fields.get("shift") is not None) != (periodic and edge_index is not None)
        or (stress and not periodic)
    ):
        return None
    try:
        with nullcontext() if potential.training else positions_only():
            if periodic:
                return _of_crystals(potential, features, data, forces, stress)
            return _of_molecules(potential, features, data, z, pos, batch, edge_index)
    except ValueError:
        return None


def _are_plain(z: Any, pos: Any, batch: Any, edge_index: Any) -> bool:
    """Whether these are tensors that need no further questions."""
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


def _of_molecules(
    potential: Potential,
    features: KnotFeatures,
    data: Data,
    z: Tensor,
    pos: Tensor,
    batch: Tensor | None,
    edge_index: Tensor | None,
) -> Inputs | None:
    """Check elements and batch, and find pairs and their shortest and longest distance, in one step."""
    model = cast("SchNet", potential.model)
    if model.interaction_graph is not None or model.max_num_neighbors is not None:
        return None
    data, order = in_spatial_order(data, model)
    if order is not None:
        z, pos = cast(Tensor, data.z), cast(Tensor, data.pos)
    cutoff = features.cutoff
    if edge_index is None and cutoff is not None and len(pos) > _ATOMS_TO_COMPARE:
        edge_index = radius_graph(pos, cutoff, batch)  # by cells, where comparing all pairs takes longer
    found = prepare(z, potential.allowed, pos, batch, cutoff, edge_index)
    knots = None if found is None else _knots(model, features, *found[1:])
    if found is None or knots is None:
        return None
    batch, molecules = (torch.zeros_like(z), 1) if batch is None else molecules_of(data)
    if int(batch[-1]) >= molecules:
        return None
    return Inputs(data, z, pos, batch, found[0], molecules, knots, order=order)


def _of_crystals(
    potential: Potential, features: KnotFeatures, data: Data, forces: bool, stress: bool
) -> Inputs | None:
    """Turn periodic systems into sites: their atoms, and the images that these see."""
    model, z, pos = cast("SchNet", potential.model), cast(Tensor, data.z), cast(Tensor, data.pos)
    cell, cutoff = getattr(data, "cell", None), features.cutoff
    if cell is None or cell.requires_grad or len(z) == 0:
        return None
    if cutoff is None or model.interaction_graph is not None or model.max_num_neighbors is not None:
        return None
    if model.config.dipole:
        return None  # which reads positions of atoms
    batch, molecules = molecules_of(data)
    if int(batch[-1]) >= molecules:
        return None
    check_molecules(z, pos, batch, molecules)
    check_elements(z, potential.allowed)
    images = _images_of(data, cutoff, batch)
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
        knots = _knots(model, features, low, high)
    if knots is None:
        return None
    inputs = Inputs(data, z, sites, batch, images.pairs, molecules, knots, images)
    volume = volumes(data, molecules) if stress else None
    return replace(inputs, finish=functools.partial(_from_sites, inputs, volume, forces))


def _knots(model: SchNet, features: KnotFeatures, low: float, high: float) -> Knots | None:
    """Place knots around distances of which only the shortest and the longest are known yet, in Å."""
    return features.between(low, high, model.embedding.weight.detach(), weights_are_frozen())


def _images_of(data: Data, cutoff: float, batch: Tensor) -> Images | None:
    """Find the pairs of periodic systems, unless they are given; ``None`` if some have no reverse."""
    images, pos = getattr(data, "images", None), cast(Tensor, data.pos)
    if isinstance(images, Images) and len(images.atom) >= len(pos):
        return images
    edge_index, shift = data.edge_index, getattr(data, "shift", None)
    if edge_index is None:
        edge_index, shift = neighbor_list(pos, cutoff, batch, data.cell, data.pbc)
    else:
        check_positions(pos, batch)
        check_edges(edge_index, batch)
    return find_images(edge_index, cast(Tensor, shift), batch)


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
