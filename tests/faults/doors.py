"""Every door through which files of strangers come in, and what may come of one that is hurt."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from pyg_schnet import SchNet, load
from pyg_schnet.cli import main
from pyg_schnet.cli.plot_inputs import PlotTarget
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.iso17_files import read_database, read_ids
from pyg_schnet.datasets.qm9_files import read_sdf, read_uncharacterized, read_xyz_archive
from pyg_schnet.datasets.structure_file import open_structures
from pyg_schnet.io.formats.registry import read_frames
from pyg_schnet.io.remote.archive import extract, stream
from pyg_schnet.io.units import Units
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.state import TrainingState
from pyg_schnet.transforms.smiles import from_smiles
from tests.faults import samples

_SHOWN = 4000  # characters; a longer message is not clear


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes:
        make: Writes valid files into a folder.
        hurt: Names of those that are hurt.
        enter: Reads such a file, whatever is in it.
        is_native: Whether code in C reads it, which may take the process with it.
    """

    make: Callable[[Path], None]
    hurt: tuple[str, ...]
    enter: Callable[[Path], None]
    is_native: bool = False


def is_clear(error: BaseException, path: Path) -> bool:
    """Tell whether an error is one that a user understands: of the right kind, and of this file."""
    text = str(error)
    named = path.name in text or str(path.parent) in text or "`" in text
    return isinstance(error, (ValueError, OSError)) and named and len(text) <= _SHOWN


def _all_of(*names: str) -> Callable[[Path], None]:
    """Write structures under several names."""

    def make(folder: Path) -> None:
        for name in names:
            samples.write_structures(folder / name)

    return make


def _enter_checkpoint(path: Path) -> None:
    load(path)
    checkpoint.provenance(path)


def _enter_training_state(path: Path) -> None:
    TrainingState(samples.potential(), "adam", 1e-3, 0.9).restore(path)


def _make_weights(folder: Path) -> None:
    for name in ("weights.pt", "weights.old", "weights.safetensors"):
        samples.write_weights(folder / name)


def _enter_weights(path: Path) -> None:
    SchNet.from_schnetpack(path, activation="silu")


def _enter_processed(path: Path) -> None:
    for memory_map in (False, True):
        dataset = AtomsDataset(path=path, memory_map=memory_map)
        _ = dataset[0], dataset[len(dataset) - 1]


def _make_npz(folder: Path) -> None:
    np.savez(folder / "stored.npz", **samples.arrays())
    np.savez_compressed(folder / "packed.npz", **samples.arrays())


def _make_hdf5(folder: Path) -> None:
    samples.write_hdf5(folder / "plain.h5")
    samples.write_hdf5(folder / "packed.h5", "gzip")


def _enter_frames(path: Path) -> None:
    units = Units("Hartree") if path.suffix == ".h5" else None
    for _ in read_frames(path, units=units):
        pass


def _make_archives(folder: Path) -> None:
    members = {"a/one.txt": b"one " * 400, "two.npz": b"2" * 3000, "three": b""}
    for name in ("a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"):
        samples.write_archive(folder / name, members)


def _enter_archive(path: Path) -> None:
    out = path.parent / "out"
    try:
        extract(path, out, max_bytes=2**24)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    for _, pieces in stream(path):
        for _ in pieces:
            pass


def _enter_qm9(path: Path) -> None:
    archive = path.with_suffix(".tar")
    samples.write_archive(archive, {path.name: path.read_bytes()})
    for records in read_xyz_archive(archive):
        records.arrays(str(path))


def _enter_sdf(path: Path) -> None:
    sdf = path.with_suffix("") if path.suffix == ".csv" else path
    for records in read_sdf(sdf, sdf.with_suffix(".sdf.csv")):
        records.arrays(str(path))


def _enter_iso17(path: Path) -> None:
    for _ in read_database(path, str(path)):
        pass


def _enter_structures(path: Path) -> None:
    open_structures(str(path))


def _enter_recipe(path: Path) -> None:
    """Let the command read a recipe and print what it understood."""
    errors = mock.patch.dict(os.environ, PYG_SCHNET_TRACEBACK="1")  # not exit codes
    with errors, contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["train", str(path), "--print_config"])


def _enter_split(path: Path) -> None:
    run = RunDirectory(path.parent)
    run.read_part("val", 10, "0" * 64)


def _enter_metrics(path: Path) -> None:
    run = RunDirectory(path.parent)
    run.read_metrics()
    run.truncate_metrics(10)


