"""Shards of an output file, written by jobs that share only the folder, and their join."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice, zip_longest
from pathlib import Path
from typing import Any

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.prediction.partial_output import PartialOutput, complete_shard
from pyg_schnet.prediction.results import INPUT, ResultFile


@dataclass(frozen=True)
class ShardSpec:
    """Whole batches of a stream of structures: number ``rank``, and each ``size``-th after it.

    Batches are those of the whole stream, whichever shard has them: what a structure is computed beside, and
    so its energy to the last digit, does not depend on the number of shards.

    Args:
        rank: Number of the first batch, from 0.
        size: Number of shards; 1 for the whole stream.
        batch_size: Structures in a batch.
    """

    rank: int = 0
    size: int = 1
    batch_size: int = 32

    @classmethod
    def parse(cls, text: str | None, batch_size: int) -> ShardSpec:
        """Read ``"3/8"``, the third of eight shards; ``None`` is the whole stream.

        Raises:
            ValueError: If it is something else.
        """
        if text is None:
            return cls(batch_size=batch_size)
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(
                f"`--shard` must be K/N, with K from 1 to N, as 3/8 for the third of eight; got {text!r}"
            )
        return cls(int(match[1]) - 1, int(match[2]), batch_size)

    def split(self, rank: int, size: int) -> ShardSpec:
        """Return the shard of one of ``size`` processes that compute this shard together."""
        return ShardSpec(self.rank + self.size * rank, self.size * size, self.batch_size)

    def batches(self, begin: int = 0) -> Iterator[int]:
        """Yield the numbers of its batches, without end, from the first that ends after place ``begin``."""
        rounds = max(0, -(-(begin // self.batch_size - self.rank) // self.size))
        return count(self.rank + rounds * self.size, self.size)

    def places(self, begin: int = 0) -> Iterator[int]:
        """Yield the places of its structures, without end, from the start of the batch of ``begin``."""
        for batch in self.batches(begin):
            yield from range(batch * self.batch_size, (batch + 1) * self.batch_size)

    def count(self, total: int) -> int:
        """Return the number of its structures among the first ``total`` of the stream."""
        whole, rest = divmod(total, self.batch_size * self.size)
        return whole * self.batch_size + min(max(rest - self.rank * self.batch_size, 0), self.batch_size)

    def path(self, out: str) -> str:
        """Return the path of the shard's file, beside OUT: ``OUT.shard-3-of-8``."""
        return f"{out}.shard-{self.rank + 1}-of-{self.size}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that the results of a shard depend on, in addition to those of the whole output."""
        return {"shard": f"{self.rank + 1}/{self.size}", "batch_size": self.batch_size}


def find_shards(out: str, batch_size: int) -> list[ShardSpec]:
    """Find the shards of OUT, which must be complete.

    Raises:
        FileNotFoundError: If some are missing, with their names.
        ValueError: If there are shards of several splits.
    """
    found = _existing(out, batch_size)
    sizes = sorted({shard.size for shard in found})
    if not sizes:
        raise FileNotFoundError(
            f"{out}: has no shards, such as {ShardSpec(0, 2).path(out)}; `--shard` 1/2 writes this one"
        )
    if len(sizes) > 1:
        raise ValueError(
            f"{out}: must have shards of one split, got some of {' and of '.join(map(str, sizes))}; remove "
            "those of the other"
        )
    shards = [ShardSpec(rank, sizes[0], batch_size) for rank in range(sizes[0])]
    missing = [Path(shard.path(out)).name for shard in shards if shard not in found]
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise FileNotFoundError(
            f"{out}: {len(missing):,} of {sizes[0]:,} shards are missing or not complete: "
            f"{', '.join(missing[:3])}{more}; write them with `--shard`, where --resume continues what was "
            "begun"
        )
    return shards


def join(
    results: ResultFile,
    shards: list[ShardSpec],
    source: StructureFile,
    settings: Mapping[str, Any],
    input_sha256: str,
    skip: bool,
) -> Iterator[int]:
    """Insert the results of all shards, each checked first; yields the number of structures of each.

    Args:
        results: Results of OUT.
        shards: From :func:`find_shards`.
        source: Input.
        settings: Settings that the results of OUT depend on.
        input_sha256: Hash of the input.
        skip: Whether structures that a shard rejected are left out.

    Raises:
        ValueError: If a shard is damaged or of another run, or lacks a structure or has one of another shard.
    """
    total = source.count()
    total = sum(1 for _ in source) if total is None else total
    for shard in shards:
        path, size = Path(shard.path(str(results.path))), shard.count(total)
        numbers = (source.number(place) for place in islice(shard.places(), size))
        _check(path, {**settings, **shard.settings, INPUT: input_sha256}, numbers)
        results.insert_from(path)
        if not skip and (rejected := results.reasons("refused").first):
            number, reason = rejected[0]
            raise ValueError(
                f"{path}: structure {number} of IN was rejected ({reason}); repair it and write the shard "
                "again, or leave such structures out with --skip"
            )
        yield size


def remove_shards(out: str, batch_size: int, settings: Mapping[str, Any], input_sha256: str) -> None:
    """Remove the shards of a complete OUT; those that another run has written since stay."""
    for shard in _existing(out, batch_size):
        path = Path(shard.path(out))
        with suppress(ValueError, OSError):  # of another run, damaged, or removed by another join
            _check(path, {**settings, **shard.settings, INPUT: input_sha256})
            path.unlink(missing_ok=True)


def _existing(out: str, batch_size: int) -> list[ShardSpec]:
    name = re.compile(rf"{re.escape(Path(out).name)}\.shard-(\d+)-of-(\d+)")
    files = Path(out).absolute().parent.iterdir()
    matches = [match for file in files if (match := name.fullmatch(file.name))]
    return [ShardSpec(int(match[1]) - 1, int(match[2]), batch_size) for match in matches]


def _check(path: Path, settings: Mapping[str, Any], numbers: Iterable[int] | None = None) -> None:
    """Check the settings of a shard and, if given, that it has these structures, each once.

    Raises:
        ValueError: If it has others, or is damaged.
    """
    try:
        with complete_shard(path) as shard:
            fault = _find_fault(shard, settings, numbers)
    except (sqlite3.Error, ValueError) as error:
        fault = f"is damaged ({error})"
    if fault is not None:
        raise ValueError(f"{path}: {fault}; remove it and write it again with `--shard`")


def _find_fault(
    shard: PartialOutput, settings: Mapping[str, Any], numbers: Iterable[int] | None
) -> str | None:
    if shard.settings() != settings:
        return "must be of the same MODEL, IN, --index and --batch_size, and is not"
    if numbers is None:
        return None
    for expected, row in zip_longest(numbers, shard.rows()):
        number = None if row is None else row[0]
        if expected is None:
            return f"has structure {number} of IN, which is not of this shard"
        if number != expected:
            return f"must have structure {expected} of IN, and does not"
    return None
