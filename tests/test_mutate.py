"""The mutants of ``tests/mutate.py`` have their lines in the package, and tests that should notice them."""

from pathlib import Path

import pytest

from tests import mutate

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.nightly  # before an issue is resolved: lines may be rewritten until then


def test_each_mutant_has_its_line():
    assert [reason for mutant in mutate.MUTANTS if (reason := mutate.place_of(ROOT, mutant)[1])] == []


@pytest.mark.parametrize("area", sorted({mutant.area for mutant in mutate.MUTANTS}))
def test_each_area_has_its_tests(area):
    assert mutate.tests_of(ROOT, area)


def test_mutants_have_names_of_their_own():
    names = [mutant.name for mutant in mutate.MUTANTS]
    assert len(set(names)) == len(names) >= 60
