"""Data sets against PyTorch Geometric's own: time, memory and batches a second, side by side in one run.

    python benchmarks/datasets.py [qm9] [md17] [batches] [disk] [--frames 500000]

Each measurement is a process of its own, so that no memory is shared; peak memory is what the process took
beyond its imports. MD17 is the median of three rounds, both sides in turn.

Both sides get the same files, ready on disk, and the labels are compared before a time
is printed. The frames are the shipped ethanol sample with noise of 0.01 Å, in the layout of MD17; the noise
does not matter here. ``qm9`` needs the package qm9pack: pip install 'pyg-schnet[qm9]'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "datasets/md17/ethanol_gfn2_xtb.npz"
KCAL = 0.0433641042418009  # eV


def memory() -> float:
    """Peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(work: Callable[[], object]) -> tuple[object, dict[str, float]]:
    """Run and give the result with seconds and MB beyond what was there before."""
    before, start = memory(), time.perf_counter()
    result = work()
    return result, {"seconds": time.perf_counter() - start, "megabytes": memory() - before}


def write_frames(path: Path, frames: int, seed: int = 0) -> None:
    """Write frames of ethanol in MD17's layout."""
    rng = np.random.default_rng(seed)
    with np.load(SAMPLE) as sample:
        chosen = rng.integers(len(sample["E"]), size=frames)
        arrays = {key: sample[key][chosen] for key in ("R", "E", "F")}
        np.savez(path, z=sample["z"], **{**arrays, "R": arrays["R"] + rng.normal(0, 0.01, arrays["R"].shape)})


# What runs in the processes; each prints one JSON object.


def qm9(folder: Path) -> dict[str, float]:
    """Real QM9 from the installed package to ready."""
    from pyg_schnet.datasets import QM9

    dataset, cost = measured(lambda: QM9(str(folder / "qm9"), source="qm9pack", force_reload=True))
    sums = torch.zeros(len(dataset), dtype=torch.float64)
    molecule = torch.repeat_interleave(torch.arange(len(dataset)), dataset.slices["z"].diff())
    atomisation = dataset._data.energy - sums.index_add_(
        0, molecule, dataset.isolated_atoms()[dataset._data.z]
    )
    return {
        "molecules": len(dataset),
        "mean": float(atomisation.mean()),
        "std": float(atomisation.std()),
        **cost,
    }


def md17_ours(folder: Path) -> dict[str, float]:
    """Our MD17 from the npz to ready, labels compared with the file."""
    from pyg_schnet.datasets import MD17

    source = str(folder / "pyg/ethanol/raw/md17_ethanol.npz")
    dataset, cost = measured(lambda: MD17(str(folder / "ours"), "ethanol", source=source, force_reload=True))
    with np.load(source) as file:
        energy = float(np.abs(dataset._data.energy.numpy() - file["E"][:, 0] * KCAL).max())
        forces = float(np.abs(dataset._data.forces.numpy().reshape(file["F"].shape) - file["F"] * KCAL).max())
    return {"frames": len(dataset), "energy_error": energy, "forces_error": forces, **cost}


def md17_pyg(folder: Path) -> dict[str, float]:
    """PyG's MD17 from the npz to ready, labels compared with the file."""
    from torch_geometric.datasets import MD17

    dataset, cost = measured(lambda: MD17(str(folder / "pyg"), "ethanol", force_reload=True))
    with np.load(folder / "pyg/ethanol/raw/md17_ethanol.npz") as file:
        energy = float(np.abs(dataset._data.energy.double().numpy() - file["E"][:, 0]).max()) * KCAL
        forces = dataset._data.force.double().numpy().reshape(file["F"].shape)
        return {
            "frames": len(dataset),
            "energy_error": energy,
            "forces_error": float(np.abs(forces - file["F"]).max()) * KCAL,
            **cost,
        }


def batches(folder: Path) -> dict[str, float]:
    """Batches of 32 by PyG's loader and by ours, from the same data set; medians over fifteen epochs each."""
    from torch_geometric.loader import DataLoader as PygLoader

    from pyg_schnet.datasets import AtomsDataset
    from pyg_schnet.loader import DataLoader

    dataset = AtomsDataset(path=SAMPLE)
    pairs = zip(PygLoader(dataset, 32), DataLoader(dataset, 32), strict=True)
    for theirs, ours in pairs:
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs.keys())  # noqa: SIM118
    times: dict[str, list[float]] = {"pyg": [], "ours": []}
    for _ in range(15):
        for name, loader in (("pyg", PygLoader), ("ours", DataLoader)):
            start = time.perf_counter()
            count = sum(1 for _ in loader(dataset, 32, shuffle=True))
            times[name].append((time.perf_counter() - start) / count * 1e3)
    return {f"{name}_ms": statistics.median(values) for name, values in times.items()}


