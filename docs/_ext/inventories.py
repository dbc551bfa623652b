"""Inventories of intersphinx, written from ``docs/inventories/names.toml``: builds need no network."""

from __future__ import annotations

import sys
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = Path(__file__).parents[1] / "inventories" / "names.toml"
_HEADER = (
    "# Sphinx inventory version 2\n# Project: {}\n# Version: \n# The remainder is compressed using zlib.\n"
)


def write(folder: Path) -> dict[str, tuple[str, str]]:
    """Write an inventory for each library.

    Args:
        folder: Folder of the inventories.

    Returns:
        The setting ``intersphinx_mapping``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for library, entry in tomllib.loads(NAMES.read_text(encoding="utf-8")).items():
        lines = []
        for kind in ("class", "function"):
            for name, page in entry.get(kind, {}).items():
                aliases = {name, _defined_as(name)}
                lines += [f"{one} py:{kind} 1 {page.replace('$', name)} -\n" for one in aliases]
        file = folder / f"{library}.inv"
        file.write_bytes(_HEADER.format(library).encode() + zlib.compress("".join(lines).encode()))
        mapping[library] = (entry["url"], str(file))
    return mapping


def _defined_as(name: str) -> str:
    """Return where an object is defined, which annotations name: ``torch.nn.modules.module.Module``."""
    module, _, own = name.rpartition(".")
    if not module:
        return name
    try:
        value: Any = getattr(import_module(module), own)
    except ImportError:  # an optional library
        return name
    return f"{getattr(value, '__module__', module)}.{getattr(value, '__qualname__', own)}"
