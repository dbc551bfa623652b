from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import tracemalloc
import zipfile

import pytest

from pyg_schnet.io.remote import archive as archives
from pyg_schnet.io.remote.archive import extract, stream

FILES = {"set/README": b"read me", "set/a/1.xyz": b"1\n\nH 0 0 0\n", "set/a/2.xyz": bytes(3000), "top": b""}
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def tar(*members, format=tarfile.PAX_FORMAT, end=True):
    """A tar of (name, content or what a TarInfo has else)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                file.addfile(info)
        size = file.offset
    return stream.getvalue() if end else stream.getvalue()[:size]


def header(type, size, sparse=0):
    """The header of a member, with a size of any kind in base 256."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % 256**12 | (128 << 88 if size >= 0 else 0)).to_bytes(12, "big")
    block[156:157] = type
    block[482] = sparse  # whether more blocks follow
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def zipped(*members, compression=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content, compression)
    return stream.getvalue()


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.fixture
def write(tmp_path):
    """Write an archive and return its path; the folder to unpack to is beside it."""

    def to_file(content, name="archive"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return to_file


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "raw"


@pytest.fixture(params=["", ".gz", ".bz2", ".xz", "zip"])
def archive(request, write):
    """The files in each kind of archive."""
    if request.param == "zip":
        return write(zipped(("set/", b""), *FILES.items()))
    return write(COMPRESSIONS[request.param](tar(("set", {"type": tarfile.DIRTYPE}), *FILES.items())))


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(archive, folder, *arguments, **options):
    """The reason without the path; nothing may be left of a member that was not complete."""
    with pytest.raises(ValueError, match=re.escape(str(archive))) as caught:
        extract(archive, folder, *arguments, **options)
    assert not list(folder.rglob("*.part"))
    assert sorted(path.name for path in folder.parent.iterdir() if path.name != "outside") == [
        "archive",
        "raw",
    ]
    return str(caught.value).removeprefix(f"{archive}: ")


def test_all_files_keep_their_paths(archive, folder):
    paths = extract(archive, str(folder / "new"))
    assert paths == [folder / "new" / name for name in FILES]
    assert content_of(folder / "new") == FILES


def test_named_files_come_in_the_order_of_their_names(archive, folder):
    names = ["top", "set/a/1.xyz"]
    assert extract(archive, folder, names) == [folder / name for name in names]
    assert sorted(content_of(folder)) == sorted(names)


def test_no_names_unpack_nothing(archive, folder):
    assert extract(archive, folder, []) == []
    assert content_of(folder) == {}


def test_files_are_read_without_unpacking(archive):
    assert {name: b"".join(pieces) for name, pieces in stream(str(archive))} == FILES


def test_files_may_be_left_when_their_beginning_is_read(write):
    archive = write(tar(("a", bytes(2**21)), ("b", b"2"), ("link", {"type": tarfile.SYMTYPE})))
    assert [(name, len(next(pieces))) for name, pieces in stream(archive)] == [("a", 2**20), ("b", 1)]


def test_damage_is_noticed_while_files_are_read(write):
    archive = write(gzip.compress(tar(*FILES.items()))[:-9])
    with pytest.raises(ValueError, match=r"archive.*damaged.*\(.*\)"):
        list(stream(archive))


def test_files_have_usual_permissions(archive, folder):
    (path,) = extract(archive, folder, ["set/README"])
    (folder / "plain").write_bytes(b"")
    assert path.stat().st_mode == (folder / "plain").stat().st_mode


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_format_of_tar_is_read(write, folder, format):
    long = "/".join(["folder"] * 20) + "/file"
    files = {"α": b"1", long: b"2"} if format != tarfile.USTAR_FORMAT else {"a": b"1", long: b"2"}
    extract(write(tar(*files.items(), format=format)), folder)
    assert content_of(folder) == files


def test_names_may_begin_with_a_dot(write, folder):
    archive = write(tar(("./", {"type": tarfile.DIRTYPE}), ("./set//a", b"1")))
    assert extract(archive, folder) == [folder / "set" / "a"]
    assert extract(archive, folder, ["set/a"]) == extract(archive, folder, ["./set/a"]) == [folder / "set/a"]


def test_a_file_of_the_same_name_is_replaced(archive, folder):
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "README").write_bytes(b"old and longer than the new one")
    extract(archive, folder)
    assert content_of(folder) == FILES


