"""QM9's three layouts are read into the same records, and damaged ones are refused with the reason."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pyg_schnet.datasets import qm9_files
from pyg_schnet.datasets.qm9_files import (
    RawMolecules,
    read_package,
    read_sdf,
    read_uncharacterized,
    read_xyz_archive,
)
from tests.datasets import qm9_small as small

SHARED = Path(__file__).parents[2] / "../shared/data/qm9"
SAMPLE = Path(__file__).parents[2] / "datasets/qm9/sample.xyz.tar.bz2"
XYZ, SDF, TABLE, PACKAGE, LIST = small.XYZ, small.SDF, small.TABLE, small.PACKAGE, small.LIST
WATER = [799.58812, 437.90386, 282.94545, 1.8511, 6.31, -0.2928, 0.0687, 0.3615, 19.0002, 0.021375]
WATER += [-76.404702, -76.401867, -76.400922, -76.422349, 6.002]


@pytest.fixture
def archive(tmp_path):
    """Write an archive of bytes, or of molecules by their numbers."""

    def write(content=XYZ, name="some.xyz.tar.bz2"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else small.archive(content))
        return path

    return write


@pytest.fixture
def sdf(tmp_path):
    """Write both files of PyG's layout."""

    def write(sdf=SDF, table=TABLE):
        (tmp_path / "gdb9.sdf").write_text(sdf)
        (tmp_path / "gdb9.sdf.csv").write_text(table)
        return tmp_path / "gdb9.sdf", tmp_path / "gdb9.sdf.csv"

    return write


@pytest.fixture
def package(tmp_path):
    def write(text=PACKAGE):
        (tmp_path / "qm9_part1.csv").write_text(text)
        return [tmp_path / "qm9_part1.csv"]

    return write


def arrays(pieces):
    """Ids, and counts, atomic numbers, positions and targets of all records."""
    pieces = list(pieces)
    ids = [number for piece in pieces for number in piece.ids]
    return ids, *map(np.concatenate, zip(*(piece.arrays("here") for piece in pieces), strict=True))


def refused(pieces):
    with pytest.raises(ValueError, match=r".") as caught:
        arrays(pieces)
    assert type(caught.value) is ValueError
    return str(caught.value)


def without(text, line):
    """Text without the line that contains this."""
    kept = [row for row in text.splitlines(keepends=True) if line not in row]
    assert len(kept) == len(text.splitlines()) - 1
    return "".join(kept)


def changed(text, old, new):
    assert text.count(old) >= 1
    return text.replace(old, new, 1)


def test_the_archive_is_read_as_published(archive):
    ids, counts, numbers, positions, targets = arrays(read_xyz_archive(archive()))
    assert (ids, counts.tolist()) == ([1, 2, 3], [5, 4, 3])
    assert numbers.tolist() == [6, 1, 1, 1, 1, 7, 1, 1, 1, 8, 1, 1]
    assert positions[0].tolist() == [-0.0126981359, 1.0858041578, 0.0080009958]
    assert positions[-1].tolist() == [0.8717903737, 1.3007924048, 0.0006931336]
    assert targets[2].tolist() == WATER
    assert targets[0, 3] == 0.0  # written as 0.


def test_sdf_and_table_are_read_as_published(sdf):
    ids, counts, numbers, positions, targets = arrays(read_sdf(*sdf()))
    assert (ids, counts.tolist()) == ([1, 2, 3], [5, 4, 3])
    assert numbers.tolist() == [6, 1, 1, 1, 1, 7, 1, 1, 1, 8, 1, 1]
    assert positions[0].tolist() == [-0.0127, 1.0858, 0.0080]
    assert targets[2].tolist() == WATER


def test_the_package_is_read_as_published(package):
    ids, counts, numbers, positions, targets = arrays(read_package(package()))
    assert (ids, counts.tolist()) == ([1, 3], [5, 3])
    assert numbers.tolist() == [6, 1, 1, 1, 1, 8, 1, 1]
    assert positions[0].tolist() == [-0.0126981359, 1.0858041578, 0.0080009958]
    assert targets[1].tolist() == WATER


