"""ASE finds the calculator among its plugins."""

import subprocess
import sys

import pytest

from pyg_schnet.simulation import SchNetCalculator

ase_plugins = pytest.importorskip("ase._4.plugins", reason="older releases of ASE have no plugins")


def test_the_plugin_is_the_calculator(monkeypatch):
    from importlib.metadata import EntryPoint

    found = EntryPoint("schnet", "pyg_schnet.simulation.ase_plugin", "ase.plugins")
    monkeypatch.setattr("ase._4.plugins.plugin_collection.entry_points", lambda group: [found])
    (plugin,) = ase_plugins.PluginCollection.from_entry_points().calculators
    assert (plugin.name, plugin.package) == ("schnet", "pyg_schnet")
    assert plugin() is SchNetCalculator


def test_looking_at_plugins_imports_no_torch():
    code = "import sys, pyg_schnet.simulation.ase_plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
