"""Root mean squares, and numbers as text: three significant digits and a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from pyg_schnet.io.units import GPa, kcal_per_mol

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNITS = {  # of an eV, an eV/Å or an eV/Å³
    "eV": 1.0,
    "eV/Å": 1.0,
    "meV": 1e-3,
    "meV/atom": 1e-3,
    "meV/Å": 1e-3,
    "kcal/mol": kcal_per_mol,
    "kcal/mol/Å": kcal_per_mol,
    "GPa": GPa,
}


def number(value: float) -> str:
    """Format with three significant digits, or all digits before the decimal point."""
    return _significant(value, 3)


def two_digits(value: float) -> str:
    """Format with two significant digits, or all digits before the decimal point."""
    return _significant(value, 2)


def _significant(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return "not finite"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    elif size >= 10 ** (digits - 1) or size == 0:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits - 1 - math.floor(math.log10(size))}f}"
    return text.replace("-", "−")


def with_unit(value: float, unit: str) -> str:
    """Format a value in eV and Å in a unit of :data:`UNITS`, followed by the unit."""
    return f"{number(value / UNITS[unit])} {unit}"


def percent(share: float) -> str:
    """Format a share as a percentage."""
    return f"{number(100 * share)} %"


def count(number_of: int, noun: str) -> str:
    """Return a number and a noun, in the plural where it must be."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


def join_words(words: Sequence[str]) -> str:
    """Return words joined by commas and "and"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def rms(values: Tensor) -> Tensor:
    """Compute the root mean square of all values."""
    return values.square().mean().sqrt()
