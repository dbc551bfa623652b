"""The command ``predict``: energies, forces and stresses of structures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_files, add_resume, add_verbosity, with_model
from pyg_schnet.io.outputs import check_output, check_stores_results

if TYPE_CHECKING:
    from pyg_schnet.cli.batch_run import CommandRun
    from pyg_schnet.prediction.partial_output import PredictionResult
    from pyg_schnet.prediction.shards import ShardSpec


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Predict energies (eV), forces (eV/Å) and, of crystals, stresses (eV/Å³) of the structures of a "
        "file, which may be larger than the memory: .xyz, .traj, .db and processed data sets "
        "(.safetensors) are read, and .xyz, .traj and .db written, structure by structure; .npz, .h5 and "
        "ASE's other formats at once. Several models predict their mean and their deviations from it. "
        "--resume continues a run that was killed, with any number of --processes. Jobs on several machines "
        "write one shard each, and --join joins them to OUT. "
        "Example: pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz --processes 2\n"
        "pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz --shard 3/8\n"
        "pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz --join",
    )
    add_files(parser, structures="structures, in any format of ASE, or a data set: .safetensors, .npz, .h5")
    parser.add_argument("--batch_size", type=int, default=32, help="structures evaluated at once")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes, with --threads each; they do not change OUT"
    )
    parser.add_argument(
        "--shard",
        type=str | None,
        help="K/N, as 3/8: compute the third of eight shards into the file OUT.shard-3-of-8; see --join",
    )
    parser.add_argument("--join", action="store_true", help="join all shards to OUT, and remove them")
    add_resume(parser)
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Predict energies, forces and stresses of structures."""
    from pyg_schnet.cli.batch_run import CommandRun
    from pyg_schnet.prediction.run import has_same_positions
    from pyg_schnet.prediction.shards import ShardSpec, find_shards, join, remove_shards

    _check(options)
    shard = ShardSpec.parse(options.shard, options.batch_size)
    is_whole = options.shard is None or (options.resume and Path(options.out).exists())  # OUT is complete
    command = CommandRun(options, {"verb": "predict"}, has_same_positions, None if is_whole else shard)
    results, run = command.results, command.run
    is_complete, earlier, seconds = results.is_complete, 0, 0.0
    if not is_complete:
        with command.open_results():
            run.check_earlier()
            earlier, start = results.written, time.perf_counter()
            if options.join:
                shards = find_shards(options.out, options.batch_size)
                key = command.settings, command.input_sha256
                with command.progress("joining") as advance:
                    for count in join(results, shards, run.source, *key, options.skip):
                        advance(count)
            else:
                with command.progress("predicting") as advance, _predict(options, command, shard) as batches:
                    for batch in batches:
                        advance(run.add(batch))
            seconds = time.perf_counter() - start
            results.finish()
    if options.join:
        remove_shards(options.out, options.batch_size, command.settings, command.input_sha256)
    _report(options, command, is_complete, earlier, seconds)
    return 0


def _check(options: Namespace) -> None:
    check_output(options.out, overwrite=options.shard is None or options.overwrite or options.resume)
    check_stores_results(options.out)
    for name in ("batch_size", "processes"):
        if options[name] < 1:
            raise ValueError(f"`--{name}` must be at least 1, got {options[name]}")
    max_processes = max(16, 4 * (os.cpu_count() or 1))
    if options.processes > max_processes:
        raise ValueError(
            f"`--processes` must be at most {max_processes} here, four per CPU, got {options.processes:,}"
        )
    if options.join and (options.shard is not None or options.processes > 1):
        raise ValueError("`--join` must be used without `--shard` and `--processes`: it only joins shards")


@contextmanager
def _predict(
    options: Namespace, command: CommandRun, shard: ShardSpec
) -> Iterator[Iterator[list[PredictionResult]]]:
    """Start predicting the structures that have no results yet; yields the results in batches."""
    from pyg_schnet.potentials.model_files import resolve_models
    from pyg_schnet.prediction.workers import PredictionTask, Workers

    run, results = command.run, command.results
    models = resolve_models(options.model)
    task = PredictionTask(models, run.source, shard, options.device, results.run, results.kind, run.first)
    if options.processes == 1:
        yield task.batches()
        return
    with Workers(task, options.processes, options.threads) as workers:
        yield workers.batches()


def _report(
    options: Namespace, command: CommandRun, was_complete: bool, earlier: int, seconds: float
) -> None:
    results = command.results
    if options.json:
        report = {
            "structures": results.written,
            "earlier": earlier,
            "seconds": seconds,
            **command.reasons(),
            "refused_count": results.rejected.total,
            "outside_count": results.outside.total,
            "out": str(results.path),
        }
        print(json.dumps(report))
    if was_complete:
        command.print(f"nothing to do, all structures have results: {results.path}")
        return
    command.print_reasons()
    before = f", {earlier:,} of them before" if earlier else ""
    command.print(
        f"{results.written:,} structures with energies (eV) and forces (eV/Å){before}: {results.path}"
    )
