"""Metrics of a run go to the loggers that its options or its caller name."""

import sys
from types import ModuleType

import pytest
import yaml

from pyg_schnet.training import Callback, LightningLogger, TrainerConfig


class Config(dict):
    def update(self, options, allow_val_change):
        super().update(options)


class FakeRun:
    def __init__(self, **options):
        self.options, self.rows, self.exit_code = options, [], None
        self.id = options.get("id") or "id-1"
        self.config = Config()

    def log(self, row, step):
        self.rows.append((step, row))

    def finish(self, exit_code):
        self.exit_code = exit_code
        sys.modules["wandb"].run = None


@pytest.fixture
def wandb(monkeypatch):
    """A module like wandb, which keeps its runs."""
    fake = ModuleType("wandb")
    fake.run, fake.runs, fake.Error = None, [], type("Error", (Exception,), {})

    def init(**options):
        fake.run = FakeRun(**options)
        fake.runs.append(fake.run)
        return fake.run

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return fake


class FailAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, training, loss):
        if training.step == self.step:
            raise ArithmeticError


def without_step(row):
    return {name: value for name, value in row.items() if name != "step"}


@pytest.mark.parametrize(
    ("loggers", "names"),
    [
        ("tensorboard", ["tensorboard"]),
        (["wandb", "tensorboard", "wandb"], ["wandb", "tensorboard"]),
        ([], []),
    ],
)
def test_loggers_are_a_name_or_a_list_of_names(loggers, names):
    assert TrainerConfig(loggers=loggers).logger_names == names


def test_an_unknown_logger_is_named():
    with pytest.raises(ValueError, match=r"`trainer.loggers`.*'tensorboard', 'wandb'; got 'mlflow'"):
        TrainerConfig(loggers=["tensorboard", "mlflow"])


def test_metrics_are_written_without_loggers_too(recipe, run):
    directory = run(recipe(loggers=[]))
    assert [row["step"] for row in directory.read_metrics()] == [5, 10, 15, 20]
    assert not directory.tensorboard.exists()


def test_wandb_gets_options_and_the_metrics_of_each_validation(recipe, run, wandb):
    directory = run(recipe(loggers="wandb"))
    (logged,) = wandb.runs
    assert logged.options["project"] == "pyg_schnet"
    assert logged.options["name"] == directory.path.name
    assert logged.options["dir"] == str(directory.path)
    assert logged.options["config"]["trainer"]["max_steps"] == 20
    assert logged.rows == [(row["step"], without_step(row)) for row in directory.read_metrics()]
    assert logged.exit_code == 0
    assert not directory.tensorboard.exists()


def test_a_resumed_run_continues_its_run_of_wandb(recipe, run, wandb):
    config = recipe(loggers="wandb")
    with pytest.raises(ArithmeticError):
        run(config, callbacks=[FailAt(7)])
    assert wandb.runs[0].exit_code == 1
    assert wandb.runs[0].options["id"] is None
    run(config, resume=True)
    assert wandb.runs[1].options["id"] == wandb.runs[0].id
    assert wandb.runs[1].options["resume"] == "allow"
    assert [step for one in wandb.runs for step, _ in one.rows] == [5, 10, 15, 20]


def test_an_overwritten_run_is_a_new_run_of_wandb(recipe, run, wandb):
    config = recipe(loggers="wandb")
    run(config)
    run(config, overwrite=True)
    assert wandb.runs[1].options["id"] is None


def test_an_active_run_of_wandb_is_used_and_left_open(recipe, run, wandb):
    mine = wandb.init(project="sweep")
    run(recipe(loggers="wandb"))
    assert wandb.runs == [mine]
    assert [step for step, _ in mine.rows] == [5, 10, 15, 20]
    assert mine.config["trainer"]["max_steps"] == 20
    assert mine.exit_code is None


def test_wandb_that_is_not_installed_is_an_error_before_anything_is_written(
    recipe, run, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = recipe(loggers="wandb")
    with pytest.raises(ImportError, match=r"`trainer.loggers`.*'wandb'.*pip install 'pyg-schnet\[wandb\]'"):
        run(config)
    assert not (tmp_path / "run").exists()


def test_wandb_without_a_login_is_told_with_a_way_out(recipe, run, wandb):
    def init(**options):
        raise wandb.Error("no API key")

    wandb.init = init
    with pytest.raises(RuntimeError, match=r"no API key; .* WANDB_MODE=offline"):
        run(recipe(loggers="wandb"))


def test_a_resumed_run_may_change_its_loggers(recipe, run, wandb):
    run(recipe(max_steps=5))
    directory = run(recipe(max_steps=10, loggers=["tensorboard", "wandb"]), resume=True)
    assert [step for step, _ in wandb.runs[0].rows] == [10]
    assert yaml.safe_load(directory.config.read_text())["trainer"]["loggers"] == ["tensorboard", "wandb"]


def test_any_logger_of_lightning_gets_the_metrics(recipe, run, tmp_path):
    from lightning_fabric.loggers.csv_logs import CSVLogger

    directory = run(recipe(), callbacks=[LightningLogger(CSVLogger(str(tmp_path / "csv"), "", ""))])
    (table,) = (tmp_path / "csv").rglob("metrics.csv")
    lines = table.read_text().splitlines()
    assert len(lines) == 1 + len(directory.read_metrics())
    assert "val_energy_mae_eV" in lines[0]
