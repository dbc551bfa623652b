"""The program ``pyg-schnet``: one module for each command."""

from pyg_schnet.cli.app import main as main
