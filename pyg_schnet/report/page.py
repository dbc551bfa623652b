"""The page: sections rendered as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import resources
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from pyg_schnet.io.atomic import atomic_write
from pyg_schnet.io.console import printable
from pyg_schnet.report.blocks import Section
from pyg_schnet.report.contents import Contents
from pyg_schnet.report.model_sections import (
    checks_section,
    dynamics_section,
    errors_section,
    filters_section,
    structures_section,
)
from pyg_schnet.report.quantities import number, with_unit
from pyg_schnet.report.run_sections import data_sections, settings_section, timings_section, training_section
from pyg_schnet.report.verdict import find_warnings, verdict

_MOST_TILES = 6  # of properties; a table has the errors of more


def render_page(contents: Contents, date: datetime | None = None) -> str:
    """Return the report as HTML that loads nothing from elsewhere and runs no script but its own.

    Names and data are escaped. A Content-Security-Policy allows one script, by its hash.

    Args:
        contents: Everything that was measured.
        date: Date in the page; now by default.
    """
    from pyg_schnet import __version__

    date = date or datetime.now(timezone.utc)
    script = _file("molecule_view.js")
    warnings = list(find_warnings(contents))
    return (
        _environment()
        .get_template("page.html")
        .render(
            name=contents.name,
            verdict=verdict(contents),
            tiles=_tiles(contents, len(warnings)),
            warnings=warnings,
            sections=_sections(contents),
            style=_file("page.css"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=__version__,
            date=f"{date:%Y-%m-%d %H:%M} UTC",
        )
    )


def write_page(contents: Contents, path: str | os.PathLike) -> None:
    """Write the report to a file, atomically."""
    page = render_page(contents)
    with atomic_write(path) as part:
        part.write_text(page, encoding="utf-8")


def _sections(contents: Contents) -> list[Section]:
    """Return the sections in the order of a reader's questions: how good is it, on what, made how."""
    of_energies = [structures_section, checks_section, dynamics_section]
    return [
        errors_section(contents),
        *(section(contents) for section in of_energies if contents.potential.has_energy),
        *data_sections(contents),
        settings_section(contents),
        training_section(contents),
        filters_section(contents),
        timings_section(contents),
    ]


def _tiles(contents: Contents, warnings: int) -> Sequence[tuple[str, str, str]]:
    """Return label, value and mark of the numbers at the top."""
    evaluation, checks = contents.accuracy.evaluation, contents.checks
    tiles = []
    if evaluation.energy_mae is not None:
        tiles.append(("energy, MAE", with_unit(*contents.accuracy.energy_mae), ""))
    if evaluation.forces_mae is not None:
        tiles.append(("forces, MAE", with_unit(evaluation.forces_mae, "meV/Å"), ""))
    if evaluation.stress_mae is not None:
        tiles.append(("stress, MAE", with_unit(evaluation.stress_mae, "GPa"), ""))
    properties = evaluation.properties if len(evaluation.properties) <= _MOST_TILES else {}
    for name, own in properties.items():
        tiles.append((f"{name}, MAE", f"{number(own.mae)} {own.target.unit or ''}".rstrip(), ""))
    if checks is not None:
        counts = checks.as_dict()["counts"]
        made = counts["pass"] + counts["fail"]
        tiles.append(("checks passed", f"{counts['pass']} of {made}", "good" if checks.passed else "bad"))
    tiles.append(("warnings", str(warnings), "warning" if warnings else "good"))
    return tiles


def _environment() -> Environment:
    return Environment(
        loader=DictLoader({"page.html": _file("page.html")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    """Escape control characters and surrogates, which names of files may have, and UTF-8 has not."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _file(name: str) -> str:
    return resources.files("pyg_schnet.report").joinpath(name).read_text(encoding="utf-8")
