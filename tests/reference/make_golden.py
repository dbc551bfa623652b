"""Write the energies and forces of SchNetPack 2 to ``schnetpack_*.npz``, and whole models beside them.

``schnetpack_post.npz`` is of the model of ``schnetpack_schnet.npz`` behind the postprocessors that
SchNetPack adds for data with a mean and atomic references; ``schnetpack_heads.npz`` has the energies of
the whole models, whose output modules are others. The tests read these files alone. SchNetPack is needed
only to write them again, in an environment of its own (Python 3.11; the CPU build of torch is enough)::

    python3.11 -m venv schnetpack-env
    . schnetpack-env/bin/activate
    pip install torch==2.13.0
    pip install --no-deps schnetpack==2.1.1
    pip install ase==3.29.0 matscipy==1.3.1 pytorch-lightning==2.6.6 hydra-core==1.3.8
    pip install h5py==3.16.0 torch-ema==0.3 dirsync==2.2.6 fasteners==0.20 tqdm==4.70.1
    python tests/reference/make_golden.py

``make_golden_1.py`` does the same with SchNetPack 1.

``--no-deps`` because SchNetPack asks for sympy 1.12 or older and torch for a newer one; the last
two lines hold what ``import schnetpack`` needs. pip warns of sympy and of the requirements left
out; SchNet calls none of them.

One name is put back before that import. ``schnetpack/data/loader.py`` imports ``T_co`` from
``torch.utils.data.dataloader``, where torch 2.13 calls it ``_T_co``; the import fails. (SchNetPack
2.2.0, which needs Python 3.12, uses the new name and has the same SchNet.) It is a ``TypeVar`` in
an annotation of the data loader, which is not used here, so no number depends on it.

Every number comes from SchNetPack's own classes in float64. Three choices are ours:

* The biases, which SchNetPack starts at zero, are drawn at random: a bias lost or added twice
  would not show otherwise.
* Nine Gaussians over 4 Å lie 0.5 Å apart. SchNetPack stores centers, widths and cutoff in float32,
  where these values are exact.
* ``Atomwise`` gets the shifted softplus of the paper; its own default is SiLU, which the whole models have
  (``schnetpack_silu.model`` and, as Lightning writes it with its hyperparameters, ``schnetpack_silu.ckpt``),
  or the hyperbolic tangent of torch (``schnetpack_tanh.model``, an average with intensive offsets).
"""

import platform
from datetime import date
from pathlib import Path

import ase
import numpy as np
import torch
from ase.neighborlist import neighbor_list
from torch.utils.data import dataloader

if not hasattr(dataloader, "T_co"):
    dataloader.T_co = dataloader._T_co  # see the module docstring

import schnetpack  # needs the name above
from schnetpack import properties
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF, shifted_softplus
from schnetpack.representation import SchNet
from schnetpack.task import AtomisticTask, ModelOutput
from schnetpack.transform import AddOffsets, CastTo64, ScaleProperty

OUTPUT = Path(__file__).with_name("schnetpack_schnet.npz")
POSTPROCESSED = Path(__file__).with_name("schnetpack_post.npz")
HEADS = Path(__file__).with_name("schnetpack_heads.npz")
COMMAND = "python tests/reference/make_golden.py"
SEED = 0
HYPERPARAMETERS = {
    "n_atom_basis": 8,
    "n_filters": 6,  # unlike n_atom_basis, so that the two cannot be swapped
    "n_interactions": 2,
    "n_rbf": 9,
    "cutoff": 4.0,  # Å
}

