"""Captured steps are the ordinary ones, recorded for each bucket of sizes and repeated."""

import importlib

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as write_frames
from lightning_fabric import Fabric
from torch.testing import assert_close

from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.training import RunDirectory, captured_step, train
from pyg_schnet.training.captured_step import CapturedStep, choose_step
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.device_data import CollatedBatches, DeviceData
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.progress import Report
from pyg_schnet.training.state import TrainingState
from pyg_schnet.training.step import StepLoss, TrainingStep
from pyg_schnet.training.validation import RecentNumbers
from tests.gpu_like import LaunchCounter, gpu_like
from tests.recorded_operations import RecordedOperations

BATCH = 4
NAMES = ("CH4", "NH3")


class Lines(Report):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Rattled structures of one size, of mixed sizes, and crystals, with random labels."""
    found, rng = {}, np.random.default_rng(0)
    for kind, names in {"one size": ("CH4",), "mixed sizes": NAMES, "crystals": ("Si",)}.items():
        frames = []
        for number in range(40):
            name = names[number % len(names)]
            atoms = bulk("Si", cubic=True) if name == "Si" else molecule(name)
            atoms.rattle(0.05, rng=rng)
            labels = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
            labels |= {"stress": 0.1 * rng.normal(size=6)} if name == "Si" else {}
            atoms.calc = SinglePointCalculator(atoms, **labels)
            frames.append(atoms)
        path = tmp_path_factory.mktemp("data") / "frames.extxyz"
        write_frames(path, frames)
        found[kind] = AtomsDataset(path=str(path), units="eV, Angstrom", dtype=torch.float64)
    return found


class Training:
    """A training on batches that are a function of the step alone, as in the loop."""

    def __init__(self, dataset, optimizer="soap", clip_norm=None, capture=None, seed=0, device="cpu"):
        torch.manual_seed(seed)
        model = SchNet(8, 8, 1, 12, 3.5, filters="spline")
        device = torch.device(device)
        self.potential = Potential(model, scale=2.0).to(device, torch.float64).train()
        self.dataset, self.report, self.losses = dataset, Lines(), []
        self.config = TrainerConfig(optimizer=optimizer, clip_norm=clip_norm)
        self.state = TrainingState(self.potential, optimizer, 1e-2, 0.9)
        processes = Processes(Fabric(accelerator=device.type, devices=1))
        self.recent = RecentNumbers(RunDirectory("none"), dataset, capture is not None)
        loss = StepLoss(self.potential, self.config, 0.1, BATCH)
        data = CollatedBatches(dataset, device)
        if capture is not None:
            data = DeviceData(dataset, self.potential, device).to(device)
        self.step = TrainingStep(processes, self.state, loss, data, dataset, self.recent, clip_norm)
        self.capture = capture
        if capture is not None:
            self.step = CapturedStep(self.step, capture, self.report)

    def run(self, steps, size=lambda step: BATCH):
        for _ in range(steps):
            number = self.state.counters.step
            ids = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(number))
            ids = ids[: size(number)]
            self.state.set_learning_rate(2.0**-8 * (1 + number % 4))  # exact in the float32 of fused Adam
            loss, _ = self.step(ids, [ids], lambda: ())
            self.losses.append(loss)
            self.state.counters.step += 1
        return self


def assert_same(found, expected, atol):
    assert_close(torch.stack(found.losses[-5:]), torch.stack(expected.losses[-5:]), atol=atol, rtol=atol)
    for name in ("potential", "averaged"):
        ours, theirs = (getattr(training.state, name).state_dict() for training in (found, expected))
        assert_close(ours, theirs, atol=atol, rtol=atol)


@pytest.fixture
def trained(datasets, tmp_path):
    """Start a training after a few ordinary steps: bases of SOAP's first gradients, of low rank, are any."""

    def start(kind, optimizer, clip_norm=None, capture=None, device="cpu"):
        path = tmp_path / f"{kind}-{optimizer}.safetensors"
        if not path.exists():
            Training(datasets[kind], optimizer).run(21).state.save(path)
        training = Training(datasets[kind], optimizer, clip_norm, capture, seed=1, device=device)
        training.state.restore(path)
        return training

    return start


