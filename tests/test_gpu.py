"""The same numbers on a GPU as on a CPU, the same bits in each run, and no waiting for the device.

``PYG_SCHNET_GPU_TESTS=cpu pytest -m gpu tests/test_gpu.py`` tries the tests themselves without a GPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from ase.build import bulk, molecule
from ase.io import read, write
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from benchmarks.accelerator.operations import Operands, cases
from pyg_schnet import Potential, RadiusGraph, SchNet, cli, load, neighbor_list, radius_graph, save
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.kernels import has_kernels, unavailable_reason
from pyg_schnet.loader import DataLoader
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.simulation import SchNetCalculator, run_md_batched
from pyg_schnet.simulation.batched_integrator import BatchedIntegrator
from pyg_schnet.simulation.limits import BatchedLimits
from pyg_schnet.simulation.trajectory import TrajectoryFile
from pyg_schnet.training import DataConfig, FabricConfig, Report, TrainConfig, TrainerConfig, train
from pyg_schnet.training.loss import potential_loss

DEVICE = torch.device(os.environ.get("PYG_SCHNET_GPU_TESTS", "cuda"))
SAMPLE = Path(__file__).parents[1] / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Relative to the largest value: sums run in another order.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
MODELS = {
    "paper": lambda: SchNet.paper(zero_output=False, filters="spline"),
    "default": lambda: SchNet(cutoff=5.0, filters="spline"),
    "exact filters": lambda: SchNet(32, 32, 2, 20, 4.0, filters="exact"),
}


WAYS = pytest.mark.parametrize(  # few are compiled: Inductor takes long
    ("model", "compiled", "dtype"),
    [
        ("paper", False, torch.float64),
        ("paper", False, torch.float32),
        ("paper", True, torch.float32),
        ("default", False, torch.float64),
        ("default", True, torch.float64),
        ("exact filters", False, torch.float64),
    ],
)


def moved(data):
    """Copy data to the device."""
    return data.clone().to(str(DEVICE))


@contextmanager
def no_synchronization() -> Iterator[None]:
    """Raise where the host waits for the device."""
    if DEVICE.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def synchronizations(function):
    """Count how often the host waits for the device."""
    if DEVICE.type != "cuda":
        function()
        return 0
    torch.cuda.set_sync_debug_mode("default")  # whose one warning is not one of waiting
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


@pytest.fixture
def batch(molecules):
    return Batch.from_data_list([Data(z=m.z, pos=m.pos.double()) for m in molecules])


@pytest.fixture
def crystals():
    items = []
    for seed in range(2):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.1, seed=seed)
        items.append(
            Data(
                z=torch.from_numpy(atoms.numbers).long(),
                pos=torch.from_numpy(atoms.positions),
                cell=torch.from_numpy(atoms.cell.array)[None],
                pbc=torch.ones(1, 3, dtype=torch.bool),
            )
        )
    return Batch.from_data_list(items)


@pytest.fixture
def ethanols():
    dataset = AtomsDataset(path=SAMPLE)
    return next(iter(DataLoader(dataset[:8], 8)))


def potential_of(name, dtype=torch.float64):
    torch.manual_seed(0)
    return Potential(MODELS[name](), scale=2.0, atomref=torch.arange(100.0)).to(dtype)


def predictions(potential, data, **options):
    return {name: value.detach().cpu() for name, value in potential.eval()(data, **options).items()}


def gradients(potential, data, **options):
    """Gradients of a loss of all predictions by the weights."""
    potential.train().zero_grad()
    out = potential(data, **options)
    sum(value.square().mean() for value in out.values()).backward()
    return {name: p.grad.cpu() for name, p in potential.named_parameters() if p.grad is not None}


def assert_equal(found, expected, dtype):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        atol = TOLERANCE[dtype] * max(float(value.abs().max()), 1e-6)
        assert_close(
            found[name], value, rtol=0, atol=atol, check_dtype=False, msg=lambda m, n=name: f"{n}: {m}"
        )


def step_of(potential, data, optimizer, graph=None):
    """Return a step of training on energies and forces."""

    def step():
        out = potential(data, graph=graph)
        potential_loss(out, data, 0.01, potential.scale).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def adam(potential):
    kind = {"fused": True, "capturable": True} if DEVICE.type == "cuda" else {}
    return torch.optim.Adam(potential.parameters(), lr=1e-3, **kind)


def test_there_are_kernels_for_this_device():
    like = torch.zeros(1, device=DEVICE)
    assert has_kernels(like), unavailable_reason(like)


def test_edges_are_the_same(batch):
    edge_index = radius_graph(batch.pos, 3.0, batch.batch)
    there = moved(batch)
    assert torch.equal(radius_graph(there.pos, 3.0, there.batch).cpu(), edge_index)


@pytest.mark.parametrize("pbc", [(False,) * 3, (True,) * 3, (True, False, True)])
@pytest.mark.parametrize("atoms", [60, 3000, 40_000])
def test_edges_of_large_systems_are_the_same(atoms, pbc):
    generator = torch.Generator().manual_seed(0)
    side = (atoms / 0.1) ** (1 / 3)  # Å, at the density of water
    cell = side * torch.tensor([[1.0, 0.0, 0.0], [0.4, 1.0, 0.0], [-0.3, 0.2, 1.0]]).double()
    pos = torch.rand(atoms, 3, generator=generator).double() @ cell
    expected = neighbor_list(pos, 5.0, None, cell, torch.tensor(pbc))
    found = neighbor_list(pos.to(DEVICE), 5.0, None, cell.to(DEVICE), torch.tensor(pbc).to(DEVICE))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


@TYPES
@pytest.mark.parametrize(
    "case", [case.name for case in cases(Operands(torch.device("cpu"), torch.float64, 1, 16))]
)
def test_operations_compute_what_cpus_compute(case, dtype):
    sides = [Operands(device, dtype, 3, 48) for device in (torch.device("cpu"), DEVICE)]
    results = [next(one for one in cases(side) if one.name == case).own() for side in sides]
    lists = [[r] if isinstance(r, torch.Tensor) else [*r] for r in results]
    expected, found = [dict(enumerate(tensor.cpu() for tensor in one)) for one in lists]
    assert_equal(found, expected, dtype)


@TYPES
@pytest.mark.parametrize(
    "case", [case.name for case in cases(Operands(torch.device("cpu"), torch.float64, 1, 16))]
)
def test_operations_are_registered_as_torch_wants_them(case, dtype):
    one = next(one for one in cases(Operands(DEVICE, dtype, 2, 16)) if one.name == case)
    torch.library.opcheck(one.operation, one.arguments)


@WAYS
def test_predictions_of_molecules_are_the_same(model, compiled, dtype, batch):
    potential = potential_of(model, dtype)
    expected = predictions(potential, batch)
    there = potential.to(DEVICE)
    assert_equal(predictions(there.compile() if compiled else there, moved(batch)), expected, dtype)


@pytest.mark.parametrize(("compiled", "dtype"), [(False, torch.float64), (True, torch.float32)])
def test_predictions_of_crystals_are_the_same(compiled, dtype, crystals):
    potential = potential_of("default", dtype)
    expected = predictions(potential, crystals, stress=True)
    there = potential.to(DEVICE)
    found = predictions(there.compile() if compiled else there, moved(crystals), stress=True)
    assert_equal(found, expected, dtype)


@WAYS
def test_gradients_of_weights_are_the_same(model, compiled, dtype, batch):
    potential = potential_of(model, dtype)
    expected = gradients(potential, batch)
    there = potential.to(DEVICE)
    assert_equal(gradients(there.compile() if compiled else there, moved(batch)), expected, dtype)


def test_gradients_of_stresses_are_the_same(crystals):
    potential = potential_of("default")
    expected = gradients(potential, crystals, stress=True)
    found = gradients(potential.to(DEVICE), moved(crystals), stress=True)
    assert_equal(found, expected, torch.float64)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_compiled_potential_takes_batches_of_other_sizes(compiled, molecules):
    potential = potential_of("paper", torch.float32).to(DEVICE)
    potential = potential.compile() if compiled else potential
    for number in range(1, len(molecules) + 1):
        data = Batch.from_data_list([Data(z=m.z, pos=m.pos.double()) for m in molecules[:number]])
        expected = predictions(potential_of("paper"), data)
        assert_equal(predictions(potential, moved(data)), expected, torch.float32)
    if compiled:
        assert potential.why_eager() is None
        assert potential.compiled.failure is None


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_steps_of_training_give_the_same_bits_in_each_run(compiled, ethanols):
    def weights():
        potential = potential_of("paper", torch.float32).to(DEVICE).train()
        if compiled:
            potential.compile()
        step = step_of(potential, moved(ethanols), adam(potential))
        for _ in range(5):
            step()
        return [weight.detach().clone() for weight in potential.parameters()]

    runs = [weights() for _ in range(3)]
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_step_of_training_does_not_wait_for_the_device(compiled, ethanols):
    potential = potential_of("paper", torch.float32).to(DEVICE).train()
    if compiled:
        potential.compile()
    data = moved(ethanols)
    step = step_of(potential, data, adam(potential), potential.build_graph(data))
    for _ in range(4):  # after steps 1, 2 and 4, the splines' error is measured
        step()
    with no_synchronization():
        step()


def test_a_step_of_training_changes_all_weights(batch):
    potential = potential_of("paper", torch.float32).to(DEVICE).train()
    before = {name: weight.detach().clone() for name, weight in potential.named_parameters()}
    optimizer = adam(potential)
    potential(moved(batch))["forces"].square().sum().backward()
    optimizer.step()
    unchanged = [name for name, weight in potential.named_parameters() if torch.equal(weight, before[name])]
    assert [name for name in unchanged if not name.endswith("dense2.bias")] == []  # forces do not see it


class Lines(Report):
    """A report that keeps its lines."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def trained(folder, steps=12, resume=False, **options):
    """Train for some steps, and return the weights."""
    report = Lines()
    config = TrainConfig(
        DataConfig(str(SAMPLE), n_train=64, n_val=8),
        SchNetConfig(32, 32, 2, 20, 5.0, filters="spline"),
        TrainerConfig(
            max_steps=steps, val_every=6, batch_size=8, schedule="constant", threads=1, **options
        ),
        str(folder),
        FabricConfig(str(DEVICE)),
    )  # fmt: skip
    run = train(config, report, resume)
    if DEVICE.type == "cuda" and config.trainer.compile is True:
        assert not [line for line in report.lines if line.startswith(("Not compiled", "Steps are not"))]
    return {name: weight.detach() for name, weight in load(run.model).named_parameters()}


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "captured"])
def test_a_resumed_run_ends_with_the_same_bits(compile, optimizer, tmp_path):
    options = {"compile": compile, "optimizer": optimizer}
    whole = trained(tmp_path / "whole", **options)
    trained(tmp_path / "parts", 6, **options)
    parts = trained(tmp_path / "parts", 12, resume=True, **options)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_captured_steps_are_those_operation_by_operation(tmp_path):
    options = {"precision": "float64", "optimizer": "adam", "clip_norm": 1.0}
    captured, eager = (trained(tmp_path / str(on), compile=on, **options) for on in (True, False))
    assert_equal(captured, eager, torch.float32)  # the first steps of Adam magnify rounding


