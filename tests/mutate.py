"""Break lines of the package on purpose, one at a time, and report which tests notice.

    python tests/mutate.py [--only PATTERN] [--jobs N] [--root TREE]

A mutant is a short text of the package and what replaces it: a sign, a factor, a cutoff, a dropped term, a
swapped axis, a unit, a missing check. The text must occur exactly once in the package, in whichever module;
where it does not, the script stops before it runs anything, so that a rewritten line gets its anchor back.
Mutants and the tests of their areas are listed in ``mutants.toml``; only these tests run, with the default
markers of pyproject.toml, up to the first failure. Mutants are made in a temporary copy of the tree.

The exit status is the number of survivors. About twenty minutes of one core.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TIMEOUT = 180  # s; a mutant that never ends counts as noticed
# Imported once, before the copies of this process that run the tests.
HEAVY = ("torch", "torch_geometric.nn", "torch_geometric.loader", "ase.io", "ase.md", "ase.optimize", "h5py")
HEAVY += ("scipy.special", "lightning_fabric", "torchmetrics", "rich.progress", "jsonargparse")
HEAVY += ("rdkit.Chem", "safetensors.torch", "vesin", "pooch")


@dataclass(frozen=True)
class Mutant:
    """A text of the package, what replaces it, and the area of tests that should notice."""

    name: str
    area: str
    old: str
    new: str


with Path(__file__).with_name("mutants.toml").open("rb") as _file:
    _TABLES = tomllib.load(_file)
AREAS = {area: tuple(table["tests"]) for area, table in _TABLES.items()}
MUTANTS = [
    Mutant(name, area, *texts) for area, table in _TABLES.items() for name, texts in table["mutants"].items()
]


def place_of(root: Path, mutant: Mutant) -> tuple[Path | None, str]:
    """Find the module that holds the text of a mutant; or return why it is not an anchor."""
    files = [path for path in sorted((root / "pyg_schnet").rglob("*")) if path.suffix in (".py", ".c", ".h")]
    hits = {path: count for path in files if (count := path.read_text().count(mutant.old))}
    if sum(hits.values()) == 1:
        return next(iter(hits)), ""
    where = ", ".join(f"{path.relative_to(root)} ({count})" for path, count in hits.items()) or "nowhere"
    return None, f"{mutant.name}: {mutant.old!r} must occur once, found {where}"


def tests_of(root: Path, area: str) -> list[str]:
    """Return the files of an area's tests; all must exist."""
    missing = [name for name in AREAS[area] if not (root / "tests" / name).is_file()]
    if missing:
        raise FileNotFoundError(f"tests of {area}: no such files: {', '.join(missing)}")
    return [f"tests/{name}" for name in AREAS[area]]


def copy_tree(root: Path, to: Path) -> None:
    """Copy what the tests need, and compile it."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "dist", "runs"
    )
    shutil.copytree(root, to, ignore=ignored, symlinks=True)
    compileall.compile_dir(to / "pyg_schnet", quiet=2)


def run_tests(tree: Path, tests: list[str], log: Path) -> tuple[int | None, float]:
    """Run tests in a fork; return the exit status, ``None`` after the time limit, and CPU seconds."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)  # of processes that the tests start
        os.environ["PYG_SCHNET_CACHE"] = str(tree.parent / "cache")
        status: int = 99
        try:
            status = int(
                pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
            )
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    began = time.monotonic()
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        if time.monotonic() - began > TIMEOUT:
            os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return None, usage.ru_utime + usage.ru_stime
        time.sleep(0.05)


def first_failure(log: Path) -> str:
    """Return the test that failed, from pytest's short summary."""
    lines = [
        line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))
    ]
    return lines[0].split(" - ")[0] if lines else ""


def mutate(root: Path, mutants: list[Mutant], folder: Path) -> Iterator[tuple[Mutant, str, float, str]]:
    """Yield the fate of each mutant, its CPU seconds, and the test that noticed it."""
    tree, log = folder / "tree", folder / "log"
    copy_tree(root, tree)
    (folder / "cache").mkdir(mode=0o700)
    for mutant in mutants:
        path, _ = place_of(tree, mutant)
        assert path is not None
        before = path.read_text()
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()  # its age and size might be those of the mutant
        path.write_text(before.replace(mutant.old, mutant.new))
        sys.dont_write_bytecode = True
        status, seconds = run_tests(tree, tests_of(tree, mutant.area), log)
        path.write_text(before)
        fate = {0: "SURVIVED", 1: "killed", None: "killed (time)"}.get(status, f"killed (exit {status})")
        yield mutant, fate, seconds, first_failure(log)


def check(root: Path, areas: set[str], folder: Path) -> None:
    """Run the tests on the tree as it is: a test that fails anyway detects nothing."""
    tree, log = folder / "tree", folder / "log"
    copy_tree(root, tree)
    (folder / "cache").mkdir(mode=0o700)
    tests = list(dict.fromkeys(name for area in sorted(areas) for name in tests_of(tree, area)))
    global TIMEOUT
    TIMEOUT, limit = 1200, TIMEOUT
    status, seconds = run_tests(tree, tests, log)
    TIMEOUT = limit
    print(f"unchanged: exit {status}, {seconds:.0f} s CPU {first_failure(log)}", flush=True)
    if status != 0:
        sys.exit(f"the tests of the unchanged tree must pass; {log.read_text()[-2000:]}")


def main() -> None:
    """Run the mutants and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run mutants whose name or area contains this")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="another tree"
    )
    parser.add_argument("--anchors", action="store_true", help="only check that each text occurs once")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name or options.only in mutant.area]
    wrong = [reason for mutant in chosen if (reason := place_of(options.root, mutant)[1])]
    if wrong:
        sys.exit("\n".join(wrong))
    for area in {mutant.area for mutant in chosen}:
        tests_of(options.root, area)
    if options.anchors:
        print(f"{len(chosen)} mutants have their place")
        return
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "check").mkdir()
        check(options.root, {mutant.area for mutant in chosen}, folder / "check")
        readers = []
        for job in range(options.jobs):
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.close(reader)
                own = folder / str(job)
                own.mkdir()
                with os.fdopen(writer, "w") as to:
                    for mutant, fate, seconds, test in mutate(options.root, chosen[job :: options.jobs], own):
                        print(f"{fate:14} {mutant.name:34} {seconds:6.1f} s  {test}", flush=True)
                        print(mutant.name, fate, seconds, sep="\t", file=to, flush=True)
                os._exit(0)
            os.close(writer)
            readers.append(reader)
        found = [line.split("\t") for reader in readers for line in os.fdopen(reader).read().splitlines()]
        for _ in readers:
            os.wait()
    survivors = [name for name, fate, _ in found if fate == "SURVIVED"]
    total = sum(float(seconds) for _, _, seconds in found)
    print(f"{len(found)} mutants, {total:.0f} s CPU; {len(survivors)} survived: {', '.join(survivors)}")
    sys.exit(len(survivors) + len(chosen) - len(found))


if __name__ == "__main__":
    main()
