"""ISO17's archive is read in eV and Å, with its split, or refused with the reason."""

import json
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import ase.db
import numpy as np
import pytest
import torch
from ase import Atoms

from pyg_schnet.datasets import iso17, iso17_files
from pyg_schnet.datasets.iso17 import FOLDS, ISO17

SAMPLE = Path(__file__).parents[2] / "datasets" / "iso17" / "iso17_standin_sample.tar.gz"

# Frames of OH and of water, as published: eV, Å, eV/Å. Energies by fold and row.
ENERGIES = {
    "reference": [-100.5, -101.25, -102.0, -103.5, -104.75],
    "reference_eq": [-110.0],
    "test_within": [-120.0, -121.5],
    "test_other": [-130.0, -131.0, -132.25],
    "test_eq": [-140.5],
}
OH = ([8, 1], [[0.0, 0.0, 0.5], [0.0, 0.25, 1.5]], [[0.0, 1.5, -2.25], [0.0, -1.5, 2.25]])
WATER = (
    [8, 1, 1],
    [[0.0, 0.0, 0.125], [0.0, 0.75, -0.5], [0.0, -0.75, -0.5]],
    [[0.5, 0.0, -1.0], [-0.25, 0.0, 0.5], [-0.25, 0.0, 0.5]],
)
TRAIN, VALIDATION = "1\n2\n5\n", "4\n"


def write_database(path, energies, structure=OH, data=None):
    """Write rows by plain ASE, with forces as lists, the way that the published file has them."""
    numbers, positions, forces = structure
    with ase.db.connect(path) as database:
        for energy in energies:
            content = {"atomic_forces": forces} if data is None else data
            database.write(Atoms(numbers, positions), total_energy=energy, data=content)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All files of ISO17, and rows.db with two rows; ASE takes its time, so that tests copy them."""
    written = tmp_path_factory.mktemp("written")
    folder = written / "iso17"
    folder.mkdir()
    for fold, energies in ENERGIES.items():
        write_database(folder / f"{fold}.db", energies, WATER if "other" in fold else OH)
    (folder / "train_ids.txt").write_text(TRAIN)
    (folder / "validation_ids.txt").write_text(VALIDATION)
    (folder / "README").write_text("ISO17")
    write_database(written / "rows.db", [-100.5, -101.25])
    return written


@pytest.fixture
def folder(written, tmp_path):
    """The files of ISO17, not yet packed."""
    return Path(shutil.copytree(written / "iso17", tmp_path / "iso17"))


def pack(folder, path=None):
    path = path or folder.parent / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "iso17")
    return path


@pytest.fixture
def archive(folder):
    return pack(folder)


@pytest.fixture
def database(written, tmp_path):
    """The path of a database with rows 1 and 2 of OH."""
    return Path(shutil.copy(written / "rows.db", tmp_path))


@pytest.fixture
def downloads(archive, monkeypatch):
    """Replace the download by a copy of the archive; return what was asked for."""
    asked = []

    def copy(file, folder, **_):
        asked.append(file)
        path = Path(folder) / file.name
        path.write_bytes(archive.read_bytes())
        return path

    monkeypatch.setattr(iso17, "download", copy)
    return asked


def change(path, statement, *values):
    """Change a database behind ASE's back."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()


def read(path):
    """Read a database: ids, and the joined arrays of all pieces."""
    pieces = list(iso17_files.read_database(path, path.name))
    ids = np.concatenate([ids for ids, _ in pieces])
    names = ("numbers", "positions", "counts", "energy", "forces")
    return ids, {name: np.concatenate([getattr(frames, name) for _, frames in pieces]) for name in names}


def refused(path):
    """Return the reason; all are ValueErrors that begin with the file's name."""
    with pytest.raises(ValueError, match=r"^rows\.db: ") as caught:
        read(path)
    return str(caught.value).removeprefix("rows.db: ")


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("memory_map", [False, True])
def test_a_fold_has_the_values_of_its_database_in_ev_and_angstrom(fold, memory_map, archive, tmp_path):
    dataset = ISO17(tmp_path / "root", fold, source=archive, memory_map=memory_map)
    numbers, positions, forces = WATER if fold == "test_other" else OH
    assert [item.energy.item() for item in dataset] == ENERGIES[fold]
    assert [item.idx.item() for item in dataset] == list(range(len(ENERGIES[fold])))
    for item in dataset:
        assert item.z.tolist() == numbers
        assert item.pos.tolist() == positions
        assert item.forces.tolist() == forces
        assert sorted(item.keys()) == ["energy", "forces", "idx", "pos", "z"]
        types = (item.z.dtype, item.pos.dtype, item.energy.dtype, item.forces.dtype)
        assert types == (torch.int64, torch.float32, torch.float64, torch.float64)


