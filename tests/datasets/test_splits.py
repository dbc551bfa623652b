"""Splits are disjoint, complete and the same everywhere."""

import hashlib
import struct

import pytest
import torch

from pyg_schnet.datasets.splits import Split, random_split, without_copies


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
        f"file, got {shown}; leave out `data.n_train` to train on all that validation leaves"
    )


def test_copies_are_found_wherever_they_are():
    train = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    val = torch.tensor([[2.0, 3.0], [2.0, 3.1], [0.0, 1.0], [1.0, 0.0]])
    assert without_copies(val, train).tolist() == [1, 3]


def test_a_set_of_copies_leaves_nothing():
    train = torch.rand(3, 2, 3)
    kept = without_copies(train.flip(0), train)
    assert (kept.tolist(), kept.dtype) == ([], torch.int64)


@pytest.mark.parametrize("shape", [(), (3,), (3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8])
def test_copies_are_those_whose_bytes_are_the_same(shape, dtype):
    """A hundred structures of eight different ones, compared with the plain way."""
    rng = torch.Generator().manual_seed(len(shape))
    different = torch.randint(0, 200, (8, *shape), generator=rng).to(dtype)
    val = different[torch.randint(0, 8, (100,), generator=rng)]
    train = different[torch.randint(0, 4, (50,), generator=rng)]
    seen = {row.numpy().tobytes() for row in train}
    expected = [i for i, row in enumerate(val) if row.numpy().tobytes() not in seen]
    assert 0 < len(expected) < 100
    assert without_copies(val, train).tolist() == expected


def test_rows_that_differ_in_one_late_byte_are_no_copies():
    val = torch.zeros(3, 50, 3, dtype=torch.float64)
    val[1, -1, -1] = 5e-324
    assert without_copies(val, val[:1]).tolist() == [1]


@pytest.mark.parametrize(("val", "train", "kept"), [(0, 3, []), (3, 0, [0, 1, 2]), (0, 0, [])])
def test_a_set_of_nothing_has_no_copies(val, train, kept):
    found = without_copies(torch.zeros(val, 2, 3), torch.zeros(train, 2, 3))
    assert (found.tolist(), found.dtype) == (kept, torch.int64)


def test_arguments_need_not_be_contiguous():
    val = torch.arange(12.0).view(3, 4).t()
    assert without_copies(val, val[1:3]).tolist() == [0, 3]


def split(train, val, test, dtype=torch.int64):
    return Split(*(torch.tensor(part, dtype=dtype) for part in (train, val, test)))


def test_the_hash_of_a_split_is_that_of_its_lengths_and_numbers():
    """Written by hand: each part as its length and its numbers, of eight bytes, the smallest first."""
    content = struct.pack("<Q2q", 2, 4, 1) + struct.pack("<Q", 0) + struct.pack("<Q1q", 1, 3)
    assert split([4, 1], [], [3]).sha256() == hashlib.sha256(content).hexdigest()


def test_the_hash_never_changes():
    assert random_split(10, 5, 2, 0).sha256() == (
        "a61f968ce2e900144756e85efcbbbf420891b71ba7902992403a16ed9c894f93"
    )


@pytest.mark.parametrize(
    "other",
    [([1, 4], [], [3]), ([4, 1], [3], []), ([4], [1], [3]), ([4, 1, 3], [], []), ([4, 2], [], [3])],
)
def test_another_split_has_another_hash(other):
    assert split(*other).sha256() != split([4, 1], [], [3]).sha256()


def test_the_type_of_the_numbers_does_not_matter_to_the_hash():
    assert split([4, 1], [], [3], torch.int32).sha256() == split([4, 1], [], [3]).sha256()


def test_a_split_of_a_sets_own_structures_passes():
    split([4, 1], [], [3, 0]).check("own", 5)


@pytest.mark.parametrize(("number", "part"), [(5, 0), (-1, 1), (2**40, 2)])
def test_numbers_of_no_structures_are_refused(number, part):
    parts = [[0], [1], [2]]
    parts[part].append(number)
    with pytest.raises(ValueError, match=rf"^split.*'own'.*number.*structures.*0.*4.*{number}"):
        split(*parts).check("own", 5)


@pytest.mark.parametrize(
    ("dtype", "shape"), [(torch.float32, (2,)), (torch.bool, (2,)), (torch.int64, (1, 2))]
)
def test_what_is_no_list_of_numbers_is_refused(dtype, shape):
    wrong = Split(torch.zeros(shape, dtype=dtype), torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(ValueError, match=r"^split.*'own'.*numbers.*torch.*dimension"):
        wrong.check("own", 5)
