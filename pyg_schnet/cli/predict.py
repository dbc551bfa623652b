"""The verb ``predict``: energies, forces and stresses of structures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_files, add_resume, add_talk, with_model
from pyg_schnet.io.outputs import check_output, check_stores_results

if TYPE_CHECKING:
    from pyg_schnet.prediction.run import BatchRun
    from pyg_schnet.prediction.shard_spec import Share
    from pyg_schnet.prediction.task import Row


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Predict energies (eV), forces (eV/Å) and, of crystals, stresses (eV/Å³) of the structures of a "
        "file, which may be larger than the memory: .xyz, .traj, .db and processed data sets "
        "(.safetensors) are read, and .xyz, .traj and .db written, structure by structure; .npz, .h5 and "
        "ASE's other formats at once. Several models give their mean, and how far they disagree. A run that "
        "was killed goes on with --resume, with any number of --processes. Jobs on several machines write "
        "one shard each, and --join makes OUT of them. "
        "Example: pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz --processes 2\n"
        "pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz --shard 3/8\n"
        "pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz --join",
    )
    add_files(parser, structures="structures, in any format of ASE, or a data set: .safetensors, .npz, .h5")
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    parser.add_argument(
        "--processes", type=int, default=1, help="that share the work, with --threads each; OUT is the same"
    )
    parser.add_argument(
        "--shard",
        type=str | None,
        help="K/N, as 3/8: do the third of eight parts, and write OUT.shard-3-of-8; see --join",
    )
    parser.add_argument("--join", action="store_true", help="make OUT of all its shards, and remove them")
    add_resume(parser)
    add_talk(parser)
    return "energies and forces of structures", parser


def run(options: Namespace) -> int:
    """Predict energies, forces and stresses of structures."""
    from pyg_schnet.prediction.run import BatchRun, has_same_places
    from pyg_schnet.prediction.shard_spec import Share
    from pyg_schnet.prediction.shards import Shards, remove_shards

    _check(options)
    share = Share.parse(options.shard, options.batch_size)
    of_whole = options.shard is None or (options.resume and Path(options.out).exists())  # nothing is left
    work = BatchRun(options, {"verb": "predict"}, has_same_places, None if of_whole else share)
    is_complete, earlier, new, seconds = work.results.is_complete, 0, 0, 0.0
    if not is_complete:
        with work.results:
            begin = work.pass_earlier()
            earlier, start = work.results.written, time.perf_counter()
            if options.join:
                shards = Shards(options.out, options.batch_size)
                rows = shards.rows(work.source, work.settings, work.fingerprint, begin, options.skip)
                new = work.add(rows, "joining")
            else:
                with _computed(options, work, share, begin) as rows:
                    new = work.add(rows, "predicting")
            seconds = time.perf_counter() - start
            work.finish()
    if options.join:
        remove_shards(options.out, options.batch_size, work.settings, work.fingerprint)
    _tell(options, work, earlier, new, seconds)
    return 0


def _check(options: Namespace) -> None:
    check_output(options.out, overwrite=options.shard is None or options.overwrite or options.resume)
    check_stores_results(options.out)
    for name in ("batch_size", "processes"):
        if options[name] < 1:
            raise ValueError(f"`--{name}` must be at least 1, got {options[name]}")
    most = max(16, 4 * (os.cpu_count() or 1))
    if options.processes > most:
        raise ValueError(
            f"`--processes` must be at most {most}, four for each CPU here, got {options.processes:,}"
        )
    if options.join and (options.shard is not None or options.processes > 1):
        raise ValueError("`--join` computes nothing, and excludes `--shard` and `--processes`")


@contextmanager
def _computed(options: Namespace, work: BatchRun, share: Share, begin: int) -> Iterator[Iterator[Row]]:
    """Compute what is left, here or in several processes."""
    from pyg_schnet.prediction.task import Job
    from pyg_schnet.prediction.workers import Workers

    job = Job(
        work.models,
        work.source,
        share,
        options.device,
        work.results.run,
        work.results.content.is_text,
        work.domain,
        begin,
    )
    if options.processes == 1:
        yield chain.from_iterable(job.batches())
        return
    with Workers(job, options.processes, options.threads) as workers:
        yield chain.from_iterable(workers.batches())


def _tell(options: Namespace, work: BatchRun, earlier: int, new: int, seconds: float) -> None:
    out = str(work.results.path)
    if options.json:
        told = {
            "structures": earlier + new,
            "earlier": earlier,
            "seconds": seconds,
            "refused": [{"frame": number, "reason": reason} for number, reason in work.refused],
            "outside": [{"frame": number, "reason": reason} for number, reason in work.outside],
            "refused_count": work.refused.total,
            "outside_count": work.outside.total,
            "out": out,
        }
        print(json.dumps(told))
    if work.results.is_complete:
        work.tell(f"nothing is left to do: {out}")
        return
    work.tell_refused()
    work.tell_outside()
    before = f", {earlier:,} of them before" if earlier else ""
    work.tell(f"{earlier + new:,} structures with energies (eV) and forces (eV/Å){before}: {out}")
