"""What the machine can do: rates of matrix products and of copying.

python -m benchmarks.peers.machine THREADS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch


def best_time(work: Callable[[], object], seconds: float = 0.3) -> float:
    """Give the shortest time of many runs: what is asked for is the limit of the machine."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return best


def gemm_rate(rows: int, inner: int, columns: int) -> float:
    """Measure a product of float32 matrices, in operations a second."""
    a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    return 2 * rows * inner * columns / best_time(lambda: torch.mm(a, b, out=out))


def copy_rate(megabytes: int = 128) -> float:
    """Measure copying beyond the caches, in bytes read and written a second."""
    source = torch.ones(megabytes * 2**18)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_time(lambda: target.copy_(source))


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(int(sys.argv[1]))
    rates = {"gemm_small": gemm_rate(672, 64, 64), "gemm_large": gemm_rate(1024, 1024, 1024)}
    print(json.dumps({**rates, "copy": copy_rate()}))


if __name__ == "__main__":
    main()
