"""How a run computes: what is chosen, what is said, and that it does not change the result."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml

from pyg_schnet import Potential, SchNet
from pyg_schnet.compile.c_backend import CProgram
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import collate
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.training import execution
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.device_data import TrainingBatch
from pyg_schnet.training.execution import choose_execution

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
SMALL = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2}


@pytest.fixture
def batch():
    return collate(AtomsDataset(path=SAMPLE, dtype=torch.float32), range(8))


@pytest.fixture
def lines():
    class Report(list):
        def line(self, text):
            self.append(text)

    return Report()


@pytest.fixture(autouse=True)
def threads():
    yield
    torch.set_num_threads(1)


def small(**changes):
    torch.manual_seed(0)
    return Potential(SchNet.paper(**SMALL, zero_output=False, **changes)).train()


def choose(potential, batch, lines, steps=10_000, **options):
    sample = TrainingBatch(batch, None, {"forces": True})
    choose_execution(potential, sample, TrainerConfig(**options), steps, lines)
    return potential


def test_a_short_run_stays_eager_and_says_so(batch, lines):
    assert choose(small(), batch, lines, steps=100).compiled is None
    assert lines == ["Not compiled: 100 steps are too few for compilation to save time."]


def test_a_short_run_is_compiled_if_it_must_be(batch, lines):
    assert choose(small(), batch, lines, steps=1, compile=True).compiled is not None


def test_a_long_run_is_compiled_and_says_so(batch, lines):
    potential = choose(small(), batch, lines, threads=1)
    assert potential.why_eager() is None
    assert len(lines) == 1
    assert re.fullmatch(r"Compiled in \d+\.\d s; 1 thread\.", lines[0])


def test_nothing_of_the_potential_changes(batch, lines):
    potential = small()
    before = {name: value.clone() for name, value in potential.state_dict().items()}
    choose(potential, batch, lines)
    assert all(torch.equal(before[name], value) for name, value in potential.state_dict().items())
    assert all(parameter.grad is None for parameter in potential.parameters())


def test_a_run_is_not_compiled_if_it_must_not_be(batch, lines):
    assert choose(small(), batch, lines, compile=False).compiled is None
    assert lines == []


def test_what_cannot_be_compiled_runs_eagerly_with_one_line(batch, lines):
    assert choose(small(filters="exact"), batch, lines).compiled is None
    assert lines == ["Not compiled: filters='exact' is not compiled."]


def test_what_must_be_compiled_and_cannot_is_an_error(batch, lines):
    message = "`trainer.compile` is true, but filters='exact' is not compiled; use 'auto' or false"
    with pytest.raises(RuntimeError, match=f"^{message}$"):
        choose(small(filters="exact"), batch, lines, compile=True)


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [({1: 8, 2: 5, 4: 3, 8: 4}, 4), ({1: 8, 2: 7.9}, 1), ({1: 8, 2: 30}, 1)],
    ids=["four", "no gain", "busy machine"],
)
def test_threads_are_added_as_long_as_they_pay(batch, lines, monkeypatch, milliseconds, chosen):
    monkeypatch.setattr(execution.os, "cpu_count", lambda: 8)
    real = execution._time_step

    def step(potential, *arguments):
        real(potential, *arguments)
        return milliseconds[torch.get_num_threads()] / 1000

    monkeypatch.setattr(execution, "_time_step", step)
    choose(small(), batch, lines)
    assert torch.get_num_threads() == chosen
    assert lines[-1].endswith("1 thread." if chosen == 1 else f"{chosen} threads.")


def test_given_threads_are_taken(batch, lines):
    choose(small(), batch, lines, threads=2)
    assert torch.get_num_threads() == 2


def networks():
    """Return the networks of the shipped recipes, each once, with the fewest steps that train it."""
    found = {}
    for path in sorted((ROOT / "datasets").glob("*/recipes/*.yaml")):
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
        config, steps = SchNetConfig(**options["model"]), options["trainer"]["max_steps"]
        if config not in found or steps < found[config][1]:
            found[config] = path.stem, steps
    unit = ("mlearn", "mu")  # one with a cutoff and one with a dipole; `small` is like the others
    return [
        pytest.param(config, steps, id=name, marks=() if name in unit else pytest.mark.process)
        for config, (name, steps) in found.items()
    ]


@pytest.mark.parametrize(("config", "steps"), networks())
def test_each_network_of_the_recipes_is_compiled_to_c(config, steps, batch, lines):
    potential = Potential(SchNet(**asdict(replace(config, zero_output=False)))).train()
    choose(potential, batch, lines, steps=steps, threads=1)
    assert lines[-1].startswith("Compiled in ")
    programs = potential.compiled._programs.values()
    # A dipole's readout is compiled to Python: the C backend lacks some of its operations.
    assert [type(program) is CProgram for program in programs] == [not config.dipole]


def test_weights_do_not_depend_on_the_number_of_threads(lines):
    batch = collate(AtomsDataset(path=SAMPLE, dtype=torch.float32), range(32))
    trained = []
    for threads in (1, 2):
        potential = choose(small(), batch, lines, threads=threads)
        optimizer = torch.optim.Adam(potential.parameters(), 1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            out = potential(batch)
            (out["energy"].square().mean() + out["forces"].square().mean()).backward()
            optimizer.step()
        trained.append(potential.state_dict())
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