@pytest.mark.parametrize("steps", [14, pytest.param(50, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_the_weights_are_those_of_the_ordinary_loop(trained, optimizer, steps):
    """Learning rates change from step to step, as do sizes; SOAP's bases are refreshed between recordings."""
    expected = trained("mixed sizes", optimizer, 0.05).run(steps)
    with gpu_like():
        found = trained("mixed sizes", optimizer, 0.05, RecordedOperations()).run(steps)
    assert 2 <= found.capture.recordings < steps / 2
    assert found.capture.replays >= steps / 2 - 1
    assert found.report.lines == []
    # Padding and reciprocals instead of quotients change the last bits, and SOAP's bases amplify that.
    assert_same(found, expected, 1e-10)


def test_stresses_are_captured(datasets):
    expected = Training(datasets["crystals"], "adam").run(6)
    with gpu_like():
        found = Training(datasets["crystals"], "adam", capture=RecordedOperations()).run(6)
    assert found.capture.replays >= 3
    assert_same(found, expected, 1e-10)


@pytest.mark.nightly
def test_compiled_potentials_are_captured(datasets):
    """Programs in Python: operations of Inductor's would not be seen by the recording."""
    expected = Training(datasets["one size"], "adam").run(5)
    with gpu_like():
        found = Training(datasets["one size"], "adam", capture=RecordedOperations())
        found.potential.compile(backend="python")
        found.run(5)
    assert found.potential.why_eager() is None
    assert (found.capture.recordings, found.capture.replays) == (1, 3)  # after two steps without
    assert_same(found, expected, 1e-10)


def test_smaller_batches_have_the_weight_of_their_size(datasets):
    def size(step):
        return BATCH if step % 3 else 2

    expected = Training(datasets["one size"], "adam").run(8, size)
    with gpu_like():
        found = Training(datasets["one size"], "adam", capture=RecordedOperations()).run(8, size)
    assert found.capture.recordings == 2
    assert_same(found, expected, 1e-10)


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_resumed_training_goes_on_as_if_it_had_never_stopped(datasets, tmp_path, optimizer):
    with gpu_like():
        expected = Training(datasets["one size"], optimizer, capture=RecordedOperations()).run(4)
        expected.state.save(tmp_path / "last.safetensors")
        expected.run(8)
        resumed = Training(datasets["one size"], optimizer, capture=RecordedOperations(), seed=1)
        resumed.state.restore(tmp_path / "last.safetensors")
        resumed.run(8)
    # On the CPU, a step operation by operation rounds as a recorded one.
    assert_same(resumed, expected, 0)


@pytest.mark.parametrize("kind", ["one size", "crystals"])
def test_repeated_steps_are_a_few_launches_without_synchronization(datasets, kind):
    """On GPUs, steps are captured by default: beside the graph, a batch is cut and copied."""
    with gpu_like():
        training = Training(datasets[kind], "adam", clip_norm=1.0, capture=RecordedOperations()).run(5)
        (bucket,) = training.step._buckets.values()
        replay, bucket.replay = bucket.replay, lambda: None
        with LaunchCounter() as counter:
            training.run(1)
    assert replay is not None
    # Indices of the structures are on the host.
    assert all("torch.Tensor.tolist" in place for place in counter.synchronizations), counter.report()
    assert 1 + counter.launches <= (61 if kind == "crystals" else 31), counter.report()


def test_a_loss_that_is_no_number_is_found_later_with_its_step_and_structures(datasets):
    dataset = datasets["one size"]
    with gpu_like():
        training = Training(dataset, "adam", capture=RecordedOperations()).run(3)
        labels = training.step._eager.data._labels["energy"]
        step, ids = 5, None
        kept = labels.clone()
        for number in range(3, 8):
            if number == step:
                labels.fill_(torch.nan)
            training.run(1)
            labels.copy_(kept)
        counters = training.state.counters
        ids = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(step))[:BATCH]
        with pytest.raises(FloatingPointError) as error:
            training.recent.check(counters)
    assert (
        f"the loss is nan after {step} steps, for the structures {', '.join(map(str, ids.tolist()))};"
        in str(error.value)
    )


class Failing(RecordedOperations):
    def capture(self, warm_up, function):
        super().capture(warm_up, function)
        raise RuntimeError("CUDA error: operation not permitted\nmore lines")


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_where_recording_fails_the_training_goes_on_after_one_line(trained, optimizer):
    expected = trained("one size", optimizer).run(5)
    with gpu_like():
        found = trained("one size", optimizer, capture=Failing()).run(5)
    assert found.report.lines == ["Steps are not captured: CUDA error: operation not permitted."]
    assert_same(found, expected, 1e-10)


def test_waiting_for_the_device_cannot_be_recorded(datasets, monkeypatch):
    original = TrainingStep.clip

    def clip(self):
        norm = original(self)
        assert norm is not None
        return norm.clone().fill_(norm.item())

    monkeypatch.setattr(TrainingStep, "clip", clip)
    with gpu_like():
        found = Training(datasets["one size"], "adam", clip_norm=1.0, capture=RecordedOperations()).run(4)
    assert found.report.lines == ["Steps are not captured: operation not permitted when stream is capturing."]
    assert found.capture.replays == 0


def test_parts_of_a_batch_that_is_too_large_are_not_captured(datasets):
    with gpu_like():
        found = Training(datasets["one size"], "adam", capture=RecordedOperations())
        expected = Training(datasets["one size"], "adam")
        for training in (found, expected):
            for number in range(4):
                ids = torch.arange(BATCH) + number
                loss, _ = training.step(ids, list(ids.split(2)), lambda: ())
                training.losses.append(loss)
    assert found.capture.recordings == 0
    assert_same(found, expected, 1e-10)


def test_the_least_recently_used_bucket_is_replaced(datasets, monkeypatch):
    monkeypatch.setattr(captured_step, "_MAX_BUCKETS", 2)
    with gpu_like():
        training = Training(datasets["one size"], "adam", capture=RecordedOperations())
        sizes = (1, 1, 1, 2, 2, 1, 4, 4, 1, 2, 2)  # 4 replaces 2, which is recorded anew
        training.run(len(sizes), sizes.__getitem__)
        assert len(training.step._buckets) == 2
    assert training.capture.recordings == 4
    assert training.capture.replays == 6


def test_new_knots_of_filter_tables_are_recorded(datasets, monkeypatch):
    with gpu_like():
        training = Training(datasets["one size"], "adam", capture=RecordedOperations()).run(5)
        before = training.capture.recordings
        tables = training.potential.model.filter_tables
        finer = list(tables.features(training.potential.model)._candidates())[1]
        monkeypatch.setattr(tables, "features", lambda model: finer)
        training.run(5)  # the eighth step looks
    assert (before, training.capture.recordings) == (1, 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"compile": False}, "`trainer.compile` is false"),
        ({"device": "mps"}, "cpu has no CUDA graphs"),
        ({"world_size": 2}, "2 processes sum their gradients in each step"),
        ({"model": torch.nn.Linear(1, 1)}, "Linear is not a SchNet"),
        ({"collated": True}, "pairs are found in each step"),
        ({"hook": "module"}, "the model has hooks"),
        ({"hook": "weight"}, "the model has hooks"),
    ],
    ids=str,
)
def test_why_steps_are_not_captured_is_one_line(datasets, monkeypatch, change, reason):
    with gpu_like():
        step = Training(datasets["one size"], capture=RecordedOperations()).step._eager
        if "device" not in change:
            monkeypatch.setitem(captured_step.CAPTURES, "cpu", RecordedOperations)
        if "world_size" in change:
            step.processes.world_size = change["world_size"]
        if "model" in change:
            step.loss.potential.model = change["model"]
        if "collated" in change:
            step.data = CollatedBatches(datasets["one size"], torch.device("cpu"))
        if change.get("hook") == "module":
            step.loss.potential.model.embedding.register_forward_hook(lambda *arguments: None)
        if change.get("hook") == "weight":
            step.loss.potential.model.embedding.weight.register_hook(lambda gradient: None)
        report = Lines()
        chosen = choose_step(step, TrainerConfig(compile=change.get("compile", "auto")), report)
    assert isinstance(chosen, CapturedStep) == (reason is None)
    assert report.lines == ([] if reason is None else [f"Steps are not captured: {reason}."])


