"""QM9 is taken from where it is: the raw folder, an address, the package; or the user reads what to do."""

from __future__ import annotations

import os
import re
import sys

import pytest

from pyg_schnet.datasets import qm9
from pyg_schnet.datasets.qm9 import QM9
from pyg_schnet.io.remote import download as downloads
from pyg_schnet.io.remote.download import DownloadError
from tests.datasets import qm9_small as small
from tests.io.remote import http_server

ARCHIVE, LIST, ZIP = "dsgdb9nsd.xyz.tar.bz2", "uncharacterized.txt", "qm9.zip"
BY_HAND = {
    "figshare": {ARCHIVE: small.FILES[ARCHIVE]},
    "sdf": {"gdb9.sdf": small.SDF.encode(), "gdb9.sdf.csv": small.TABLE.encode()},
    "zip": {ZIP: small.FILES[ZIP]},
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """No proxies, not offline, no waiting, no package, and small splits."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "PYG_SCHNET_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(downloads, "_BACKOFF", 0.001)
    monkeypatch.setattr(qm9, "_SPLITS", {"schnet": (1, 0)})
    monkeypatch.setitem(sys.modules, "qm9pack", None)  # which tells importlib that there is none


@pytest.fixture
def server():
    with http_server.Server() as server:
        yield server


@pytest.fixture
def publish(server, monkeypatch):
    """Let the card describe the small QM9 at the server, which has these of its files."""

    def of(names=(), files=small.FILES, package=small.PACKAGE):
        for name in names:
            server.answers[f"/{name}"] = [http_server.content(files[name])]
        card = small.card(server, files, package)
        monkeypatch.setattr(qm9, "read_card", lambda name: card)

    return of


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must not be imported, with its csv."""

    def install(text=small.PACKAGE):
        folder = tmp_path / "site/qm9pack"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise AssertionError('imported')")
        if text is not None:
            (folder / "data/qm9_part1.csv").write_bytes(text.encode())
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.delitem(sys.modules, "qm9pack")
        return folder / "data/qm9_part1.csv"

    return install


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def put(root, files):
    (root / "raw").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / "raw" / name).write_bytes(content)


def asked(server):
    return [path.lstrip("/") for path, _ in server.requests]


def made_of(dataset):
    assert [item.name for item in dataset] == ["gdb_1", "gdb_3"]
    return dataset.header["notes"]["source"]


def test_the_published_archive_is_downloaded_first(publish, server, package, root):
    publish([ARCHIVE, LIST, ZIP])
    package()
    assert made_of(QM9(root)) == "figshare"
    assert asked(server) == [LIST, ARCHIVE]
    assert sorted(os.listdir(root / "raw")) == [ARCHIVE, LIST]


def test_a_processed_set_needs_no_raw_files_and_no_server(publish, server, root):
    publish([ARCHIVE, LIST])
    QM9(root)
    server.answers.clear()
    for path in (root / "raw").iterdir():
        path.unlink()
    assert made_of(QM9(root)) == "figshare"
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("offline", ["0", "1"])
def test_files_put_there_by_hand_are_used_without_a_request(
    publish, server, package, root, monkeypatch, name, offline
):
    publish([ARCHIVE, LIST, ZIP])
    package()
    monkeypatch.setenv("PYG_SCHNET_OFFLINE", offline)
    put(root, {LIST: small.FILES[LIST], **BY_HAND[name]})
    assert made_of(QM9(root)) == ("figshare" if name == "figshare" else "sdf")
    assert server.requests == []


def test_of_two_by_hand_the_published_archive_is_used(publish, root):
    publish()
    put(root, {LIST: small.FILES[LIST], **BY_HAND["sdf"], **BY_HAND["figshare"]})
    assert made_of(QM9(root)) == "figshare"


def test_half_of_a_source_by_hand_is_none(publish, server, root):
    publish([ARCHIVE, LIST, ZIP])
    put(root, {"gdb9.sdf": small.SDF.encode()})
    assert made_of(QM9(root)) == "figshare"


def test_the_list_is_downloaded_where_only_the_molecules_are_there(publish, server, root):
    publish([LIST])
    put(root, BY_HAND["sdf"])
    assert made_of(QM9(root)) == "sdf"
    assert asked(server) == [LIST]


def test_pygs_archive_is_next_where_the_published_one_does_not_answer(publish, server, package, root):
    publish([LIST, ZIP])
    package()
    assert made_of(QM9(root)) == "sdf"
    assert asked(server) == [LIST, ARCHIVE, ZIP]
    assert (root / "raw/gdb9.sdf").read_text() == small.SDF


