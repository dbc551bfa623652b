"""One potential in many threads, each with structures of its own, computes what one thread computes."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12}
MODELS = {
    "cutoff": lambda: SchNet(**TINY, cutoff=5.0),
    "all pairs": lambda: SchNet.paper(**{**TINY, "num_gaussians": 301}, zero_output=False),
}


@pytest.fixture
def switching():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def structures(number, periodic=False):
    """Random structures of random size, unlike those of other numbers, without close atoms."""
    generator = torch.Generator().manual_seed(number)
    found = []
    for atoms in (2 + number % 9, 12, 5 + number % 7):
        grid = torch.cartesian_prod(*[torch.arange(3)] * 3).double()[torch.randperm(27, generator=generator)]
        pos = (1.3 + 0.02 * number) * grid[:atoms] + 0.3 * torch.rand(atoms, 3, generator=generator).double()
        data = Data(z=torch.randint(1, 9, (atoms,), generator=generator), pos=pos)
        if periodic:
            data.cell, data.pbc = (5.0 + 0.02 * number) * torch.eye(3).double()[None], torch.ones(1, 3).bool()
        found.append(data)
    return found


def evaluate(potential, own, calls, forces):
    return torch.stack([potential(own[k % len(own)], forces=forces)["energy"][0] for k in range(calls)])


def check(model, forces, compiled, periodic, threads, calls):
    potential = Potential(model).eval()
    if compiled != "eager":
        potential.compile(constant=compiled == "constant")
    own = [structures(number, periodic) for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        tasks = [pool.submit(evaluate, potential, mine, calls, forces) for mine in own]
        found = [task.result() for task in tasks]
    alone = Potential(model).eval()
    for number, mine in enumerate(own):
        expected = evaluate(alone, mine, len(mine), forces)[torch.arange(calls) % len(mine)]
        # Sums of float32 in another order; energies are tens of eV, and another structure's differ by eV.
        assert_close(found[number], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("periodic", [False, True], ids=["molecules", "crystals"])
@pytest.mark.parametrize("forces", [False, True], ids=["energies", "forces"])
def test_eight_threads_compute_what_one_does(forces, periodic, randomize):
    check(randomize(MODELS["cutoff"]()), forces, "eager", periodic, threads=8, calls=40)


@pytest.mark.usefixtures("switching")
def test_eight_threads_compute_what_one_does_with_programs_made_in_between(randomize):
    check(randomize(MODELS["all pairs"]()), True, "compiled", False, threads=8, calls=40)


@pytest.mark.nightly  # ten minutes
@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("compiled", ["eager", "compiled", "constant"])
@pytest.mark.parametrize("forces", [False, True], ids=["energies", "forces"])
@pytest.mark.parametrize(
    ("name", "periodic"), [("cutoff", False), ("cutoff", True), ("all pairs", False)], ids=str
)
def test_32_threads_compute_what_one_does_a_thousand_times(name, periodic, forces, compiled, randomize):
    check(randomize(MODELS[name]()), forces, compiled, periodic, threads=32, calls=1000)
