"""Ensembles: mean and standard deviation of several potentials on one graph."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.pair_graph import PairGraph
from pyg_schnet.graph.validation import check_data_device, check_molecules
from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials.checkpoint import load
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import Target
from pyg_schnet.potentials.training_domain import TrainingDomain

_FORMAT = 1  # increase it when older versions cannot read new files
_QUANTITIES = ("energy", "forces")


class Ensemble(nn.Module):
    r"""Independently trained potentials: their mean, and their standard deviation from it.

    .. math::
        \bar E = \frac1K \sum_k E_k, \qquad
        \sigma_E^2 = \frac1{K-1} \sum_k (E_k - \bar E)^2, \qquad
        \sigma_{F,i}^2 = \frac1{K-1} \sum_k \| \mathbf F_{ki} - \bar{\mathbf F}_i \|^2

    The mean is itself a conservative force field. Neighbors are searched once, for the largest cutoff.

    Potentials trained on the same structures share errors, so raw deviations are usually too small.
    :func:`~pyg_schnet.potentials.calibration.calibrate` fits the factors that scale them to the size of the
    errors.

    Args:
        potentials: Two or more potentials, of any models, that accept the same elements.
        factors: Factors that multiply the deviations of ``"energy"`` and ``"forces"``; 1 by default.

    Attributes:
        potentials: The potentials, as a ``ModuleList``.
        factors: Factors of the deviations of ``"energy"`` and ``"forces"``.
        is_calibrated: Whether factors were passed.

    Raises:
        ValueError: If there are fewer than two potentials, their elements differ, or a factor is not positive
            or belongs to another quantity.

    Source:
        Sample standard deviations, as in Musil et al., J. Chem. Theory Comput. 15, 906 (2019).

    Example:
        >>> import torch
        >>> water = Data(z=torch.tensor([8, 1, 1]), pos=torch.eye(3))
        >>> out = Ensemble([Potential(SchNet.paper()) for _ in range(3)]).eval()(water)
        >>> sorted(out)
        ['energy', 'energy_deviation', 'forces', 'forces_deviation']
    """

    def __init__(self, potentials: Sequence[Potential], factors: Mapping[str, float] | None = None):
        super().__init__()
        if len(potentials) < 2:
            raise ValueError(f"`potentials` must hold two potentials or more, got {len(potentials)}")
        for number, potential in enumerate(potentials):
            if potential.elements != potentials[0].elements:
                raise ValueError(
                    "`potentials` must accept the same elements; number 0 accepts "
                    f"{potentials[0].elements}, number {number} {potential.elements}"
                )
            if getattr(potential, "properties", ()) != getattr(potentials[0], "properties", ()):
                raise ValueError(
                    "`potentials` must predict the same properties; number 0 predicts "
                    f"{_names(potentials[0])}, number {number} {_names(potential)}"
                )
        for name, factor in (factors or {}).items():
            if name not in _QUANTITIES or not 0 < factor < float("inf"):
                raise ValueError(
                    f"`factors` must be positive numbers for 'energy' and 'forces', got {factor} for {name!r}"
                )
        self.potentials = nn.ModuleList(potentials)
        self.factors = {name: float((factors or {}).get(name, 1.0)) for name in _QUANTITIES}
        self.is_calibrated = factors is not None

    @classmethod
    def load(
        cls,
        paths: Sequence[str | os.PathLike] | str | os.PathLike,
        device: str | torch.device = "cpu",
        make: Callable[[], nn.Module] | None = None,
    ) -> Ensemble:
        """Load an ensemble from checkpoints, as :func:`pyg_schnet.load` loads one potential.

        Args:
            paths: Two checkpoints or more, or one file of :meth:`save`.
            device: Device of the weights.
            make: Function that builds a model for the weights, if they are not those of a SchNet.

        Returns:
            The ensemble, in evaluation mode.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If a file is damaged or of another kind, or a checkpoint has changed since the
                ensemble was saved.
        """
        factors = None
        if isinstance(paths, str | os.PathLike):
            content = _read(Path(paths))
            factors, own = content["factors"], paths
            paths = member_paths(own)
            for path, sha256 in zip(paths, content["sha256"], strict=True):
                if not path.is_file():
                    raise FileNotFoundError(
                        f"{own}: must be moved together with its checkpoints, {path} does not exist"
                    )
                if hash_file(path) != sha256:
                    raise ValueError(
                        f"{path}: must be the checkpoint that was calibrated, got another model; calibrate "
                        "again"
                    )
        return cls([load(path, device, make() if make else None) for path in paths], factors).eval()

    def save(self, path: str | os.PathLike, potentials: Sequence[str | os.PathLike]) -> None:
        """Write a JSON file with the paths of the checkpoints and the factors.

        Commands accept it in place of a checkpoint: ``pyg-schnet md ensemble.json …``.

        Args:
            path: File to write, ``*.json``. Paths of checkpoints are relative to its folder, so move it and
                the checkpoints together.
            potentials: Paths of the checkpoints, in the order of the potentials.

        Raises:
            FileNotFoundError: If a checkpoint does not exist.
            ValueError: If ``path`` does not end in ``.json``, or the number of checkpoints is not that of the
                potentials.
        """
        path = Path(path)
        if not is_ensemble_file(path):
            raise ValueError(f"`path` must end in .json, got {path.name}")
        if len(potentials) != len(self.potentials):
            raise ValueError(
                f"`potentials` must hold the checkpoints of {len(self.potentials)} potentials, got "
                f"{len(potentials)}"
            )
        if missing := next((one for one in potentials if not Path(one).is_file()), None):
            raise FileNotFoundError(f"{missing}: no such checkpoint; pass the paths of existing checkpoints")
        content = {
            "format": _FORMAT,
            "kind": "ensemble",
            "potentials": [os.path.relpath(one, path.absolute().parent) for one in potentials],
            "sha256": [hash_file(one) for one in potentials],
            "factors": self.factors if self.is_calibrated else None,
        }
        with atomic_write(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def compile(self, constant: bool = False) -> Ensemble:
        """Compile each potential in place, see :meth:`Potential.compile <pyg_schnet.Potential.compile>`.

        Args:
            constant: Whether weights that do not require gradients never change.

        Returns:
            The ensemble.
        """
        for potential in self._members:
            potential.compile(constant)
        return self

    @property
    def compiled(self) -> object | None:
        """Compiled form of the first potential; ``None`` if it is not compiled."""
        return self._members[0].compiled

    @property
    def scale(self) -> Tensor:
        """Unit of the output of the first model, in eV, shape ``()``; on the device of the ensemble."""
        return self._members[0].scale

    @property
    def properties(self) -> tuple[Target, ...]:
        """Properties beside the energy, see :class:`~pyg_schnet.Potential`."""
        return getattr(self._members[0], "properties", ())

    @property
    def has_energy(self) -> bool:
        """Whether the potentials predict energies."""
        return getattr(self._members[0], "has_energy", True)

    def require_energy(self) -> None:
        """Raise if the potentials predict no energies, see :meth:`Potential.require_energy`.

        Raises:
            ValueError: If they predict other properties only.
        """
        if not self.has_energy:
            self._members[0].require_energy()

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that all potentials accept."""
        return self._members[0].elements

    @property
    def domain(self) -> TrainingDomain | None:
        """Intersection of the training domains; ``None`` if one is unknown."""
        return TrainingDomain.intersection([potential.domain for potential in self._members])

    @property
    def atomref(self) -> Tensor:
        """Mean energies of isolated atoms in eV by atomic number, shape ``(100,)``."""
        return torch.stack([potential.atomref for potential in self._members]).mean(0)

    @property
    def cutoff(self) -> float:
        """Largest cutoff of the potentials in Å, see :attr:`Potential.cutoff`."""
        return max(potential.cutoff for potential in self._members)

    @property
    def _members(self) -> list[Potential]:
        return cast(list[Potential], list(self.potentials))

    def takes_graph(self, data: Data) -> bool:
        """Return whether :meth:`forward` accepts a ``graph`` of such data.

        Args:
            data: As for :meth:`forward`.
        """
        own = type(self).forward is Ensemble.forward
        return own and all(potential.takes_graph(data) for potential in self._members)

    def forward(
        self, data: Data, forces: bool = True, stress: bool = False, graph: PairGraph | None = None
    ) -> dict[str, Tensor]:
        """Compute mean energies, forces and stresses, and their deviations.

        Args:
            data: Structure or batch, as for :class:`~pyg_schnet.Potential`.
            forces: Whether to compute forces.
            stress: Whether to compute the stress of periodic systems.
            graph: Atoms and pairs of ``data`` within the largest cutoff, as for
                :class:`~pyg_schnet.Potential`.

        Returns:
            ``energy`` and ``energy_deviation``, shape ``(molecules,)``, in eV; ``forces``, shape
            ``(atoms, 3)``, and ``forces_deviation``, shape ``(atoms,)``, in eV/Å; ``stress``, shape
            ``(molecules, 3, 3)``, in eV/Å³. Deviations are multiplied by ``factors``. Each property and its
            deviation, as ``gap`` and ``gap_deviation``, in its unit.
        """
        if graph is None:
            data = self._with_edges(data)
        given = {} if graph is None else {"graph": graph}
        results = [potential(data, forces, stress, **given) for potential in self.potentials]
        members = {name: torch.stack([result[name] for result in results]) for name in results[0]}
        out = {name: values.mean(0) for name, values in members.items()}
        for name in ("energy", *(target.name for target in self.properties)):
            if name in members:
                out[f"{name}_deviation"] = self.factors.get(name, 1.0) * members[name].std(0)
        if "forces" in members:
            square = (members["forces"] - out["forces"]).square().sum(-1).sum(0)
            out["forces_deviation"] = self.factors["forces"] * (square / (len(results) - 1)).sqrt()
        return out

    def _with_edges(self, data: Data) -> Data:
        """Search neighbors once for all models, unless edges are given or a model builds its own."""
        if "edge_index" in data or "z" not in data or data.pos is None:
            return data
        models = [getattr(potential, "model", None) for potential in self._members]
        if not all(isinstance(model, SchNet) and model.interaction_graph is None for model in models):
            return data
        check_data_device(data.to_dict(), self.scale.device)
        batch, _ = check_molecules(data.z, data.pos, getattr(data, "batch", None), None)
        cutoffs = [cast(SchNet, model).config.cutoff for model in models]
        reach = float("inf") if None in cutoffs else max(cast(list[float], cutoffs))
        cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
        if reach == float("inf") and pbc is not None and bool(torch.as_tensor(pbc).any()):
            return data  # the potentials reject it
        edge_index, shift = neighbor_list(data.pos, reach, batch, cell, pbc)
        data = copy(data)
        data.edge_index = edge_index
        if cell is not None and pbc is not None:
            data.shift = shift
        return data


