"""A process that enters one door with what atheris makes of valid files; see ``guided.py``."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pyg_schnet"], enable_loader_override=False):
    from tests.faults.doors import DOORS
    from tests.faults.fuzzing import Tally, restore
    from tests.faults.watched import judge, limit

_MEMORY = 3 * 2**30  # bytes, beyond what the program takes
_HANGS = 60  # s


class Search:
    """What atheris calls with its inputs, and what came of them.

    Args:
        door: Its name.
        folder: For the files, and the tally of them.
        keep: For inputs that fail.
    """

    def __init__(self, door: str, folder: Path, keep: Path):
        self._door, self._folder, self._keep = door, folder / "in", keep
        self._told, self._tally = folder / "tally.json", Tally()
        self._folder.mkdir()
        DOORS[door].make(self._folder)
        self._valid = {path: path.read_bytes() for path in sorted(self._folder.iterdir()) if path.is_file()}
        self._hurt = [self._folder / name for name in DOORS[door].hurt]
        for path in self._hurt:  # so that all is imported that will be
            judge(door, path)
        self._note()

    def corpus(self) -> list[bytes]:
        """Give the valid files as inputs: a byte that tells which, and the content."""
        return [bytes([place]) + self._valid[path] for place, path in enumerate(self._hurt)]

    def __call__(self, data: bytes) -> None:
        """Enter with an input."""
        path = self._hurt[data[0] % len(self._hurt) if data else 0]
        path.write_bytes(data[1:])
        outcome = judge(self._door, path)
        if outcome.kind == "failed":
            place = self._keep / str(self._tally.tried)
            place.mkdir(parents=True, exist_ok=True)
            (place / path.name).write_bytes(data[1:])
        self._tally.add(outcome)
        self._note()
        restore(self._folder, self._valid)

    def _note(self) -> None:
        """Write what there was so far; the parent may kill this process at any time."""
        part = self._told.with_suffix(".part")
        part.write_text(json.dumps(asdict(self._tally)))
        os.replace(part, self._told)


def main(door: str, folder: Path, keep: Path, seed: int, seconds: int) -> None:
    """Search until the time is over."""
    search, corpus = Search(door, folder, keep), folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(search.corpus()):
        (corpus / str(number)).write_bytes(content)
        search(content)
    logging.disable()
    limit(_MEMORY)
    options = [f"-max_total_time={seconds}", f"-seed={seed + 1}", "-rss_limit_mb=0", f"-timeout={_HANGS}"]
    options.append(f"-artifact_prefix={folder / 'last'}-")
    atheris.Setup([sys.argv[0], str(corpus), *options], search)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
