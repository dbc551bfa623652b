"""Training from Python as from the command line: a recipe, and options that override it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from pyg_schnet.io.recipes import find_recipe
from pyg_schnet.training.callbacks import Callback
from pyg_schnet.training.initialization import options_beside
from pyg_schnet.training.options import build_config, read_recipe
from pyg_schnet.training.progress import LineReport, Report, WarningReport
from pyg_schnet.training.run import train as train_config
from pyg_schnet.training.run_directory import RunDirectory

_EXAMPLES = {"data": "n_train", "model": "cutoff", "trainer": "max_minutes", "fabric": "accelerator"}


def train(
    path: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    recipe: str | os.PathLike = "own_file",
    *,
    out: str | os.PathLike | None = None,
    data: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | nn.Module | None = None,
    trainer: Mapping[str, Any] | None = None,
    fabric: Mapping[str, Any] | None = None,
    targets: Sequence[str | Mapping[str, Any]] | None = None,
    init: str | os.PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report | Callable[[str], object] | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunDirectory:
    """Train a potential on a file of energies and forces: ``pyg-schnet train`` from Python.

    Options are those of the command, by section: ``--trainer.max_minutes 1`` is
    ``trainer={"max_minutes": 1}``. They override the recipe.

    Args:
        path: Structures with energies and, optionally, forces and stresses: a file, a folder or a list of
            files, in any format of :class:`~pyg_schnet.datasets.AtomsDataset`; by default the recipe's.
        recipe: Name of a recipe that comes with the package, or a YAML file. ``"own_file"`` trains the
            network of the SchNet paper for half an hour at most.
        out: Directory of the run, which must not exist yet; by default the recipe's, or ``"run"``.
        data: Options of :class:`~pyg_schnet.training.DataConfig`, such as ``n_train`` or ``units``.
        model: Options of :class:`~pyg_schnet.nn.SchNetConfig`, such as ``cutoff`` in Å; or a model with
            ``forward(z, pos, batch)`` to train instead of SchNet, see :class:`~pyg_schnet.Potential`.
        trainer: Options of :class:`~pyg_schnet.training.TrainerConfig`, such as ``max_minutes``.
        fabric: Options of :class:`~pyg_schnet.training.FabricConfig`: devices and processes.
        targets: What to learn, such as ``["energy", "dipole"]`` or ``["gap", "homo"]``, see ``targets`` of
            :class:`~pyg_schnet.training.DataConfig`; energies and forces by default.
        init: Trained model to start from (fine-tuning): a checkpoint, a run, the name of a pretrained model,
            or a weight file of PyG's or SchNetPack's SchNet.
        resume: Continue the run in ``out`` from its last checkpoint, or start it if there is none.
        overwrite: Replace the run in ``out``.
        report: Function that takes the lines that the command shows, such as ``print``, or a
            :class:`~pyg_schnet.training.Report`. By default only what looks wrong in the data is reported, as
            Python warnings.
        callbacks: Your own code after steps and validations: :class:`~pyg_schnet.training.Callback`.

    Returns:
        The run, whose ``potential`` is the best one by validation and whose ``best`` has its errors.

    Raises:
        FileExistsError: If ``out`` is not empty, and neither ``resume`` nor ``overwrite`` is set.
        FileNotFoundError: If there is no such file or recipe.
        KeyboardInterrupt: After Ctrl-C, when the state is saved; ``resume`` continues.
        TypeError: If ``model`` has no ``forward(z, pos, batch)``, or an argument is of another type.
        ValueError: If an option, the recipe or the data are wrong; nothing is written then.

    Example:
        >>> run = train("frames.extxyz", out="RUN", trainer={"max_minutes": 1})  # doctest: +SKIP
        >>> run.potential, run.best["val_forces_mae_eV_per_A"]  # doctest: +SKIP
    """
    sections = {"data": data, "model": model, "trainer": trainer, "fabric": fabric}
    own_model = sections.pop("model") if isinstance(model, nn.Module) else None
    entries = read_recipe(find_recipe(os.fspath(recipe)))
    if own_model is not None and (init is not None or entries.get("init") is not None):
        raise ValueError("`init` must not be given with a `model` of your own; load its weights yourself")
    entries |= options_beside(None if init is None else os.fspath(init), entries)
    for section, options in sections.items():
        for name, value in _options(section, options):
            entries[f"{section}.{name}"] = value
    if targets is not None:
        if "targets" in (data or {}):
            raise ValueError("`targets` and the option `targets` in `data` are the same; pass one of them")
        entries["data.targets"] = [targets] if isinstance(targets, str) else list(targets)
    if path is not None:
        if "path" in (data or {}):
            raise ValueError("`path` and the option `path` in `data` are the same; pass one of them")
        entries["data.path"] = path
    if out is not None:
        entries["out"] = out
    return train_config(build_config(entries), _as_report(report), resume, overwrite, own_model, callbacks)


def _options(section: str, options: object) -> Iterator[tuple[str, Any]]:
    if options is None:
        return
    if not isinstance(options, Mapping):
        kinds = "a mapping of options by name"
        if section == "model":
            kinds += ", or a torch.nn.Module"
        if isinstance(options, type):
            raise TypeError(f"`{section}` must be {kinds}, got the class {options.__name__}; call it")
        raise TypeError(
            f"`{section}` must be {kinds}, got {type(options).__name__}; as in "
            f'{section}={{"{_EXAMPLES[section]}": …}}'
        )
    yield from options.items()


def _as_report(report: Report | Callable[[str], object] | None) -> Report:
    if report is None:
        return WarningReport()
    if isinstance(report, Report):
        return report
    if not callable(report):
        raise TypeError(
            f"`report` must be a function that takes a line of text, or a Report, got {type(report).__name__}"
        )
    return LineReport(report)
