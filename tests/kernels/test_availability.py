"""Which devices have kernels, and the one line about those that have none."""

import logging
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

from pyg_schnet.kernels import availability, has_kernels, unavailable_reason


def like(device, dtype=torch.float32):
    """Stand in for a tensor on a device that this machine lacks."""
    return SimpleNamespace(device=torch.device(device), dtype=dtype)


@pytest.fixture
def machine(monkeypatch):
    """A machine with some GPU, and Triton or not."""
    monkeypatch.delenv("PYG_SCHNET_NATIVE", raising=False)
    availability.missing_on.cache_clear()

    def of(triton="3.6.0", capability=(9, 0), compiler="/usr/bin/gcc"):
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: compiler)
        installed = None if triton is None else SimpleNamespace(__version__=triton)
        monkeypatch.setitem(sys.modules, "triton", installed)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    yield of
    availability.missing_on.cache_clear()


def test_cuda_with_triton_has_kernels(machine):
    machine(capability=(8, 0))
    assert has_kernels(like("cuda:1"))
    assert has_kernels(like("cuda:1", torch.float64))


@pytest.mark.parametrize(
    ("device", "machines", "message"),
    [
        ("cuda:0", {"triton": None}, "Triton is not installed; install it: pip install triton"),
        (
            "cuda:0",
            {"triton": "3.5.1+git"},
            "kernels need Triton 3.6 or newer, got 3.5.1+git; update to PyTorch 2.10 or newer",
        ),
        (
            "cuda:1",
            {"capability": (7, 5)},
            "kernels need a GPU of compute capability 8.0 or newer, cuda:1 has 7.5",
        ),
        ("cuda:0", {"compiler": None}, "Triton needs a C compiler, and there is none; install gcc"),
        ("mps:0", {}, "there are kernels for CPUs and NVIDIA's GPUs only, not for mps:0"),
        ("xpu:0", {}, "there are kernels for CPUs and NVIDIA's GPUs only, not for xpu:0"),
    ],
    ids=["no Triton", "old Triton", "old GPU", "no compiler", "MPS", "XPU"],
)
def test_a_device_without_kernels_is_logged_once_in_one_line(machine, caplog, device, machines, message):
    machine(**machines)
    with caplog.at_level(logging.WARNING):
        assert not any(has_kernels(like(device)) for _ in range(3))
    assert unavailable_reason(like(device)).startswith(message)
    (logged,) = caplog.messages
    assert message in logged
    assert "plain PyTorch" in logged
    assert "\n" not in logged


def test_kernels_for_gpus_can_be_switched_off(machine, monkeypatch):
    machine()
    monkeypatch.setenv("PYG_SCHNET_NATIVE", "0")
    assert not has_kernels(like("cuda:0"))
    assert unavailable_reason(like("cuda:0")) == "switched off by PYG_SCHNET_NATIVE=0"


def test_other_types_have_no_kernels_on_gpus(machine):
    machine()
    tensor = like("cuda:0", torch.bfloat16)
    assert not has_kernels(tensor)
    assert (
        unavailable_reason(tensor) == "there are kernels for float32 and float64 only, not for torch.bfloat16"
    )


def test_tensors_without_memory_are_not_logged(caplog):
    assert not has_kernels(torch.zeros(1, device="meta"))
    assert not caplog.messages
