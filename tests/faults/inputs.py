"""Inputs of the trials: a tiny model, structures and files made of the shipped samples."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import torch
import yaml
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.potentials import checkpoint

_DATASETS = Path(__file__).parents[2] / "datasets"
SAMPLE = _DATASETS / "md17" / "ethanol_gfn2_xtb.npz"
QM9_SAMPLE = _DATASETS / "qm9" / "sample.xyz.tar.bz2"
FRAMES = 120  # that are predicted
_TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 12, "cutoff": 4.0}
_ARCHIVE = "rmd17.tar.bz2"


def model(folder: Path) -> str:
    """Write a checkpoint of a random potential that is flat enough for a quiet dynamics."""
    path = folder / "model.safetensors"
    if not path.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            potential = Potential(SchNet(**_TINY), scale=0.1, elements=[1, 6, 8])
        checkpoint.save(potential, path)
    return str(path)


def start(folder: Path) -> str:
    """Write a molecule."""
    ase.io.write(folder / "start.xyz", molecule("CH3CH2OH"))
    return str(folder / "start.xyz")


def frames(folder: Path, number: int = FRAMES) -> str:
    """Write structures of the sample."""
    path = folder / "frames.extxyz"
    with np.load(SAMPLE) as file:
        ase.io.write(path, [ase.Atoms(file["z"], pos) for pos in file["R"][:number]])
    return str(path)


def npz(folder: Path, times: int = 8) -> Path:
    """Write the sample many times over, in the layout of MD17, without fingerprint."""
    path = folder / "ethanol.npz"
    with np.load(SAMPLE) as file:
        arrays = {key: np.concatenate([file[key]] * times) for key in "REF"}
        np.savez(path, z=file["z"], **arrays)
    return path


def extxyz(folder: Path, number: int = 800) -> Path:
    """Write labelled structures of the sample as extended xyz."""
    path = folder / "labelled.extxyz"
    labelled = []
    with np.load(SAMPLE) as file:
        for pos, energy, forces in zip(*(file[key][:number] for key in "REF"), strict=True):
            atoms = ase.Atoms(file["z"], pos)
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy.item()), forces=forces)
            labelled.append(atoms)
    ase.io.write(path, labelled)
    return path


def archive(folder: Path, times: int = 1) -> Path:
    """Write an archive as that of revised MD17, with one molecule, of the sample many times over."""
    path = folder / "served" / _ARCHIVE
    path.parent.mkdir(exist_ok=True)
    with np.load(SAMPLE) as file:
        arrays = {key: np.concatenate([file[key]] * times) for key in "REF"}
        stream = io.BytesIO()
        energies, forces = arrays["E"].ravel(), arrays["F"]
        np.savez(
            stream,
            nuclear_charges=file["z"],
            coords=arrays["R"],
            energies=energies,
            forces=forces,
            old_indices=np.arange(len(energies)),
            old_energies=energies,
            old_forces=forces,
        )
    members = {"rmd17/npz_data/rmd17_ethanol.npz": stream.getvalue()}
    for part in ("train", "test"):
        for split in range(1, 6):
            rows = range(len(energies))[split + 10 * (part == "test") :: 20]
            members[f"rmd17/splits/index_{part}_{split:02d}.csv"] = "\n".join(map(str, rows)).encode()
    with tarfile.open(path, "w:bz2") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def recipe(folder: Path, kind: int) -> Path:
    """Write a recipe of a run of some hundred steps with many validations."""
    path = folder / f"recipe_{kind}.yaml"
    trainer = {"max_steps": 240, "batch_size": 8, "val_every": 15, "threads": 1, "compile": False}
    other = {"optimizer": "adam", "precision": "float64", "schedule": "exponential", "val_every": 40}
    content = {
        "data": {"path": str(SAMPLE), "n_train": 100, "n_val": 20},
        "model": _TINY,
        "trainer": {**trainer, **(other if kind else {}), "seed": 3},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def sha256(path: Path) -> str:
    """Give a file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def serve_from(address: str, digest: str, size: int) -> None:
    """Let the card of MD17 in this process name a local address of its archive."""
    from pyg_schnet.datasets import md17

    card = md17.read_card("md17")
    here = {"urls": (address,), "sha256": digest, "md5": None, "bytes": int(size)}
    files = tuple(
        replace(file, **here) if file.name == _ARCHIVE else replace(file, records=None) for file in card.files
    )
    card = replace(card, files=files)
    md17.read_card = lambda _: card  # pyright: ignore[reportPrivateImportUsage]


def run_served(arguments: list[str]) -> int:
    """Run a command with a local address of the archive: address, SHA-256 and size come first."""
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    serve_from(*arguments[:2], int(arguments[2]))
    return cli.main(arguments[3:])
