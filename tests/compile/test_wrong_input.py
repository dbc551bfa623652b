"""What is wrong with input is told by compiled potentials as by eager ones."""

import copy
import math

import pytest
import torch

from pyg_schnet import Potential, SchNet

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12, "cutoff": 4.0}


@pytest.fixture(scope="module")
def programs():
    """Programs of all potentials here: one network in double precision, whose tracing takes a second."""
    return {}


@pytest.fixture
def built(randomize, monkeypatch, share_programs, programs):
    """An eager potential and its compiled twin."""
    monkeypatch.setattr("pyg_schnet.compile.compiled.SHARED", programs)

    def build(elements=None):
        model = randomize(SchNet(**TINY, filters="spline").double())
        eager = Potential(model, elements=elements)
        return eager, copy.deepcopy(eager).compile()

    return build


@pytest.mark.parametrize("first", [True, False], ids=["first call", "later call"])
def test_forces_in_inference_mode_are_refused_as_eagerly(built, water, first, share_programs):
    share_programs()
    compiled = built()[1].eval()
    if not first:
        compiled(water)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad"):
        compiled(water)
    assert compiled.why_eager() is None
    assert compiled.compiled.failure is None


def wrong_inputs():
    def change(name, **fields):
        return pytest.param(fields, id=name)

    pos = torch.tensor([[0.0, 0, 0], [0.9, 0, 0], [0, 0.9, 0]], dtype=torch.float64)
    nan, coincident = pos.clone(), pos.clone()
    nan[1, 1], coincident[2] = math.nan, coincident[0]
    edge = torch.tensor([[0, 1], [1, 0]])
    return [
        change("unknown element", z=torch.tensor([8, 1, 7])),
        change("element 119", z=torch.tensor([8, 1, 119])),
        change("element 0", z=torch.tensor([8, 1, 0])),
        change("float elements", z=torch.tensor([8.0, 1.0, 1.0])),
        change("too few elements", z=torch.tensor([8, 1])),
        change("nan", pos=nan),
        change("nan of an atom without edges", pos=nan, edge_index=torch.tensor([[0, 2], [2, 0]])),
        change("coincident", pos=coincident),
        change("coincident at an edge", pos=coincident, edge_index=torch.tensor([[0, 2], [2, 0]])),
        change("flat positions", pos=pos[:, :2]),
        change("integer positions", pos=torch.eye(3, dtype=torch.long)),
        change("unsorted batch", batch=torch.tensor([0, 1, 0])),
        change("unsorted batch with edges", batch=torch.tensor([1, 1, 0]), edge_index=edge),
        change("negative batch with edges", batch=torch.tensor([-1, -1, 0]), edge_index=edge),
        change("short batch", batch=torch.tensor([0, 0])),
        change("integer edges of half the size", edge_index=edge.int()),
        change("one row of edges", edge_index=torch.tensor([0, 1])),
        change("three rows of edges", edge_index=torch.tensor([[0, 1], [1, 0], [0, 0]])),
        change("edge beyond the atoms", edge_index=torch.tensor([[0, 3], [3, 0]])),
        change("a loop", edge_index=torch.tensor([[0, 1, 1], [1, 0, 1]])),
    ]


@pytest.mark.parametrize("elements", [None, [1, 8]], ids=["all elements", "two elements"])
@pytest.mark.parametrize("fields", wrong_inputs())
@pytest.mark.usefixtures("without_shape_checks")
def test_wrong_input_is_refused_as_eagerly(built, water, fields, elements):
    eager, compiled = (potential.eval() for potential in built(elements=elements))
    compiled(water)
    for name, value in fields.items():
        water[name] = value
    if elements is None and "z" in fields and 7 in fields["z"].tolist():
        pytest.skip("nitrogen is known")
    with pytest.raises((ValueError, TypeError, RuntimeError)) as expected:
        eager(water)
    with pytest.raises(type(expected.value)) as found:
        compiled(water)
    assert str(found.value) == str(expected.value)
