"""Where results are printed."""

from rich.console import Console

# Names of files and messages are printed as they are: brackets and colons in them are no markup.
out = Console(soft_wrap=True, markup=False, emoji=False)
