"""Configuration of a training run: read from a recipe, written into the run's directory."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials.targets import Target, parse_targets

_MAX_SEED = 2**48  # of either sign; epochs are added to it
_MAX_VALUES = {
    "batch_size": 2**20,
    "batch_edges": 2**40,
    "threads": 2**10,
    "devices": 2**10,
    "num_nodes": 2**14,
}
_CHOICES = {
    "schedule": ("cosine", "exponential", "constant"),
    "optimizer": ("soap", "adam"),
    "loss": ("squared", "absolute"),
    "precision": ("float32", "float64"),
    "data_device": ("auto", "cpu", "cuda"),
    "loggers": ("tensorboard", "wandb"),
    "strategy": ("auto", "ddp"),
}


@dataclass(frozen=True)
class DataConfig:
    """Structures and labels to train on.

    Attributes:
        path: File, folder or list of files with structures and energies (and forces): npz, HDF5, any format
            that ASE reads, or a processed data set (.safetensors).
        val_path: The same for validation; by default validation structures are split off from path.
        targets: What to learn, by one network with a readout each: "energy" (with forces and stresses), and
            keys of other numbers of structures or atoms, as gap, or {name: gap, kind: intensive, unit: eV,
            weight: 1}. kind is extensive, intensive, dipole, spatial_extent or atomic; known names need none.
        energy_key: Key of the energies in the file; detected by default.
        forces_key: Key of the forces; by default those that belong to the energies, "none" for no forces.
        stress_key: Key of the stresses or virials; by default those that belong to the energies, "none" for
            no stresses.
        units: Units of the file, such as "kcal/mol", "Hartree, Bohr" or, with a separate unit of forces,
            "Hartree, Hartree/Bohr"; by default those that the file states or its layout implies.
        n_train: Number of training structures; by default all that remain after validation.
        n_val: Number of validation structures; by default all of val_path, or a tenth of path (at most
            1,000).
        seed: Seed of the random split.
        split: "random", the name of a published split of a processed data set, or an npz file with the
            arrays train, val and test.
        references: Atomic reference energies: "fit", energies of the isolated atoms in eV by element,
            published ones such as "qm9:U0", or "keep" for those of init. "fit" uses the energies of isolated
            atoms in the data, and fits them if one is missing; with init, the fit is to the differences
            between labels and its energies. For given references, the mean residual of the training
            structures, in eV per atom, is added, so that the predicted energy of an isolated atom differs
            from its reference.
        root: Folder for a processed copy of the data, which is then read only once; none by default.
        memory_map: Keep the structures on disk, for data sets larger than the memory; needs root or a
            .safetensors file.

    Raises:
        ValueError: If an option is out of range, or two exclude each other.
    """

    path: str | list[str]
    val_path: str | None = None
    targets: list[str | dict[str, Any]] = field(default_factory=lambda: ["energy"])
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    units: str | None = None
    n_train: int | None = None
    n_val: int | None = None
    seed: int = 0
    split: str = "random"
    references: str | dict[str, float] = "fit"
    root: str | None = None
    memory_map: bool = False

    def __post_init__(self) -> None:
        _check_seed("data.seed", self.seed)
        parse_targets(self.targets)
        if not self.has_energy and (self.energy_key or self.forces_key or self.stress_key):
            raise ValueError(
                "`data.energy_key`, `data.forces_key` and `data.stress_key` must not be given without energy "
                f"among `data.targets`, got {self.targets}; leave them out, or add energy"
            )
        if self.split != "random" and (self.n_train is not None or self.n_val is not None):
            raise ValueError(
                "`data.n_train` and `data.n_val` must not be given with a `data.split` that is not random, "
                f"got {self.split!r}; such a split defines its own sizes"
            )

    @property
    def has_energy(self) -> bool:
        """Whether energies are learned."""
        return any(target.is_energy for target in parse_targets(self.targets))

    @property
    def properties(self) -> tuple[Target, ...]:
        """Targets beside the energy."""
        return tuple(target for target in parse_targets(self.targets) if not target.is_energy)


@dataclass(frozen=True)
class TrainerConfig:
    """Optimization, schedule and execution of the training.

    Attributes:
        max_steps: Number of optimizer steps, over which the learning rate is scheduled.
        max_minutes: Time limit in minutes. The schedule then follows the clock if time runs out first, so
            that the learning rate still reaches its end; such a run is not reproducible bit by bit.
        batch_size: Structures per step, summed over all processes.
        batch_edges: Edges per step, at most: batches are filled up to this number whatever the sizes of the
            structures, and batch_size is ignored. For data sets that mix small and large structures.
        optimizer: "soap" (Vyas et al. 2024), which needs far fewer steps, or "adam", as in the paper.
        lr: Initial learning rate.
        schedule: "cosine" to zero, "exponential" (the paper's stepwise decay) or "constant".
        decay_factor: Factor by which the exponential schedule multiplies the learning rate.
        decay_steps: Steps between two decays of the exponential schedule.
        warmup_steps: Steps of linear warm-up at the start.
        ema_decay: Decay per step of the exponential moving average of the weights, which is validated and
            kept.
        weight_decay: Decoupled weight decay (AdamW's): each step multiplies all weights by 1 minus this times
            the learning rate.
        energy_weight: Weight ρ of the energies in the loss, equation (5) of the paper; by default 0.01 with
            forces and 1 without.
        stress_weight: Weight of the errors of stress times volume per atom (in eV) in the loss.
        loss: "squared" errors as in the paper, or "absolute" ones; also used in validation, which selects
            the best weights.
        clip_norm: Largest norm of the gradient; not clipped by default.
        val_every: Steps between validations, each of which writes a checkpoint.
        save_minutes: Minutes between checkpoints if validations are rarer.
        patience: Stop after this number of validations without improvement; never by default.
        seed: Seed of the initial weights and of the order of the batches.
        freeze: Weights that are not trained: names of weights or modules, with * for any text, such as
            ["embedding", "interactions.0.*"].
        precision: Precision of the network, "float32" or "float64"; labels and energies are always float64.
        threads: CPU threads per process; by default the fastest number, found by timing a few steps at the
            start. In compiled runs the weights do not depend on it.
        compile: Run compiled kernels instead of single PyTorch operations, which is several times faster:
            "auto" if there are enough steps that this saves time, true, or false. On GPUs, steps are
            captured as CUDA graphs, too, unless it is false.
        data_device: Where the training structures and their pairs are kept: "cuda", "cpu", or "auto", on the
            GPU of the run if they fit into a third of its free memory. Runs on the CPU collate their batches
            at each step by default, and cut them from stored pairs with "cpu".
        loggers: Where metrics go besides metrics.csv: "tensorboard", "wandb" (Weights & Biases, configured by
            its environment variables), a list of them, or [].

    Raises:
        ValueError: If an option is out of range.
    """

    max_steps: int = 50_000
    max_minutes: float | None = None
    batch_size: int = 32
    batch_edges: int | None = None
    optimizer: str = "soap"
    lr: float = 2e-3
    schedule: str = "cosine"
    decay_factor: float = 0.96
    decay_steps: int = 100_000
    warmup_steps: int = 0
    ema_decay: float = 0.99
    weight_decay: float = 0.0
    energy_weight: float | None = None
    stress_weight: float = 1.0
    loss: str = "squared"
    clip_norm: float | None = None
    val_every: int = 1000
    save_minutes: float = 10.0
    patience: int | None = None
    seed: int = 0
    freeze: list[str] | None = None
    precision: str = "float32"
    threads: int | None = None
    compile: bool | str = "auto"
    data_device: str = "auto"
    loggers: str | list[str] = "tensorboard"

    def __post_init__(self) -> None:
        for name in (
            "max_steps", "batch_size", "batch_edges", "val_every", "decay_steps", "patience", "threads"
        ):  # fmt: skip
            _check_count("trainer", name, getattr(self, name))
        _check_seed("trainer.seed", self.seed)
        for name in ("lr", "max_minutes", "decay_factor", "clip_norm", "save_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`trainer.{name}` must be positive and finite, got {value}")
        for name in ("warmup_steps", "weight_decay", "energy_weight", "stress_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"`trainer.{name}` must be at least 0 and finite, got {value}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`trainer.ema_decay` must be in [0, 1), got {self.ema_decay}")
        if self.compile not in (True, False, "auto"):
            raise ValueError(f"`trainer.compile` must be 'auto', true or false, got {self.compile!r}")
        for name in ("schedule", "optimizer", "loss", "precision", "data_device"):
            _check_choice("trainer", name, getattr(self, name))
        for name in self.logger_names:
            _check_choice("trainer", "loggers", name)

    @property
    def logger_names(self) -> list[str]:
        """Names of the loggers, each once."""
        return list(dict.fromkeys([self.loggers] if isinstance(self.loggers, str) else self.loggers))


@dataclass(frozen=True)
class FabricConfig:
    """Devices and processes: the options of Lightning Fabric.

    Several processes share each batch, so that the result does not depend on their number.

    Attributes:
        accelerator: "auto", "cpu", "cuda", or one GPU such as "cuda:1".
        devices: Processes per host, on the CPU or each on its own GPU.
        num_nodes: Number of hosts. On more than one, torchrun, which sets both numbers, or srun starts the
            processes.
        strategy: "ddp" for several processes, which "auto" selects for them.

    Raises:
        ValueError: If an option is out of range.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes"):
            _check_count("fabric", name, getattr(self, name))
        _check_choice("fabric", "strategy", self.strategy)
        if re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", self.accelerator) is None:
            raise ValueError(
                "`fabric.accelerator` must be 'auto', 'cpu', 'cuda' or one GPU such as 'cuda:1'; got "
                f"{self.accelerator!r}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        data: Structures and labels.
        model: Architecture of the network.
        trainer: Optimization, schedule and execution.
        out: Directory of the run, which must not exist yet.
        fabric: Devices and processes.
        init: Trained model to start from (fine-tuning): a checkpoint, a run, the name of a pretrained model,
            or a weight file of PyG's or SchNetPack's SchNet. Its architecture becomes that of the run, and
            the learning rate is 5e-4 unless it is given beside init. A run stores the path with the
            SHA-256 of the file.

    Raises:
        ValueError: If ``out`` is empty, or references are to be kept without a model to start from.
    """

    data: DataConfig
    model: SchNetConfig = field(default_factory=SchNetConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    out: str = "run"
    fabric: FabricConfig = field(default_factory=FabricConfig)
    init: str | None = None

    def __post_init__(self) -> None:
        if self.init is None and self.data.references == "keep":
            raise ValueError("`data.references` must not be 'keep' without `init`, whose references are kept")
        if not self.out.strip():
            raise ValueError(f"`out` must name a folder for the run, got {self.out!r}; use '.' for this one")


def _check_count(section: str, name: str, value: int | None) -> None:
    if value is None:
        return
    if value < 1:
        raise ValueError(f"`{section}.{name}` must be at least 1, got {value}")
    if value > _MAX_VALUES.get(name, value):
        raise ValueError(f"`{section}.{name}` must be at most {_MAX_VALUES[name]:,}, got {value:,}")


def _check_choice(section: str, name: str, value: str) -> None:
    if value not in _CHOICES[name]:
        allowed = ", ".join(f"'{choice}'" for choice in _CHOICES[name])
        raise ValueError(f"`{section}.{name}` must be one of {allowed}; got {value!r}")


def _check_seed(name: str, seed: int) -> None:
    if abs(seed) > _MAX_SEED:
        raise ValueError(f"`{name}` must be from {-_MAX_SEED:,} to {_MAX_SEED:,}, got {seed:,}")