@pytest.mark.parametrize("other", ["a", "./a"])
def test_two_members_of_one_name_are_refused(write, folder, other):
    assert "two members are named" in refused(write(tar(("a", b"1"), (other, b"2"))), folder)


def test_a_tar_that_ends_with_a_zip_is_a_tar(write, folder):
    inner = zipped(("x", b"y"))
    extract(write(tar(("inner.npz", inner), end=False) + bytes(1024)), folder)
    assert content_of(folder) == {"inner.npz": inner}


@pytest.mark.parametrize("kind", [tar, zipped])
def test_an_empty_archive_holds_nothing(write, folder, kind):
    assert extract(write(kind()), folder) == []


def test_a_missing_member_is_told_with_those_that_are_there(archive, folder):
    reason = refused(archive, folder, ["top", "set/3.xyz"])
    names = ["set/"] if zipfile.is_zipfile(archive) else ["set"]
    listed = ", ".join(repr(name) for name in names + list(FILES))
    assert reason == f"has no file 'set/3.xyz'; it has {listed}"


def test_ten_names_are_listed_at_most(write, folder):
    archive = write(tar(*((f"{i}.xyz", b"") for i in range(1234))))
    assert refused(archive, folder, ["x"]).endswith("'8.xyz', '9.xyz' and 1,224 more")
    assert refused(write(tar()), folder, ["x"]) == "has no file 'x'; it has none"


def test_a_folder_is_not_a_file(archive, folder):
    assert refused(archive, folder, ["set"]).startswith("has no file 'set'; it has ")


@pytest.mark.parametrize(
    "name",
    [
        "../outside/x",
        "set/../../outside/x",
        "/tmp/x",
        "//host/share/x",
        "C:\\x",
        "C:/x",
        "c:x",
        "..\\x",
        "set\\..\\..\\x",
        "\\x",
        "..",
        ".",
    ],
)
@pytest.mark.parametrize("kind", [tar, zipped])
@pytest.mark.parametrize("named", [True, False])
def test_members_that_lead_out_of_the_folder_are_refused(write, folder, kind, name, named):
    archive = write(kind((name, b"trap")))
    assert refused(archive, folder, [name] if named else None) == (
        f"member {name!r} leads out of the folder; do not use the archive"
    )
    assert list(folder.iterdir()) == []


def test_an_empty_name_in_a_zip_is_refused(write, folder):
    data = bytearray(zipped(("a", b"1")))
    entry = data.index(b"PK\x01\x02")
    data[entry + 28], data[entry + 30] = 0, 1  # the name's byte belongs to the next field
    assert "member '' leads out of the folder" in refused(write(data), folder)


def test_a_name_with_a_zero_is_refused(write, folder):
    archive = write(tar(("a", {"size": 0, "pax_headers": {"path": "a\0b"}})))
    assert refused(archive, folder) == r"member 'a\x00b' leads out of the folder; do not use the archive"


