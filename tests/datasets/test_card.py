"""Cards say what was published, in numbers written here by hand, and mistakes in them are found."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pyg_schnet.datasets.cards import card as cards
from pyg_schnet.datasets.cards.card import CardFile, card_names, read_card, read_card_file
from pyg_schnet.io.remote.download import RemoteFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/data/qm9"
NAMES = ("iso17", "md17", "md22", "qm9")
PROPERTIES = [(name, entry.name) for name in NAMES for entry in read_card(name).properties]

GDML = "http://www.quantum-machine.org/gdml/data/npz/"
MD17_FRAMES = {
    "md17_aspirin.npz": ("aspirin", 211_762),
    "md17_benzene2017.npz": ("benzene", 627_983),
    "md17_ethanol.npz": ("ethanol", 555_092),
    "md17_malonaldehyde.npz": ("malonaldehyde", 993_237),
    "md17_naphthalene.npz": ("naphthalene", 326_250),
    "md17_salicylic.npz": ("salicylic acid", 320_231),
    "md17_toluene.npz": ("toluene", 442_790),
    "md17_uracil.npz": ("uracil", 133_770),
    "azobenzene_dft.npz": ("azobenzene", 99_999),
    "paracetamol_dft.npz": ("paracetamol", 106_490),
    "benzene2018_dft.npz": ("benzene 2018", 49_863),
}
REVISED = "aspirin azobenzene benzene ethanol malonaldehyde naphthalene paracetamol salicylic toluene uracil"
COUPLED_CLUSTER = {  # frames for training and test
    "aspirin_ccsd.zip": ("aspirin", "CCSD/cc-pVDZ", 1000, 500),
    "benzene_ccsd_t.zip": ("benzene", "CCSD(T)/cc-pVDZ", 1000, 500),
    "ethanol_ccsd_t.zip": ("ethanol", "CCSD(T)/cc-pVTZ", 1000, 1000),
    "malonaldehyde_ccsd_t.zip": ("malonaldehyde", "CCSD(T)/cc-pVDZ", 1000, 500),
    "toluene_ccsd_t.zip": ("toluene", "CCSD(T)/cc-pVDZ", 1000, 501),
}
MD22_FRAMES = {
    "md22_Ac-Ala3-NHMe.npz": 85_109,
    "md22_DHA.npz": 69_753,
    "md22_stachyose.npz": 27_272,
    "md22_AT-AT.npz": 20_001,
    "md22_AT-AT-CG-CG.npz": 10_153,
    "md22_buckyball-catcher.npz": 6_102,
    "md22_double-walled_nanotube.npz": 5_032,
}

TOY = """
name = "toy"
title = "A toy"
year = 2020
license = "CC0 1.0"
doi = "10.1000/1"
url = "https://example.org/"
level_of_theory = "PBE"
elements = ["H", "O"]
records = 3
bibtex = "@misc{toy}"
defects = ["None [known]."]
[splits]
[[files]]
name = "toy.zip"
urls = ["https://example.org/toy.zip", "http://example.com/toy.zip"]
checked = false
[[files]]
name = "toy/one.npz"
archive = "toy.zip"
group = "first"
molecule = "water"
checked = false
[[files]]
name = "toy/two.npz"
archive = "toy.zip"
group = "first"
molecule = "hydroxyl"
checked = true
[[properties]]
name = "energy"
published = "E"
published_unit = "kcal/mol"
unit = "eV"
description = "Energy"
checked = true
[atomref]
energy = { H = -1, O = -2.5 }
"""


@pytest.fixture
def toy(tmp_path):
    """Read the toy card after an edit."""

    def read(old="", new=""):
        assert old in TOY
        (tmp_path / "card.toml").write_text(TOY.replace(old, new, 1), encoding="utf-8")
        return read_card_file(tmp_path / "card.toml")

    return read


def test_there_is_a_card_for_each_published_data_set():
    assert card_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_card_bears_the_name_of_its_folder(name):
    assert read_card(name).name == name


@pytest.mark.parametrize(
    ("name", "year", "records", "elements", "doi"),
    [
        ("qm9", 2014, 130_831, "HCNOF", "10.1038/sdata.2014.22"),
        ("md17", 2017, 4_875_456, "HCNO", "10.1126/sciadv.1603015"),
        ("md22", 2023, 223_422, "HCNO", "10.1126/sciadv.adf0873"),
        ("iso17", 2017, 645_000, "HCO", "10.1063/1.5019779"),
    ],
)
def test_a_card_has_the_published_facts(name, year, records, elements, doi):
    card = read_card(name)
    assert (card.year, card.records, "".join(card.elements), card.doi) == (year, records, elements, doi)
    assert f"{{{doi}}}" in card.bibtex
    assert card.bibtex.count("{") == card.bibtex.count("}")


@pytest.mark.parametrize(
    ("name", "number", "size", "md5", "sha256"),
    [
        (
            "dsgdb9nsd.xyz.tar.bz2",
            3195389,
            86_144_227,
            "ad1ebd51ee7f5b3a6e32e974e5d54012",
            "3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
        ),
        (
            "atomref.txt",
            3195395,
            964,
            "2d30b2df8329d8fd805c0a4d158a0a0f",
            "af739d4a0fbe894a56f346ad6045ee1b74c58f8a8c9ef3fbfed920c9ad8b00f9",
        ),
        (
            "uncharacterized.txt",
            3195404,
            486_752,
            "a361887bacb427b8a0ce7903d92a53b4",
            "3aa5115d540b356de94791d4a74c3bf1ed91c469ecf52a4f5d7cc0506fe02e24",
        ),
    ],
)
def test_a_file_of_qm9_has_its_published_address_size_and_hashes(name, number, size, md5, sha256):
    file = read_card("qm9").file(name)
    assert (file.bytes, file.md5, file.sha256) == (size, md5, sha256)
    assert file.urls == (
        f"https://ndownloader.figshare.com/files/{number}",
        f"https://figshare.com/ndownloader/files/{number}",
    )


def test_qm9_as_pytorch_geometric_reads_it_has_the_address_used_there():
    assert read_card("qm9").file("qm9.zip").remote == RemoteFile(
        "qm9.zip", ("https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/molnet_publish/qm9.zip",)
    )


def test_the_original_files_of_md17_have_their_published_names_and_frames():
    files = read_card("md17").select(group="original")
    assert {file.name: (file.molecule, file.records) for file in files} == MD17_FRAMES
    assert all(file.urls[0] == GDML + file.name for file in files)
    assert all(file.remote.hash is None for file in files)


def test_the_archive_of_revised_md17_has_its_published_address_and_md5():
    assert read_card("md17").file("rmd17.tar.bz2").remote == RemoteFile(
        "rmd17.tar.bz2",
        (
            "https://figshare.com/ndownloader/files/23950376",
            "https://archive.materialscloud.org/records/pfffs-fff86/files/rmd17.tar.bz2?download=1",
        ),
        "md5:cb1a927628d96f2e966025da4fb63d18",
    )


@pytest.mark.parametrize("stem", REVISED.split())
def test_a_revised_molecule_is_a_member_of_the_archive(stem):
    molecule = "salicylic acid" if stem == "salicylic" else stem
    file = read_card("md17").file(group="revised", molecule=molecule)
    assert (file.name, file.archive) == (f"rmd17/npz_data/rmd17_{stem}.npz", "rmd17.tar.bz2")
    assert file.records == (99_988 if stem == "azobenzene" else 100_000)


def test_the_coupled_cluster_files_have_their_published_levels_and_splits():
    files = read_card("md17").select(group="coupled cluster")
    facts = {file.name: (file.molecule, file.level_of_theory, file.train, file.test) for file in files}
    assert facts == COUPLED_CLUSTER
    assert all(file.records == file.train + file.test for file in files)
    assert all(file.urls[0] == GDML + file.name for file in files)


def test_the_files_of_md22_have_their_published_names_and_frames():
    files = read_card("md22").files
    assert {file.name: file.records for file in files} == MD22_FRAMES
    assert {file.urls[0] for file in files} == {
        f"http://www.quantum-machine.org/gdml/repo/datasets/{name}" for name in MD22_FRAMES
    }


@pytest.mark.parametrize("name", ["md17", "md22"])
def test_the_frames_of_the_files_add_up_to_those_of_the_card(name):
    card = read_card(name)
    assert sum(file.records or 0 for file in card.files) == card.records


def test_the_archive_of_iso17_has_its_published_size_and_members():
    card = read_card("iso17")
    archive, *members = card.files
    assert archive.remote.urls[0] == "http://www.quantum-machine.org/datasets/iso17.tar.gz"
    assert (archive.remote.size, archive.remote.hash) == (799_712_882, None)
    assert [member.name.removeprefix("iso17/") for member in members] == [
        *(f"{name}.db" for name in ("reference", "reference_eq", "test_within", "test_other", "test_eq")),
        "train_ids.txt",
        "validation_ids.txt",
    ]


# 1 Hartree = 27.211386245988 eV, 1 Bohr = 0.529177210903 Å, 1 kcal/mol = 0.0433641042418009 eV.
@pytest.mark.parametrize(
    ("name", "entry", "factor"),
    [
        ("qm9", "U0", 27.211386245988),
        ("qm9", "energy", 27.211386245988),
        ("qm9", "zpve", 27.211386245988),
        ("qm9", "gap", 27.211386245988),
        ("qm9", "alpha", 0.148184711472163),
        ("qm9", "r2", 0.280028520539078),
        ("qm9", "mu", 1.0),
        ("qm9", "A", 1.0),
        ("qm9", "Cv", 1.0),
        ("md17", "energy", 0.0433641042418009),
        ("md17", "forces", 0.0433641042418009),
        ("md22", "forces", 0.0433641042418009),
        ("iso17", "energy", 1.0),
        ("iso17", "forces", 1.0),
    ],
)
def test_a_property_converts_by_the_factor_computed_by_hand(name, entry, factor):
    assert read_card(name).factor(entry) == pytest.approx(factor, rel=1e-14, abs=0)


@pytest.mark.parametrize(("name", "entry"), PROPERTIES)
def test_every_property_is_in_a_unit_of_ours(name, entry):
    unit = read_card(name).property(entry).unit
    assert unit in ("eV", "eV/Å", "eV/Å^3", "Å", "Å^2", "Å^3", "D", "GHz", "cal/mol/K", "e", "")


def test_qm9_has_all_published_properties_under_their_names():
    names = ["A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv"]
    card = read_card("qm9")
    assert [entry.published for entry in card.properties if entry.name in names] == names
    assert card.property("energy").published == "U0"


def test_the_atoms_of_qm9_have_the_values_of_their_file():
    path = SHARED / "atomref.txt"
    if not path.is_file():
        pytest.skip("needs the shared reference data")
    rows = [line.split() for line in path.read_text().splitlines() if re.match(r"\s+[HCNOF]\s", line)]
    read = {row[0]: [float(value) for value in row[1:]] for row in rows}
    atomref = read_card("qm9").atomref
    assert list(atomref) == ["zpve", "U0", "U", "H", "G", "Cv"]
    assert read == {element: [values[element] for values in atomref.values()] for element in "HCNOF"}


def test_a_hydrogen_atom_of_qm9_has_its_published_energy():
    assert read_card("qm9").atomref["U0"]["H"] == -0.500273


@pytest.mark.parametrize("name", ["atomref.txt", "uncharacterized.txt"])
def test_a_checked_file_of_qm9_has_the_size_and_hashes_of_the_card(name):
    if not (SHARED / name).is_file():
        pytest.skip("needs the shared reference data")
    content = (SHARED / name).read_bytes()
    file = read_card("qm9").file(name)
    assert file.checked
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
    assert hashlib.md5(content).hexdigest() == file.md5


@pytest.mark.parametrize("part", [1, 2, 3])
def test_the_package_of_qm9_has_the_files_of_the_card(part):
    spec = importlib.util.find_spec("qm9pack")
    if spec is None:
        pytest.skip("needs qm9pack: pip install 'pyg-schnet[qm9]'")
    file = read_card("qm9").file(f"qm9pack/data/qm9_part{part}.csv")
    content = (Path(spec.origin).parents[1] / file.name).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
    assert content.count(b"\n") == file.records + 1  # and a header


def test_the_package_of_qm9_is_pinned_to_the_version_of_the_card():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = [file.package for file in read_card("qm9").files if file.package]
    assert set(packages) == set(project["optional-dependencies"]["qm9"])
    records = [file.records for file in read_card("qm9").files if file.package]
    assert sum(records) == 130_831


def test_the_sample_of_md17_is_as_its_card_says():
    card = read_card("md17")
    path = ROOT / "datasets/md17" / card.sample.file
    with np.load(path, allow_pickle=False) as file:
        energy, numbers = file["E"], file["z"]
    assert energy.shape == (card.sample.records, 1) == (1500, 1)
    assert set(numbers.tolist()) <= {{"H": 1, "C": 6, "N": 7, "O": 8}[symbol] for symbol in card.elements}
    # kcal/mol as published, and that times 0.0433641042418009 by hand
    assert energy[0, 0] == pytest.approx(-7139.09697673, abs=1e-8)
    assert energy[0, 0] * card.factor("energy") == pytest.approx(-309.580545, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_the_hash_of_its_card(name):
    sample = read_card(name).sample
    if sample is None or sample.sha256 is None:
        pytest.skip("the card gives no hash of a sample")
    content = (ROOT / "datasets" / name / sample.file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == sample.sha256


def test_cards_are_the_toml_files_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "toy.toml").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(cards, "_FOLDER", tmp_path)
    assert card_names() == ("toy",)
    assert read_card("toy").title == "A toy"


def test_the_hash_of_a_download_is_sha256_else_md5_else_none():
    keys = {"name": "a.zip", "checked": True, "urls": ("https://example.org/a",)}
    sha256, md5 = "1" * 64, "2" * 32
    assert CardFile(**keys, sha256=sha256, md5=md5).remote.hash == f"sha256:{sha256}"
    assert CardFile(**keys, md5=md5).remote.hash == f"md5:{md5}"
    assert CardFile(**keys, bytes=7).remote == RemoteFile("a.zip", ("https://example.org/a",), None, 7)


def test_a_member_of_an_archive_is_nothing_to_download(toy):
    file = toy().file("toy/one.npz")
    with pytest.raises(ValueError, match=r"toy/one\.npz.*address.*toy\.zip"):
        _ = file.remote


def test_files_are_selected_by_group_and_molecule(toy):
    card = toy()
    assert [file.name for file in card.select(group="first")] == ["toy/one.npz", "toy/two.npz"]
    assert card.file(group="first", molecule="hydroxyl").name == "toy/two.npz"
    assert card.select() == card.files


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"group": "frist"}, "`group` must be one of 'first'; got 'frist'. Did you mean 'first'?"),
        (
            {"group": "first", "molecule": "Water"},
            "`molecule` must be one of 'water', 'hydroxyl'; got 'Water'. Did you mean 'water'?",
        ),
        (
            {"name": "toy.tar"},
            "`name` must be one of 'toy.zip', 'toy/one.npz', 'toy/two.npz'; got 'toy.tar'.",
        ),
        (
            {"group": "first"},
            "`group`, `molecule` or `name` must select one file, got toy/one.npz, toy/two",
        ),
    ],
)
def test_a_selection_without_just_one_file_is_refused(toy, keys, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        toy().file(**keys)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("QM9", f"`name` must be one of {str(NAMES)[1:-1]}; got 'QM9'. Did you mean 'qm9'?"),
        ("../qm9/card", "got '../qm9/card'."),
        ("ani1x", "got 'ani1x'."),
    ],
)
def test_an_unknown_card_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_card(name)


def test_an_unknown_property_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"`property`.*'z'.*'u0'.*'U0'"):
        read_card("qm9").factor("u0")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "license =",
            "licence =",
            "`licence` must be one of the keys name, title, .*Did you mean 'license'?",
        ),
        ('license = "CC0 1.0"\n', "", "`license` must be given, got none"),
        ("year = 2020", 'year = "2020"', "`year` must be a whole number, got '2020'"),
        ("year = 2020", "year = true", "`year` must be a whole number, got True"),
        ('title = "A toy"', "title = 1", "`title` must be text, got 1"),
        ('["H", "O"]', '"HO"', "`elements` must be a list, got 'HO'"),
        ('["H", "O"]', '["H", 8]', r"`elements\[1\]` must be text, got 8"),
        ("[splits]", "[splits]\nfirst = 1", r"`splits.first` must be text, got 1"),
        ("[[properties]]", "[properties]", "`properties` must be a list, got {"),
        ("O = -2.5", 'O = "2.5"', "`atomref.energy.O` must be a number, got '2.5'"),
        (
            "checked = false",
            'checked = false\nsha265 = "1"',
            "in files 'toy.zip': `sha265` must be one of the keys .*Did you mean 'sha256'?",
        ),
        (
            "checked = false",
            'checked = false\nsha256 = "abc"',
            "in files 'toy.zip': `sha256` must be 64 hexadecimal digits in lower case, got 'abc'",
        ),
        (
            "checked = false",
            f'checked = false\nsha256 = "{"A" * 64}"',
            "`sha256` must be 64 hexadecimal digits in lower case, got 'AAAA",
        ),
        (
            "checked = false",
            f'checked = false\nmd5 = "{"1" * 64}"',
            "`md5` must be 32 hexadecimal digits in lower case, got '1111",
        ),
        ("https://example.org/toy.zip", "ftp://example.org/toy.zip", "in files 'toy.zip': `urls` must"),
        ('"toy.zip"', '"../toy.zip"', r"in files '../toy.zip': `name` must"),
        ("checked = false", "checked = 0", "in files 'toy.zip': `checked` must be true or false, got 0"),
        (
            'archive = "toy.zip"\n',
            "",
            "in files 'toy/one.npz': one of `urls`, `archive` and `package` must be given, got none",
        ),
        (
            'archive = "toy.zip"\n',
            'archive = "toy.zip"\npackage = "toy==1"\n',
            r"one of `urls`, `archive` and `package` must be given, got \['archive', 'package'\]",
        ),
        (
            'archive = "toy.zip"',
            'archive = "boy.zip"',
            "`name` must be one of .*; got 'boy.zip'. Did you mean",
        ),
        (
            'archive = "toy.zip"',
            'archive = "toy/two.npz"',
            "`archive` of toy/one.npz must be a file with `urls`, got 'toy/two.npz'",
        ),
        ('"toy/two.npz"', '"toy/one.npz"', "`files` must have names of their own, got 'toy/one.npz' twice"),
        ('unit = "eV"', 'unit = "ev"', "in properties 'energy': `ours` must be a unit .* Did you mean 'eV'?"),
        ('unit = "eV"', 'unit = "Å"', "in properties 'energy': `published` and `ours` must measure the same"),
        (", O = -2.5", "", "`atomref.energy` must have values for H, O; got H"),
        (
            "energy = {",
            "enregy = {",
            "`property` must be one of 'energy'; got 'enregy'. Did you mean 'energy'?",
        ),
        ("year = 2020", "year = ", "Invalid value"),
    ],
)
def test_a_mistake_in_a_card_is_named_with_file_and_key(toy, tmp_path, old, new, message):
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(tmp_path / 'card.toml'))}: .*{message}".replace("?", r"\?")
    ):
        toy(old, new)


def test_a_card_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "card.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ValueError, match=r"card\.toml.*'utf-8'"):
        read_card_file(tmp_path / "card.toml")


def test_whole_numbers_serve_as_reference_energies(toy):
    energy = toy().atomref["energy"]
    assert energy == {"H": -1.0, "O": -2.5}
    assert {type(value) for value in energy.values()} == {float}


def test_a_card_does_not_change(toy):
    with pytest.raises(FrozenInstanceError):
        toy().records = 4


def printed(card, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(card)
    return console.file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_card_prints_in_80_columns_what_one_must_know(name):
    card = read_card(name)
    text = printed(card)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    words = " ".join(text.split())
    for fact in (card.title, card.doi, f"{card.records:,}", *card.elements, *card.splits):
        assert fact in words
    for entry in card.properties:
        assert entry.name in words
    for file in card.files:
        assert file.name.split("/")[-1] in words
    for sentence in (*card.defects, *card.splits.values()):
        assert " ".join(sentence.split()[:4]) in words
    for line in card.bibtex.strip().splitlines():
        assert f"  {line}" in text  # not broken: to be copied


def test_brackets_in_a_card_are_printed(toy):
    text = printed(toy('description = "Energy"', 'description = "Energy [total]"'))
    assert "None [known]." in text
    assert "Energy [total]" in text


def test_a_member_of_an_archive_is_printed_below_it(toy):
    assert re.search(r"^ +toy\.zip .*\n(.*\n)+ +…/one\.npz +water", printed(toy()), flags=re.MULTILINE)


def test_a_printed_file_has_size_and_hash(toy):
    digits = "0123456789abcdef" * 4
    card = toy("checked = false", f'checked = false\nbytes = 86_144_227\nsha256 = "{digits}"')
    assert re.search(r"toy\.zip +86\.1 MB +SHA-256 01234567… +no", printed(card))
    card = toy("checked = false", f'checked = false\nbytes = 964\nmd5 = "{digits[:32]}"')
    assert re.search(r"toy\.zip +964 B +MD5 01234567… +no", printed(card))
