"""The command ``models``: the pretrained models, and their cards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text

from pyg_schnet.cli.options import make_parser
from pyg_schnet.io.console import out

if TYPE_CHECKING:
    from pyg_schnet.potentials.model_card import Accuracy, ModelCard


def build() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser(
        "List the pretrained models, or show the card of one: what it predicts, with which errors, and what "
        "it is not for. Every command takes a model by its name in place of a run. "
        "Example: pyg-schnet models\n"
        "pyg-schnet models NAME\n"
        "pyg-schnet predict NAME molecules.xyz out.xyz",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="model to show, by name, path or address; all are listed without it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def run(options: Namespace) -> int:
    """List the models, or show the card of one."""
    from pyg_schnet.potentials.pretrained import named_models, read_model_card

    if options.name is not None:
        card, path = _find(options.name)
        if options.json:
            print(json.dumps(_entry(card, path)))
        else:
            out.print(_card_page(card, path), soft_wrap=False)
        return 0
    cards = {
        name: (read_model_card(name), toml.with_suffix(".safetensors"))
        for name, toml in named_models().items()
    }
    if options.json:
        print(json.dumps({name: _entry(card, path) for name, (card, path) in cards.items()}))
    elif not cards:
        out.print("no models are installed; pip install ./models in a clone of pyg_schnet installs them")
    else:
        out.print(_table(list(cards.values())), soft_wrap=False)
        out.print(
            "Show a card: pyg-schnet models NAME\nUse one:     pyg-schnet predict NAME IN OUT, "
            "or pyg_schnet.load(NAME)"
        )
    return 0


def limits(model: str) -> Iterator[str]:
    """Yield what the pretrained models that a command line names are not for.

    Args:
        model: Argument ``MODEL`` of a command. Errors in it are left to the command.
    """
    from pyg_schnet.potentials.checkpoint import provenance
    from pyg_schnet.potentials.model_card import ModelCard
    from pyg_schnet.potentials.model_files import checkpoint_paths, resolve_models
    from pyg_schnet.potentials.pretrained import is_address

    if ":" in model and not is_address(model):  # a model of Python code, see `check`
        return
    with suppress(ValueError, OSError):
        for path in checkpoint_paths(resolve_models(model)):
            if card := provenance(path).get("card"):
                card = ModelCard.from_json(card)
                yield f"{card.name}: {card.limits}"


def _find(name: str) -> tuple[ModelCard, Path]:
    """Return the card and the file of a model, by its name, path or address."""
    from pyg_schnet.potentials.checkpoint import provenance
    from pyg_schnet.potentials.model_card import ModelCard
    from pyg_schnet.potentials.model_files import resolve_models
    from pyg_schnet.potentials.pretrained import named_models, read_model_card

    (path,) = resolve_models([name])
    if name in named_models() and not Path(name).exists():
        return read_model_card(name), Path(path)
    if not (card := provenance(path).get("card")):
        raise ValueError(
            f"{path}: has no card, which pretrained models have; `pyg-schnet report` describes runs"
        )
    return ModelCard.from_json(card), Path(path)


def _entry(card: ModelCard, path: Path) -> dict[str, Any]:
    return {**card.to_json(), "path": str(path), "bytes": path.stat().st_size}


def _table(models: list[tuple[ModelCard, Path]]) -> Table:
    table = Table(title="Pretrained models, with mean absolute errors on test sets", title_justify="left")
    for name in ("name", "what it predicts", "elements", "MB", "license"):
        table.add_column(name, justify="right" if name == "MB" else "left", no_wrap=name == "name")
    for card, path in models:
        errors = ", ".join(_mae(error) for error in card.errors)
        what = f"{card.title}\n{errors}"
        table.add_row(
            card.name, what, " ".join(card.elements), f"{path.stat().st_size / 1e6:.1f}", card.license
        )
    return table


def _mae(error: Accuracy) -> str:
    """Return quantity and error; energies in meV."""
    thousandths = error.unit.startswith("eV")
    value, unit = (1e3 * error.mae, f"m{error.unit}") if thousandths else (error.mae, error.unit)
    return f"{error.quantity} {value:.3g} {unit}"


def _card_page(card: ModelCard, path: Path) -> Table:
    from pyg_schnet.io.units import kcal_per_mol

    page = Table.grid(padding=(0, 2))
    page.add_column(no_wrap=True)
    page.add_column(overflow="fold")
    page.add_row("name", Text(card.name, style="bold"))
    page.add_row("purpose", card.title)
    page.add_row("limits", card.limits)
    page.add_row("predicts", ", ".join(f"{name} in {unit}" for name, unit in card.predicts.items()))
    page.add_row("elements", " ".join(card.elements))
    for error in card.errors:
        text = f"MAE {_mae(error).removeprefix(f'{error.quantity} ')}"
        if error.unit.startswith("eV"):
            text += f" ({error.mae / kcal_per_mol:.3g} {error.unit.replace('eV', 'kcal/mol', 1)})"
        page.add_row(error.quantity, f"{text}, on {error.structures:,} structures: {error.test_set}")
    for name in ("level_of_theory", "data", "data_license", "split", "recipe", "commit", "license", "sha256"):
        page.add_row(name.replace("_", " "), getattr(card, name))
    page.add_row("file", f"{path.name}, {path.stat().st_size:,} bytes")
    return page
