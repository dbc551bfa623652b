"""Chunks are numbered, filtered and transformed the same, however they are cut."""

import functools
import re
from types import FunctionType

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from pyg_schnet import RadiusGraph
from pyg_schnet.datasets.splits import Split
from pyg_schnet.datasets.storage.chunks import Chunk, join
from pyg_schnet.datasets.storage.preparation import PreparedChunks, collate_items, describe

SIZES = [3, 1, 2, 5, 1, 4]


def whole(sizes=SIZES):
    atoms, counts = sum(sizes), torch.tensor(sizes)
    molecule = torch.arange(len(sizes)).repeat_interleave(counts)
    fields = {
        "z": (1 + torch.arange(atoms) % 9).to(torch.uint8),
        "pos": torch.arange(3.0 * atoms, dtype=torch.float64).view(-1, 3) ** 1.1,
        "energy": -torch.arange(float(len(sizes)), dtype=torch.float64),
        "name": [f"{i}" for i in range(len(sizes))],
        "chain_index": torch.stack([molecule, torch.arange(atoms)]),
    }
    return Chunk(fields, {"z": counts, "pos": counts, "chain_index": counts})


def cut(chunk, lengths):
    """Cut a chunk into several."""
    fields, slices = join([chunk])
    start, parts = 0, []
    for length in lengths:
        ends = {name: (int(value[start]), int(value[start + length])) for name, value in slices.items()}
        own = {
            name: fields[name][..., slice(*ends[name])]
            if "index" in name
            else fields[name][slice(*ends[name])]
            for name in fields
        }
        parts.append(
            Chunk(own, {name: value[start : start + length] for name, value in chunk.counts.items()})
        )
        start += length
    return parts


def odd(item):
    return len(item.z) % 2 == 1


def with_edges(item):
    item.edge_index = torch.triu_indices(len(item.z), len(item.z), 1)
    item.size = len(item.z)
    return item


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = value == other[name] if isinstance(value, list) else torch.equal(value, other[name])
            assert same, name


def test_structures_are_numbered_across_chunks():
    fields, _ = join(PreparedChunks(cut(whole(), [2, 1, 3]), None, None))
    assert fields["idx"].tolist() == [0, 1, 2, 3, 4, 5]
    assert fields["idx"].dtype == torch.int64


def test_numbers_that_chunks_bring_are_kept():
    chunk = whole()
    chunk.fields["idx"] = torch.tensor([7, 2, 9, 4, 0, 1])
    fields, _ = join(PreparedChunks([chunk], odd, None))
    assert fields["idx"].tolist() == [7, 2, 4, 0]


def test_the_readers_chunks_are_left_as_they_are():
    chunk = whole()
    list(PreparedChunks([chunk], odd, with_edges))
    assert set(chunk.fields) == {"z", "pos", "energy", "name", "chain_index"}
    assert chunk.fields["z"].dtype == torch.uint8


@pytest.mark.parametrize("pre_filter", [None, odd])
@pytest.mark.parametrize("pre_transform", [None, with_edges])
@pytest.mark.parametrize("lengths", [[1, 1, 1, 1, 1, 1], [2, 4], [5, 1], [0, 6]])
def test_the_cut_into_chunks_makes_no_difference(pre_filter, pre_transform, lengths):
    parts = PreparedChunks(cut(whole(), lengths), pre_filter, pre_transform)
    assert_same(join(parts), join(PreparedChunks([whole()], pre_filter, pre_transform)))


def test_only_what_the_filter_keeps_is_left():
    fields, slices = join(PreparedChunks([whole()], odd, None))
    assert fields["name"] == ["0", "1", "3", "4"]
    assert fields["idx"].tolist() == [0, 1, 3, 4]
    assert slices["z"].tolist() == [0, 3, 4, 9, 10]
    assert fields["chain_index"].tolist()[0] == [0, 0, 0, 1, 3, 3, 3, 3, 3, 4]


def test_a_filter_may_keep_a_single_structure():
    fields, slices = join(PreparedChunks([whole()], lambda item: item.name == "3", None))
    assert fields["name"] == ["3"]
    assert slices["z"].tolist() == [0, 5]


def test_a_filter_that_keeps_nothing_is_noticed():
    with pytest.raises(ValueError, match=r"at least.*structure.*none"):
        join(PreparedChunks([whole()], lambda item: False, None))


def test_filter_and_transform_see_items_as_the_data_set_gives_them():
    seen = []
    list(PreparedChunks([whole()], lambda item: seen.append(item) or True, None))
    assert [int(item.idx) for item in seen] == [0, 1, 2, 3, 4, 5]
    assert seen[2].z.dtype == torch.int64
    assert seen[2].pos.shape == (2, 3)
    assert seen[2].chain_index.tolist() == [[2, 2], [4, 5]]
    assert (seen[2].name, seen[2].energy.tolist()) == ("2", [-2.0])


def test_the_transform_sees_only_what_the_filter_kept():
    seen = []
    list(PreparedChunks([whole()], odd, lambda item: seen.append(item.name) or item))
    assert seen == ["0", "1", "3", "4"]


def test_what_a_transform_adds_is_stored():
    fields, slices = join(PreparedChunks(cut(whole(), [3, 3]), None, with_edges))
    assert fields["edge_index"].shape == (2, 3 + 0 + 1 + 10 + 0 + 6)
    assert slices["edge_index"].tolist() == [0, 3, 3, 4, 14, 14, 20]
    assert fields["size"].tolist() == SIZES


