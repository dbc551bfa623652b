"""Predictions for structures, or for those of a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from ase import Atoms

from pyg_schnet.io.outputs import check_output, check_stores_results
from pyg_schnet.potentials.device import use_threads
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.model_files import Model, require_angstrom, resolve_models, units_of
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.prediction import predictor
from pyg_schnet.prediction.file_run import FileRun
from pyg_schnet.prediction.run import has_same_positions
from pyg_schnet.prediction.shards import ShardSpec, find_shards, remove_shards
from pyg_schnet.prediction.shards import join as join_shards
from pyg_schnet.prediction.structures import (
    PredictionFile,
    Structures,
    check_written,
    read_structures,
    reasons_outside,
    warn_outside,
    write_structures,
)
from pyg_schnet.prediction.workers import PredictionTask, Workers
from pyg_schnet.simulation.calculator import evaluation_copy


def predict(
    model: Model,
    structures: Structures,
    out: str | os.PathLike | None = None,
    *,
    batch_size: int = 32,
    processes: int = 1,
    shard: str | None = None,
    join: bool = False,
    index: int | str = ":",
    overwrite: bool = False,
    resume: bool = False,
    skip: bool = False,
    device: str | torch.device | None = None,
    threads: int = 1,
    on_progress: Callable[[int, int | None], object] | None = None,
) -> Atoms | list[Atoms] | PredictionFile:
    """Predict energies, forces and, of crystals, stresses: ``pyg-schnet predict`` from Python.

    Warns of structures outside the training domain of the model.

    Args:
        model: A potential or an ensemble, or the path of a checkpoint, a run or an ``ensemble.json``; a list
            of paths is an ensemble.
        structures: A structure, a list of structures, or a file.
        out: File to write, which holds energies and forces: ``*.extxyz``, ``*.traj``, ``*.db``, ``*.json``.
            With a file of structures, which may be larger than the memory, results are only written.
        batch_size: Structures evaluated at once.
        processes: Processes that predict the structures of a file; they do not change ``out``.
        shard: ``"3/8"``: compute the third of eight shards into ``OUT.shard-3-of-8``.
        join: Join all shards to ``out``, and remove them.
        index: Structures of a file: a number from 0, or a slice such as ``"::10"``.
        overwrite: Whether ``out`` may replace an existing file.
        resume: Continue an interrupted run to ``out``.
        skip: Leave out structures that are rejected.
        device: Device of the computation; by default that of a potential, the CPU for a path.
        threads: CPU threads of PyTorch, in each process.
        on_progress: Called with the number of structures that are done, and the number of all if it is known.

    Returns:
        A copy of the structure with energy (eV), forces (eV/Å) and, if its cell has a volume, stress (eV/Å³);
        a list of copies for a list or a file; what was written if a file is written from a file. An ensemble
        adds ``info["energy_deviation"]`` in eV and ``arrays["forces_deviation"]`` in eV/Å. Properties are
        entries of ``info``, those of atoms of ``arrays``, with their units in ``info["property_units"]``.

    Raises:
        FileExistsError: If ``out`` exists.
        FileNotFoundError: If a file is missing.
        TypeError: If ``model`` or ``structures`` is of another type.
        ValueError: If an argument is wrong, or a structure is rejected.

    Example:
        >>> frames = predict("RUN", "pool.xyz")  # doctest: +SKIP
        >>> frames[0].get_potential_energy()  # doctest: +SKIP
    """
    with use_threads(threads):
        resolve_models(model)  # raises before the work
        if isinstance(structures, str | os.PathLike):
            require_angstrom(model, structures)
        _check(batch_size, processes, shard, join)
        if out is not None:
            check_output(os.fspath(out), overwrite=shard is None or overwrite or resume)
            check_stores_results(os.fspath(out))
        if out is not None and isinstance(structures, str | os.PathLike):
            path, spec = os.fspath(out), ShardSpec.parse(shard, batch_size)
            if processes > 1 and isinstance(model, Potential | Ensemble):
                raise ValueError("`processes` needs the path of a model, got one in memory; save it first")
            is_whole = shard is None or (resume and Path(path).exists())  # OUT is complete
            file_run = FileRun(
                *(model, os.fspath(structures), path, {"verb": "predict"}, has_same_positions),
                index=str(index),
                overwrite=overwrite,
                resume=resume,
                skip=skip,
                shard=None if is_whole else spec,
            )
            found = _predict_file(file_run, model, spec, processes, threads, device, join, on_progress)
            if join:
                remove_shards(path, batch_size, file_run.settings, file_run.input_sha256)
            warn_outside(found.outside)
            return found
        for name, is_set in (
            ("processes", processes > 1),
            ("shard", shard),
            ("join", join),
            ("resume", resume),
        ):
            if is_set:
                raise ValueError(f"`{name}` needs a file of structures, and `out` for the results")
        frames, is_one = read_structures(structures, index)
        if out is not None:
            check_written(os.fspath(out), overwrite, not is_one)
        own = evaluation_copy(model, device, needs_energy=False)
        results = []
        rejected = (lambda error: None) if skip else None
        for frame in predictor.predict(own, frames, batch_size, stress=True, on_refused=rejected):
            results.append(frame)
            if on_progress is not None:
                on_progress(len(results), len(frames))
        warn_outside(reasons_outside(results, own.domain))
        if out is not None:
            write_structures(results, os.fspath(out))
    return results[0] if is_one and results else results


def _check(batch_size: int, processes: int, shard: str | None, join: bool) -> None:
    for name, value in (("batch_size", batch_size), ("processes", processes)):
        if value < 1:
            raise ValueError(f"`--{name}` must be at least 1, got {value}")
    max_processes = max(16, 4 * (os.cpu_count() or 1))
    if processes > max_processes:
        raise ValueError(
            f"`--processes` must be at most {max_processes} here, four per CPU, got {processes:,}"
        )
    if join and (shard is not None or processes > 1):
        raise ValueError("`--join` must be used without `--shard` and `--processes`: it only joins shards")


def _predict_file(
    file_run: FileRun,
    model: Model,
    shard: ShardSpec,
    processes: int,
    threads: int,
    device: str | torch.device | None,
    join: bool,
    on_progress: Callable[[int, int | None], object] | None,
) -> PredictionFile:
    """Predict the structures of a file that have no results yet, or join the shards of its results."""
    results, run = file_run.results, file_run.run
    was_complete, earlier, seconds = results.is_complete, results.written, 0.0
    if not was_complete:
        with results:
            run.check_earlier()
            earlier, start = results.written, time.perf_counter()
            total = run.total() if on_progress is not None else None
            work = _predict_rest(file_run, model, shard, processes, threads, device)
            try:
                for _ in _join(file_run, shard.batch_size) if join else work:
                    if on_progress is not None:
                        on_progress(results.written, total)
            finally:  # an error, too, may come after results
                if on_progress is not None:
                    on_progress(results.written, total)
            seconds = time.perf_counter() - start
            results.finish()
    reasons = results.rejected, results.outside
    done = results.path, results.written, earlier, seconds
    return PredictionFile(*done, *reasons, was_complete, units_of(model))


def _join(file_run: FileRun, batch_size: int) -> Iterator[int]:
    """Join shard after shard; yields the number of structures of each."""
    results, source = file_run.results, file_run.run.source
    shards = find_shards(str(results.path), batch_size)
    yield from join_shards(
        results, shards, source, file_run.settings, file_run.input_sha256, file_run.run.skip
    )


def _predict_rest(
    file_run: FileRun,
    model: Model,
    shard: ShardSpec,
    processes: int,
    threads: int,
    device: str | torch.device | None,
) -> Iterator[int]:
    """Predict batch after batch; yields the number of structures with results in each."""
    results, run = file_run.results, file_run.run
    models = resolve_models(model) or model
    task = PredictionTask(models, run.source, shard, device, results.run, results.kind, run.first)
    yield 0  # for the results of an earlier run
    if processes == 1:
        for batch in task.batches():
            yield run.add(batch)
        return
    with Workers(task, processes, threads) as workers:
        for batch in workers.batches():
            yield run.add(batch)
