"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_SYNONYMS = {  # name in other programs: names here, of which the first known one is suggested
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
    """Return a question with the most similar known name, or ``""`` if none is similar.

    Names may have sections, ``"trainer.lr"``, and dashes, ``"--temperature"``. Matches in this order:
    another spelling of the name or of its last part, a name in another program, its beginning, similarity.
    """
    spellings = {_plain(key): key for key in known}
    match = _match(_plain(name), list(spellings))
    return f" Did you mean '{spellings[match]}'?" if match else ""


def _plain(name: str) -> str:
    return name.strip("-").lower().replace("-", "_")


def _match(name: str, known: Sequence[str]) -> str | None:
    for wanted in (name, *_SYNONYMS.get(name.rpartition(".")[2], ())):
        for key in known:
            if wanted in (key, key.rpartition(".")[2]):
                return key
    if len(name) > 2 and name.isidentifier():  # not a unit such as eV/A
        begun = [key for key in known if key.rpartition(".")[2].startswith(name)]
        if begun:
            return min(begun, key=len)
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
