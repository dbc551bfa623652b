"""Training learns, stops when it should, and names what went wrong."""

import logging
import shutil
from dataclasses import asdict

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from pyg_schnet import Potential, SchNet, load
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader.sampler import split_by_edges
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.training import RunDirectory, validation
from pyg_schnet.training import loop as fit_module
from pyg_schnet.training import step as step_module
from pyg_schnet.training.distributed import Processes
from pyg_schnet.training.loop import fit
from pyg_schnet.training.soap import Soap
from pyg_schnet.training.state import TrainingState
from tests.gpu_like import gpu_like


@pytest.fixture
def start(recipe, report, tmp_path):
    """Call `fit` itself, on data sets as they are."""

    def begin(train, val, references=None, **options):
        config, references = recipe(**options), references or train
        torch.manual_seed(0)
        model = SchNet(**asdict(config.model))
        potential = Potential(model, references.scale(), references.atomref(), references.elements())
        directory = RunDirectory(tmp_path / "fit")
        directory.prepare(False, False)
        processes = Processes(Fabric(accelerator="cpu", devices=1))
        count = fit(processes, potential, train, val, config.trainer, directory, report(), {"note": "test"})
        return potential, directory, count

    return begin


@pytest.fixture
def dataset(write):
    return AtomsDataset(path=write())


def test_eight_molecules_are_learned_by_heart(write, start):
    dataset = AtomsDataset(path=write(frames=8), dtype=torch.float32)
    _, directory, _ = start(
        dataset, dataset, max_steps=200, batch_size=8, val_every=100, ema_decay=0.9, energy_weight=1.0,
        precision="float32", model={"num_interactions": 2},
    )  # fmt: skip
    errors = evaluate(load(directory.model), dataset)
    # Energies spread by 109 meV, forces' RMS is 1.54 eV/Å; measured errors: 2.7 meV and 36 meV/Å.
    assert errors.energy_mae < 0.01
    assert errors.forces_mae < 0.1


def test_energies_alone_are_learned(write, start):
    dataset = AtomsDataset(path=write(frames=8), forces_key="none")
    _, directory, _ = start(dataset, dataset, max_steps=300, batch_size=8, val_every=100)
    errors = evaluate(load(directory.model), dataset)
    assert errors.energy_mae < 0.02  # eV; measured 0.0019, where energies spread by 0.109


def test_energies_alone_cost_no_gradient_of_positions(write, start, monkeypatch):
    dataset = AtomsDataset(path=write(), forces_key="none")
    requires = []
    original = SchNet.forward

    def watch(self, z, pos, *args, **kwargs):
        requires.append(pos.requires_grad)
        return original(self, z, pos, *args, **kwargs)

    monkeypatch.setattr(SchNet, "forward", watch)
    monkeypatch.setattr(torch.autograd, "grad", None)  # would be called for forces
    start(dataset, dataset[:4], max_steps=5)
    assert requires
    assert not any(requires)


def test_the_data_sets_are_left_as_they_were(dataset, start):
    before = {key: dataset._data[key].clone() for key in dataset.slices}
    start(dataset[4:], dataset[:4])
    assert all(torch.equal(dataset._data[key], value) for key, value in before.items())


def test_the_kept_model_is_the_average_at_the_best_validation(dataset, start, monkeypatch):
    """Validations are told by hand: the second is the best."""
    averages, errors = [], iter([3.0, 1.0, 2.0, 1.5])

    def told(potential, dataset, *how):
        result = evaluate(potential, dataset, *how)
        averages.append({name: tensor.clone() for name, tensor in potential.state_dict().items()})
        return type(result)(**result.__dict__ | {"energy_rmse": next(errors), "forces_rmse": 0.0})

    monkeypatch.setattr(validation, "evaluate", told)
    potential, directory, count = start(dataset[4:], dataset[:4], max_steps=20, val_every=5)
    kept = load_file(directory.model)
    assert all(torch.equal(kept[name], tensor) for name, tensor in averages[1].items())
    assert not torch.equal(kept["model.embedding.weight"], averages[2]["model.embedding.weight"])
    assert not torch.equal(kept["model.embedding.weight"], potential.model.embedding.weight)
    assert (count.best_step, count.stale, count.step) == (10, 2, 20)


