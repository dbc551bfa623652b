"""The command ``predict``: energies, forces and stresses of structures."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.batch_run import BatchProgress, print_line, print_reasons, reasons_as_dict
from pyg_schnet.cli.options import add_batch_size, add_files, add_resume, add_verbosity, group, with_model

if TYPE_CHECKING:
    from pyg_schnet.prediction.structures import PredictionFile

_SETTINGS = ("batch_size", "processes", "shard", "join", "index", "overwrite", "resume", "skip", "device")
_SETTINGS += ("threads",)


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = with_model(
        "Predict energies (eV), forces (eV/Å) and, of crystals, stresses (eV/Å³) of all structures of a "
        "file. Files may be larger than the memory: .xyz, .traj, .db and processed data sets (.safetensors) "
        "are read, and .xyz, .traj and .db written, structure by structure; .npz, .h5 and ASE's other "
        "formats at once. Several models predict their mean and their deviations from it. --resume continues "
        "a run that was killed, with any number of --processes. Jobs on several machines write one shard "
        "each, and --join joins them to OUT. "
        "Example: pyg-schnet predict RUN in.xyz out.extxyz --processes 2\n"
        "pyg-schnet predict RUN in.xyz out.extxyz --shard 3/8\n"
        "pyg-schnet predict RUN in.xyz out.extxyz --join",
    )
    add_files(parser, structures="structures, in any format of ASE, or a data set: .safetensors, .npz, .h5")
    add_batch_size(parser)
    computation = group(parser, "computation")
    computation.add_argument(
        "--processes", type=int, default=1, help="processes, with --threads each; they do not change OUT"
    )
    computation.add_argument(
        "--shard",
        type=str | None,
        metavar="K/N",
        help="3/8 computes the third of eight shards into the file OUT.shard-3-of-8; see --join",
    )
    computation.add_argument("--join", action="store_true", help="join all shards to OUT, and remove them")
    add_resume(parser)
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Predict energies, forces and stresses of structures."""
    from pyg_schnet.prediction.prediction import PredictionFile, predict

    progress = BatchProgress(options, "joining" if options.join else "predicting")
    settings = {name: options[name] for name in _SETTINGS}
    with progress.shown(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* outside the training domain")  # printed below
        found = predict(options.model, options.input, options.out, **settings, on_progress=progress.show)
    assert isinstance(found, PredictionFile)
    if options.json:
        print(json.dumps(_as_dict(found)))
    if found.was_complete:
        print_line(options, f"nothing to do, all structures have results: {found.path}")
        return 0
    print_reasons(options, found.rejected, found.outside)
    before = f", {found.earlier:,} of them before" if found.earlier else ""
    print_line(options, f"{len(found):,} structures with predictions ({_units(found)}){before}: {found.path}")
    return 0


def _units(found: PredictionFile) -> str:
    if found.units.keys() <= {"energy", "forces"}:
        return "eV, Å"
    return ", ".join(f"{name} in {unit}" if unit else name for name, unit in found.units.items())


def _as_dict(found: PredictionFile) -> dict[str, Any]:
    return {
        "structures": len(found),
        "earlier": found.earlier,
        "seconds": found.seconds,
        **reasons_as_dict(found.rejected, found.outside),
        "refused_count": found.rejected.total,
        "outside_count": found.outside.total,
        "units": found.units,
        "out": str(found.path),
    }