def test_the_package_is_last_and_never_imported(publish, server, package, root):
    publish()
    package()
    dataset = QM9(root)
    assert made_of(dataset) == "qm9pack"
    assert "qm9pack" not in sys.modules
    assert asked(server) == [LIST, LIST]


def test_the_package_is_used_where_no_server_answers(package, root, monkeypatch):
    monkeypatch.setattr(qm9, "read_card", lambda name: small.card())  # at a port that is closed
    package()
    assert made_of(QM9(root)) == "qm9pack"


def test_offline_the_package_is_used(publish, server, package, root, monkeypatch):
    publish([ARCHIVE, LIST, ZIP])
    package()
    monkeypatch.setenv("PYG_SCHNET_OFFLINE", "1")
    assert made_of(QM9(root)) == "qm9pack"
    assert server.requests == []


def test_without_a_folder_the_package_is_used(publish, server, package):
    publish([ARCHIVE, LIST, ZIP])
    package()
    assert made_of(QM9()) == "qm9pack"
    assert server.requests == []


@pytest.mark.parametrize("source", ["figshare", "sdf", "qm9pack"])
def test_a_source_may_be_asked_for_by_name(publish, server, package, root, source):
    publish([ARCHIVE, LIST, ZIP])
    package()
    assert made_of(QM9(root, source=source)) == source
    expected = {"figshare": [LIST, ARCHIVE], "sdf": [LIST, ZIP], "qm9pack": []}
    assert asked(server) == expected[source]


def test_a_source_that_is_asked_for_replaces_what_came_from_another(publish, server, package, root):
    publish([ARCHIVE, LIST, ZIP])
    package()
    assert QM9(root, source="sdf")[0].pos[0, 0].item() == pytest.approx(-0.0127, abs=1e-7)
    assert made_of(QM9(root)) == "sdf"  # "auto" takes what is processed
    dataset = QM9(root, source="qm9pack")
    assert made_of(dataset) == "qm9pack"
    assert dataset[0].pos[0, 0].item() == pytest.approx(-0.0126981359, abs=1e-8)
    assert made_of(QM9(root)) == "qm9pack"


def test_a_source_that_is_asked_for_and_not_had_is_not_replaced_by_another(publish, package, root):
    publish([LIST, ZIP])
    package()
    with pytest.raises(DownloadError, match=r"QM9.*source.*\n.*figshare.*dsgdb9nsd\.xyz\.tar\.bz2"):
        QM9(root, source="figshare")


def test_without_any_source_one_message_tells_all(publish, server, root):
    publish()
    with pytest.raises(DownloadError) as caught:
        QM9(root)
    raw, hash = root / "raw", f"sha256:{re.escape(small.card().file(LIST).sha256)}"
    reason = rf"""{LIST}: no source is available
  {server.url("/" + LIST)}: HTTP status 404
  place a file of {len(small.LIST)} bytes with {hash} into {raw} manually"""
    package = "qm9pack: the package is not installed; pip install 'pyg-schnet[qm9]' brings it"
    assert str(caught.value) == f"QM9: no source is available\nfigshare: {reason}\nsdf: {reason}\n{package}"
    assert not list((root / "processed").glob("*.safetensors"))


def test_without_any_archive_one_message_tells_all(publish, server, root):
    publish([LIST])
    with pytest.raises(DownloadError) as caught:
        QM9(root)
    for text in (
        f"figshare: {ARCHIVE}: no source is available",
        f"{server.url('/' + ARCHIVE)}: HTTP status 404",
        f"place a file of {len(small.FILES[ARCHIVE]):,} bytes with sha256:",
        f"sdf: {ZIP}: no source is available",
        f"{server.url('/' + ZIP)}: HTTP status 404",
        f"place a file into {root / 'raw'} manually",
        "qm9pack: the package is not installed; pip install 'pyg-schnet[qm9]' brings it",
    ):
        assert text in str(caught.value)


def test_offline_the_message_says_so(publish, root, monkeypatch):
    publish([ARCHIVE, LIST, ZIP])
    monkeypatch.setenv("PYG_SCHNET_OFFLINE", "1")
    with pytest.raises(DownloadError, match=rf"{LIST}.*PYG_SCHNET_OFFLINE"):
        QM9(root)


@pytest.mark.parametrize("source", ["figshare", "sdf"])
def test_downloads_need_a_folder(publish, source):
    publish([ARCHIVE, LIST, ZIP])
    with pytest.raises(DownloadError, match=rf"{source}.*`root`.*folder"):
        QM9(source=source)


@pytest.mark.parametrize("name", [ARCHIVE, LIST])
def test_another_file_put_there_by_hand_stops_the_run(publish, package, root, name):
    publish([ARCHIVE, LIST, ZIP])
    package()
    put(root, {LIST: small.FILES[LIST], ARCHIVE: small.FILES[ARCHIVE], name: b"another"})
    with pytest.raises(ValueError, match=rf"{name}.*SHA-256"):
        QM9(root)


