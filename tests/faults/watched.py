"""A child process that enters doors, again and again, while its parent looks at the clock.

with Watched() as child:
    child.enter("npz", path).kind  # "accepted", "refused" or "failed"
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What came of a file.

    Attributes:
        kind: ``"accepted"``; ``"refused"``, with a clear error; ``"failed"`` else.
        text: The error, or what was wrong.
        seconds: It took.
        memory: It took at most, beyond what was there, in bytes.
    """

    kind: str
    text: str = ""
    seconds: float = 0.0
    memory: int = 0


class Watched:
    """The child; it is started when it is needed, and again when it was killed.

    Args:
        seconds: An input that takes longer is a failure, and the child is killed.
        memory: Bytes of address space beyond what the program takes without an input.
        doors: Which will be entered: files that are right go in first; all by default.
    """

    def __init__(self, seconds: float = 10.0, memory: int = 3 * 2**30, doors: Sequence[str] = ()):
        self.seconds, self.memory, self.doors = seconds, memory, tuple(doors)
        self._child: subprocess.Popen[str] | None = None

    def enter(self, door: str, path: Path) -> Outcome:
        """Let a file in."""
        child = self.started()
        assert child.stdin is not None
        begin = time.perf_counter()
        child.stdin.write(json.dumps({"door": door, "path": os.fspath(path)}) + "\n")
        child.stdin.flush()
        answer = self._answer(self.seconds)
        seconds = time.perf_counter() - begin
        if answer is not None:
            return Outcome(**answer)
        killed = child.poll()
        self.close()
        reason = f"takes more than {self.seconds:g} s" if killed is None else f"the process died ({killed})"
        return Outcome("failed", reason, seconds)

    def started(self) -> subprocess.Popen[str]:
        """Give the child, ready to be asked; it takes some seconds to come up."""
        if self._child is None or self._child.poll() is not None:
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, "-m", "tests.faults.watched", str(self.memory), *self.doors]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
            )
            if self._answer(300.0) is None:  # until all is imported
                raise RuntimeError("the watched process did not start; its messages are above")
        return self._child

    def _answer(self, seconds: float) -> dict | None:
        assert self._child is not None
        assert self._child.stdout is not None
        ready, _, _ = select.select([self._child.stdout], [], [], seconds)
        line = self._child.stdout.readline() if ready else ""
        return json.loads(line) if line.endswith("\n") else None

    def close(self) -> None:
        """Kill the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                assert stream is not None
                stream.close()
            self._child = None

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def judge(door: str, path: Path) -> Outcome:
    """Enter a door in this process, and tell what came of it."""
    from tests.faults.doors import DOORS, is_clear
    from tests.faults.guard import watching

    before, begin = _reset_peak(), time.perf_counter()
    kind, text = "accepted", ""
    with warnings.catch_warnings(), watching(path.parent) as seen:
        warnings.simplefilter("ignore")
        try:
            DOORS[door].enter(path)
        except Exception as error:  # whatever it is: that is what is asked
            kind = "refused" if is_clear(error, path) else "failed"
            text = f"{type(error).__name__}: {error}"
            if kind == "failed":
                text = f"{_place(error)}{text}"
    if seen:
        kind, text = "failed", "; ".join(dict.fromkeys(seen))
    return Outcome(kind, text[:1000], time.perf_counter() - begin, max(0, _peak() - before))


def _place(error: BaseException) -> str:
    """Tell in which line of ours an error came up."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if f"{os.sep}pyg_schnet{os.sep}" in file:
            found = f"{Path(file).name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return found


def _reset_peak() -> int:
    """Let the system forget the largest size so far, and return the present one."""
    with contextlib.suppress(OSError):  # no Linux
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit(memory: int) -> None:
    """Bound this process: address space beyond what it has, and the size of files that it writes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        size = pages * os.sysconf("SC_PAGE_SIZE") + memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(memory: int, doors: Sequence[str]) -> None:
    """Answer the parent's lines."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    from tempfile import TemporaryDirectory

    from tests.faults.doors import DOORS

    for name in doors or DOORS:  # so that all is imported and filled that will be
        with TemporaryDirectory() as folder:
            DOORS[name].make(Path(folder))
            for hurt in DOORS[name].hurt:
                judge(name, Path(folder) / hurt)
    logging.disable()
    limit(memory)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(asdict(judge(asked["door"], Path(asked["path"])))), file=answers, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
