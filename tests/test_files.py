"""A file is whole or as it was before, whatever goes wrong while it is written."""

import errno
import os
import re

import pytest

from pyg_schnet.files import remove_leftovers, written_whole


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.csv"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), KeyError("a"), OSError(errno.ENOSPC, "No space left")]
)
def test_what_was_there_stays_where_writing_fails(tmp_path, error):
    path = tmp_path / "a.csv"
    path.write_text("before")

    def fail():
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(OSError if isinstance(error, OSError) else type(error)):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_files_name(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = (
        f"{tmp_path / 'a.csv'}: cannot be written (No space left on device); what was there before is left "
        "as it was. Make room or choose another folder"
    )
    with (
        pytest.raises(OSError, match=f"^{re.escape(message)}$"),
        written_whole(tmp_path / "a.csv") as temporary,
    ):
        temporary.write_text("all")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told():
    with pytest.raises(OSError, match=r"^/proc/a: cannot be written \(.*\); what"), written_whole("/proc/a"):
        pass


def test_leftovers_of_a_file_are_removed_and_no_others(tmp_path):
    for name in (".a.csv.x1", ".a.csv.y2", ".b.csv.x1", "a.csv", ".a.csv"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.csv")
    assert {path.name for path in tmp_path.iterdir()} == {".b.csv.x1", "a.csv", ".a.csv"}
