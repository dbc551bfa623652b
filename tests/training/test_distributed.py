"""Two processes train what one would, end together, and lose nothing where one of them is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from lightning_fabric import Fabric
from safetensors.torch import load_file

from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training import (
    DataConfig,
    FabricConfig,
    Report,
    RunDirectory,
    TrainConfig,
    TrainerConfig,
    train,
)
from pyg_schnet.training.distributed import Processes, ProcessLostError

SHAPES = {
    "OH2": [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.8, -0.44]],
    "NH3": [[0.0, 0.0, 0.1], [0.0, 0.95, -0.3], [0.81, -0.47, -0.27], [-0.81, -0.47, -0.3]],
}
STEP = {
    "optimizer": "adam",
    "precision": "float64",
    "compile": False,
    "max_steps": 1,
    "val_every": 1,
    "batch_size": 5,
}
SMALL = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 12, "cutoff": 4.0}


def write(path, number, seed, periodic=(), energies_only=False):
    """Structures of two sizes with made-up labels; some periodic, with stresses."""
    draw, frames = np.random.default_rng(seed), []
    for k in range(number):
        formula = list(SHAPES)[k % 2]
        atoms = Atoms(formula)
        atoms.positions = np.array(SHAPES[formula]) + 0.05 * draw.normal(size=(len(atoms), 3))
        labels = {"energy": -1250.0 * len(atoms) + draw.normal(), "forces": draw.normal(size=(len(atoms), 3))}
        if energies_only:
            del labels["forces"]
        if periodic:
            atoms.set_cell([6.0, 6.5, 7.0])
            atoms.pbc = k in periodic
            labels["stress"] = 0.01 * draw.normal(size=6)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write(path, frames)
    return str(path)


def recipe(folder, name, path, val, **trainer):
    model = SMALL | {key: trainer.pop(key) for key in ("filters",) if key in trainer}
    return TrainConfig(
        DataConfig(path, val), SchNetConfig(**model), TrainerConfig(**STEP | trainer), str(folder / name),
        FabricConfig("cpu"),
    )  # fmt: skip


def quietly(config, resume=False):
    return train(config, Report(), resume=resume)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(rank=None):
    """The environment of a process of a job of two, as torchrun makes it; or one of no job."""
    own = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
    own |= {"OMP_NUM_THREADS": "1"}
    if rank is not None:
        own |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_USE_AGENT_STORE": "False",
        }  # fmt: skip
    return own


RUNS = {  # name: what differs from one step of Adam on five structures, of which the processes have 2 and 3
    "eager": {},
    "compiled": {"compile": True, "filters": "spline"},
    "energies": {"data": "energies"},
    "periodic": {"data": "periodic"},
    "clipped": {"clip_norm": 0.1},
    "single": {"batch_size": 1, "max_steps": 2},
    "edges": {"batch_edges": 20, "max_steps": 4, "val_every": 4},
    "stored": {"data_device": "cpu", "data": "periodic"},
    "soap": {"optimizer": "soap", "max_steps": 21, "val_every": 20},
}


STOPS = {"stopped in a step": ("step", 2), "stopped in a validation": ("validation", 4)}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Train all recipes by two processes, and by one; give both folders and what the two told."""
    folder = tmp_path_factory.mktemp("jobs")
    files = {
        "forces": (write(folder / "f.xyz", 14, 1), write(folder / "fv.xyz", 5, 2)),
        "energies": (
            write(folder / "e.xyz", 14, 3, energies_only=True),
            write(folder / "ev.xyz", 5, 4, energies_only=True),
        ),
        # Of the two that validate, one process has the periodic one; of the one, one has none.
        "periodic": (write(folder / "p.xyz", 14, 5, range(0, 14, 3)), write(folder / "pv.xyz", 3, 6, [1])),
    }
    two, one = folder / "two", folder / "one"
    plan = {}
    for name, changes in RUNS.items():
        own = dict(changes)
        paths = files[own.pop("data", "forces")]
        config = recipe(one, name, *paths, **own)
        if name == "soap":  # its first steps rotate by whatever rounding left in empty directions
            before = recipe(two, name, *paths, **own | {"max_steps": 20, "schedule": "constant"})
            quietly(before)
            quietly(recipe(one, name, *paths, **own | {"max_steps": 20, "schedule": "constant"}))
            config = recipe(one, name, *paths, **own | {"schedule": "constant"})
        quietly(config, resume=name == "soap")
        plan[name] = [asdict(config) | {"out": str(two / name)}, name == "soap"]
    wrong = asdict(recipe(two, "nan", *files["forces"], lr=1e30, max_steps=9, val_every=9))
    plan["nan"] = [wrong, False]
    elsewhere = asdict(recipe(two, "elsewhere", *files["forces"]))
    elsewhere["data"]["path"] = f"only process 0 sees {files['forces'][0]}"
    plan["elsewhere"] = [elsewhere, False]
    for name, when in STOPS.items():
        stopped = asdict(recipe(two, name, *files["forces"], max_steps=9, val_every=4))
        plan[name] = [stopped | {"stop": when}, False]
    absent = asdict(recipe(two, "absent", "absent.xyz", files["forces"][1]))
    plan["absent"] = [absent, False]
    (folder / "plan.json").write_text(json.dumps(plan))
    script, port = Path(__file__).with_name("one_of_two.py"), str(free_port())
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder / "plan.json")],
            env=environment(rank) | {"MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    return one, two, [json.loads((folder / f"told{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.process
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_make_the_step_of_one(jobs, name):
    one, two, told = jobs
    assert [job[name] for job in told] == ["done", "done"]
    first, second = (load_file(folder / name / "last.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert (one / name / "config.yaml").exists()
    for key, tensor in first.items():
        torch.testing.assert_close(second[key], tensor, rtol=1e-12, atol=1e-12, msg=key)
    averages = (load_file(folder / name / "model.safetensors") for folder in (one, two))
    for tensor, other in zip(*(weights.values() for weights in averages), strict=True):
        torch.testing.assert_close(other, tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.process
@pytest.mark.parametrize("name", RUNS)
def test_errors_are_those_of_all_structures_each_once(jobs, name):
    rows = [RunDirectory(folder / name).read_metrics() for folder in jobs[:2]]
    for one, two in zip(*rows, strict=True):
        assert two.keys() == one.keys()
        assert {k: v for k, v in two.items() if k != "minutes"} == pytest.approx(
            {k: v for k, v in one.items() if k != "minutes"}, rel=1e-12
        )


@pytest.mark.process
def test_stresses_are_measured_where_only_one_process_has_some(jobs):
    assert "val_stress_mae_eV_per_A3" in RunDirectory(jobs[1] / "periodic").read_metrics()[0]


@pytest.mark.process
def test_a_loss_that_explodes_ends_both_with_the_same_message(jobs):
    first, second = (told["nan"] for told in jobs[2])
    assert re.match(r"FloatingPointError: the loss is (nan|inf) after \d steps, for the structures ", first)
    assert second == first


@pytest.mark.process
def test_a_file_that_another_process_does_not_see_ends_both(jobs):
    told = [job["elsewhere"] for job in jobs[2]]
    assert re.match(r"ProcessLostError: process 1 of 2 could not start.* files", told[0])
    assert told[1].startswith("FileNotFoundError")


@pytest.mark.process
@pytest.mark.parametrize(("name", "last"), [("stopped in a step", 3), ("stopped in a validation", 4)])
def test_a_callback_of_rank_0_ends_both_after_the_same_validation(jobs, name, last):
    assert [job[name] for job in jobs[2]] == ["done", "done"]
    assert [row["step"] for row in RunDirectory(jobs[1] / name).read_metrics()] == [last]


@pytest.mark.process
def test_what_is_wrong_for_all_is_told_by_the_first(jobs):
    told = [job["absent"] for job in jobs[2]]
    assert told[0].startswith("FileNotFoundError: absent.xyz")
    assert told[1] == "SystemExit: 1"
    assert not (jobs[1] / "absent").exists()


@pytest.fixture
def endless(tmp_path):
    """Start the command of a run that does not end by itself, as one of two processes or alone."""
    path, val = write(tmp_path / "f.xyz", 14, 1), write(tmp_path / "fv.xyz", 5, 2)
    config = recipe(tmp_path, "run", path, val, max_steps=10**6, val_every=20, schedule="constant")
    entries = asdict(config)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(entries))
    port, started = str(free_port()), []

    def start(rank, *options):
        command = [sys.executable, "-m", "pyg_schnet.cli", "train", str(tmp_path / "recipe.yaml"), *options]
        own = environment(rank) | ({} if rank is None else {"MASTER_PORT": port})
        started.append(
            subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield config, start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_rows(run, rows, process):
    until = time.monotonic() + 120
    while len(run.read_metrics()) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no validation in two minutes"
        time.sleep(0.02)


@pytest.mark.process
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_and_one_alone_goes_on(endless, lost):
    config, start = endless
    processes, run = [start(0), start(1)], RunDirectory(config.out)
    wait_for_rows(run, 2, processes[0])
    processes[lost].send_signal(signal.SIGKILL)
    _, told = processes[1 - lost].communicate(timeout=60)
    assert processes[1 - lost].returncode == 1
    step = checkpoint.read(run.last, "training state")[0]["counters"]["step"]
    message = (
        r"pyg-schnet: another of the 2 processes of this run ended \(.*\), killed or out of memory .*; "
        rf"{re.escape(str(run.last))} holds (.*); resume with --resume\n"
    )
    found = re.fullmatch(message, told)
    assert found, told
    assert found[1] == (f"all {step:,} steps" if lost == 1 else "the last checkpoint")
    alone = start(None, "--resume", "--trainer.max_steps", str(step + 25))
    assert alone.communicate(timeout=60)[1] == ""
    assert alone.returncode == 0
    steps = [row["step"] for row in run.read_metrics()]
    assert steps == [*range(20, step + 25, 20), step + 25]


@pytest.mark.process
def test_a_killed_child_ends_the_command_with_a_message_and_a_checkpoint(endless):
    config, start = endless
    command, run = start(None, "--fabric.devices", "2"), RunDirectory(config.out)
    wait_for_rows(run, 2, command)
    (child,) = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    _, told = command.communicate(timeout=60)
    step = checkpoint.read(run.last, "training state")[0]["counters"]["step"]
    assert command.returncode == 1, told
    assert told.startswith("pyg-schnet: another of the 2 processes of this run ended")
    assert f"holds all {step:,} steps; resume with --resume" in told


def test_a_process_that_is_lost_before_a_validation_leaves_it_to_the_next(recipe_of, monkeypatch):
    config = recipe_of(max_steps=10, val_every=5)
    original = Processes.broadcast

    def lose(self, *tensors):
        if not tensors[0].is_floating_point():  # before the training
            return
        monkeypatch.setattr(Processes, "broadcast", original)
        raise ProcessLostError("another ended")

    monkeypatch.setattr(Processes, "broadcast", lose)
    with pytest.raises(ProcessLostError, match=r"another.*5.*steps.*--resume"):
        quietly(config)
    quietly(config, resume=True)
    assert [row["step"] for row in RunDirectory(config.out).read_metrics()] == [5, 10]


def test_another_view_of_the_run_is_refused(monkeypatch):
    processes = Processes(Fabric(accelerator="cpu", devices=1))
    processes.require_identical("data")
    monkeypatch.setattr(Processes, "broadcast", lambda self, first: first.zero_())
    with pytest.raises(ValueError, match=r"^process.*0.*1.*folder"):
        processes.require_identical("data")


@pytest.fixture
def recipe_of(tmp_path):
    path, val = write(tmp_path / "f.xyz", 14, 1), write(tmp_path / "fv.xyz", 5, 2)
    return lambda **trainer: recipe(tmp_path, "run", path, val, **trainer)


@pytest.mark.process
def test_a_signal_to_one_process_ends_both_after_their_step(endless):
    config, start = endless
    processes, run = [start(0), start(1)], RunDirectory(config.out)
    wait_for_rows(run, 1, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    (told, wrong), (silence, nothing) = (process.communicate(timeout=60) for process in processes)
    assert (silence, nothing) == ("", "")
    step = checkpoint.read(run.last, "training state")[0]["counters"]["step"]
    assert (
        told.splitlines()[-1]
        == f"Interrupted after step {step:,}, saved in {run.last}; resume with --resume."
    )
    assert processes[1].returncode == 0
    assert processes[0].returncode not in (0, 1), wrong


@pytest.mark.process
def test_a_command_starts_as_many_processes_as_it_is_told(endless):
    config, start = endless
    options = ["--trainer.max_steps", "3", "--fabric.devices", "2", "--fabric.strategy", "ddp"]
    told, wrong = start(None, *options).communicate(timeout=120)
    assert wrong == ""
    assert told.count("Training on 14 structures") == 1
    assert "2 processes" in told
    assert RunDirectory(config.out).read_metrics()[0]["step"] == 3


def test_torchruns_number_of_processes_is_not_contradicted(monkeypatch):
    for name, value in environment(0).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"^`fabric.devices`.*`fabric.num_nodes`.*2.*1"):
        Processes.start(FabricConfig("cpu", devices=4))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_parts_of_a_batch_are_all_of_it_and_of_equal_work(count):
    work = torch.randint(0, 500, (64,), generator=torch.Generator().manual_seed(count))
    ids = torch.randperm(64, generator=torch.Generator().manual_seed(0))[:40]
    parts = []
    for rank in range(count):
        processes = Processes(Fabric(accelerator="cpu", devices=1))
        processes.rank, processes.world_size = rank, count
        parts.append(processes.shard(ids, work))
    assert sorted(torch.cat(parts).tolist()) == sorted(ids.tolist())
    loads = [int(work[part].sum()) for part in parts]
    assert max(loads) - min(loads) <= int(work[ids].max())


def test_alone_all_is_as_if_there_were_no_processes():
    processes = Processes(Fabric(accelerator="cpu", devices=1))
    ids, loss = torch.arange(5), torch.tensor(2.0)
    assert processes.shard(ids, None) is ids
    assert processes.all_reduce(torch.ones(3), loss, (1.0,)) == (loss, (1.0,))
    with pytest.raises(KeyError), processes.collective_errors():
        raise KeyError
