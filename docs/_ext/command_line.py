"""Commands of pages that are executed: ``!pyg-schnet …`` runs in the page's kernel, which has imported torch.

Such cells are shown as lines of a shell, and output is wrapped to the width of a page.
"""

from __future__ import annotations

import io
import os
import shlex
import tempfile
import textwrap
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from docutils import nodes

DATASETS = Path(__file__).parents[2] / "datasets"
_WIDTH = 88  # characters of a line of output
_EXPECTED = "# is refused"  # ends commands that fail; any other failure ends the build


def start(shell: Any) -> None:
    """Move to an empty folder with a link to the repository's ``datasets``, and run commands in process.

    Args:
        shell: The kernel's shell, ``get_ipython()``.
    """
    folder = Path(tempfile.mkdtemp())
    (folder / "datasets").symlink_to(DATASETS)
    os.chdir(folder)
    os.environ["JUPYTER_COLUMNS"] = str(_WIDTH)  # this and the next before Rich's console is made
    os.environ.pop("FORCE_COLOR", None)  # of kernels; it would make progress bars
    shell.run_line_magic("matplotlib", "inline")
    other = shell.system

    def system(command: str) -> None:
        words = shlex.split(shell.var_expand(command).replace("\\\n", " "), comments=True)
        if words[0] == "pyg-schnet":
            code, text = _output(words[1:])
            print(text, end="")
            if code != 0 and not command.endswith(_EXPECTED):
                raise RuntimeError(f"{command} ended with exit code {code}: {text}")
        else:
            other(command)

    shell.system = system


def _output(arguments: list[str]) -> tuple[int, str]:
    """Return the exit code of a command, and what it prints in lines of the width of a page."""
    import matplotlib

    from pyg_schnet.cli import main
    from pyg_schnet.io.console import out

    out.is_jupyter = False  # tables as in a terminal
    backend = matplotlib.get_backend()
    with io.StringIO() as stream, redirect_stdout(stream), redirect_stderr(stream), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm in notebooks
        code = main(arguments)
        text = stream.getvalue()
    matplotlib.use(backend)
    text = text.replace(f"{Path.cwd()}{os.sep}", "")
    return code, "".join(f"{_wrapped(line.rstrip())}\n" for line in text.splitlines())


def _wrapped(line: str) -> str:
    is_table = any(border in line for border in "│┃")
    return line if is_table else textwrap.fill(line, _WIDTH, subsequent_indent="    ", drop_whitespace=False)


def _show_commands(app: Any, document: nodes.document) -> None:
    """Show cells of commands as lines of a shell, without the kernel's ``!``."""
    for block in document.findall(nodes.literal_block):
        text = block.astext()
        if text.startswith("!"):
            block.children[:] = [nodes.Text(text.replace("\n!", "\n")[1:])]
            block.rawsource = block.astext()
            block["language"] = "bash"


def setup(app: Any) -> dict[str, bool]:
    """Connect the display of commands."""
    app.connect("doctree-read", _show_commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
