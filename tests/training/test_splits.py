"""Splits are disjoint, complete and the same everywhere."""

import pytest
import torch

from pyg_schnet.training.splits import random_split, without_copies


@pytest.mark.parametrize("sizes", [(100, 80, 10), (100, 1, 0), (100, 60, 40), (100, None, None), (1, 1, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_parts_are_disjoint_and_together_all(sizes, seed):
    split = random_split(*sizes, seed)
    assert torch.equal(torch.cat(split).sort().values, torch.arange(sizes[0]))
    assert all(torch.equal(part, part.sort().values) for part in split)


def test_parts_have_the_sizes_that_are_asked_for():
    assert [len(part) for part in random_split(100, 70, 20, 0)] == [70, 20, 10]


@pytest.mark.parametrize(("n", "n_val"), [(1, 1), (5, 1), (10, 1), (11, 2), (100, 10), (100_000, 1000)])
def test_a_tenth_validates_by_default_a_thousand_at_most(n, n_val):
    assert len(random_split(n, 0 if n == 1 else 1, None, 0).val if n > 1 else [0]) == n_val


def test_all_that_validation_leaves_trains_by_default():
    assert [len(part) for part in random_split(100, None, 30, 0)] == [70, 30, 0]


def test_the_split_of_a_seed_never_changes():
    split = random_split(10, 5, 2, 0)
    assert [part.tolist() for part in split] == [[1, 3, 4, 5, 7], [0, 9], [2, 6, 8]]


def test_another_seed_gives_another_split():
    assert not torch.equal(random_split(100, 50, 10, 0).train, random_split(100, 50, 10, 1).train)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    random_split(10, 5, 2, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("n_train", "n_val", "shown"),
    [(0, 1, "0 and 1"), (5, -1, "5 and -1"), (9, 2, "9 and 2"), (11, 0, "11 and 0"), (10, None, "10 and 1")],
)
def test_splits_that_do_not_fit_are_refused(n_train, n_val, shown):
    with pytest.raises(ValueError, match=r"^`data\.n_train` and") as caught:
        random_split(10, n_train, n_val, 0)
    assert str(caught.value) == (
        "`data.n_train` and `data.n_val` must be at least 1 and 0 and fit into the 10 structures of the "
        f"file, got {shown}"
    )


def test_copies_are_found_wherever_they_are():
    train = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    val = torch.tensor([[2.0, 3.0], [2.0, 3.1], [0.0, 1.0], [1.0, 0.0]])
    assert without_copies(val, train).tolist() == [1, 3]


def test_a_set_of_copies_leaves_nothing():
    train = torch.rand(3, 2, 3)
    kept = without_copies(train.flip(0), train)
    assert (kept.tolist(), kept.dtype) == ([], torch.int64)
