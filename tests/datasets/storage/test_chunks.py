"""Chunks join to what one chunk of all molecules would be, or are refused."""

import re

import pytest
import torch

from pyg_schnet.datasets.storage.chunks import Chunk, is_index, join


def chunk(sizes, edges=None, start=0):
    """Molecules of some sizes, with numbers that count on, and a bond or two."""
    atoms, counts = sum(sizes), torch.tensor(sizes)
    edges = [1] * len(sizes) if edges is None else edges
    fields = {
        "z": torch.arange(start, start + atoms),
        "energy": -torch.arange(float(len(sizes))),
        "edge_index": torch.arange(2 * sum(edges)).view(2, -1),
        "name": [f"molecule {start + i}" for i in range(len(sizes))],
    }
    return Chunk(fields, {"z": counts, "edge_index": torch.tensor(edges)})


def plain(**fields):
    return Chunk({name: torch.as_tensor(value) for name, value in fields.items()})


def test_the_chunks_fields_lie_behind_each_other_with_offsets_of_the_molecules():
    fields, slices = join([chunk([2, 1]), chunk([3], [2], start=3)])
    assert fields["z"].tolist() == [0, 1, 2, 3, 4, 5]
    assert fields["energy"].tolist() == [0, -1, 0]
    assert fields["edge_index"].tolist() == [[0, 1, 0, 1], [2, 3, 2, 3]]
    assert fields["name"] == ["molecule 0", "molecule 1", "molecule 3"]
    assert {name: value.tolist() for name, value in slices.items()} == {
        "z": [0, 2, 3, 6],
        "energy": [0, 1, 2, 3],
        "edge_index": [0, 1, 2, 4],
        "name": [0, 1, 2, 3],
    }


def test_one_chunk_is_not_copied():
    one = chunk([2, 1])
    assert join([one])[0]["z"] is one.fields["z"]


def test_fields_with_the_same_offsets_share_them():
    _, slices = join([chunk([2, 1])])
    assert slices["energy"] is slices["name"]
    assert slices["z"] is not slices["name"]


def test_counts_that_are_one_each_may_be_left_out_of_some_chunks():
    first = Chunk({"shift": torch.tensor([1, 2])})
    second = Chunk({"shift": torch.tensor([3, 4, 5])}, {"shift": torch.tensor([0, 3])})
    for parts, expected in (([first, second], [0, 1, 2, 2, 5]), ([second, first], [0, 0, 3, 4, 5])):
        assert join(parts)[1]["shift"].tolist() == expected


def test_counts_may_be_of_another_integer_type():
    counts = torch.tensor([2, 1], dtype=torch.int32)
    assert join([Chunk({"z": torch.zeros(3)}, {"z": counts})])[1]["z"].dtype == torch.int64


def test_a_chunk_is_as_long_as_it_has_molecules():
    assert len(chunk([2, 1, 4])) == 3
    assert len(plain(energy=[1.0, 2.0])) == 2
    assert len(Chunk({"name": ["a", "b", "c", "d"]})) == 4
    assert len(plain(node_index=[[1, 2, 3], [4, 5, 6]])) == 3


def test_an_empty_chunk_among_others_does_no_harm():
    fields, slices = join([chunk([]), chunk([2])])
    assert fields["z"].tolist() == [0, 1]
    assert slices["edge_index"].tolist() == [0, 1]


@pytest.mark.parametrize("name", ["edge_index", "face", "index", "triplet_index"])
def test_index_fields_are_joined_along_their_last_dimension(name):
    assert is_index(name)
    value = torch.arange(6).view(3, 2)
    fields, slices = join([Chunk({name: value}), Chunk({name: value + 6})])
    assert fields[name].tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert slices[name].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("chunks", [[], [chunk([])]])
def test_no_molecule_is_refused(chunks):
    with pytest.raises(ValueError, match=r"at least.*structure.*none"):
        join(chunks)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"a": [1.0]}, {"a": [1.0], "b": [1.0]}, "the same fields, got `b` in some of them only"),
        ({"a": [1.0], "b": [1.0]}, {"a": [1.0]}, "the same fields, got `b` in some of them only"),
        ({"a": [1.0]}, {"a": [1]}, "`a` must be alike in all structures, got torch.int64 rows of"),
        ({"a": [1.0]}, {"a": [[1.0]]}, "got torch.float32 rows of shape (1,) after torch.float32 rows of"),
        ({"a_index": [[1]]}, {"a_index": [[1], [2]]}, "got torch.int64 rows of shape (2,) after torch.int64"),
    ],
)  # fmt: skip
def test_chunks_that_differ_are_refused(first, second, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        join([plain(**first), plain(**second)])


def test_texts_and_numbers_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"^`a`.*structures.*torch\.float32"):
        join([plain(a=[1.0]), Chunk({"a": ["one"]})])


@pytest.mark.parametrize(
    ("counts", "got"), [([2, 2], "2 that add up to 4"), ([1, 1, 1], "3 that add up to 3")]
)
def test_counts_that_do_not_fit_the_rows_are_refused(counts, got):
    wrong = Chunk({"energy": torch.zeros(2), "z": torch.zeros(3)}, {"z": torch.tensor(counts)})
    with pytest.raises(ValueError, match="`z` must have a count") as caught:
        join([wrong])
    assert str(caught.value) == (
        f"`z` must have a count for each of the 2 structures, adding up to its 3 rows, got {got}"
    )
