"""Mixed precision: never on by itself, and its cost is measured where the user switches it on."""

import ast
from pathlib import Path

import pytest
import torch

import pyg_schnet
from pyg_schnet import Potential, SchNet
from pyg_schnet.checks import check
from pyg_schnet.checks.precision import full_precision, reduced_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def potential():
    torch.manual_seed(0)
    return Potential(SchNet(64, 64, 1, 12, 4.0), elements=[1, 6, 8])


@pytest.fixture
def products():
    """Set the precision of matrix products, and restore it."""
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


def test_without_a_request_nothing_is_reduced_or_measured(potential, molecules):
    assert (reduced_precision(CPU), reduced_precision(CUDA)) == ("", "")
    finding = check(potential, molecules, ["mixed"])["mixed"]
    assert (finding.verdict, finding.value) == ("skip", None)
    assert finding.note == "mixed precision is off: neither TF32 nor autocast"


def test_the_cost_of_autocast_is_measured_and_not_that_of_float32(potential, molecules):
    exact = check(potential, molecules, ["float32"])
    with torch.autocast("cpu", torch.bfloat16):
        report = check(potential, molecules, ["float32", "mixed"])
    assert report["float32, forces"].value == exact["float32, forces"].value
    finding = report["mixed, forces"]
    assert finding.verdict == "fail"
    assert finding.value > 100 * exact["float32, forces"].value  # 8 bits of a mantissa in place of 24
    assert "autocast to bfloat16 costs on cpu" in finding.note


def test_the_cost_of_shorter_products_is_measured(potential, molecules, products):
    factors = torch.randn(64, 64), torch.randn(64, 64)
    exact = factors[0] @ factors[1]
    products("medium")
    changes = not torch.equal(factors[0] @ factors[1], exact)  # on processors with bfloat16 alone
    finding = check(potential, molecules, ["mixed"])["mixed, forces"]
    assert (finding.value > 0) == changes
    assert reduced_precision(CPU) == "bfloat16 in matrix products"
    assert torch.get_float32_matmul_precision() == "medium"


def test_full_precision_is_temporary(products):
    products("high")
    assert reduced_precision(CUDA) == "TF32 in matrix products"
    with full_precision(CUDA):
        assert reduced_precision(CUDA) == ""
    assert reduced_precision(CUDA) == "TF32 in matrix products"


def test_no_other_module_changes_the_precision_of_pytorch():
    names = {"set_float32_matmul_precision", "allow_tf32", "fp32_precision", "autocast"}
    root = Path(pyg_schnet.__file__).parent
    for path in root.rglob("*.py"):
        words = {
            getattr(node, "attr", None) or getattr(node, "value", None)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute | ast.Constant)
        }
        if path.relative_to(root) != Path("checks/precision.py"):
            assert not names & {word for word in words if isinstance(word, str)}, path