@pytest.mark.parametrize("layout", ["archive", "sdf"])
def test_molecules_of_the_list_are_left_out(layout, request):
    write, skip = request.getfixturevalue(layout), frozenset([2])
    pieces = read_xyz_archive(write(), skip) if layout == "archive" else read_sdf(*write(), skip)
    assert arrays(pieces)[0] == [1, 3]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_records_come_in_pieces(archive, sdf, package, monkeypatch, size):
    monkeypatch.setattr(qm9_files, "_MOLECULES_AT_ONCE", size)
    lengths = {1: [1, 1, 1], 2: [2, 1], 3: [3]}[size]
    assert [len(piece) for piece in read_xyz_archive(archive())] == lengths
    assert [len(piece) for piece in read_sdf(*sdf())] == lengths
    assert [len(piece) for piece in read_package(package())] == ([1, 1] if size == 1 else [2])


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, bytes])
def test_the_compression_is_recognized(archive, pack):
    assert arrays(read_xyz_archive(archive(pack(bz2.decompress(small.archive())))))[0] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "value"), [("6.8*^-6", 6.8e-6), ("-1.5*^-5", -1.5e-5), ("2*^3", 2000.0), ("3.E-2", 0.03)]
)
def test_exponents_are_read_as_mathematica_and_python_write_them(archive, text, value):
    path = archive({1: changed(XYZ[1], " 0.0080009958", text)})
    assert arrays(read_xyz_archive(path))[3][0, 2] == value


def test_files_of_another_kind_in_the_archive_are_ignored(archive):
    link = tarfile.TarInfo("dsgdb9nsd_000004.xyz")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    folder = tarfile.TarInfo("folder.xyz")
    folder.type = tarfile.DIRTYPE
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for info, content in [
            (link, b""),
            (folder, b""),
            (tarfile.TarInfo("readme.txt"), b"not a molecule"),
            (tarfile.TarInfo("../../dsgdb9nsd_000001.xyz"), XYZ[1].encode()),
        ]:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    assert arrays(read_xyz_archive(archive(stream.getvalue())))[0] == [1]


