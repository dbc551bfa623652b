"""Cards: what a published data set is, where its files are, and in which units.

A card is a file ``NAME.toml`` beside this module, and the one place where these facts stand. Its tables are
the classes of this module, key for key: the keys of :class:`Card` at the top; ``[splits]``, a sentence each;
``[[files]]``, a :class:`CardFile` each; ``[[properties]]``, a :class:`Property` each; ``[sample]``, where one
is shipped, a :class:`Sample`; ``[atomref]``, where isolated atoms are published, a table for each property.

``checked`` says whether we saw it in a file (true) or took it from a paper or a page (false).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group

from pyg_schnet.datasets.cards.schema import from_table
from pyg_schnet.datasets.report.rendering import render_card
from pyg_schnet.io.remote.download import RemoteFile
from pyg_schnet.io.spelling import nearest
from pyg_schnet.io.units import conversion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Property:
    """A property: how it is published, and how it is ours.

    Attributes:
        name: Our field.
        published: Its published name.
        published_unit: Its published unit.
        unit: Our unit.
        description: What it is.
        checked: Whether we saw its unit in a file.
    """

    name: str
    published: str
    published_unit: str
    unit: str
    description: str
    checked: bool

    def __post_init__(self) -> None:
        conversion(self.published_unit, self.unit)

    @property
    def factor(self) -> float:
        """Factor from the published unit to ours."""
        return conversion(self.published_unit, self.unit)


@dataclass(frozen=True)
class CardFile:
    """A file: one to download, or a member of such an archive, or a part of an installed package.

    Attributes:
        name: Its name; in an archive or a package the path there.
        checked: Whether we saw its size and hashes.
        urls: Addresses of a file to download, in the order in which they are tried.
        archive: Or the file that it is a member of.
        package: Or the requirement that installs it, such as ``"qm9pack==1.0.3"``.
        bytes: Size.
        sha256: Hash, in hexadecimal digits.
        md5: Hash, in hexadecimal digits.
        group: Part of the data set that it belongs to.
        molecule: Molecule that it holds.
        level_of_theory: Of this file, where files differ.
        records: Structures or lines in it.
        train: Of these, in the published training set.
        test: Of these, in the published test set.
    """

    name: str
    checked: bool
    urls: tuple[str, ...] = ()
    archive: str | None = None
    package: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    group: str | None = None
    molecule: str | None = None
    level_of_theory: str | None = None
    records: int | None = None
    train: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        given = [key for key in ("urls", "archive", "package") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(f"one of `urls`, `archive` and `package` must be given, got {given or 'none'}")
        _require_hash("sha256", self.sha256, 64)
        _require_hash("md5", self.md5, 32)
        if self.urls:
            _ = self.remote  # which refuses addresses and names

    @property
    def remote(self) -> RemoteFile:
        """What to download, and the hash that it must have: SHA-256, else MD5, else none.

        Raises:
            ValueError: If it is a part of something else.
        """
        if not self.urls:
            raise ValueError(
                f"{self.name}: has no address, for it is a part of {self.archive or self.package}"
            )
        hashes = {"sha256": self.sha256, "md5": self.md5}
        known = [f"{algorithm}:{digits}" for algorithm, digits in hashes.items() if digits]
        return RemoteFile(self.name, self.urls, known[0] if known else None, self.bytes)


@dataclass(frozen=True)
class Sample:
    """A small file that is shipped beside the card.

    Attributes:
        file: Its name.
        description: What it is.
        records: Structures in it.
        sha256: Hash, in hexadecimal digits.
    """

    file: str
    description: str
    records: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        _require_hash("sha256", self.sha256, 64)


@dataclass(frozen=True)
class Card:
    """A data set. ``rich`` prints it.

    Attributes:
        name: Name of its folder.
        title: What it is.
        year: Of publication.
        license: Of the data.
        doi: Digital object identifier.
        url: Where to read more.
        level_of_theory: How it was computed.
        elements: Symbols of the elements that occur.
        records: Number of structures.
        bibtex: How to cite it.
        defects: What to know before use, a sentence each.
        splits: Published splits, a sentence each.
        files: The files that hold it.
        properties: What is known of a structure.
        sample: What is shipped.
        atomref: Values of the isolated atoms by property and element, in the published units.
    """

    name: str
    title: str
    year: int
    license: str
    doi: str
    url: str
    level_of_theory: str
    elements: tuple[str, ...]
    records: int
    bibtex: str
    defects: tuple[str, ...]
    splits: dict[str, str]
    files: tuple[CardFile, ...]
    properties: tuple[Property, ...]
    sample: Sample | None = None
    atomref: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_different("files", [file.name for file in self.files])
        _require_different("properties", [entry.name for entry in self.properties])
        for file in self.files:
            if file.archive and not self.file(file.archive).urls:
                raise ValueError(f"`archive` of {file.name} must be a file with `urls`, got {file.archive!r}")
        for name, values in self.atomref.items():
            self.property(name)
            if set(values) != set(self.elements):
                wanted = ", ".join(self.elements)
                raise ValueError(f"`atomref.{name}` must have values for {wanted}; got {', '.join(values)}")

    def property(self, name: str) -> Property:
        """Return the property of our name ``name``, or refuse with the names that there are."""
        known = {entry.name: entry for entry in self.properties}
        _require_known("property", name, known)
        return known[name]

    def factor(self, name: str) -> float:
        """Return the factor from the published unit of a property to ours."""
        return self.property(name).factor

    def select(
        self, name: str | None = None, *, group: str | None = None, molecule: str | None = None
    ) -> tuple[CardFile, ...]:
        """Return the files with these keys, in their order.

        Raises:
            ValueError: If there is none; it lists the values that the key has.
        """
        files = self.files
        for key, value in {"group": group, "molecule": molecule, "name": name}.items():
            if value is not None:
                _require_known(key, value, [getattr(file, key) for file in files if getattr(file, key)])
                files = tuple(file for file in files if getattr(file, key) == value)
        return files

    def file(
        self, name: str | None = None, *, group: str | None = None, molecule: str | None = None
    ) -> CardFile:
        """Return the one file with these keys.

        Raises:
            ValueError: If there is none, or more than one.
        """
        files = self.select(name, group=group, molecule=molecule)
        if len(files) != 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"`group`, `molecule` or `name` must tell the files apart, got {names}")
        return files[0]

    def __rich__(self) -> Group:
        return render_card(self)


def card_names() -> tuple[str, ...]:
    """Return the names of all cards, sorted."""
    return tuple(_paths())


def read_card(name: str) -> Card:
    """Read the card of a data set.

    Args:
        name: One of :func:`card_names`.

    Raises:
        ValueError: If there is no such card, or a mistake in it; it names file and key.
    """
    paths = _paths()
    _require_known("name", name, paths)
    return read_card_file(paths[name])


def read_card_file(path: Path) -> Card:
    """Read a card from a file; see :func:`read_card`."""
    try:
        return from_table(Card, tomllib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # ours, or of text that is no UTF-8 or no TOML
        raise ValueError(f"{path}: {error}") from None


def _paths() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def _require_known(key: str, value: str, known: Iterable[str]) -> None:
    known = list(dict.fromkeys(known))
    if value not in known:
        names = ", ".join(map(repr, known)) or "none"
        raise ValueError(f"`{key}` must be one of {names}; got {value!r}.{nearest(value, known)}")


def _require_different(key: str, names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"`{key}` must have names of their own, got {twice[0]!r} twice")


def _require_hash(key: str, value: str | None, digits: int) -> None:
    if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
        raise ValueError(f"`{key}` must be {digits} hexadecimal digits in lower case, got {value!r}")
