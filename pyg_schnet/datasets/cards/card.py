"""Cards: facts about published data sets, their files and their units.

A card is a file ``NAME.toml`` beside this module, the only place for these facts. Its tables have the fields
of the classes of this module: :class:`Card` at the top level; ``[splits]``, a sentence each; ``[[files]]``,
:class:`CardFile`; ``[[properties]]``, :class:`Property`; ``[sample]``, :class:`Sample`, if one is shipped;
``[atomref]``, a table for each property, if isolated atoms are published.

``checked`` states whether a fact was verified in a file (true) or taken from a paper or web page (false).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group

from pyg_schnet.datasets.report.rendering import render_card
from pyg_schnet.io.remote.download import RemoteFile
from pyg_schnet.io.spelling import nearest
from pyg_schnet.io.toml_file import read_toml
from pyg_schnet.io.units import conversion

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Property:
    """Property of a data set, with published and own name and unit.

    Attributes:
        name: Field in this package.
        published: Published name.
        published_unit: Published unit.
        unit: Unit in this package.
        description: Description.
        checked: Whether the unit was verified in a file.
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
        """Factor from the published unit to that of this package."""
        return conversion(self.published_unit, self.unit)


@dataclass(frozen=True)
class CardFile:
    """File of a data set: a download, a member of a downloaded archive, or a part of an installed package.

    Attributes:
        name: Name; for members of archives and packages the path there.
        checked: Whether size and hashes were verified.
        urls: URLs of a download, in the order in which they are tried.
        archive: Name of the archive that contains it, instead of URLs.
        package: Requirement that installs it, such as ``"qm9pack==1.0.3"``, instead of URLs.
        bytes: Size in bytes.
        sha256: SHA-256, in hexadecimal digits.
        md5: MD5, in hexadecimal digits.
        group: Part of the data set that it belongs to.
        molecule: Molecule of its structures.
        level_of_theory: Level of theory, if files differ.
        records: Number of structures or lines.
        train: Number of them in the published training set.
        test: Number of them in the published test set.
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
            _ = self.remote  # validates URLs and name

    @property
    def remote(self) -> RemoteFile:
        """The file to download, with its SHA-256, otherwise MD5, otherwise no hash.

        Raises:
            ValueError: If it is a member of an archive or a package.
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
    """Small file with structures that is shipped with the card.

    Attributes:
        file: Name.
        description: Description.
        records: Number of structures.
        sha256: SHA-256, in hexadecimal digits.
    """

    file: str
    description: str
    records: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        _require_hash("sha256", self.sha256, 64)


@dataclass(frozen=True)
class Card:
    """Facts about a published data set. ``rich`` prints it.

    Attributes:
        name: Name of the card.
        title: Title.
        year: Year of publication.
        license: License of the data.
        doi: Digital object identifier.
        url: Web page.
        level_of_theory: Level of theory of the labels.
        elements: Symbols of the elements that occur.
        records: Number of structures.
        bibtex: Citation.
        defects: Known defects, a sentence each.
        splits: Published splits, a sentence each.
        files: Files.
        properties: Properties of each structure.
        sample: Sample that is shipped, if any.
        atomref: Values of isolated atoms by property and element, in published units.
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
        _require_unique("files", [file.name for file in self.files])
        _require_unique("properties", [entry.name for entry in self.properties])
        for file in self.files:
            if file.archive and not self.file(file.archive).urls:
                raise ValueError(f"`archive` of {file.name} must be a file with `urls`, got {file.archive!r}")
        for name, values in self.atomref.items():
            self.property(name)
            if set(values) != set(self.elements):
                wanted = ", ".join(self.elements)
                raise ValueError(f"`atomref.{name}` must have values for {wanted}; got {', '.join(values)}")

    def property(self, name: str) -> Property:
        """Return a property by its name in this package; raise ValueError with the known names."""
        known = {entry.name: entry for entry in self.properties}
        _require_known("property", name, known)
        return known[name]

    def factor(self, name: str) -> float:
        """Return the factor from the published unit of a property to that of this package."""
        return self.property(name).factor

    def select(
        self, name: str | None = None, *, group: str | None = None, molecule: str | None = None
    ) -> tuple[CardFile, ...]:
        """Return the files with these attributes, in their order.

        Raises:
            ValueError: If there is none, with the known values.
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
        """Return the only file with these attributes.

        Raises:
            ValueError: If there is none or more than one.
        """
        files = self.select(name, group=group, molecule=molecule)
        if len(files) != 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"`group`, `molecule` or `name` must select one file, got {names}")
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
        ValueError: If the card does not exist or is wrong, with file and key.
    """
    paths = _paths()
    _require_known("name", name, paths)
    return read_card_file(paths[name])


def read_card_file(path: Path) -> Card:
    """Read a card from a file; see :func:`read_card`."""
    return read_toml(Card, path)


def _paths() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def _require_known(key: str, value: str, known: Iterable[str]) -> None:
    known = list(dict.fromkeys(known))
    if value not in known:
        names = ", ".join(map(repr, known)) or "none"
        raise ValueError(f"`{key}` must be one of {names}; got {value!r}.{nearest(value, known)}")


def _require_unique(key: str, names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"`{key}` must have names of their own, got {twice[0]!r} twice")


def _require_hash(key: str, value: str | None, digits: int) -> None:
    if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
        raise ValueError(f"`{key}` must be {digits} hexadecimal digits in lower case, got {value!r}")
