"""Learning rate and batches are functions of the step."""

import itertools

import pytest
import torch

from pyg_schnet.loader.sampler import BatchSequence
from pyg_schnet.training import TrainerConfig
from pyg_schnet.training.schedule import learning_rate


def test_the_cosine_goes_from_the_learning_rate_to_zero():
    config = TrainerConfig(lr=2e-3, max_steps=1000)
    assert learning_rate(config, 0) == 2e-3
    assert learning_rate(config, 250) == pytest.approx(2e-3 * 0.8535533905932737, rel=1e-12)
    assert learning_rate(config, 500) == pytest.approx(1e-3, rel=1e-12)
    assert learning_rate(config, 1000) == pytest.approx(0.0, abs=1e-15)
    assert learning_rate(config, 1500) == pytest.approx(0.0, abs=1e-15)


def test_the_exponential_is_the_papers():
    config = TrainerConfig(lr=1e-3, schedule="exponential")
    rates = [learning_rate(config, step) for step in (0, 99_999, 100_000, 199_999, 200_000)]
    assert rates == pytest.approx([1e-3, 1e-3, 0.96e-3, 0.96e-3, 0.9216e-3], rel=1e-12)


def test_a_constant_stays():
    config = TrainerConfig(lr=1e-3, schedule="constant", max_steps=10, max_minutes=1.0)
    assert [learning_rate(config, step, 0.9) for step in (0, 5, 10)] == [1e-3] * 3


@pytest.mark.parametrize("schedule", ["constant", "exponential"])
def test_warming_up_is_linear(schedule):
    config = TrainerConfig(lr=1e-3, schedule=schedule, warmup_steps=4)
    rates = [learning_rate(config, step) for step in range(6)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3], rel=1e-12)


def test_warming_up_multiplies_the_cosine():
    config = TrainerConfig(lr=1e-3, max_steps=8, warmup_steps=4)
    assert learning_rate(config, 2) == pytest.approx(0.75e-3 * 0.8535533905932737, rel=1e-12)


def test_the_cosine_arrives_with_the_clock_or_with_the_steps_whichever_is_first():
    config = TrainerConfig(lr=1e-3, max_steps=1000, max_minutes=2.0)
    assert learning_rate(config, 10, 1.0) == pytest.approx(0.5e-3, rel=1e-12)
    assert learning_rate(config, 500, 0.1) == pytest.approx(0.5e-3, rel=1e-12)
    assert learning_rate(config, 10, 2.0) == pytest.approx(0.0, abs=1e-15)


def first(number, items, batch_size, seed, step=0):
    batches = BatchSequence(items, batch_size, seed)
    return [ids.tolist() for ids in itertools.islice(batches.from_step(step), number)]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize("seed", range(3))
def test_no_item_comes_twice_in_an_epoch(seed):
    for epoch in range(4):
        ids = flat(first(12, 10, 3, seed)[3 * epoch : 3 * epoch + 3])
        assert len(set(ids)) == 9  # of ten, and the tenth is left out
        assert set(ids) <= set(range(10))


def test_epochs_have_different_orders():
    sequence = first(9, 9, 3, 0)
    assert sequence[:3] != sequence[3:6] != sequence[6:]


def test_all_items_come_in_the_end():
    assert set(flat(first(30, 10, 3, 0))) == set(range(10))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7, 100])
def test_the_sequence_does_not_depend_on_where_it_begins(step):
    assert first(5, 10, 3, 7, step) == first(step + 5, 10, 3, 7)[step:]


def test_the_seed_decides():
    assert first(5, 100, 3, 1) == first(5, 100, 3, 1)
    assert first(5, 100, 3, 1) != first(5, 100, 3, 2)


def test_fewer_items_than_a_batch_come_all_at_once():
    assert [sorted(ids) for ids in first(3, 5, 32, 0)] == [[0, 1, 2, 3, 4]] * 3


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first(5, 10, 3, 0)
    assert torch.equal(torch.get_rng_state(), before)
