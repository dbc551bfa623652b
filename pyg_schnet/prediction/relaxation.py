"""Relaxation of structures, or of those of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import torch
from ase import Atoms

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.potentials.device import use_threads
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.model_files import Model, require_angstrom, resolve_models
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.prediction.file_run import FileRun
from pyg_schnet.prediction.results import ResultFile
from pyg_schnet.prediction.run import has_same_start
from pyg_schnet.prediction.structures import (
    Structures,
    check_written,
    is_number,
    read_structures,
    reasons_outside,
    warn_outside,
    write_structures,
)
from pyg_schnet.simulation import SchNetCalculator, StructureError, relax_stream
from pyg_schnet.simulation import relax as relax_one
from pyg_schnet.simulation.calculator import evaluation_copy
from pyg_schnet.simulation.limits import outside_of_domain
from pyg_schnet.simulation.relaxation import Relaxation, check_goal, check_method

_MAX_PAIRS = 20_000  # pairs of neighbors at once: as fast as ten times more, and a kill loses less work


def relax(
    model: Model,
    structures: Structures,
    out: str | os.PathLike | None = None,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    optimizer: str | None = None,
    cell: bool = False,
    pressure: float = 0.0,
    trajectory: str | os.PathLike | None = None,
    index: int | str = ":",
    overwrite: bool = False,
    resume: bool = False,
    skip: bool = False,
    device: str | torch.device | None = None,
    threads: int = 1,
) -> Atoms | list[Atoms]:
    """Relax structures to the nearest minimum of the energy: ``pyg-schnet relax`` from Python.

    Warns of minima outside the training domain of the model; they are not converged.

    Args:
        model: A potential or an ensemble, or the path of a checkpoint, a run or an ``ensemble.json``; a list
            of paths is an ensemble.
        structures: A structure, a list of structures, or a file. Constraints are respected.
        out: File to write, in any format of ASE; none by default.
        fmax: Longest force on an atom of a converged structure in eV/Å.
        steps: Largest number of steps. Reaching it is no error: see ``info["converged"]``.
        optimizer: ``"BFGS"``, ``"LBFGS"`` or ``"FIRE"``; by default FIRE for several structures, in one
            batch, and BFGS for one.
        cell: Whether to relax the cells, too, of one structure after the other.
        pressure: Pressure on the cell in GPa.
        trajectory: Trajectory of the relaxation of one structure to write, ``*.traj`` or ``*.extxyz``.
        index: Structures of a file: a number from 0, or a slice such as ``"::10"``.
        overwrite: Whether ``out`` and ``trajectory`` may replace existing files.
        resume: Continue an interrupted run to ``out``.
        skip: Leave out structures that are rejected.
        device: Device of the computation; by default that of a potential, the CPU for a path.
        threads: CPU threads of PyTorch.

    Returns:
        A relaxed copy of the structure with energy and forces; a list of copies for a list or a file. In
        ``info`` are ``"converged"``, the number of ``"steps"``, the longest force, ``"fmax"``, why it
        ``"stopped"`` if it ended early or outside of the training domain, and ``"start_outside"``, how the
        start was outside of it, if it was.

    Raises:
        FileExistsError: If ``out`` or ``trajectory`` exists.
        FileNotFoundError: If a file is missing.
        TypeError: If ``model`` or ``structures`` is of another type.
        ValueError: If an argument is wrong, or the potential rejects an initial structure.

    Example:
        >>> relaxed = relax("RUN", "start.xyz", index=0)  # doctest: +SKIP
        >>> relaxed.info["converged"], relaxed.get_potential_energy()  # doctest: +SKIP
    """
    resolve_models(model)  # raises before the work
    check_goal(fmax, steps)
    check_method(optimizer or "FIRE", cell, pressure)
    settings = {"fmax": fmax, "steps": steps, "optimizer": optimizer, "cell": cell, "pressure": pressure}
    writing = {"trajectory": trajectory, "overwrite": overwrite}
    with use_threads(threads):
        if out is not None and isinstance(structures, str | os.PathLike):
            frames: list[Atoms] = []
            files = {"index": str(index), "resume": resume, "skip": skip, **writing}
            results = relax_file(
                model, os.fspath(structures), os.fspath(out), settings, device, frames.append, **files
            )
            warn_outside(results.outside)
            return frames[0] if is_number(index) and frames else frames
        if resume:
            raise ValueError("`resume` needs a file of structures, and `out` for the results")
        if isinstance(structures, str | os.PathLike):
            require_angstrom(model, structures)
        starts, is_one = read_structures(structures, index)
        if out is not None:
            check_written(os.fspath(out), overwrite, not is_one)
        own = evaluation_copy(model, device)
        frames, rejected = [], []
        reject = rejected.append if skip else _raise
        for result in _relax(own, starts, len(starts) > 1, settings, writing, reject):
            frames.append(_frame(result))
        warn_outside(reasons_outside(frames, own.domain, outside_of_domain))
        if out is not None:
            write_structures(frames, os.fspath(out))
    return frames[0] if is_one and frames else frames


def relax_file(
    model: Model,
    path: str,
    out: str,
    settings: dict,
    device: str | torch.device | None,
    on_frame: Callable[[Atoms], object],
    *,
    index: str,
    overwrite: bool,
    resume: bool,
    skip: bool,
    trajectory: str | os.PathLike | None,
    on_progress: Callable[[int, int | None], object] | None = None,
) -> ResultFile:
    """Relax the structures of a file, and write them to another one.

    Args:
        model: See :func:`relax`.
        path: File of structures.
        out: File to write.
        settings: The options ``fmax``, ``steps``, ``optimizer``, ``cell`` and ``pressure`` of :func:`relax`.
        device: See :func:`relax`.
        on_frame: Called with each relaxed structure, those of an earlier run included.
        index: See :func:`relax`.
        overwrite: See :func:`relax`.
        resume: See :func:`relax`.
        skip: See :func:`relax`.
        trajectory: See :func:`relax`.
        on_progress: Called with the number of structures that are done, and the number of all if it is known.

    Returns:
        What was written, with the structures that were rejected or are outside the training domain.
    """
    require_angstrom(model, path)
    own = evaluation_copy(model, device)
    file_run = FileRun(
        *(model, path, out, {"verb": "relax", **settings}, has_same_start),
        index=index,
        overwrite=overwrite,
        resume=resume,
        skip=skip,
        domain=own.domain,
        trajectory=None if trajectory is None else os.fspath(trajectory),
    )
    run, results = file_run.run, file_run.results
    if results.is_complete:
        for _, atoms in StructureFile(out):
            on_frame(atoms)
        return results
    if trajectory and file_run.is_of_many:
        raise ValueError(
            "`--trajectory` must be used with a single structure, got several; select one with --index"
        )
    writing = {"trajectory": trajectory, "overwrite": overwrite}
    with results:
        run.check_earlier()
        for frame in results.frames():
            on_frame(frame)
        total = run.total() if on_progress is not None else None
        try:
            for result in _relax(own, run.structures(), file_run.is_of_many, settings, writing, run.reject):
                if on_progress is not None:
                    on_progress(results.written, total)
                frame = _frame(result)
                run.write(frame)
                on_frame(frame)
        finally:
            if on_progress is not None:
                on_progress(results.written, total)
        results.finish()
    return results


def _relax(
    potential: Potential | Ensemble,
    structures: Iterable[Atoms],
    is_of_many: bool,
    settings: dict,
    writing: dict,
    reject: Callable[[StructureError], None],
) -> Iterator[Relaxation]:
    """Relax structures in batches if the options allow it, else one after the other."""
    goal = {"fmax": settings["fmax"], "steps": settings["steps"]}
    optimizer = settings["optimizer"]
    if is_of_many and writing["trajectory"]:
        raise ValueError("`trajectory` must be used with a single structure, got several")
    if is_of_many and not settings["cell"] and optimizer in (None, "FIRE"):
        yield from relax_stream(potential, structures, **goal, max_pairs=_MAX_PAIRS, on_refused=reject)
        return
    calculator = SchNetCalculator(potential)
    for number, atoms in enumerate(structures):
        atoms.calc = calculator
        try:
            yield relax_one(atoms, **{**settings, **writing, "optimizer": optimizer or "BFGS"})
        except StructureError as error:
            reject(StructureError(number, error.reason))
        except ValueError as error:
            reject(StructureError(number, str(error)))


def _frame(result: Relaxation) -> Atoms:
    """Return the relaxed structure, with its convergence in ``info``."""
    frame = result.atoms
    frame.info |= {"converged": result.converged, "steps": result.steps, "fmax": result.fmax}
    for name in ("stopped", "start_outside"):
        if (reason := getattr(result, name)) is not None:
            frame.info[name] = reason
    return frame


def _raise(error: StructureError) -> None:
    raise error
