"""Of all that want to write a file or a folder, one does."""

from __future__ import annotations

import errno
import os
import re
import threading
import time

import pytest

from pyg_schnet.io.locks import Claim, claimed


@pytest.mark.parametrize("is_folder", [False, True])
def test_one_writes_and_the_others_are_told(tmp_path, is_folder):
    first, second = (Claim(tmp_path, True) if is_folder else Claim(tmp_path / "out") for _ in range(2))
    first.take()
    with pytest.raises(
        FileExistsError, match=r": another process is writing to it; wait until that ends, or"
    ):
        second.take()
    first.give_back()
    second.take()
    with pytest.raises(FileExistsError):
        first.take()
    second.give_back()
    assert [path.name for path in tmp_path.iterdir()] == [".lock" if is_folder else ".out.lock"]


def test_who_opened_the_lock_before_it_was_given_back_does_not_write_beside_the_next(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    first, third = Claim(tmp_path / "out"), Claim(tmp_path / "out")
    first.take()
    second = os.open(first.place, os.O_RDWR)
    first.give_back()
    third.take()
    with pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    third.give_back()
    os.close(second)


def test_what_a_killed_process_left_holds_nobody_off(tmp_path):
    (tmp_path / ".out.lock").touch()
    claim = Claim(tmp_path / "out")
    claim.take()
    claim.give_back()


def test_a_claim_that_was_not_taken_can_be_given_back(tmp_path):
    Claim(tmp_path / "out").give_back()


def test_another_current_folder_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claim = Claim("out")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir("inner")
    claim.take()
    with pytest.raises(FileExistsError):
        Claim(tmp_path / "out").take()
    claim.give_back()


@pytest.mark.parametrize("is_folder", [False, True])
def test_one_lock_guards_all_names_of_a_file(tmp_path, is_folder):
    (tmp_path / "folder").mkdir()
    own = tmp_path / "folder" / "out"
    own.mkdir() if is_folder else own.touch()
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "link").symlink_to("folder/out")
    first = Claim(own, is_folder)
    first.take()
    for other in ("linked/out", "link"):
        with pytest.raises(FileExistsError, match="another process"):
            Claim(tmp_path / other, is_folder).take()
    first.give_back()


def test_a_lock_of_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def missing(handle, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    (tmp_path / ".out.lock").touch()  # which a process left that has ended
    with (
        pytest.warns(UserWarning, match="flock not supported"),
        pytest.raises(FileExistsError, match=r"/\.out\.lock, .*: remove it"),
    ):
        Claim(tmp_path / "out").take()


def test_who_waits_says_for_whom(tmp_path, caplog):
    first, second = Claim(tmp_path / "out"), Claim(tmp_path / "out")

    def work():
        second.take(wait=True)
        second.give_back()

    first.take()
    waiting = threading.Thread(target=work)
    waiting.start()
    until = time.monotonic() + 20
    while time.monotonic() < until and "waiting" not in caplog.text:
        time.sleep(0.02)
    assert waiting.is_alive()
    first.give_back()
    waiting.join(20)
    assert not waiting.is_alive()
    assert f"{tmp_path / 'out'}: waiting for another process" in caplog.text
    assert ".out.lock" in caplog.text


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next(tmp_path):
    (tmp_path / ".out.png.x1y2z3w4").mkdir()
    (tmp_path / ".out.png.x1y2z3w4" / "out.png").write_text("half")
    with claimed(tmp_path / "out.png", None):
        assert [path.name for path in tmp_path.iterdir()] == [".out.png.lock"]


def test_a_lock_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".out.lock").symlink_to("precious")
    message = f"{tmp_path / 'out'}: nothing can be written there (.out.lock is a link); give another folder"
    with pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"):
        Claim(tmp_path / "out").take()
    assert (tmp_path / "precious").read_text() == "mine"
