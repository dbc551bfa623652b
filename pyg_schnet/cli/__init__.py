"""The command ``pyg-schnet``: one module a verb."""

from pyg_schnet.cli.command import main as main
