"""A run from its recipe: reproducible, resumable to the bit, and nothing is written for wrong data."""

import errno
import hashlib
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pyg_schnet import load
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training import DataConfig, FabricConfig, TrainConfig, TrainerConfig, train
from pyg_schnet.training.state import TrainingState

EV = 0.0433641042418009  # eV in a kcal/mol


def same(first, second):
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_time(run):
    return [{key: value for key, value in row.items() if key != "minutes"} for row in run.read_metrics()]


def with_data(config, **changes):
    return replace(config, data=replace(config.data, **changes))


@pytest.mark.parametrize("forces_key", [None, "none"])
def test_a_run_writes_its_files(recipe, report, forces_key):
    directory = train(recipe(data={"forces_key": forces_key}), report())
    assert {path.name for path in directory.path.iterdir()} == {
        "model.safetensors", "last.safetensors", "config.yaml", "split.npz", "metrics.csv", "tensorboard",
        "learning_curve.png", ".pyg-schnet-run",
    }  # fmt: skip
    assert directory.learning_curve.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert directory.learning_curve.stat().st_size > 10_000
    assert list(directory.tensorboard.iterdir())
    columns = list(directory.read_metrics()[0])
    assert ("val_forces_mae_eV_per_A" in columns) is (forces_key is None)
    assert columns[:4] == ["step", "minutes", "lr", "loss"]


def test_the_written_configuration_is_the_run_again(recipe, run):
    config = recipe()
    entries = yaml.safe_load(run(config).config.read_text(encoding="utf-8"))
    again = TrainConfig(
        DataConfig(**entries["data"]), SchNetConfig(**entries["model"]), TrainerConfig(**entries["trainer"]),
        entries["out"], FabricConfig(**entries["fabric"]),
    )  # fmt: skip
    assert again == config


