"""Options that several commands share."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from pyg_schnet.cli.help import make_parser as make_parser


def with_model(description: str) -> ArgumentParser:
    """Build the parser of a command that evaluates a potential."""
    parser = make_parser(description)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="run, or its model.safetensors; several, joined by commas; or an ensemble.json of evaluate",
    )
    parser.add_argument("--device", default="cpu", help="'cpu', or a GPU: 'cuda', 'cuda:1', …")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; one is fast for small molecules")
    return parser


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
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def add_resume(parser: ArgumentParser) -> None:
    """Add the options of a command that processes many structures in turn."""
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run to OUT")
    parser.add_argument(
        "--index", default=":", help="structures of IN: an index from 0, or a slice such as ::10"
    )
    parser.add_argument("--skip", action="store_true", help="skip structures that are rejected")


def add_verbosity(parser: ArgumentParser) -> None:
    """Add the options for the amount of output."""
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
