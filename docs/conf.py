"""Settings of the documentation: `make docs` builds it in `docs/_build/html`."""

import os
import sys
import warnings
from pathlib import Path

import pyg_schnet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
import inventories  # noqa: E402 - of _ext

# Executed pages and examples: one thread, so that results are the same on every machine; no windows.
os.environ.update({"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "COLUMNS": "100"})

project = "pyg_schnet"
author = "The pyg_schnet authors"
copyright = "2026, the pyg_schnet authors"
version = release = pyg_schnet.__version__

extensions = [
    "myst_nb",  # pages in Markdown; those with {code-cell} are executed
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "cli_reference",  # of _ext, as the following: options of the commands
    "command_line",  # commands in pages that are executed
    "error_messages",  # all messages of the package
    "layers",  # a picture of the layers of packages
    "links",  # a check of the links within the built pages
    "mathml",  # equations without scripts
    "pretrained",  # a table of the pretrained models
    "recognized",  # tables of the names that readers recognize
    "reexports",  # links by any name of an object
]
exclude_patterns = ["_build", "_ext", "gallery/*.ipynb", "gallery/*.py", "**/README.md", "inventories"]
nitpicky = False

# Pages
myst_enable_extensions = [
    "amsmath",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "fieldlist",
    "substitution",
]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "cache")
nb_execution_timeout = 600  # of a cell; other work may slow it down
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

# Gallery
# Examples that take seconds on the shipped samples; the others are shown.
EXECUTED = ["01_energy", "02_forces", "04_molecular", "05_cfconv", "08_relax", "12_many", "17_reaction"]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "|".join(EXECUTED) or r"$^",
    "ignore_pattern": r"demo\.py",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "abort_on_example_error": True,
    "parallel": 2,
    "within_subsection_order": "FileNameSortKey",
}

# API
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
maximum_signature_line_length = 90  # longer signatures have a line for each argument
autosummary_generate = False  # the pages of docs/api/ list the names
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style"), "Shapes", "Source"]

nitpick_ignore = [  # in signatures, but of no use to readers
    ("py:class", name)
    for name in (
        "Knots",
        "pyg_schnet.kernels.convolution._GradientsOf",
        "pyg_schnet.nn.conversion.Convertible",
        "pyg_schnet.nn.conversion._Model",
        "pyg_schnet.nn.readout.DoubleBuffers",
        "pyg_schnet.nn.spline.Knots",
        "pyg_schnet.potentials.training_domain.NearPairs",
        "torch_geometric.data.data.BaseData",
        "torch_geometric.typing.SparseTensor",
    )
]
intersphinx_mapping = inventories.write(HERE / "_build" / "inventories")

# HTML
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"pyg_schnet {release}"

html_static_path = ["_static"]
html_css_files = ["pages.css", "pictures.css"]
html_theme_options = {
    "source_repository": "https://github.com/pyg-schnet/pyg_schnet/",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_show_sourcelink = False
pygments_style = "tango"
pygments_dark_style = "github-dark"

warnings.filterwarnings("ignore", category=DeprecationWarning)


def setup(app):
    """Leave bases out of the API that say nothing."""
    app.connect("autodoc-process-bases", lambda app, name, value, options, bases: _without_trivial(bases))


def _without_trivial(bases: list) -> None:
    bases[:] = [base for base in bases if getattr(base, "__name__", "") not in ("object", "NamedTuple")]
