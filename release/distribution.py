"""Wheel and source distribution: built, and looked into before anyone installs them.

``python release/distribution.py dist`` builds both into a folder and stops at what is wrong with them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What the source distribution contains beside the package: all that tests and examples read.
COMPANIONS = ("benchmarks", "datasets", "docs", "examples", "models", "release", "tests")
FILES = (
    *("pyproject.toml", "Makefile", "constraints.txt", "constraints-min.txt", "README.md", "LICENSE"),
    *("CHANGELOG.md", "CITATION.cff", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"),
)
GENERATED = ("_build", "gallery", "generated")  # folders of docs/ that `make docs` writes


class BadDistribution(RuntimeError):
    """A distribution lacks something, or has what it must not have."""


def build(folder: Path, source: Path = ROOT, kinds: tuple[str, ...] = ("sdist", "wheel")) -> list[Path]:
    """Build distributions with this environment's hatchling; nothing is fetched.

    Args:
        folder: Output folder, without other distributions of this version.
        source: The unpacked source.
        kinds: Of ``"sdist"`` and ``"wheel"``.

    Returns:
        Their paths, in the order of ``kinds``.
    """
    flags = [flag for kind in kinds for flag in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder.resolve()), *flags]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    pattern = {"sdist": "*.tar.gz", "wheel": "*.whl"}
    return [next(folder.glob(pattern[kind])) for kind in kinds]


def contents(path: Path) -> dict[str, bytes]:
    """Read all files of a distribution, by their paths; those in an sdist start below its one folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {m.name.partition("/")[2]: archive.extractfile(m).read() for m in members}  # pyright: ignore


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a source distribution and give the folder that has its ``pyproject.toml``."""
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / path.name.removesuffix(".tar.gz")


def sources(source: Path = ROOT) -> dict[str, bytes]:
    """Read the files of the package as the wheel should have them: modules, kernels, cards, page, recipes."""
    package = source / "pyg_schnet"
    kinds = (".py", ".c", ".cpp", ".h", ".toml", ".typed", ".html", ".css", ".js")
    files = [file for file in package.rglob("*") if file.suffix in kinds]
    wanted = {file.relative_to(source).as_posix(): file.read_bytes() for file in files}
    for recipe in source.glob("datasets/*/recipes/*.yaml"):
        wanted[f"pyg_schnet/datasets/recipes/{recipe.parents[1].name}/{recipe.name}"] = recipe.read_bytes()
    return wanted


def check_wheel(path: Path, source: Path = ROOT) -> None:
    """Stop unless a wheel has the package, whole and unchanged, its license, its command, and nothing else.

    Raises:
        BadDistribution: If it has not; the message names the files.
    """
    found, wanted = contents(path), sources(source)
    packed = {name: text for name, text in found.items() if ".dist-info/" not in name}
    _refuse(path, "lacks", wanted.keys() - packed.keys())
    _refuse(path, "should not have", packed.keys() - wanted.keys())
    _refuse(path, "has changed", {name for name in wanted if wanted[name] != packed[name]})
    info = f"{'-'.join(path.name.split('-')[:2])}.dist-info"
    if found.get(f"{info}/licenses/LICENSE") != (source / "LICENSE").read_bytes():
        raise BadDistribution(f"{path.name} lacks the LICENSE, or has another one")
    if b"pyg-schnet = pyg_schnet.cli:main" not in found[f"{info}/entry_points.txt"]:
        raise BadDistribution(f"{path.name} lacks the command `pyg-schnet`")
    check_metadata(Parser().parsestr(found[f"{info}/METADATA"].decode()), path.name, source)


def _visible(folder: Path, *suffixes: str) -> list[Path]:
    """Find the files with these endings, except in hidden folders, as of environments, and generated ones."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in GENERATED]
        found += [Path(place) / name for name in names if name.endswith(suffixes) and name[0] != "."]
    return found


def check_sdist(path: Path, source: Path = ROOT) -> None:
    """Stop unless a source distribution has what building and testing need, unchanged, and no leftovers.

    Raises:
        BadDistribution: If it has not; the message names the files.
    """
    found = contents(path)
    tracked = [source / name for name in FILES]
    tracked += [
        file for name in ("pyg_schnet", *COMPANIONS) for file in _visible(source / name, ".py", ".c", ".cpp")
    ]
    tracked += _visible(source / "docs", ".md")
    tracked += _visible(source / "datasets", ".toml", ".yaml", ".npz")
    tracked += _visible(source / "tests", ".npz", ".model", ".ckpt", ".safetensors", ".toml")
    wanted = {file.relative_to(source).as_posix(): file for file in tracked}
    _refuse(path, "lacks", wanted.keys() - found.keys())
    _refuse(path, "has changed", {name for name, file in wanted.items() if file.read_bytes() != found[name]})
    leftovers = re.compile(
        r"__pycache__|\.pyc$|\.so$|(^|/)\.(?!gitignore|pyg-schnet-run)|(^|/)(runs|dist|_build)/"
    )
    _refuse(path, "should not have", {name for name in found if leftovers.search(name)})
    check_metadata(Parser().parsestr(found["PKG-INFO"].decode()), path.name, source)


def check_metadata(metadata: Message, name: str, source: Path = ROOT) -> None:
    """Stop unless metadata say what an index and pip need: version, license, Python, and the whole README.

    Raises:
        BadDistribution: If something is missing or contradicts the source.
    """
    text = (source / "pyg_schnet" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)
    wanted = {
        "Name": "pyg-schnet",
        "Version": version[1] if version else None,
        "License-Expression": "MIT",
        "License-File": "LICENSE",
        "Requires-Python": ">=3.10",
        "Description-Content-Type": "text/markdown",
    }
    for field, value in wanted.items():
        if metadata[field] != value:
            raise BadDistribution(f"{name}: `{field}` must be {value!r}, got {metadata[field]!r}")
    readme = (source / "README.md").read_text(encoding="utf-8")
    if str(metadata.get_payload()).strip() != readme.strip():
        raise BadDistribution(f"{name}: its description is not README.md")


def check_same(first: Path, second: Path) -> None:
    """Stop unless two wheels have the same files with the same bytes.

    Raises:
        BadDistribution: If they differ; the message names the files.
    """
    one, other = contents(first), contents(second)
    differing = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    _refuse(second, f"differs from {first.name} of the checkout in", differing)


def _refuse(path: Path, verb: str, names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise BadDistribution(f"{path.name} {verb} {shown}; see [tool.hatch.build] in pyproject.toml")


def main() -> None:
    """Build both into a folder, check them, and build the wheel again from the source distribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the distributions; empty or new")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"`folder` must be empty, got {folder}; delete what is in it")
    sdist, wheel = build(folder)
    check_sdist(sdist)
    check_wheel(wheel)
    with tempfile.TemporaryDirectory() as scratch:
        source = unpack(sdist, Path(scratch) / "source")
        (again,) = build(Path(scratch), source, kinds=("wheel",))
        check_same(wheel, again)
    for path in (wheel, sdist):
        print(f"{path}: {len(contents(path))} files, {path.stat().st_size:,} bytes")
    print("the wheel built from the source distribution is the same")


if __name__ == "__main__":
    main()
