"""The directive ``pretrained``: a table of the pretrained models of the clone, from their cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyg_schnet.io.toml_file import read_toml
from pyg_schnet.io.units import kcal_per_mol
from pyg_schnet.potentials.model_card import Accuracy, ModelCard

FOLDER = Path(__file__).parents[2] / "models" / "pyg_schnet_models"


def write_table(cards: list[Path]) -> str:
    """Return a table in Markdown, with a row for each model.

    Args:
        cards: Files of the cards.
    """
    head = ("name", "what it predicts", "mean absolute errors", "limits", "data")
    rows = [_row(read_toml(ModelCard, path)) for path in cards]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---",) * len(head), *rows])


def _row(card: ModelCard) -> tuple[str, ...]:
    errors = "; ".join(f"{error.quantity}: {_both_units(error)}" for error in card.errors)
    data = f"{card.data.partition(':')[0]}, {card.level_of_theory}; {card.data_license}"
    return f"`{card.name}`", card.title, errors, card.limits, data


def _both_units(error: Accuracy) -> str:
    """Return an error in its unit, and in kcal/mol."""
    if not error.unit.startswith("eV"):
        return f"{error.mae:.3g} {error.unit}"
    other = error.unit.replace("eV", "kcal/mol", 1)
    return f"{1e3 * error.mae:.3g} m{error.unit} ({error.mae / kcal_per_mol:.3g} {other})"


def setup(app: Any) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    from sphinx.util.docutils import SphinxDirective  # only here, so that tests write tables without Sphinx

    class Pretrained(SphinxDirective):
        """Insert the table, which is written again when a card changes."""

        def run(self) -> list[Any]:
            cards = sorted(FOLDER.glob("*.toml"))
            for path in (FOLDER, *cards):
                self.env.note_dependency(str(path))
            return self.parse_text_to_nodes(write_table(cards))

    app.add_directive("pretrained", Pretrained)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
