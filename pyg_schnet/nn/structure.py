"""The structure of modules: everything but tensors on which their results depend."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torchs
from torch_geometric.nn.aggr import SumAggregation

from pyg_schnet.nn.config import SchNetConfig

# Known classes of others, with the attributes on which their results depend. Classes of ours name these in
# `_settings`; those that may be subclassed name in `_computes` the methods that a subclass must not replace.
_KNOWN: dict[type, tuple[str, ...]] = {
    nn.Linear: (),
    nn.Embedding: ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
    nn.ModuleList: (),
    nn.Identity: (),
    nn.SiLU: (),
    nn.Tanh: (),
    nn.Softplus: ("beta", "threshold"),
    SumAggregation: (),
}
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")
_GLOBAL_HOOKS += ("_global_backward_hooks", "_global_backward_pre_hooks")


class Structure:
    """Classes, settings, submodules and hooks of modules at the time when it is made.

    What is computed once for a module (a table, a program) is valid while the structure holds and the tensors
    stay the same.

    Args:
        modules: Modules that matter with all their submodules, by name.
        around: Modules of which only the direct children matter.

    Attributes:
        key: Equal for modules that compute the same function of their tensors, apart from hooks.
        unknown: Why results may depend on something else, in one line; ``None`` if they do not.
    """

    def __init__(self, modules: Mapping[str, nn.Module], around: Iterable[nn.Module] = ()):
        self.unknown: str | None = None
        self._leaves: list[tuple[dict, str]] = []
        self._hooks: list[dict] = [getattr(torchs, name) for name in _GLOBAL_HOOKS]
        if any(self._hooks):
            self.unknown = "torch holds hooks of all modules, which are not compiled"
        parents, slots = list(around), []
        numbers: dict[nn.Module, int] = {}  # one module may be at two places; in the order of these
        entries = []
        for root, module in modules.items():
            for name, part in module.named_modules(prefix=root, remove_duplicate=False):
                entries.append(
                    (name, numbers.setdefault(part, len(numbers)), *self._entry(name, part, slots))
                )
                if part._modules:
                    parents.append(part)
        self.key: tuple[tuple, ...] = tuple(entries)
        self._hooked = any(self._hooks)
        self._parts, self._kinds = list(numbers), [*map(type, numbers)]
        self._children = [parent._modules for parent in parents]
        self._were = [dict(children) for children in self._children]
        self._owners, self._names = [owner for owner, _ in slots], [name for _, name in slots]
        self._values = [owner.get(name) for owner, name in slots]

    def _entry(self, name: str, part: nn.Module, slots: list[tuple[dict, str]]) -> tuple[Hashable, ...]:
        """Return class and settings of a module, and add what is to be looked at again."""
        kind, own, label = type(part), vars(part), f"`{name}`"
        settings = _settings_of(kind)
        values = [own.get(setting) for setting in settings or ()]
        simple = [value if isinstance(value, _SIMPLE) else type(value) for value in values]
        hooks = [value for n, value in own.items() if n.endswith("_hooks") and "state_dict" not in n]
        self.unknown = self.unknown or why_unknown(kind, label)
        for wrong, text in (
            ("forward" in own or own.get("_explain"), "a `forward` of its own, which is not compiled"),
            (simple != values, "settings that are no numbers, which is not compiled"),
            (any(hooks), "hooks, which are not compiled"),
            (own.get("max_norm") is not None, "`max_norm`, which is not compiled"),
        ):
            if wrong:
                self.unknown = self.unknown or f"{label} has {text}"
        self._hooks += hooks
        absent = [(d, n) for d in (part._parameters, part._buffers) for n, t in d.items() if t is None]
        slots += [*((own, name) for name in (*(settings or ()), "_explain") if name in own), *absent]
        (slots if part._modules else self._leaves).append((own, "forward"))
        return kind, *simple

    def __reduce__(self) -> tuple:
        return type(None), ()  # a copy or a file of a module makes its own

    def holds(self, thoroughly: bool = True) -> bool:
        """Whether all is as it was; of tensors, only whether optional ones are still absent.

        Args:
            thoroughly: Whether classes count, and modules without submodules, too, are asked for a
                ``forward`` of their own.
        """
        return (
            any(self._hooks) == self._hooked
            and not any(map(operator.ne, self._children, self._were))
            and all(map(operator.is_, map(dict.get, self._owners, self._names), self._values))
            and (not thoroughly or [*map(type, self._parts)] == self._kinds)  # parametrizations change them
            and not (thoroughly and any(name in own for own, name in self._leaves) and self.unknown is None)
        )


_SIMPLE = (bool, int, float, str, type(None), SchNetConfig)


def _settings_of(kind: type) -> tuple[str, ...] | None:
    """Return the names of the settings of a class; ``None`` if it may depend on others."""
    if kind in _KNOWN:
        return _KNOWN[kind]
    base = _base_of(kind)
    if base is None:
        return None
    computes = getattr(base, "_computes", None)
    if kind is not base and (
        computes is None or any(getattr(kind, name) is not getattr(base, name) for name in computes)
    ):
        return None
    return vars(base)["_settings"]


def _base_of(kind: type) -> type | None:
    """Return the class, or the base class, that names its settings."""
    return next((base for base in kind.__mro__ if "_settings" in vars(base)), None)


def why_unknown(kind: type, label: str) -> str | None:
    """Return why results of a class may depend on more than its settings; ``None`` if they do not."""
    if _settings_of(kind) is not None:
        return None
    if _base_of(kind) is not None:
        return f"{kind.__name__} computes in a way of its own, which is not compiled"
    return f"{label} is of the class {kind.__name__}, which is not compiled"


_VERSION = operator.attrgetter("_version")


def version(tensor: Tensor) -> int | None:
    """Return how often a tensor was changed in place, as far as autograd counts."""
    return None if tensor.is_inference() else tensor._version


def marks_of(tensors: Sequence[Tensor]) -> list[Any]:
    """Return where tensors are in memory, and how often each was changed there as far as autograd counts."""
    try:
        return [*map(Tensor.data_ptr, tensors), *map(_VERSION, tensors)]
    except RuntimeError:  # of a tensor of inference mode
        return [*map(Tensor.data_ptr, tensors), *map(version, tensors)]
