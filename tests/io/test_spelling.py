"""Hints name the most similar name, in its own spelling, or nothing."""

import pytest

from pyg_schnet.io.spelling import nearest


@pytest.mark.parametrize(
    ("name", "hint"),
    [("asprin", " Did you mean 'aspirin'?"), ("KCAL/mol", " Did you mean 'kcal/mol'?"), ("xyzzy", "")],
)
def test_the_most_similar_name_is_asked_for(name, hint):
    assert nearest(name, ("aspirin", "benzene", "kcal/mol")) == hint


OPTIONS = ("--temperature", "--timestep", "--duration", "--device", "--max_force", "--trainer.lr")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("--temp", "--temperature"),
        ("--max-force", "--max_force"),
        ("--steps", "--duration"),
        ("--dt", "--timestep"),
        ("--gpu", "--device"),
        ("--lr", "--trainer.lr"),
        ("--learning_rate", "--trainer.lr"),
        ("--timstep", "--timestep"),
    ],
)
def test_beginnings_last_parts_and_names_of_other_programs_are_understood(name, meant):
    assert nearest(name, OPTIONS) == f" Did you mean '{meant}'?"


def test_nothing_is_similar_to_nothing():
    assert nearest("aspirin", ()) == ""
