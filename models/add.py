"""Add a finished run to the pretrained models: weights and card.

    python models/add.py RUN FACTS.toml --test FILE [--part test] [--energy_key KEY …]

FACTS.toml holds the fields of a card that nobody can measure: name, title, limits, level_of_theory, data,
data_license, split, recipe and test_set, a description of the structures of --test; as needed equilibrium,
formula, license, commit and errors on other test sets. The rest is filled in from the run and from errors on
FILE. Writes NAME.safetensors and NAME.toml into models/pyg_schnet_models, in place of those of that name.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

import pyg_schnet
from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.io.hashes import hash_file
from pyg_schnet.io.toml_file import parse_toml
from pyg_schnet.potentials.checkpoint import provenance
from pyg_schnet.potentials.model_card import ModelCard
from pyg_schnet.training.evaluation import ModelEvaluation, evaluate

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "models" / "pyg_schnet_models"
LARGEST = 2_000_000  # bytes of a file of weights
_PATHS = ("path", "val_path", "root")  # of the data, in the provenance


def add(
    run: Path,
    facts: Mapping[str, Any],
    test: Path,
    part: str | None = None,
    folder: Path = FOLDER,
    **keys: str | None,
) -> ModelCard:
    """Write weights and card of a run, and return the card.

    Args:
        run: Directory of the run, or a checkpoint.
        facts: Fields of the card, and ``test_set``; see the top of this file.
        test: Structures with labels, none of which was trained on.
        part: Part of ``test`` by the split of the run; all by default.
        folder: Where to write.
        **keys: Keys and units of ``test``, as for ``pyg_schnet.evaluate``.

    Raises:
        ValueError: If a field of the card is missing or wrong, structures of ``test`` were trained on, or the
            weights take more than 2 MB.
    """
    path = run / "model.safetensors" if run.is_dir() else run
    potential = pyg_schnet.load(path)
    errors = evaluate(path, test, part, **keys)
    if errors.trained_on:
        raise ValueError(f"{test}: must hold structures of the test set alone; {errors.note()}")
    card = _card(facts, potential, errors)
    weights = folder / f"{card.name}.safetensors"
    potential.float()
    origin = provenance(path)
    origin["data"] = {key: _name(key, value) for key, value in origin.get("data", {}).items()}
    pyg_schnet.save(potential, weights, {**origin, "card": card.to_json()})
    if weights.stat().st_size > LARGEST:
        raise ValueError(f"{weights}: must have at most {LARGEST:,} bytes, got {weights.stat().st_size:,}")
    card = replace(card, sha256=hash_file(weights))
    with atomic_write(weights.with_suffix(".toml")) as temporary:
        temporary.write_text(as_toml(card), encoding="utf-8")
    return card


def _card(facts: Mapping[str, Any], potential: pyg_schnet.Potential, errors: ModelEvaluation) -> ModelCard:
    facts = dict(facts)
    test_set = facts.pop("test_set")
    units = {target.name: target.unit for target in potential.properties}
    found = {name: (errors.properties[name].mae, errors.properties[name].rmse) for name in units}
    if potential.has_energy:
        units |= {"energy": "eV"} if facts.get("equilibrium") else {"energy": "eV", "forces": "eV/Å"}
    found |= {
        name: (getattr(errors, f"{name}_mae"), getattr(errors, f"{name}_rmse"))
        for name in ("energy", "forces")
        if name in units
    }
    measured = [
        {
            "quantity": name,
            "mae": float(f"{mae:.5g}"),
            "rmse": float(f"{rmse:.5g}"),
            "unit": units[name],
            "structures": errors.n,
            "test_set": test_set,
        }
        for name, (mae, rmse) in found.items()
        if mae is not None and not math.isnan(mae)  # without labels
    ]
    others = [entry for entry in facts.pop("errors", []) if entry["test_set"] != test_set]
    filled = {
        "predicts": units,
        "elements": [chemical_symbols[z] for z in potential.elements],
        "commit": _commit(),
        "license": "MIT",
    }
    return ModelCard.from_json({**filled, **facts, "errors": measured + others})


def _name(key: str, value: object) -> object:
    """Return the name of a file of data in place of its path on this machine."""
    if key not in _PATHS or value is None:
        return value
    return [Path(one).name for one in value] if isinstance(value, list) else Path(str(value)).name


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def as_toml(card: ModelCard) -> str:
    """Return a card as TOML."""
    entries = card.to_json()
    tables = {"predicts": [entries.pop("predicts")], "errors": entries.pop("errors")}
    lines = [*_lines(entries), "", "[predicts]", *_lines(tables["predicts"][0])]
    for entry in tables["errors"]:
        lines += ["", "[[errors]]", *_lines(entry)]
    return "\n".join(lines) + "\n"


def _lines(entries: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items()]


def main(arguments: list[str] | None = None) -> int:
    """Add the run that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="directory of the run, or a checkpoint")
    parser.add_argument("facts", type=Path, help="TOML file")
    parser.add_argument("--test", type=Path, required=True, help="structures with labels")
    parser.add_argument("--part", help="part of them by the split of the run, such as 'test'")
    for name in ("energy_key", "forces_key", "units"):
        parser.add_argument(f"--{name}", help="of --test, as for `pyg-schnet evaluate`")
    options = vars(parser.parse_args(arguments))
    facts = parse_toml(options.pop("facts"))
    card = add(options.pop("run"), facts, **options)
    print(f"{card.name}: " + ", ".join(f"{e.quantity} {e.mae:g} {e.unit}" for e in card.errors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
