"""The command ``pyg-schnet``: one module a verb."""

from pyg_schnet.cli.app import main as main