def test_a_transform_may_remove_atoms():
    def first_two(item):
        return Data(z=item.z[:2], pos=item.pos[:2], energy=item.energy)

    fields, slices = join(PreparedChunks([whole()], None, first_two))
    assert slices["pos"].tolist() == [0, 2, 3, 5, 7, 8, 10]
    assert "name" not in fields


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_splits_are_renumbered_as_the_filter_leaves_them(dtype):
    prepared = PreparedChunks(cut(whole(), [2, 4]), odd, None)
    list(prepared)
    numbers = [[5, 4, 0], [], [3, 2, 1]]
    split = Split(*(torch.tensor(part, dtype=dtype) for part in numbers))
    new = prepared.renumber({"own": split})["own"]
    assert [part.tolist() for part in new] == [[3, 0], [], [2, 1]]
    assert {part.dtype for part in new} == {torch.int64}


def test_splits_stay_where_there_is_no_filter():
    prepared = PreparedChunks([whole()], None, with_edges)
    list(prepared)
    splits = {"own": Split(torch.tensor([5, 0]), torch.tensor([2]), torch.tensor([1]))}
    assert prepared.renumber(splits) is splits


@pytest.mark.parametrize("pre_filter", [None, odd])
@pytest.mark.parametrize("number", [6, -1])
def test_splits_of_structures_that_were_not_read_are_refused(pre_filter, number):
    prepared = PreparedChunks(cut(whole(), [2, 4]), pre_filter, None)
    list(prepared)
    split = Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([2, number]))
    with pytest.raises(ValueError, match=rf"^split.*'own'.*number.*structures.*0.*5.*{number}"):
        prepared.renumber({"own": split})


@pytest.mark.parametrize("number", [0, 1])
def test_a_field_that_only_some_structures_get_is_refused(number):
    def sometimes(item):
        if int(item.idx) == number:
            item.charge = torch.tensor([1.0])
        return item

    with pytest.raises(ValueError, match=r"^`pre_transform`.*`charge`.*structures"):
        list(PreparedChunks([whole()], None, sometimes))


@pytest.mark.parametrize("value", [["C", "H"], {"a": torch.zeros(1)}, (1, 2), [torch.zeros(1)], {"a": "b"}])
def test_what_cannot_be_stored_is_refused(value):
    def wrong(item):
        item.extra = value
        return item

    with pytest.raises(ValueError, match=r"^`pre_transform`.*tensors.*numbers.*`extra`"):
        list(PreparedChunks([whole()], None, wrong))


@pytest.mark.parametrize("count", [1, 2])
def test_items_are_laid_out_as_a_data_set_keeps_them(water, count):
    water.name, water.charge = "water", 1
    fields, slices = collate_items([water] * count)
    assert fields["pos"].equal(water.pos.repeat(count, 1))
    assert (fields["name"], fields["charge"].tolist()) == (["water"] * count, [1] * count)
    assert slices["pos"].tolist() == [0, 3, 6][: count + 1]
    assert slices["name"].tolist() == [0, 1, 2][: count + 1]


class Shift:
    """A transform that does not say what it does."""

    def __init__(self, by):
        self.by = by

    def __call__(self, item):
        return item


def at_least(size):
    return lambda item: len(item.z) >= size


def test_functions_are_described_by_their_code():
    def same(item):
        return len(item.z) % 2 == 1

    def another(item):
        return len(item.z) % 2 == 0

    assert describe(odd) == describe(odd)
    assert describe(odd) != describe(another)
    assert describe(lambda item: item) != describe(lambda item: None)
    assert describe(same).split()[-1] == describe(odd).split()[-1]


def test_what_a_function_encloses_counts():
    def default(item, size=2):
        return item

    first = describe(default)
    default.__defaults__ = (3,)
    assert describe(at_least(2)) == describe(at_least(2))
    assert describe(at_least(2)) != describe(at_least(3))
    assert describe(default) != first


def test_objects_are_described_by_what_they_hold():
    assert describe(None) == "None"
    assert describe(RadiusGraph(5.0)) == "RadiusGraph(r=5.0)"
    assert describe(Shift(1)) == describe(Shift(1))
    assert describe(Shift(1)) != describe(Shift(2))
    assert describe(Compose([RadiusGraph(5.0)])) != describe(Compose([RadiusGraph(4.0)]))
    assert describe(functools.partial(odd, 1)) == describe(functools.partial(odd, 1))
    assert describe(functools.partial(odd, 1)) != describe(functools.partial(odd, 2))


def test_the_order_of_a_set_does_not_count():
    """That of texts changes with each process; that of 0 and 8 with how they came in."""
    first, second = (
        FunctionType(code, {})
        for numbers in ([0, 8], [8, 0])
        for code in [
            (lambda item: item in {0, 8}).__code__.replace(co_consts=(None, frozenset(numbers)), co_name="f")
        ]
    )
    assert repr(first.__code__.co_consts) != repr(second.__code__.co_consts)
    assert describe(first).split()[-1] == describe(second).split()[-1]


@pytest.mark.parametrize("step", [odd, at_least(2), Shift(1), functools.partial(odd), Shift(1).__call__, len])
def test_a_description_holds_no_address(step):
    assert not re.search("0x[0-9a-f]+", describe(step))
