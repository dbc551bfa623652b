"""Fixtures of tests of compiled potentials."""

import pytest
import torch

from pyg_schnet.compile import program as programs

KEPT = {}


# The Python backend is the fallback: the unit tests run it once for each kind of call.
@pytest.fixture(params=["c", pytest.param("python", marks=pytest.mark.process)])
def backend(request, monkeypatch):
    """Each backend in turn."""

    def refuse(*arguments):
        raise programs.Unsupported("no backend but Python")

    if request.param == "python":
        monkeypatch.setattr(programs, "CProgram", refuse)
    return request.param


@pytest.fixture
def threads():
    """Set torch's number of threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def share_programs(monkeypatch):
    """Let potentials share programs with those of the same name only; by default a test makes its own."""

    def share(name=None):
        shared = {} if name is None else KEPT.setdefault(name, {})
        monkeypatch.setattr("pyg_schnet.compile.compiled.SHARED", shared)

    share()
    return share
