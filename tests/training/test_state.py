"""The state of a training comes back complete, or the file is refused."""

import copy
import random
from contextlib import nullcontext

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from pyg_schnet import Potential, SchNet
from pyg_schnet.training.state import TrainingState
from tests.gpu_like import LaunchCounter, gpu_like

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 5}


DECAY = 0.8  # unlike 0.5, so that the average and the weights cannot be swapped


def make(seed, dtype=torch.float32, optimizer="soap", **changes):
    torch.manual_seed(seed)
    potential = Potential(SchNet(**TINY | changes).to(dtype), scale=0.1 + seed)
    return TrainingState(potential, optimizer, lr=1e-2, ema_decay=DECAY)


def advance(state, molecule, steps):
    for _ in range(steps):
        state.potential(molecule)["energy"].square().sum().backward()
        state.collect_gradients()
        state.step()
        state.counters.step += 1


def tensors(state):
    return {**state._tensors(), "step": torch.tensor(state.counters.step)}


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_comes_back_bit_by_bit(tmp_path, water, dtype, optimizer):
    state, other = make(0, dtype, optimizer), make(1, dtype, optimizer)
    advance(state, water, 3)
    state.counters.best_loss, state.counters.seconds = 1 / 3, 12.3
    state.save(tmp_path / "last.safetensors")
    other.restore(tmp_path / "last.safetensors")
    assert_close(tensors(other), tensors(state), atol=0, rtol=0)
    assert other.counters == state.counters


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_training_goes_on_as_if_it_had_never_stopped(tmp_path, water, optimizer):
    state, other = (make(seed, optimizer=optimizer) for seed in (0, 1))
    advance(state, water, 8)
    state.save(tmp_path / "last.safetensors")
    advance(state, water, 12)  # two turns of SOAP's bases, one before and one after
    other.restore(tmp_path / "last.safetensors")
    advance(other, water, 12)
    assert_close(tensors(other), tensors(state), atol=0, rtol=0)


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_a_state_before_the_first_step_comes_back(tmp_path, optimizer):
    state, other = (make(seed, optimizer=optimizer) for seed in (0, 1))
    state.save(tmp_path / "last.safetensors")
    other.restore(tmp_path / "last.safetensors")
    assert other.counters.best_loss == float("inf")
    assert_close(tensors(other), tensors(state), atol=0, rtol=0)


def test_the_average_is_the_exponential_moving_one(water):
    state = make(0)
    name = "model.embedding.weight"
    expected = None
    for _ in range(3):
        advance(state, water, 1)
        current = state.potential.state_dict()[name].clone()
        expected = current if expected is None else DECAY * expected + (1 - DECAY) * current
    # rounding of float32 numbers up to 3; measured 2.4e-7
    assert_close(state.averaged.state_dict()[name], expected, atol=2e-6, rtol=0)


def test_the_average_is_of_weights_only(water):
    state = make(0)
    advance(state, water, 2)
    assert state.averaged.scale.item() == state.potential.scale.item() == 0.1


