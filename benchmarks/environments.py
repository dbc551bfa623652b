"""Python environments of the peers, made from PyPI when they are first needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / ".environments"
TORCH = "torch==2.13.0"

# What `pip install` gets, one call after the other. SchNetPack asks for sympy 1.12 or older and torch for a
# newer one, so its requirements are named here: those that importing it needs.
REQUIREMENTS = {
    "schnetpack": [
        [TORCH, "ase==3.29.0", "matscipy==1.3.1", "pytorch-lightning==2.6.6", "hydra-core==1.3.8"],
        ["h5py==3.16.0", "torch-ema==0.3", "dirsync==2.2.6", "fasteners==0.20", "tqdm==4.70.1"],
        ["--no-deps", "schnetpack==2.1.1"],
    ],
    "graph-pes": [[TORCH, "ase==3.29.0"], ["graph-pes==1.0.2"]],
    "sgdml": [[TORCH, "numpy<2.4", "ase==3.29.0"], ["sgdml==1.0.3"]],
}
VERSIONS = {"schnetpack": "SchNetPack 2.1.1", "graph-pes": "graph-pes 1.0.2", "sgdml": "sgdml 1.0.3"}


def python_of(name: str) -> str:
    """Give the interpreter of an environment, which is made first if it is not there.

    Args:
        name: A key of ``REQUIREMENTS``; anything else runs in the project's own environment.

    Raises:
        subprocess.CalledProcessError: If pip could not install something; its messages are on the terminal.
    """
    if name not in REQUIREMENTS:
        return sys.executable
    folder = FOLDER / VERSIONS[name].lower().replace(" ", "-")
    python = folder / "bin/python"
    if not (folder / "installed").exists():
        print(f"making {folder.name}: some minutes, once", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for arguments in REQUIREMENTS[name]:
            command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            subprocess.run([*command, *arguments], check=True, stdout=sys.stderr)
        (folder / "installed").touch()
    return str(python)
