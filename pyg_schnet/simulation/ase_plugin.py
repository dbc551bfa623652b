"""Plugin of ASE: the calculator by the name ``schnet``, which ``ase info --plugins`` lists.

ASE 3.29 reads ``__ase_plugins__`` of modules in its group of entry points ``ase.plugins``. The classes of its
plugins are not public yet; where they are not found, there is no plugin.
"""

from __future__ import annotations

from typing import Any

__ase_plugins__: set[Any] = set()

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:
    pass
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            "schnet",
            citation="Schütt et al., NeurIPS 2017, arXiv:1706.08566",
            implementation="pyg_schnet.simulation.calculator.SchNetCalculator",
        )
    }
