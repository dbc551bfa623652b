"""Sections about the training: data, settings, learning curve and timings."""

from __future__ import annotations

import inspect
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from pyg_schnet.datasets.label_statistics import LabelStatistics
from pyg_schnet.datasets.report.rendering import summary_facts, summary_numbers
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.plots import plot_data_set, plot_learning_curve
from pyg_schnet.plots.learning_curve import property_of
from pyg_schnet.potentials.targets import Target
from pyg_schnet.report.blocks import Block, Facts, Notes, Section, Table
from pyg_schnet.report.contents import Contents, DataSet
from pyg_schnet.report.figures import embed
from pyg_schnet.report.quantities import count, number, with_unit
from pyg_schnet.training import DataConfig, TrainerConfig

_SECTIONS = {"data": DataConfig, "model": SchNetConfig, "trainer": TrainerConfig}
_PATHS = ("path", "val_path", "root", "split")  # of which a reader needs the name, not the folder
_PARTS = {"train": "training", "val": "validation", "test": "test"}
_VALIDATED = (
    ("energy", "val_energy_mae_eV", "meV"),
    ("forces", "val_forces_mae_eV_per_A", "meV/Å"),
    ("stress", "val_stress_mae_eV_per_A3", "GPa"),
)
_SHOWN = 200  # characters of a value
_TIMESTEP = 0.5  # fs


def data_sections(contents: Contents) -> Iterator[Section]:
    """Yield what the structures are, how they are distributed, and what is suspicious about them, by file."""
    shows = (
        "The structures that the model was trained and tested on, their labels as read from the file, and "
        "suspicious values among them."
    )
    targets = contents.potential.properties
    for place, data in enumerate(contents.data):
        if place == 0:
            yield Section("data", "Data", shows, list(_data_blocks(data, "data", targets)))
        else:
            shows = "Structures of another file, on which the errors were measured."
            yield Section("test-data", "Test data", shows, list(_data_blocks(data, "test-data", targets)))


def _data_blocks(data: DataSet, key: str, targets: Sequence[Target]) -> Iterator[Block]:
    summary = data.summary
    facts = {"file": data.name}
    if data.sha256:
        facts["SHA-256"] = data.sha256
    labels, units = getattr(data.dataset, "labels", {}), getattr(data.dataset, "units", None)
    facts |= {f"{name} read from": str(text) for name, text in labels.items()}
    if units is not None:
        facts["units of the file"] = units.sentence()
    stated = summary_facts(summary)
    stated.pop("energies", None)
    agreement = stated.pop("forces", "")
    facts |= stated
    if summary.work is not None:
        facts["forces against energies"] = agreement
    if sizes := {part: len(numbers) for part, numbers in data.split.items() if len(numbers)}:
        facts["split"] = ", ".join(f"{size:,} {_PARTS.get(part, part)}" for part, size in sizes.items())
    yield Facts(facts)
    if summary.warnings:
        yield Notes(summary.warnings, "warning")
    else:
        yield Notes(["No suspicious values were found."], "good")
    if summary.energy is not None:
        header = ("quantity", "value", "unit", "value", "unit")
        caption = "Labels. Spread: root mean square of the energies relative to fitted atomic references."
        rows = [[cell.replace("*", "").replace("-", "−") for cell in row] for row in summary_numbers(summary)]
        yield Table(header, rows, (1, 3), caption)
    if summary.properties:
        yield _label_table(summary.properties, targets)
    what = "Numbers of atoms" if summary.energy is None else "Distribution of energies"
    if summary.forces is not None:
        what += " and of force components"
    yield embed(key, plot_data_set(data.dataset), f"{what} in {data.name}.")


def _label_table(labels: Mapping[str, LabelStatistics], targets: Sequence[Target]) -> Table:
    """Return statistics of the labels of properties."""
    units = {target.name: target.shown_unit for target in targets}
    header = ("property", "known", "mean", "std", "lowest", "highest", "unit")
    rows = [
        [name, f"{own.count:,}", *map(number, (own.mean, own.std, own.min, own.max)), units.get(name, "")]
        for name, own in labels.items()
    ]
    caption = "Labels of properties. Known: structures, or atoms, with a label; std: standard deviation."
    return Table(header, rows, range(1, 6), caption)


def settings_section(contents: Contents) -> Section:
    """Return the options of the training: those that were changed, and all others folded."""
    changed, others = [], []
    for section, config in _SECTIONS.items():
        own = contents.settings.get(section)
        for name, meaning, default in _options(config):
            if not isinstance(own, dict) or name not in own:
                continue
            row = [f"{section}.{name}", _value(name, own[name]), meaning]
            (others if own[name] == default else changed).append(row)
    header = ("option", "value", "meaning")
    facts = {"network": _network(contents), **_versions(contents)}
    blocks: list[Block] = [Facts(facts)]
    if changed:
        blocks.append(Table(header, changed, caption="Options that differ from the defaults."))
    if others:
        blocks.append(Table(header, others, folded=f"{len(others)} options with their default values"))
    missing = (
        "" if changed or others else "The options are not known: a checkpoint alone was passed, not its run."
    )
    return Section(
        "settings",
        "Model and settings",
        "The network and the options of the training, which determine the model together with the data; "
        "`pyg-schnet train config.yaml` with the run's file trains it again.",
        blocks,
        missing,
    )