def test_training_data_may_stay_on_the_host(tmp_path):
    options = {"compile": True, "optimizer": "adam"}
    here = trained(tmp_path / "host", data_device="cpu", **options)
    there = trained(tmp_path / "device", **options)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_a_data_set_on_the_gpu_is_gathered_and_evaluated_there():
    dataset = AtomsDataset(path=SAMPLE)[:10]
    dataset._data = dataset._data.to(str(DEVICE))
    batch = next(iter(DataLoader(dataset, 2)))
    assert isinstance(batch, Data)
    assert batch.pos.device.type == DEVICE.type
    assert evaluate(Potential(SchNet.paper()).to(DEVICE), dataset).n == len(dataset)


def test_the_calculator_computes_the_same(tmp_path):
    potential = potential_of("paper")
    sides = []
    for device in ("cpu", str(DEVICE)):
        atoms = molecule("CH3CH2OH")
        atoms.calc = SchNetCalculator(potential, device=device)
        sides.append(
            {
                "forces": torch.from_numpy(atoms.get_forces()),
                "energy": torch.tensor(atoms.get_potential_energy()),
            }
        )
    assert_equal(sides[1], sides[0], torch.float64)


@pytest.mark.parametrize("friction", [None, 0.01])
@pytest.mark.parametrize("name", ["ethanol", "silicon"])
def test_a_step_of_dynamics_does_not_wait_for_the_device(name, friction):
    atoms = molecule("CH3CH2OH") if name == "ethanol" else bulk("Si", cubic=True) * 2
    atoms.rattle(0.02, seed=0)
    potential = potential_of("default", torch.float32).to(DEVICE).eval().requires_grad_(False)
    limits = BatchedLimits(None, None, None)

    def waits(steps):
        integrator = BatchedIntegrator(potential, [atoms], [0], limits, 100.0, 0.5, friction, 0)
        count = synchronizations(lambda: integrator.run(steps, TrajectoryFile(None), 1000))
        assert integrator.repeated == 0
        return count

    waits(2)  # what is initialized once
    assert waits(8) == waits(15) == waits(16)  # of one check, after the last step


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
def test_dynamics_of_many_structures_are_the_same(thermostat):
    potential = potential_of("default")
    ends = []
    for device in ("cpu", str(DEVICE)):
        structures = [molecule("CH3CH2OH"), molecule("H2O"), bulk("Si", cubic=True)]
        done = run_md_batched(
            potential, structures, temperature=300, thermostat=thermostat, duration=0.02, device=device,
            closest=None, max_force=None,
        )  # fmt: skip
        ends.append({k: torch.from_numpy(atoms.positions) for k, atoms in enumerate(done.atoms)})
    assert_equal(ends[1], ends[0], torch.float64)  # 40 steps of 0.5 fs