def test_positions_have_the_type_that_is_asked_for(archive, tmp_path):
    assert ISO17(tmp_path / "root", source=archive, dtype=torch.float64)[0].pos.dtype == torch.float64


@pytest.mark.parametrize("memory_map", [False, True])
def test_the_official_split_is_that_of_the_id_files_which_count_from_1(archive, tmp_path, memory_map):
    dataset = ISO17(tmp_path / "root", source=archive, memory_map=memory_map)
    assert [part.tolist() for part in dataset.split("official")] == [[0, 1, 4], [3], []]
    assert {part.dtype for part in dataset.split("official")} == {torch.int64}


@pytest.mark.parametrize("fold", FOLDS[1:])
def test_only_the_reference_has_a_split(archive, tmp_path, fold):
    assert ISO17(tmp_path / "root", fold, source=archive).splits == {}


def test_the_split_names_rows_by_their_ids_where_some_are_missing(folder, tmp_path):
    with ase.db.connect(folder / "reference.db") as database:
        database.delete([3])
    dataset = ISO17(tmp_path / "root", source=pack(folder))
    assert [part.tolist() for part in dataset.split("official")] == [[0, 1, 3], [2], []]
    assert dataset[3].energy.item() == -104.75


def test_the_split_names_rows_of_all_pieces(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(iso17_files, "_ROWS_AT_ONCE", 2)
    dataset = ISO17(tmp_path / "root", source=archive)
    assert [part.tolist() for part in dataset.split("official")] == [[0, 1, 4], [3], []]


def test_the_split_keeps_the_order_of_its_files(folder, tmp_path):
    (folder / "train_ids.txt").write_text("5\r\n1\r\n2")
    dataset = ISO17(tmp_path / "root", source=pack(folder))
    assert dataset.split("official").train.tolist() == [4, 0, 1]


def test_the_split_follows_a_filter(archive, tmp_path):
    def is_low(item):
        return item.energy.item() < -101

    dataset = ISO17(tmp_path / "root", source=archive, pre_filter=is_low)
    assert [part.tolist() for part in dataset.split("official")] == [[0, 3], [2], []]


LISTS = json.dumps({"atomic_forces": OH[2]})
ARRAY = json.dumps({"atomic_forces": {"__ndarray__": [[2, 3], "float64", np.ravel(OH[2]).tolist()]}})


@pytest.mark.parametrize("data", [LISTS, ARRAY], ids=["lists", "array"])
def test_forces_of_older_versions_of_ase_are_json(database, data):
    change(database, "UPDATE systems SET data = ?", data)
    _, arrays = read(database)
    assert arrays["forces"].reshape(2, 2, 3).tolist() == [OH[2], OH[2]]


@pytest.mark.parametrize("dtype", [None, np.float64, np.float32])
def test_forces_of_todays_ase_are_lists_or_arrays_in_binary(tmp_path, dtype):
    forces = OH[2] if dtype is None else np.array(OH[2], dtype)
    # something before and after, so that positions in the binary form count
    data = {"before": np.arange(5), "atomic_forces": forces, "after": np.ones(3)}
    write_database(tmp_path / "rows.db", [-100.5], data=data)
    _, arrays = read(tmp_path / "rows.db")
    assert arrays["forces"].tolist() == OH[2]
    assert arrays["forces"].dtype == np.float64


@pytest.mark.parametrize("at_once", [1, 3, 5000])
def test_pieces_of_any_length_give_what_ase_gives(tmp_path, monkeypatch, at_once):
    path = tmp_path / "rows.db"
    rng = np.random.default_rng(0)
    with ase.db.connect(path) as database:
        for atoms in (3, 7, 1, 19, 7):
            forces = rng.normal(size=(atoms, 3))
            molecule = Atoms(rng.integers(1, 10, atoms), rng.normal(size=(atoms, 3)))
            data = {"atomic_forces": forces.tolist()}
            database.write(molecule, total_energy=float(rng.normal()), isomer=atoms, data=data)
        rows = list(database.select(sort="id"))
    monkeypatch.setattr(iso17_files, "_ROWS_AT_ONCE", at_once)
    ids, arrays = read(path)
    assert ids.tolist() == [row.id for row in rows]
    assert arrays["numbers"].dtype == np.uint8
    assert arrays["counts"].tolist() == [3, 7, 1, 19, 7]
    np.testing.assert_array_equal(arrays["numbers"], np.concatenate([row.numbers for row in rows]))
    np.testing.assert_array_equal(arrays["positions"], np.concatenate([row.positions for row in rows]))
    np.testing.assert_array_equal(arrays["energy"], [row.total_energy for row in rows])
    expected = np.concatenate([np.array(row.data["atomic_forces"]) for row in rows])
    np.testing.assert_array_equal(arrays["forces"], expected)


def test_pieces_hold_as_many_rows_as_are_read_at_once(tmp_path, monkeypatch):
    write_database(tmp_path / "rows.db", [-1.0, -2.0, -3.0])
    monkeypatch.setattr(iso17_files, "_ROWS_AT_ONCE", 2)
    pieces = iso17_files.read_database(tmp_path / "rows.db", "rows.db")
    assert [ids.tolist() for ids, _ in pieces] == [[1, 2], [3]]


def test_the_archive_is_asked_for_by_the_address_and_size_of_the_card(downloads, tmp_path):
    ISO17(tmp_path / "root")
    assert [file.name for file in downloads] == ["iso17.tar.gz"]
    assert downloads[0].urls[0] == "http://www.quantum-machine.org/datasets/iso17.tar.gz"
    assert downloads[0].size == 799_712_882


def test_a_processed_fold_needs_no_raw_file(downloads, tmp_path):
    ISO17(tmp_path / "root", "test_eq")
    (tmp_path / "root" / "raw" / "iso17.tar.gz").unlink()
    assert ISO17(tmp_path / "root", "test_eq")[0].energy.item() == -140.5
    assert len(downloads) == 1


def test_an_archive_that_is_there_is_not_downloaded_but_must_have_the_published_size(archive, tmp_path):
    raw = tmp_path / "root" / "raw"
    raw.mkdir(parents=True)
    (raw / "iso17.tar.gz").write_bytes(archive.read_bytes())
    with pytest.raises(ValueError, match=r"raw/iso17\.tar\.gz.*[\d,]+.*799,712,882"):
        ISO17(tmp_path / "root")


def test_extracted_files_that_were_put_there_by_hand_are_used_and_left_as_they_are(folder, tmp_path):
    raw = tmp_path / "root" / "raw"
    raw.mkdir(parents=True)
    folder.rename(raw / "iso17")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (raw / "iso17").iterdir()}
    dataset = ISO17(tmp_path / "root")  # the tests have no internet: a download would fail
    assert [part.tolist() for part in dataset.split("official")] == [[0, 1, 4], [3], []]
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (raw / "iso17").iterdir()}
    assert after == before
    assert os.listdir(raw) == ["iso17"]


