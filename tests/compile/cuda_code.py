"""The code that Inductor generates for CUDA, without a GPU; and its kernels, compiled by Triton's own ptxas.

For a process of its own, because it replaces functions of torch and of Triton:
``python -m tests.compile.cuda_code training FOLDER`` prints counts of launches as one JSON object.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._inductor.runtime.triton_helpers as triton_helpers
import triton
from ase.build import bulk
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import config
from torch._inductor.graph import GraphLowering
from torch.utils._pytree import tree_map_only
from torch.utils.cpp_extension import include_paths, library_paths
from torch_geometric.data import Batch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pyg_schnet import Potential, SchNet
from pyg_schnet.compile.inductor_backend import InductorProgram
from pyg_schnet.compile.inputs import Inputs, find_inputs
from pyg_schnet.compile.ordered_sums import order_sums
from pyg_schnet.compile.passes import simplify, split
from pyg_schnet.compile.trace import Trace, trace
from pyg_schnet.kernels import LAUNCHES
from pyg_schnet.transforms.ase_atoms import from_ase
from tests.fixtures import build
from tests.gpu_like import gpu_like

_TARGET = GPUTarget("cuda", 90, 32)
_PROPERTIES = SimpleNamespace(
    name="NVIDIA H200",
    type="cuda",
    index=0,
    multi_processor_count=132,
    major=9,
    minor=0,
    warp_size=32,
    total_memory=141 << 30,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    regs_per_multiprocessor=65536,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=60 << 20,
    gcnArchName="",
)
# Tensors of a device need one, which switches between GPUs.
_GUARD = """#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace { using Guard = c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>; }
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
"""


class _Driver:
    def get_current_target(self):
        return _TARGET

    def get_current_device(self):
        return 0

    def get_device_interface(self):
        return torch.cuda


def pretend_a_gpu(folder: Path) -> None:
    """Make torch and Triton believe that there is a GPU of compute capability 9.0."""
    source, library = folder / "guard.cpp", folder / "guard.so"
    source.write_text(_GUARD)
    paths = [*(f"-I{path}" for path in include_paths()), *(f"-L{path}" for path in library_paths())]
    options = ["-std=c++20", "-shared", "-fPIC", *paths, str(source), "-lc10", "-o", str(library)]
    subprocess.run(["c++", *options], check=True)
    ctypes.CDLL(str(library))
    given: dict[str, Any] = {
        "get_device_capability": (9, 0),
        "current_device": 0,
        "device_count": 1,
        "is_available": True,
        "is_initialized": False,
        "_lazy_init": None,
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
        "set_device": None,
        "synchronize": None,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": None,
        "get_device_properties": _PROPERTIES,
        "_get_device_properties": _PROPERTIES,
    }
    for name, value in given.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    torch._C._cuda_getDeviceProperties = lambda _: _PROPERTIES
    torch.version.cuda = "13.0"
    CudaInterface.Worker.get_device_properties = staticmethod(lambda device=None: _PROPERTIES)
    CudaInterface.Worker.current_device = staticmethod(lambda: 0)
    CudaInterface.get_compute_capability = staticmethod(lambda device=None: 90)
    CudaInterface.is_available = staticmethod(lambda: True)
    CudaInterface.raise_if_triton_unavailable = staticmethod(lambda device=None: None)
    triton_helpers.set_driver_to_gpu = lambda: None
    triton.runtime.driver.set_active(_Driver())


def inputs_of(potential: Potential, data: Batch) -> Inputs:
    """Return the arguments of a program for GPUs."""
    model: Any = potential.model
    given = {name: data[name] for name in ("cell", "pbc") if name in data}
    graph = model.build_pairs(data.z, data.pos.float(), data.batch, num_molecules=data.num_graphs, **given)
    assert graph.csr is not None
    inputs = find_inputs(model, model.filter_tables.features(model), graph)
    assert inputs is not None
    return inputs


def to_cuda(trace: Trace) -> None:
    """Move the values of a trace, which have no memory, to a GPU."""
    mode = trace.inputs["z"].meta["val"].fake_mode

    def move(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda:0")

    for node in trace.graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = tree_map_only(Tensor, move, node.meta["val"])
        if node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}


def generate(traced: Trace) -> list[str]:
    """Return the modules that Inductor writes for forward and backward."""
    codes = []

    def keep(lowering):
        codes.append(lowering.codegen()[0].value)
        return SimpleNamespace(call=None, __file__=__file__, key="")

    GraphLowering.compile_to_module = keep
    with config.patch({"fx_graph_cache": False, "compile_threads": 1}):
        InductorProgram(traced, split(traced))
    return codes


def count(code: str) -> Counter[str]:
    """Count the launches of a module by kind."""
    body = code[code.index("def call(") :]
    own = re.findall(r"torch\.ops\.pyg_schnet\.(\w+)\.default\(", body)
    others = re.findall(r"torch\.ops\.(?!pyg_schnet)[\w.]+\(", body)
    return Counter(
        {
            "generated": len(re.findall(r"\.run\(", body)),
            "products": len(re.findall(r"extern_kernels\.\w+\(", body)),
            "own": sum(LAUNCHES[name] for name in own),
            "others": len(others),
            "atomics": len(re.findall(r"tl\.atomic", code)),
        }
    )


def assemble(code: str, folder: Path) -> tuple[int, list[str]]:
    """Compile the kernels of a module for compute capability 9.0; return their number and what fails."""
    kernels, failed = re.findall(r"async_compile\.triton\('(\w+)', '''(.*?)'''", code, re.S), []
    for name, source in kernels:
        path = folder / f"{name}.py"  # Triton reads the source from a file
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        kernel = getattr(module, name)
        config = kernel.configs[0]
        meta = kernel.triton_meta
        signature = meta["signature"] | dict.fromkeys(config.kwargs, "constexpr")
        attributes = meta["configs"][0]
        ast = ASTSource(kernel.fn, signature, meta["constants"] | config.kwargs, attributes)
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        try:
            assert triton.compile(ast, target=_TARGET, options=options).asm["cubin"]
        except Exception as error:  # whatever a stage of the compiler raises
            failed.append(f"{name}: {error}")
    return len(kernels), failed


def main(kind: str, system: str, folder: Path) -> dict[str, Any]:
    """Return counts for a training step on forces, or for an evaluation with forces."""
    torch.set_num_threads(1)
    crystal = bulk("Si", cubic=True)
    crystal.rattle(0.1)
    data = Batch.from_data_list([build("ethanol")] * 8 if system == "molecules" else [from_ase(crystal)] * 2)
    arguments = {} if system == "molecules" else {"cutoff": 5.0, "envelope": "polynomial"}
    potential = Potential(SchNet.paper(**arguments, filters="spline", zero_output=False))
    with gpu_like():
        traced = trace(potential, inputs_of(potential, data), forces=True, trained=kind == "training")
    order_sums(traced)
    simplify(traced.graph)
    pretend_a_gpu(folder)
    to_cuda(traced)
    codes = generate(traced)
    numbers = [assemble(code, folder) for code in codes]
    return {
        **sum((count(code) for code in codes), Counter()),
        "kernels": sum(number for number, _ in numbers),
        "failed": [line for _, lines in numbers for line in lines],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