def test_folders_that_lead_out_are_refused(write, folder):
    assert "'../outside' leads out" in refused(write(tar(("../outside", {"type": tarfile.DIRTYPE}))), folder)
    assert "'../outside/' leads out" in refused(write(zipped(("../outside/", b""))), folder)


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a symbolic link"),
        ({"type": tarfile.SYMTYPE, "linkname": "set/README"}, "a symbolic link"),
        ({"type": tarfile.LNKTYPE, "linkname": "../outside"}, "a hard link"),
        ({"type": tarfile.LNKTYPE, "linkname": "set/README"}, "a hard link"),
        ({"type": tarfile.CHRTYPE}, "a device"),
        ({"type": tarfile.BLKTYPE}, "a device"),
        ({"type": tarfile.FIFOTYPE}, "a pipe"),
        ({"type": b"Z"}, "of an unknown kind"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_only_files_come_out_of_a_tar(write, folder, member, kind, named):
    archive = write(tar(("set/README", b"1"), ("trap", member)))
    assert refused(archive, folder, ["trap"] if named else None) == (
        f"member 'trap' is {kind}, which is not unpacked; only files are"
    )
    assert not os.path.lexists(folder / "trap")


@pytest.mark.parametrize("sparse", ["GNU.sparse.map", "GNU.sparse.size"])
def test_sparse_files_are_refused(write, folder, sparse):
    """Their sizes cost nothing: a header of some bytes would fill the disk with zeros."""
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50)}
    archive = write(tar(("trap", {"size": 0, "pax_headers": headers})))
    assert refused(archive, folder) == "member 'trap' is a sparse file, which is not unpacked; only files are"


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (stat.S_IFLNK | 0o777, "a symbolic link"),
        (stat.S_IFCHR, "a device or pipe"),
        (stat.S_IFIFO, "a device or pipe"),
    ],
)
def test_only_files_come_out_of_a_zip(write, folder, mode, kind):
    archive = write(zipped((special("trap", mode), b"/etc/passwd")))
    assert refused(archive, folder) == f"member 'trap' is {kind}, which is not unpacked; only files are"
    assert not os.path.lexists(folder / "trap")


def test_files_with_the_modes_of_unix_come_out_of_a_zip(write, folder):
    extract(write(zipped((special("a", stat.S_IFREG | 0o755), b"1"), (special("b", 0o644), b"2"))), folder)
    assert content_of(folder) == {"a": b"1", "b": b"2"}


def test_encrypted_members_are_refused(write, folder):
    data = bytearray(zipped(("a", b"1")))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "member 'a' is encrypted" in refused(write(data), folder)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_without_bounds_are_refused(write, folder, compression):
    archive = write(zipped(("a", b"1"), compression=compression))
    assert f"member 'a' is compressed by method {compression}" in refused(archive, folder)


def test_members_that_are_not_asked_for_do_no_harm(write, folder):
    archive = write(tar(("../x", b"trap"), ("link", {"type": tarfile.SYMTYPE, "linkname": "/"}), ("a", b"1")))
    extract(archive, folder, ["a"])
    assert content_of(folder) == {"a": b"1"}


