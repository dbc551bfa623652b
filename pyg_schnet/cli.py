"""The command ``pyg-schnet``: train, evaluate, predict, relax, md."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

# torch, ASE and matplotlib take seconds to import: each verb imports what it needs, so that --help and
# mistakes in the command line are answered at once.
if TYPE_CHECKING:
    from ase import Atoms

    from pyg_schnet.evaluation import Evaluation

_EXPECTED = (
    ArgumentError,
    ValueError,
    TypeError,
    OSError,
    ImportError,
    ArithmeticError,
    RuntimeError,
)
_out = Console(soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit code: 0, or 1 after an error, which is told on standard error. Set the environment
        variable ``PYG_SCHNET_TRACEBACK`` to see where an error comes from.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    parser = _parser(
        prog="pyg-schnet",
        description="Train SchNet potentials and run simulations with them, in eV and Å.",
    )
    verbs = parser.add_subcommands(dest="verb", metavar="VERB")
    wanted = next((name for name in arguments if name in _VERBS), None)
    for name, (build, _) in _VERBS.items():
        help_line, subparser = build(full=name == wanted)
        verbs.add_subcommand(name, subparser, help=help_line)
    try:
        if wanted == "train":
            from pyg_schnet.training.recipe import with_recipe

            arguments = with_recipe(arguments)
        options = parser.parse_args(arguments)
        verb = options[options.verb]
        if "device" in verb:
            _prepare_device(verb.device, verb.threads)
        return _VERBS[options.verb][1](verb)
    except _EXPECTED as error:
        if os.environ.get("PYG_SCHNET_TRACEBACK"):
            raise
        print(f"pyg-schnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pyg-schnet: interrupted", file=sys.stderr)
        return 130


def _build_train(full: bool) -> tuple[str, ArgumentParser]:
    parser = _parser(
        description="Train a potential. Example: pyg-schnet train RECIPE.yaml --data.path FILE --out RUN",
    )
    if full:
        from pyg_schnet.training import TrainConfig

        parser.add_argument("--config", action="config", metavar="RECIPE", help="a recipe, in YAML")
        parser.add_class_arguments(TrainConfig)
        parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
        parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
        parser.add_argument("--quiet", action="store_true", help="show errors only")
    return "train a potential on energies and forces", parser


def _train(options: Namespace) -> int:
    from pyg_schnet.nn import SchNetConfig
    from pyg_schnet.training import DataConfig, Report, TrainConfig, TrainerConfig, train

    config = TrainConfig(
        data=DataConfig(**options.data.as_dict()),
        model=SchNetConfig(**options.model.as_dict()),
        trainer=TrainerConfig(**options.trainer.as_dict()),
        out=options.out,
    )
    train(config, Report(_out, options.quiet), options.resume, options.overwrite)
    return 0


def _build_evaluate(full: bool) -> tuple[str, ArgumentParser]:
    parser = _with_model(
        "Compare predictions with labels. Energies are per molecule; forces are over all atoms and "
        "components. Example: pyg-schnet evaluate RUN/model.safetensors FILE --json",
    )
    parser.add_argument("file", help="labelled structures, as for train's data.path")
    parser.add_argument("--energy_key", type=str | None, help="key of the energies")
    parser.add_argument("--forces_key", type=str | None, help="key of the forces, 'none' for none")
    parser.add_argument("--units", type=str | None, help='of the file, as "kcal/mol"')
    parser.add_argument(
        "--part",
        type=str | None,
        help="'train', 'val' or 'test': this part of FILE, by the split.npz beside MODEL",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    parser.add_argument("--plot", type=str | None, help="draw predictions over labels into this picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return "errors on labelled structures", parser


def _evaluate(options: Namespace) -> int:
    from pyg_schnet import load
    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.evaluation import evaluate
    from pyg_schnet.plots import plot_parity
    from pyg_schnet.training import RunDirectory

    if options.plot is not None:
        _check_output(options.plot, overwrite=True, structures=False)
    potential = load(options.model, options.device)
    dataset = AtomsDataset(options.file, options.energy_key, options.forces_key, options.units)
    if options.part is not None:
        run = RunDirectory(Path(options.model).parent)
        dataset = dataset[run.read_part(options.part, len(dataset))]
        assert isinstance(dataset, AtomsDataset)
    evaluation = evaluate(potential, dataset, options.batch_size)
    if options.json:
        print(json.dumps(evaluation.as_dict()))
    else:
        _out.print(_table(evaluation))
    if options.plot is not None:
        plot_parity(evaluation, options.plot)
        if not options.json:
            _out.print(f"predictions over labels: {options.plot}")
    return 0


def _table(evaluation: Evaluation) -> Table:
    from pyg_schnet.units import kcal_per_mol

    title = f"Errors on {evaluation.n:,} structures"
    table = Table(title=title, title_justify="left")
    for name in ("", "MAE", "RMSE", "unit", "MAE", "RMSE", "unit"):
        table.add_column(name, justify="left" if name in ("", "unit") else "right")
    rows = [("energy", evaluation.energy_mae, evaluation.energy_rmse, "meV", "kcal/mol")]
    if evaluation.forces_mae is not None and evaluation.forces_rmse is not None:
        rows.append(("forces", evaluation.forces_mae, evaluation.forces_rmse, "meV/Å", "kcal/mol/Å"))
    for name, mae, rmse, unit, chemists_unit in rows:
        small = [f"{1e3 * value:.2f}" for value in (mae, rmse)]
        large = [f"{value / kcal_per_mol:.4f}" for value in (mae, rmse)]
        table.add_row(name, *small, unit, *large, chemists_unit)
    return table


def _build_predict(full: bool) -> tuple[str, ArgumentParser]:
    parser = _with_model(
        "Predict energies and forces of all structures of a file. "
        "Example: pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz",
    )
    _add_files(parser)
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    return "energies and forces of structures", parser


def _predict(options: Namespace) -> int:
    from ase.io import write

    from pyg_schnet import load
    from pyg_schnet.simulation import predict

    _check_output(options.out, options.overwrite)
    frames = _read_structures(options.input, ":")
    results = list(predict(load(options.model, options.device), frames, options.batch_size))
    write(options.out, results)
    _out.print(f"{len(results):,} structures with energies (eV) and forces (eV/Å): {options.out}")
    return 0


def _build_relax(full: bool) -> tuple[str, ArgumentParser]:
    parser = _with_model(
        "Move the atoms of a structure to where no force is left. "
        "Example: pyg-schnet relax RUN/model.safetensors in.xyz out.xyz --fmax 0.01",
    )
    _add_files(parser)
    parser.add_argument("--fmax", type=float, default=0.01, help="longest force allowed, in eV/Å")
    parser.add_argument("--steps", type=int, default=500, help="the most to take")
    parser.add_argument("--optimizer", default="BFGS", help="BFGS, LBFGS or FIRE")
    parser.add_argument("--index", type=int, default=-1, help="which structure of the file, from 0")
    return "relax a structure", parser


def _relax(options: Namespace) -> int:
    from ase.io import write

    from pyg_schnet.simulation import relax

    _check_output(options.out, options.overwrite)
    result = relax(_structure(options), fmax=options.fmax, steps=options.steps, optimizer=options.optimizer)
    write(options.out, result.atoms)
    state = "converged" if result.converged else "NOT converged"
    _out.print(
        f"{state} after {result.steps} steps: energy {result.energy:.6f} eV, longest force "
        f"{result.fmax:.4f} eV/Å: {options.out}"
    )
    return 0 if result.converged else 1


def _build_md(full: bool) -> tuple[str, ArgumentParser]:
    parser = _with_model(
        "Run molecular dynamics. Example: pyg-schnet md RUN/model.safetensors in.xyz out.extxyz --duration 1",
    )
    _add_files(parser, "a trajectory: .traj, .extxyz or .xyz")
    parser.add_argument(
        "--temperature",
        type=float,
        default=300.0,
        help="in K: of the start, or of the bath; without a bath, a relaxed structure settles at half of it",
    )
    parser.add_argument("--timestep", type=float, default=0.5, help="in fs")
    parser.add_argument("--duration", type=float, default=1.0, help="in ps")
    parser.add_argument("--equilibration", type=float, default=0.0, help="in ps, with the bath, before")
    parser.add_argument("--thermostat", default="nve", help="'nve' (none) or 'langevin'")
    parser.add_argument("--friction", type=float, default=0.01, help="of the bath, in 1/fs")
    parser.add_argument("--interval", type=int, default=10, help="steps between two frames")
    parser.add_argument("--seed", type=int, default=0, help="of velocities and bath")
    parser.add_argument("--index", type=int, default=-1, help="which structure of the file, from 0")
    return "molecular dynamics", parser


def _md(options: Namespace) -> int:
    from rich.progress import Progress

    from pyg_schnet.simulation import run_md

    names = ("temperature", "timestep", "duration", "equilibration", "thermostat", "friction")
    settings = {name: options[name] for name in (*names, "interval", "seed", "overwrite")}
    if Path(options.out).exists() and not options.overwrite:
        raise FileExistsError(f"{options.out}: exists; give another name, or --overwrite to replace it")
    atoms = _structure(options)
    if not options.timestep > 0:
        raise ValueError(f"`timestep` must be positive and in fs, got {options.timestep}")
    with Progress(console=_out, disable=not _out.is_terminal) as progress:
        task = progress.add_task("dynamics", total=round(1000 * options.duration / options.timestep))
        result = run_md(
            atoms,
            **settings,
            trajectory=options.out,
            on_step=lambda step, _: progress.update(task, completed=step),
        )
    _out.print(f"{result.duration:g} ps, mean temperature {result.temperature:.0f} K: {options.out}")
    if result.drift is not None:
        _out.print(
            f"energy drift {result.drift:+.4f} meV/atom/ps, fluctuation {result.fluctuation:.4f} meV/atom"
        )
    return 0


def _parser(**kwargs) -> ArgumentParser:
    return ArgumentParser(exit_on_error=False, **kwargs)


def _with_model(description: str) -> ArgumentParser:
    parser = _parser(description=description)
    parser.add_argument("model", help="a checkpoint, model.safetensors")
    parser.add_argument("--device", default="cpu", help="'cpu' or 'cuda'")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; molecules are small, one is fast")
    return parser


def _prepare_device(device: str, threads: int) -> None:
    import torch

    if device not in ("cpu", "cuda"):
        raise ValueError(f"`--device` must be 'cpu' or 'cuda', got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("`--device` must be 'cpu' here, got 'cuda': torch sees no GPU")
    if threads < 1:
        raise ValueError(f"`--threads` must be at least 1, got {threads}")
    torch.set_num_threads(threads)


def _add_files(parser: ArgumentParser, out: str = "in any format of ASE, chosen by its ending") -> None:
    parser.add_argument("input", metavar="in", help="structures, in any format of ASE")
    parser.add_argument("out", help=out)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _structure(options: Namespace) -> Atoms:
    from pyg_schnet.simulation import SchNetCalculator

    (atoms,) = _read_structures(options.input, options.index)
    atoms.calc = SchNetCalculator(options.model, device=options.device)
    return atoms


def _read_structures(path: str, index: int | str) -> list[Atoms]:
    from ase import Atoms
    from ase.io import ParseError, read
    from ase.io.formats import UnknownFileTypeError

    try:
        read_in = read(path, index=index)
    except (IndexError, StopIteration):
        raise ValueError(f"{path}: has no structure {index}; they count from 0") from None
    except (UnknownFileTypeError, ParseError) as error:
        raise ValueError(f"{path}: ASE cannot read it ({error}); its ending must tell its format") from None
    frames = [read_in] if isinstance(read_in, Atoms) else read_in
    if not frames:
        raise ValueError(f"{path}: must hold at least one structure, got none")
    return frames


def _check_output(path: str, overwrite: bool, structures: bool = True) -> None:
    """Refuse before the work what could not be written after it."""
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    if Path(path).exists() and not overwrite:
        raise FileExistsError(f"{path}: exists; give another name, or --overwrite to replace it")
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist; make it first")
    if structures:
        try:
            get_ioformat(filetype(path, read=False))
        except UnknownFileTypeError:
            raise ValueError(f"{path}: ASE knows no format of this ending; .extxyz is a good one") from None


_VERBS = {
    "train": (_build_train, _train),
    "evaluate": (_build_evaluate, _evaluate),
    "predict": (_build_predict, _predict),
    "relax": (_build_relax, _relax),
    "md": (_build_md, _md),
}

if __name__ == "__main__":
    sys.exit(main())
