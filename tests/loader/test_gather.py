"""Rows of a batch are those that slicing molecule by molecule would give."""

import pytest
import torch

from pyg_schnet.loader.gather import DatasetOffsets, FieldOffsets

CPU = torch.device("cpu")
SLICES = {
    "ragged": [0, 3, 4, 4, 9, 11],
    "one each": [0, 1, 2, 3, 4, 5],
    "one each, from elsewhere": [3, 4, 5, 6, 7, 8],
    "three each": [0, 3, 6, 9, 12, 15],
    "three each, from elsewhere": [2, 5, 8, 11, 14, 17],
    "none each": [0, 0, 0, 0, 0, 0],
    "none but the last": [0, 0, 0, 0, 0, 4],
    "none but the first": [0, 4, 4, 4, 4, 4],
}


def plain(slices, molecules):
    """The rows, molecule by molecule."""
    rows = [list(range(slices[i], slices[i + 1])) for i in molecules]
    offsets = [0]
    for own in rows:
        offsets.append(offsets[-1] + len(own))
    numbers = [place for place, own in enumerate(rows) for _ in own]
    return [row for own in rows for row in own], [len(own) for own in rows], offsets, numbers


@pytest.mark.parametrize("slices", SLICES.values(), ids=SLICES.keys())
@pytest.mark.parametrize("molecules", [[0], [4, 1], [2, 2, 2], [4, 3, 2, 1, 0], [], [0, 1, 2, 3, 4] * 7])
def test_rows_are_those_of_the_molecules_in_their_order(slices, molecules):
    rows = FieldOffsets(torch.tensor(slices)).rows(torch.tensor(molecules, dtype=torch.long))
    found = rows.position, rows.lengths, rows.offsets, rows.structures()
    assert tuple(value.tolist() for value in found) == plain(slices, molecules)
    assert {value.dtype for value in found} == {torch.int64}


@pytest.mark.parametrize("slices", [[0, 3], [5, 6], [0, 0], [0]])
def test_a_data_set_may_be_of_one_molecule_or_of_none(slices):
    molecules = list(range(len(slices) - 1))
    rows = FieldOffsets(torch.tensor(slices)).rows(torch.tensor(molecules, dtype=torch.long))
    assert (rows.position.tolist(), rows.lengths.tolist()) == plain(slices, molecules)[:2]


def test_fields_with_the_same_offsets_share_their_rows():
    slices = {"z": torch.tensor([0, 3, 4]), "y": torch.tensor([0, 1, 2]), "pos": torch.tensor([0, 3, 4])}
    offsets = DatasetOffsets(slices, CPU)
    rows = offsets.rows(torch.tensor([1, 0]))
    assert rows["y"] is not rows["z"]
    assert rows["z"] is rows["pos"]
    assert rows["y"].position.tolist() == [1, 0]
    assert list(rows) == ["z", "y", "pos"]


def test_offsets_fit_the_slices_that_they_were_made_of():
    slices = {"z": torch.tensor([0, 3, 4]), "y": torch.tensor([0, 1, 2])}
    offsets = DatasetOffsets(slices, CPU)
    assert offsets.match(slices, CPU)
    assert offsets.match(dict(slices), CPU)
    assert not offsets.match(slices, torch.device("meta"))


@pytest.mark.parametrize("change", [
    lambda slices: slices.update(z=slices["z"].clone()),
    lambda slices: slices.update(z=slices["y"]),
    lambda slices: slices.pop("z"),
    lambda slices: slices.update(x=slices["z"]),
])  # fmt: skip
def test_offsets_do_not_fit_other_slices(change):
    """Not even where a field is replaced in the very same dictionary."""
    slices = {"z": torch.tensor([0, 3, 4]), "y": torch.tensor([0, 1, 2])}
    offsets = DatasetOffsets(slices, CPU)
    change(slices)
    assert not offsets.match(slices, CPU)


@pytest.mark.parametrize("dimension", [1, -1])
def test_a_field_that_lies_otherwise_in_memory_is_not_copied_whole(dimension):
    rows = FieldOffsets(torch.tensor([0, 3, 4, 6])).rows(torch.tensor([2, 0]))
    values = torch.arange(12).view(6, 2)
    assert torch.equal(rows.take(values.T, dimension), values[[4, 5, 0, 1, 2]].T)
    endless = torch.tensor([[1], [2]]).expand(2, 10**15)  # of which a copy would not fit
    assert rows.take(endless, dimension).tolist() == [[1] * 5, [2] * 5]