def test_a_damaged_archive_without_a_hash_stops_the_run(publish, root):
    publish()
    put(root, {LIST: small.FILES[LIST], ZIP: small.FILES[ZIP][:-30]})
    with pytest.raises(ValueError, match=r"qm9\.zip.*damaged.*\(.*\)"):
        QM9(root)


def test_pygs_archive_must_hold_both_files(publish, root):
    publish(files={**small.FILES, ZIP: small.zipped({"gdb9.sdf": small.SDF})})
    put(root, {LIST: small.FILES[LIST], ZIP: small.zipped({"gdb9.sdf": small.SDF})})
    with pytest.raises(ValueError, match=r"qm9\.zip.*'gdb9\.sdf\.csv'.*'gdb9\.sdf'"):
        QM9(root)


def test_a_package_with_another_csv_is_refused(publish, package, root):
    publish()
    path = package(small.PACKAGE.replace("-40.47893", "-40.47894"))
    with pytest.raises(ValueError, match=rf"{path}.*SHA-256.*\w+….*\w+…"):
        QM9(root)


def test_a_package_without_its_csv_is_none(publish, package, root):
    publish()
    path = package(None)
    with pytest.raises(
        DownloadError,
        match=rf"qm9pack.*{path}.*no such.*install.*--force-reinstall.*qm9pack==1\.0\.3",
    ):
        QM9(root)


def test_a_folder_that_is_called_like_the_package_is_none(publish, tmp_path, root, monkeypatch):
    publish()
    (tmp_path / "here/qm9pack").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    monkeypatch.delitem(sys.modules, "qm9pack")
    monkeypatch.setattr(sys, "path", sys.path[:1])  # a real package would be found first
    with pytest.raises(DownloadError, match=r"qm9_part1\.csv.*no such.*install.*--force-reinstall"):
        QM9(root)


@pytest.mark.parametrize("name", ["figshare", "sdf", "csv"])
def test_a_file_of_the_users_may_have_any_layout(tmp_path, name):
    files = BY_HAND.get(name, {"some.csv": small.PACKAGE.encode()})
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    dataset = QM9(source=tmp_path / next(iter(files)))
    assert [item.name for item in dataset] == (
        ["gdb_1", "gdb_3"] if name == "csv" else ["gdb_1", "gdb_2", "gdb_3"]
    )
    assert dataset.header["notes"] == {"source": next(iter(files)), "uncharacterized": None}


@pytest.mark.parametrize("name", ["figshare", "sdf"])
def test_a_list_beside_a_file_of_the_users_is_heeded(tmp_path, name):
    for file, content in {**BY_HAND[name], LIST: small.FILES[LIST]}.items():
        (tmp_path / file).write_bytes(content)
    dataset = QM9(source=str(tmp_path / next(iter(BY_HAND[name]))))
    assert [item.name for item in dataset] == ["gdb_1", "gdb_3"]


@pytest.mark.parametrize("change", ["file", "list"])
def test_a_file_of_the_users_that_was_replaced_is_read_again(tmp_path, root, change):
    path = tmp_path / "own.tar.bz2"
    path.write_bytes(small.archive())
    assert len(QM9(root, source=path)) == 3
    if change == "file":
        path.write_bytes(small.archive({3: small.XYZ[3]}))
        os.utime(path, ns=(1, 1))
        assert len(QM9(root, source=path)) == 1
    else:
        (tmp_path / LIST).write_bytes(small.FILES[LIST])
        assert len(QM9(root, source=path)) == 2


def test_a_file_of_the_users_and_all_of_qm9_are_told_apart(publish, tmp_path, root):
    publish([ARCHIVE, LIST])
    path = tmp_path / "own.tar.bz2"
    path.write_bytes(small.archive({3: small.XYZ[3]}))
    assert len(QM9(root, source=path)) == 1
    assert len(QM9(root)) == 2


def test_a_missing_file_of_the_users_is_told(tmp_path, root):
    for folder in (None, root):
        with pytest.raises(FileNotFoundError) as caught:
            QM9(folder, source=tmp_path / "no.sdf")
        assert str(caught.value) == (
            "`source` must be 'auto', 'figshare', 'sdf', 'qm9pack' or a file of these; "
            f"{tmp_path / 'no.sdf'} is no file"
        )


def test_an_sdf_of_the_users_needs_its_table(tmp_path):
    (tmp_path / "gdb9.sdf").write_text(small.SDF)
    with pytest.raises(FileNotFoundError, match=r"gdb9\.sdf.*gdb9\.sdf\.csv"):
        QM9(source=tmp_path / "gdb9.sdf")
