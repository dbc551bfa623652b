"""Equations as MathML, which browsers show without scripts; with scripts, MathJax improves them."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

MATHJAX = "sphinx-mathjax-offline"


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    """Write an equation within a line."""
    translator.body.append(f'<span class="math">{convert(node.astext())}</span>')
    raise nodes.SkipNode


def visit_displaymath(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write an equation on lines of its own, with its number if it has one."""
    text = node.astext().strip()
    if r"\\" in text and not text.startswith(r"\begin"):
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    number = ""
    if node["number"]:
        number = f'<span class="eqno">({get_node_equation_number(translator, node)})</span>'
    identity = f' id="{node["ids"][0]}"' if node["ids"] else ""
    translator.body.append(f'<div class="math"{identity}>{number}{convert(text, display="block")}</div>\n')
    raise nodes.SkipNode


def add_script(
    app: Sphinx, name: str, template: str, context: dict[str, Any], page: nodes.document | None
) -> None:
    """Load MathJax, which sets MathML with bold letters and large sums, on pages that have equations."""
    if page is not None and any(page.findall(lambda node: isinstance(node, nodes.math | nodes.math_block))):
        app.add_js_file("mathjax/mml-chtml.js", defer="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the writer as ``html_math_renderer = "mathml"``."""
    app.setup_extension(MATHJAX)
    app.extensions[MATHJAX].parallel_read_safe = True  # it copies files at the end of a build
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
