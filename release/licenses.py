"""The table LICENSES.md: each dependency of the package with its license, read from the installed packages.

``python release/licenses.py`` writes it, in the environment that ``make`` makes.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "LICENSES.md"
TOOLS = ("test", "docs", "dev")  # extras of those who work on the package; they are not its dependencies

# Names that packages use in place of SPDX's, as the field License or as the last part of a classifier.
SYNONYMS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "LicenseRef-MPICH": "mpich2",
    "MIT License": "MIT",
}
# Of those that do not say it, or not exactly: read in the files that they carry or on their pages.
READ = {
    "cycler": "BSD-3-Clause",
    "ipi": "GPL-3.0-only OR MIT",  # not installed by `make`
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "LicenseRef-matplotlib",  # its own, after Python's: permissive
    "mdanalysis": "LGPL-3.0-or-later",  # not installed by `make`
    "mpmath": "BSD-3-Clause",
    "openmm": "MIT AND LGPL-3.0-or-later",  # LGPL: its GPU platforms; the metadata say "BSD-like"
    "openmmml": "MIT",  # not installed by `make`
    "scipy": "BSD-3-Clause",
    "sella": "LGPL-3.0-or-later",  # not installed by `make`
    "sympy": "BSD-3-Clause",
    "tomli": "MIT",  # for Python 3.10 only
    "triton": "MIT",
    "torch-sim-atomistic": "MIT",  # not installed by `make`
    "torch-cluster": "MIT",  # compiled by `make test-ext` only
    "torch-scatter": "MIT",
    "wandb": "MIT",  # not installed by `make`
}
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC0-1.0", "LicenseRef-matplotlib", "MIT", "MIT-0", "MIT-CMU", "mpich2", "PSF-2.0", "Zlib"),
}
WEAK = {
    "LGPL-2.1-or-later",
    "LGPL-3.0-or-later",
    "MPL-2.0",
}  # bind changes to them, not those who import them
STRONG = {"GPL-2.0-only", "GPL-3.0-only"}  # binds what is distributed together with it: in extras only

HEAD = """# Licenses of the dependencies of pyg_schnet

pyg_schnet itself is under the MIT license. Its wheel and its source distribution contain no code of others:
the packages below are installed with it, each under its own license, which binds whoever redistributes it.
Versions are those of `constraints.txt` on Linux with Python 3.11. Licenses are SPDX expressions, from the
packages' own metadata or, where those are missing or ambiguous, from their license files or web pages.
`make LICENSES.md` writes this page.
"""
TAIL = """
## What they require

* ASE, certifi and tqdm, and of the extras tblite and parts of OpenMM, are under the LGPL or the MPL: code
  that imports them may have any license; changes to their own files must be published with them.
* LAMMPS is under the GPL: what is distributed together with it must be under the GPL, too, which the MIT
  license permits; pyg_schnet runs without it.
* Matplotlib's license is permissive, after Python's.
* torch from PyPI includes NVIDIA's libraries on Linux (`nvidia-*`, `cuda-*`), which are free of charge but
  proprietary; PyTorch's CPU builds have none.
"""


@dataclass(frozen=True)
class Package:
    """An installed package, or one that this interpreter does not need."""

    name: str
    version: str
    license: str
    link: str

    @property
    def row(self) -> str:
        """Its line of the table."""
        return f"| [{self.name}]({self.link}) | {self.version} | {self.license} |"


def project() -> dict:
    """Read the table ``[project]`` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required() -> list[Requirement]:
    """Give the direct dependencies."""
    return [Requirement(text) for text in project()["dependencies"]]


def optional() -> dict[str, list[Requirement]]:
    """Give those of the extras that users may want."""
    extras = project()["optional-dependencies"]
    return {name: [Requirement(text) for text in extras[name]] for name in extras if name not in TOOLS}


def package_of(name: str) -> Package:
    """Describe a package.

    Raises:
        ValueError: If its license cannot be determined; the message quotes its metadata.
    """
    try:
        info = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return Package(name, "–", READ[name], f"https://pypi.org/project/{name}/")
    name = canonicalize_name(info["Name"])
    return Package(name, info["Version"].partition("+")[0], license_of(name, info), link_of(name, info))


def license_of(name: str, info: metadata.PackageMetadata) -> str:
    """Return a license, as an SPDX expression, from metadata.

    Raises:
        ValueError: If they are silent or loose, and ``READ`` has no entry.
    """
    if name in READ:
        return READ[name]
    classifiers = [text for text in info.get_all("Classifier") or [] if text.startswith("License")]
    stated = [info[field] for field in ("License-Expression", "License") if field in info]
    stated += [text.rpartition(" :: ")[2] for text in classifiers]
    stated = [text.partition("\n")[0].strip() for text in stated]  # some give the whole text
    for text in stated:
        try:
            return canonicalize_license_expression(SYNONYMS.get(text, text))
        except InvalidLicenseExpression:
            continue
    raise ValueError(
        f"the license of {name} must be one of SPDX's, got {stated}; read it, and add it to `READ`"
    )


def link_of(name: str, info: metadata.PackageMetadata) -> str:
    """Give the page of a package: its source or home where it says so, else PyPI's."""
    urls = dict(text.split(", ", 1) for text in info.get_all("Project-URL") or [])
    urls = {key.lower(): url for key, url in urls.items()}
    named = [urls.get(key) for key in ("repository", "source", "source code", "code", "github", "homepage")]
    return next(filter(None, [*named, info["Home-page"]]), f"https://pypi.org/project/{name}/")


def closure(requirements: list[Requirement]) -> set[str]:
    """Give the names of packages and of all that they need here, and of those that are not installed."""
    found: set[tuple[str, ...]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), ("", *requirement.extras)
        if (name, *extras) in found:
            continue
        found.add((name, *extras))
        try:
            texts = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        needed = [Requirement(text) for text in texts]
        waiting += [n for n in needed if not n.marker or any(n.marker.evaluate({"extra": e}) for e in extras)]
    return {name for name, *_ in found}


def parts_of(expression: str) -> set[str]:
    """Split an SPDX expression into the licenses that it names."""
    return set(re.split(r" (?:AND|OR) ", expression.replace("(", "").replace(")", "")))


def page() -> str:
    """Write the page."""
    direct = [canonicalize_name(requirement.name) for requirement in required()]
    extras = {extra: closure(requirements) for extra, requirements in optional().items()}
    brought = closure(required())
    tables = {
        "Required": direct,
        "Brought by those": brought - set(direct),
        **{f"Only with `pyg-schnet[{extra}]`": names - brought for extra, names in sorted(extras.items())},
    }
    lines = [HEAD]
    for title, names in tables.items():
        lines += [f"## {title}", "", "| package | version | license |", "|---|---|---|"]
        lines += [*(package_of(name).row for name in sorted(names)), ""]
    return "\n".join(lines).rstrip() + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
