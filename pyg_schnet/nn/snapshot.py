"""Snapshots of modules: everything but tensors on which the results of modules depend."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch_geometric.nn.aggr import SumAggregation

from pyg_schnet.nn.config import SchNetConfig

# Attributes on which results depend, of classes of this package, by name, and of others.
_SETTINGS: dict[str | type, tuple[str, ...]] = {
    "ShiftedSoftplus": (),
    "SiLU": (),
    "GaussianSmearing": ("gamma", "num_gaussians", "last_center"),
    "CosineEnvelope": ("cutoff",),
    "PolynomialEnvelope": ("cutoff",),
    "FilterNetwork": ("final_activation",),
    "CFConv": (),
    "Interaction": (),
    "AtomwiseNetwork": (),
    "AtomicSum": ("mean", "std"),
    "AtomicMean": ("mean", "std"),
    "DipoleMagnitude": (),
    "SpatialExtent": (),
    "AtomicValues": ("mean", "std"),
    "SchNet": ("config",),
    "Potential": (),
    nn.Linear: (),
    nn.Embedding: ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
    nn.ModuleList: (),
    nn.Identity: (),
    nn.SiLU: (),
    nn.Tanh: (),
    nn.Softplus: ("beta", "threshold"),
    SumAggregation: (),
}
# Methods that a subclass of these classes must not override; of the others, there must be no subclass.
_METHODS = {
    "SchNet": ("forward", "build_pairs", "edge_features", "_expand", "predict", "represent"),
    "Potential": ("evaluate", "_energy", "scaled"),
}
_SIMPLE = (bool, int, float, str, type(None), SchNetConfig)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")
_GLOBAL_HOOKS += ("_global_backward_hooks", "_global_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module, apart from its parts, has hooks on its input, output or gradients."""
    before, after = module._forward_pre_hooks, module._forward_hooks
    return bool(before or after or module._backward_pre_hooks or module._backward_hooks)


class ModuleSnapshot:
    """Classes, settings, submodules and hooks of modules at the time when it is taken.

    What is computed once for a module, such as a table or a program, is valid while the snapshot is current
    and the tensors stay the same.

    Args:
        modules: Modules that matter with all their submodules, by name.
        around: Modules of which only the direct children matter.

    Attributes:
        key: Equal for modules that compute the same function of their tensors, apart from hooks.
        unsupported: Why results may depend on something else, in one line; ``None`` if they do not.
    """

    def __init__(self, modules: Mapping[str, nn.Module], around: Iterable[nn.Module] = ()):
        self.unsupported: str | None = None
        self._leaves: list[tuple[dict, str]] = []
        self._hooks: list[dict] = [getattr(torch_modules, name) for name in _GLOBAL_HOOKS]
        if any(self._hooks):
            self.unsupported = "torch holds hooks of all modules, which are not compiled"
        parents, slots = list(around), []
        numbers: dict[nn.Module, int] = {}  # a module may occur twice; in the order of first occurrence
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
        self._earlier_children = [dict(children) for children in self._children]
        self._owners, self._names = [owner for owner, _ in slots], [name for _, name in slots]
        self._values = [owner.get(name) for owner, name in slots]

    def _entry(self, name: str, part: nn.Module, slots: list[tuple[dict, str]]) -> tuple[Hashable, ...]:
        """Return class and settings of a module; add to ``slots`` the attributes to compare later."""
        kind, own, label = type(part), vars(part), f"`{name}`"
        settings = _settings_of(kind)
        values = [own.get(setting) for setting in settings or ()]
        simple = [value if isinstance(value, _SIMPLE) else type(value) for value in values]
        hooks = [value for n, value in own.items() if n.endswith("_hooks") and "state_dict" not in n]
        self.unsupported = self.unsupported or why_unsupported(kind, label)
        for wrong, text in (
            ("forward" in own or own.get("_explain"), "a `forward` of its own, which is not compiled"),
            (simple != values, "settings that are no numbers, which is not compiled"),
            (any(hooks), "hooks, which are not compiled"),
            (own.get("max_norm") is not None, "`max_norm`, which is not compiled"),
        ):
            if wrong:
                self.unsupported = self.unsupported or f"{label} has {text}"
        self._hooks += hooks
        absent = [(d, n) for d in (part._parameters, part._buffers) for n, t in d.items() if t is None]
        slots += [*((own, name) for name in (*(settings or ()), "_explain") if name in own), *absent]
        (slots if part._modules else self._leaves).append((own, "forward"))
        return kind, *simple

    def __reduce__(self) -> tuple:
        return type(None), ()  # copies and files of a module take their own

    def is_current(self, thoroughly: bool = True) -> bool:
        """Return whether nothing changed; of tensors, only whether optional ones are still absent.

        Args:
            thoroughly: Whether to compare classes, and to look for a ``forward`` of their own in modules
                without submodules, too.
        """
        return (
            any(self._hooks) == self._hooked
            and not any(map(operator.ne, self._children, self._earlier_children))
            and all(map(operator.is_, map(dict.get, self._owners, self._names), self._values))
            and (not thoroughly or [*map(type, self._parts)] == self._kinds)  # parametrizations change them
            and not (
                thoroughly and any(name in own for own, name in self._leaves) and self.unsupported is None
            )
        )


def _key_of(kind: type) -> str | type:
    return kind.__name__ if kind.__module__.startswith("pyg_schnet.") else kind


def _base_of(kind: type) -> type | None:
    """Return the class of this package with known settings that a class is or derives from."""
    ours = (base for base in kind.__mro__ if isinstance(_key_of(base), str))
    return next((base for base in ours if base.__name__ in _SETTINGS), None)


def _settings_of(kind: type) -> tuple[str, ...] | None:
    """Return the names of the settings of a class; ``None`` if its results may depend on more."""
    base = _base_of(kind)
    if base is None or base is kind:
        return _SETTINGS.get(_key_of(kind))
    methods = _METHODS.get(base.__name__)
    if methods is None or any(getattr(kind, name) is not getattr(base, name) for name in methods):
        return None
    return _SETTINGS[base.__name__]


def why_unsupported(kind: type, label: str) -> str | None:
    """Return why results of a class may depend on more than its settings; ``None`` if they do not."""
    if _settings_of(kind) is not None:
        return None
    if _base_of(kind) is not None:
        return f"{kind.__name__} computes in a way of its own, which is not compiled"
    return f"{label} is of the class {kind.__name__}, which is not compiled"


_VERSION = operator.attrgetter("_version")


def version_of(tensor: Tensor) -> int | None:
    """Return how often a tensor was changed in place, as far as autograd counts."""
    return None if tensor.is_inference() else tensor._version


def versions_of(tensors: Sequence[Tensor]) -> list[Any]:
    """Return the addresses of tensors, and how often each was changed in place as far as autograd counts."""
    try:
        return [*map(Tensor.data_ptr, tensors), *map(_VERSION, tensors)]
    except RuntimeError:  # of a tensor of inference mode
        return [*map(Tensor.data_ptr, tensors), *map(version_of, tensors)]
