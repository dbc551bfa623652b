"""The verb ``predict``: energies and forces of structures."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.files import check_output, read_structures
from pyg_schnet.cli.options import add_files, with_model
from pyg_schnet.cli.terminal import out


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Predict energies and forces of all structures of a file. "
        "Example: pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz",
    )
    add_files(parser)
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    return "energies and forces of structures", parser


def run(options: Namespace) -> int:
    """Predict energies and forces of structures."""
    from ase.io import write

    from pyg_schnet import load
    from pyg_schnet.simulation import predict

    check_output(options.out, options.overwrite)
    frames = read_structures(options.input, ":")
    results = list(predict(load(options.model, options.device), frames, options.batch_size))
    write(options.out, results)
    out.print(f"{len(results):,} structures with energies (eV) and forces (eV/Å): {options.out}")
    return 0
