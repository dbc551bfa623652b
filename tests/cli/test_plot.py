"""The command `plot`: pictures that it draws, structures that it uses, and options that it rejects."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import ase.io
import matplotlib.figure
import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.training import RunDirectory

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
ALL = ["learning_curve", "parity", "errors", "filters", "filter_profiles", "atoms", "elements"]
TINY = {
    "data": {"path": str(SAMPLE), "n_train": 64, "n_val": 1424},  # 12 are left to test
    "model": {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "cutoff": 4.0},
    "trainer": {"max_steps": 2, "val_every": 2, "batch_size": 8},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plot")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(TINY))
    assert cli.main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A run of one's own, to change."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def quick(monkeypatch):
    """Pictures of few points: files are there, and drawn in no time."""
    save_in_full = matplotlib.figure.Figure.savefig

    def coarsely(self, path, **kwargs):
        self.set_layout_engine("none")
        save_in_full(self, path, **{**kwargs, "dpi": 10})

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", coarsely)


def fails(capsys, *arguments) -> str:
    capsys.readouterr()
    assert cli.main(["plot", *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("pyg-schnet: ")
    assert message.count("\n") == 1
    return message


def told(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert cli.main(["plot", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_pictures_of_a_run_are_drawn_on_what_training_left(run, capsys, quick):
    found = told(capsys, run)
    assert list(found["pictures"]) == [name for name in ALL if name != "elements"]
    for name, picture in found["pictures"].items():
        assert picture["file"] == str(run / "plots" / f"{name}.png")
        assert Path(picture["file"]).read_bytes()[:4] == b"\x89PNG"
    assert found["left_out"].keys() == {"elements"}
    assert "one composition" in found["left_out"]["elements"]
    assert found["structures"] == f"the test part of {SAMPLE}, 12 structures"
    assert found["errors"]["n"] == 12
    left = RunDirectory(run).read_split().test.tolist()
    worst = found["worst"]["forces"]
    assert len(worst) == 5
    assert {one["structure"] for one in worst} <= set(left)
    assert list(found["quantiles"]["energy"]) == ["50", "90", "95", "99"]
    assert found["pictures"]["atoms"]["shows"] == f"energies of the atoms of structure {left[0]}"


def test_a_table_says_what_is_where(run, capsys, quick):
    assert cli.main(["plot", str(run), "--only", "errors", "filters"]) == 0
    text = capsys.readouterr().out
    assert "errors.png" in text
    assert "10 Å by 10 Å" not in text  # the cutoff is 4 Å
    assert "8 Å by 8 Å through all 8 filters" in re.sub(r"[\s│]+", " ", text)
    assert "worst energies: structures " in text
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["errors.png", "filters.png"]


def test_brackets_and_colons_in_names_are_printed_as_they_are(run, tmp_path, capsys, quick):
    odd = tmp_path / "set [" / "bold] :x: [" / "y]"
    odd.parent.mkdir(parents=True)
    run.rename(odd)
    assert cli.main(["plot", str(odd), "--only", "errors"]) == 0
    words = "".join(capsys.readouterr().out.split())  # of a title that goes over several lines
    assert words.startswith(f"Picturesin{odd}/plots".replace(" ", ""))
    file = odd / "[red].png"
    assert (
        cli.main(
            ["evaluate", str(odd / "model.safetensors"), str(SAMPLE), "--part", "test", "--plot", str(file)]
        )
        == 0
    )
    assert str(file) in capsys.readouterr().out


def test_quiet_says_nothing(run, capsys, quick):
    assert cli.main(["plot", str(run), "--only", "elements", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("form", "start"), [("pdf", b"%PDF"), ("svg", b"<?xm")])
def test_formats_and_folders_may_be_chosen(run, tmp_path, form, start, quick):
    arguments = ["--only", "learning_curve", "--format", form, "--out", str(tmp_path / "here"), "--quiet"]
    assert cli.main(["plot", str(run), *arguments]) == 0
    assert (tmp_path / "here" / f"learning_curve.{form}").read_bytes().startswith(start)


def test_pictures_that_exist_are_replaced_only_when_asked(run, capsys, quick):
    (run / "plots").mkdir()
    path = run / "plots" / "elements.png"
    path.write_text("precious")
    assert "elements.png: exists; use another --out, or --overwrite" in fails(capsys, run)
    assert path.read_text() == "precious"
    assert cli.main(["plot", str(run), "--only", "elements", "--overwrite", "--quiet"]) == 0
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_checkpoint_alone_has_filters_and_elements(run, tmp_path, capsys, quick):
    shutil.copy(run / "model.safetensors", tmp_path / "model.safetensors")
    found = told(capsys, tmp_path / "model.safetensors")
    assert list(found["pictures"]) == [name for name in ALL if name not in found["left_out"]]
    assert sorted(found["left_out"]) == ["atoms", "errors", "learning_curve", "parity"]
    message = fails(capsys, tmp_path / "model.safetensors", "--only", "parity", "--out", tmp_path / "x")
    assert "`--only parity` cannot be drawn: a checkpoint alone has no structures; pass FILE" in message


def test_a_checkpoint_is_compared_with_all_of_another_file(run, tmp_path, capsys, quick):
    with np.load(SAMPLE) as file:
        first = {key: file[key][:7] if key in "EFR" else file[key] for key in file.files}
    np.savez(tmp_path / "other.npz", **first)
    found = told(capsys, run / "model.safetensors", tmp_path / "other.npz", "--only", "parity,atoms")
    assert found["errors"]["n"] == 7
    assert found["pictures"]["atoms"]["shows"].endswith("structure 0")


def test_of_the_file_it_was_trained_on_a_checkpoint_sees_what_was_left(run, capsys, quick):
    found = told(capsys, run / "model.safetensors", SAMPLE, "--only", "errors")
    assert found["structures"].startswith("the test part of ")
    assert found["errors"]["n"] == 12
    found = told(capsys, run, SAMPLE, "--only", "errors", "--part", "train", "--overwrite")
    assert found["errors"]["n"] == 64


def test_many_structures_are_drawn_in_part(run, capsys, quick):
    found = told(capsys, run, "--only", "errors", "--part", "val", "--max_structures", "9")
    assert found["structures"].startswith("9 of the val part of ")
    assert found["errors"]["n"] == 9


def test_structures_without_labels_have_atoms_only(run, tmp_path, capsys, quick):
    ase.io.write(tmp_path / "bare.xyz", [molecule("CH3CH2OH"), molecule("C2H6")])
    found = told(capsys, run / "model.safetensors", tmp_path / "bare.xyz", "--index", ":")
    assert list(found["pictures"]) == [name for name in ALL if name not in found["left_out"]]
    assert sorted(found["left_out"]) == ["errors", "learning_curve", "parity"]
    assert found["pictures"]["atoms"]["shows"].endswith("structures 0, 1")
    assert "has no energy" in found["left_out"]["parity"]


def test_a_run_without_a_test_part_is_drawn_on_its_validation(run, capsys, quick):
    directory = RunDirectory(run)
    split = directory.read_split()
    with np.load(directory.split) as file:
        hashes = file["sha256"].tolist()
    directory.write_split(split._replace(test=split.test[:0]), 1500, hashes)
    found = told(capsys, run, "--only", "errors", "--max_structures", "5")
    assert "the val part of " in found["structures"]


def test_atoms_of_a_mean_are_not_drawn(tmp_path, capsys, quick):
    save(Potential(SchNet(8, 8, 1, 8, 4.0, readout="mean"), elements=[1, 6]), tmp_path / "mean.safetensors")
    ase.io.write(tmp_path / "bare.xyz", molecule("C2H6"))
    found = told(capsys, tmp_path / "mean.safetensors", tmp_path / "bare.xyz")
    assert "is not a sum over atoms" in found["left_out"]["atoms"]


def test_a_crystal_of_one_element_has_no_map_of_elements(tmp_path, capsys, quick):
    from ase.build import bulk

    save(Potential(SchNet(8, 8, 1, 8, 4.0), elements=[14]), tmp_path / "si.safetensors")
    ase.io.write(tmp_path / "si.xyz", bulk("Si", cubic=True))
    found = told(capsys, tmp_path / "si.safetensors", tmp_path / "si.xyz")
    assert list(found["pictures"]) == [name for name in ALL if name not in found["left_out"]]
    assert sorted(found["left_out"]) == ["elements", "errors", "learning_curve", "parity"]
    assert "the model has one element" in found["left_out"]["elements"]
    assert "10 Å" not in found["pictures"]["filters"]["shows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "fitlers"], r"`--only` must name pictures, .*; got 'fitlers'\. Did you mean 'filters'\?"),
        (["--format", "jpg"], r"`--format` must be png, pdf or svg, got 'jpg'"),
        (["--out", "no/where"], r"no: does not exist; create it first"),
        (["--out", ""], "`--out` must name a folder"),
        (["--out", "config.yaml"], r"config\.yaml: is a file; `--out` must be a folder"),
        (["--index", "ten"], r"`--index` must be a number or a slice"),
        (
            ["--index", "1500"],
            r"`--index` must be below 1500, the number of structures in the file, got 1500",
        ),
        (["--index", "::2"], r"`--index` must choose 1 to 12 structures, got 750 of 1500"),
        (["--part", "tset"], r"`part` must be one of train, val, test; got 'tset'"),
        (["--max_structures", "0"], r"`--max_structures` must be at least 1, got 0"),
        (["nowhere.npz"], r"nowhere\.npz: no such file"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_drawn(run, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(run)
    assert re.search(message, fails(capsys, run, *arguments))
    assert not (run / "plots").exists()


def test_a_run_is_named_that_lacks_what_is_drawn(run, tmp_path, capsys):
    (run / "metrics.csv").unlink()
    assert re.search(r"metrics\.csv: must hold a validation to draw the learning curve", fails(capsys, run))
    (run / "model.safetensors").unlink()
    message = fails(capsys, run, "--only", "filters")
    assert "model.safetensors: does not exist yet; the first validation writes it" in message
    (run / "config.yaml").unlink()
    assert "is not a run of pyg-schnet (it has no config.yaml)" in fails(capsys, run)
    assert "nowhere: no such run or checkpoint" in fails(capsys, tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "model: {}", "data: here"])
def test_a_config_of_another_program_is_named(run, text, capsys):
    (run / "config.yaml").write_text(text)
    assert f"{run / 'config.yaml'}: must have a section `data`" in fails(capsys, run, "--only", "errors")


def test_data_that_moved_away_are_named(run, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["path"] = "moved.npz"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    message = fails(capsys, run)
    assert "moved.npz: does not exist, but " in message
    assert f"`pyg-schnet plot {run} FILE`" in message
    assert not (run / "plots").exists()


def test_several_models_and_models_of_others_are_refused(run, tmp_path, capsys):
    assert "`plot` takes one model, got " in fails(capsys, f"{run},{run}")
    assert "`plot` takes one model, got " in fails(capsys, run / "ensemble.json")
    save(Potential(torch.nn.MultiheadAttention(1, 1)), tmp_path / "other.safetensors")
    message = fails(capsys, tmp_path / "other.safetensors")
    assert "is of MultiheadAttention, which is not a SchNet and has no filters to draw" in message
