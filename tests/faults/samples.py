"""Small valid files of every kind that the program reads, for the trials to hurt."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors.torch import save_file

from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.splits import random_split
from pyg_schnet.io.remote.archive import stream
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.simulation.integrators import MDSettings
from pyg_schnet.simulation.restart import RestartFile
from pyg_schnet.simulation.statistics import Statistics
from pyg_schnet.training.run_directory import RunDirectory
from pyg_schnet.training.state import TrainingState

ROOT = Path(__file__).parents[2]
SETTINGS = MDSettings(300.0, 0.5, "langevin", 0.02, None, 100.0, 0.0, 0, 5)


def water(shift: float = 0.0) -> Atoms:
    """Make a molecule of water with made-up labels."""
    atoms = Atoms("OHH", [[0.0, 0.0, 0.119], [0.03, 0.763, -0.477], [-0.02, -0.801, -0.44 + shift]])
    forces = [[0.1, 0.0, 0.2], [-0.1, 0.0, 0.0], [0.0, 0.0, -0.2]]
    atoms.calc = SinglePointCalculator(atoms, energy=-76.4 + shift, forces=forces)
    return atoms


def crystal() -> Atoms:
    """Make a small crystal with made-up labels."""
    atoms = Atoms("SiC", [[0.0, 0.0, 0.0], [1.0, 1.5, 1.0]], cell=[[4.0, 0, 0], [1.0, 5.0, 0], [0, 0, 6.0]])
    atoms.pbc = True
    atoms.calc = SinglePointCalculator(atoms, energy=-10.5, forces=np.zeros((2, 3)), stress=np.arange(6.0))
    return atoms


def potential(seed: int = 0) -> Potential:
    """Make a potential of few weights, which are drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = Potential(
            SchNet(hidden_channels=4, num_filters=4, num_interactions=1, num_gaussians=5, cutoff=4.0)
        )
    own.domain = TrainingDomain({(1, 1): 1.5, (1, 8): 0.9}, 3.0)
    return own


def write_checkpoint(path: Path, seed: int = 0) -> None:
    """Write a checkpoint."""
    checkpoint.save(potential(seed), path, {"validation": {"loss": 1.0}})


def write_training_state(path: Path) -> None:
    """Write the state of a training."""
    TrainingState(potential(), "adam", 1e-3, 0.9).save(path)


def schnetpack_weights() -> dict[str, torch.Tensor]:
    """Take the weights of a SchNetPack model of the tests."""
    with np.load(ROOT / "tests/reference/schnetpack_schnet.npz") as file:
        return {k.removeprefix("weights/"): torch.from_numpy(v) for k, v in file.items() if "weights/" in k}


def write_weights(path: Path) -> None:
    """Write weights of another program, in the form that the file's name tells."""
    if path.suffix == ".safetensors":
        save_file(schnetpack_weights(), path)
    else:
        torch.save(schnetpack_weights(), path, _use_new_zipfile_serialization=path.suffix != ".old")


def arrays(frames: int = 3) -> dict[str, np.ndarray]:
    """Make arrays in the layout of MD17, in kcal/mol."""
    atoms = [water(0.01 * number) for number in range(frames)]
    return {
        "z": atoms[0].numbers.astype(np.uint8),
        "R": np.stack([one.positions for one in atoms]),
        "E": np.array([[one.get_potential_energy()] for one in atoms]),
        "F": np.stack([one.get_forces() for one in atoms]),
    }


def write_hdf5(path: Path, compression: str | None = None) -> None:
    """Write the layout of ANI-1x."""
    with h5py.File(path, "w") as file:
        for name, frames in (("O1H2", 2), ("other/H2O1", 3)):
            group, held = file.create_group(name), arrays(frames)
            group.create_dataset("atomic_numbers", data=held["z"])
            labels = {
                "coordinates": held["R"],
                "wb97x_dz.energy": held["E"][:, 0],
                "wb97x_dz.forces": held["F"],
            }
            for key, value in labels.items():
                group.create_dataset(key, data=value, compression=compression).attrs["units"] = "eV"
                del group[key].attrs["units"]


def write_iso17(path: Path) -> None:
    """Write a database as ISO17's."""
    with ase.db.connect(path, use_lock_file=False) as database:
        for number in range(3):
            atoms = water(0.01 * number)
            forces = atoms.get_forces().tolist()
            atoms.calc = None
            database.write(atoms, key_value_pairs={"total_energy": -76.0}, data={"atomic_forces": forces})


def write_pymatgen(path: Path) -> None:
    """Write structures as pymatgen does."""
    atoms = crystal()
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "xyz": xyz, "label": symbol}
        for symbol, xyz in zip(atoms.symbols, atoms.positions.tolist(), strict=True)
    ]
    outputs = {"energy": -10.5, "forces": np.zeros((2, 3)).tolist(), "virial_stress": [1.0] * 6}
    structure = {"@module": "pymatgen.core", "lattice": {"matrix": atoms.cell.tolist()}, "sites": sites}
    path.write_text(json.dumps([{"structure": structure, "outputs": outputs}] * 2))


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write an archive of the kind that the file's name tells."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def qm9_molecule() -> bytes:
    """Take a molecule of QM9's sample, as published."""
    found = stream(ROOT / "datasets/qm9/sample.xyz.tar.bz2")
    return next(b"".join(pieces) for name, pieces in found if name.endswith(".xyz"))