def test_a_test_fold_that_was_put_there_by_hand_needs_no_other_file(folder, tmp_path):
    placed = tmp_path / "root" / "raw" / "iso17"
    placed.mkdir(parents=True)
    (folder / "test_eq.db").rename(placed / "test_eq.db")
    assert ISO17(tmp_path / "root", "test_eq")[0].energy.item() == -140.5


def test_nothing_but_the_folds_that_were_asked_for_is_left(downloads, tmp_path):
    root = tmp_path / "root"
    for fold in ("test_eq", "reference"):
        ISO17(root, fold)
    assert os.listdir(root / "raw") == ["iso17.tar.gz"]
    left = {name for name in os.listdir(root / "processed") if not name.startswith("pre_")}
    assert left == {"reference.safetensors", "test_eq.safetensors"}


def test_what_a_killed_process_left_is_removed(archive, tmp_path):
    left = tmp_path / "root" / "processed" / ".unpacked" / "iso17"
    left.mkdir(parents=True)
    (left / "reference.db").write_bytes(b"half")
    assert len(ISO17(tmp_path / "root", source=archive)) == 5
    assert not left.exists()


def test_a_local_archive_is_processed_again_only_when_it_was_replaced(folder, archive, tmp_path, monkeypatch):
    root = tmp_path / "root"
    ISO17(root, "test_eq", source=archive)
    with monkeypatch.context() as patch:
        patch.setattr(iso17, "extract", None)  # would fail
        assert ISO17(root, "test_eq", source=archive)[0].energy.item() == -140.5
    write_database(folder / "test_eq.db", [-141.0])
    pack(folder)
    assert [item.energy.item() for item in ISO17(root, "test_eq", source=archive)] == [-140.5, -141.0]


