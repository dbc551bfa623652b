"""Checks of any model against physics: symmetry, derivatives, smoothness, precision, conservation, limits."""

from pyg_schnet.checks.examination import CHECKS as CHECKS
from pyg_schnet.checks.examination import check as check
from pyg_schnet.checks.finding import Finding as Finding
from pyg_schnet.checks.finding import Report as Report
