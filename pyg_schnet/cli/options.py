"""Options that several commands share."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from pyg_schnet.cli.help import group as group
from pyg_schnet.cli.help import make_parser as make_parser


def with_model(description: str) -> ArgumentParser:
    """Build the parser of a command that evaluates a potential."""
    parser = make_parser(description)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="directory of a run, or its model.safetensors; name of a pretrained model; several, joined by "
        "commas; or ensemble.json",
    )
    add_device(parser)
    return parser


def add_device(parser: ArgumentParser) -> None:
    """Add the options for where to compute."""
    computation = group(parser, "computation")
    computation.add_argument("--device", default="cpu", help="'cpu', or a GPU: 'cuda', 'cuda:1', …")
    computation.add_argument(
        "--threads", type=int, default=1, help="CPU threads; one is fast for small molecules"
    )


def add_batch_size(parser: ArgumentParser) -> None:
    """Add the option for the number of structures in a call of the model."""
    group(parser, "computation").add_argument(
        "--batch_size", type=int, default=32, help="structures evaluated at once"
    )


def add_keys(parser: ArgumentParser, units: str) -> None:
    """Add the options for the labels of a file and their units.

    Args:
        parser: Parser of the command.
        units: Help of ``--units``.
    """
    labels = group(parser, "structures")
    labels.add_argument("--energy_key", type=str | None, help="key of the energies; detected by default")
    labels.add_argument("--forces_key", type=str | None, help="key of the forces; 'none' ignores them")
    labels.add_argument("--stress_key", type=str | None, help="key of the stresses; 'none' ignores them")
    labels.add_argument("--units", type=str | None, help=units)


def add_labeled_structures(parser: ArgumentParser) -> None:
    """Add the run that a command shows, and the options for the structures that errors are measured on."""
    parser.add_argument(
        "source", metavar="RUN|MODEL", help="directory of a run, a checkpoint, or a pretrained model"
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="labeled structures, instead of the run's own"
    )
    structures = group(parser, "structures")
    structures.add_argument(
        "--part",
        type=str | None,
        help="structures by the split.npz beside the model: 'train', 'val' or 'test'; 'test' by default",
    )
    structures.add_argument(
        "--max_structures", type=int, default=5000, help="maximum number of structures for errors"
    )
    add_keys(parser, 'units of FILE, such as "kcal/mol"')
    parser.add_argument("--labels", default="reference", help='name of the labels on axes, such as "PBE"')


def prepare_device(device: str, threads: int) -> None:
    """Check the device, and set the number of PyTorch's threads."""
    import torch

    from pyg_schnet.potentials.device import check_device, check_threads

    check_device(device, "--device")
    check_threads(threads, "--threads")
    torch.set_num_threads(threads)


def add_files(
    parser: ArgumentParser,
    out: str = "output, in any format of ASE, chosen by its ending",
    structures: str = "structures, in any format of ASE",
) -> None:
    """Add the options of a command that reads structures and writes others."""
    parser.add_argument("input", metavar="IN", help=structures)
    parser.add_argument("out", metavar="OUT", help=out)
    group(parser, "output").add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def add_resume(parser: ArgumentParser) -> None:
    """Add the options of a command that processes many structures in turn."""
    structures = group(parser, "structures")
    structures.add_argument(
        "--index", default=":", help="structures of IN: an index from 0, or a slice such as ::10"
    )
    structures.add_argument("--skip", action="store_true", help="skip structures that are rejected")
    group(parser, "output").add_argument(
        "--resume", action="store_true", help="continue an interrupted run to OUT"
    )


def add_verbosity(parser: ArgumentParser) -> None:
    """Add the options for the amount of output."""
    output = group(parser, "output")
    output.add_argument("--quiet", action="store_true", help="print errors only")
    output.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
