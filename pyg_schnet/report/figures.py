"""Pictures of :mod:`pyg_schnet.plots` as SVG inside the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib.figure

from pyg_schnet.io.console import printable
from pyg_schnet.plots.style import svg
from pyg_schnet.report.blocks import Figure

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"(?<=url\()#[^)]+|^#.+")  # of a clip path, and of a marker
_ENLARGED = 1.35  # print has 7 points, screens need 12 pixels


def embed(name: str, figure: matplotlib.figure.Figure, caption: str) -> Figure:
    """Convert a figure to SVG for the page.

    Its text is text, and its identifiers begin with its name, so that no two pictures of a page share one.

    Args:
        name: Name of the figure, unique in the page.
        figure: The figure.
        caption: What it shows, with units.
    """
    root = ElementTree.fromstring(svg(figure))
    width = round(float(root.attrib["width"].removesuffix("pt")) * 96 / 72 * _ENLARGED)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-label": printable(caption), "style": "stroke-linejoin: round"}
    _remove_style_and_metadata(root)
    _rename_identifiers(root, name)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Figure(ElementTree.tostring(root, encoding="unicode"), caption, width)


def _remove_style_and_metadata(root: ElementTree.Element) -> None:
    """Remove style sheets, which would apply to the whole page, and metadata."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)


def _rename_identifiers(root: ElementTree.Element, name: str) -> None:
    """Number the identifiers that are referred to, and remove all others."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    referred = dict.fromkeys(found for value in values for found in _REFERENCE.findall(value))
    new = {old[1:]: f"{name}-{number}" for number, old in enumerate(referred)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            element.attrib[key] = _REFERENCE.sub(lambda found: f"#{new[found[0][1:]]}", value)
        if own in new:
            element.attrib["id"] = new[own]
