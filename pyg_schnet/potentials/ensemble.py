"""Ensembles: several potentials on one graph, their mean and how far they disagree."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import check_molecules
from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials.checkpoint import load
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.training_domain import TrainingDomain

_FORMAT = 1  # of the file; raise it when an older pyg_schnet could not read it
_QUANTITIES = ("energy", "forces")


class Ensemble(nn.Module):
    r"""The mean of potentials that were trained apart, and their deviation from it.

    .. math::
        \bar E = \frac1K \sum_k E_k, \qquad
        \sigma_E^2 = \frac1{K-1} \sum_k (E_k - \bar E)^2, \qquad
        \sigma_{F,i}^2 = \frac1{K-1} \sum_k \| \mathbf F_{ki} - \bar{\mathbf F}_i \|^2

    The mean is itself a conservative force field. Neighbors are searched once, for the largest cutoff.

    Potentials trained on the same structures agree on their common errors: raw deviations are usually too
    small. :func:`~pyg_schnet.potentials.calibration.calibrate` finds the factors
    that make them as large as errors are.

    Args:
        potentials: Two or more, of any models, that accept the same elements.
        factors: What the deviations of ``"energy"`` and ``"forces"`` are multiplied by; 1 by default.

    Raises:
        ValueError: If there are fewer than two, their elements differ, or a factor is not positive or of
            something else.

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
            raise ValueError(f"`potentials` must be two or more, to disagree; got {len(potentials)}")
        for number, potential in enumerate(potentials):
            if potential.elements != potentials[0].elements:
                raise ValueError(
                    "`potentials` must accept the same elements; number 0 accepts "
                    f"{potentials[0].elements}, number {number} {potential.elements}"
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
        """Read potentials, as :func:`pyg_schnet.load` reads one.

        Args:
            paths: Files written by ``pyg-schnet train``, two or more; or the one that :meth:`save` wrote.
            device: Where the weights go.
            make: Makes a model that gets the weights, where they are not those of a SchNet.

        Returns:
            The ensemble, in evaluation mode.

        Raises:
            ValueError: If a file is not what is expected, or a checkpoint is another one than when the
                ensemble was saved.
        """
        factors = None
        if isinstance(paths, str | os.PathLike):
            content = _read(Path(paths))
            factors = content.get("factors")
            own = Path(paths)
            paths = [own.parent / name for name in content["potentials"]]
            if missing := next((path for path in paths if not path.is_file()), None):
                raise FileNotFoundError(f"{own}: names {missing}, which is no checkpoint; move both together")
            for path, sha256 in zip(paths, content["sha256"], strict=True):
                if _hash(path) != sha256:
                    raise ValueError(
                        f"{path}: is another model than the one that was calibrated; calibrate again"
                    )
        return cls([load(path, device, make() if make else None) for path in paths], factors).eval()

    def save(self, path: str | os.PathLike, potentials: Sequence[str | os.PathLike]) -> None:
        """Write a file that names the potentials' checkpoints and holds the factors.

        It may be given wherever a checkpoint is asked for, as ``pyg-schnet md ensemble.json …``.

        Args:
            path: Where to, ``*.json``. Checkpoints are named relative to its folder: move them together.
            potentials: The checkpoints, in the order of the potentials.

        Raises:
            ValueError: If ``path`` ends otherwise, or there are more or fewer checkpoints than potentials.
        """
        path = Path(path)
        if not is_ensemble_file(path):
            raise ValueError(f"`path` must end in .json, got {path.name}")
        if len(potentials) != len(self.potentials):
            raise ValueError(
                f"`potentials` must be the checkpoints of {len(self.potentials)} potentials, got "
                f"{len(potentials)}"
            )
        content = {
            "format": _FORMAT,
            "kind": "ensemble",
            "potentials": [os.path.relpath(one, path.absolute().parent) for one in potentials],
            "sha256": [_hash(one) for one in potentials],
            "factors": self.factors if self.is_calibrated else None,
        }
        with atomic_write(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def compile(self, constant: bool = False) -> Ensemble:
        """Compile each potential, see :meth:`Potential.compile <pyg_schnet.Potential.compile>`."""
        for potential in self.potentials:
            cast(Potential, potential).compile(constant)
        return self

    @property
    def compiled(self) -> object | None:
        """What the first potential tells of its programs; ``None`` without."""
        return self._first.compiled

    @property
    def scale(self) -> Tensor:
        """Unit of the first model's output, in eV; on the device of all."""
        return self._first.scale

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that all of them accept."""
        return self._first.elements

    @property
    def domain(self) -> TrainingDomain | None:
        """What all of them were trained on; ``None`` if it is not known of one."""
        return TrainingDomain.intersection(
            [cast(Potential, potential).domain for potential in self.potentials]
        )

    @property
    def atomref(self) -> Tensor:
        """Energies of isolated atoms in eV by atomic number, ``(100,)``: the mean."""
        return torch.stack([cast(Potential, potential).atomref for potential in self.potentials]).mean(0)

    @property
    def cutoff(self) -> float:
        """The largest of theirs, see :attr:`Potential.cutoff`."""
        return max(cast(Potential, member).cutoff for member in self.potentials)

    @property
    def _first(self) -> Potential:
        return cast(Potential, self.potentials[0])

    def forward(self, data: Data, forces: bool = True, stress: bool = False) -> dict[str, Tensor]:
        """Compute mean energies, forces and stresses, and deviations.

        Args:
            data: As for :class:`~pyg_schnet.Potential`.
            forces: Whether forces are wanted.
            stress: Whether the stress of periodic systems is wanted.

        Returns:
            ``energy (molecules,)`` and ``energy_deviation (molecules,)`` in eV; ``forces (atoms, 3)`` and
            ``forces_deviation (atoms,)`` in eV/Å; ``stress (molecules, 3, 3)`` in eV/Å³. Deviations are raw
            unless the ensemble ``is_calibrated``.
        """
        data = self._with_edges(data)
        results = [potential(data, forces, stress) for potential in self.potentials]
        found = {name: torch.stack([result[name] for result in results]) for name in results[0]}
        out = {name: values.mean(0) for name, values in found.items()}
        out["energy_deviation"] = self.factors["energy"] * found["energy"].std(0)
        if forces:
            square = (found["forces"] - out["forces"]).square().sum(-1).sum(0)
            out["forces_deviation"] = self.factors["forces"] * (square / (len(results) - 1)).sqrt()
        return out

    def _with_edges(self, data: Data) -> Data:
        """Search neighbors once for all, unless they are given or a model finds its own."""
        models = [cast(Potential, potential).model for potential in self.potentials]
        if "edge_index" in data or "z" not in data or data.pos is None:
            return data
        if not all(isinstance(model, SchNet) and model.interaction_graph is None for model in models):
            return data
        batch, _ = check_molecules(data.z, data.pos, getattr(data, "batch", None), None)
        cutoffs = [cast(SchNet, model).config.cutoff for model in models]
        reach = float("inf") if None in cutoffs else max(cast(list[float], cutoffs))
        cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
        if reach == float("inf") and pbc is not None and bool(torch.as_tensor(pbc).any()):
            return data  # which the potentials refuse
        edge_index, shift = neighbor_list(data.pos, reach, batch, cell, pbc)
        data = copy(data)
        data.edge_index = edge_index
        if cell is not None and pbc is not None:
            data.shift = shift
        return data


def is_ensemble_file(path: str | os.PathLike) -> bool:
    """Tell a file of :meth:`Ensemble.save` from a checkpoint, by its ending."""
    return Path(path).suffix == ".json"


def members(path: str | os.PathLike) -> list[Path]:
    """Read which checkpoints an ensemble is of, from a file of :meth:`Ensemble.save`."""
    return [Path(path).parent / name for name in _read(Path(path))["potentials"]]


def _read(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # a pipe would never end
        raise ValueError(f"{path}: must be a file, got a folder, pipe or device")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("kind") != "ensemble":
        raise ValueError(
            f"{path}: is not an ensemble; `pyg-schnet evaluate A,B,C FILE --calibrate` writes one"
        )
    form = content.get("format")
    if isinstance(form, int) and form > _FORMAT:
        raise ValueError(f"{path}: has format {form}, this pyg_schnet reads {_FORMAT}; update it")
    names, sums, factors = (content.get(key) for key in ("potentials", "sha256", "factors"))
    right = factors is None or (isinstance(factors, dict) and all(map(_is_number, factors.values())))
    if not (_are_texts(names) and _are_texts(sums) and len(names) == len(sums) and right):
        raise ValueError(f"{path}: is damaged; calibrate again, which writes it")
    return content


def _are_texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) and "\0" not in value for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _hash(path: str | os.PathLike) -> str:
    if not Path(path).is_file():  # a device would never end
        raise FileNotFoundError(
            f"{path}: no such checkpoint; give the folder of its ensemble as it was written"
        )
    return hash_file(path)
