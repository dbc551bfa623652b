"""Links to objects by any of their names: ``pyg_schnet.SchNet`` is ``pyg_schnet.nn.SchNet``."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PACKAGE = "pyg_schnet"


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a name under which an object is not documented; ``None`` if it is not documented at all."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    target, module = node["reftarget"], node.get("py:module") or ""
    scopes = (target, f"{module}.{target}", f"{PACKAGE}.{target}")
    wanted = next((value for value in map(find, scopes) if value is not None), None)
    if wanted is None:
        return None
    name = documented(app).get(identity(wanted))
    if name is None:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)


def documented(app: Sphinx) -> dict[tuple[str | None, str | None], str]:
    """Return the names under which objects are documented, by module and name of their definitions."""
    names = app.__dict__.setdefault("_documented", {})
    if not names:
        objects = app.env.domains.python_domain.objects
        own = (name for name, entry in objects.items() if name.startswith(PACKAGE) and not entry.aliased)
        names.update({identity(find(name)): name for name in own})
    return names


def with_anchors(body: str, module: str, names: dict[tuple[str | None, str | None], str]) -> str:
    """Return a page of the source with links to the documentation that lead to its anchors.

    Sphinx assumes one prefix for all documented objects of a module.
    """

    def corrected(link: re.Match) -> str:
        parts = link[2].split(".")
        ends = (".".join(parts[start:]) for start in range(1, len(parts)))
        name = next((names[module, end] for end in ends if (module, end) in names), link[2])
        return f'{link[1]}{name}"'

    return re.sub(r'(class="viewcode-back" href="[^"#]*#)([^"]+)"', corrected, body)


def correct_source(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Correct the links of a page of the source."""
    if page.startswith(f"_modules/{PACKAGE}"):
        module = page.removeprefix("_modules/").replace("/", ".")
        context["body"] = with_anchors(context["body"], module, documented(app))


def find(name: str) -> Any:
    """Return an object of the package by its dotted name; ``None`` if there is none."""
    if not name.startswith(f"{PACKAGE}."):
        return None
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: Any = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            value = getattr(value, part, None)
        return value
    return None


def identity(value: Any) -> tuple[str | None, str | None]:
    """Return module and name of the definition of an object."""
    value = getattr(value, "fget", value)
    return getattr(value, "__module__", None), getattr(value, "__qualname__", str(id(value)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Resolve names that no page documents."""
    app.connect("missing-reference", resolve)
    app.connect("html-page-context", correct_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
