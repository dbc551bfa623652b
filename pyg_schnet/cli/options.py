"""Options that verbs share."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from pyg_schnet.cli.help import parser_of as parser_of

_MOST_THREADS = 2**10  # PyTorch dies of many more


def with_model(description: str) -> ArgumentParser:
    """Make a parser of a verb that evaluates a potential."""
    parser = parser_of(description)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a run, or its model.safetensors; several, joined by commas; or an ensemble.json of evaluate",
    )
    parser.add_argument("--device", default="cpu", help="'cpu' or 'cuda'")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; molecules are small, one is fast")
    return parser


def prepare_device(device: str, threads: int) -> None:
    """Check where to compute, and set PyTorch's threads."""
    import torch

    if device not in ("cpu", "cuda"):
        raise ValueError(f"`--device` must be 'cpu' or 'cuda', got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("`--device` must be 'cpu' here, got 'cuda': torch sees no GPU")
    if threads < 1:
        raise ValueError(f"`--threads` must be at least 1, got {threads}")
    if threads > _MOST_THREADS:
        raise ValueError(f"`--threads` must be at most {_MOST_THREADS:,}, got {threads:,}")
    torch.set_num_threads(threads)


def add_files(
    parser: ArgumentParser,
    out: str = "in any format of ASE, chosen by its ending",
    structures: str = "structures, in any format of ASE",
) -> None:
    """Add the options of a verb that reads structures and writes others."""
    parser.add_argument("input", metavar="IN", help=structures)
    parser.add_argument("out", metavar="OUT", help=out)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def add_resume(parser: ArgumentParser) -> None:
    """Add the options of a verb that works on many structures, one after another."""
    parser.add_argument("--resume", action="store_true", help="go on with a run to OUT that was killed")
    parser.add_argument("--index", default=":", help="which of IN: a number from 0, or a slice such as ::10")
    parser.add_argument("--skip", action="store_true", help="leave out structures that are refused")


def add_talk(parser: ArgumentParser) -> None:
    """Add the options of how much is told."""
    parser.add_argument("--quiet", action="store_true", help="show errors only")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
