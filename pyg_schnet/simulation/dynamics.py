"""Molecular dynamics of structures, or of those in a file: one or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from ase import Atoms

from pyg_schnet.datasets.structure_file import StructureFile, parse_index
from pyg_schnet.io.outputs import check_distinct, check_replaceable
from pyg_schnet.potentials.device import use_threads
from pyg_schnet.potentials.model_files import Model, model_files, require_angstrom, resolve_models
from pyg_schnet.potentials.training_domain import MIN_DISTANCE_RATIO
from pyg_schnet.simulation.batched_md import BatchedDynamics, run_md_batched
from pyg_schnet.simulation.calculator import SchNetCalculator
from pyg_schnet.simulation.constraints import RigidBonds, fix_atoms
from pyg_schnet.simulation.md import Dynamics, run_md
from pyg_schnet.simulation.restart import restart_path
from pyg_schnet.simulation.trajectory import append_only_path


def md(
    model: Model,
    structures: Atoms | Sequence[Atoms] | str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    temperature: float = 300.0,
    timestep: float = 0.5,
    duration: float = 1.0,
    equilibration: float = 0.0,
    thermostat: str = "nve",
    friction: float = 0.01,
    pressure: float | None = None,
    pressure_time: float = 1000.0,
    barostat: str = "isotropic",
    fix: str | None = None,
    rigid_hydrogens: bool = False,
    interval: int = 10,
    seed: int = 0,
    log: str | os.PathLike | None = None,
    closest: float | None = MIN_DISTANCE_RATIO,
    max_force: float | str | None = "auto",
    stop_if_uncertain: float | None = None,
    index: int | str = -1,
    overwrite: bool = False,
    resume: bool = False,
    device: str | torch.device | None = None,
    threads: int = 1,
    on_step: Callable[[int, Atoms], None] | None = None,
) -> Dynamics | BatchedDynamics:
    """Run molecular dynamics: ``pyg-schnet md`` from Python.

    Args:
        model: A potential or an ensemble, or the path of a checkpoint, a run or an ``ensemble.json``; a list
            of paths is an ensemble.
        structures: A structure, a list of structures, which run in a batch, or a file.
        out: Trajectory to write, ``*.traj`` or ``*.extxyz``; none by default.
        temperature: Temperature of the bath in K, in ``"nve"`` of the initial velocities.
        timestep: Time step in fs.
        duration: Simulated time in ps.
        equilibration: Time in ps with the bath before the run.
        thermostat: ``"nve"`` (no bath), ``"langevin"``, ``"baoab"``, ``"bussi"`` or ``"nose-hoover"``, see
            :func:`~pyg_schnet.simulation.run_md`.
        friction: Friction of the bath in 1/fs, the inverse of its time constant.
        pressure: Pressure in GPa that the cell of a crystal keeps; requires a bath.
        pressure_time: Time constant of the barostat in fs.
        barostat: ``"isotropic"`` keeps the shape of the cell, ``"full"`` does not, with ``"nose-hoover"``.
        fix: Atoms that do not move: indices from 0, slices and elements, with commas, as ``"0:8,Si"``.
        rigid_hydrogens: Whether bonds of hydrogen keep their lengths, which allows longer time steps.
        interval: Number of steps between two frames and between two rows of the log.
        seed: Seed of velocities and bath.
        log: CSV file of energies, temperature and drift; by default ``out`` with the ending ``.csv``.
        closest: Fraction of the shortest distance of two elements in training below which the run stops;
            ``None`` for no limit.
        max_force: Force on an atom in eV/Å above which the run stops; ``"auto"`` is 3 times the largest in
            training, ``None`` for no limit.
        stop_if_uncertain: Deviation of the potentials of an ensemble on a force in eV/Å above which the run
            stops.
        index: Number of the structure in a file, from 0, or a slice such as ``":"`` or ``"0:10"`` of several,
            which run in a batch.
        overwrite: Whether ``out`` and ``log`` may replace existing files.
        resume: Continue the run of ``out``, or begin it if there is none.
        device: Device of the computation; by default that of a potential, the CPU for a path.
        threads: CPU threads of PyTorch.
        on_step: Called with the number of each step, from 0, and its frame; of one structure.

    Returns:
        Last frame, temperature (K), drift (meV/atom/ps), fluctuation (meV/atom) and, if the run stopped
        early, the reason; lists of them for several structures.

    Raises:
        FileExistsError: If ``out`` or the log exists.
        FileNotFoundError: If a file is missing.
        RuntimeError: If the system explodes; the last good frame is the last of ``out``.
        TypeError: If ``structures`` or ``model`` is of another type.
        ValueError: If an argument is out of range, or the potential rejects a structure.

    Example:
        >>> path = md("RUN", "start.xyz", "path.extxyz", thermostat="langevin")  # doctest: +SKIP
        >>> path.temperature, path.stopped  # doctest: +SKIP

    Source:
        See :func:`~pyg_schnet.simulation.run_md`, which runs one structure, and
        :func:`~pyg_schnet.simulation.run_md_batched`.
    """
    resolve_models(model)  # raises before the work
    from_file = isinstance(structures, str | os.PathLike)
    if from_file:
        require_angstrom(model, structures)
    is_single = isinstance(structures, Atoms) or (from_file and isinstance(parse_index(str(index)), int))
    if overwrite and resume:
        raise ValueError("`--resume` and `--overwrite` exclude each other: continue, or begin again")
    if out is not None:
        _check_trajectory(Path(out), overwrite or resume)
        if log is None and is_single:
            log = Path(out).with_suffix(".csv")
            _check_default_log(log, Path(out))
        _check_distinct(model, os.fspath(structures) if from_file else None, Path(out), log)
    frames = _frames(structures, index)
    shared = {
        "temperature": temperature,
        "timestep": timestep,
        "duration": duration,
        "thermostat": thermostat,
        "friction": friction,
        "seed": seed,
        "trajectory": out,
        "interval": interval,
        "overwrite": overwrite,
        "closest": closest,
        "max_force": max_force,
    }
    with use_threads(threads):
        if is_single:
            start = frames[0].copy()
            if fix is not None:
                start.set_constraint([*start.constraints, fix_atoms(start, fix)])
            if rigid_hydrogens:
                start.set_constraint([*start.constraints, RigidBonds(start)])
            start.calc = SchNetCalculator(model, device=device)
            return run_md(
                start,
                **shared,
                pressure=pressure,
                pressure_time=pressure_time,
                barostat=barostat,
                equilibration=equilibration,
                log=log,
                resume=resume,
                stop_if_uncertain=stop_if_uncertain,
                on_step=on_step,
            )
        not_in_batches = (
            ("pressure", pressure is not None),
            ("pressure_time", pressure_time != 1000.0),
            ("barostat", barostat != "isotropic"),
            ("fix", fix is not None),
            ("rigid_hydrogens", rigid_hydrogens),
            ("equilibration", equilibration != 0),
            ("stop_if_uncertain", stop_if_uncertain is not None),
            ("log", log is not None),
        )
        for name, is_set in not_in_batches:
            if is_set:
                chosen = f" by --index {index}" if from_file else ""
                raise ValueError(f"`--{name}` needs one structure, got {len(frames)}{chosen}; choose one")
        return run_md_batched(model, frames, **shared, resume=resume, device=device)


def _frames(structures: object, index: int | str) -> list[Atoms]:
    if isinstance(structures, Atoms):
        return [structures]
    if isinstance(structures, str | os.PathLike):
        return [atoms for _, atoms in StructureFile(os.fspath(structures), str(index))]
    if isinstance(structures, list | tuple):
        return list(structures)
    raise TypeError(
        f"`structures` must be an ase.Atoms, a list of them, or a file, got {type(structures).__name__}"
    )


def _check_trajectory(path: Path, may_exist: bool) -> None:
    check_replaceable(path)
    if path.exists() and not may_exist:
        raise FileExistsError(
            f"{path}: exists; choose another name, --resume to continue it, or --overwrite to replace it"
        )


def _check_default_log(log: Path, path: Path) -> None:
    """Raise if the default log belongs to another run."""
    if log.exists() and not (path.exists() or restart_path(path).exists()):
        raise FileExistsError(
            f"{log}: exists without {path}, so it belongs to another run; choose another by --log"
        )


def _check_distinct(model: Model, file: str | None, path: Path, log: str | os.PathLike | None) -> None:
    """Raise if files of the run are the same."""
    frames = append_only_path(path)
    inputs = {"MODEL": model_files(model), "IN": [] if file is None else [file]}
    outputs = {
        "OUT": path,
        "OUT.extxyz": None if frames == path else frames,
        "OUT.restart": restart_path(path),
    }
    check_distinct(inputs, {**outputs, "--log": log})
