"""The kernels in C: compiled by the machine's own compiler at first use, kept, and loaded."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pooch
import torch
from torch import Tensor

_SOURCES = ("activation.c", "convolution.c", "fingerprint.c", "pairs.c", "tape.c")
_FLAGS = [
    "-std=c11",
    "-O3",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
]
_FLAGS += ["-fno-signed-zeros", "-fassociative-math"]  # sums over channels as vectors; NaN stays NaN
_TYPES = {torch.float32: "float", torch.float64: "double"}
_TIMEOUT = 120  # seconds; a compilation takes about one

# Functions that are called most often, so that addresses and numbers pass as they are: a is an address, n an
# integer, d a number in double precision.
_KINDS = {"a": ctypes.c_void_p, "n": ctypes.c_int64, "d": ctypes.c_double}
_SIGNATURES = {
    "count_pairs": (ctypes.c_int64, "an"),
    "find_pairs": (ctypes.c_int64, "aandaaa"),
    "fingerprint": (ctypes.c_uint64, "aan"),
    "prepare": (ctypes.c_int64, "aanaandannaaa"),
    "tape_plan": (ctypes.c_int64, "aaaaa"),
    "tape_run": (ctypes.c_int, "aaaannnaaaaan"),
}
LIBRARY = torch.library.Library("pyg_schnet", "DEF")  # the operations, as torch knows them
_log = logging.getLogger(__name__)


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Load the kernels for a floating-point type, compiling them if that was never done here.

    Nothing else is needed than a C compiler: ``cc``, or what the variable ``CC`` names. Libraries are kept in
    the user's cache (``PYG_SCHNET_CACHE``), by source, compiler and processor.

    Args:
        dtype: ``torch.float32`` or ``torch.float64``.

    Returns:
        The library, or ``None`` where there is no compiler, or it fails: then :func:`why_not` tells.
    """
    if dtype not in _TYPES:
        return None
    try:
        loaded = ctypes.CDLL(str(_compiled(_TYPES[dtype])))
    except (OSError, subprocess.SubprocessError) as error:
        told = str(getattr(error, "stderr", None) or "").split("\n")
        first = next((line.strip() for line in told if line.strip()), "")
        _reasons[dtype] = f"{error}" + (f": {first}" if first else "")
        _log.info("no compiled kernels, plain torch instead: %s", _reasons[dtype])
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, [_KINDS[kind] for kind in arguments]
    return loaded


_reasons: dict[torch.dtype, str] = {}


def why_not(like: Tensor) -> str:
    """Say why there are no kernels for a tensor, in one line."""
    if like.device.type != "cpu":
        return f"there are kernels for CPUs only, not for {like.device}"
    dtype = like.dtype
    return _reasons.get(dtype, f"there are kernels for float32 and float64 only, not for {dtype}")


def _compiled(real: str) -> Path:
    if os.environ.get("PYG_SCHNET_NATIVE") == "0":
        raise OSError("switched off by PYG_SCHNET_NATIVE=0")
    named = os.environ.get("CC", "cc")
    try:
        words = shlex.split(named) or ["cc"]
    except ValueError as error:
        raise OSError(f"the variable CC must name a compiler, got {named!r} ({error})") from None
    compiler = shutil.which(words[0])
    if compiler is None:
        raise FileNotFoundError("no C compiler was found; install gcc or clang, or set the variable CC")
    folder = Path(__file__).parent
    sources = [folder / name for name in _SOURCES]
    command = [compiler, *words[1:], *_FLAGS, f"-Dreal={real}", *_machine_flags()]
    key = hashlib.sha256(repr((command, _identity(compiler))).encode())
    for source in sources:
        key.update(source.read_bytes())
    directory = _cache_directory()
    path = directory / f"kernels-{real}-{key.hexdigest()[:16]}.so"
    if path.exists():
        return path
    handle, temporary = tempfile.mkstemp(dir=directory, suffix=".so")
    os.close(handle)
    try:
        subprocess.run(
            [*command, "-o", temporary, *map(str, sources), "-lm"],
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
        os.replace(temporary, path)  # whole or absent, also for other processes
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _machine_flags() -> list[str]:
    # torch's own OpenMP threads serve here too: libraries of one name are loaded once.
    flags = ["-fopenmp"] if sys.platform.startswith("linux") else []
    return [*flags, "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"]


def _identity(compiler: str) -> tuple[str, ...]:
    """What a compiled file depends on beside its source: compiler and processor."""
    status = os.stat(compiler)
    processor = platform.processor()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        processor = " ".join(
            sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))})
        )
    return (str(status.st_size), str(status.st_mtime_ns), platform.machine(), processor)


def _cache_directory() -> Path:
    directory = Path(os.environ.get("PYG_SCHNET_CACHE") or pooch.os_cache("pyg_schnet"))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(directory, os.W_OK | os.X_OK):
            return directory
    except OSError:
        pass  # a home that cannot be written to
    return _own_directory()


@cache
def _own_directory() -> Path:
    """A folder for this process alone, removed at its end."""
    directory = tempfile.mkdtemp(prefix="pyg_schnet-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def has_kernels(like: Tensor) -> bool:
    """Whether there are compiled kernels for such a tensor, here and now."""
    transformed = torch._C._are_functorch_transforms_active()  # vmap and torch.func.grad see plain operations
    if like.device.type != "cpu" or torch.compiler.is_compiling() or transformed:
        return False
    return library(like.dtype) is not None


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Give a tensor's address to C."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


class Watch:
    """Gives a number that differs, but for one chance in 2³², after any change of tensors.

    Autograd need not know of the change. It remembers where the tensors are, which takes longer to find out
    than to read them; types and shapes must stay as they are.
    """

    def __init__(self):
        self._known: tuple[list[int], tuple] = ([], ())  # replaced as a whole, for threads read it

    def look(self, tensors: Sequence[Tensor]) -> int:
        """Read them all."""
        loaded = library(torch.float32)
        if loaded is None or not all(t.is_cpu and t.is_contiguous() for t in tensors):
            flat = (t.detach().contiguous().view(-1).view(torch.uint8) for t in tensors)
            return hash(tuple(t.cpu().numpy().tobytes() for t in flat))
        known, places = self._known, [*map(Tensor.data_ptr, tensors)]
        if places != known[0] or not places:
            addresses = (ctypes.c_void_p * len(tensors))(*places)
            sizes = (ctypes.c_int64 * len(tensors))(*(t.numel() * t.element_size() for t in tensors))
            known = self._known = (places, (addresses, sizes, len(tensors)))
        return loaded.fingerprint(*known[1])
