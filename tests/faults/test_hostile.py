"""Files that were made to do harm are refused in seconds, with a clear error, and nothing else happens."""

from __future__ import annotations

import pytest

from tests.faults import hostile
from tests.faults.watched import Watched

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def child():
    with Watched(
        seconds=20.0, memory=2 * 2**30, doors=sorted({door for door, _ in hostile.HOSTILE.values()})
    ) as one:
        yield one


@pytest.mark.parametrize("name", hostile.HOSTILE)
def test_a_hostile_file_is_refused_and_does_nothing(child, tmp_path, name):
    door, write = hostile.HOSTILE[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write(folder)
    around = sorted(tmp_path.iterdir())
    outcome = child.enter(door, path)
    assert outcome.kind == "refused", outcome.text
    assert outcome.memory < 700 * 2**20
    assert sorted(tmp_path.iterdir()) == around  # no canary, and nothing else beside the folder
