from __future__ import annotations

import hashlib
import io
import logging
import re
import signal
import subprocess
import sys
import time

import pooch
import pytest

from pyg_schnet.io.remote import download as module
from pyg_schnet.io.remote.download import DownloadError, RemoteFile, download, verify
from tests.io.remote import http_server

content, status = http_server.content, http_server.status
silence, hang_up = http_server.silence, http_server.hang_up

DATA = hashlib.shake_128(b"a file").digest(300_000)
OTHER = DATA[:-1] + b"?"
HASH = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
NAME = "frames.npz"
SIZE = len(DATA)
HALF = 150_000
ETAG = {"ETag": '"1"'}

# A process that downloads; it imports the module alone, which takes a tenth of the time of the package.
CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("download", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["download"] = module
spec.loader.exec_module(module)
print("ready", flush=True)
module.download(module.RemoteFile("frames.npz", (sys.argv[2],), sys.argv[3]), sys.argv[4])
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """No proxies, not offline, and no waiting before a repetition."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "PYG_SCHNET_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(module, "_BACKOFF", 0.001)


@pytest.fixture
def server():
    with http_server.Server() as server:
        yield server


@pytest.fixture
def remote(server):
    """Let the server answer at addresses, and describe the file that is there."""

    def file(*answers, hash=HASH, size=SIZE, **others):
        server.answers["/a"] = list(answers)
        server.answers.update({f"/{name}": list(more) for name, more in others.items()})
        return RemoteFile(NAME, tuple(server.url(f"/{name}") for name in ("a", *others)), hash, size)

    return file


@pytest.fixture
def child(server):
    """Start a process that downloads the file, and wait until it begins."""
    children = []

    def start(folder):
        command = [sys.executable, "-c", CHILD, module.__file__, server.url("/a"), HASH, str(folder)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return children[-1]

    yield start
    for process in children:
        process.kill()
        process.communicate()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def failure(file, folder, **options):
    with pytest.raises(DownloadError) as caught:
        download(file, folder, **options)
    assert NAME not in names(folder)
    return str(caught.value)


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited for 30 s"
        time.sleep(0.01)


def test_a_file_is_downloaded_into_a_new_folder(remote, server, tmp_path):
    path = download(remote(content(DATA)), tmp_path / "data" / "raw")
    assert path == tmp_path / "data" / "raw" / NAME
    assert path.read_bytes() == DATA
    assert names(path.parent) == [NAME]
    assert server.ranges() == [None]


def test_a_relative_folder_gives_a_path_that_stays_right(remote, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert download(remote(content(DATA)), "raw") == tmp_path / "raw" / NAME


@pytest.mark.parametrize("hash", [None, HASH, f"md5:{hashlib.md5(DATA).hexdigest()}"])
@pytest.mark.parametrize("size", [None, SIZE])
@pytest.mark.parametrize("announced", [True, False])
def test_checksum_size_and_length_may_be_unknown(remote, tmp_path, hash, size, announced):
    file = remote(content(DATA, announced=announced), hash=hash, size=size)
    assert download(file, str(tmp_path)).read_bytes() == DATA


def test_redirects_are_followed_with_the_range(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:HALF])
    file = remote(status(302, headers={"Location": "/elsewhere"}))
    server.answers["/elsewhere"] = [content(DATA)]
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [f"bytes={HALF}-"] * 2


def test_a_file_that_is_there_is_used_without_a_request(remote, server, tmp_path):
    (tmp_path / NAME).write_bytes(DATA)
    assert download(remote(content(OTHER)), tmp_path) == tmp_path / NAME
    assert server.requests == []
    assert names(tmp_path) == [NAME]


def test_a_file_that_is_there_and_another_one_is_refused_and_kept(remote, server, tmp_path):
    (tmp_path / NAME).write_bytes(OTHER)
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(ValueError, match="delete the file and download again") as caught:
        download(remote(content(DATA)), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / NAME}: SHA-256 is {found[:12]}…, expected {HASH[7:19]}…; "
        "delete the file and download again"
    )
    assert (tmp_path / NAME).read_bytes() == OTHER
    assert server.requests == []


def test_md5_is_named_in_the_message(tmp_path):
    (tmp_path / NAME).write_bytes(OTHER)
    with pytest.raises(ValueError, match=rf"{NAME}.*MD5.*[0-9a-f]{{12}}….*0{{12}}…"):
        verify(tmp_path / NAME, RemoteFile(NAME, (), "md5:" + 32 * "0"))


def test_checksums_are_compared_to_their_last_digit(tmp_path):
    (tmp_path / NAME).write_bytes(DATA)
    changed = HASH[:-1] + ("0" if HASH[-1] != "0" else "1")
    verify(tmp_path / NAME, RemoteFile(NAME, (), HASH))
    with pytest.raises(ValueError, match="SHA-256"):
        verify(tmp_path / NAME, RemoteFile(NAME, (), changed))


def test_the_size_is_verified_where_there_is_no_checksum(tmp_path):
    (tmp_path / NAME).write_bytes(b"12345")
    verify(tmp_path / NAME, RemoteFile(NAME, (), size=5))
    verify(tmp_path / NAME, RemoteFile(NAME, ()))
    with pytest.raises(ValueError, match=rf"{NAME}.*5.*6,000"):
        verify(tmp_path / NAME, RemoteFile(NAME, (), size=6000))


def test_a_missing_file_cannot_be_verified(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{NAME}: no such file"):
        verify(tmp_path / NAME, RemoteFile(NAME, (), HASH))


def test_a_wrong_checksum_is_told_and_nothing_is_kept(remote, server, tmp_path):
    message = failure(remote(content(OTHER)), tmp_path)
    found = hashlib.sha256(OTHER).hexdigest()
    assert f"sends another file: SHA-256 is {found[:12]}…, expected {HASH[7:19]}…" in message
    assert names(tmp_path) == []
    assert server.ranges() == [None]


def test_a_wrong_checksum_leads_to_the_next_address(remote, server, tmp_path):
    file = remote(content(OTHER), b=[content(DATA)])
    assert download(file, tmp_path).read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/a", "/b"]


def test_a_missing_file_leads_to_the_next_address_at_once(remote, server, tmp_path):
    file = remote(status(404), b=[content(DATA)])
    assert download(file, tmp_path).read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/a", "/b"]


@pytest.mark.parametrize("answer", [status(503), status(429), status(500), hang_up])
def test_a_busy_server_is_asked_again(remote, server, tmp_path, answer):
    assert download(remote(answer, answer, content(DATA)), tmp_path).read_bytes() == DATA
    assert len(server.requests) == 3


def test_an_address_is_asked_as_often_as_the_retries_say(remote, server, tmp_path):
    failure(remote(status(503)), tmp_path, retries=2)
    assert len(server.requests) == 3


def test_a_cut_connection_is_continued(remote, server, tmp_path):
    file = remote(content(DATA, end=HALF, headers=ETAG), content(DATA, headers=ETAG))
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-"]
    assert server.requests[1][1]["If-Range"] == '"1"'
    assert names(tmp_path) == [NAME]


def test_a_cut_connection_is_continued_by_the_next_call(remote, server, tmp_path):
    file = remote(content(DATA, end=HALF, headers=ETAG))
    assert f"was interrupted after {HALF:,} bytes" in failure(file, tmp_path, retries=0)
    assert (tmp_path / f"{NAME}.part").read_bytes() == DATA[:HALF]
    assert download(remote(content(DATA, headers=ETAG)), tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-"]
    assert names(tmp_path) == [NAME]


def test_the_date_identifies_a_file_whose_etag_is_weak(remote, server, tmp_path):
    headers = {"ETag": 'W/"1"', "Last-Modified": "Wed, 06 Aug 2014 12:00:00 GMT"}
    file = remote(content(DATA, end=HALF, headers=headers), content(DATA, headers=headers))
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.requests[1][1]["If-Range"] == "Wed, 06 Aug 2014 12:00:00 GMT"


def test_another_address_continues_where_a_checksum_tells_that_it_is_the_same_file(remote, server, tmp_path):
    file = remote(content(DATA, end=HALF, headers=ETAG), b=[content(DATA)])
    assert download(file, tmp_path, retries=0).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-"]
    assert "If-Range" not in server.requests[1][1]  # the ETag is another server's


def test_another_address_begins_anew_without_a_checksum(remote, server, tmp_path):
    file = remote(content(OTHER, end=HALF, headers=ETAG), b=[content(DATA)], hash=None)
    assert download(file, tmp_path, retries=0).read_bytes() == DATA
    assert server.ranges() == [None, None]


def test_a_file_without_checksum_and_etag_is_begun_anew(remote, server, tmp_path):
    file = remote(content(OTHER, end=HALF), content(DATA), hash=None)
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, None]


def test_a_file_without_checksum_is_continued_by_its_etag(remote, server, tmp_path):
    file = remote(content(DATA, end=HALF, headers=ETAG), content(DATA, headers=ETAG), hash=None, size=None)
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-"]


def test_a_file_is_continued_by_its_etag_again_where_the_rest_comes_without(remote, server, tmp_path):
    """As RFC 9110, 15.3.7, has it for dates: what the client knows need not be sent again."""

    def bare(handler, go_on):
        del handler.headers["If-Range"]
        content(DATA, end=200_000)(handler, go_on)

    file = remote(content(DATA, end=HALF, headers=ETAG), bare, content(DATA, headers=ETAG), hash=None)
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-", "bytes=200000-"]
    assert server.requests[2][1]["If-Range"] == '"1"'


def test_a_server_that_sends_a_part_of_the_rest_is_asked_for_all(remote, server, tmp_path):
    def part(handler, go_on):
        headers = {"Content-Range": f"bytes {HALF}-199999/{SIZE}", **ETAG}
        status(206, DATA[HALF:200_000], headers)(handler, go_on)

    file = remote(content(DATA, end=HALF, headers=ETAG), part, content(DATA), hash=None, size=None)
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-", None]


def test_a_file_that_changed_meanwhile_is_begun_anew(remote, server, tmp_path):
    changed = content(DATA, headers={"ETag": '"2"'})
    file = remote(content(OTHER, end=HALF, headers=ETAG), changed, hash=None)
    assert download(file, tmp_path).read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_file_that_changed_is_begun_anew_where_the_server_does_not_heed_if_range(remote, server, tmp_path):
    def careless(handler, go_on):
        del handler.headers["If-Range"]
        content(DATA, headers={"ETag": '"2"'})(handler, go_on)

    file = remote(content(OTHER, end=HALF, headers=ETAG), careless, hash=None)
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-", None]


def test_a_server_that_ignores_ranges_gives_the_file_anew(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:HALF])
    assert download(remote(content(DATA, ranges=False)), tmp_path).read_bytes() == DATA
    assert server.ranges() == [f"bytes={HALF}-"]


def test_a_server_that_sends_another_range_is_asked_for_all(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:HALF])
    file = remote(content(DATA, start=HALF - 1), content(DATA))
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [f"bytes={HALF}-", None]


def test_a_partial_file_that_is_too_long_is_begun_anew(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA + b"more")
    assert download(remote(content(DATA), size=None), tmp_path).read_bytes() == DATA
    assert server.ranges() == [f"bytes={SIZE + 4}-", None]  # the first is answered with 416


def test_a_partial_file_of_something_else_is_begun_anew(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(bytes(HALF))
    assert download(remote(content(DATA)), tmp_path).read_bytes() == DATA
    assert server.ranges() == [f"bytes={HALF}-", None]


def test_a_continued_file_of_a_wrong_checksum_is_begun_anew_only_once(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(bytes(HALF))
    cut, rest = content(OTHER, end=HALF), content(OTHER)
    message = failure(remote(rest, cut, rest), tmp_path)
    assert "sends another file: SHA-256 is" in message
    assert server.ranges() == [f"bytes={HALF}-", None, f"bytes={HALF}-"]


def test_a_complete_partial_file_is_verified_and_used(remote, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(DATA)
    assert download(remote(content(OTHER)), tmp_path).read_bytes() == DATA
    assert server.requests == []


@pytest.mark.parametrize("announced", [True, False])
def test_a_truncated_file_is_downloaded_again(remote, server, tmp_path, announced):
    file = remote(content(DATA, end=SIZE - 1, announced=announced), content(DATA))
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={SIZE - 1}-"]


def test_a_source_that_stands_still_is_asked_again_for_the_rest(remote, server, tmp_path):
    file = remote(content(DATA, end=HALF, wait=True), content(DATA))
    assert download(file, tmp_path, timeout=1.0).read_bytes() == DATA
    assert server.ranges()[0] is None
    assert 0 < int(server.ranges()[1][6:-1]) <= HALF


def test_a_source_that_does_not_answer_is_left_after_the_timeout(remote, server, tmp_path):
    file = remote(silence, b=[content(DATA)])
    assert download(file, tmp_path, timeout=1.0).read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/a", "/b"]


def test_a_file_of_another_size_is_not_stored(remote, server, tmp_path):
    page = status(200, b"<html>sign in first</html>")
    assert f"{server.url('/a')}: announces 26 bytes" in failure(remote(page), tmp_path)
    assert names(tmp_path) == []
    assert len(server.requests) == 1


def test_no_more_than_the_size_is_written(remote, server, tmp_path):
    file = remote(content(DATA, announced=False), size=100_000)
    assert "sends more than 100,000 bytes" in failure(file, tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 0
    assert len(server.requests) == 1


def test_a_web_page_is_no_file_without_checksum(remote, tmp_path):
    page = status(200, headers={"Content-Type": "text/html; charset=utf-8"})
    assert "answers with a web page" in failure(remote(page, hash=None, size=None), tmp_path)


def test_a_file_with_a_checksum_may_be_called_a_web_page(remote, tmp_path):
    file = remote(content(DATA, headers={"Content-Type": "text/html"}))
    assert download(file, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("code", [202, 204, 206, 304, 401, 403, 410, 416])
def test_other_answers_are_no_file(remote, server, tmp_path, code):
    file = remote(status(code, b"" if code in (204, 304) else DATA))
    assert f"HTTP status {code}" in failure(file, tmp_path)
    assert len(server.requests) == 1


def test_a_compressed_file_arrives_as_it_is_published(remote, server, tmp_path):
    """Apache calls a .tar.gz a tar that is encoded with gzip, whatever is asked for."""
    file = remote(content(DATA, headers={"Content-Encoding": "x-gzip"}))
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://localhost/a"])
def test_redirects_lead_to_http_addresses_only(remote, tmp_path, location):
    assert "No connection adapters were found" in failure(
        remote(status(302, headers={"Location": location})), tmp_path
    )


def test_redirects_in_a_circle_are_left(remote, tmp_path):
    assert "Exceeded 30 redirects" in failure(remote(status(302, headers={"Location": "/a"})), tmp_path)


def test_the_message_tells_all_that_is_needed_to_go_on_by_hand(server, tmp_path):
    server.answers["/c"] = [status(500)]
    nobody = "http://127.0.0.1:1/b"
    urls = (server.url("/a"), nobody, server.url("/c"))
    message = failure(RemoteFile(NAME, urls, HASH, 86144227), tmp_path, retries=1)
    first, *sources, last = message.splitlines()
    assert first == f"{NAME}: no source is available"
    assert sources[0] == f"  {urls[0]}: HTTP status 404"
    assert re.fullmatch(rf"  {nobody}: .*Connection refused.*", sources[1])
    assert sources[2] == f"  {urls[2]}: HTTP status 500"
    assert last == f"  place a file of 86,144,227 bytes with {HASH} into {tmp_path} manually"
    assert len(server.requests) == 3


def test_what_is_not_known_of_a_file_is_not_told(server, tmp_path):
    message = failure(RemoteFile(NAME, (server.url("/a"),)), tmp_path)
    assert message.endswith(f"\n  place a file into {tmp_path} manually")


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_offline_no_connection_is_made(remote, server, tmp_path, monkeypatch, value):
    monkeypatch.setenv("PYG_SCHNET_OFFLINE", value)
    message = failure(remote(content(DATA)), tmp_path)
    assert message == (
        f"{NAME}: is not there, and PYG_SCHNET_OFFLINE is set, which forbids downloads\n"
        f"  {server.url('/a')}\n"
        f"  place a file of 300,000 bytes with {HASH} into {tmp_path} manually"
    )
    assert server.requests == []


def test_offline_a_file_that_is_there_is_used(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("PYG_SCHNET_OFFLINE", "1")
    (tmp_path / NAME).write_bytes(DATA)
    assert download(remote(content(DATA)), tmp_path) == tmp_path / NAME


@pytest.mark.parametrize("value", ["", "0"])
def test_offline_may_be_switched_off(remote, tmp_path, monkeypatch, value):
    monkeypatch.setenv("PYG_SCHNET_OFFLINE", value)
    assert download(remote(content(DATA)), tmp_path).is_file()


def test_a_file_without_address_must_be_put_there_by_hand(tmp_path):
    assert failure(RemoteFile(NAME, ()), tmp_path) == (
        f"{NAME}: is not there, and it has no address\n  place a file into {tmp_path} manually"
    )


def test_the_proxy_of_the_environment_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url())
    monkeypatch.setenv("http_proxy", server.url())
    url = "http://files.invalid/frames.npz"
    server.answers[url] = [content(DATA)]
    assert download(RemoteFile(NAME, (url,), HASH), tmp_path).read_bytes() == DATA
    assert [path for path, _ in server.requests] == [url]


@pytest.mark.process
def test_two_processes_download_once(child, server, tmp_path):
    server.answers["/a"] = [content(DATA, end=HALF, wait=True), content(DATA)]
    processes = [child(tmp_path), child(tmp_path)]
    for process in processes:
        process.stdout.readline()  # it is ready
    wait_until(lambda: server.requests)
    time.sleep(0.2)  # for the other one to come to the lock
    assert len(server.requests) == 1
    server.answers["/a"] = [content(DATA)]
    server.go_on.set()
    assert [process.wait(30) for process in processes] == [0, 0]
    assert (tmp_path / NAME).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-"]  # the first one's, both


@pytest.mark.process
def test_a_killed_process_leaves_a_partial_file_that_is_continued(child, server, remote, tmp_path):
    file = remote(content(DATA, end=HALF, wait=True, headers=ETAG))
    process = child(tmp_path)
    part = tmp_path / f"{NAME}.part"
    wait_until(lambda: part.is_file() and part.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / NAME).exists()
    received = part.stat().st_size
    server.answers["/a"] = [content(DATA, headers=ETAG)]
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={received}-"]


def test_a_full_disk_is_told_and_the_download_continues_when_there_is_room(remote, server, tmp_path):
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    file = remote(content(DATA, headers=ETAG))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="no space") as caught:
            download(file, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.search(
        rf"{NAME}: no space in {tmp_path} \(bytes needed: 100,000, free: [0-9,]+\); make room",
        str(caught.value),
    )
    assert names(tmp_path) == [f"{NAME}.part", f"{NAME}.part.origin"]
    assert download(file, tmp_path).read_bytes() == DATA
    assert server.ranges() == [None, "bytes=200000-"]


def test_another_error_of_the_system_is_passed_on(remote, tmp_path):
    (tmp_path / f"{NAME}.part").mkdir()
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        download(remote(content(DATA)), tmp_path)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("progress", "shown"), [(None, True), (True, True), (False, False)])
def test_a_terminal_shows_progress(remote, tmp_path, monkeypatch, progress, shown):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    download(remote(content(DATA)), tmp_path, progress=progress)
    assert (NAME in sys.stderr.getvalue()) == shown
    assert ("300.0/300.0 kB" in sys.stderr.getvalue()) == shown


@pytest.mark.parametrize("hash", [HASH, None])
def test_nothing_is_written_without_a_terminal(remote, tmp_path, capfd, caplog, monkeypatch, hash):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    logger = pooch.get_logger()
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "level", logging.INFO)
    download(remote(content(DATA), hash=hash), tmp_path)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    assert logger.level == logging.INFO  # as it was


@pytest.mark.parametrize("name", ["", "..", "raw/a", "/a", "a\\b", "C:a", "raw/"])
def test_a_name_has_no_folders(name):
    with pytest.raises(ValueError, match="`name`"):
        RemoteFile(name, ())


@pytest.mark.parametrize("url", ["ftp://host/a", "file:///a", "/a", "http://", "http://a b", "doi:10.1/a"])
def test_addresses_are_http(url):
    with pytest.raises(ValueError, match=r"`urls`.*http://.*https://"):
        RemoteFile(NAME, ("https://host/a", url))


@pytest.mark.parametrize("hash", ["", "sha256:", HASH[7:], HASH[:-1], HASH.upper(), "sha1:" + 40 * "0"])
def test_checksums_name_their_kind(hash):
    with pytest.raises(ValueError, match=r"`hash`.*'sha256:…'.*'md5:…'"):
        RemoteFile(NAME, (), hash)


@pytest.mark.parametrize("options", [{"timeout": 0.0}, {"timeout": -1.0}, {"retries": -1}])
def test_limits_must_make_sense(tmp_path, options):
    with pytest.raises(ValueError, match=r"`timeout`.*positive.*`retries`.*negative"):
        download(RemoteFile(NAME, ()), tmp_path, **options)


@pytest.mark.parametrize("name", [f"{NAME}.part", f"{NAME}.part.origin"])
def test_a_link_in_place_of_a_part_is_not_written_through(remote, tmp_path, name):
    folder, other = tmp_path / "raw", tmp_path / "other"
    folder.mkdir()
    other.write_text("precious")
    (folder / name).symlink_to(other)
    assert download(remote(content(DATA)), folder).read_bytes() == DATA
    assert other.read_text() == "precious"
