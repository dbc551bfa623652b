"""GDML, kernel ridge regression of forces, by the package ``sgdml`` in an environment of its own.

    PYTHON benchmarks/baselines/gdml.py TRAIN VAL TEST [--points 1000] [--sigmas 10 20 40] [--memory 16]

The files are npz in revised MD17's layout. It prints one JSON object: the kernel's width that won on VAL's
forces, seconds, and mean absolute errors of energies and forces on TEST, in the files' units. No symmetries
are used (``use_sym=False``): it is GDML as the paper has it, not sGDML. A kernel that does not fit into
memory is told, not tried.

Source:
    Chmiela, Tkatchenko, Sauceda, Poltavsky, Schütt, Müller, Science Advances 3, e1603015 (2017).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time

import numpy as np
from sgdml.predict import GDMLPredict
from sgdml.train import GDMLTrain


def read(path: str, name: str, keys: tuple[str, str]) -> dict:
    """Read frames as ``sgdml`` wants them."""
    with np.load(path) as file:
        z, pos = file["nuclear_charges"], file["coords"].astype(float)
        energy, forces = (file[key].astype(float) for key in keys)
    texts = {"type": "d", "code_version": "1.0.3", "name": name, "theory": "unknown", "md5": f"{name} {path}"}
    texts |= {"r_unit": "Ang", "e_unit": "kcal/mol"}
    arrays = {"z": z, "R": pos, "E": energy.reshape(-1), "F": forces}
    return {**{key: np.array(text) for key, text in texts.items()}, **arrays}


def kernel_gigabytes(points: int, atoms: int) -> float:
    """Give the size of the kernel matrix in double precision."""
    return (3 * atoms * points) ** 2 * 8 / 1e9


def errors(model: dict, data: dict) -> tuple[float, float]:
    """Mean absolute errors of energies and forces."""
    energy, forces = GDMLPredict(model, num_workers=1).predict(data["R"].reshape(len(data["R"]), -1))
    return float(np.abs(energy - data["E"]).mean()), float(
        np.abs(forces - data["F"].reshape(forces.shape)).mean()
    )


def main() -> int:
    """Train with each width, choose on validation frames, test once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs=3, metavar="TRAIN VAL TEST")
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--sigmas", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--memory", type=float, default=16.0, help="for the kernel, in GB")
    parser.add_argument("--energy_key", default="old_energies")
    parser.add_argument("--forces_key", default="old_forces")
    options = parser.parse_args()
    keys = (options.energy_key, options.forces_key)
    train, val, test = (read(path, "abc"[k], keys) for k, path in enumerate(options.files))
    size = kernel_gigabytes(options.points, len(train["z"]))
    if size > options.memory:
        print(json.dumps({"failed": f"the kernel takes {size:.0f} GB, more than {options.memory:.0f}"}))
        return 1
    began, found = time.time(), []
    with contextlib.redirect_stdout(sys.stderr):  # what sgdml prints
        for sigma in options.sigmas:
            task = GDMLTrain(max_memory=20).create_task(
                train, options.points, val, min(1000, len(val["E"])), sigma, lam=1e-10, use_sym=False
            )
            model = GDMLTrain(max_memory=20).train(task)
            found.append((errors(model, val)[1], sigma, model))
        best = min(found, key=lambda entry: entry[0])
        energy, forces = errors(best[2], test)
    result = {"sigma": best[1], "seconds": time.time() - began, "energy_mae": energy, "forces_mae": forces}
    print(json.dumps({**result, "n": len(test["E"]), "points": options.points}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
