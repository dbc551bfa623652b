"""Options that cannot be meant are refused with their name."""

import re

import pytest

from pyg_schnet.nn import SchNetConfig
from pyg_schnet.training import DataConfig, FabricConfig, TrainConfig, TrainerConfig


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_steps": 0}, "`trainer.max_steps` must be at least 1, got 0"),
        ({"batch_size": 0}, "`trainer.batch_size` must be at least 1, got 0"),
        ({"val_every": -1}, "`trainer.val_every` must be at least 1, got -1"),
        ({"decay_steps": 0}, "`trainer.decay_steps` must be at least 1, got 0"),
        ({"patience": 0}, "`trainer.patience` must be at least 1, got 0"),
        ({"lr": 0.0}, "`trainer.lr` must be positive and finite, got 0.0"),
        ({"lr": -1e-3}, "`trainer.lr` must be positive and finite, got -0.001"),
        ({"lr": float("nan")}, "`trainer.lr` must be positive and finite, got nan"),
        ({"lr": float("inf")}, "`trainer.lr` must be positive and finite, got inf"),
        ({"max_minutes": 0.0}, "`trainer.max_minutes` must be positive and finite, got 0.0"),
        ({"decay_factor": -0.5}, "`trainer.decay_factor` must be positive and finite, got -0.5"),
        ({"clip_norm": 0.0}, "`trainer.clip_norm` must be positive and finite, got 0.0"),
        ({"energy_weight": -1.0}, "`trainer.energy_weight` must be at least 0 and finite, got -1.0"),
        ({"warmup_steps": -1}, "`trainer.warmup_steps` must be at least 0 and finite, got -1"),
        ({"ema_decay": 1.0}, "`trainer.ema_decay` must be in [0, 1), got 1.0"),
        ({"ema_decay": -0.1}, "`trainer.ema_decay` must be in [0, 1), got -0.1"),
        ({"threads": 10**6}, "`trainer.threads` must be at most 1,024, got 1,000,000"),
        ({"batch_size": 10**9}, "`trainer.batch_size` must be at most 1,048,576, got 1,000,000,000"),
        (
            {"schedule": "cosin"},
            "`trainer.schedule` must be one of 'cosine', 'exponential', 'constant'; got 'cosin'",
        ),
        ({"precision": "float16"}, "`trainer.precision` must be one of 'float32', 'float64'; got 'float16'"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(options, reason):
    with pytest.raises(ValueError, match=r"^`trainer") as caught:
        TrainerConfig(**options)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "options", [{"energy_weight": 0.0}, {"warmup_steps": 0}, {"ema_decay": 0.0}, {"patience": 1}]
)
def test_options_at_their_bounds_are_taken(options):
    ((name, value),) = options.items()
    assert getattr(TrainerConfig(**options), name) == value


def test_a_path_is_all_that_a_run_needs():
    config = TrainConfig(DataConfig("frames.npz"))
    assert (config.out, config.trainer, config.data.seed) == ("run", TrainerConfig(), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"accelerator": "gpu"},
            "`fabric.accelerator` must be 'auto', 'cpu', 'cuda' or one GPU such as 'cuda:1'; got 'gpu'",
        ),
        (
            {"accelerator": "mps"},
            "`fabric.accelerator` must be 'auto', 'cpu', 'cuda' or one GPU such as 'cuda:1'; got 'mps'",
        ),
        ({"strategy": "fsdp"}, "`fabric.strategy` must be one of 'auto', 'ddp'; got 'fsdp'"),
        ({"devices": 0}, "`fabric.devices` must be at least 1, got 0"),
        ({"devices": 10**6}, "`fabric.devices` must be at most 1,024, got 1,000,000"),
        ({"num_nodes": 10**6}, "`fabric.num_nodes` must be at most 16,384, got 1,000,000"),
        ({"num_nodes": 0}, "`fabric.num_nodes` must be at least 1, got 0"),
    ],
)
def test_wrong_places_to_train_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FabricConfig(**options)


@pytest.mark.parametrize("out", ["", " "])
def test_a_run_without_a_folder_is_refused(out):
    with pytest.raises(ValueError, match=r"`out`.*folder"):
        TrainConfig(DataConfig("a.npz"), out=out)


@pytest.mark.parametrize(("config", "name"), [(DataConfig, "data.seed"), (TrainerConfig, "trainer.seed")])
def test_a_seed_that_no_generator_takes_is_refused(config, name):
    needed = {"path": "frames.npz"} if config is DataConfig else {}
    with pytest.raises(ValueError, match=f"`{name}` must be from"):
        config(**needed, seed=10**20)


@pytest.mark.parametrize("name", ["hidden_channels", "num_filters", "num_interactions", "num_gaussians"])
def test_sizes_that_fit_into_no_memory_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at most"):
        SchNetConfig(**{name: 10**6})


def test_sizes_that_only_together_fit_into_no_memory_are_refused():
    with pytest.raises(ValueError, match=r"`num_filters`.* weights"):
        SchNetConfig(hidden_channels=8000, num_filters=8000, num_interactions=200)
