"""The counter of launches and synchronizations counts what a GPU would launch and wait for."""

import pytest
import torch

from pyg_schnet import Potential, SchNet
from pyg_schnet.kernels import on_accelerator
from tests.gpu_like import LaunchCounter, gpu_like


def test_cpu_tensors_are_on_an_accelerator_in_the_body_alone():
    assert not on_accelerator(torch.ones(1))
    with gpu_like():
        assert on_accelerator(torch.ones(1))
    assert not on_accelerator(torch.ones(1))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.repeat_interleave(torch.ones(3, dtype=torch.long)),
        lambda x: torch.equal(x, x),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: torch.tensor([1.0, 2.0]),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.linalg.inv(x.diag()),
    ],
)
def test_reading_a_value_synchronizes(wait):
    x = torch.rand(3) + 1
    with LaunchCounter() as counter, torch.no_grad():
        wait(x)
    assert counter.synchronizations.total() == 1, counter.report()


def test_arithmetic_does_not_synchronize_and_views_launch_nothing():
    x, index = torch.rand(3, 3), torch.zeros(4, dtype=torch.long)
    with LaunchCounter() as counter:
        y = (x.t() + 1).index_select(0, index).double()  # three launches
        y[1:].view(-1), y.to(torch.float64), torch.empty_like(y)
    assert counter.launches == 3, counter.report()
    assert not counter.synchronizations


def test_operations_and_their_derivatives_are_counted(ethanol):
    potential = Potential(SchNet.paper(filters="spline")).train()
    with gpu_like(), LaunchCounter() as counter:
        potential(ethanol)["forces"].square().sum().backward()
    assert counter.operations["convolve"] == counter.operations["convolve_double_backward"] == 3
    assert counter.launches >= sum(counter.operations.values())
