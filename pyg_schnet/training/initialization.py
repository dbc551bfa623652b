"""Fine-tuning: a run that starts from the weights of another model, and weights that stay as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from ase.data import chemical_symbols
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.references import Compositions, References
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.loader import collate
from pyg_schnet.migration.weight_file import read_weights
from pyg_schnet.nn import SchNet, SchNetConfig
from pyg_schnet.nn.readout import Readout
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.model_files import resolve_models
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.potentials.targets import ENERGY, Target
from pyg_schnet.training.readout_transfer import compare_targets, copy_body, copy_readouts, properties_of

LEARNING_RATE = 5e-4  # a quarter of the default
_HASH = "#sha256="
_OF_READOUT = ("readout", "dipole", "mean", "std", "zero_output")  # options of the architecture
_BATCH = 64  # structures whose energies are predicted together
_MAX_SLOPE = 1e4  # of labels over predictions: no two units of energy in use differ by more


@dataclass(frozen=True)
class Initialization:
    """A trained model, from which a run starts.

    Attributes:
        potential: The model, with scale and references outside of its network.
        path: Its file.
        sha256: SHA-256 of the file.
        provenance: Origin that the file states.
        is_own: Whether it is a checkpoint of pyg_schnet, with energies in eV, elements and references.
        elements: Atomic numbers that it was trained on, all for other files.
    """

    potential: Potential
    path: str
    sha256: str
    provenance: Mapping[str, Any]
    is_own: bool
    elements: tuple[int, ...]

    @property
    def config(self) -> SchNetConfig:
        """Architecture of the model."""
        return cast(SchNet, self.potential.model).config

    def new_elements(self, train: AtomsDataset) -> list[int]:
        """Return the elements of the data that the model was not trained on; none if that is unknown."""
        return [z for z in train.elements() if z not in self.elements]

    def check(self, model: SchNetConfig, has_energy: bool = True) -> None:
        """Raise if an architecture differs from that of the model.

        Args:
            model: The architecture.
            has_energy: Whether energies are learned; their readout matters only if the model has one, too.

        Raises:
            ValueError: With the first option that differs.
        """
        ignored = ("filters",) if has_energy and self.potential.has_energy else ("filters", *_OF_READOUT)
        for name, value in asdict(self.config).items():
            if name not in ignored and (given := getattr(model, name)) != value:
                raise ValueError(
                    f"`model.{name}` must be {value!r} as in the model of `init`, {self.path}, got "
                    f"{given!r}; leave the option out"
                )

    def kept_references(self, train: AtomsDataset) -> References:
        """Return the references of the model for the elements of the data.

        Raises:
            ValueError: If the model has none, or none for an element.
        """
        if not self.is_own:
            raise ValueError(
                "`data.references` must be 'fit' or energies by element for an `init` of another package, "
                "whose unit of energy its file does not state, got 'keep'"
            )
        if not self.potential.has_energy:
            raise ValueError(
                f"`data.references` must not be 'keep' for an `init` without energies, {self.path}; leave "
                "the option out"
            )
        if new := self.new_elements(train):
            raise ValueError(
                f"`data.references` must not be 'keep' for data with {chemical_symbols[new[0]]}, which "
                f"{self.path} was not trained on; leave the option out"
            )
        elements = tuple(train.elements())
        energy = torch.zeros_like(self.potential.atomref)
        energy[list(elements)] = self.potential.atomref[list(elements)]
        return References(energy, None, elements, is_given=True)

    def readouts(self, targets: Sequence[Target]) -> dict[str, list[str]]:
        """Return the names of targets whose readouts are taken over, are new, or are left out.

        Args:
            targets: What the run learns.
        """
        own = (*([ENERGY] if self.potential.has_energy else []), *self.potential.properties)
        return compare_targets(own, targets)

    def build(
        self,
        train: AtomsDataset,
        references: References,
        keep: bool,
        seed: int,
        fresh: Potential | None = None,
    ) -> Potential:
        """Build the potential to train: the model's weights and scale, and references for the data.

        Args:
            train: Training structures.
            references: References of the data. Those of isolated atoms get the mean residual of the model
                added; fitted ones are replaced by the model's plus a fit to its residuals, so that the
                network keeps what it knows of differences in energy.
            keep: Use ``references`` unchanged.
            seed: Seed of the embeddings of new elements.
            fresh: Potential with new weights for what the run learns, if that is more or less than energies.
                Its readouts are fitted to the data and stay, but for those that are taken over.
        """
        potential = self.potential
        new = self.new_elements(train)
        embedding = cast(SchNet, potential.model).embedding.weight
        with torch.no_grad():
            drawn = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(seed))
            embedding[new] = drawn[new].to(embedding.dtype)
        potential.allowed[:] = False
        potential.allowed[train.elements()] = True
        if fresh is not None:
            copy_readouts(potential, fresh, new)
            if not (potential.has_energy and fresh.has_energy):
                copy_body(potential, fresh)
                return fresh
        if not self.is_own:
            potential.scale.mul_(_slope(potential, train))
        if not keep:
            if references.is_given:
                potential.atomref.zero_()
            before = potential.atomref.clone()
            residuals = _residuals(potential, train)
            if references.is_given:
                base = replace(
                    references, shift=0.0, energy=references.energy - references.shift * _mask(references)
                )
                references = base.with_mean_residual(residuals)
            else:
                fitted = References.fit(residuals)
                references = replace(fitted, energy=(before + fitted.energy) * _mask(fitted))
        properties = None if fresh is None else properties_of(fresh)
        scale = float(potential.scale)
        return Potential(potential.model, scale, references.energy, references.elements, properties)


def _mask(references: References) -> Tensor:
    mask = torch.zeros_like(references.energy)
    mask[list(references.elements)] = 1.0
    return mask


def split_hash(init: str) -> tuple[str, str]:
    """Return path and SHA-256 of ``init``, in the form ``PATH#sha256=…`` of a run's configuration.

    Args:
        init: Name, path or address of a model; the hash is ``""`` if it has none.
    """
    path, _, digits = init.partition(_HASH)
    return (init, "") if init.startswith(("https://", "http://", "hf:")) else (path, digits)


def with_hash(init: str) -> str:
    """Return the absolute path of a model's file with its SHA-256, ``PATH#sha256=…``."""
    if split_hash(init)[1]:
        return init
    path = _find(init)
    return f"{os.path.abspath(path)}{_HASH}{hash_file(path)}"


