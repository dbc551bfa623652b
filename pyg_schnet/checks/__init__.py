"""Checks of a model against physics: symmetry, derivatives, smoothness, precision, conservation, limits."""

from typing import Any

from pyg_schnet.checks.result import CheckResult as CheckResult
from pyg_schnet.checks.result import Report as Report
from pyg_schnet.checks.runner import CHECKS as CHECKS
from pyg_schnet.checks.runner import check as check


def __getattr__(name: str) -> Any:
    """Find a class by its name in version 0.1."""
    if name == "Finding":
        return CheckResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
