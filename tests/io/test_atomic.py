"""A file is whole or as it was before, whatever goes wrong while it is written."""

import errno
import os
import re
import sys

import pytest

from pyg_schnet.io.atomic import atomic_write, remove_leftovers
from pyg_schnet.io.outputs import check_appendable, check_replaceable
from pyg_schnet.potentials import checkpoint


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def umask():
    """Set the umask, and restore it after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path, umask, mask, mode):
    umask(mask)
    with atomic_write(tmp_path / "a.csv") as temporary:
        temporary.write_text("secret")
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == mode


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, umask):
    path = tmp_path / "a.csv"
    path.write_text("before")
    path.chmod(0o640)
    with atomic_write(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are those of /proc")
def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, disk):
    with atomic_write(tmp_path / "a.csv") as temporary:
        temporary.write_text("all")
    synced = [name for name, _ in disk]
    assert synced[-2:] == ["renamed a.csv", tmp_path.name]
    assert disk[-3][1] == 3


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), KeyError("a"), OSError(errno.ENOSPC, "No space left")]
)
def test_what_was_there_stays_where_writing_fails(tmp_path, error):
    path = tmp_path / "a.csv"
    path.write_text("before")

    def fail():
        with atomic_write(path) as temporary:
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
    message = f"{tmp_path / 'a.csv'}: cannot be written (No space left on device); make room"
    with (
        pytest.raises(OSError, match=rf"^{re.escape(message)}"),
        atomic_write(tmp_path / "a.csv") as temporary,
    ):
        temporary.write_text("all")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told():
    with pytest.raises(OSError, match=r"^/proc/a.*\(.*\)"), atomic_write("/proc/a"):
        pass


def test_leftovers_of_a_file_are_removed_and_no_others(tmp_path):
    kept = {".b.csv.x1y2z3w4", "a.csv", ".a.csv", ".a.csv.swp", ".a.csv.x1y2z3w5", ".a.csv.old_name"}
    for name in (".a.csv.x1y2z3w4", *sorted(kept)):
        if name not in (".a.csv.x1y2z3w5", ".a.csv.old_name"):
            (tmp_path / name).touch()
    (tmp_path / ".a.csv.y1y2z3w4").mkdir()
    (tmp_path / ".a.csv.y1y2z3w4" / "a.csv").write_text("half")
    (tmp_path / ".a.csv.old_name").mkdir()
    (tmp_path / ".a.csv.old_name" / "thesis.tex").write_text("years of work")
    (tmp_path / ".a.csv.x1y2z3w5").symlink_to("a.csv")
    remove_leftovers(tmp_path / "a.csv")
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("kind", ["a folder", "a link", "a pipe or device", "a checkpoint"])
def test_only_a_file_is_replaced(tmp_path, kind):
    path = tmp_path / "out"
    check_replaceable(path)
    path.write_text("text")
    check_replaceable(path)
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link":
        path.symlink_to(tmp_path / "absent")
    elif kind == "a pipe or device":
        os.mkfifo(path)
    else:
        checkpoint.write(path, "potential", {}, {})
    with pytest.raises(FileExistsError, match=f"out: is {kind}"):
        check_replaceable(path)


def test_a_file_of_two_names_does_not_grow(tmp_path):
    path = tmp_path / "out"
    path.write_text("text")
    check_appendable(path)
    (tmp_path / "other").hardlink_to(path)
    with pytest.raises(FileExistsError, match="out: has another name"):
        check_appendable(path)


def test_no_folder_gives_way_to_a_file(tmp_path):
    own = tmp_path / "results" / "thesis.tex"
    own.parent.mkdir()
    own.write_text("years of work")
    with pytest.raises(OSError, match="results: cannot be written"), atomic_write(own.parent) as part:
        part.write_text("new")
    assert own.read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [own.parent]


def test_two_that_replace_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "a.png"
    with atomic_write(path) as one:
        one.write_text("one")
        with atomic_write(path) as other:
            other.write_text("other")
        assert one.suffix == other.suffix == path.suffix
        assert path.read_text() == "other"
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]