def test_a_header_that_asks_for_much_memory_is_refused(archive):
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2**26
    bomb = bz2.compress(name.tobuf(tarfile.GNU_FORMAT) + b"a" * 2**26)
    tracemalloc.start()
    message = refused(read_xyz_archive(archive(bomb)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "is damaged (the headers of a member have no end)" in message
    assert peak < 2**24


def test_a_large_member_takes_little_memory(archive):
    large = small.tar([("large.xyz", b"5\n" + b" " * 2**26)])
    tracemalloc.start()
    refused(read_xyz_archive(archive(large)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_compression_is_refused(archive, fraction):
    content = SAMPLE.read_bytes()
    path = archive(content[: int(fraction * len(content))])
    assert re.fullmatch(
        rf"{re.escape(str(path))}: is damaged \(.*\); delete it and download again",
        refused(read_xyz_archive(path)),
    )


@pytest.mark.parametrize("blocks", range(7))
def test_a_tar_that_ends_early_is_refused_wherever(archive, blocks):
    content = bz2.decompress(small.archive())  # in seven blocks of 512, then empty ones
    path = archive(content[: 512 * blocks])
    assert "is damaged" in refused(read_xyz_archive(path))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"BZh9", bytes(3000), b"PK\x03\x04"])
def test_something_else_than_an_archive_is_refused_or_empty(archive, content):
    path = archive(content)
    if content == bytes(3000):  # an empty tar
        assert list(read_xyz_archive(path)) == []
    else:
        assert "is damaged" in refused(read_xyz_archive(path))


def test_a_missing_archive_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_xyz_archive(tmp_path / "no.tar.bz2"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid literal for int() with base 10: ''"),
        ("5\n", "list index out of range"),
        (XYZ[1][:200], "list index out of range"),
        (XYZ[1].rsplit("\n", 2)[0], "9 lines, 5 atoms with 5 columns"),
        (changed(XYZ[1], "5\n", "6\n"), "zip() argument"),
        (changed(XYZ[1], "5\n", "4\n"), "10 lines, 4 atoms with 5 columns"),
        (changed(XYZ[1], "gdb 1", "qm7 1"), "10 lines, 5 atoms with 5 columns"),
        (changed(XYZ[1], "5\n", "-1\n"), "10 lines, -1 atoms with 0 columns"),
        (changed(XYZ[1], "5\n", "0\n"), "10 lines, 0 atoms with 0 columns"),
        (changed(XYZ[1], "\t-0.535689", ""), "zip() argument"),
    ],
)
def test_a_file_that_is_no_molecule_is_named(archive, text, reason):
    path = archive({7: text})
    message = refused(read_xyz_archive(path))
    assert message.startswith(f"{path}: dsgdb9nsd_000007.xyz must be a molecule of QM9 ({reason}")
    assert message.endswith("; download the archive again")


@pytest.mark.parametrize("number", ["0", "133886", "-1", "1.0", "one", "²", "9" * 5000])
def test_molecules_have_numbers_of_gdb9(archive, sdf, package, number):
    problem = f"must number its molecules from 1 to 133,885, got {number[:40]!r}"
    path = archive({1: changed(XYZ[1], "gdb 1", f"gdb {number}")})
    assert refused(read_xyz_archive(path)) == f"{path}: dsgdb9nsd_000001.xyz {problem}"
    paths = sdf(table=changed(TABLE, "gdb_1", f"gdb_{number}"))
    assert refused(read_sdf(*paths)) == f"{paths[1]} {problem}"
    (path,) = package(changed(PACKAGE, ",1,", f",{number},"))
    assert refused(read_package([path])) == f"{path} {problem}"


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "1e999", "x", "1_0", "0x10", "1.2.3", "", "--1", "1e"]
)
def test_text_where_numbers_belong_is_refused_with_the_molecule(package, text):
    (path,) = package(changed(PACKAGE, ",437.90386,", f",{text},"))
    assert refused(read_package([path])) == (
        f"here: gdb_3 must have 15 finite numbers of targets, got {text!r}; the file is damaged, get it again"
    )
    package(changed(PACKAGE, "[0.8717903737,", f"[{text},"))
    assert refused(read_package([path])) == (
        f"here: gdb_3 must have 9 finite numbers of positions, got {text!r}; the file is damaged, get it "
        "again"
    )


@pytest.mark.parametrize("blank", [" ", "\t", "  "])
def test_a_blank_is_no_number(sdf, blank):
    """NumPy reads it as -1."""
    assert "gdb_3 must have 15 finite numbers of targets, got" in refused(
        read_sdf(*sdf(table=changed(TABLE, ",437.90386,", f",{blank},")))
    )
    assert "gdb_3 must have 15 finite numbers of targets, got" in refused(
        read_sdf(*sdf(table=changed(TABLE, ",6.002,", f",{blank},")))
    )


def test_spaces_around_numbers_do_no_harm(sdf):
    targets = arrays(read_sdf(*sdf(table=changed(TABLE, ",437.90386,", ", 437.90386 ,"))))[-1]
    assert targets[2].tolist() == WATER


def test_a_number_too_few_or_too_many_is_refused_with_the_molecule(archive):
    path = archive({1: XYZ[1], 3: changed(XYZ[3], "\t6.002", "")})
    message = "here: gdb_3 must have 15 finite numbers of targets, got {}; the file is damaged, get it again"
    assert refused(read_xyz_archive(path)) == message.format(14)
    archive({1: XYZ[1], 3: changed(XYZ[3], "\t6.002", "\t6.002\t1.0")})
    assert refused(read_xyz_archive(path)) == message.format(16)


def test_numbers_do_not_slip_from_one_molecule_to_the_next():
    records = RawMolecules([1, 2], [["H"], ["H"]], ["0,0", "0,0,0,0"], ["0" + 14 * ",0"] * 2, ["", ""])
    with pytest.raises(ValueError, match=r"gdb_1.*3.*finite.*numbers.*positions.*2"):
        records.arrays("here")