def test_flat_weights_are_trained_and_averaged_as_separate_ones_are(water):
    state = make(0, torch.float64, "adam")
    plain = copy.deepcopy(state.potential)
    optimizer = torch.optim.Adam(plain.parameters(), 1e-2)
    average = AveragedModel(plain, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    for _ in range(3):
        advance(state, water, 1)
        optimizer.zero_grad()
        plain(water)["energy"].square().sum().backward()
        optimizer.step()
        average.update_parameters(plain)
    assert_close(state.potential.state_dict(), plain.state_dict(), atol=1e-14, rtol=0)
    assert_close(state.averaged.state_dict(), average.module.state_dict(), atol=1e-14, rtol=0)
    assert any(
        not torch.equal(*pair)
        for pair in zip(plain.parameters(), make(0, torch.float64).potential.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("step", 1.5, "a whole number"), ("step", True, "a whole number"), ("best_loss", "x", "a number")],
)
def test_counters_that_are_no_numbers_are_refused(tmp_path, name, value, kind):
    state = make(0)
    setattr(state.counters, name, value)
    state.save(tmp_path / "last.safetensors")
    with pytest.raises(ValueError, match=rf"optimizer.*`{name}`.*{kind}.*'{value}'"):
        make(0).restore(tmp_path / "last.safetensors")


def test_soap_takes_what_a_batch_does_not_use_as_zero(water):
    state = make(0)
    state.potential(water)["energy"].square().sum().backward()
    state.weights.parameters[0].grad = None
    row = state.collect_gradients()
    parts = [p.grad.reshape(-1) for p in state.weights.parameters]
    assert_close(row, torch.cat(parts), atol=0, rtol=0)
    assert not parts[0].any()
    assert row.any()
    assert parts[1].untyped_storage().data_ptr() == row.untyped_storage().data_ptr()


@pytest.mark.parametrize("changes", [{"hidden_channels": 10}, {"num_interactions": 2}])
def test_the_state_of_another_model_is_refused(tmp_path, changes):
    make(0).save(tmp_path / "last.safetensors")
    with pytest.raises(ValueError, match=r"last\.safetensors.*optimizer"):
        make(0, **changes).restore(tmp_path / "last.safetensors")


def test_a_potential_is_no_state(tmp_path):
    from pyg_schnet.potentials import checkpoint

    checkpoint.save(make(0).potential, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"training.*state.*potential"):
        make(0).restore(tmp_path / "model.safetensors")


def test_a_missing_state_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        make(0).restore(tmp_path / "last.safetensors")


def test_the_state_of_separate_weights_is_refused(tmp_path, water):
    """An earlier version wrote moments weight by weight, and Adam would read beyond them."""
    state, other = (make(seed, optimizer="adam") for seed in (0, 1))
    advance(state, water, 1)
    state.optimizer.state_dict()["state"][0]["exp_avg"].resize_(5)
    state.save(tmp_path / "last.safetensors")
    with pytest.raises(ValueError, match=r"'exp_avg'.*shape.*\(\d+,\).*\(5,\).*version"):
        other.restore(tmp_path / "last.safetensors")


@pytest.mark.parametrize("other", ["soap", "adam"])
def test_the_state_of_another_optimizer_is_refused(tmp_path, water, other):
    state = make(0, optimizer={"soap": "adam", "adam": "soap"}[other])
    advance(state, water, 1)
    state.save(tmp_path / "last.safetensors")
    with pytest.raises(ValueError, match=r"another.*optimizer"):
        make(1, optimizer=other).restore(tmp_path / "last.safetensors")


def test_released_parameters_have_memory_of_their_own(water):
    state = make(0)
    advance(state, water, 1)
    before = copy.deepcopy(state.averaged.state_dict())
    state.release()
    assert_close(state.averaged.state_dict(), before, atol=0, rtol=0)
    for potential in (state.potential, state.averaged):
        sizes = [(p.untyped_storage().nbytes(), p.numel() * p.element_size()) for p in potential.parameters()]
        assert all(held == needed for held, needed in sizes)


def test_a_damaged_bit_of_a_state_is_found(tmp_path, water, flip):
    path, state = tmp_path / "last.safetensors", make(0)
    advance(state, water, 2)
    state.save(path)
    content = path.read_bytes()
    for place in random.Random(0).sample(range(4 * len(content), 8 * len(content)), 50):
        flip(path, place)
        with pytest.raises(ValueError, match=r"last.safetensors: .* checksum"):
            make(1).restore(path)
        path.write_bytes(content)


def test_weights_that_are_not_finite_are_no_state_to_go_on_from(tmp_path):
    state = make(0)
    state.weights.values.data[3] = torch.nan
    state.save(tmp_path / "last.safetensors")
    with pytest.raises(ValueError, match=r"last.safetensors.*weights.*finite"):
        make(1).restore(tmp_path / "last.safetensors")


# Collecting gradients, optimizer and average of the paper's network. SOAP's: 6 shapes of weights and 8 sides
# with bases, each a product for its covariance and two rotations; the elementwise rest is common to all.
@pytest.mark.parametrize(("optimizer", "launches"), [("adam", 5), ("soap", 54)])
def test_a_step_on_an_accelerator_is_a_few_launches_without_synchronization(optimizer, launches):
    torch.manual_seed(0)
    with gpu_like():
        state = TrainingState(Potential(SchNet.paper()), optimizer, lr=1e-2, ema_decay=DECAY)
        for step in range(4):
            for parameter in state.weights.parameters:
                parameter.grad = torch.randn_like(parameter)
            with LaunchCounter() as counter:
                state.set_learning_rate(1e-3 * step)
                state.collect_gradients()
                state.step()
    assert not counter.synchronizations, counter.report()
    assert counter.launches <= launches, counter.report()


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_an_accelerator_trains_and_resumes_as_a_cpu(tmp_path, water, optimizer):
    rate = 2.0**-7  # exact in the float32 of fused Adam

    def train(state, steps):
        for _ in range(steps):
            state.set_learning_rate(rate * (state.counters.step % 3))
            advance(state, water, 1)

    expected = make(0, torch.float64, optimizer)
    train(expected, 14)
    with gpu_like():
        state, resumed = (make(seed, torch.float64, optimizer) for seed in (0, 1))
        train(state, 7)
        state.save(tmp_path / "last.safetensors")
        resumed.restore(tmp_path / "last.safetensors")
        train(resumed, 7)
    # Quotients and products round differently, and decompositions amplify it; measured below 1e-13.
    for name in ("potential", "averaged"):
        found, wanted = (getattr(of, name).state_dict() for of in (resumed, expected))
        assert_close(found, wanted, atol=1e-11, rtol=0)


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
@pytest.mark.parametrize("on_gpu", [False, True], ids=["CPU", "like a GPU"])
def test_updates_are_visible_in_the_versions_of_weights(water, on_gpu, optimizer):
    with gpu_like() if on_gpu else nullcontext():
        state = make(0, optimizer=optimizer)
        owners = (state.potential, state.averaged)
        before = [[p._version for p in owner.parameters()] for owner in owners]
        advance(state, water, 1)
        for owner, versions in zip(owners, before, strict=True):
            assert all(p._version > v for p, v in zip(owner.parameters(), versions, strict=True))
