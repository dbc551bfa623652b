"""Links to objects by any of their names: ``pyg_schnet.SchNet`` is ``pyg_schnet.nn.SchNet``."""

from __future__ import annotations

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
    names = app.__dict__.setdefault("_documented", {})
    if not names:
        names.update({identity(find(name)): name for name in domain.objects if name.startswith(PACKAGE)})
    name = names.get(identity(wanted))
    if name is None:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)


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
    return {"parallel_read_safe": True, "parallel_write_safe": True}
