"""A process that enters one door with what atheris makes of valid files; see ``guided.py``."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

import atheris

with atheris.instrument_imports(include=["pyg_schnet"], enable_loader_override=False):
    from benchmarks.faults.doors import DOORS
    from benchmarks.faults.watched import judge, limit

_MEMORY = 3 * 2**30  # bytes, beyond what the program takes
_EVERY = 50  # inputs between two notes of how many there were


class Search:
    """What atheris calls with its inputs, and what came of them."""

    def __init__(self, name: str, folder: Path, told: Path, keep: Path):
        self._name, self._told, self._keep = name, told, keep
        DOORS[name].make(folder)
        self._valid = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        self._hurt = [folder / hurt for hurt in DOORS[name].hurt]
        self._folder = folder
        self._tried = self._accepted = 0
        self._failures: dict[str, str] = {}

    def corpus(self) -> list[bytes]:
        """Give the valid files as inputs: a byte that tells which, and the content."""
        return [bytes([place]) + self._valid[path] for place, path in enumerate(self._hurt)]

    def __call__(self, data: bytes) -> None:
        """Enter with an input."""
        path = self._hurt[data[0] % len(self._hurt) if data else 0]
        path.write_bytes(data[1:])
        outcome = judge(self._name, path)
        if outcome.kind == "failed":
            sort = ":".join(outcome.text.split(":")[:3])
            if sort not in self._failures:
                place = self._keep / str(self._tried)
                place.mkdir(parents=True, exist_ok=True)
                (place / path.name).write_bytes(data[1:])
                self._failures[sort] = str(place / path.name)
        self._tried += 1
        self._accepted += outcome.kind == "accepted"
        self._restore(path)
        if self._tried % _EVERY == 0 or outcome.kind == "failed":
            self._note()

    def _note(self) -> None:
        about = {"tried": self._tried, "accepted": self._accepted, "failures": self._failures}
        self._told.write_text(json.dumps(about))

    def _restore(self, path: Path) -> None:
        path.write_bytes(self._valid[path])
        for other in self._folder.iterdir():
            if other.is_dir():
                shutil.rmtree(other)
            elif other not in self._valid:
                other.unlink()


def main() -> None:
    """Search until the time is over."""
    name, told, keep, seed, seconds = sys.argv[1:]
    folder, corpus = Path(mkdtemp()), Path(mkdtemp())
    search = Search(name, folder, Path(told), Path(keep))
    for number, content in enumerate(search.corpus()):
        (corpus / str(number)).write_bytes(content)
        search(content)
    logging.disable()
    limit(_MEMORY)
    os.chdir(folder.parent)
    options = [f"-max_total_time={seconds}", f"-seed={int(seed) + 1}", "-rss_limit_mb=0", "-timeout=60"]
    atheris.Setup([sys.argv[0], str(corpus), *options], search)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
