"""Names of packages that are imported at first use (PEP 562): torch and PyG take seconds to import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Type checkers read the names from imports under ``TYPE_CHECKING``, which a test compares with ``modules``.

    Args:
        package: Name of the package.
        modules: Modules of the package by the names to import from them. Other modules of the package are
            imported as its attributes, too.
    """

    def __getattr__(name: str) -> Any:
        if name in modules:
            value = getattr(import_module(f"{package}.{modules[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        if not name.startswith("_"):
            from importlib.util import find_spec  # slow to import, and needed for modules only

            if find_spec(f"{package}.{name}") is not None:
                return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__, list(modules)