@pytest.mark.parametrize("symbol", ["S", "Xx", "h", "D"])
def test_another_element_is_refused_with_its_molecule(archive, symbol):
    path = archive({1: XYZ[1], 3: changed(XYZ[3], "O\t-0.03", f"{symbol}\t-0.03")})
    assert refused(read_xyz_archive(path)) == f"here: gdb_3 must be of H, C, N, O and F, got {symbol!r}"


@pytest.mark.parametrize("column", ["mol_id", "u0", "cv", "A"])
def test_a_missing_column_of_the_table_is_named(sdf, column):
    header = TABLE.split("\n")[0]
    paths = sdf(table=changed(TABLE, f"{column},", f"other_{column},"))
    names = ", ".join(header.split(",")).replace(f"{column},", f"other_{column},", 1)
    assert refused(read_sdf(*paths)) == f"{paths[1]}: has no column '{column}'; its columns are {names}"


def test_a_missing_column_of_the_package_is_named(package):
    (path,) = package(changed(PACKAGE, "HOMO_au", "homo"))
    assert f"{path}: has no column 'HOMO_au'; its columns are XYZ_file, Index, SMILES" in refused(
        read_package([path])
    )


def test_columns_may_have_another_order(package):
    rows = [line.rsplit(",", 1) for line in PACKAGE.splitlines()]
    swapped = "".join(f"{last},{first}\n" for first, last in rows)
    assert arrays(read_package(package(swapped)))[-1][1].tolist() == WATER


@pytest.mark.parametrize("text", ["", "\n", "a,b\n1,2\n", "\x00\x01\x02", "<html>404</html>"])
def test_something_else_than_a_table_is_refused(package, text):
    assert re.search(
        r"has no column 'Index'; its columns are|is no csv", refused(read_package(package(text)))
    )


def test_bytes_that_are_no_text_are_refused(sdf, package):
    path, table = sdf()
    table.write_bytes(b"\xff\xfe\x00\x01" * 1000)
    assert re.search(r"has no column 'mol_id'|is no csv", refused(read_sdf(path, table)))
    path, table = sdf()
    path.write_bytes(b"\xff\xfe\x00\x01" * 10_000 + b"\n$$$$\n")
    assert "must have the molecules of gdb9.sdf.csv in its order" in refused(read_sdf(path, table))


def test_a_row_that_is_cut_off_is_named(sdf, package):
    (path,) = package(PACKAGE[:-60])
    assert refused(read_package([path])) == (
        f"{path}: line 3 must have 25 values, got 19; the file is cut off or damaged, get it again"
    )
    package(PACKAGE[:-260])  # within quotes
    assert "line 3 must have 25 values" in refused(read_package([path]))
    path, table = sdf(table=TABLE[:-90])
    assert refused(read_sdf(path, table)) == (
        f"{table}: line 4 must have 20 values, got 13; the file is cut off or damaged, get it again"
    )


def test_a_field_without_end_is_refused(package):
    (path,) = package(PACKAGE + '"' + "x" * 200_000)
    assert re.fullmatch(
        rf"{re.escape(str(path))}: line \d+ is no csv \(field larger than field limit.*\); get it again",
        refused(read_package([path])),
    )


def test_a_table_of_no_molecules_gives_none(sdf, package):
    assert list(read_package(package(PACKAGE.split("\n")[0]))) == []
    assert list(read_sdf(*sdf(table=TABLE.split("\n")[0]))) == []


def test_molecules_beyond_the_table_are_not_read(sdf):
    paths = sdf(SDF + "gdb_4\nbroken\n$$$$\n")
    assert arrays(read_sdf(*paths))[0] == [1, 2, 3]


@pytest.mark.parametrize("cut", ["$$$$\n", "M  END\n$$$$\n", SDF[SDF.index("gdb_3") :]])
def test_an_sdf_without_its_last_molecule_is_refused(sdf, cut):
    assert SDF.endswith(cut)
    path, table = sdf(SDF.removesuffix(cut))
    assert refused(read_sdf(path, table)) == (
        f"{path}: ends before gdb_3 of gdb9.sdf.csv; download both again"
    )