# Atomic numbers and positions in Å, moved off every symmetry by up to 0.06 Å.
MOLECULES = {
    "water": (
        [8, 1, 1],
        [
            [-0.050, -0.032, 0.155],
            [0.010, 0.715, -0.485],
            [-0.003, -0.804, -0.449],
        ],
    ),
    "ethanol": (
        [6, 6, 8, 1, 1, 1, 1, 1, 1],
        [
            [1.122, -0.413, 0.002],
            [-0.008, 0.570, 0.029],
            [-1.135, -0.254, 0.018],
            [-1.923, 0.357, -0.060],
            [0.099, 1.183, 0.865],
            [0.090, 1.218, -0.890],
            [2.149, 0.088, 0.025],
            [1.114, -1.086, 0.905],
            [1.180, -1.072, -0.870],
        ],
    ),
    "benzene": (
        [6, 6, 6, 6, 6, 6, 1, 1, 1, 1, 1, 1],
        [
            [-0.024, 1.424, 0.027],
            [1.175, 0.737, 0.019],
            [1.230, -0.659, -0.009],
            [0.031, -1.350, -0.048],
            [-1.166, -0.710, -0.002],
            [-1.251, 0.721, -0.025],
            [0.045, 2.455, 0.007],
            [2.138, 1.255, -0.036],
            [2.111, -1.212, 0.030],
            [0.008, -2.432, -0.035],
            [-2.108, -1.281, 0.056],
            [-2.135, 1.254, 0.056],
        ],
    ),
}


def build_model(
    postprocessors: list[torch.nn.Module] | None = None, **head: object
) -> NeuralNetworkPotential:
    """Build SchNetPack's SchNet with random biases, in float64; by default with the shifted softplus."""
    torch.manual_seed(SEED)
    size = HYPERPARAMETERS
    representation = SchNet(
        n_atom_basis=size["n_atom_basis"],
        n_interactions=size["n_interactions"],
        radial_basis=GaussianRBF(n_rbf=size["n_rbf"], cutoff=size["cutoff"]),
        cutoff_fn=CosineCutoff(size["cutoff"]),
        n_filters=size["n_filters"],
    )
    readout = Atomwise(
        n_in=size["n_atom_basis"],
        **(head or {"activation": shifted_softplus}),
        output_key=properties.energy,
        per_atom_output_key="energy_per_atom",
    )
    model = NeuralNetworkPotential(
        representation,
        input_modules=[PairwiseDistances()],
        output_modules=[readout, Forces()],
        postprocessors=postprocessors,
        input_dtype_str="float64",
    )
    model = model.double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def evaluate(
    model: NeuralNetworkPotential, z: np.ndarray, pos: np.ndarray, list_cutoff: float
) -> dict[str, np.ndarray]:
    """Return SchNetPack's results for one molecule, with all neighbors within ``list_cutoff``."""
    idx_i, idx_j = neighbor_list("ij", ase.Atoms(numbers=z, positions=pos), list_cutoff)
    inputs = {
        properties.Z: torch.from_numpy(z),
        properties.R: torch.from_numpy(pos.copy()),
        properties.idx_i: torch.from_numpy(idx_i),
        properties.idx_j: torch.from_numpy(idx_j),
        properties.offsets: torch.zeros(len(idx_i), 3, dtype=torch.float64),
        properties.idx_m: torch.zeros(len(z), dtype=torch.int64),
        properties.n_atoms: torch.tensor([len(z)]),
    }
    outputs = model(inputs)
    return {
        "idx_i": idx_i,
        "idx_j": idx_j,
        "representation": inputs["scalar_representation"].detach().numpy(),
        "energy_per_atom": outputs["energy_per_atom"].detach().squeeze(-1).numpy(),
        "energy": outputs[properties.energy].detach().squeeze(0).numpy(),
        "forces": outputs[properties.forces].detach().numpy(),
    }


def build_postprocessors(is_extensive: bool = True) -> list[torch.nn.Module]:
    """Build a factor and offsets, with the numbers that a data module would set."""
    scale = ScaleProperty(properties.energy, scale=torch.tensor([2.5]))
    offsets = AddOffsets(properties.energy, add_mean=True, add_atomrefs=True, is_extensive=is_extensive)
    offsets.mean = torch.tensor([-0.75])
    offsets.atomref = torch.zeros(100)
    offsets.atomref[[1, 6, 8]] = torch.tensor([-13.625, -1029.5, -2041.25])
    return [scale, offsets]