def options_beside(init: str | None, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run that follow from the model to start from, by their dotted names.

    Args:
        init: Model that is given beside the recipe, whose architecture and learning rate it replaces.
        recipe: Options of the recipe. Those beside an ``init`` of its own stay.
    """
    own = recipe.get("init") if init is None else init
    if own is None or split_hash(own)[1]:  # the configuration of a run is complete, its init may be gone
        return {} if init is None else {"init": own}
    config = read_initialization(own).config
    options = {f"model.{name}": value for name, value in asdict(config).items()}
    if config.readout is None:  # of a model without energies
        del options["model.readout"]
    options |= {"init": with_hash(own), "trainer.lr": LEARNING_RATE}
    return {k: value for k, value in options.items() if k == "init" or init is not None or k not in recipe}


def read_initialization(init: str) -> Initialization:
    """Read a model to start from.

    Args:
        init: A checkpoint, a run, the name of a pretrained model, or a weight file of PyG's or SchNetPack's
            SchNet; with ``#sha256=…``, the file must have this hash.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it is no SchNet, or if the file has another hash.
    """
    name, expected = split_hash(init)
    path = _find(name)
    sha256 = hash_file(path)
    if expected and sha256 != expected:
        raise ValueError(
            f"{path}: must be the file that `init` names, with the SHA-256 {expected[:12]}…, got "
            f"{sha256[:12]}…; pass the path alone to start from this file"
        )
    is_own = _is_checkpoint(path)
    if is_own:
        potential, origin = checkpoint.load(path), checkpoint.provenance(path)
        if not isinstance(potential.model, SchNet):
            raise ValueError(f"{path}: must hold a SchNet to start from, got another model")
    else:
        potential, origin = Potential(_read_foreign(path)), {}
    potential = _without_statistics(potential)
    return Initialization(potential, path, sha256, origin, is_own, tuple(potential.elements))


def freeze(
    model: nn.Module, patterns: Sequence[str], properties: Mapping[Target, Readout] | None = None
) -> list[str]:
    """Exclude weights from the training.

    Args:
        model: The network.
        patterns: Names of weights or of modules, with ``*`` for any text, such as ``interactions.0.*``.
        properties: Readouts of properties, whose weights are named ``heads.gap.network.…``.

    Returns:
        Names of the weights.

    Raises:
        ValueError: If a pattern matches nothing, or nothing is left to train.
    """
    names = dict(model.named_parameters())
    for target, head in (properties or {}).items():
        names |= head.named_parameters(prefix=f"heads.{target.name}")
    frozen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not found:
            modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
            raise ValueError(
                f"`trainer.freeze` must be patterns of weights, got {pattern!r}, which matches none of "
                f"{', '.join(modules)}"
            )
        frozen |= dict.fromkeys(found)
    if len(frozen) == len(names):
        raise ValueError(f"`trainer.freeze` must leave weights to train, got {', '.join(patterns)}")
    for name in frozen:
        names[name].requires_grad_(False)
    return list(frozen)


def _find(init: str) -> str:
    paths = resolve_models(init, "init")
    if len(paths) != 1:
        raise ValueError(f"`init` must name one model, got {len(paths)}")
    return paths[0]


def _is_checkpoint(path: str) -> bool:
    """Return whether a file is a checkpoint of pyg_schnet; loading reports what is wrong with others."""
    if not os.path.isfile(path):
        return path.endswith(".safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            return "pyg_schnet" in (file.metadata() or {})
    except SafetensorError:
        return path.endswith(".safetensors")


def _read_foreign(path: str) -> SchNet:
    """Read a weight file of PyG's or of SchNetPack's SchNet."""
    names = read_weights(path).weights
    if any("representation." in name for name in names):
        return SchNet.from_schnetpack(path)
    return SchNet.from_pyg(path)


def _without_statistics(potential: Potential) -> Potential:
    """Move mean, standard deviation and references of atoms from the network to the potential."""
    model = cast(SchNet, potential.model)
    if model.readout is None:
        return potential
    table = getattr(model.readout, "atomref", None)
    has_table = table is not None and bool(table.any())
    if model.config.mean is None and model.config.std is None and not has_table:
        return potential
    built = SchNet(**asdict(replace(model.config, mean=None, std=None)))
    built.to(model.embedding.weight.dtype)
    buffers = {f"readout.{name}" for name, _ in cast(nn.Module, built.readout).named_buffers(recurse=False)}
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in buffers}
    built.load_state_dict(
        {**built.state_dict(), **{n: t for n, t in state.items() if n in built.state_dict()}}
    )
    atomref = potential.atomref + potential.scale * (model.config.mean or 0.0)
    if has_table:
        atomref = atomref + potential.scale * cast(Tensor, table).double()
    std = 1.0 if model.config.std is None else model.config.std
    scale, properties = float(potential.scale) * std, properties_of(potential)
    return Potential(built, scale, atomref, potential.elements, properties)


def _slope(potential: Potential, train: AtomsDataset) -> float:
    """Return the factor between labels and predictions, which another unit of energy causes."""
    predicted, labels = [], []
    for batch in _batches(train):
        out = potential(batch, forces=train.has_forces)
        if train.has_forces:
            predicted.append(out["forces"].detach().double().flatten())
            labels.append(batch.forces.double().flatten())
        else:
            sizes = batch.ptr.diff()
            predicted.append(out["energy"].detach() / sizes)
            labels.append(batch.energy / sizes)
    x, y = torch.cat(predicted), torch.cat(labels)
    if not train.has_forces:
        x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / (x * x).sum())
    return slope if 1 / _MAX_SLOPE < slope < _MAX_SLOPE else 1.0


def _residuals(potential: Potential, train: AtomsDataset) -> Compositions:
    """Return the compositions of structures with labels minus predictions as energies."""
    parts = []
    with torch.no_grad():
        for batch in _batches(train):
            residual = batch.energy.double() - potential(batch, forces=False)["energy"]
            parts.append(Compositions.of(batch.z, cast(Tensor, batch.batch), residual))
    total = parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    return total


def _batches(train: AtomsDataset):
    """Yield all structures in batches."""
    for ids in torch.arange(len(train)).split(_BATCH):
        yield collate(train, ids.tolist())
