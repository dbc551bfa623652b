"""Write the energies and forces of SchNetPack 1 to ``schnetpack_1.npz``.

The tests read that file alone. SchNetPack is needed only to write it again, in an environment of its own
(Python 3.11; the CPU build of torch is enough)::

    python3.11 -m venv schnetpack-1-env
    . schnetpack-1-env/bin/activate
    pip install torch==2.13.0 numpy==2.4.6 ase==3.29.0
    pip install --no-deps schnetpack==1.0.1 tensorboardX==2.6.4 protobuf==7.36.2 h5py==3.16.0 tqdm==4.70.1
    pip install pyyaml
    python tests/reference/make_golden_1.py

Every number comes from SchNetPack's own classes in float64; nothing of them had to be mended. Its lists
of neighbors, which call names that NumPy no longer has, are not used: each atom is told all others, and
the cutoff function ends their influence. Molecules and sizes are those of ``make_golden.py``, and so are
its choices; mean, deviation and references have few binary digits, for SchNetPack stores them in float32.
"""

import platform
from datetime import date
from pathlib import Path

import ase
import numpy as np
import schnetpack  # noqa: F401  the modules below import each other
import torch
from ase.data import atomic_masses
from schnetpack import Properties
from schnetpack.atomistic import AtomisticModel, Atomwise, DipoleMoment
from schnetpack.nn.cutoff import CosineCutoff, HardCutoff
from schnetpack.representation import SchNet

OUTPUT = Path(__file__).with_name("schnetpack_1.npz")
MOLECULES = Path(__file__).with_name("schnetpack_schnet.npz")
SEED = 0
SIZES = {"n_atom_basis": 8, "n_filters": 6, "n_interactions": 2, "n_gaussians": 9, "cutoff": 4.0}
VARIANTS = {
    "sum": {},
    "avg": {"aggregation_mode": "avg"},
    "hard": {"cutoff_network": HardCutoff},
    "coupled": {"coupled_interactions": True},
    "dipole": {"dipole": True},
}


def build_model(
    aggregation_mode: str = "sum",
    dipole: bool = False,
    cutoff_network: type = CosineCutoff,
    coupled_interactions: bool = False,
) -> AtomisticModel:
    """Build SchNetPack's SchNet with random biases, in float64."""
    torch.manual_seed(SEED)
    representation = SchNet(**SIZES, cutoff_network=cutoff_network, coupled_interactions=coupled_interactions)
    atomref = np.zeros((100, 1))
    atomref[[1, 6, 8], 0] = [-13.625, -1029.5, -2041.25]
    if dipole:
        output = DipoleMoment(SIZES["n_atom_basis"], property="dipole", predict_magnitude=True)
    else:
        output = Atomwise(
            SIZES["n_atom_basis"],
            aggregation_mode=aggregation_mode,
            property="energy",
            derivative="forces",
            negative_dr=True,
            mean=torch.tensor([-0.75]),
            stddev=torch.tensor([2.5]),
            atomref=atomref,
        )
    model = AtomisticModel(representation, output).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def evaluate(model: AtomisticModel, z: np.ndarray, pos: np.ndarray) -> dict[str, np.ndarray]:
    """Return SchNetPack's results for one molecule, about its center of mass as its data sets have it."""
    masses = atomic_masses[z][:, None]
    pos = pos - (masses * pos).sum(axis=0) / masses.sum()
    atoms = len(z)
    others = np.array([[j for j in range(atoms) if j != i] for i in range(atoms)])
    inputs = {
        Properties.Z: torch.from_numpy(z)[None],
        Properties.R: torch.from_numpy(pos)[None],
        Properties.cell: torch.zeros(1, 3, 3, dtype=torch.float64),
        Properties.cell_offset: torch.zeros(1, atoms, atoms - 1, 3, dtype=torch.float64),
        Properties.neighbors: torch.from_numpy(others)[None],
        Properties.neighbor_mask: torch.ones(1, atoms, atoms - 1, dtype=torch.float64),
        Properties.atom_mask: torch.ones(1, atoms, dtype=torch.float64),
    }
    outputs = model(inputs)
    return {name: value.detach().squeeze(0).numpy() for name, value in outputs.items()}


def main() -> None:
    """Evaluate all molecules and write the file."""
    with np.load(MOLECULES) as file:
        given = {key: file[key] for key in file.files if key.endswith(("/z", "/pos"))}
    arrays: dict[str, np.ndarray | str | float] = dict(given)
    for variant, options in VARIANTS.items():
        model = build_model(**options)
        for name, tensor in model.state_dict().items():
            arrays[f"{variant}/weights/{name}"] = tensor.numpy()
        for name in sorted({key.split("/")[1] for key in given}):
            result = evaluate(model, given[f"molecules/{name}/z"], given[f"molecules/{name}/pos"])
            arrays |= {f"{variant}/molecules/{name}/{key}": array for key, array in result.items()}
            print(variant, name, {key: np.round(array, 6)[:1] for key, array in result.items()})
    provenance = {
        "program": "SchNetPack",
        "version": "1.0.1",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "ase": ase.__version__,
        "command": "python tests/reference/make_golden_1.py",
        "date": date.today().isoformat(),
        "units": "positions in Å; energies and dipoles of an untrained model, in no unit; forces per Å",
    }
    arrays |= {f"provenance/{name}": str(value) for name, value in provenance.items()}
    np.savez_compressed(OUTPUT, **arrays)
    print(f"wrote {OUTPUT.name}, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