def test_the_best_is_judged_by_the_squared_errors_of_the_loss(dataset, start, monkeypatch):
    def told(potential, dataset, *how):
        result = evaluate(potential, dataset, *how)
        return type(result)(**result.__dict__ | {"energy_rmse": 0.5, "forces_rmse": 0.2})

    monkeypatch.setattr(validation, "evaluate", told)
    _, _, count = start(dataset[4:], dataset[:4], energy_weight=2.0)
    # The mean over atoms of |F|² is three times the mean over components.
    assert count.best_loss == pytest.approx(2.0 * 0.25 + 3 * 0.04)


def test_training_stops_where_validation_no_longer_improves(dataset, start, monkeypatch):
    errors = iter([3.0, 2.0, 2.0, 2.5, 1.0])

    def told(potential, dataset, *how):
        result = evaluate(potential, dataset, *how)
        return type(result)(**result.__dict__ | {"energy_rmse": next(errors), "forces_rmse": 0.0})

    monkeypatch.setattr(validation, "evaluate", told)
    _, _, count = start(dataset[4:], dataset[:4], max_steps=100, val_every=5, patience=2)
    assert (count.step, count.best_step) == (20, 10)


def test_training_stops_with_the_clock(dataset, start):
    _, directory, count = start(
        dataset[4:], dataset[:4], max_steps=1_000_000, val_every=1_000_000, max_minutes=0.5 / 60
    )
    assert 0 < count.step < 1_000_000
    (row,) = directory.read_metrics()  # at the end, whatever `val_every`
    assert row["step"] == count.step
    assert row["minutes"] >= 0.5 / 60


def test_the_last_steps_are_validated_too(dataset, start):
    _, directory, _ = start(dataset[4:], dataset[:4], max_steps=12, val_every=5)
    assert [row["step"] for row in directory.read_metrics()] == [5, 10, 12]


def test_metrics_are_the_errors_of_the_kept_model(dataset, start):
    _, directory, count = start(dataset[4:], dataset[:4])
    row = next(row for row in directory.read_metrics() if row["step"] == count.best_step)
    errors = evaluate(load(directory.model), dataset[:4], batch_size=4)
    assert row["val_energy_mae_eV"] == pytest.approx(errors.energy_mae, rel=1e-9)
    assert row["val_energy_rmse_eV"] == pytest.approx(errors.energy_rmse, rel=1e-9)
    assert row["val_forces_mae_eV_per_A"] == pytest.approx(errors.forces_mae, rel=1e-6)
    assert row["val_forces_rmse_eV_per_A"] == pytest.approx(errors.forces_rmse, rel=1e-6)


@pytest.mark.parametrize(("forces", "weight"), [(True, 0.01), (False, 1.0)])
def test_energies_have_the_papers_weight_by_default(write, start, monkeypatch, forces, weight):
    dataset = AtomsDataset(path=write(), forces_key=None if forces else "none")
    weights = []
    original = step_module.potential_loss
    monkeypatch.setattr(
        step_module,
        "potential_loss",
        lambda out, batch, energy_weight, *others, **named: (
            weights.append(energy_weight),
            original(out, batch, energy_weight, *others, **named),
        )[1],
    )
    start(dataset[4:], dataset[:4], max_steps=2)
    assert weights == [weight] * 2


def test_the_gradient_is_clipped(dataset, start, monkeypatch):
    norms = []
    step = Soap.step

    def watch(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Soap, "step", watch)
    start(dataset[4:], dataset[:4], max_steps=5, clip_norm=1e-3)
    assert norms == pytest.approx([1e-3] * 5, rel=1e-3)  # much larger without


def test_the_learning_rate_of_the_schedule_is_used(dataset, start):
    _, directory, _ = start(dataset[4:], dataset[:4], schedule="constant", warmup_steps=10, lr=1e-3)
    assert [row["lr"] for row in directory.read_metrics()] == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3])


@pytest.mark.parametrize("key", ["energy", "forces"])
def test_a_label_that_is_no_number_stops_the_run_with_its_structure(dataset, write, start, tmp_path, key):
    good = AtomsDataset(path=write("good.npz"))
    dataset._data[key][-1] = float("nan")
    with pytest.raises(FloatingPointError) as caught:
        start(dataset[12:], good[:4], references=good, batch_size=1, val_every=100)
    done = int(str(caught.value).split("after ")[1].split()[0])
    assert 0 <= done < 4  # four structures, one a step
    assert str(caught.value) == (
        f"the loss is nan after {done} steps, for the structures 15; the last good checkpoint is none yet. "
        "Check the labels of the structures; if they are right, lower `trainer.lr` or set `trainer.clip_norm`"
    )
    assert not (tmp_path / "fit" / "model.safetensors").exists()


