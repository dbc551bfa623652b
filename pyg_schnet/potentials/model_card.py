"""Cards of pretrained models: what a model predicts, how well, of what, and what it cannot do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pyg_schnet.io.toml_file import from_table


@dataclass(frozen=True)
class Accuracy:
    """Errors of a model on structures that it was not trained on.

    Attributes:
        quantity: What is predicted, ``"energy"`` or ``"forces"`` for instance.
        mae: Mean absolute error.
        rmse: Root mean square error.
        unit: Unit of both.
        structures: Number of structures.
        test_set: Where they are from.
    """

    quantity: str
    mae: float
    rmse: float
    unit: str
    structures: int
    test_set: str


@dataclass(frozen=True)
class ModelCard:
    """Facts about a pretrained model.

    A card is the file ``NAME.toml`` beside the weights, ``NAME.safetensors``, whose provenance holds it, too.

    Attributes:
        name: Name of the model.
        title: What it is for, in a line.
        limits: What it is not for, in a line.
        predicts: Units of what it predicts, by quantity.
        elements: Symbols of the elements.
        level_of_theory: Level of theory of the labels.
        data: Training data, with a citation.
        data_license: License of the training data.
        split: Which structures are for training, validation and test.
        recipe: Recipe in the repository.
        commit: Commit of the repository that it was trained with.
        license: License of the weights.
        errors: Errors on test sets.
        equilibrium: Whether it was trained on relaxed structures alone.
        formula: Sum formula, for a model of one molecule.
        sha256: SHA-256 of the file of weights; ``""`` in that file.

    Raises:
        ValueError: If a text is empty or of several lines, the name or hash has another form, or an error is
            of a quantity that the model does not predict.
    """

    name: str
    title: str
    limits: str
    predicts: dict[str, str]
    elements: tuple[str, ...]
    level_of_theory: str
    data: str
    data_license: str
    split: str
    recipe: str
    commit: str
    license: str
    errors: tuple[Accuracy, ...]
    equilibrium: bool = False
    formula: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.name):
            raise ValueError(f"`name` must be of small letters, digits, - and ., got {self.name!r}")
        for entry in fields(self):
            value = getattr(self, entry.name)
            is_text = isinstance(value, str) and entry.name not in ("formula", "sha256")
            if is_text and (not value or "\n" in value):
                raise ValueError(f"`{entry.name}` must be one line of text, got {value!r}")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"`sha256` must be 64 hexadecimal digits in lower case, got {self.sha256!r}")
        if unknown := {error.quantity for error in self.errors} - set(self.predicts):
            raise ValueError(f"`errors` must be of quantities in `predicts`, got {sorted(unknown)[0]!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON."""
        return json.loads(json.dumps(asdict(self)))  # with lists, as files have them

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ModelCard:
        """Build a card from the result of :meth:`to_json`; fields of later versions are left out.

        Args:
            entry: Result of :meth:`to_json`, also after a round trip through JSON.

        Raises:
            ValueError: If a field is missing or wrong.
        """
        known = {field.name for field in fields(cls)}
        return from_table(cls, {name: value for name, value in entry.items() if name in known})
