"""A run's directory is never overwritten by accident, and its files come back."""

import numpy as np
import pytest
import torch
import yaml

from pyg_schnet.datasets.splits import Split
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training import RunDirectory

UNLISTED = {".lock", ".pyg-schnet-run"}


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def used(run):
    """A run with all its files, and a file of the user's."""
    run.prepare(False, False)
    run.tensorboard.mkdir()
    for file in (run.model, run.last, run.config, run.split, run.metrics, run.learning_curve):
        file.write_text("old")
    (run.tensorboard / "events.out.tfevents.1.host").write_text("old")
    (run.path / "notes.txt").write_text("mine")
    return run


def contents(run):
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()} - UNLISTED


def test_a_new_directory_is_made_with_its_parents(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b")
    run.prepare(False, False)
    assert run.path.is_dir()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_directory_is_taken(run, overwrite):
    run.path.mkdir()
    run.prepare(False, overwrite)


def test_a_directory_with_something_in_it_is_refused(used):
    before = contents(used)
    with pytest.raises(FileExistsError) as caught:
        used.prepare(False, False)
    assert str(caught.value) == (
        f"{used.path}: exists; choose another --out, or set --resume to continue that run or --overwrite to "
        "replace it"
    )
    assert contents(used) == before


def test_a_file_in_the_place_of_the_directory_is_refused(run):
    run.path.write_text("a file")
    with pytest.raises(FileExistsError, match=r"exists.*another.*--out"):
        run.prepare(False, False)


def test_overwriting_removes_the_runs_files_and_no_others(used):
    (used.path / ".config.yaml.swp").write_text("an editor's")
    used.prepare(False, True)
    assert contents(used) == {"notes.txt", ".config.yaml.swp"}
    assert not used.tensorboard.exists()


def test_overwriting_removes_no_logs_of_others(used):
    (used.tensorboard / "notes.txt").write_text("mine")
    (used.tensorboard / "other").mkdir()
    (used.tensorboard / "other" / "events.out.tfevents.2.host").write_text("mine")
    used.prepare(False, True)
    assert contents(used) == {
        "notes.txt", "tensorboard/notes.txt", "tensorboard/other/events.out.tfevents.2.host"
    }  # fmt: skip


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
@pytest.mark.parametrize("kind", ["folder", "file", "project", "project with a model"])
def test_what_is_no_run_is_not_touched(run, kind, flag):
    names = [
        "thesis.tex",
        "config.yaml",
        "metrics.csv",
        "split.npz",
        "tensorboard/events.out.tfevents.1.host",
    ]
    if kind == "file":
        run.path.write_text("years of work")
    else:
        for name in names if kind != "folder" else names[:1]:
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).write_text("years of work")
    if kind == "project with a model":
        checkpoint.write(run.model, "potential", {}, {})
    before = contents(run)
    with pytest.raises(FileExistsError, match=rf"is not a run of pyg-schnet .* --{flag} does not touch it"):
        run.prepare(flag == "resume", flag == "overwrite")
    own = [run.path] if kind == "file" else [run.path / name for name in before - {"model.safetensors"}]
    assert {path.read_text() for path in own} == {"years of work"}
    assert contents(run) == before
    assert not (run.path / ".lock").exists()


@pytest.mark.parametrize("flags", [(True, False), (False, True)])
def test_a_run_of_an_earlier_version_is_known_by_its_state(used, flags):
    checkpoint.write(used.last, "training state", {}, {})
    (used.path / ".pyg-schnet-run").unlink()
    used.release()
    before = contents(used)
    used.prepare(*flags)
    assert (used.path / ".pyg-schnet-run").is_file()
    assert contents(used) == (before if flags[0] else {"notes.txt"})


@pytest.mark.parametrize("exists", [True, False])
def test_resuming_begins_where_nothing_is_there_yet(run, exists):
    if exists:
        run.prepare(False, False)
        run.release()
    run.prepare(True, False)
    assert run.path.is_dir()


def test_resuming_removes_nothing_where_a_run_was_killed_before_its_first_checkpoint(used):
    for path in (used.last, used.model, used.metrics, used.learning_curve):
        path.unlink()
    (used.path / ".split.npz.x1y2z3w4").write_text("half")
    used.prepare(True, False)
    assert contents(used) == {
        "notes.txt", "config.yaml", "split.npz", "tensorboard/events.out.tfevents.1.host"
    }  # fmt: skip


def test_resuming_does_not_replace_a_model_whose_state_is_gone(used):
    used.last.unlink()
    before = contents(used)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors.*last\.safetensors"):
        used.prepare(True, False)
    used.model.rename(used.path / "model.safetensors.bak")
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv.*last\.safetensors"):
        used.prepare(True, False)
    (used.path / "model.safetensors.bak").rename(used.model)
    assert contents(used) == before


@pytest.mark.parametrize("flags", [(False, True), (True, False)])
def test_a_directory_in_which_another_process_trains_is_left_alone(run, flags):
    run.prepare(False, False)
    run.write_config({})
    checkpoint.write(run.last, "training state", {}, {})
    before = contents(run)
    with pytest.raises(FileExistsError) as caught:
        RunDirectory(run.path).prepare(*flags)
    assert str(caught.value) == (
        f"{run.path}: another process is writing to it; wait until that ends, or use another name"
    )
    assert contents(run) == before
    run.release()
    RunDirectory(run.path).prepare(*flags)