def _enter_config(path: Path) -> None:
    PlotTarget(None, path.parent / "model.safetensors").data_options()


def _enter_restart(path: Path) -> None:
    trajectory = path.with_suffix("")
    point, _ = samples.restart_file(trajectory).read()
    if point is not None:
        point.restore(samples.water())
        point.check_energy(point.energy, 3)


def _enter_smiles(path: Path) -> None:
    from_smiles(path.read_text(encoding="utf-8", errors="replace"))


def _make_smiles(folder: Path) -> None:
    for number, smiles in enumerate(("CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)[O-]", "C1CC2(C1)OCCN2")):
        (folder / f"{number}.smi").write_text(smiles)


DOORS = {
    "checkpoint": Door(
        lambda folder: samples.write_checkpoint(folder / "model.safetensors"),
        ("model.safetensors",),
        _enter_checkpoint,
    ),
    "training state": Door(
        lambda folder: samples.write_training_state(folder / "last.safetensors"),
        ("last.safetensors",),
        _enter_training_state,
    ),
    "weights": Door(_make_weights, ("weights.pt", "weights.old", "weights.safetensors"), _enter_weights),
    "processed data": Door(
        lambda folder: samples.write_processed(folder / "set.safetensors"),
        ("set.safetensors",),
        _enter_processed,
    ),
    "npz": Door(_make_npz, ("stored.npz", "packed.npz"), _enter_frames),
    "HDF5": Door(_make_hdf5, ("plain.h5", "packed.h5"), _enter_frames, is_native=True),
    "archive": Door(_make_archives, ("a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"), _enter_archive),
    "QM9's xyz": Door(
        lambda folder: (folder / "1.xyz").write_bytes(samples.qm9_molecule()), ("1.xyz",), _enter_qm9
    ),
    "QM9's SDF": Door(
        lambda folder: samples.write_sdf(folder / "gdb9.sdf"), ("gdb9.sdf", "gdb9.sdf.csv"), _enter_sdf
    ),
    "QM9's list": Door(
        lambda folder: samples.write_uncharacterized(folder / "uncharacterized.txt"),
        ("uncharacterized.txt",),
        lambda path: _ignore(read_uncharacterized(path)),
    ),
    "ISO17's database": Door(
        lambda folder: samples.write_iso17(folder / "reference.db"), ("reference.db",), _enter_iso17
    ),
    "ISO17's ids": Door(
        lambda folder: (folder / "ids.txt").write_text("1\n2\n5\n"),
        ("ids.txt",),
        lambda path: _ignore(read_ids(path, str(path), np.arange(1, 9))),
    ),
    "extended xyz": Door(
        _all_of("a.xyz", "a.xyz.gz", "a.xyz.bz2"), ("a.xyz", "a.xyz.gz", "a.xyz.bz2"), _enter_frames
    ),
    "ASE's trajectory": Door(_all_of("a.traj"), ("a.traj",), _enter_frames),
    "ASE's databases": Door(_all_of("a.db", "a.json"), ("a.db", "a.json"), _enter_frames),
    "output": Door(lambda folder: samples.write_gradient(folder / "gradient"), ("gradient",), _enter_frames),
    "pymatgen's JSON": Door(
        lambda folder: samples.write_pymatgen(folder / "list.json"), ("list.json",), _enter_frames
    ),
    "structures": Door(
        _all_of("a.xyz", "a.traj", "a.cif", "a.pdb"), ("a.xyz", "a.traj", "a.cif", "a.pdb"), _enter_structures
    ),
    "SMILES": Door(_make_smiles, ("0.smi", "1.smi", "2.smi"), _enter_smiles, is_native=True),
    "recipe": Door(
        lambda folder: _ignore((folder / "recipe.yaml").write_text(samples.RECIPE)),
        ("recipe.yaml",),
        _enter_recipe,
    ),
    "ensemble": Door(
        lambda folder: samples.write_ensemble(folder / "ensemble.json"),
        ("ensemble.json",),
        lambda path: _ignore(Ensemble.load(path)),
    ),
    "split": Door(samples.write_run, ("split.npz",), _enter_split),
    "metrics": Door(samples.write_run, ("metrics.csv",), _enter_metrics),
    "run's options": Door(samples.write_run, ("config.yaml",), _enter_config),
    "restart file": Door(
        lambda folder: samples.write_restart(folder / "md.extxyz"), ("md.extxyz.restart",), _enter_restart
    ),
}


def _ignore(_: object) -> None:
    """Give nothing, of what gives something."""
