"""Checks of a model against physics: symmetry, derivatives, smoothness, precision, conservation, limits."""

from pyg_schnet.checks.result import CheckResult as CheckResult
from pyg_schnet.checks.result import Report as Report
from pyg_schnet.checks.runner import CHECKS as CHECKS
from pyg_schnet.checks.runner import check as check
