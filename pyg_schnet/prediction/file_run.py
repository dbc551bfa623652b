"""Runs over the structures of a file, as those of ``predict`` and ``relax``: source, results and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.io.hashes import hash_content
from pyg_schnet.io.outputs import check_distinct, check_output, check_stores_many
from pyg_schnet.potentials.model_files import Model, hash_models, model_files
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.prediction.results import ResultFile, earlier_paths, partial_path
from pyg_schnet.prediction.run import BatchRun
from pyg_schnet.prediction.shards import ShardSpec


class FileRun:
    """A run over the structures of IN, whose results become OUT.

    Args:
        model: Model, on which the results depend.
        path: IN.
        out: OUT.
        settings: Settings on which results depend, except models, input and index.
        is_same: Function that returns whether a frame of OUT comes from a structure of IN.
        index: Structures of IN: a number or a slice.
        overwrite: Whether OUT may be replaced.
        resume: Continue an interrupted run to OUT.
        skip: Leave out structures that are rejected.
        shard: Shard of OUT to write; all of OUT by default.
        domain: Training domain to compare structures with; ``None`` for no comparison.
        trajectory: Another output, which must be another file.

    Attributes:
        run: Run over the structures.
        results: Results of the run.
        settings: Settings on which results depend.
        input_sha256: SHA-256 of IN.
        is_of_many: Whether IN has two structures or more.
    """

    def __init__(
        self,
        model: Model,
        path: str,
        out: str,
        settings: Mapping[str, Any],
        is_same: Callable[[Atoms, Atoms], bool],
        *,
        index: str = ":",
        overwrite: bool = False,
        resume: bool = False,
        skip: bool = False,
        shard: ShardSpec | None = None,
        domain: TrainingDomain | None = None,
        trajectory: str | None = None,
    ):
        source = StructureFile(path, index)
        self.settings = {**settings, "index": index, "models": hash_models(model)}
        check_output(out, overwrite=True)
        own_out = out if shard is None else shard.path(out)
        outputs = {"OUT": out, "the partial results of OUT": partial_path(own_out)}
        outputs |= {f"OUT{file.name[len(Path(own_out).name) :]}": file for file in earlier_paths(own_out)}
        inputs = {"MODEL": model_files(model), "IN": [path]}
        check_distinct(inputs, {**outputs, "--trajectory": trajectory})
        self.input_sha256 = hash_content(path)
        self.is_of_many = len(list(islice(source, 2))) > 1
        if self.is_of_many:
            check_stores_many(out)
        own = None if shard is None else shard.settings
        self.results = ResultFile(own_out, self.settings, overwrite, resume, self.input_sha256, own)
        self.run = BatchRun(source, self.results, is_same, skip, domain, shard)
