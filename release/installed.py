"""The wheel as a user gets it: in an empty environment, far from the checkout, used and tested there.

``python release/installed.py dist`` installs ``dist/*.whl`` with its dependencies alone and runs the
command; then it adds the extras and runs the tests of ``dist/*.tar.gz``, whose package is taken away before,
so that nothing but the wheel can be imported.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from distribution import unpack

EXTRAS = "test,tblite,qm9,openmm,lammps"
SAMPLE = "datasets/md17/ethanol_gfn2_xtb.npz"
SMALL = "--model.hidden_channels 16 --model.num_filters 16 --trainer.max_steps 50"
COMMANDS = (
    "pyg-schnet --help",
    f"pyg-schnet data {SAMPLE}",
    "pyg-schnet recipes",
    f"pyg-schnet train own_file --data.path {SAMPLE} --data.n_train 100 {SMALL} --out run",
    f"pyg-schnet check run/model.safetensors {SAMPLE} --only rotation,forces",
    f"pyg-schnet evaluate run/model.safetensors {SAMPLE} --part test",
    "ase build CH3CH2OH ethanol.xyz",
    "pyg-schnet predict run/model.safetensors ethanol.xyz predicted.extxyz",
)


class Place:
    """An empty environment beside an unpacked source distribution without its package.

    Args:
        folder: Where both are made; it must not exist, or be empty.
        dist: Has one wheel and one source distribution.
        python: The interpreter that makes the environment.
    """

    def __init__(self, folder: Path, dist: Path, python: str) -> None:
        self.wheel, self.sdist = (_only(dist, pattern) for pattern in ("*.whl", "*.tar.gz"))
        self.bin = folder / "environment" / "bin"
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self.environ["PATH"] = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        self.work = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.run(python, "-m", "venv", str(folder / "environment"))
        self.work = unpack(self.sdist, folder / "source")
        shutil.rmtree(self.work / "pyg_schnet")

    def run(self, *command: str) -> None:
        """Run a program in the source folder; a failure ends everything."""
        print("$", shlex.join(command), flush=True)
        subprocess.run(command, cwd=self.work, env=self.environ, check=True)

    def install(self, extras: str, arguments: list[str]) -> None:
        """Install the wheel with pip, with the versions of ``constraints.txt`` unless others are named."""
        target = f"pyg-schnet[{extras}] @ {self.wheel.as_uri()}" if extras else str(self.wheel)
        pip = [str(self.bin / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        self.run(*pip, *(arguments or ["-c", "constraints.txt"]), target)

    def check_origin(self) -> None:
        """Stop unless the package that is imported is the installed one."""
        code = "import pathlib, sys, pyg_schnet as p; sys.exit(sys.prefix not in p.__file__ and p.__file__)"
        self.run(str(self.bin / "python"), "-c", code)


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.resolve().glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"`dist` must have one {pattern}, got {len(found)}; say make dist")
    return found[0]


def main() -> None:
    """Install, use, test; the exit code tells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dist", type=Path, help="folder of the wheel and the source distribution")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment")
    parser.add_argument("--folder", type=Path, help="for the environment, and kept; else a temporary one")
    parser.add_argument("--pip_args", default="", help="pip's, instead of `-c constraints.txt`")
    parser.add_argument("--pytest_args", default="", help="pytest's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder.resolve() if options.folder else Path(scratch)
        place = Place(folder, options.dist, options.python)
        arguments = shlex.split(options.pip_args)
        place.install("", arguments)
        place.check_origin()
        for command in COMMANDS:
            place.run(*shlex.split(command))
        place.install(EXTRAS, arguments)
        place.check_origin()
        place.run("pytest", *shlex.split(options.pytest_args))


if __name__ == "__main__":
    main()
