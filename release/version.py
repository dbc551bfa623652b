"""The version: the same in the package, in CITATION.cff, at the top of CHANGELOG.md and in the tag.

``python release/version.py set 0.3.0`` writes it into all three files, with today's date; ``check --tag
v0.3.0`` stops where they differ; ``notes`` prints the changelog of this version, for the release on GitHub.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "pyg_schnet/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$",  # the first, which is the newest
}
UNRELEASED = "## [Unreleased]\n"


class WrongVersion(RuntimeError):
    """The version is missing somewhere, or differs."""


def versions(root: Path = ROOT) -> dict[str, str]:
    """Read the version in each place.

    Raises:
        WrongVersion: If a file does not state one.
    """
    found = {}
    for name, pattern in PLACES.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        if match is None:
            raise WrongVersion(f"{name}: must have a line like {pattern!r}, got none")
        found[name] = match[1]
    return found


def check(root: Path = ROOT, tag: str | None = None) -> str:
    """Return the version, the same in all places.

    Args:
        root: Folder of the checkout.
        tag: Tag of the commit, ``v`` and the version, which must not have unreleased changes.

    Raises:
        WrongVersion: If places differ, or the tag, or if a tagged commit has unreleased changes.
    """
    found = versions(root)
    if tag is not None:
        found["tag"] = tag.removeprefix("v")
        if unreleased(root):
            raise WrongVersion("CHANGELOG.md: must have no [Unreleased] changes; run release/version.py set")
    if len({*found.values()}) != 1:
        raise WrongVersion(
            "must be the same everywhere, got " + ", ".join(f"{v} in {k}" for k, v in found.items())
        )
    return found["CITATION.cff"]


def unreleased(root: Path = ROOT) -> str:
    """Return the changes in the changelog that no version has yet."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.split(r"^## ", text.partition(UNRELEASED)[2], maxsplit=1, flags=re.MULTILINE)[0].strip()


def notes(root: Path = ROOT) -> str:
    """Return the section of the newest version in the changelog, without its heading."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## \[\d.*$", text, flags=re.MULTILINE)
    if len(sections) < 2:
        raise WrongVersion("CHANGELOG.md: must have a dated version, got none")
    return sections[1].strip()


def write(version: str, root: Path = ROOT, day: date | None = None) -> None:
    """Write a version into all places; the unreleased changes become those of the version.

    Raises:
        WrongVersion: If it is not of the form 1.2.3, or there are no changes.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise WrongVersion(f"`version` must be like 0.3.0, got {version!r}")
    if not unreleased(root):
        raise WrongVersion("CHANGELOG.md: must have changes below [Unreleased], got none")
    day = day or date.today()
    heading = f"{UNRELEASED}\n## [{version}] - {day}\n"
    for name, old, new in (
        ("pyg_schnet/__init__.py", PLACES["pyg_schnet/__init__.py"], f'__version__ = "{version}"'),
        ("CITATION.cff", PLACES["CITATION.cff"], f"version: {version}"),
        ("CITATION.cff", r"^date-released: .+$", f"date-released: {day}"),
        ("CHANGELOG.md", re.escape(UNRELEASED), heading),
    ):
        path = root / name
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(old, new, text, count=1, flags=re.MULTILINE), encoding="utf-8")


def main() -> None:
    """Set, check or print; the exit code is 1 where places differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("set", help="write it everywhere").add_argument("version", help="such as 0.3.0")
    commands.add_parser("check", help="compare all places").add_argument("--tag", help="such as v0.3.0")
    commands.add_parser("notes", help="print the changelog of the newest version")
    options = parser.parse_args()
    try:
        if options.command == "set":
            write(options.version)
        if options.command == "notes":
            print(notes())
        else:
            print(check(tag=getattr(options, "tag", None)))
    except WrongVersion as error:
        sys.exit(f"version: {error}")


if __name__ == "__main__":
    main()