def test_on_an_accelerator_a_wrong_label_is_found_later_but_named_as_well(dataset, write, start, tmp_path):
    good = AtomsDataset(path=write("good.npz"))
    dataset._data["forces"][-1] = float("nan")
    with gpu_like(), pytest.raises(FloatingPointError) as caught:
        start(dataset[12:], good[:4], references=good, batch_size=1, val_every=30, max_steps=60)
    done = int(str(caught.value).split("after ")[1].split()[0])
    assert 0 <= done < 4  # four structures, one a step
    assert "the loss is nan after" in str(caught.value)
    assert "for the structures 15; the last good checkpoint is none yet" in str(caught.value)
    assert not (tmp_path / "fit" / "model.safetensors").exists()


@pytest.mark.parametrize("batches", [{"batch_size": 4}, {"batch_edges": 24}])
@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_run_on_the_paths_of_accelerators_learns_the_same(dataset, start, optimizer, batches):
    options = {"max_steps": 6, "val_every": 3, "precision": "float64", "compile": False, "clip_norm": 0.5}
    options |= {"optimizer": optimizer, "model": {"filters": "spline"}, **batches}
    _, directory, _ = start(dataset, dataset, **options)
    expected = load_file(directory.model)
    shutil.rmtree(directory.path)
    with gpu_like():
        _, directory, _ = start(dataset, dataset, **options)
    for name, value in load_file(directory.model).items():  # sums in another order
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-8, msg=name)


def test_a_run_that_explodes_leaves_its_last_good_checkpoint(dataset, start, tmp_path, monkeypatch):
    original = fit_module.learning_rate
    monkeypatch.setattr(
        fit_module,
        "learning_rate",
        lambda config, step, minutes: 1e30 if step >= 10 else original(config, step),
    )
    with pytest.raises(FloatingPointError) as caught:
        start(dataset[4:], dataset[:4], max_steps=100, val_every=5)
    model = tmp_path / "fit" / "model.safetensors"
    assert "after 11 steps, for the structures" in str(caught.value)
    assert f"; the last good checkpoint is {model} (step " in str(caught.value)
    assert evaluate(load(model), dataset).energy_mae < 10.0
    state = load_file(tmp_path / "fit" / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_run_that_explodes_at_a_validation_leaves_its_last_good_state(
    dataset, start, tmp_path, monkeypatch
):
    original = fit_module.learning_rate
    monkeypatch.setattr(
        fit_module,
        "learning_rate",
        lambda config, step, minutes: 1e30 if step == 9 else original(config, step),
    )
    with pytest.raises(FloatingPointError, match=r"validation.*(nan|inf).*10.*steps"):
        start(dataset[4:], dataset[:4], max_steps=100, val_every=5)
    state = load_file(tmp_path / "fit" / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert [row["step"] for row in RunDirectory(tmp_path / "fit").read_metrics()] == [5]


def test_a_gradient_that_is_not_finite_is_not_clipped_but_told(dataset, start, monkeypatch):
    monkeypatch.setattr(TrainingState, "clip_gradients", lambda self, norm: torch.tensor(float("inf")))
    with pytest.raises(FloatingPointError, match=r"gradient.*0.*steps"):
        start(dataset[4:], dataset[:4], clip_norm=1.0)


def test_structures_of_an_element_without_references_are_refused(dataset, write, start):
    other = AtomsDataset(path=write("other.npz", "ammonia"))
    with pytest.raises(ValueError, match=r"`z`.*7.*absent.*training"):
        start(dataset, other)


def test_training_says_nothing_on_the_standard_streams(dataset, start, capfd, caplog):
    with caplog.at_level(logging.INFO):
        start(dataset[4:], dataset[:4])
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_step_that_is_computed_in_parts_learns_the_same(dataset, start, monkeypatch):
    # SOAP's eigenvectors of a gradient of two elements are decided by rounding; Adam's steps are smooth.
    options = {"max_steps": 3, "val_every": 3, "precision": "float64", "compile": False, "optimizer": "adam"}
    _, directory, _ = start(dataset, dataset, **options)
    expected = load_file(directory.last)
    shutil.rmtree(directory.path)
    parts = []

    def in_twos(ids, bounds):
        parts.extend(found := split_by_edges(ids, bounds, max_edges=2 * float(bounds.max())))
        return found

    monkeypatch.setattr(fit_module, "split_by_edges", in_twos)
    _, directory, _ = start(dataset, dataset, **options)
    assert {len(part) for part in parts} == {2}
    for name, value in load_file(directory.last).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, equal_nan=True)