def disk(folder: Path) -> dict[str, float]:
    """Train from ten files of 100,000 frames that stay on disk; the whole process counts."""
    from pyg_schnet.cli import main

    arguments = ["train", str(ROOT / "datasets/md17/recipes/own_file.yaml"), "--out", str(folder / "run")]
    arguments += ["--data.path", str(folder / "million"), "--data.root", str(folder / "processed")]
    arguments += ["--data.memory_map", "true", "--data.n_val", "1000", "--trainer.max_steps", "400"]
    arguments += ["--trainer.val_every", "200", "--overwrite", "--quiet"]
    start = time.perf_counter()
    code = main(arguments)
    size = sum(path.stat().st_size for path in (folder / "processed").rglob("*.safetensors"))
    return {
        "code": code,
        "seconds": time.perf_counter() - start,
        "peak_megabytes": memory(),
        "file_megabytes": size / 2**20,
    }


JOBS = {job.__name__: job for job in (qm9, md17_ours, md17_pyg, batches, disk)}


def run(name: str, folder: Path) -> dict[str, float]:
    """Run a job in a process of its own."""
    command = [sys.executable, __file__, "--job", name, "--folder", str(folder)]
    # One thread: what is measured here has no use for a second.
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    if result.returncode != 0:
        raise SystemExit(f"{name} failed:\n{result.stderr}")
    print(f"{name}: {result.stdout.splitlines()[-1]}", file=sys.stderr)  # what is done is not lost
    return json.loads(result.stdout.splitlines()[-1])


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Give the median of each number over several runs."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def report(results: dict[str, dict[str, float]]) -> Table:
    """Lay the results out."""
    table = Table("measurement", "PyG", "ours", "ratio", title="Data sets", title_justify="left")
    if "qm9" in results:
        r = results["qm9"]
        table.add_row("QM9 by qm9pack: s", "", f"{r['seconds']:.1f}", "")
        table.add_row("  molecules", "", f"{r['molecules']:,}", "")
        table.add_row("  U0 atomisation, mean ± std: eV", "", f"{r['mean']:.3f} ± {r['std']:.3f}", "")
    if "md17_ours" in results:
        a, b = results["md17_pyg"], results["md17_ours"]
        ratio = f"{a['seconds'] / b['seconds']:.0f}"
        frames = f"MD17, {b['frames']:,} frames: s"
        table.add_row(frames, f"{a['seconds']:.1f}", f"{b['seconds']:.2f}", ratio)
        ratio = f"{a['megabytes'] / b['megabytes']:.1f}"
        table.add_row("  peak extra memory: MB", f"{a['megabytes']:.0f}", f"{b['megabytes']:.0f}", ratio)
        for label in ("energy", "forces"):
            errors = [f"{r[f'{label}_error']:.1e}" for r in (a, b)]
            table.add_row(f"  largest error of {label}: eV(/Å)", *errors, "")
    if "batches" in results:
        r = results["batches"]
        ratio = f"{r['pyg_ms'] / r['ours_ms']:.1f}"
        table.add_row("batch of 32 ethanol: ms", f"{r['pyg_ms']:.2f}", f"{r['ours_ms']:.3f}", ratio)
    if "disk" in results:
        r = results["disk"]
        table.add_row("1,000,000 frames, trained from disk: s", "", f"{r['seconds']:.0f}", "")
        table.add_row("  peak memory of all: MB", "", f"{r['peak_megabytes']:.0f}", "")
        table.add_row("  size of the set: MB", "", f"{r['file_megabytes']:.0f}", "")
    return table


def main() -> None:
    """Make the files, run the jobs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["qm9", "md17", "batches", "disk"])
    parser.add_argument("--frames", type=int, default=500_000)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(JOBS[options.job](options.folder)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "qm9" in options.what:
            results["qm9"] = run("qm9", folder)
        if "md17" in options.what:
            (folder / "pyg/ethanol/raw").mkdir(parents=True)
            write_frames(folder / "pyg/ethanol/raw/md17_ethanol.npz", options.frames)
            rounds = [{job: run(job, folder) for job in ("md17_pyg", "md17_ours")} for _ in range(3)]
            results |= {job: medians([round[job] for round in rounds]) for job in rounds[0]}
            shutil.rmtree(folder / "pyg")
        if "batches" in options.what:
            results["batches"] = run("batches", folder)
        if "disk" in options.what:
            (folder / "million").mkdir()
            for part in range(10):
                write_frames(folder / f"million/part{part}.npz", 100_000, part)
            results["disk"] = run("disk", folder)
    console = Console(soft_wrap=True)
    console.print(report(results))
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, one thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