def test_an_sdf_in_another_order_than_its_table_is_refused(sdf):
    path, table = sdf(without(SDF.replace("gdb_2\n", "gdb_x\n"), "gdb_x"))
    assert refused(read_sdf(path, table)) == (
        f"{path}: must have the molecules of gdb9.sdf.csv in its order, got '-OEChem-03231823233D' for "
        "gdb_2; download both again"
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("  3  2  0     0", "  9  2  0     0", "list index out of range"),
        ("  3  2  0     0", " 99  2  0     0", "8 atoms"),
        ("  3  2  0     0", "  x  2  0     0", "invalid literal"),
        ("   -0.0344    0.9775    0.0076 O ", "\n", "list index out of range"),
    ],
)
def test_a_block_that_is_no_molecule_is_named(sdf, old, new, reason):
    path, table = sdf(changed(SDF, old, new))
    message = refused(read_sdf(path, table))
    assert message.startswith(f"{path}: gdb_3 must be an MDL block (")
    assert message.endswith("; download the file again")
    assert reason in message or "atoms" in message


def test_another_version_of_sdf_is_refused(sdf):
    path, table = sdf(SDF.replace("V2000", "V3000"))
    assert refused(read_sdf(path, table)) == (
        f"{path}: gdb_1 must be an MDL block (5 atoms); download the file again"
    )


def test_a_record_without_end_is_refused_before_it_fills_the_memory(sdf):
    path, table = sdf("gdb_1\n" + "x" * 2**24)
    tracemalloc.start()
    message = refused(read_sdf(path, table))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message == f"{path}: must be an SDF file, got a record without end; download it again"
    assert peak < 2**22


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference data of QM9 are not beside the repository")
def test_the_broken_record_among_the_first_of_gdb9_is_refused():
    paths = SHARED / "gdb9_first20.sdf", SHARED / "gdb9_first20.sdf.csv"
    assert refused(read_sdf(*paths)) == (
        f"{paths[1]} must number its molecules from 1 to 133,885, got '20_invalid'"
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference data of QM9 are not beside the repository")
def test_the_broken_record_under_a_right_name_is_refused(tmp_path):
    text = (SHARED / "gdb9_first20.sdf").read_text().replace("gdb_20_invalid", "gdb_20")
    table = (SHARED / "gdb9_first20.sdf.csv").read_text().replace("gdb_20_invalid", "gdb_20")
    (tmp_path / "a.sdf").write_text(text)
    (tmp_path / "a.sdf.csv").write_text(table)
    message = refused(read_sdf(tmp_path / "a.sdf", tmp_path / "a.sdf.csv"))
    assert message == "here: gdb_20 must be of H, C, N, O and F, got 'Pu'"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference data of QM9 are not beside the repository")
def test_the_list_of_uncharacterized_molecules_has_3054():
    numbers = read_uncharacterized(SHARED / "uncharacterized.txt")
    assert len(numbers) == 3054
    assert sorted(numbers)[:3] == [58, 61, 80]
    assert max(numbers) == 133866


def test_the_list_of_one_molecule_is_read(tmp_path):
    (tmp_path / "list.txt").write_text(LIST)
    assert read_uncharacterized(tmp_path / "list.txt") == {2}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        "\n".join(map(str, range(1, 100))).encode(),  # a split, say
        "\n".join(LIST.splitlines()[:9]).encode(),
        changed(LIST, "       2 ", "       0 ").encode(),
        changed(LIST, "       2 ", "       ² ").encode(),
        LIST.replace("=\n", "=\nx\ny\n").encode(),
        b"\xff" * 10_000,
    ],
)
def test_another_file_than_the_list_is_refused(tmp_path, content):
    path = tmp_path / "uncharacterized.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: must be QM9's list of uncharacterized")):
        read_uncharacterized(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference data of QM9 are not beside the repository")
def test_the_values_of_the_atoms_are_not_the_list():
    with pytest.raises(ValueError, match=r"QM9's.*molecules"):
        read_uncharacterized(SHARED / "atomref.txt")