def test_the_processed_file_remembers_its_source(archive, tmp_path):
    dataset = ISO17(tmp_path / "root", source=str(archive))
    assert dataset.header["notes"] == {"source": f"{archive}: iso17"}


def test_a_folder_may_have_any_name(folder, tmp_path):
    raw = tmp_path / "a?mode=rwc#b %41" / "raw"
    raw.mkdir(parents=True)
    folder.rename(raw / "iso17")
    assert len(ISO17(raw.parent)) == 5


@pytest.mark.parametrize(
    ("fold", "hint"),
    [
        ("test_withing", " Did you mean 'test_within'?"),
        ("reference.db", " Did you mean 'reference'?"),
        ("x", ""),
    ],
)
def test_an_unknown_fold_is_refused_before_anything_is_written(fold, hint, tmp_path):
    with pytest.raises(ValueError, match=r"^`fold`") as caught:
        ISO17(tmp_path / "root", fold)
    assert str(caught.value) == (
        "`fold` must be one of 'reference', 'reference_eq', 'test_within', 'test_other', 'test_eq'; "
        f"got {fold!r}.{hint}"
    )
    assert not (tmp_path / "root").exists()


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        ISO17(tmp_path / "root", source=tmp_path / "none.tar.gz")
    assert str(caught.value) == (
        f'{tmp_path}/none.tar.gz: no such file; `source` must be "auto" or the path of an archive like '
        "iso17.tar.gz"
    )
    assert not (tmp_path / "root").exists()


def test_an_archive_without_the_fold_is_refused(folder, tmp_path):
    (folder / "test_eq.db").unlink()
    with pytest.raises(ValueError, match=r"archive\.tar\.gz.*'iso17/test_eq\.db'"):
        ISO17(tmp_path / "root", "test_eq", source=pack(folder))
    assert not (tmp_path / "root" / "processed" / ".unpacked").exists()


def test_messages_name_the_archive_and_the_row(folder, tmp_path):
    change(folder / "test_within.db", "UPDATE systems SET key_value_pairs = '{}' WHERE id = 2")
    with pytest.raises(ValueError, match="total_energy") as caught:
        ISO17(tmp_path / "root", "test_within", source=pack(folder))
    assert str(caught.value) == (
        f"{tmp_path}/archive.tar.gz: iso17/test_within.db: row 2: must have a number as the key-value "
        "`total_energy`, got none; get the file again"
    )


@pytest.mark.parametrize("energy", ['"-100.5"', "true", "[1.0]", "null"])
def test_energies_that_are_no_numbers_are_refused(database, energy):
    change(database, "UPDATE systems SET key_value_pairs = ? WHERE id = 2", f'{{"total_energy": {energy}}}')
    shown = {'"-100.5"': "'-100.5'", "true": "True", "[1.0]": "[1.0]", "null": "none"}[energy]
    assert refused(database) == (
        f"row 2: must have a number as the key-value `total_energy`, got {shown}; get the file again"
    )


def test_a_whole_number_is_an_energy(database):
    change(database, "UPDATE systems SET key_value_pairs = ?", '{"total_energy": -100}')
    assert read(database)[1]["energy"].tolist() == [-100.0, -100.0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{}", "must have `atomic_forces` in its data, got none"),
        ("null", "must have a dictionary as its data, got NoneType"),
        ('{"atomic_forces": [[0.0, 0.0, 1.0]]}', "`atomic_forces` must have shape (2, 3), got (1, 3)"),
        ('{"atomic_forces": [0, 0, 1, 0, 0, -1]}', "`atomic_forces` must have shape (2, 3), got (6,)"),
        ('{"atomic_forces": 1.0}', "`atomic_forces` must have shape (2, 3), got ()"),
    ],
)
def test_forces_that_do_not_fit_are_refused(database, data, reason):
    change(database, "UPDATE systems SET data = ? WHERE id = 2", data)
    assert refused(database) == f"row 2: {reason}; get the file again"


