"""Pairs in compressed rows: both directions of each, in the order of the atoms."""

import pytest
import torch

from pyg_schnet.graph.csr import csr_of


def test_each_atom_has_its_neighbors_in_the_order_of_the_pairs():
    pairs = torch.tensor([[0, 3, 0, 2], [1, 0, 3, 2]])  # atom 2 is its own neighbor, atom 4 has none
    csr = csr_of(pairs, 5)
    assert csr.rowptr.tolist() == [0, 3, 4, 6, 8, 8]
    assert csr.col.tolist() == [1, 3, 3, 0, 2, 2, 0, 0]
    assert csr.pair.tolist() == [0, 2, 1, 0, 3, 3, 1, 2]
    assert {tensor.dtype for tensor in csr} == {torch.int32}


def test_more_pairs_than_32_bits_count_are_rejected_before_any_work():
    pairs = torch.empty(2, 2**30, dtype=torch.long, device="meta")
    with pytest.raises(ValueError, match=r"^`pairs` must be at most 1,073,741,823.*got 1,073,741,824; use"):
        csr_of(pairs, 10)
    assert csr_of(pairs[:, 1:], 10).pair.shape == (2 * (2**30 - 1),)


def test_more_atoms_than_32_bits_count_are_rejected_before_any_work():
    pairs = torch.empty(2, 1, dtype=torch.long, device="meta")
    with pytest.raises(ValueError, match=r"atoms.*2,147,483,647.*got 2,147,483,648"):
        csr_of(pairs, 2**31)
