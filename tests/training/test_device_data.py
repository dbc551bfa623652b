"""Batches cut from data that stay on the device are those that are collated at each step."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as write_frames
from safetensors.torch import load_file
from torch_geometric.data import Data, InMemoryDataset

from pyg_schnet import Potential, SchNet
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.device_data import CollatedBatches, DeviceData, choose_batches
from pyg_schnet.training.loss import potential_loss
from pyg_schnet.training.progress import Report
from pyg_schnet.training.state import TrainingState
from tests.gpu_like import LaunchCounter, gpu_like

CPU = torch.device("cpu")
NAMES = {"one molecule": ("CH3CH2OH",), "mixed sizes": ("H2O", "CH3CH2OH", "C6H6", "H", "CH4")}
KINDS = (*NAMES, "crystals", "crystals and molecules")
IDS = [5, 0, 7, 2, 3]


def frames(kind, count=12):
    """Rattled structures with random labels."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        if kind.startswith("crystals") and (number % 2 or kind == "crystals"):
            atoms = bulk("Si", cubic=True)
        else:
            names = NAMES["mixed sizes"] if kind not in NAMES else NAMES[kind]
            atoms = molecule(names[number % len(names)])
        atoms.rattle(0.05, rng=rng)
        labels = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
        if kind.startswith("crystals"):
            labels["stress"] = rng.normal(size=6) * atoms.pbc.any()
        atoms.calc = SinglePointCalculator(atoms, **labels)
        found.append(atoms)
    return found


@pytest.fixture
def dataset(tmp_path):
    def make(kind, dtype=torch.float64, **options):
        path = tmp_path / f"{kind}.extxyz"
        if not path.exists():
            write_frames(path, frames(kind))
        return AtomsDataset(path=str(path), units="eV, Angstrom", dtype=dtype, **options)

    return make


def potential(cutoff=4.0, dtype=torch.float64, **options):
    torch.manual_seed(0)
    model = SchNet(16, 16, 2, 20, cutoff, last_center=6.0, filters="spline", **options)
    return Potential(model, scale=2.0).to(dtype=dtype).train()


def loss_and_gradients(own, source, ids=IDS):
    batch, graph, outputs = source.cut(ids)
    own.zero_grad()
    loss = potential_loss(own(batch, **outputs, graph=graph), batch, 0.1, own.scale)
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in own.named_parameters()}}


@pytest.mark.parametrize("cutoff", [4.0, None])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_collated_batches(dataset, kind, cutoff):
    if cutoff is None and kind.startswith("crystals"):
        pytest.skip("crystals need a cutoff")
    data, own = dataset(kind), potential(cutoff)
    expected = loss_and_gradients(own, CollatedBatches(data, CPU))
    assert expected["loss"].isfinite()
    with gpu_like():
        found = loss_and_gradients(own, DeviceData(data, own, CPU))
    for name, value in expected.items():  # the same terms in another order
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10 * float(value.abs().max()))


@pytest.mark.parametrize("kind", NAMES)
def test_runs_on_cpus_have_the_same_bits_with_stored_pairs(recipe, run, tmp_path, kind):
    path = str(tmp_path / "frames.extxyz")
    write_frames(path, [atoms for atoms in frames(kind, 24) if len(atoms) > 1])  # others are references
    weights = []
    for where in ("auto", "cpu"):
        data = {"path": path, "n_train": 12, "n_val": 4, "units": "eV, Angstrom"}
        directory = run(recipe(where, data=data, max_steps=6, val_every=3, data_device=where))
        weights.append(load_file(directory.last))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_device_of_the_data_is_reported(recipe, report, dataset):
    lines = report()
    chosen = choose_batches(
        dataset("one molecule"), potential(), TrainerConfig(data_device="cpu"), CPU, lines
    )
    assert isinstance(chosen, DeviceData)
    text = lines.text.getvalue()
    assert "Structures and their pairs" in text
    assert "memory of cpu" in text


def test_runs_on_cpus_collate_by_default(dataset):
    chosen = choose_batches(dataset("one molecule"), potential(), TrainerConfig(), CPU, Report())
    assert isinstance(chosen, CollatedBatches)


def test_runs_on_accelerators_keep_the_data_there_by_default(dataset):
    with gpu_like():
        chosen = choose_batches(dataset("one molecule"), potential(), TrainerConfig(), CPU, Report())
    assert isinstance(chosen, DeviceData)


@pytest.mark.parametrize("kind", ["one molecule", "crystals"])
def test_data_on_accelerators_without_kernels_are_for_plain_operations(dataset, monkeypatch, kind):
    data, own = dataset(kind), potential()
    expected = loss_and_gradients(own, CollatedBatches(data, CPU))
    missing = lambda like: False  # noqa: E731
    for name in ("graph.pair_graph", "graph.csr", "training.device_data", "nn.spline", "kernels.activation"):
        monkeypatch.setattr(f"pyg_schnet.{name}.has_kernels", missing)
    with gpu_like():
        source = DeviceData(data, own, CPU)
        assert source.cut(IDS).graph.csr is None
        found = loss_and_gradients(own, source)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10 * float(value.abs().max()))


