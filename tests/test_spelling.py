"""Hints name the most similar name, in its own spelling, or nothing."""

import pytest

from pyg_schnet.spelling import nearest


@pytest.mark.parametrize(
    ("name", "hint"),
    [("asprin", " Did you mean 'aspirin'?"), ("KCAL/mol", " Did you mean 'kcal/mol'?"), ("xyzzy", "")],
)
def test_the_most_similar_name_is_asked_for(name, hint):
    assert nearest(name, ("aspirin", "benzene", "kcal/mol")) == hint


def test_nothing_is_similar_to_nothing():
    assert nearest("aspirin", ()) == ""