def test_links_that_are_in_the_folder_are_not_followed_out_of_it(archive, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.mkdir()
    (folder / "set").symlink_to(outside)
    with pytest.raises(ValueError, match=rf"{folder}/set.*link.*{folder}"):
        extract(archive, folder, ["set/README"])
    with pytest.raises(ValueError, match=r"raw/set/a.*link"):
        extract(archive, folder, ["set/a/1.xyz"])
    assert list(outside.iterdir()) == []


def test_a_link_in_place_of_a_file_is_replaced(archive, folder, tmp_path):
    (tmp_path / "outside").write_bytes(b"mine")
    folder.mkdir()
    (folder / "top").symlink_to(tmp_path / "outside")
    extract(archive, folder)
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert not (folder / "top").is_symlink()


def test_a_folder_may_itself_be_a_link(archive, folder, tmp_path):
    (tmp_path / "outside").mkdir()
    folder.symlink_to(tmp_path / "outside")
    extract(archive, folder)
    assert content_of(tmp_path / "outside") == FILES


@pytest.mark.parametrize("kind", [tar, zipped])
def test_what_is_written_is_limited(write, folder, kind):
    archive = write(kind(("a", bytes(3000)), ("b", bytes(3001))))
    assert refused(archive, folder, max_bytes=6000) == (
        "must unpack to at most 6,000 bytes, got more at 'b'; do not use it, or raise `max_bytes`"
    )
    assert content_of(folder) == {"a": bytes(3000)}
    assert len(extract(archive, folder, max_bytes=6001)) == 2
    assert len(extract(archive, folder, ["b"], max_bytes=3001)) == 1


@pytest.mark.parametrize("kind", [tar, zipped])
def test_the_number_of_members_is_limited(write, folder, kind):
    archive = write(kind(*((str(i), b"") for i in range(5))))
    assert refused(archive, folder, max_members=4) == "must hold at most 4 members, got more; do not use it"
    assert refused(archive, folder, [], max_members=4).startswith("must hold at most 4 members")
    assert len(extract(archive, folder, max_members=5)) == 5


@pytest.mark.parametrize("compress", [zipped, gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_takes_little_memory_and_stops_at_the_limit(write, folder, compress, monkeypatch):
    size = 2**25  # 32 MiB in some kilobytes
    bomb = compress(("a", bytes(size))) if compress is zipped else compress(tar(("a", bytes(size))))
    archive = write(bomb)
    assert len(bomb) < size / 500
    written = []
    pieces = archives._pieces
    monkeypatch.setattr(archives, "_pieces", lambda *a: (written.append(len(p)) or p for p in pieces(*a)))
    tracemalloc.start()
    try:
        reason = refused(archive, folder, max_bytes=2**23)
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**23
    finally:
        tracemalloc.stop()
    assert reason.startswith("must unpack to at most 8,388,608 bytes")
    assert sum(written) <= 2**23 + 2**20


def test_a_zip_that_understates_a_size_is_damaged(write, folder):
    data = bytearray(zipped(("a", bytes(100_000))))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + offset
        data[start : start + 4] = (10).to_bytes(4, "little")
    assert re.fullmatch(
        r"is damaged \(Bad CRC-32.*\); delete it and download again", refused(write(data), folder)
    )
    assert content_of(folder) == {}


def test_a_tar_that_overstates_a_size_is_damaged(write, folder):
    info = tarfile.TarInfo("a")
    info.size = 10**9
    archive = write(info.tobuf() + bytes(2048))
    assert refused(archive, folder) == "is damaged (unexpected end of data); delete it and download again"
    assert content_of(folder) == {}


ENDLESS = b"00000000001\0" * 42 + b"\1" + bytes(7)  # pieces of a sparse file, and there are more


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (header(tarfile.GNUTYPE_LONGNAME, 2**24), "have no end"),
        (tar(("a", b"1"), end=False) + header(tarfile.GNUTYPE_LONGNAME, 2**24), "have no end"),
        (header(tarfile.GNUTYPE_LONGNAME, -512), "have no end"),
        (header(tarfile.XHDTYPE, 2**24), "have no end"),
        (header(tarfile.XGLTYPE, 2**24), "have no end"),
        (header(tarfile.GNUTYPE_SPARSE, 0, sparse=1) + ENDLESS * 2**13, "have no end"),
        (header(tarfile.GNUTYPE_SPARSE, -1024), "leads back"),
    ],
)
def test_headers_that_lie_take_little_memory(write, folder, members, reason):
    archive = write(gzip.compress(members + bytes(2**24), compresslevel=1))
    tracemalloc.start()
    try:
        assert re.fullmatch(rf"is damaged \(.* {reason}\); delete .*", refused(archive, folder, ["b"]))
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_many_members_take_little_memory(write, folder):
    archive = write(tar(*((f"{i:0100}", b"") for i in range(8000))))
    extract(archive, folder, [])  # what is made once is not counted
    gc.collect()
    tracemalloc.start()
    try:
        assert extract(archive, folder, []) == []
        assert tracemalloc.get_traced_memory()[1] < 7 * 2**19  # 1 to 2.2 MiB; 5 where all are kept
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "type", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SYMTYPE]
)
@pytest.mark.parametrize("size", [-1, -512, -1024, -(2**60)])
def test_a_negative_size_is_damage(write, folder, type, size):
    reason = refused(write(header(type, size) + bytes(2048)), folder)
    assert re.fullmatch(r"is damaged \(.*\); delete it and download again", reason)