@pytest.mark.parametrize(
    "data",
    [
        '{"atomic_forces": [[0.0, 0.0], [1.0]]}',
        '{"atomic_forces": [["a", 0, 0], [0, 0, 0]]}',
        '{"atomic_forces": {"__ase_objtype__": "atoms"}}',
        '{"atomic_forces": {"__ndarray__": [[2, 3], "float64", 0]}}',
        '{"atomic_forces": {"__ndarray__": [[2, 1000000000000], "float64", [0.0]]}}',
        '{"atomic_forces": {"__ndarray__": 3}}',
        '{"atomic_forces": ' + "[" * 100_000,
        '{"atomic_forces": [[' + "9" * 400 + ", 0, 0], [0, 0, 0]]}",
        "not JSON",
        "",
        None,
        17,
        b"",
        b"\xff" * 8,
        b"\x08" + bytes(7) + b'{"atomic_forces": {"__ndarray__": [[2, 3], "object", 0]}}',
        b"\x08" + bytes(7) + b'{"atomic_forces": {"__ndarray__": [[2, 3], "float64", 1000]}}',
        b"\x08" + bytes(7) + b'{"atomic_forces": {"__ndarray__": [[2, 3], ["float64"], 0]}}',
        b"\x08" + bytes(7) + b'{"atomic_forces": "\xff"}',
    ],
)
def test_data_that_cannot_be_decoded_are_refused_with_their_row(database, data):
    change(database, "UPDATE systems SET data = ? WHERE id = 2", data)
    reason = refused(database)
    assert reason.startswith("row 2: ")
    assert reason.endswith("; get the file again")


def test_no_object_that_a_row_describes_is_built(database, monkeypatch):
    def build(*_):
        raise AssertionError("an object was built")

    monkeypatch.setattr("ase.io.jsonio.create_ase_object", build)
    monkeypatch.setattr("ase.db.core.create_ase_object", build)
    other = '"other": {"__ase_objtype__": "atoms", "numbers": [1]}}'
    change(database, "UPDATE systems SET data = ?", f"{LISTS[:-1]}, {other}")
    assert read(database)[1]["forces"].tolist() == OH[2] * 2


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("pbc", 7, "must not be periodic; get the file again"),
        ("numbers", np.array([8, 1, 1], "<i4").tobytes(), "must have a position for each of 3 atoms, got 2"),
        ("numbers", np.array([8, 257], "<i4").tobytes(), "must hold atomic numbers 1 to 99, got 257"),
        ("numbers", np.array([8, 0], "<i4").tobytes(), "must hold atomic numbers 1 to 99, got 0"),
        ("numbers", "two", "is damaged (TypeError("),
        ("positions", None, "is damaged (TypeError("),
        ("positions", b"short", "buffer size must be a multiple of element size"),
        ("positions", bytes(48), "must not place two atoms at one point, got atoms 0 and 1 there"),
        ("positions", np.full(6, np.nan).tobytes(), "must have finite positions, got NaN or infinity"),
        ("key_value_pairs", '{"total_energy": NaN}', "must have finite energy, got NaN or infinity"),
        ("key_value_pairs", '{"total_energy": 1' + "0" * 400 + "}", "is damaged (OverflowError("),
        ("key_value_pairs", "[]", "must have a dictionary as its key-value pairs, got list"),
        ("data", '{"atomic_forces": [[0, 0, NaN], [0, 0, 0]]}', "must have finite forces, got NaN"),
    ],
)
def test_rows_of_no_use_are_refused_with_their_number(database, column, value, reason):
    change(database, f"UPDATE systems SET {column} = ? WHERE id = 2", value)
    assert refused(database).startswith(f"row 2: {reason}")


def test_a_database_is_opened_for_reading_only_and_its_functions_are_not_trusted(database):
    with closing(iso17_files._connect(database)) as connection:
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM systems")


def test_reading_leaves_no_file_beside_the_database(database):
    change(database, "PRAGMA journal_mode = WAL")  # whose readers would write two files
    pieces = iso17_files.read_database(database, "rows.db")
    next(pieces)
    assert os.listdir(database.parent) == ["rows.db"]
    pieces.close()


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "rows.db").write_bytes(b"<html>not found</html>" * 100)
    assert refused(tmp_path / "rows.db") == (
        "must be an SQLite database of ASE, got another or a damaged file (file is not a database); get the "
        "file again"
    )


def test_a_truncated_database_is_refused(tmp_path):
    path = tmp_path / "rows.db"
    write_database(path, np.arange(200.0))
    path.write_bytes(path.read_bytes()[:-20_000])
    assert refused(path).startswith("must be an SQLite database of ASE, got another or a damaged file (")