def write_sdf(path: Path) -> None:
    """Write a molecule in PyG's layout of QM9, with its table beside it."""
    rows = [
        f"{x:10.4f}{y:10.4f}{z:10.4f} {s} 0  0" for s, (x, y, z) in zip("OHH", water().positions, strict=True)
    ]
    lines = [
        "gdb_3",
        " -ISIS-",
        "",
        "  3  2  0  0  0  0  0  0  0  0  1 V2000",
        *rows,
        "  1  2  1",
        "  1  3  1",
    ]
    path.write_text("\n".join([*lines, "M  END", "$$$$", ""]))
    names = "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv"
    numbers = "gdb_3,799.6,437.9,282.9,1.85,6.31,-0.29,0.07,0.36,19.0,0.02,-76.4,-76.4,-76.4,-76.4,6.0"
    path.with_suffix(".sdf.csv").write_text(f"{names}\n{numbers}\n")


def write_uncharacterized(path: Path) -> None:
    """Write a list as that of QM9's uncharacterized molecules."""
    head = ["Index  title", *[""] * 8]
    path.write_text("\n".join([*head, *[f"   {n}  C{n}H4" for n in (21, 37, 3000)], "3 compounds", ""]))


def write_gradient(path: Path) -> None:
    """Write an output of Turbomole."""
    path.write_text(
        "$grad          cartesian gradients\n"
        "  cycle =      1    SCF energy =      -75.0000000000   |dE/dxyz| =  0.012345\n"
        "    0.00000000000000      0.00000000000000      0.00000000000000      o\n"
        "    0.00000000000000      0.00000000000000      2.00000000000000      h\n"
        "   0.0000000000D+00   0.0000000000D+00   0.1000000000D-01\n"
        "   0.0000000000D+00   0.0000000000D+00  -0.1000000000D-01\n"
        "$end\n"
    )


def write_structures(path: Path) -> None:
    """Write structures in a format of ASE, which the file's name tells."""
    single = path.suffix in (".cif", ".json", ".db")
    frames = [crystal()] if single else [water(), water(0.1), water(0.2)]
    if path.suffix in (".gz", ".bz2"):
        text = io.StringIO()
        ase.io.write(text, frames, format="extxyz")
        path.write_bytes((gzip if path.suffix == ".gz" else bz2).compress(text.getvalue().encode()))
    else:
        ase.io.write(path, frames, **({"format": "extxyz"} if path.suffix == ".xyz" else {}))
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # of ASE's databases


def write_processed(path: Path) -> None:
    """Write a processed data set."""
    source = path.with_suffix(".npz")
    np.savez(source, **arrays())
    made = AtomsDataset(root=path.parent / "made", path=source)
    Path(made.processed_paths[0]).replace(path)
    source.unlink()


RECIPE = """\
# a recipe
data:
  path: frames.extxyz
  energy_key: energy
  n_train: 10
  n_val: 2
  references: {H: -13.6, O: -2040.0}
model: {hidden_channels: 64, num_interactions: 3, cutoff: 5.0, envelope: polynomial}
trainer:
  max_steps: 100
  lr: 1.0e-3
  compile: auto
out: run
"""


def write_ensemble(path: Path) -> None:
    """Write an ensemble of two checkpoints, which lie beside it."""
    members = [path.with_name(f"member{number}.safetensors") for number in range(2)]
    for number, member in enumerate(members):
        write_checkpoint(member, number)
    Ensemble([potential(0), potential(1)], {"energy": 2.0, "forces": 1.5}).save(path, members)


def write_run(folder: Path) -> None:
    """Write the files of a training run."""
    run = RunDirectory(folder)
    run.write_config({"data": {"path": "frames.extxyz", "energy_key": None, "units": "eV"}, "out": "run"})
    run.write_split(random_split(10, 6, 2, 0), 10, ["0" * 64])
    for step in (10, 20):
        run.append_metrics({"step": step, "loss": 1.5, "energy_mae": 0.1, "forces_mae": float("nan")})


def restart_file(trajectory: Path) -> RestartFile:
    """Return the restart file of a run of water."""
    return RestartFile(trajectory, SETTINGS, water(), trajectory.with_suffix(".csv"))


def write_restart(trajectory: Path) -> None:
    """Write the restart file of a run of water, beside its trajectory."""
    frame, file = water(), restart_file(trajectory)
    frame.info["step"] = 5
    file.update(frame, 100, Statistics(count=6, temperature=300.0), [1.0, 2.0])
    file.flush([])