def test_the_written_configuration_is_good_in_any_folder(recipe, run, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("here.npz"), write("val.npz", seed=1)
    config = with_data(recipe(), path=["here.npz"], val_path="val.npz", n_val=None, n_train=None, root="root")
    data = yaml.safe_load(run(config).config.read_text(encoding="utf-8"))["data"]
    assert data["path"] == [str(tmp_path / "here.npz")]
    assert (data["val_path"], data["root"]) == (str(tmp_path / "val.npz"), str(tmp_path / "root"))
    assert data["split"] == "random"


def test_the_split_is_written_and_used(recipe, run):
    directory = run(recipe(data={"n_train": 8, "n_val": 3}))
    split = directory.read_split()
    assert [len(part) for part in split] == [8, 3, 5]
    assert torch.equal(torch.cat(split).sort().values, torch.arange(16))


def test_the_checkpoint_tells_where_it_comes_from(recipe, run):
    config = recipe()
    directory = run(config)
    found = checkpoint.provenance(directory.model)
    content = Path(config.data.path).read_bytes()
    assert found["data"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["data"]["path"] == config.data.path
    assert (found["trainer"]["max_steps"], found["trainer"]["lr"]) == (20, 1e-2)
    assert (found["n_train"], found["n_val"]) == (12, 4)
    assert found["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["date"])
    assert found["validation"] in directory.read_metrics()


def test_training_from_given_references_starts_at_the_mean_energy(recipe, run):
    """Energies here lie some 6 eV an atom below these references, and spread by 0.2 eV."""
    given = {"H": -6.0, "O": -2010.0}
    directory = run(recipe(data={"references": given}, max_steps=1, val_every=1))
    row = directory.read_metrics()[0]
    assert float(row["val_energy_mae_eV"]) < 1
    shift = checkpoint.provenance(directory.model)["mean_residual"]
    assert abs(shift) > 3
    potential = checkpoint.load(directory.model)
    assert potential.atomref[1].item() == pytest.approx(-6 + shift, abs=1e-9)
    assert potential.atomref[8].item() == pytest.approx(-2010 + shift, abs=1e-9)


@pytest.mark.parametrize("model", [{"readout": "mean"}, {"dipole": True, "zero_output": False}])
def test_what_is_no_sum_over_atoms_keeps_given_references(recipe, run, model, write):
    given = {"H": 0.0, "O": 0.0}
    data = {"path": write(F=None), "references": given, "forces_key": "none"}
    directory = run(recipe(data=data, model=model, max_steps=1))
    assert checkpoint.load(directory.model).atomref[[1, 8]].tolist() == [0, 0]


def test_the_references_are_those_of_the_training_set(recipe, run):
    config = recipe()
    directory = run(config)
    training = AtomsDataset(path=config.data.path)[directory.read_split().train]
    potential = load(directory.model)
    assert potential.elements == [1, 8]
    assert torch.equal(potential.atomref, training.atomref())
    assert potential.scale.item() == training.scale()
    mean = training.atomref()[[8, 1, 1]].sum().item()
    assert mean == pytest.approx(-47000 * EV, abs=2)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_network_has_the_precision_that_is_asked_for(recipe, run, precision):
    directory = run(recipe(precision=precision))
    weights = load_file(directory.model)
    assert weights["model.embedding.weight"].dtype == getattr(torch, precision)
    assert weights["atomref"].dtype == weights["scale"].dtype == torch.float64
    moments = load_file(directory.last)["optimizer.0.squares"]
    assert moments.dtype == getattr(torch, precision)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_geometries_have_the_precision_of_the_network(recipe, run, monkeypatch, precision):
    from pyg_schnet import Potential

    dtypes, original = set(), Potential.forward

    def watch(self, batch, *args, **kwargs):
        out = original(self, batch, *args, **kwargs)
        dtypes.add((batch.pos.dtype, out["energy"].dtype, out["forces"].dtype))
        return out

    monkeypatch.setattr(Potential, "forward", watch)
    # Exact filters: the report on splines compares them in float64.
    run(recipe(max_steps=5, precision=precision, model={"filters": "exact"}))
    assert dtypes == {(getattr(torch, precision), torch.float64, getattr(torch, precision))}


def test_the_report_tells_the_data_in_their_size(recipe, report):
    config, told = recipe(), report()
    train(config, told)
    lines = told.text.getvalue().splitlines()
    units = "kcal/mol and Å (assumed from the file; set --data.units otherwise)"
    assert lines[0] == f"{config.data.path}: energies and forces in {units}"
    assert lines[1] == "Training on 12 structures, validating on 4, leaving 0 to test; elements H, O"
    assert re.fullmatch(
        r"Energies spread by [\d.]+ meV \([\d.]+ kcal/mol\), forces' RMS is \d+ meV/Å \([\d.]+ kcal/mol/Å\)",
        lines[2],
    )
    assert lines[3].startswith("Atomic references (eV): H -")
    assert lines[3].endswith("shares, not energies of atoms: 1 independent composition for 2 elements")
    assert lines[4].startswith("SchNet(hidden_channels=8,")
    assert lines[5] == "Not compiled: 20 steps are too few for compilation to save time."
    assert [line.split()[:2] for line in lines[6:10]] == [["step", str(step)] for step in (5, 10, 15, 20)]
    assert re.fullmatch(
        r"Best validation at step \d+ of 20, after [\d.]+ minutes: .*model\.safetensors", lines[11]
    )
    assert lines[10].startswith("Splines of the filters change energies by ")
    assert len(lines) == 12


def test_one_training_structure_is_enough(recipe, run):
    assert run(recipe(data={"n_train": 1, "n_val": 1}, max_steps=5)).model.is_file()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(recipe, run):
    first, again, other = (run(recipe(out, seed=seed)) for out, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert same(first.model, again.model)
    assert same(first.last, again.last)
    assert without_time(first) == without_time(again)
    assert not same(first.model, other.model)


def test_the_state_of_the_world_does_not_decide(recipe, run):
    first = run(recipe("a"))
    torch.manual_seed(12345)
    np.random.default_rng(1)
    torch.rand(7)
    assert same(first.model, run(recipe("b")).model)


def test_the_global_generator_is_left_alone(recipe, run):
    before = torch.get_rng_state()
    run(recipe(max_steps=5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("interrupt_after", "options"),
    [(8, {}), (13, {"clip_norm": 0.5, "warmup_steps": 9, "precision": "float64"})],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(recipe, run, interrupt_after, options):
    # 12 structures, four a step: epochs end after steps 3, 6, 9 …, validations are after 5, 10, 15, 20.
    straight = run(recipe("straight", **options))
    config = recipe("resumed", **options)
    with pytest.raises(KeyboardInterrupt):
        run(config, interrupt_after)
    resumed = run(config, resume=True)
    assert same(resumed.model, straight.model)
    assert same(resumed.last, straight.last)
    assert without_time(resumed) == without_time(straight)


def test_a_row_that_is_ahead_of_the_checkpoint_is_not_written_twice(recipe, run, monkeypatch):
    """As if the computer went off between the row and the checkpoint of step 10."""
    straight = run(recipe("straight"))
    config, save = recipe("resumed"), TrainingState.save

    def go_off(self, path):
        if self.counters.step == 10:
            raise KeyboardInterrupt
        save(self, path)

    monkeypatch.setattr(TrainingState, "save", go_off)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.setattr(TrainingState, "save", save)
    resumed = run(config, resume=True)
    assert without_time(resumed) == without_time(straight)
    assert same(resumed.model, straight.model)


def test_a_run_that_ended_before_its_first_validation_goes_on_from_its_start(recipe, run):
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), 3)  # at once, as a kill would end it
    again = run(recipe(), resume=True)
    assert same(again.model, run(recipe("whole")).model)


def test_a_finished_run_can_be_resumed_and_does_nothing_more(recipe, run):
    directory = run(recipe())
    before = {path: path.read_bytes() for path in (directory.model, directory.last, directory.metrics)}
    run(recipe(), resume=True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_run_goes_on_to_more_steps(recipe, run):
    directory = run(recipe(schedule="constant"))
    run(recipe(schedule="constant", max_steps=30), resume=True)
    assert [row["step"] for row in directory.read_metrics()] == [5, 10, 15, 20, 25, 30]
    straight = run(recipe("straight", schedule="constant", max_steps=30))
    assert same(directory.model, straight.model)


def test_resuming_is_told_with_its_step(recipe, run, report):
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), 13)
    told = report()
    train(recipe(), told, resume=True)
    assert "Resuming at step 10.\n" in told.text.getvalue()


def test_a_state_is_written_between_rare_validations(recipe, run, report):
    config = recipe(val_every=1000, save_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):
        run(config, 13)  # before the state of this step is written
    told = report()
    train(config, told, resume=True)
    assert "Resuming at step 12.\n" in told.text.getvalue()


@pytest.mark.parametrize(
    ("section", "name", "before", "now"),
    [("data", "n_train", 12, 11), ("data", "seed", 0, 1), ("model", "hidden_channels", 8, 10)],
)
def test_resuming_with_other_data_or_another_model_is_refused(recipe, run, section, name, before, now):
    directory = run(recipe(max_steps=5))
    files = {path: path.read_bytes() for path in directory.path.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="resume") as caught:
        run(recipe(**{section: {name: now, **({"n_val": 4} if section == "data" else {})}}), resume=True)
    assert str(caught.value) == (
        f"`{section}.{name}` must be {before!r} as in {directory.config} to resume that run, got {now!r}"
    )
    assert {path: path.read_bytes() for path in files} == files


def test_a_run_from_before_there_was_a_choice_of_optimizers_goes_on_with_adam_alone(recipe, run):
    directory = run(recipe(max_steps=5, optimizer="adam"))
    written = directory.config.read_text(encoding="utf-8")
    assert "  optimizer: adam\n" in written
    directory.config.write_text(written.replace("  optimizer: adam\n", ""), encoding="utf-8")
    with pytest.raises(ValueError, match=r"`trainer\.optimizer`.*'adam'.*'soap'"):
        run(recipe(max_steps=10, optimizer="soap"), resume=True)
    assert run(recipe(max_steps=10, optimizer="adam"), resume=True).read_metrics()[-1]["step"] == 10


@pytest.mark.parametrize("text", ["[1]", "data: 3\n", "trainer: [max_steps]\n"])
def test_a_configuration_that_holds_no_options_is_refused(recipe, run, text):
    directory = run(recipe(max_steps=5))
    directory.config.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        run(recipe(max_steps=10), resume=True)


def test_resuming_nothing_is_beginning(recipe, run):
    assert same(run(recipe(), resume=True).model, run(recipe("other")).model)


def test_a_second_run_in_the_same_directory_is_refused(recipe, run):
    directory = run(recipe(max_steps=5))
    before = directory.model.read_bytes()
    with pytest.raises(FileExistsError, match=r"exists.*another.*--out"):
        run(recipe(max_steps=5))
    assert directory.model.read_bytes() == before


def test_overwriting_begins_anew(recipe, run):
    first = run(recipe())
    rows = without_time(first)
    assert without_time(run(recipe(), overwrite=True)) == rows


def refused(config, run, kind=ValueError):
    with pytest.raises(kind) as caught:
        run(config)
    assert not Path(config.out).exists(), "nothing is written where the data are wrong"
    return str(caught.value)


def test_a_missing_file_writes_nothing(recipe, run):
    assert "no such file" in refused(recipe(data={"path": "nowhere.npz"}), run, FileNotFoundError)


def test_a_file_that_is_not_finite_writes_nothing(recipe, write, run):
    path = write(E=np.full(16, np.nan))
    assert "must have finite energy ('E' (kcal/mol))" in refused(recipe(data={"path": path}), run)


def test_too_many_structures_are_refused(recipe, run):
    assert "fit into the 16 structures of the file, got 15 and 2" in refused(
        recipe(data={"n_train": 15, "n_val": 2}), run
    )


def test_a_run_needs_structures_for_validation(recipe, run):
    assert refused(recipe(data={"n_val": 0}), run) == (
        "`data.n_val` must be at least 1, to select the best weights, got 0; or pass `data.val_path`"
    )


def test_a_wrong_model_writes_nothing(recipe, run):
    assert "`gamma` must be positive" in refused(recipe(model={"gamma": -1.0}), run)


@pytest.fixture
def two_files(recipe, write):
    def make(n_train=None, n_val=None, **val):
        paths = {"path": write(), "val_path": write("val.npz", **{"frames": 6, "seed": 1} | val)}
        return recipe(data={**paths, "n_train": n_train, "n_val": n_val}, max_steps=5)

    return make


def test_a_second_file_validates_and_the_first_trains_entirely(two_files, run):
    directory = run(two_files())
    assert [len(part) for part in directory.read_split()] == [16, 0, 0]
    found = checkpoint.provenance(directory.model)
    assert (found["n_train"], found["n_val"]) == (16, 6)


def test_training_structures_are_left_out_of_validation_and_told(two_files, report):
    copies = two_files(frames=16, seed=0)  # the very frames of the first file
    told = report()
    directory = train(with_data(copies, n_train=10), told)
    assert checkpoint.provenance(directory.model)["n_val"] == 6
    assert told.text.getvalue().splitlines()[0] == (
        "10 of the 16 validation structures are also training structures and are left out."
    )


def test_different_structures_are_not_left_out(two_files, report):
    told = report()
    train(two_files(), told)
    assert "left out" not in told.text.getvalue()


@pytest.mark.parametrize("n_val", [None, 3])
def test_a_copy_of_the_training_set_cannot_validate(two_files, run, n_val):
    config = two_files(frames=16, seed=0, n_val=n_val)
    assert refused(config, run) == (
        f"{config.data.val_path}: must hold a structure that is not in the training set"
    )


@pytest.mark.parametrize("n_val", [-1, 0, 7])
def test_a_number_of_validation_structures_that_is_not_there_is_refused(two_files, run, n_val):
    assert refused(two_files(n_val=n_val), run) == f"`data.n_val` must be 1 to 6 here, got {n_val}"


def test_a_number_of_validation_structures_is_taken(two_files, run):
    assert checkpoint.provenance(run(two_files(n_val=2)).model)["n_val"] == 2


def test_a_file_for_validation_needs_forces_where_training_has_them(two_files, run):
    config = two_files(F=None)
    assert refused(config, run) == (
        f"{config.data.val_path}: must have forces if and only if {config.data.path} has; set "
        "`data.forces_key`"
    )
    directory = run(with_data(config, forces_key="none"))
    assert "val_forces_mae_eV_per_A" not in directory.read_metrics()[0]


def test_a_file_for_validation_may_not_have_other_elements(two_files, run):
    config = two_files(molecule="ammonia")
    assert refused(config, run) == (
        f"{config.data.val_path}: holds N, for which there is no atomic reference; the training structures "
        "hold H, O"
    )


def test_no_warning_reaches_the_user(recipe, report):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recipe(), report())
        train(recipe(max_steps=30), report(), resume=True)
    assert [str(warning.message) for warning in caught] == []


def test_a_device_that_is_not_there_leaves_an_old_run_alone(recipe, run):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    directory = run(recipe())
    before = {path: path.read_bytes() for path in directory.path.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=r"`fabric\.accelerator` must be 'cpu' here.*'cuda'"):
        run(replace(recipe(), fabric=FabricConfig("cuda")), overwrite=True)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("option", [{"seed": 5}, {"batch_size": 2}, {"precision": "float64"}, {"lr": 0.1}])
def test_a_resumed_run_keeps_its_options(option, recipe, run):
    run(recipe())
    (name, value), *_ = option.items()
    with pytest.raises(ValueError, match=rf"`trainer\.{name}`.*resume.*{value!r}"):
        run(recipe(**option), resume=True)


def test_a_resumed_run_keeps_its_data(recipe, run, write):
    config = recipe()
    directory = run(config)
    before = directory.split.read_bytes()
    write(seed=99)  # another content of the same file
    with pytest.raises(ValueError, match=r"`data\.path`.*`data\.val_path`"):
        run(config, resume=True)
    assert directory.split.read_bytes() == before


@pytest.mark.parametrize("name", ["last.safetensors", "model.safetensors", "metrics.csv"])
def test_a_disk_that_is_full_ends_a_run_and_room_lets_it_go_on(name, recipe, run, monkeypatch):
    config, flush = recipe(), os.fsync
    monkeypatch.setattr(os, "fsync", _full_for(name, flush, left=2))
    with pytest.raises(OSError, match=rf"{re.escape(name)}.*\(No space left on device\)"):
        run(config)
    monkeypatch.setattr(os, "fsync", flush)
    again, whole = run(config, resume=True), run(recipe("whole"))
    assert same(again.model, whole.model)
    assert same(again.last, whole.last)
    assert without_time(again) == without_time(whole)
    assert not list(again.path.glob(".*safetensors*"))


def _full_for(name, flush, left):
    """Let some files of a name be written, and then no more."""
    room = {name: left}

    def full(handle):
        if Path(os.readlink(f"/proc/self/fd/{handle}")).parent.name.startswith(f".{name}"):
            room[name] -= 1
            if room[name] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    return full
