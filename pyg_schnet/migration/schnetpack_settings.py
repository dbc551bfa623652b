"""Settings that SchNetPack's weights do not contain, from the whole model or the run's ``config.yaml``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyg_schnet.io.yaml_file import read_yaml
from pyg_schnet.migration.pickled_module import PickledObject, name_of

_CONFIG_FOLDERS = (".", "..")  # beside best_model, above checkpoints/last.ckpt
_ACTS_ON = ("property", "output_key", "input_key")
_FLAGS = {"mean": "add_mean", "atomref": "add_atomrefs"}
_INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")
_ACTIVATIONS = {"shiftedsoftplus": "shifted_softplus", "silu": "silu", "tanh": "tanh"}
# Output modules that compute derivatives of the energy without changing it.
_DERIVATIVES = {"Forces", "Response", "Stress"}


@dataclass(frozen=True)
class Postprocessor:
    """A postprocessor of the network's output.

    Attributes:
        kind: Name of the class.
        acts_on: Property that it changes, if known.
        is_extensive: Whether its offsets are per atom.
        adds: The offsets it adds, of ``"mean"`` and ``"atomref"``.
    """

    kind: str
    acts_on: str | None = None
    is_extensive: bool = True
    adds: frozenset[str] = frozenset({"mean", "atomref"})


@dataclass(frozen=True)
class Settings:
    """Settings of a model that its weights do not contain; ``None`` if unknown.

    Attributes:
        source: Source of the settings, for messages.
        representation: Class of the network.
        hidden_activation: Activation of the representation.
        outputs: Classes of the output modules.
        output: Class of the output module that holds the weights.
        key: Property that this output predicts.
        activation: Activation of this output module.
        aggregation: ``"sum"`` or ``"avg"``.
        cutoff: Class of the cutoff function.
        normalizes: Whether the convolutions divide by the number of neighbors.
        is_extensive: The caller's setting of AddOffsets.
        postprocessors: All postprocessors, in order; empty if they are disabled.
        sizes: ``n_atom_basis`` and ``n_interactions``.
    """

    source: str
    representation: str | None = None
    hidden_activation: str | None = None
    outputs: tuple[str, ...] = ()
    output: str | None = None
    key: str | None = None
    activation: str | None = None
    aggregation: str | None = None
    cutoff: str | None = None
    normalizes: bool = False
    is_extensive: bool | None = None
    postprocessors: tuple[Postprocessor, ...] | None = None
    sizes: tuple[Any, Any] = (None, None)

    def check(self) -> None:
        """Raise if SchNet cannot represent such a model.

        Raises:
            ValueError: With the setting and its source.
        """
        if self.representation not in (None, "SchNet"):
            raise self._unrepresentable("a model of SchNet", self.representation)
        if self.hidden_activation not in (None, "shifted_softplus"):
            raise self._unrepresentable(
                "a SchNet whose `activation` is shifted_softplus", self.hidden_activation
            )
        if self.output not in (None, "Atomwise", "Energy", "DipoleMoment"):
            raise self._unrepresentable("a model with Atomwise for output", self.output)
        others = [kind for kind in self.outputs if kind not in {*_DERIVATIVES, self.output}]
        if others:
            raise self._unrepresentable("a model of one output and its derivatives", f"{others[0]} too")
        if self.aggregation not in (None, "sum", "avg"):
            raise self._unrepresentable("a model whose `aggregation_mode` is sum or avg", self.aggregation)
        if self.normalizes:
            raise self._unrepresentable("a SchNet without `normalize_filter`", "one with it")
        if self.cutoff not in (None, "CosineCutoff", "HardCutoff"):
            raise self._unrepresentable("a model with CosineCutoff or HardCutoff", self.cutoff)

    def step(self, number: int) -> Postprocessor | None:
        """Return a postprocessor; ``None`` if it is unknown."""
        steps = self.postprocessors
        return steps[number] if steps is not None and number < len(steps) else None

    def applies(self, number: int, entry: str) -> bool:
        """Return whether an entry of a postprocessor, such as ``"mean"``, changes the prediction.

        Raises:
            ValueError: If SchNet cannot represent the postprocessor.
        """
        step = self.step(number)
        if step is None:
            return self.postprocessors is None
        if step.acts_on is not None and self.key is not None and step.acts_on != self.key:
            return False
        if step.kind not in ("AddOffsets", "ScaleProperty"):
            raise self._unrepresentable(
                "a model whose postprocessors are AddOffsets and ScaleProperty", step.kind
            )
        return entry == "scale" or entry in step.adds

    def _unrepresentable(self, requirement: str, got: object) -> ValueError:
        return ValueError(
            f"`weights` must be of {requirement}; {self.source} has {got}, which SchNet cannot hold"
        )


def activation_of(value: Any) -> str | None:
    """Return the name of an activation here, or its full name if there is none."""
    if isinstance(value, Mapping):  # a class, or a function by hydra
        target = str(value.get("_target_"))
        value = value.get("path") if "hydra" in target else target
    name = value if isinstance(value, str) else name_of(value)
    if name is None:
        return None
    return _ACTIVATIONS.get(_last(name).replace("_", "").lower(), name)


def _last(name: Any) -> str:
    return str(name).rsplit(".", 1)[-1]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def read_model(model: PickledObject, source: str, output: str) -> Settings:
    """Read the settings from a whole model.

    Args:
        model: A NeuralNetworkPotential of version 2, or an AtomisticModel of earlier ones.
        source: Name of the file.
        output: Name of the output module under which the weights are: ``"output_modules.0"``.

    Raises:
        ValueError: If it is not a model of SchNetPack.
    """
    network = model.child("representation")
    head = model.child(*output.split("."))
    if network is None or head is None:
        raise ValueError(f"{source}: must hold a model of SchNetPack with an output module; got {model.kind}")
    outputs = model.child(*output.split(".")[:-1])
    assert outputs is not None  # the parent of the head
    block = network.child("interactions", "0")
    first = head.child("outnet", "0") or head.child("out_net", "1", "out_net", "0")
    cutoff = network.child("cutoff_fn") or (block.child("cutoff_network") if block else None)
    pool, sums = head.child("atom_pool"), block.child("cfconv", "agg") if block else None
    aggregation = _text(head.attribute("aggregation_mode"))
    if pool is not None:  # earlier versions
        averages = "sum" if pool.attribute("average") is False else "avg"
        aggregation = averages if _last(pool.kind) == "Aggregate" else _last(pool.kind)
    layer = block.child("filter_network", "0") if block else None
    steps = model.child("postprocessors")
    acts = model.attribute("do_postprocessing") is not False
    interactions = network.child("interactions")
    return Settings(
        source,
        representation=_last(network.kind),
        hidden_activation=activation_of(layer.attribute("activation")) if layer else None,
        outputs=tuple(_last(one.kind) for one in outputs.children().values()),
        output=_last(head.kind),
        key=_text(head.attribute("output_key")) or _text(head.attribute("property")),
        activation=activation_of(first.attribute("activation")) if first else None,
        aggregation=aggregation,
        cutoff=_last(cutoff.kind) if cutoff else None,
        normalizes=sums is not None and sums.attribute("average") is True,
        postprocessors=tuple(map(_step_of_model, steps.children().values())) if steps and acts else (),
        sizes=(network.attribute("n_atom_basis"), len(interactions.children()) if interactions else None),
    )


def _step_of_model(step: PickledObject) -> Postprocessor:
    adds = frozenset(name for name, flag in _FLAGS.items() if step.attribute(flag) is not False)
    acts_on = _text(step.attribute("_property")) or _text(step.attribute("output_key"))
    return Postprocessor(_last(step.kind), acts_on, step.attribute("is_extensive") is not False, adds)


def find_config(path: str | os.PathLike) -> Path | None:
    """Return the ``config.yaml`` of SchNetPack's run beside a file of weights, or in the folder above."""
    for place in _CONFIG_FOLDERS:
        file = Path(path).parent / place / "config.yaml"
        if file.is_file() and _is_of_schnetpack(_read_config_file(file)):
            return file
    return None