def check(model: NeuralNetworkPotential, z: np.ndarray, pos: np.ndarray) -> tuple[float, float]:
    """Stop unless SchNetPack agrees with itself; return the two errors found.

    The forces must equal central differences of the energy, and pairs listed beyond the cutoff
    must add nothing.
    """
    cutoff, step = HYPERPARAMETERS["cutoff"], 1e-5  # Å
    result = evaluate(model, z, pos, cutoff)
    differences = np.zeros_like(pos)
    for index in np.ndindex(pos.shape):
        shift = np.zeros_like(pos)
        shift[index] = step
        ahead = evaluate(model, z, pos + shift, cutoff)["energy"]
        behind = evaluate(model, z, pos - shift, cutoff)["energy"]
        differences[index] = -(ahead - behind) / (2 * step)
    force_error = np.abs(differences - result["forces"]).max()
    pair_error = np.abs(evaluate(model, z, pos, 2 * cutoff)["energy"] - result["energy"])
    if not (force_error < 1e-8 and pair_error < 1e-13):
        raise RuntimeError(
            f"SchNetPack disagrees with itself: forces by {force_error}, energy by {pair_error}"
        )
    return float(force_error), float(pair_error)


def main() -> None:
    """Evaluate all molecules and write the file."""
    model = build_model()
    arrays = {f"weights/{name}": tensor.numpy() for name, tensor in model.state_dict().items()}
    arrays |= {f"hyperparameters/{name}": value for name, value in HYPERPARAMETERS.items()}
    for name, (z, pos) in MOLECULES.items():
        z, pos = np.array(z), np.array(pos)
        result = evaluate(model, z, pos, HYPERPARAMETERS["cutoff"])
        arrays |= {f"molecules/{name}/{key}": array for key, array in result.items()}
        arrays |= {f"molecules/{name}/z": z, f"molecules/{name}/pos": pos}
        force_error, pair_error = check(model, z, pos)
        unlisted = len(z) * (len(z) - 1) - len(result["idx_i"])
        print(
            f"{name:8} energy {result['energy']:+.12f}  largest force "
            f"{np.abs(result['forces']).max():.6f}  directed pairs beyond the cutoff {unlisted}  "
            f"differences {force_error:.0e}  pair error {pair_error:.0e}"
        )
    provenance = {
        "program": "SchNetPack",
        "version": schnetpack.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "ase": ase.__version__,
        "command": COMMAND,
        "date": date.today().isoformat(),
        "units": "positions in Å; energies of an untrained model, in no unit; forces per Å",
    }
    told = {f"provenance/{name}": str(value) for name, value in provenance.items()}
    write(OUTPUT, arrays | told)
    # Forces leave the model before its postprocessors: only energies are of interest.
    model = build_model(build_postprocessors())
    arrays = {f"weights/{name}": tensor.numpy() for name, tensor in model.state_dict().items()}
    for name, (z, pos) in MOLECULES.items():
        result = evaluate(model, np.array(z), np.array(pos), HYPERPARAMETERS["cutoff"])
        arrays |= {f"molecules/{name}/energy": result["energy"]}
    write(POSTPROCESSED, arrays | told)
    write_whole_models(told)


def write_whole_models(told: dict[str, str]) -> None:
    """Write whole models as SchNetPack saves them, a checkpoint, and their energies."""
    models = {
        "silu": build_model([CastTo64(), *build_postprocessors()], aggregation_mode="sum"),
        "tanh": build_model(
            build_postprocessors(is_extensive=False), aggregation_mode="avg", activation=torch.tanh
        ),
    }
    arrays: dict[str, np.ndarray | str | float] = {**told}
    for head, model in models.items():
        torch.save(model, HEADS.with_name(f"schnetpack_{head}.model"))
        for name, (z, pos) in MOLECULES.items():
            arrays[f"{head}/{name}/energy"] = evaluate(
                model, np.array(z), np.array(pos), HYPERPARAMETERS["cutoff"]
            )["energy"]
    task = AtomisticTask(
        models["silu"],
        [ModelOutput(properties.energy, torch.nn.MSELoss(), metrics={})],
        optimizer_args={"lr": 1e-3},
    )
    held = {"epoch": 1, "state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(held, HEADS.with_name("schnetpack_silu.ckpt"))
    write(HEADS, arrays)


def write(path: Path, arrays: dict[str, np.ndarray | str | float]) -> None:
    """Write one file."""
    np.savez_compressed(path, **arrays)
    print(f"wrote {path.name}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
