"""Hints to what a misspelled name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_SYNONYMS = {  # what other programs call it: what it is called here, the first that there is
    "cuda": ("device", "accelerator"),
    "dt": ("timestep",),
    "epochs": ("max_steps",),
    "gpu": ("device", "accelerator"),
    "gpus": ("devices",),
    "learning_rate": ("lr",),
    "n_steps": ("max_steps", "steps", "duration"),
    "nsteps": ("max_steps", "steps", "duration"),
    "output": ("out",),
    "steps": ("max_steps", "duration"),
    "time": ("duration", "max_minutes"),
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question with the name that was most probably meant, or nothing if none is near.

    Names may have sections, ``"trainer.lr"``, and dashes, ``"--temperature"``. In this order: another
    spelling of the name or of its last part, another program's name, its beginning, the most similar one.
    """
    spellings = {_plain(key): key for key in known}
    match = _match(_plain(name), list(spellings))
    return f" Did you mean '{spellings[match]}'?" if match else ""


def _plain(name: str) -> str:
    return name.strip("-").lower().replace("-", "_")


def _match(name: str, known: Sequence[str]) -> str | None:
    for wanted in (name, *_SYNONYMS.get(name, ())):
        for key in known:
            if wanted in (key, key.rpartition(".")[2]):
                return key
    if len(name) > 2 and name.isidentifier():  # no unit, as eV/A
        begun = [key for key in known if key.rpartition(".")[2].startswith(name)]
        if begun:
            return min(begun, key=len)
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
