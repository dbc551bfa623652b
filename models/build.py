"""Check the pretrained models and build their wheel: python models/build.py FOLDER."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyg_schnet
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.io.toml_file import read_toml
from pyg_schnet.potentials.model_card import ModelCard

HERE = Path(__file__).resolve().parent
LARGEST = 2_000_000  # bytes of a file of weights


def check(card: Path) -> ModelCard:
    """Return a card whose weights are those that it states; raise ValueError for others."""
    read, weights = read_toml(ModelCard, card), card.with_suffix(".safetensors")
    if read.name != card.stem:
        raise ValueError(f"{card}: `name` must be that of the file, got {read.name!r}")
    if not weights.is_file() or hash_file(weights) != read.sha256:
        raise ValueError(f"{weights}: must have the hash of its card; add the model again")
    if weights.stat().st_size > LARGEST:
        raise ValueError(f"{weights}: must have at most {LARGEST:,} bytes, got {weights.stat().st_size:,}")
    if not read.errors:
        raise ValueError(f"{card}: `errors` must have errors on a test set, got none")
    held = pyg_schnet.load(weights).card
    if held is None or {**held.to_json(), "sha256": read.sha256} != read.to_json():
        raise ValueError(f"{weights}: must hold the card beside it; add the model again")
    return read


def main(arguments: list[str]) -> int:
    """Check all models, and build the wheel into a folder."""
    cards = sorted(HERE.glob("pyg_schnet_models/*.toml"))
    for card in cards:
        print(f"{check(card).name}: the hash is that of the card")
    folder = Path(arguments[0]).resolve()
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "wheel"]
    subprocess.run(command, cwd=HERE, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