@pytest.mark.parametrize("kind", ["none", "view"])
def test_a_database_without_the_table_of_ase_is_refused(database, kind):
    change(database, "ALTER TABLE systems RENAME TO other")
    if kind == "view":  # which could compute anything
        change(database, "CREATE VIEW systems AS SELECT * FROM other")
    assert "(it has no table 'systems')" in refused(database)


def test_a_database_with_other_columns_is_refused(database):
    change(database, "ALTER TABLE systems RENAME COLUMN data TO content")
    assert "(no such column: data)" in refused(database)


def test_an_empty_database_is_refused(database):
    change(database, "DELETE FROM systems")
    assert refused(database) == "must hold at least one row, got none; get the file again"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("train_ids", "0\n1\n", "must hold ids of rows of reference.db, which are 1 to 5, got 0"),
        ("train_ids", "1\n6\n", "must hold ids of rows of reference.db, which are 1 to 5, got 6"),
        ("train_ids", "1\n2\n1\n", "must name each row once, got 1 more than once"),
        ("train_ids", "1\n-2\n", "must hold the id of a row in each line, got '-2'"),
        ("train_ids", "1\n2.5\n", "must hold the id of a row in each line, got '2.5'"),
        ("train_ids", "9" * 30, f"must hold the id of a row in each line, got '{'9' * 30}'"),
        ("train_ids", "", "must hold the id of a row in each line, got none"),
        ("validation_ids", "3\n2\n", "must name no row of train_ids.txt, got 2 in both"),
    ],
)
def test_ids_that_make_no_split_are_refused(folder, tmp_path, name, text, reason):
    (folder / f"{name}.txt").write_text(text)
    with pytest.raises(ValueError, match=name) as caught:
        ISO17(tmp_path / "root", source=pack(folder))
    assert str(caught.value) == f"{tmp_path}/archive.tar.gz: iso17/{name}.txt: {reason}"


def test_ids_that_are_no_text_are_refused(folder, tmp_path):
    (folder / "train_ids.txt").write_bytes(b"1\n\xff\xfe\n")
    with pytest.raises(ValueError, match="must hold the id of a row in each line, got '��'"):
        ISO17(tmp_path / "root", source=pack(folder))


def test_an_id_of_a_missing_row_is_refused(folder, tmp_path):
    with ase.db.connect(folder / "reference.db") as database:
        database.delete([2])
    with pytest.raises(ValueError, match=r"train_ids\.txt.*ids.*1.*5.*2"):
        ISO17(tmp_path / "root", source=pack(folder))


@pytest.mark.parametrize(
    ("fold", "count"),
    [("reference", 640), ("reference_eq", 10), ("test_within", 160), ("test_other", 160), ("test_eq", 2)],
)
def test_the_shipped_stand_in_has_folds_of_c7h10o2(fold, count, tmp_path):
    dataset = ISO17(tmp_path, fold, source=SAMPLE)
    assert len(dataset) == count
    assert all(sorted(item.z.tolist()) == [1] * 10 + [6] * 7 + [8] * 2 for item in dataset)


def test_the_shipped_stand_in_has_these_values_in_ev_and_angstrom(tmp_path):
    dataset = ISO17(tmp_path, source=SAMPLE, dtype=torch.float64)
    first = dataset[0]
    assert first.energy.item() == pytest.approx(-764.1726298204208, abs=1e-12)  # eV
    assert first.forces[2, 1].item() == pytest.approx(-1.9071862677641824, abs=1e-14)  # eV/Å, a carbon
    assert first.pos[2, 1].item() == pytest.approx(-0.69239113, abs=1e-8)  # Å
    assert first.z[:6].tolist() == [6, 6, 6, 6, 6, 8]


def test_the_shipped_stand_in_validates_on_one_row_in_a_hundred_and_one(tmp_path):
    split = ISO17(tmp_path, source=SAMPLE).split("official")
    assert [len(part) for part in split] == [634, 6, 0]
    # validation_ids.txt holds 46 183 368 394 564 603
    assert split.val.tolist() == [45, 182, 367, 393, 563, 602]
    assert torch.equal(torch.cat(split).sort().values, torch.arange(640))


def test_a_folder_must_be_given():
    with pytest.raises(ValueError, match=r"`root`.*folder.*processed"):
        ISO17(None)
