"""The kernels in C: compiled at first use by the system's C compiler, cached, and loaded."""

from __future__ import annotations

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
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pyg_schnet.kernels.c.build_cache import cached_libraries, store, writable_folder

_SOURCES = ("activation.c", "convolution.c", "fingerprint.c", "pairs.c", "runtime.c")
_HEADER = "runtime.h"
_FLAGS = [
    "-std=c11",
    "-O3",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
]
_FLAGS += ["-fno-signed-zeros", "-fassociative-math"]  # sums over channels as vectors; NaN stays NaN
# Generated programs call operations of the library, which does the work.
_PROGRAM_FLAGS = ["-std=c11", "-O1", "-fPIC", "-shared", "-s"]
_TYPES = {torch.float32: "float", torch.float64: "double"}
_PROCESSOR = (  # lines of /proc/cpuinfo on instruction sets, for x86, ARM, POWER and RISC-V
    *("flags", "vendor_id", "cpu family", "model", "Features", "CPU implementer", "CPU variant", "CPU part"),
    *("cpu\t", "isa"),
)
_TIMEOUT = 120  # seconds; a compilation takes about one

# Types of functions that are called often, for fast calls: a is an address, n an integer, d a double.
_KINDS = {"a": ctypes.c_void_p, "n": ctypes.c_int64, "d": ctypes.c_double}
_SIGNATURES = {
    "count_pairs": (ctypes.c_int64, "an"),
    "fingerprint": (ctypes.c_uint64, "aan"),
    "find_pairs": (ctypes.c_int64, "aanaandannaaa"),
    "program_plan": (ctypes.c_int64, "aaaaaa"),
    "program_run": (ctypes.c_int, "aannnaaaaaan"),
    "set_functions": (None, "aaaaa"),
}
_log = logging.getLogger(__name__)


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Load the kernels for a floating-point type, compiling them if that was never done here.

    Compilation needs a C compiler only: ``cc``, or the value of the variable ``CC``. Libraries are kept in
    the user's cache (``PYG_SCHNET_CACHE``) by source, processor and compiler; without a compiler, the library
    of any compiler is used. A warning is logged once where kernels are missing.

    Args:
        dtype: ``torch.float32`` or ``torch.float64``.

    Returns:
        The library, or ``None`` where there is no compiler, or it fails; :func:`unavailable_reason` returns
        why.
    """
    if dtype not in _TYPES:
        return None
    with _LOADING:
        if os.environ.get("PYG_SCHNET_NATIVE") == "0":
            _reasons[dtype] = "switched off by PYG_SCHNET_NATIVE=0"
            return None
        try:
            options = [*_FLAGS, f"-Dreal={_TYPES[dtype]}", *_machine_flags()]
            stem = f"kernels-{_TYPES[dtype]}-{_key(options)}"
            loaded = _load(stem, options, [str(_folder() / name) for name in _SOURCES])
        except (OSError, subprocess.SubprocessError) as error:
            reason = _reason(error)
            if not _reasons:
                _log.warning("kernels in C are not in use; plain PyTorch is, which is slower: %s", reason)
            _reasons[dtype] = reason
            return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, [_KINDS[kind] for kind in arguments]
    return loaded


_LOADING = threading.Lock()  # one thread compiles, the others wait
_reasons: dict[torch.dtype, str] = {}


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    """Return one line of what went wrong, without the options of the compiler."""
    match error:
        case subprocess.CalledProcessError():
            lines = str(error.stderr or "").split("\n")
            first = next((f": {line.strip()}" for line in lines if line.strip()), "")
            return f"the C compiler '{error.cmd[0]}' failed with exit status {error.returncode}{first}"
        case subprocess.TimeoutExpired():
            return f"the C compiler '{error.cmd[0]}' had not ended after {error.timeout:g} s"
        case _:
            return str(error)


def missing_reason(dtype: torch.dtype) -> str:
    """Return why there is no library for a type, in one line."""
    return _reasons.get(dtype, f"there are kernels for float32 and float64 only, not for {dtype}")


def program_library(source: str, dtype: torch.dtype) -> tuple[ctypes.CDLL | None, str]:
    """Load a generated program for ``runtime.c``, compiling it if that was never done here.

    Args:
        source: The program, in C.
        dtype: Type of the network.

    Returns:
        The library, or ``None`` and why there is none, in one line.
    """
    real = _TYPES[dtype]
    options = [*_PROGRAM_FLAGS, f"-Dreal={real}", f"-I{_folder()}"]
    parts = (source, (_folder() / _HEADER).read_text(encoding="utf-8"), _system(options[:-1]))
    stem = f"program-{real}-{_hash(chr(0).join(parts).encode())[:16]}"
    with _LOADING:
        try:
            return _load(stem, options, ["-xc", "-"], source), ""
        except (OSError, subprocess.SubprocessError) as error:
            return None, _reason(error)


def _load(stem: str, options: list[str], sources: list[str], text: str | None = None) -> ctypes.CDLL:
    """Load a library of this compiler from the cache, or compile it; failing that, one of any compiler."""
    try:
        compiler = _compiler()
        own = f"{stem}-{_hash(repr((compiler, _stamp(compiler[0]))).encode())[:8]}"
        return _loaded(own) or _compiled([*compiler, *options], sources, text, own)
    except (OSError, subprocess.SubprocessError):
        if (loaded := _loaded(stem)) is None:
            raise
        return loaded


def _loaded(stem: str) -> ctypes.CDLL | None:
    for path in cached_libraries(stem):
        with suppress(OSError):  # as of another machine's system
            return ctypes.CDLL(str(path))
    return None


def _compiled(command: list[str], sources: list[str], text: str | None, stem: str) -> ctypes.CDLL:
    handle, temporary = tempfile.mkstemp(dir=writable_folder(), suffix=".so")
    os.close(handle)
    try:
        subprocess.run(
            [*command, "-o", temporary, *sources, "-lm"],
            check=True,
            capture_output=True,
            input=text,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
        loaded = ctypes.CDLL(temporary)  # what cannot be loaded is not kept
        store(Path(temporary), stem)
        return loaded
    finally:
        Path(temporary).unlink(missing_ok=True)


def _compiler() -> list[str]:
    """Return the compiler's path and the arguments that belong to it."""
    named = os.environ.get("CC", "cc")
    try:
        words = shlex.split(named) or ["cc"]
    except ValueError as error:
        raise OSError(f"the variable CC must name a compiler, got {named!r} ({error})") from None
    path = shutil.which(words[0])
    if path is None:
        raise FileNotFoundError("no C compiler was found; install gcc or clang, or set the variable CC")
    return [path, *words[1:]]


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _folder() -> Path:
    return Path(__file__).parent


def _machine_flags() -> list[str]:
    # torch's own OpenMP threads serve here too: libraries of one name are loaded once.
    flags = ["-fopenmp"] if sys.platform.startswith("linux") else []
    return [*flags, processor_flag()]


def processor_flag() -> str:
    """Return the option of compilers for the instructions of this processor."""
    return "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"


def _key(options: list[str]) -> str:
    """Hash what the kernels depend on beside their compiler: sources, options, system and processor."""
    content = [part.encode() for part in (_system(options), processor())]
    content += [(_folder() / name).read_bytes() for name in (*_SOURCES, _HEADER)]
    return _hash(b"\0".join(content))[:16]


def _system(options: list[str]) -> str:
    return repr((options, platform.system(), platform.machine(), *platform.libc_ver()))


def processor() -> str:
    """Describe the processor, for whose instructions a library is made; machines may share a home."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return f"{platform.processor()} of {platform.node()}"
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(_PROCESSOR)}))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Return a tensor's address, for C."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