def _names(potential: Potential) -> str:
    return ", ".join(target.name for target in potential.properties) or "none"


def is_ensemble_file(path: str | os.PathLike) -> bool:
    """Return whether a path is a file of :meth:`Ensemble.save`, not a checkpoint, by its ending."""
    return Path(path).suffix == ".json"


def member_paths(path: str | os.PathLike) -> list[Path]:
    """Read the paths of the checkpoints from a file of :meth:`Ensemble.save`."""
    return [Path(path).parent / name for name in _read(Path(path))["potentials"]]


def _read(path: Path) -> dict[str, Any]:
    """Read and validate a file of :meth:`Ensemble.save`."""
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise ValueError(f"{path}: must be a file, got a folder, pipe or device")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("kind") != "ensemble":
        raise ValueError(
            f"{path}: must be the file of an ensemble, got another one; "
            "`pyg-schnet evaluate A,B,C FILE --calibrate` writes it"
        )
    form = content.get("format")
    if isinstance(form, int) and form > _FORMAT:
        raise ValueError(f"{path}: has format {form}, this pyg_schnet reads up to {_FORMAT}; upgrade it")
    names, hashes, factors = (content.setdefault(key) for key in ("potentials", "sha256", "factors"))
    if not (
        isinstance(names, list)
        and isinstance(hashes, list)
        and len(names) == len(hashes)
        and all(isinstance(name, str) and "\0" not in name for name in names)
        and (factors is None or isinstance(factors, dict))
        and all(type(factor) in (int, float) for factor in (factors or {}).values())
    ):
        raise ValueError(f"{path}: is damaged; write it again with `pyg-schnet evaluate … --calibrate`")
    return content
