"""Fixtures of tests of compiled potentials."""

import pytest

KEPT = {}


@pytest.fixture(autouse=True)
def share_programs(monkeypatch):
    """Let potentials share programs with those of the same name only; by default a test makes its own."""

    def share(name=None):
        shared = {} if name is None else KEPT.setdefault(name, {})
        monkeypatch.setattr("pyg_schnet.compile.compiled.SHARED", shared)

    share()
    return share