def test_steps_on_a_cpu_are_not_captured_without_a_word(datasets):
    step, report = Training(datasets["one size"]).step, Lines()
    assert choose_step(step, TrainerConfig(), report) is step
    assert report.lines == []


def test_a_run_captures_its_steps_and_validates_the_weights_that_they_changed(
    recipe, report, tmp_path, monkeypatch
):
    """Tables that a validation keeps for weights must not be those of weights before a repeated step."""

    def run(out):
        config = recipe(
            out, {"filters": "spline"}, precision="float64", optimizer="adam", max_steps=9, val_every=3,
            schedule="constant", lr=2.0**-8, ema_decay=0.5,
        )  # fmt: skip
        progress = report()
        return train(config, progress).read_metrics(), progress.text.getvalue()

    monkeypatch.setattr(importlib.import_module("pyg_schnet.training.run"), "plot_learning_curve", print)
    expected, _ = run("ordinary")
    capture = RecordedOperations()
    with gpu_like():
        monkeypatch.setitem(captured_step.CAPTURES, "cpu", lambda device: capture)
        found, text = run("captured")
    assert capture.replays == 7
    assert "not captured" not in text
    for ours, theirs in zip(found, expected, strict=True):
        times = {"minutes": theirs["minutes"]}
        assert ours | times == pytest.approx(theirs, rel=1e-8)
    errors = [row["val_forces_mae_eV_per_A"] for row in found]
    assert errors[1] != pytest.approx(errors[0], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["mixed sizes", "crystals"])
@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_cuda_graphs_repeat_the_ordinary_step(trained, optimizer, kind):
    expected = trained(kind, optimizer, 0.05, device="cuda").run(50)
    found = trained(kind, optimizer, 0.05, captured_step.CudaGraphs(torch.device("cuda")), "cuda").run(49)
    try:
        torch.cuda.set_sync_debug_mode("error")  # the 50th step of this run neither refreshes nor measures
        found.run(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.report.lines == []
    assert any(bucket.replay is not None for bucket in found.step._buckets.values())
    # Sums in other orders; float64.
    assert_same(found, expected, 1e-8)
