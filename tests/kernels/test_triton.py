"""Kernels in Triton, without a GPU: run by Triton's interpreter, and compiled ahead of time."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyg_schnet.kernels import LAUNCHES
from pyg_schnet.kernels import triton as kernels

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
INTERPRETED = Path(__file__).with_name("interpreted_triton.py")
MODULES = ("convolution", "table_gradient", "distances", "elementwise", "segments")


def test_triton_is_not_imported_with_the_package():
    code = "import sys, pyg_schnet; print('triton' in sys.modules or 'triton.language' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert out.stdout == "False\n", out


def in_interpreter(*arguments):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(INTERPRETED), *arguments]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert out.returncode == 0, out.stdout[-5000:] + out.stderr[-2000:]


@needs_triton
def test_each_operation_equals_plain_torch_in_the_interpreter():
    in_interpreter("-m", "not nightly")


@needs_triton
@pytest.mark.nightly
def test_a_step_of_training_by_these_kernels_equals_that_by_kernels_in_c():
    in_interpreter("-m", "nightly")


def launches(dtype, channels, monkeypatch):
    """Kernels and arguments of all launches of all operations, which are recorded in place of running."""
    found = []

    def record(kernel, grid, *arguments, warps=4, **constants):
        names = dict(zip(kernel.arg_names, arguments, strict=False))
        found.append((kernel, {**names, **constants}, warps))

    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(f"pyg_schnet.kernels.triton.{name}"), "launch", record)
    atoms, pairs, knots = 48, 96, 37
    y, table = torch.zeros(atoms, channels, dtype=dtype), torch.zeros(knots, channels, dtype=dtype)
    distance, end = torch.zeros(pairs, dtype=dtype), torch.zeros(pairs, dtype=torch.long)
    rows = [torch.zeros(n, dtype=torch.int32) for n in (atoms + 1, 2 * pairs, 2 * pairs)]
    layout = [*rows, torch.zeros(pairs, dtype=torch.int32), torch.zeros(knots - 4, dtype=torch.int32)]
    place, pos = (table, distance, end, end, layout, 7, 0.1), torch.zeros(atoms, 3, dtype=dtype)
    long, one = torch.zeros(5000, channels, dtype=dtype), torch.zeros(4, dtype=torch.int32)
    calls = {
        "ssp": [(y,)],
        "ssp_backward": [(y, y)],
        "ssp_double_backward": [(y, y, y)],
        "correlate_rows": [(table, [0.1, 0.2, 0.3], transpose) for transpose in (False, True)],
        "convolve": [(y, *place)],
        "convolve_backward": [(y, y, *place, True, True)],
        "convolve_double_backward": [(y, y, y, distance, *place, True)],
        "distances": [(pos, end, end, rows)],
        "distances_backward": [(distance, pos, end, end, rows)],
        "distances_double_backward": [(pos, distance, pos, end, end, rows, True)],
        "segment_sum": [(v, one, o) for v in (y, long, distance) for o in ([], rows[2:])],
        "segment_expand": [(y[:3], one, o, atoms) for o in ([], rows[2:])],
        "interval_order": [(distance, 7, 0.1, knots - 5)],
    }
    assert calls.keys() == LAUNCHES.keys()
    for name, several in calls.items():
        for arguments in several:
            kernels.implementation(name)(*arguments)
    return found


def compiled(kernel, arguments, warps, architecture):
    """Compile a kernel as its launch with these arguments would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import mangle_type

    from pyg_schnet.kernels.triton.launch import OPTIONS

    signature, constants, attributes = {}, {}, {}
    for number, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = parameter.annotation_type or mangle_type(value)
        aligned = value.data_ptr() if isinstance(value, torch.Tensor) else value
        if isinstance(aligned, int) and aligned % 16 == 0 and not parameter.do_not_specialize:
            attributes[(number,)] = [["tt.divisibility", 16]]
    for name in ("origin", "inverse"):
        assert signature.get(name, "fp64") == "fp64"
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, GPUTarget("cuda", architecture, 32), {"num_warps": warps, **OPTIONS})


def resources(binary, folder):
    """Registers of a thread, and bytes of its stack, where spilled registers would be."""
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    out = subprocess.run([str(tool), "-res-usage", str(path)], capture_output=True, text=True, check=True)
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", out.stdout).groups()
    return int(registers), int(stack) + int(local)


@needs_triton
@pytest.mark.nightly
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_each_kernel_compiles_without_spills_and_atomics(architecture, monkeypatch, tmp_path):
    failed, seen = [], set()
    for dtype in (torch.float32, torch.float64):
        for channels in (16, 30, 48, 64, 128):
            for kernel, arguments, warps in launches(dtype, channels, monkeypatch):
                binary = compiled(kernel, arguments, warps, architecture)
                if binary.hash in seen:
                    continue
                seen.add(binary.hash)
                registers, spilled = resources(binary, tmp_path)
                atomics = len(re.findall(r"\b(?:atom|red)\.", binary.asm["ptx"]))
                line = (
                    f"sm_{architecture} {kernel.fn.__name__} {dtype} {channels} channels: "
                    f"{registers} registers, {spilled} bytes spilled, {atomics} atomics"
                )
                print(line)
                if spilled or atomics:
                    failed.append(line)
    assert not failed
    assert len(seen) > 100
