"""Commands in process groups of their own, and how they are killed while others read what they write."""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LOOK = 5e-4  # s between two looks at the folder


@dataclass(frozen=True)
class When:
    """The moment of a kill.

    Attributes:
        seconds: After the start.
        writes: Or as soon as the files of the folder were seen to change so often.
    """

    seconds: float = float("inf")
    writes: float = float("inf")

    def __str__(self) -> str:
        return f"at {self.seconds:.3f} s" if self.seconds < float("inf") else f"at write {self.writes:.0f}"


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        code: Its exit code; ``None`` where it was killed.
        seconds: How long it ran.
        writes: How often its folder was seen to change.
    """

    code: int | None
    seconds: float
    writes: int


def fork(action: Callable[[], int], folder: Path, output: Path, seed: int = 0) -> int:
    """Run an action in a fork of this process, which has everything imported, and give its number.

    The global generators start elsewhere in each: nothing may depend on them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        _redirect(output)
        _scatter(seed)
        code = action()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def launch(command: list[str], folder: Path, output: Path) -> int:
    """Run the true command, and give the number of its process."""
    with output.open("ab") as file:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=file, env=environment, start_new_session=True
        ).pid


def wait(number: int, folder: Path, when: When | None = None) -> Ending:
    """Wait for a process, killing its group at a moment."""
    began, writes, before = time.monotonic(), 0, _signature(folder)
    when = when or When()
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            code = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            return Ending(code, seconds, writes)
        now = _signature(folder)
        writes, before = writes + (now != before), now
        if seconds >= when.seconds or writes >= when.writes:
            os.killpg(number, signal.SIGKILL)
            when = When()
            continue
        time.sleep(min(_LOOK, max(0.0, when.seconds - seconds)))


class Reader:
    """A colleague who reads all files of a folder for as long as others write them.

    Args:
        look: Reads them once, gives how many it read, and raises where one is not whole.
        complaints: A file for what was raised.
    """

    def __init__(self, look: Callable[[], int], complaints: Path):
        self._look, self._complaints = look, complaints
        self._count = mmap.mmap(-1, 8)  # shared with the fork

    @property
    def files(self) -> int:
        """How many were read."""
        return struct.unpack("q", self._count[:8])[0]

    def __enter__(self) -> Reader:
        self._number = fork(self._read, Path("/"), self._complaints)
        return self

    def __exit__(self, *error: object) -> None:
        os.kill(self._number, signal.SIGKILL)
        os.waitpid(self._number, 0)

    def _read(self) -> int:
        while True:
            began = time.monotonic()
            self._count[:8] = struct.pack("q", self.files + self._look())
            time.sleep(max(0.01, 3 * (time.monotonic() - began)))  # leaves the machine to those who write


def _redirect(output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)


def _scatter(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global one is meant
    torch.manual_seed(seed)


def _signature(folder: Path) -> frozenset[tuple[str, int, int, int]]:
    """Tell a state of a folder's files from others."""
    found = []
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    state = entry.stat(follow_symlinks=False)
                    found.append((entry.path, state.st_ino, state.st_size, state.st_mtime_ns))
        except FileNotFoundError:  # it went while we looked
            continue
    return frozenset(found)
