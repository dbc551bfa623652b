"""Fragments of molecules, and how far they are from each other."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.sparse.csgraph import minimum_spanning_tree

from pyg_schnet.graph.fragments import COVALENT_RADII, describe_fragments, find_fragments, separation


def tensors(atoms):
    return torch.from_numpy(atoms.positions), COVALENT_RADII[torch.from_numpy(atoms.numbers)]


def test_a_molecule_is_one_fragment_and_two_are_two():
    pos, radii = tensors(molecule("CH3CH2OH"))
    assert find_fragments(pos, 1.3 * radii).tolist() == [0] * 9
    both = find_fragments(torch.cat([pos, pos + 4.0]), 1.3 * radii.repeat(2))
    assert both.tolist() == [0] * 9 + [1] * 9


def test_a_single_atom_is_one_fragment():
    assert find_fragments(torch.zeros(1, 3), torch.ones(1)).tolist() == [0]


def test_the_smallest_fragment_is_described():
    pos, radii = tensors(molecule("H2O"))
    pos[1] += 2.0 * (pos[1] - pos[0])
    text = describe_fragments(find_fragments(pos, 1.3 * radii), pos)
    length = float((pos[1] - pos[0]).norm())
    assert text.startswith("it is in 2 fragments: the smallest has 1 of 3 atoms and is")
    assert f"{length:.2f} Å from the rest, between atoms 0 and 1" in text


def test_the_separation_is_the_longest_edge_of_the_minimum_spanning_tree():
    generator = torch.Generator().manual_seed(0)
    pos = 5 * torch.rand(20, 9, 3, generator=generator, dtype=torch.float64)
    radii = 0.5 + torch.rand(20, 9, generator=generator, dtype=torch.float64)
    distance = torch.cdist(pos, pos)
    ratio = distance / (radii[:, :, None] + radii[:, None, :])
    expected = [minimum_spanning_tree(each.numpy()).max() for each in ratio]
    found = separation(distance, radii)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("factor", "fragments"), [(1.001, 1), (0.999, 2)])
def test_a_molecule_falls_apart_at_its_separation(factor, fragments):
    pos, radii = tensors(molecule("CH3CH2OH"))
    distance = torch.cdist(pos, pos)
    limit = float(separation(distance[None], radii[None]))
    parts = find_fragments(pos, factor * limit * radii)
    assert len(set(parts.tolist())) >= fragments
    assert (len(set(parts.tolist())) == 1) is (fragments == 1)
