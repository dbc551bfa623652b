"""Whole models that ``torch.save`` pickled, read as data: no class is imported, no code is run."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Iterator
from os import PathLike
from typing import Any

import torch
from torch import Tensor

_MOST_NAMES = 200  # of classes and functions in a file; a model of SchNetPack has some thirty
_MOST_MODULES, _DEEPEST = 10_000, 30
_LOADING = threading.Lock()  # what torch allows is allowed to all threads


class PickledObject:
    """Stands for an object, a class or a function of a file; it has a name and data, and does nothing.

    Attributes:
        arguments: What the object was made of.
        state: Its attributes.
    """

    __slots__ = ("arguments", "state")
    dump_patches = False  # which torch looks at in files of versions before 1.6

    arguments: tuple
    state: dict[str, Any]

    def __new__(cls, *arguments: Any):
        made = super().__new__(cls)
        made.arguments, made.state = arguments, {}
        return made

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = {name: value for name, value in state.items() if isinstance(name, str)}

    @property
    def kind(self) -> str:
        """Name of the class, with its module."""
        return _full_name(type(self))

    def child(self, *names: str) -> PickledObject | None:
        """Return the submodule under a path of names; ``None`` if there is none."""
        found: Any = self
        for name in names:
            found = _entries(found, "_modules").get(name)
            if not isinstance(found, PickledObject):
                return None
        return found

    def children(self) -> dict[str, PickledObject]:
        """Return the submodules by their names."""
        found = _entries(self, "_modules")
        return {name: value for name, value in found.items() if isinstance(value, PickledObject)}

    def attribute(self, name: str) -> Any:
        """Return an attribute, a submodule included; ``None`` if there is none."""
        return self.state.get(name, _entries(self, "_modules").get(name))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what ``state_dict()`` of the model returns.

        Raises:
            ValueError: If it has far more modules than any model.
        """
        return dict(self._tensors("", _Count()))

    def _tensors(self, prefix: str, count: _Count, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
        count.modules += 1
        if count.modules > _MOST_MODULES or depth > _DEEPEST:
            raise ValueError(f"more than {_MOST_MODULES:,} modules, or {_DEEPEST} within each other")
        passing = self.state.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _entries(self, kind).items():
                if isinstance(tensor, Tensor) and not (isinstance(passing, set) and name in passing):
                    yield f"{prefix}{name}", tensor.detach()
        for name, module in self.children().items():
            yield from module._tensors(f"{prefix}{name}.", count, depth + 1)


class _Count:
    modules = 0


def _entries(value: Any, kind: str) -> dict[str, Any]:
    found = value.state.get(kind) if isinstance(value, PickledObject) else None
    if not isinstance(found, dict):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(name, str)}


def name_of(value: Any) -> str | None:
    """Return the full name of a class, a function or the class of an object in a file."""
    if isinstance(value, PickledObject):
        if type(value).__qualname__ == "getattr" and len(value.arguments) == 2:  # a function of C
            return str(value.arguments[1])
        value = type(value)
    return _full_name(value) if isinstance(value, type) and issubclass(value, PickledObject) else None


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def load_as_data(path: str | PathLike) -> Any:
    """Read a file of ``torch.save`` with a :class:`PickledObject` for each object that is no tensor.

    Torch's reader for ``weights_only=True`` refuses a class or function that it does not know, with its name.
    That name is then allowed and stands for a class made here, which does nothing.

    Raises:
        pickle.UnpicklingError: If the file asks for something else than data.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # of versions of torch before 1.6
        names = []
    if len(names) > _MOST_NAMES:
        raise pickle.UnpicklingError(f"GLOBAL {names[0]} is one of {len(names)} names, too many for a model")
    known = {name: _stand_in(name) for name in names}
    while True:
        try:
            with _LOADING, torch.serialization.safe_globals(list(known.values())):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            if found is None or found[1] in known or len(known) >= _MOST_NAMES:
                if known:
                    raise pickle.UnpicklingError(f"GLOBAL {next(iter(known))} of {error}") from None
                raise
            known[found[1]] = _stand_in(found[1])


def _stand_in(name: str) -> type[PickledObject]:
    module, _, own = name.rpartition(".")
    entries = {"__module__": module or "builtins", "__qualname__": own, "__slots__": ()}
    return type(own, (PickledObject,), entries)
