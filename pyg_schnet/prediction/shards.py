"""Shards of OUT, which jobs that know nothing of each other write, and their joining."""

from __future__ import annotations

import heapq
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias

from ase import Atoms
from ase.io.trajectory import TrajectoryReader

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.prediction.partial_output import number_of, run_of, whole_texts, with_run
from pyg_schnet.prediction.results import ending, run_name
from pyg_schnet.prediction.shard_spec import Share
from pyg_schnet.prediction.task import Row

_Frames: TypeAlias = Generator[tuple[int, bytes | Atoms], None, None]  # with numbers in IN


def shard_path(out: str, share: Share) -> str:
    """Name the file of a shard, beside OUT: ``OUT.shard-3-of-8.extxyz``."""
    return f"{out}.shard-{share.first + 1}-of-{share.every}.{ending(out)}"


def shard_settings(settings: Mapping[str, Any], share: Share) -> dict[str, Any]:
    """Give what the results of a shard depend on: the deal too."""
    return {**settings, "shard": f"{share.first + 1}/{share.every}", "batch_size": share.size}


class Shards:
    """All shards of OUT.

    Args:
        out: OUT.
        size: Structures in a batch.

    Attributes:
        paths: The files, in their order.

    Raises:
        FileNotFoundError: If some are missing, with their names.
        ValueError: If there are shards of several deals.
    """

    def __init__(self, out: str, size: int):
        self._out, self._size = out, size
        found = _shards(out)
        counts = sorted({int(match[2]) for match in found})
        if not counts:
            raise FileNotFoundError(
                f"{out}: has no shards, as {shard_path(out, Share(0, 2))}; `--shard` 1/2 writes this one"
            )
        if len(counts) > 1:
            raise ValueError(
                f"{out}: must have shards of one deal, got some of {' and of '.join(map(str, counts))}; "
                "remove those of the other"
            )
        self.shares = [Share(number, counts[0], size) for number in range(counts[0])]
        self.paths = [Path(shard_path(out, share)) for share in self.shares]
        missing = [path.name for path in self.paths if not path.exists()]
        if missing:
            more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
            raise FileNotFoundError(
                f"{out}: {len(missing):,} of {counts[0]:,} shards are not there or not complete: "
                f"{', '.join(missing[:3])}{more}; write them with `--shard`, where --resume "
                "goes on with what was begun"
            )

    def rows(
        self, source: StructureFile, settings: Mapping[str, Any], fingerprint: str, begin: int, skip: bool
    ) -> Iterator[Row]:
        """Give the frames of all in the order of IN, each once, as if one process had made them.

        Args:
            source: IN.
            settings: What the results depend on.
            fingerprint: Of IN.
            begin: Place in IN where to begin.
            skip: Whether structures may be in no shard, because they were refused.

        Raises:
            ValueError: If a shard is of another run, or a structure is in none or in two.
        """
        run, total = run_name(settings, fingerprint), source.count()
        total = sum(1 for _ in source) if total is None else total
        with ExitStack() as stack:
            streams = []
            for share, path in zip(self.shares, self.paths, strict=True):
                own = run_name(shard_settings(settings, share), fingerprint)
                frames = _frames(path, own, run)
                stack.callback(frames.close)
                streams.append(frames)
            expected = 0
            for number, owner, frame in heapq.merge(
                *(_named(frames, k) for k, frames in enumerate(streams)), key=lambda one: one[:2]
            ):
                place = source.place(number) if number in source else -1
                if place < expected or self.shares[0].owner(place) != owner:
                    raise ValueError(
                        f"{self.paths[owner]}: structure {number} is not of this shard, or there twice; "
                        "remove the file, and write it again with `--shard`"
                    )
                yield from self._absent(source, expected, place, begin, skip)
                expected = place + 1
                if place >= begin:
                    yield Row(number, frame)
            yield from self._absent(source, expected, total, begin, skip)

    def _absent(self, source: StructureFile, start: int, stop: int, begin: int, skip: bool) -> Iterator[Row]:
        for place in range(start, stop):
            number, path = source.number(place), self.paths[self.shares[0].owner(place)]
            if not skip:
                raise ValueError(
                    f"{path}: must hold structure {number} of IN, and does not; if it was refused, --skip "
                    "leaves it out, else remove the shard and write it again"
                )
            if place >= begin:
                yield Row(number, None, f"it is not in {path.name}")


def remove_shards(out: str, size: int, settings: Mapping[str, Any], fingerprint: str) -> None:
    """Remove the shards of OUT, when OUT is there.

    Those that another run has written since are left alone; an empty one does not tell whose it is.
    """
    for match in _shards(out):
        path, share = Path(out).with_name(match[0]), Share(int(match[1]) - 1, int(match[2]), size)
        own = run_name(shard_settings(settings, share), fingerprint)
        try:
            with closing(_frames(path, own, own)) as frames:
                next(frames, None)
        except (ValueError, OSError):  # damaged, or removed by another join
            continue
        path.unlink(missing_ok=True)


def _shards(out: str) -> list[re.Match[str]]:
    """Find the shards that are complete: their names, numbers and how many they are of."""
    name = re.compile(rf"{re.escape(Path(out).name)}\.shard-(\d+)-of-(\d+)\.{ending(out)}")
    return [match for file in Path(out).absolute().parent.iterdir() if (match := name.fullmatch(file.name))]


def _frames(path: Path, own: str, run: str) -> _Frames:
    """Give the frames of a shard, which must be of its ``own`` run, as those of the joined ``run``."""
    return _texts(path, own, run) if path.suffix != ".traj" else _atoms(path, own, run)


def _texts(path: Path, own: str, run: str) -> _Frames:
    with path.open("rb") as file:
        end = 0
        for text in whole_texts(file):
            number = _checked(path, number_of(text), run_of(text), own)
            yield number, with_run(text, run)
            end += len(text)
        if end != path.stat().st_size:
            raise ValueError(f"{path}: is damaged at byte {end:,}; remove it, and write it again")


def _atoms(path: Path, own: str, run: str) -> _Frames:
    if path.stat().st_size == 0:  # of a shard that has no structures
        return
    with path.open("rb") as file:
        stored: Any = TrajectoryReader(file)
        for place in range(len(stored)):
            frame = stored[place]
            number = _checked(path, frame.info.get("input_frame"), frame.info.get("run"), own)
            frame.info["run"] = run
            yield number, frame


def _named(frames: _Frames, owner: int) -> Iterator[tuple[int, int, bytes | Atoms]]:
    return ((number, owner, frame) for number, frame in frames)


def _checked(path: Path, number: int | None, found: str | None, own: str) -> int:
    if number is None or found != own:
        raise ValueError(
            f"{path}: must come from the same MODEL, IN, --index and --batch_size, and does not; remove "
            "it, and write it again with `--shard`, or give the options that it was written with"
        )
    return number