def test_mapped_data_stay_on_disk_unless_memory_is_asked_for(dataset, tmp_path):
    data, own = dataset("one molecule", root=str(tmp_path / "root"), memory_map=True), potential()
    with gpu_like():
        assert isinstance(choose_batches(data, own, TrainerConfig(), CPU, Report()), CollatedBatches)
        chosen = choose_batches(data, own, TrainerConfig(data_device="cpu"), CPU, Report())
        found = loss_and_gradients(own, chosen)
    expected = loss_and_gradients(own, CollatedBatches(dataset("one molecule"), CPU))
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-10)


def test_data_on_the_host_are_sent_once_each_and_not_waited_for(dataset, monkeypatch):
    """Without a GPU, pinned memory is that of the host, and a device without memory takes its place."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    device = torch.device("meta")
    with gpu_like():
        data = DeviceData(dataset("crystals"), potential(), device)
        batch, graph, _ = data.cut(IDS)
        with LaunchCounter() as counter:
            data.cut(IDS)
    assert not counter.synchronizations, counter.report()
    assert batch.pos is graph.pos
    assert batch.cell is graph.cell
    sent = [batch.energy, batch.forces, graph.site_pos, *graph.sites, *(graph.csr or ())]
    assert all(tensor.device == device for tensor in sent)


class Constant(torch.nn.Module):
    """A model that finds no pairs."""

    def forward(self, z, pos, batch, num_molecules):
        return pos.new_zeros(num_molecules) + pos.sum() * 0


@pytest.mark.parametrize(
    ("own", "reason"),
    [(Potential(Constant()), "Constant finds its pairs itself"), (None, "transform")],
)
def test_what_cannot_be_stored_is_collated_with_one_line(dataset, report, own, reason):
    data, lines = dataset("one molecule"), report()
    if own is None:
        own, data.transform = potential(), lambda item: item
    with gpu_like():
        assert isinstance(choose_batches(data, own, TrainerConfig(), CPU, lines), CollatedBatches)
    assert lines.text.getvalue().count("\n") <= 2
    assert "Batches are collated and copied at each step: " in lines.text.getvalue()
    assert reason in lines.text.getvalue()


class Molecules(InMemoryDataset):
    """Hydrogen molecules with given edges."""

    def __init__(self, edges):
        super().__init__(None)
        pos = torch.tensor([[0, 0, 0], [0, 0, 0.8]], dtype=torch.float64)
        labels = {"energy": torch.zeros(1).double(), "forces": torch.zeros(2, 3).double()}
        items = [Data(z=torch.ones(2, dtype=torch.long), pos=pos, edge_index=own, **labels) for own in edges]
        self._data, self.slices = self.collate(items)


def test_edges_of_any_structure_without_their_reverse_are_collated_with_one_line(report):
    both, lines = torch.tensor([[0, 1], [1, 0]]), report()
    with gpu_like():
        chosen = choose_batches(Molecules([both, both]), potential(), TrainerConfig(), CPU, lines)
        assert isinstance(chosen, DeviceData)
        data = Molecules([both, both, both[:, :1]])
        chosen = choose_batches(data, potential(), TrainerConfig(), CPU, lines)
    assert isinstance(chosen, CollatedBatches)
    assert "collated and copied at each step: edges lack their reverse" in lines.text.getvalue()


def test_data_on_a_gpu_need_a_run_on_a_gpu(dataset):
    config = TrainerConfig(data_device="cuda")
    with pytest.raises(ValueError, match=r"`trainer\.data_device`.*'cuda'.*fabric\.accelerator"):
        choose_batches(dataset("one molecule"), potential(), config, CPU, Report())


def test_invalid_structures_are_reported_before_the_first_step(dataset):
    data = dataset("one molecule")
    data._data.pos[3] = data._data.pos[4]
    with gpu_like(), pytest.raises(ValueError, match="`pos` must not place two atoms at one point"):
        DeviceData(data, potential(), CPU)


# Measured by calls of torch, before any fusion; one more is one more launch at each step on a GPU.
@pytest.mark.parametrize(
    ("kind", "optimizer", "launches"),
    [
        ("one molecule", "adam", 305),
        ("one molecule", "soap", 355),
        ("mixed sizes", "adam", 305),
        ("crystals", "adam", 390),
    ],
)
def test_a_training_step_never_waits_for_the_device(dataset, kind, optimizer, launches):
    own = SchNet.paper(zero_output=False) if kind in NAMES else SchNet(64, 64, 3, 50, 4.0)
    own = Potential(own).train()
    own.model.filters = "spline"
    with gpu_like():
        source = DeviceData(dataset(kind, torch.float32), own, CPU)
        state = TrainingState(own, optimizer, 1e-3, 0.99)

        def step():
            state.set_learning_rate(1e-3)
            batch, graph, outputs = source.cut(IDS)
            potential_loss(own(batch, **outputs, graph=graph), batch, 0.1, own.scale).backward()
            state.collect_gradients()
            state.clip_gradients(1.0)
            state.step()

        for _ in range(4):  # after steps 1, 2 and 4, the splines' error is measured; SOAP begins
            step()
        with LaunchCounter() as counter:
            step()
    assert not counter.synchronizations, counter.report()
    assert counter.launches <= launches, counter.report()
