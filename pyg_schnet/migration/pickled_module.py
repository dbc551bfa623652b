"""Pickled models of ``torch.save``, read as data: no class is imported, no code is run."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Iterator
from os import PathLike
from typing import Any

import torch
from torch import Tensor

_MAX_NAMES = 200  # classes and functions in a file; a model of SchNetPack has some thirty
_MAX_MODULES, _MAX_DEPTH = 10_000, 30
_LOADING = threading.Lock()  # torch's list of allowed classes is global to all threads


class PickledObject:
    """Placeholder of an object, a class or a function in a file, with its name and data but no behavior.

    Attributes:
        arguments: Constructor arguments of the object.
        state: Attributes of the object.
    """

    __slots__ = ("arguments", "state")
    dump_patches = False  # read by torch in files of versions before 1.6

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
        """Qualified name of the class."""
        return _full_name(type(self))

    def child(self, *names: str) -> PickledObject | None:
        """Return the submodule under a path of names; ``None`` if there is none."""
        module: Any = self
        for name in names:
            module = _entries(module, "_modules").get(name)
            if not isinstance(module, PickledObject):
                return None
        return module

    def children(self) -> dict[str, PickledObject]:
        """Return the submodules by their names."""
        modules = _entries(self, "_modules")
        return {name: value for name, value in modules.items() if isinstance(value, PickledObject)}

    def attribute(self, name: str) -> Any:
        """Return an attribute or a submodule; ``None`` if there is none."""
        return self.state.get(name, _entries(self, "_modules").get(name))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the ``state_dict()`` of the model.

        Raises:
            ValueError: If there are far more modules than in any model.
        """
        return dict(self._tensors("", _Count()))

    def _tensors(self, prefix: str, count: _Count, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
        count.modules += 1
        if count.modules > _MAX_MODULES or depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_MODULES:,} modules, or more than {_MAX_DEPTH} levels")
        transient = self.state.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _entries(self, kind).items():
                if isinstance(tensor, Tensor) and not (isinstance(transient, set) and name in transient):
                    yield f"{prefix}{name}", tensor.detach()
        for name, module in self.children().items():
            yield from module._tensors(f"{prefix}{name}.", count, depth + 1)


class _Count:
    modules = 0


def _entries(value: Any, kind: str) -> dict[str, Any]:
    entries = value.state.get(kind) if isinstance(value, PickledObject) else None
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if isinstance(name, str)}


def name_of(value: Any) -> str | None:
    """Return the qualified name of a class or function, or of the class of an object, in a file."""
    if isinstance(value, PickledObject):
        if type(value).__qualname__ == "getattr" and len(value.arguments) == 2:  # a C function
            return str(value.arguments[1])
        value = type(value)
    return _full_name(value) if isinstance(value, type) and issubclass(value, PickledObject) else None


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def load_as_data(path: str | PathLike) -> Any:
    """Read a file of ``torch.save`` with a :class:`PickledObject` for each object that is not a tensor.

    PyTorch's ``weights_only=True`` rejects unknown classes and functions by name. Each such name is then
    allowed, bound to a class created here without behavior.

    Raises:
        pickle.UnpicklingError: If the file needs more than data.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # files of torch before 1.6
        names = []
    if len(names) > _MAX_NAMES:
        raise pickle.UnpicklingError(f"GLOBAL {names[0]} is one of {len(names)} names, too many for a model")
    known = {name: _placeholder(name) for name in names}
    while True:
        try:
            with _LOADING, torch.serialization.safe_globals(list(known.values())):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            match = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            if match is None or match[1] in known or len(known) >= _MAX_NAMES:
                if known:
                    raise pickle.UnpicklingError(f"GLOBAL {next(iter(known))} of {error}") from None
                raise
            known[match[1]] = _placeholder(match[1])


def _placeholder(name: str) -> type[PickledObject]:
    module, _, own = name.rpartition(".")
    entries = {"__module__": module or "builtins", "__qualname__": own, "__slots__": ()}
    return type(own, (PickledObject,), entries)