def test_a_directory_that_cannot_be_made_is_named():
    with pytest.raises(OSError, match=r"^/proc/run.*\(.*\).*another.*--out"):
        RunDirectory("/proc/run").prepare(False, False)


def test_a_damaged_state_is_refused_before_anything_changes(used):
    before = contents(used)
    with pytest.raises(ValueError, match=r"last\.safetensors.*safetensors"):
        used.prepare(True, False)
    assert contents(used) == before


def test_resuming_leaves_all_files(used):
    checkpoint.write(used.last, "training state", {}, {})
    before = contents(used)
    used.prepare(True, False)
    assert contents(used) == before


def test_resuming_and_overwriting_exclude_each_other(used):
    before = contents(used)
    with pytest.raises(ValueError, match=r"^`--resume`.*`--overwrite`.*exclude.*one"):
        used.prepare(True, True)
    assert contents(used) == before


def test_the_configuration_is_a_recipe_again(run):
    run.prepare(False, False)
    config = {"data": {"path": "Benzol für Å.npz", "units": None}, "trainer": {"lr": 1e-05, "max_steps": 3}}
    run.write_config(config)
    assert yaml.safe_load(run.config.read_text(encoding="utf-8")) == config
    assert "für Å" in run.config.read_text(encoding="utf-8")


def test_the_split_comes_back(run):
    run.prepare(False, False)
    split = Split(torch.tensor([0, 3]), torch.tensor([1]), torch.tensor([], dtype=torch.long))
    run.write_split(split)
    assert [part.tolist() for part in run.read_split()] == [[0, 3], [1], []]


ROWS = [{"step": step, "loss": step / 3, "minutes": 0.1 * step} for step in (5, 10, 15)]


def test_metrics_come_back_with_all_digits(run):
    run.prepare(False, False)
    assert run.read_metrics() == []
    for row in ROWS:
        run.append_metrics(row)
    assert run.read_metrics() == ROWS
    assert all(isinstance(row["step"], int) for row in run.read_metrics())
    assert len(run.metrics.read_text().splitlines()) == 4  # with one header


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (5, 1), (12, 2), (15, 3), (99, 3)])
def test_rows_after_a_step_are_cut(run, step, kept):
    run.prepare(False, False)
    for row in ROWS:
        run.append_metrics(row)
    run.truncate_metrics(step)
    run.append_metrics(ROWS[-1])
    assert run.read_metrics() == [*ROWS[:kept], ROWS[-1]]


def test_cutting_no_metrics_is_possible(run):
    run.prepare(False, False)
    run.truncate_metrics(3)
    assert run.read_metrics() == []


def test_a_part_of_a_file_of_other_content_is_refused(run):
    run.path.mkdir(exist_ok=True)
    split = Split(torch.tensor([0, 3]), torch.tensor([1]), torch.tensor([], dtype=torch.long))
    run.write_split(split, 5, ["a" * 64, ""])
    assert run.read_part("train", 5, "a" * 64).tolist() == [0, 3]
    with pytest.raises(ValueError, match="file of other content"):
        run.read_part("train", 5, "b" * 64)
    with pytest.raises(ValueError, match=r"5.*structures.*4"):
        run.read_part("train", 4)
    with pytest.raises(ValueError, match=r"'test' is empty.*another"):
        run.read_part("test", 5)


def test_a_split_that_was_changed_is_noticed(run):
    run.path.mkdir(exist_ok=True)
    split = Split(torch.tensor([0, 3]), torch.tensor([1]), torch.tensor([2]))
    run.write_split(split)
    with np.load(run.split) as file:
        arrays = dict(file)
    np.savez(run.split, **{**arrays, "val": np.array([3])})
    with pytest.raises(ValueError, match=r"changed.*training"):
        run.read_split()


@pytest.mark.parametrize("name", ["metrics.csv", "split.npz", "config.yaml"])
def test_a_run_whose_files_are_links_is_not_resumed(tmp_path, name):
    (tmp_path / "other").write_text("precious")
    run = RunDirectory(tmp_path / "run")
    run.prepare(False, False)
    run.write_config({})
    run.release()
    run.last.write_text("")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(tmp_path / "other")
    for flags in ((True, False), (False, True)):
        with pytest.raises(ValueError, match=f"{name}: must be a file of this run"):
            run.prepare(*flags)
    assert (tmp_path / "other").read_text() == "precious"


@pytest.mark.parametrize("text", ["step,loss\n1,x\n", "step,loss\n1\n", "step\n1,2\n"])
def test_metrics_that_are_no_numbers_are_refused(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics.csv.*number"):
        RunDirectory(tmp_path).read_metrics()


def test_metrics_that_are_no_numbers_are_refused_before_training_goes_on(used):
    checkpoint.write(used.last, "training state", {}, {})
    used.metrics.write_text("step,loss\n5,1.0\n10,\n")
    before = contents(used)
    with pytest.raises(ValueError, match=r"metrics.csv.*number"):
        used.prepare(True, False)
    assert contents(used) == before


def test_a_run_that_was_killed_while_its_first_file_was_written_is_begun_again(run):
    run.path.mkdir()
    for name in (".lock", ".config.yaml.x1y2z3w4"):
        (run.path / name).touch()
    run.prepare(True, False)
    assert contents(run) == set()