def test_a_checkpoint_runs_on_any_device_by_command(tmp_path):
    save(potential_of("paper"), tmp_path / "model.safetensors")
    write(tmp_path / "in.xyz", [molecule("CH3CH2OH"), molecule("H2O")])
    frames = {}
    for device in ("cpu", str(DEVICE)):
        out = tmp_path / f"{device.replace(':', '-')}.extxyz"
        arguments = ["predict", str(tmp_path / "model.safetensors"), str(tmp_path / "in.xyz"), str(out)]
        assert cli.main([*arguments, "--device", device, "--overwrite"]) == 0
        frames[device] = {k: torch.from_numpy(a.get_forces()) for k, a in enumerate(read(out, ":"))}
    assert_equal(frames[str(DEVICE)], frames["cpu"], torch.float32)  # of digits in the file


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs two devices")
def test_data_on_another_device_are_named(batch):
    potential = potential_of("paper").to(DEVICE)
    with pytest.raises(ValueError, match=r"`(data|pos|z)` must be on the device.*cuda.*cpu"):
        potential(batch)
    with pytest.raises(ValueError, match=r"`(data|pos|z)` must be on the device.*cpu.*cuda"):
        potential.cpu()(moved(batch))


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_a_gpu_that_is_not_there_is_named():
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=rf"`device` must be .*'cuda:{count - 1}' here, got 'cuda:{count}'"):
        load("model.safetensors", f"cuda:{count}")


def test_given_edges_are_used_on_the_device(batch):
    transform = RadiusGraph(4.0)
    expected = predictions(potential_of("exact filters"), batch)
    found = predictions(potential_of("exact filters").to(DEVICE), moved(transform(batch.clone())))
    assert_equal(found, expected, torch.float64)