def _network(contents: Contents) -> str:
    from pyg_schnet.report.verdict import model_words

    return model_words(contents)


def _versions(contents: Contents) -> dict[str, str]:
    origin, facts = contents.provenance, {}
    if isinstance(origin.get("date"), str):
        facts["trained"] = origin["date"].replace("T", " ").replace("+00:00", " UTC")
    versions = {"pyg_schnet": "pyg_schnet", "torch": "PyTorch", "python": "Python"}
    known = [f"{title} {origin[name]}" for name, title in versions.items() if name in origin]
    if known:
        facts["software"] = ", ".join(known)
    return facts | _start(origin.get("init"))


def _start(init: Any) -> dict[str, str]:
    """Return the model that a run started from, without folders but that of a run."""
    if not isinstance(init, Mapping) or not isinstance(init.get("path"), str):
        return {}
    path, facts = Path(init["path"]), {}
    name = f"{path.parent.name}/{path.name}" if path.name == "model.safetensors" else path.name
    facts["started from"] = f"{name}, SHA-256 {str(init.get('sha256', ''))[:12]}…"
    readouts = init.get("readouts")
    if isinstance(readouts, Mapping):
        words = {"taken": "taken over", "new": "new", "left_out": "left out"}
        known = [f"{', '.join(readouts[key])} ({word})" for key, word in words.items() if readouts.get(key)]
        facts["its readouts"] = "; ".join(known)
    return facts


def _options(config: type) -> Iterator[tuple[str, str, Any]]:
    """Yield name, meaning and default of the options of a configuration."""
    text = inspect.getdoc(config) or ""
    entries = re.findall(r"^    (\w+): (.+(?:\n        .+)*)", text, re.MULTILINE)
    meanings = {name: " ".join(words.split()) for name, words in entries}
    for field in fields(config):
        yield field.name, meanings.get(field.name, ""), field.default


def _value(name: str, value: Any) -> str:
    if name in _PATHS:
        paths = value if isinstance(value, list) else [value]
        value = ", ".join("none" if path is None else Path(str(path)).name for path in paths)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def training_section(contents: Contents) -> Section:
    """Return the learning curve."""
    title, shows = (
        "Learning curve",
        "Errors on the validation structures and the training loss over the steps.",
    )
    rows = contents.rows
    if not rows:
        missing = "There is no metrics.csv: pass the run's folder, as `pyg-schnet train --out RUN` writes it."
        return Section("learning", title, shows, missing=missing)
    validated = contents.provenance.get("validation")
    facts = {"length": f"{rows[-1]['step']:,} steps, {rows[-1].get('minutes', 0.0):,.1f} minutes"}
    if isinstance(validated, dict) and isinstance(validated.get("step"), int):
        facts["weights of"] = f"step {validated['step']:,}, which had the lowest validation loss"
        for name, key, unit in _VALIDATED:
            if isinstance(error := validated.get(key), float):
                facts[f"{name}, MAE on validation"] = with_unit(error, unit)
        for column, error in validated.items():
            if (own := property_of(column)) is not None and isinstance(error, float):
                facts[f"{own[0]}, MAE on validation"] = f"{number(error)} {own[1]}".rstrip()
    caption = (
        "Mean absolute errors of averaged weights on the validation structures; training loss, without unit; "
        "learning rate."
    )
    figure = embed("learning", plot_learning_curve(rows), caption)
    return Section("learning", title, shows, [Facts(facts), figure])


def timings_section(contents: Contents) -> Section:
    """Return how long training, evaluation and dynamics take."""
    accuracy, rows = contents.accuracy, contents.rows
    table = []
    if rows and rows[-1].get("minutes"):
        minutes, steps = rows[-1]["minutes"], rows[-1]["step"]
        table.append(["training", number(minutes), "minutes"])
        table.append(["training step", number(60_000 * minutes / steps), "ms"])
    structures = accuracy.evaluation.n
    what = "properties" if accuracy.step is None else "energies and forces"
    table.append([f"{what} of {count(structures, 'structure')}", number(accuracy.seconds), "s"])
    table.append(["the same, for one structure", number(1e3 * accuracy.seconds / structures), "ms"])
    if (step := accuracy.step) is not None:
        atoms = len(accuracy.structure(0).z)
        table.append([f"step of dynamics, {count(atoms, 'atom')}", number(1e3 * step), "ms"])
        table.append([f"dynamics in a day, with steps of {_TIMESTEP} fs", number(_per_day(step)), "ns"])
    device = str(contents.potential.scale.device)
    where = f"{_processor()}, {count(torch.get_num_threads(), 'thread')}" if device == "cpu" else device
    if device != "cpu":
        where = torch.cuda.get_device_name(device)
    uses = "evaluation takes" if accuracy.step is None else "evaluation and dynamics take"
    shows = (
        f"How long training took, and {uses} on this machine: {where}, PyTorch "
        f"{torch.__version__}; measured once, while the report was made."
    )
    return Section("timings", "Timings", shows, [Table(("", "time", "unit"), table, (1,))])


def _per_day(seconds: float) -> float:
    """Return the simulated time in ns per day."""
    return 86_400 / seconds * _TIMESTEP * 1e-6


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
