"""The sample of QM9 is what its card says, in the published layout, and its script makes it again.

No import of the package, on purpose: these tests are the yardstick for its own reader.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
import tarfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parents[2] / "datasets/qm9"
SHARED = Path(__file__).parents[2] / "../shared/data/qm9"
SAMPLE = FOLDER / "sample.xyz.tar.bz2"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference data of QM9 are not beside the repository"
)
ROW = {
    "XYZ_file": "dsgdb9nsd_000005.xyz",
    "Index": "5",
    "SMILES": "C#N",
    "InChi": "InChI=1S/CHN/c1-2/h1H",
    "N_atoms": "3",
    "Elements": "['C','N','H']",
    "XYZ_Ang": "[[-0.0133,1.1324657151,8.2E-6],[0.0023107217,-0.0191585871,0.],[-0.0278026991,-2.1E-5,0.01]]",
    "Mulliken_pop": "[-0.049656,-0.188473,0.238128]",
    "Harmonic_Freq_cmi": "[799.0101,799.0101,2198.4393,3490.3686]",
    "RotA_GHz": "0.",
    "Polarizability_bohr3": "13.28",
}


def contents(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read().decode() for member in archive}


@pytest.fixture(scope="module")
def molecules():
    return contents(SAMPLE)


@pytest.fixture(scope="module")
def card():
    return tomllib.loads(
        (FOLDER.parents[1] / "pyg_schnet/datasets/cards/qm9.toml").read_text(encoding="utf-8")
    )


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("make_qm9_sample", FOLDER / "make_sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_has_the_size_hash_and_records_of_its_card(card, molecules):
    content, sample = SAMPLE.read_bytes(), card["sample"]
    assert sample["file"] == SAMPLE.name
    assert sample["sha256"] == hashlib.sha256(content).hexdigest()
    assert sample["records"] == len(molecules) == 120


def test_the_readme_says_the_same():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    content = SAMPLE.read_bytes()
    assert re.findall(r"`([0-9a-f]{64})`", text) == [hashlib.sha256(content).hexdigest()]
    assert f"{len(content):,} bytes" in text
    assert "holds 120 real molecules" in text
    assert len(content) < 100_000


def test_the_names_are_those_of_the_archive_in_its_order(molecules):
    numbers = [int(re.fullmatch(r"dsgdb9nsd_(\d{6})\.xyz", name)[1]) for name in molecules]
    assert numbers == sorted(set(numbers))
    assert numbers[:30] == list(range(1, 31))
    assert numbers[-1] <= 133_885
    for number, text in zip(numbers, molecules.values(), strict=True):
        assert text.split("\n")[1].split("\t")[0] == f"gdb {number}"


def test_each_molecule_has_the_published_lines(molecules):
    for text in molecules.values():
        lines = text.split("\n")
        atoms = int(lines[0])
        assert len(lines) == atoms + 6
        assert lines[-1] == ""
        assert len(lines[1].split("\t")) == 17  # with an empty one at the end
        for line in lines[2 : 2 + atoms]:
            assert re.fullmatch(r"[HCNOF](\t[ -]\d+\.\d*(\*\^-\d)?){4}", line)
        frequencies = [float(number) for number in lines[2 + atoms].split("\t")]
        assert len(frequencies) >= 3 * atoms - 6  # of some molecules they are there twice
        assert min(frequencies) > 0
        smiles, again, end = lines[3 + atoms].split("\t")
        assert (smiles, end) == (again, "")
        assert lines[4 + atoms].startswith("InChI=1S/")


def test_charges_sum_to_zero(molecules):
    for text in molecules.values():
        lines = text.split("\n")
        charges = [float(line.split("\t")[4].replace("*^", "e")) for line in lines[2 : 2 + int(lines[0])]]
        assert sum(charges) == pytest.approx(0, abs=1e-5)


def test_the_sample_has_what_readers_stumble_upon(molecules):
    texts = list(molecules.values())
    assert sum("*^-" in text for text in texts) >= 5
    assert sum("+]" in text.split("\n")[-3] for text in texts) >= 5
    assert sum("\nF\t" in text for text in texts) >= 5
    assert any("\t0.\t" in text for text in texts)
    assert molecules["dsgdb9nsd_000023.xyz"].split("\n")[-3].startswith("C#CC#C\t")


@needs_shared
def test_the_sample_has_the_bytes_of_the_archive(molecules):
    published = contents(SHARED / "dsgdb9nsd_first10.xyz.tar.bz2")
    assert len(published) == 10
    assert {name: molecules[name] for name in published} == published


@needs_shared
def test_no_molecule_of_the_sample_is_uncharacterized(molecules):
    lines = (SHARED / "uncharacterized.txt").read_text().splitlines()[9:-1]
    names = {f"dsgdb9nsd_{int(line.split()[0]):06d}.xyz" for line in lines}
    assert len(names) == 3054
    assert not names & set(molecules)


def test_a_row_is_written_in_the_published_layout(script):
    row = {**dict.fromkeys(script.TARGETS, "1.5"), **ROW}
    assert script.as_xyz(row) == (
        "3\n"
        "gdb 5\t0.\t1.5\t1.5\t1.5\t13.28\t1.5\t1.5\t1.5\t1.5\t1.5\t1.5\t1.5\t1.5\t1.5\t1.5\t\n"
        "C\t-0.0133\t 1.1324657151\t 8.2*^-6\t-0.049656\n"
        "N\t 0.0023107217\t-0.0191585871\t 0.\t-0.188473\n"
        "H\t-0.0278026991\t-2.1*^-5\t 0.01\t 0.238128\n"
        "799.0101\t799.0101\t2198.4393\t3490.3686\n"
        "C#N\tC#N\t\n"
        "InChI=1S/CHN/c1-2/h1H\tInChI=1S/CHN/c1-2/h1H\n"
    )


def test_the_choice_depends_on_the_seed_alone(script):
    kinds = ["C", "CF", "[NH3+]C[O-]"]
    rows = [
        {"Index": str(i), "SMILES": kinds[i % 3], "XYZ_Ang": "[[1E-6]]" if i % 50 == 1 else "[[1.0]]"}
        for i in range(1, 2001)
    ]
    chosen = [int(row["Index"]) for row in script.choose(rows, 1)]
    assert chosen == [int(row["Index"]) for row in script.choose(rows, 1)]
    assert chosen != [int(row["Index"]) for row in script.choose(rows, 2)]
    assert chosen == sorted(set(chosen))
    assert set(range(1, 31)) | {51, 101, 151, 201} <= set(chosen)
    assert 100 < len(chosen) <= 120


def test_without_the_package_the_script_says_what_to_install(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "qm9pack", None)
    with pytest.raises(SystemExit, match=r"qm9pack.*install.*'pyg-schnet\[qm9\]'"):
        script.package_rows()


@pytest.mark.nightly
def test_the_script_makes_the_same_bytes(script, tmp_path, monkeypatch, capsys):
    if importlib.util.find_spec("qm9pack") is None:
        pytest.skip("qm9pack is not installed: pyg-schnet[qm9]")
    monkeypatch.setattr(sys, "argv", ["make_sample.py", "--out", str(tmp_path / "sample.tar.bz2")])
    script.main()
    assert json.loads(capsys.readouterr().out) == {"molecules": 120, "bytes": SAMPLE.stat().st_size}
    assert contents(tmp_path / "sample.tar.bz2") == contents(SAMPLE)
    assert (tmp_path / "sample.tar.bz2").read_bytes() == SAMPLE.read_bytes()