def _read_config_file(path: Path) -> Any:
    """Read a configuration; ``None`` if the file is not YAML."""
    try:
        return read_yaml(path)
    except ValueError:
        return None


def _is_of_schnetpack(config: Any) -> bool:
    model = config.get("model") if isinstance(config, dict) else None
    return isinstance(model, dict) and isinstance(model.get("representation"), dict)


def read_config(config: Mapping[str, Any] | str | os.PathLike, number: int) -> Settings:
    """Read the settings from the configuration of a run.

    Args:
        config: The ``config.yaml`` written by hydra, or its content.
        number: Index of the output module that holds the weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a configuration of SchNetPack.
    """
    if isinstance(config, Mapping):
        source = "`config`"
    else:
        source = os.fspath(config)
        if not Path(config).is_file():
            raise FileNotFoundError(f"{source}: no such file; pass the config.yaml of SchNetPack's run")
        config = _read_config_file(Path(config))
    if not _is_of_schnetpack(config):
        raise ValueError(f"{source}: must be a configuration of SchNetPack, with `model.representation`")
    assert isinstance(config, Mapping)
    resolved = _resolved(config["model"], config)
    network, outputs = resolved["representation"], resolved.get("output_modules")
    if not isinstance(outputs, list) or not len(outputs) > number or not isinstance(outputs[number], dict):
        raise ValueError(f"{source}: must list output module {number}, which the weights are of")
    head = outputs[number]
    # Before 2.0 the key was `output` and the default another.
    default = "torch.nn.functional.silu" if "output_key" in head else None
    steps = resolved.get("postprocessors") if resolved.get("do_postprocessing") is not False else []
    cutoff = network.get("cutoff_fn")
    return Settings(
        source,
        representation=_target(network),
        hidden_activation=activation_of(network.get("activation")),
        outputs=tuple(map(_target, outputs)),
        output=_target(head),
        key=_text(head.get("output_key")),
        activation=activation_of(head.get("activation", default)),
        aggregation=head.get("aggregation_mode", "sum"),
        cutoff=_target(cutoff) if isinstance(cutoff, dict) else None,
        postprocessors=tuple(map(_step_of_config, steps)) if isinstance(steps, list) else None,
        sizes=(network.get("n_atom_basis"), network.get("n_interactions")),
    )


def _target(entry: Any) -> str:
    return _last(entry.get("_target_")) if isinstance(entry, dict) else "nothing"


def _step_of_config(step: Any) -> Postprocessor:
    step = step if isinstance(step, dict) else {}
    adds = frozenset(name for name, flag in _FLAGS.items() if step.get(flag))
    acts_on = next((text for key in _ACTS_ON if (text := _text(step.get(key)))), None)
    return Postprocessor(_target(step), acts_on, step.get("is_extensive") is not False, adds)


def _resolved(value: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """Replace references such as ``${globals.cutoff}`` by their text or number; keep unresolved ones."""
    if depth > 40:  # circular references
        return value
    if isinstance(value, dict):
        return {name: _resolved(entry, root, depth + 1) for name, entry in value.items()}
    if isinstance(value, list):
        return [_resolved(entry, root, depth + 1) for entry in value]
    match = _INTERPOLATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    entry: Any = root
    for name in match[1].split("."):
        entry = entry.get(name) if isinstance(entry, Mapping) else None
    return value if entry is None or isinstance(entry, dict | list) else _resolved(entry, root, depth + 1)
