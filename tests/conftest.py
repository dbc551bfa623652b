"""Hooks of all tests; what needs PyTorch is in ``fixtures``, imported by the processes that run tests."""

from __future__ import annotations

import gc
import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures; pytest-xdist's first process only hands tests out, and the others wait for it."""
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect without searching for garbage, which takes half as long again, and keep modules out of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Do not ignore Ctrl-C, as a shell's background job does, and the commands that the tests start would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
