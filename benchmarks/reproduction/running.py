"""Running a cell: train and evaluate by the public commands, and take down what came out."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from benchmarks.environments import python_of
from benchmarks.reproduction import ledger
from benchmarks.reproduction.cells import Cell, paper_value
from benchmarks.reproduction.ledger import ROOT, Entry
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training import RunDirectory


def run(cells: list[Cell], runs: Path, jobs: int, threads: int | None, options: list[str]) -> bool:
    """Train and measure cells, several at once; go on with what was begun.

    Args:
        cells: Which.
        runs: Folder of the runs.
        jobs: How many at once.
        threads: Of each; as many as are fastest if ``None``.
        options: More options of ``pyg-schnet train``, which are not written down: for trying things.

    Returns:
        Whether all came to an end.
    """

    def one(cell: Cell) -> bool:
        try:
            entries = measure(cell, runs / cell.name, threads, options)
        except subprocess.CalledProcessError as error:
            print(f"{cell.name}: failed, see {runs / cell.name}.log ({error})", flush=True)
            return False
        if not options:
            ledger.record(ledger.path_of(cell.dataset), entries)
        for entry in entries:
            against = "" if entry.paper is None else f" (paper {entry.paper:g})"
            print(
                f"{cell.name}: {entry.row}, {entry.quantity} {entry.mae:.4g} {entry.unit}{against}",
                flush=True,
            )
        return True

    if any(cell.model == "gdml" for cell in cells):
        python_of("sgdml")  # made once, if it has to be
    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(one, cells)))


def measure(cell: Cell, folder: Path, threads: int | None, options: list[str]) -> list[Entry]:
    """Train a cell, or go on with it, and evaluate it.

    Raises:
        subprocess.CalledProcessError: If a command fails; what it said is in ``<folder>.log``.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if cell.model == "gdml":
        return _measure_gdml(cell, folder)
    if cell.members == 1:
        directories = [_train(cell, folder, unfinished_of(cell), threads, options)]
    else:
        directories = []
        for seed in range(cell.members):
            more = [*options, "--trainer.seed", str(seed)]
            kept = unfinished_of(cell) / f"seed-{seed}"
            directories.append(_train(cell, folder / f"seed-{seed}", kept, threads, more))
    rows = [directory.read_metrics()[-1] for directory in directories]
    config = yaml.safe_load(directories[0].config.read_text(encoding="utf-8"))
    about = {
        "n_train": len(directories[0].read_split().train),
        "seed": config["trainer"]["seed"],
        "steps": int(rows[0]["step"]),
        "minutes": sum(row["minutes"] for row in rows),
        "threads": threads or 0,
    }
    models = ",".join(str(directory.model) for directory in directories)
    entries = []
    for row, arguments in cell.rows.items():
        found = json.loads(_call([*_program(cell.model), "evaluate", models, *arguments, "--json"], folder))
        entries += _entries(cell, row, found, about)
    shutil.rmtree(unfinished_of(cell), ignore_errors=True)  # it is done
    return entries


def _train(cell: Cell, folder: Path, kept: Path, threads: int | None, options: list[str]) -> RunDirectory:
    """Train, or go on with what is in the folder, or in the repository."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if kept.is_dir() and not folder.exists():
        shutil.copytree(kept, folder)
    command = ["train", str(ROOT / cell.recipe), *cell.options, *options, "--out", str(folder)]
    command += ["--trainer.threads", str(threads)] if threads else []
    directory = RunDirectory(folder)
    resumed = ["--resume"] if directory.last.exists() else ["--overwrite"]
    _call([*_program(cell.model), *command, *resumed], folder)
    return directory


def _measure_gdml(cell: Cell, folder: Path) -> list[Entry]:
    """Solve for GDML's weights, by a package in an environment of its own."""
    command = [python_of("sgdml"), str(ROOT / "benchmarks" / "baselines" / "gdml.py"), *cell.options]
    found = json.loads(_call(command, folder))
    about = {
        "n_train": found["points"],
        "seed": 0,
        "steps": 0,
        "minutes": found["seconds"] / 60,
        "threads": 0,
    }
    kcal = {f"{name}_kcal": found[name] for name in ("energy_mae", "forces_mae")}  # as the files are
    return _entries(cell, next(iter(cell.rows)), kcal, about)


def _entries(cell: Cell, row: str, found: dict, about: dict) -> list[Entry]:
    """Lay the errors of a test set out for the ledger."""
    entries = []
    for quantity, name, unit in zip(
        (cell.quantity, "forces"), ("energy_mae", "forces_mae"), cell.units, strict=True
    ):
        own = f"{quantity}_mae"  # of a property
        error = found.get(f"{name}_kcal" if unit.startswith("kcal") else own if own in found else name)
        if error is not None:
            entries.append(
                Entry(
                    **about,
                    table=cell.table,
                    row=row,
                    column=cell.column,
                    quantity=quantity,
                    unit=unit,
                    labels=cell.labels,
                    split=cell.split,
                    device=f"{platform.machine()}, {os.cpu_count()} cores",
                    commit=commit(),
                    mae=error,
                    paper=paper_value(cell.table, row, cell.column, quantity),
                )
            )
    return entries


def unfinished_of(cell: Cell) -> Path:
    """Give where the repository keeps a run that outlives a sitting, until its cell is done."""
    return ROOT / "datasets" / cell.dataset / "unfinished" / cell.name


def keep(cells: list[Cell], runs: Path) -> None:
    """Copy what resuming needs of cells that are not done into the repository: some 4 MB each."""
    for cell in cells:
        folder = runs / cell.name
        for last in sorted(folder.rglob("last.safetensors")):
            kept = unfinished_of(cell) / last.parent.relative_to(folder)
            kept.mkdir(parents=True, exist_ok=True)
            for name in ("config.yaml", "last.safetensors", "metrics.csv", "model.safetensors", "split.npz"):
                shutil.copy(last.parent / name, kept / name)
            _name_files_as_the_recipe(cell, kept)
            print(f"{cell.name}: kept in {kept.relative_to(ROOT)}", flush=True)


def _name_files_as_the_recipe(cell: Cell, kept: Path) -> None:
    """Put the recipe's paths in place of this machine's; resuming compares what the files hold."""
    recipe = yaml.safe_load((ROOT / cell.recipe).read_text(encoding="utf-8"))["data"]
    paths = {name: recipe.get(name) for name in ("path", "val_path", "root")}
    directory = RunDirectory(kept)
    config = yaml.safe_load(directory.config.read_text(encoding="utf-8"))
    config["data"] |= paths
    config["out"] = f"runs/reproduce/{cell.name}"
    directory.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    header, tensors = checkpoint.read(directory.model, "potential")
    header["provenance"]["data"] |= paths
    checkpoint.write(directory.model, "potential", header, tensors)


def _program(model: str) -> list[str]:
    """Name pyg-schnet's command, or a baseline's."""
    return [sys.executable, "-m", *(["benchmarks.baselines", model] if model else ["pyg_schnet.cli"])]


def _call(command: list[str], folder: Path) -> str:
    """Run a command; its output goes to a log beside the folder, too."""
    with Path(f"{folder}.log").open("a", encoding="utf-8") as log:
        print("$ python", *command[1:], file=log, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        log.write(done.stdout)
    done.check_returncode()
    return done.stdout


def commit() -> str:
    """Name the commit of this repository, with "+" if files differ."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "unknown"
