"""Where results are printed."""

from rich.console import Console

out = Console(soft_wrap=True)
