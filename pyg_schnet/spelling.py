"""Hints to what a misspelled name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question with the most similar name, or nothing if none is similar."""
    spellings = {key.lower(): key for key in known}
    match = difflib.get_close_matches(name.lower(), spellings, n=1)
    return f" Did you mean '{spellings[match[0]]}'?" if match else ""
