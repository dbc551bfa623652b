"""Of several processes that write the same file or folder, one does at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from pyg_schnet.io.locks import FileLock, locked


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_second_writer_is_rejected_until_the_first_releases(tmp_path, is_folder):
    first, second = (FileLock(tmp_path, True) if is_folder else FileLock(tmp_path / "out") for _ in range(2))
    first.acquire()
    with pytest.raises(FileExistsError, match=r"another.*process"):
        second.acquire()
    first.release()
    second.acquire()
    with pytest.raises(FileExistsError):
        first.acquire()
    second.release()


@pytest.mark.parametrize("is_folder", [False, True])
def test_nothing_stays_beside_an_output(tmp_path, is_folder):
    lock = FileLock(tmp_path, True) if is_folder else FileLock(tmp_path / "out")
    lock.acquire()
    assert [path.name for path in tmp_path.iterdir()] == [".lock" if is_folder else ".out.lock"]
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_removed_lock_file_counts_for_nobody(tmp_path):
    """A process that opened the file before its release must not write beside the next one."""
    fcntl = pytest.importorskip("fcntl")
    first, third = FileLock(tmp_path / "out"), FileLock(tmp_path / "out")
    first.acquire()
    opened = os.open(first.lock_file, os.O_RDWR)  # by a second process, which has yet to lock it
    first.release()
    third.acquire()
    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert os.fstat(opened).st_nlink == 0  # by which `filelock` knows that this is not the lock of `third`
    os.close(opened)
    with pytest.raises(FileExistsError):
        first.acquire()
    third.release()


_COUNTING = """
import sys
from pathlib import Path
from pyg_schnet.io.locks import locked

counter = Path(sys.argv[1])
for _ in range(60):
    with locked(counter, wait=True):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_processes_that_lock_and_release_again_and_again_exclude_each_other(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", _COUNTING, str(counter)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "180"
    assert list(tmp_path.iterdir()) == [counter]


def test_a_lock_file_that_a_killed_process_left_blocks_nobody(tmp_path):
    (tmp_path / ".out.lock").touch()
    lock = FileLock(tmp_path / "out")
    lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_not_acquired_can_be_released(tmp_path):
    FileLock(tmp_path / "out").release()


def test_releasing_a_lock_that_another_holds_changes_nothing(tmp_path):
    first, second, third = (FileLock(tmp_path / "out") for _ in range(3))
    first.acquire()
    second.release()
    with pytest.raises(FileExistsError):
        third.acquire()
    first.release()


def test_another_current_folder_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lock = FileLock("out")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir("inner")
    lock.acquire()
    with pytest.raises(FileExistsError):
        FileLock(tmp_path / "out").acquire()
    lock.release()


@pytest.mark.parametrize("is_folder", [False, True])
def test_one_lock_guards_all_names_of_a_file(tmp_path, is_folder):
    (tmp_path / "folder").mkdir()
    own = tmp_path / "folder" / "out"
    own.mkdir() if is_folder else own.touch()
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "link").symlink_to("folder/out")
    first = FileLock(own, is_folder)
    first.acquire()
    for other in ("linked/out", "link"):
        with pytest.raises(FileExistsError, match="another process"):
            FileLock(tmp_path / other, is_folder).acquire()
    first.release()


def test_the_error_names_the_lock_file_where_a_file_system_has_no_locks(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def missing(handle, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    (tmp_path / ".out.lock").touch()  # left by a process that has ended
    with (
        pytest.warns(UserWarning, match="flock not supported"),
        pytest.raises(FileExistsError, match=r"/\.out\.lock .*: remove it"),
    ):
        FileLock(tmp_path / "out").acquire()


@pytest.mark.skipif(not hasattr(errno, "ESTALE"), reason="NFS is not on Windows")
def test_a_stale_file_of_a_network_file_system_is_opened_again(tmp_path, monkeypatch):
    """Another host removes the lock file between our opening and locking it."""
    fcntl = pytest.importorskip("fcntl")
    flock, calls = fcntl.flock, []

    def stale_once(handle, operation):
        calls.append(operation)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", stale_once)
    with locked(tmp_path / "out"), pytest.raises(FileExistsError):
        FileLock(tmp_path / "out").acquire()


def test_a_process_that_waits_logs_what_it_waits_for(tmp_path, caplog):
    first, second = FileLock(tmp_path / "out"), FileLock(tmp_path / "out")

    def work():
        second.acquire(wait=True)
        second.release()

    first.acquire()
    waiting = threading.Thread(target=work)
    waiting.start()
    until = time.monotonic() + 20
    while time.monotonic() < until and "waiting" not in caplog.text:
        time.sleep(0.02)
    assert waiting.is_alive()
    first.release()
    waiting.join(20)
    assert not waiting.is_alive()
    assert f"{tmp_path / 'out'}: waiting for another process" in caplog.text
    assert ".out.lock" in caplog.text


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next(tmp_path):
    (tmp_path / ".out.png.x1y2z3w4").mkdir()
    (tmp_path / ".out.png.x1y2z3w4" / "out.png").write_text("half")
    with locked(tmp_path / "out.png", None):
        assert [path.name for path in tmp_path.iterdir()] == [".out.png.lock"]


def test_a_lock_file_that_is_a_link_is_rejected(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".out.lock").symlink_to("precious")
    with pytest.raises(OSError, match="out: nothing can be written there"):
        FileLock(tmp_path / "out").acquire()
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / ".out.lock").is_symlink()
