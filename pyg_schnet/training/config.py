"""Everything a training run is defined by: read from a recipe, written into the run's directory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pyg_schnet.nn import SchNetConfig


@dataclass(frozen=True)
class DataConfig:
    """Which structures and labels to train on.

    Attributes:
        path: File, folder or list of files with structures and energies (and forces): npz, HDF5, whatever
            ASE reads, or a processed data set (.safetensors).
        val_path: The same for validation; by default its structures are split off from path.
        energy_key: Key of the energies; the file's own by default.
        forces_key: Key of the forces; those that belong to the energies by default, "none" for none.
        stress_key: Key of the stresses or virials; those that belong to the energies by default, "none" for
            none.
        units: Of the file, as "kcal/mol" or "Hartree, Bohr" or, with forces apart, "Hartree, Hartree/Bohr";
            what it states or its layout implies by default.
        n_train: Number of structures to train on; all that are left by default.
        n_val: Number of structures for validation; by default all of val_path, or a tenth of path
            (1,000 at most).
        seed: Of the random split.
        split: "random", the name of a published split of a processed data set, or an npz file with the
            arrays train, val and test.
        references: "fit", energies of the isolated atoms in eV by element, or published ones, as "qm9:U0".
            "fit" takes the energies of isolated atoms that the data hold, and fits where one is missing.
            The mean residual of the training structures, in eV an atom, is added to those that are given, so
            that the energy of an isolated atom is another than its reference.
        root: Folder for a processed copy, so that the file is read only once; none by default.
        memory_map: Leave the structures on disk; for sets beyond the memory, with root or .safetensors.
    """

    path: str | list[str]
    val_path: str | None = None
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
        if self.split != "random" and (self.n_train is not None or self.n_val is not None):
            raise ValueError(
                "`data.n_train` and `data.n_val` must not be given with a `data.split` that is not random, "
                f"got {self.split!r}; the split has its own numbers"
            )


@dataclass(frozen=True)
class TrainerConfig:
    """How to train.

    Attributes:
        max_steps: Number of steps, at which the learning rate arrives.
        max_minutes: Stop earlier, after this time; the schedule then follows the clock, so that the
            learning rate arrives all the same (and the run is not reproducible to the bit).
        batch_size: Molecules a step, of all processes together.
        batch_edges: Pairs of neighbors a step: batches are then filled up to so many, whatever the sizes of
            the structures, and batch_size does not count. For sets that mix small and large ones.
        optimizer: "soap" (Vyas et al. 2024), which needs far fewer steps, or "adam", the paper's.
        lr: Learning rate at the start.
        schedule: "cosine" to zero, "exponential" (the paper's decay in steps) or "constant".
        decay_factor: Factor of the exponential schedule.
        decay_steps: Steps after which the exponential schedule multiplies.
        warmup_steps: Steps of linear increase before the schedule.
        ema_decay: Decay of the exponential moving average of the weights, which is what is validated
            and kept.
        energy_weight: rho of equation (5); by default 0.01 with forces and 1 without.
        stress_weight: Of the squared error of stress times volume an atom, in eV, where there are stresses.
        loss: "squared" errors as in the paper, or "absolute" ones; the validation's too, which chooses the
            best weights.
        clip_norm: Largest norm of the gradient; not clipped by default.
        val_every: Steps between validations, each of which writes a checkpoint.
        save_minutes: Time between checkpoints, where validations are rarer.
        patience: Stop after this many validations without improvement; never by default.
        seed: Of the weights and of the order of the batches.
        precision: Of the network, "float32" or "float64"; labels and energies are float64 always.
        threads: Of the CPU, in each process; by default as many as are fastest, which some steps at the start
            tell. Compiled, the weights do not depend on it.
        compile: Run straight programs instead of torch's operations one by one, several times faster: "auto"
            where there are steps enough to pay for some seconds at the start, true, or false.
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
    energy_weight: float | None = None
    stress_weight: float = 1.0
    loss: str = "squared"
    clip_norm: float | None = None
    val_every: int = 1000
    save_minutes: float = 10.0
    patience: int | None = None
    seed: int = 0
    precision: str = "float32"
    threads: int | None = None
    compile: bool | str = "auto"

    def __post_init__(self) -> None:
        for name in (
            "max_steps", "batch_size", "batch_edges", "val_every", "decay_steps", "patience", "threads"
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`trainer.{name}` must be at least 1, got {value}")
            if value is not None and name in _MOST and value > _MOST[name]:
                raise ValueError(f"`trainer.{name}` must be at most {_MOST[name]:,}, got {value:,}")
        _check_seed("trainer.seed", self.seed)
        for name in ("lr", "max_minutes", "decay_factor", "clip_norm", "save_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`trainer.{name}` must be positive and finite, got {value}")
        for name in ("warmup_steps", "energy_weight", "stress_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"`trainer.{name}` must be at least 0 and finite, got {value}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`trainer.ema_decay` must be in [0, 1), got {self.ema_decay}")
        if self.compile not in (True, False, "auto"):
            raise ValueError(f"`trainer.compile` must be 'auto', true or false, got {self.compile!r}")
        for name, choices in _TRAINER_CHOICES.items():
            _require_choice(f"trainer.{name}", getattr(self, name), choices)


_MOST = {"batch_size": 2**20, "batch_edges": 2**40, "threads": 2**10, "devices": 2**10, "num_nodes": 2**14}
_LARGEST_SEED = 2**48  # of either sign; epochs are added to it
_TRAINER_CHOICES = {
    "schedule": ("cosine", "exponential", "constant"),
    "optimizer": ("soap", "adam"),
    "loss": ("squared", "absolute"),
    "precision": ("float32", "float64"),
}


@dataclass(frozen=True)
class FabricConfig:
    """Where to train: the options of Lightning Fabric.

    Several processes share each batch, so that what is learned does not depend on their number.

    Attributes:
        accelerator: "auto", "cpu" or "cuda".
        devices: Processes on each host, on the CPU or each on a GPU of its own.
        num_nodes: Hosts. On more than one, torchrun (which tells both numbers) or srun starts the processes.
        strategy: "ddp" for several processes, which is what "auto" takes then.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`fabric.{name}` must be at least 1, got {getattr(self, name)}")
            if getattr(self, name) > _MOST[name]:
                raise ValueError(
                    f"`fabric.{name}` must be at most {_MOST[name]:,}, got {getattr(self, name):,}"
                )
        _require_choice("fabric.accelerator", self.accelerator, ("auto", "cpu", "cuda"))
        _require_choice("fabric.strategy", self.strategy, ("auto", "ddp"))


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: Which structures and labels to train on.
        model: The network.
        trainer: How to train.
        out: Directory of the run, which must not exist yet.
        fabric: Where to train.
    """

    data: DataConfig
    model: SchNetConfig = field(default_factory=SchNetConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    out: str = "run"
    fabric: FabricConfig = field(default_factory=FabricConfig)

    def __post_init__(self) -> None:
        if not self.out.strip():
            raise ValueError(f"`out` must name a folder for the run, got {self.out!r}; '.' is this one")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        allowed = ", ".join(f"'{choice}'" for choice in choices)
        raise ValueError(f"`{name}` must be one of {allowed}; got {value!r}")


def _check_seed(name: str, seed: int) -> None:
    if abs(seed) > _LARGEST_SEED:
        raise ValueError(f"`{name}` must be from {-_LARGEST_SEED:,} to {_LARGEST_SEED:,}, got {seed:,}")
