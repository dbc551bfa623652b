"""The command ``data``: on the sample, on stand-ins of the published sets, and on wrong options."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pyg_schnet import cli, datasets
from pyg_schnet.datasets import AtomsDataset

DATASETS = Path(__file__).parents[2] / "datasets"
SAMPLE = DATASETS / "md17" / "ethanol_gfn2_xtb.npz"


@pytest.fixture
def asked(monkeypatch):
    """Stand-ins of the published sets; what each was asked for."""
    calls = []

    def stand_in(name):
        def make(*arguments, **options):
            calls.append((name, arguments, options))
            return AtomsDataset(path=SAMPLE)[:50]

        make.names = lambda: ("ethanol", "revised ethanol")
        return make

    for name in ("QM9", "MD17", "MD22", "ISO17"):
        monkeypatch.setattr(datasets, name, stand_in(name))
    return calls


def text(capsys, *arguments) -> str:
    assert cli.main(["data", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def fails(capsys, *arguments) -> str:
    assert cli.main(["data", *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("pyg-schnet: ")
    return message


def test_a_file_is_recognized_and_summarized(capsys):
    told = text(capsys, SAMPLE)
    assert re.search(r"energy +'E' \(kcal/mol\)", told)
    assert re.search(r"structures +1,500, not periodic", told)
    assert re.search(r"forces, RMS +0\.9908 +eV/Å +22\.848 +kcal/mol/Å", told)
    assert "No warnings." in told
    assert "picture" not in told


def test_the_page_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = text(capsys, SAMPLE)
    path = str(SAMPLE)
    assert max(len(line) for line in told.replace(path, "").splitlines()) <= 80


def test_json_is_one_object_and_nothing_else(capsys):
    told = json.loads(text(capsys, SAMPLE, "--json"))
    assert set(told) == {"data", "labels", "units", "summary", "picture"}
    assert told["data"] == [str(SAMPLE)]
    assert told["units"] == {"energy": "kcal/mol", "length": "Å"}
    assert told["summary"]["structures"] == 1500
    assert told["summary"]["warnings"] == []
    assert told["picture"] is None


def test_quiet_is_nothing(asked, capsys, tmp_path):
    assert text(capsys, SAMPLE, "--quiet") == ""
    assert text(capsys, "qm9", "--root", tmp_path, "--quiet") == ""
    assert (tmp_path / "qm9.png").exists()


def test_units_and_keys_are_passed_on(capsys):
    told = json.loads(text(capsys, SAMPLE, "--units", "eV", "--forces_key", "none", "--json"))
    assert told["units"]["energy"] == "eV"
    assert told["summary"]["forces"] is None


def test_warnings_are_shown(capsys, tmp_path):
    with np.load(SAMPLE) as file:
        arrays = {key: file[key][:60] if key in "REF" else file[key] for key in "zREF"}
    arrays["F"] = arrays["F"] + [1.0, 0, 0]
    np.savez(tmp_path / "drift.npz", **arrays)
    assert "* Forces do not sum to zero" in re.sub(r"\s+", " ", text(capsys, tmp_path / "drift.npz"))


def test_several_files_are_one_set(capsys, tmp_path):
    with np.load(SAMPLE) as file:
        for name, part in {"a.npz": slice(0, 20), "b.npz": slice(20, 50)}.items():
            np.savez(
                tmp_path / name, **{key: file[key][part] if key in "REF" else file[key] for key in "zREF"}
            )
    told = json.loads(text(capsys, tmp_path / "a.npz", tmp_path / "b.npz", "--json"))
    assert told["summary"]["structures"] == 50


def test_a_processed_copy_is_kept_where_asked(capsys, tmp_path):
    text(capsys, SAMPLE, "--root", tmp_path, "--json")
    assert len(list((tmp_path / "processed").glob("*.safetensors"))) == 1


def test_a_processed_file_is_opened_as_it_is(capsys, tmp_path):
    AtomsDataset(str(tmp_path), path=SAMPLE)
    (processed,) = (tmp_path / "processed").glob("*.safetensors")
    told = text(capsys, processed)
    assert "units   kcal/mol and Å\n" in re.sub(" +\n", "\n", told)
    assert "1,500" in told


def test_a_picture_of_a_file_is_drawn_where_asked(capsys, tmp_path):
    assert f"picture: {tmp_path / 'set.png'}" in text(capsys, SAMPLE, "--plot", tmp_path / "set.png")
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "call", "picture"),
    [
        (["qm9"], ("QM9", {}), "qm9.png"),
        (["qm9", "--source", "sdf"], ("QM9", {"source": "sdf"}), "qm9.png"),
        (
            ["md17", "--name", "revised ethanol"],
            ("MD17", {"name": "revised ethanol"}),
            "md17_revised_ethanol.png",
        ),
        (
            ["md17", "--name", "ethanol", "--energy_key", "old_energies"],
            ("MD17", {"name": "ethanol", "energy_key": "old_energies"}),
            "md17_ethanol.png",
        ),
        (["md22", "--name", "AT-AT"], ("MD22", {"name": "AT-AT"}), "md22_AT_AT.png"),
        (["iso17", "--fold", "test_other"], ("ISO17", {"fold": "test_other"}), "iso17_test_other.png"),
    ],
)
def test_a_published_set_is_opened_shown_and_drawn(arguments, call, picture, asked, capsys, tmp_path):
    told = text(capsys, *arguments, "--root", tmp_path)
    assert asked == [(call[0], (str(tmp_path),), call[1])]
    for part in ("Known defects", "How to cite it", "Summary", "No warnings."):
        assert part in told
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_published_set_is_drawn_elsewhere_if_asked(asked, capsys, tmp_path):
    told = json.loads(text(capsys, "qm9", "--root", tmp_path / "qm9", "--plot", tmp_path / "a.pdf", "--json"))
    assert told["picture"] == str(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_the_sample_of_qm9_is_read_by_the_class(capsys, tmp_path):
    sample = DATASETS / "qm9" / "sample.xyz.tar.bz2"
    told = json.loads(text(capsys, "qm9", "--root", tmp_path, "--source", sample, "--json"))
    assert told["summary"]["elements"][0] == "H"
    assert told["summary"]["forces"] is None
    assert told["summary"]["energy"]["ratio_to_free_atoms"] == pytest.approx(1, abs=0.02)
    assert (tmp_path / "qm9.png").is_file()


def test_the_sample_of_md17_is_read_by_the_class(capsys, tmp_path):
    arguments = ["md17", "--name", "ethanol", "--root", tmp_path, "--source", SAMPLE, "--json"]
    assert json.loads(text(capsys, *arguments))["summary"]["frequent"] == [["C2H6O", 1500]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qm9"], r"`--root` must be given, a folder for the files of qm9, got none"),
        (
            ["md17", "--root", "x"],
            r"`--name` must be given with md17, one of 'ethanol', 'revised ethanol'; got none",
        ),
        (["qm9", "--root", "x", "--name", "ethanol"], r"`--name` must be left out with qm9, got 'ethanol'"),
        (["md17", "--root", "x", "--units", "eV"], r"`--units` must be left out with md17, got 'eV'"),
        (["md22", "--root", "x", "--fold", "a"], r"`--fold` must be left out with md22, got 'a'"),
        ([SAMPLE, "--fold", "a"], r"`--fold` must be left out with files, got 'a'"),
        ([], r"`NAME\|FILE \.\.\.` must be given; usage: pyg-schnet data NAME\|FILE \.\.\. \["),
        (["qm99"], r"qm99: no such file, and none of the published data sets qm9, .* Did you mean 'qm9'\?"),
        (["nowhere.npz"], r"nowhere\.npz: no such file, and none of the published data sets"),
        ([SAMPLE, "--units", "kcal"], r"`--units` must name an energy unit .* Did you mean 'kcal/mol'"),
        ([SAMPLE, "--plot", "no/a.png"], r"its folder does not exist"),
        ([SAMPLE, "--plot", "a.foo"], r"a\.foo: must be a picture with extension \.eps"),
    ],
)
def test_wrong_options_are_named(arguments, message, asked, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, fails(capsys, *arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "option"), [("data", "`--units`"), ("train", "`--data.units`")])
def test_a_reader_that_lacks_the_unit_names_the_option_of_the_command(command, option, tmp_path, capsys):
    with np.load(SAMPLE) as sample:
        np.savez(tmp_path / "own.npz", numbers=sample["z"], positions=sample["R"], energy=sample["E"])
    path = str(tmp_path / "own.npz")
    train = ["own_file", "--data.path", path, "--out", str(tmp_path / "RUN")]
    assert cli.main([command, *(train if command == "train" else [path])]) == 2
    assert f"set {option}, for example" in capsys.readouterr().err