@pytest.mark.parametrize("members", [None, ["b"]])
def test_a_size_beyond_all_disks_is_damage(write, folder, members):
    archive = write(header(tarfile.REGTYPE, 2**87) + bytes(2048))
    assert refused(archive, folder, members).startswith("is damaged")


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
@pytest.mark.parametrize("cut", [100, 512, 1024, 1500, 3000, 5000, 6144])
def test_a_truncated_tar_is_damaged(write, folder, compression, cut):
    compress = COMPRESSIONS[compression]
    whole = tar(*((f"{i}.xyz", os.urandom(700)) for i in range(5)))[: 5 * 1536 + 1024]
    data = compress(whole)
    data = data[: cut * len(data) // len(whole)]
    reason = refused(write(data), folder)
    assert re.fullmatch(r"is damaged \(.+\); delete it and download again", reason)
    assert all(len(content) == 700 for content in content_of(folder).values())


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_truncated_zip_is_damaged(write, folder, cut):
    reason = refused(write(zipped(*FILES.items())[:-cut]), folder)
    assert reason == "is damaged (File is not a zip file); delete it and download again"


def test_a_tar_without_its_end_is_damaged(write, folder):
    """It may lack members: tarfile itself says nothing."""
    archive = write(tar(*FILES.items(), end=False))
    assert refused(archive, folder) == "is damaged (it ends early); delete it and download again"


def test_a_broken_header_is_damage_also_behind_what_is_asked_for(write, folder):
    data = bytearray(tar(("a", b"1"), ("b", b"2")))
    data[1024] ^= 1
    assert refused(write(data), folder, ["a"]).startswith("is damaged (it ends early)")


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz"])
def test_changed_bytes_of_a_compressed_tar_are_noticed(write, folder, compression):
    data = bytearray(COMPRESSIONS[compression](tar(("a", os.urandom(5000)))))
    data[2500] ^= 1
    assert re.fullmatch(r"is damaged \(.*\); delete it and download again", refused(write(data), folder))


def test_a_zip_whose_members_begin_before_the_file_is_damaged(write, folder):
    data = bytearray(zipped(*FILES.items()))
    data[data.index(b"PK\x05\x06") + 18] = 1  # 65,536 bytes are said to be missing at the start
    assert refused(write(data), folder).startswith("is damaged")


def test_changed_bytes_of_a_zip_are_noticed(write, folder):
    data = bytearray(zipped(("a", os.urandom(5000)), compression=zipfile.ZIP_STORED))
    data[2500] ^= 1
    assert refused(write(data), folder).startswith("is damaged (Bad CRC-32 for file 'a')")
    assert content_of(folder) == {}


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00"])
def test_files_of_another_kind_are_refused(write, folder, content):
    assert re.fullmatch(r"is damaged \(.+\); delete it and download again", refused(write(content), folder))


def test_an_error_of_the_system_is_not_called_damage(archive, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"space.*device"):
        extract(archive, folder)
    assert content_of(folder) == {}


def test_an_interruption_leaves_nothing_half_written(archive, folder, monkeypatch):
    def interrupted(*_):
        yield b"half"
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, "_pieces", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, folder)
    assert content_of(folder) == {}


def test_a_missing_archive_is_told(folder):
    with pytest.raises(FileNotFoundError, match=r"no such.*archive"):
        extract(folder, folder)


def test_a_single_name_is_no_list(archive, folder):
    with pytest.raises(TypeError, match=r"`members`.*'top'.*\['top'\]"):
        extract(archive, folder, "top")
