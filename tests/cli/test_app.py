"""The command line: each command on the sample, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule
from torch_geometric.data import Data

from pyg_schnet import Potential, SchNet, cli, load
from pyg_schnet.cli import app, train
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials.checkpoint import provenance, save

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
RECIPES = sorted((ROOT / "datasets").glob("*/recipes/*.yaml"))

TINY = {
    "data": {"path": str(SAMPLE), "n_train": 64, "n_val": 16},
    "model": {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "cutoff": 4.0},
    "trainer": {"max_steps": 4, "val_every": 2},
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(TINY))
    assert cli.main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def ethanol(tmp_path):
    path = tmp_path / "ethanol.xyz"
    ase.io.write(path, molecule("CH3CH2OH"))
    return str(path)


def fails(capsys, arguments: list[str]) -> str:
    """Run, expect exit code 2 and nothing but one message, and return it."""
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("pyg-schnet: ")
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("kind", ["nan weight", "infinite scale", "overflow"])
@pytest.mark.parametrize("verb", ["predict", "evaluate", "select", "relax", "md", "plot", "calibrate"])
def test_numbers_that_are_not_finite_are_no_success(verb, kind, run, tmp_path, capsys):
    potential, model = load(run / "model.safetensors"), tmp_path / "model.safetensors"
    with torch.no_grad():
        for name, weight in potential.model.named_parameters():
            weight.mul_(1e30 if kind == "overflow" and "filter_network" in name else 1.0)
        if kind == "nan weight":
            next(potential.model.parameters())[0, 0] = torch.nan
        if kind == "infinite scale":
            potential.scale.fill_(torch.inf)
    save(potential, model)
    start, several, out = tmp_path / "in.xyz", f"{model},{run / 'model.safetensors'}", tmp_path / "out.extxyz"
    ase.io.write(start, [molecule("CH3CH2OH")] * 2)
    arguments = {
        "predict": ["predict", str(model), str(start), str(out)],
        "evaluate": ["evaluate", str(model), str(SAMPLE)],
        "select": ["select", several, str(start), str(out)],
        "relax": ["relax", str(model), str(start), str(out)],
        "md": ["md", str(model), str(start), str(out), "--duration", "0.001"],
        "plot": ["plot", str(model), str(SAMPLE), "--only", "parity", "--out", str(tmp_path)],
        "calibrate": ["evaluate", several, str(SAMPLE), "--calibrate", str(tmp_path / "ensemble.json")],
    }[verb]
    message = fails(capsys, arguments)
    assert "must be finite" in message or "must hold finite numbers" in message
    assert not out.exists()
    assert not (tmp_path / "ensemble.json").exists()


def test_train_writes_the_files_of_a_run(run):
    files = {path.name for path in run.iterdir()}
    assert files == {
        ".pyg-schnet-run",
        "model.safetensors",
        "last.safetensors",
        "config.yaml",
        "split.npz",
        "metrics.csv",
        "tensorboard",
        "learning_curve.png",
    }


def test_the_resolved_configuration_is_a_recipe_again(run, tmp_path):
    out = str(tmp_path / "again")
    assert cli.main(["train", str(run / "config.yaml"), "--out", out, "--quiet"]) == 0
    first, again = (load(folder / "model.safetensors").state_dict() for folder in (run, tmp_path / "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_options_win_over_the_recipe_and_quiet_prints_nothing(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--trainer.max_steps", "2", "--data.n_val=8", "--out", str(out), "--quiet"]
    assert cli.main(["train", recipe, *options]) == 0
    assert capsys.readouterr() == ("", "")
    told = provenance(out / "model.safetensors")
    assert told["trainer"]["max_steps"] == 2
    assert told["n_val"] == 8


def test_a_model_that_was_trained_with_pygs_settings_becomes_one_of_pyg(recipe, tmp_path):
    settings = ["cutoff=5", "envelope=cosine", "final_activation=false", "last_center=null", "gamma=null"]
    options = [f"--model.{setting}" for setting in settings]
    assert cli.main(["train", recipe, *options, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    potential = load(tmp_path / "run" / "model.safetensors")
    theirs = potential.model.double().to_pyg(potential.scale, potential.atomref)
    atoms = molecule("CH3CH2OH")
    z, pos = torch.from_numpy(atoms.numbers), torch.from_numpy(atoms.positions)
    energy = potential(Data(z=z, pos=pos), forces=False)["energy"]
    assert float(theirs(z, pos).detach()) == pytest.approx(float(energy), abs=1e-9)


def test_the_recipe_for_an_own_file_takes_half_an_hour_at_most():
    path = ROOT / "datasets" / "md17" / "recipes" / "own_file.yaml"
    assert yaml.safe_load(path.read_text())["trainer"]["max_minutes"] == 30


def test_an_existing_run_is_refused_resumed_or_overwritten(recipe, tmp_path, capsys):
    out = str(tmp_path / "run")
    arguments = ["train", recipe, "--out", out, "--quiet"]
    assert cli.main(arguments) == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert "exists; choose another --out" in fails(capsys, arguments)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert cli.main([*arguments, "--resume", "--trainer.max_steps", "6"]) == 0
    assert "6" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].split(",")[0]
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_training_takes_no_folder_with_a_recipe_for_its_own(tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    for name in ("metrics.csv", "tensorboard/events.out.tfevents.1.host"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("years of work")
    Path("config.yaml").write_text(yaml.safe_dump(TINY))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "is not a run" in fails(capsys, ["train", "config.yaml", "--out", ".", flag])
    assert "`out` must name a folder" in fails(capsys, ["train", "config.yaml", "--out", "", flag])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_evaluate_prints_one_json_object_with_the_promised_keys(run, capsys):
    arguments = ["evaluate", str(run / "model.safetensors"), str(SAMPLE), "--part", "test", "--json"]
    assert cli.main(arguments) == 0
    errors = json.loads(capsys.readouterr().out)
    names = {"energy_mae", "energy_rmse", "forces_mae", "forces_rmse"}
    assert set(errors) == {"n", *names, *(f"{name}_kcal" for name in names)}
    assert errors["n"] == 1500 - 64 - 16
    assert errors["forces_mae_kcal"] == pytest.approx(errors["forces_mae"] / 0.0433641042)


def test_a_recipe_without_data_says_what_to_add(tmp_path, capsys):
    recipe = SAMPLE.parent / "recipes" / "own_file.yaml"
    assert cli.main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    told = "`data.path` must name your data, got the recipe's FILE; add --data.path …"
    assert told in capsys.readouterr().err


def test_a_recipe_that_comes_with_the_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for recipe in ("own_file", "own_file.yaml", "datasets/md17/recipes/own_file.yaml"):
        assert "add --data.path" in fails(capsys, ["train", recipe])
        assert "add --data.path" in fails(capsys, ["train", f"--config={recipe}"])
    message = fails(capsys, ["train", "own_fiel"])
    assert "own_fiel: no such recipe" in message
    assert "md17_n1000" in message
    assert "Did you mean 'own_file'?" in message


def test_a_file_wins_over_a_recipe_of_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("own_file").write_text("data: {path: mine.xyz}")
    assert "mine.xyz" in fails(capsys, ["train", "own_file"])


def test_a_run_stands_for_its_model(run, ethanol, tmp_path, capsys):
    energies = []
    for name, model in (("a", run), ("b", run / "model.safetensors")):
        out = tmp_path / f"{name}.extxyz"
        assert cli.main(["predict", str(model), ethanol, str(out), "--quiet"]) == 0
        energies.append(ase.io.read(out).get_potential_energy())
    assert energies[0] == energies[1]
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty"), ethanol, str(tmp_path / "c.extxyz")]
    assert "empty: must be a checkpoint or the directory of a training run" in fails(
        capsys, ["md", *arguments]
    )


PROBE = """
import json, resource, sys
from pyg_schnet.cli import main
for arguments in json.loads(sys.argv[1]):
    try: main(arguments)
    except SystemExit: pass
use = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"modules": sorted(sys.modules), "seconds": use.ru_utime + use.ru_stime}))
"""
SLOW = {"torch", "torch_geometric", "ase", "matplotlib", "scipy", "numpy", "lightning_fabric"}


def start(*commands: list[str]) -> dict:
    """Run commands in a process of their own: what they import, and CPU seconds since the start of Python."""
    command = [sys.executable, "-c", PROBE, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_version_and_help_of_the_program_import_neither_commands_nor_their_parser():
    for option in ("--version", "--help"):
        modules = set(start([option])["modules"])
        assert not modules & {*SLOW, "jsonargparse", *(f"pyg_schnet.cli.{name}" for name in app.COMMANDS)}


def test_help_and_mistakes_of_commands_import_nothing_slow():
    helped = [[name, "--help"] for name in app.COMMANDS]
    assert not set(start(*helped, ["md", "--temp", "3"], ["recipes"])["modules"]) & SLOW


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="it does not account CPU time so")
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_take_less_than_three_tenths_of_a_second_of_cpu(option):
    assert min(start([option])["seconds"] for _ in range(3)) < 0.3  # 0.09 s; 0.3 s allows a slower machine


def test_evaluate_prints_a_table_and_draws(run, capsys, tmp_path):
    picture = tmp_path / "parity.png"
    arguments = ["evaluate", str(run / "model.safetensors"), str(SAMPLE), "--plot", str(picture)]
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out
    assert re.search(r"energy .* meV .* kcal/mol", told)
    assert "64 of these structures were trained on, which makes errors small; --part test" in told
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_predict_writes_what_the_potential_says(run, ethanol, tmp_path):
    out = tmp_path / "out.extxyz"
    assert cli.main(["predict", str(run / "model.safetensors"), ethanol, str(out)]) == 0
    written = ase.io.read(out)
    atoms = ase.io.read(ethanol)
    from pyg_schnet.simulation import SchNetCalculator

    atoms.calc = SchNetCalculator(run / "model.safetensors")
    assert written.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(written.get_forces(), atoms.get_forces(), atol=1e-6)  # 8 decimals in the file


def test_relax_lowers_the_force_and_its_exit_code_tells_convergence(run, ethanol, tmp_path, capsys):
    out = str(tmp_path / "relaxed.xyz")
    arguments = ["relax", str(run / "model.safetensors"), ethanol, out]
    assert cli.main([*arguments, "--steps", "1", "--fmax", "1e-9"]) == 1
    assert "NOT converged after 1 steps" in capsys.readouterr().out
    assert cli.main([*arguments, "--overwrite", "--fmax", "100"]) == 0
    assert "converged after 0 steps" in capsys.readouterr().out


def test_relax_reports_fragments_and_exits_with_1(run, ethanol, tmp_path, capsys):
    start, out = tmp_path / "apart.xyz", tmp_path / "relaxed.extxyz"
    atoms = ase.io.read(ethanol)
    atoms.positions *= 3
    ase.io.write(start, atoms)
    arguments = ["relax", str(run / "model.safetensors"), str(start), str(out), "--fmax", "100"]
    assert cli.main([*arguments, "--json"]) == 1
    row = json.loads(capsys.readouterr().out)["results"][0]
    assert not row["converged"]
    assert row["fmax"] < 100
    for name in ("stopped", "start_outside"):
        assert "fragments" in row[name]
        assert ase.io.read(out).info[name] == row[name]
    assert ase.io.read(out).info["fmax"] == pytest.approx(row["fmax"])
    assert cli.main([*arguments, "--overwrite"]) == 1
    text = capsys.readouterr().out
    assert "NOT converged after 0 steps" in text
    assert "the start of frame 0 is outside of the training domain: it is in" in text


def test_md_writes_a_trajectory_and_tells_the_drift(run, ethanol, tmp_path, capsys):
    out = tmp_path / "md.extxyz"
    arguments = ["md", str(run / "model.safetensors"), ethanol, str(out), "--duration", "0.005"]
    # Ten steps: what was trained for four steps soon leaves the distances of its training set.
    assert cli.main([*arguments, "--temperature", "50", "--interval", "5"]) == 0
    assert re.search(r"energy drift +[+-]\d+\.\d{4} meV/atom/ps", capsys.readouterr().out)
    assert len(ase.io.read(out, ":")) == 3  # steps 0, 5, 10


@pytest.mark.parametrize("verb", ["predict", "relax", "md"])
def test_an_existing_output_is_refused_and_left_alone(verb, run, ethanol, tmp_path, capsys):
    out = tmp_path / "out.xyz"
    out.write_text("precious")
    message = fails(capsys, [verb, str(run / "model.safetensors"), ethanol, str(out)])
    assert "exists" in message
    assert out.read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.pth", "x"], r"`--data\.pth` is not an option\. Did you mean `--data\.path`\?"),
        (
            ["--trainer.max_step=3"],
            r"`--trainer\.max_step` is not an option\. Did you mean `--trainer\.max_steps`",
        ),
        (["--epochs", "10"], r"`--epochs` is not an option\. Did you mean `--trainer\.max_steps`\?"),
        (["--trainer.lr", "fast"], r"`--trainer\.lr` must be a number, got 'fast'"),
        (["--trainer.max_steps", "1.5"], r"`--trainer\.max_steps` must be a whole number, got '1\.5'"),
        (["--trainer.max_minutes", "x"], r"`--trainer\.max_minutes` must be a number or null, got 'x'"),
        (["--data.memory_map", "maybe"], r"`--data\.memory_map` must be true or false, got 'maybe'"),
        (["--data.path"], r"`--data\.path` must be followed by a value"),
        (["more"], r"`more` is one argument too many; usage: pyg-schnet train RECIPE "),
        (["--trainer.schedule", "linear"], r"`trainer\.schedule` must be one of 'cosine', .* got 'linear'"),
        (["--data.path", "nowhere.npz"], r"nowhere\.npz: no such file"),
        (["--model.cutoff", "-5"], r"`cutoff` must be positive, finite and in Å .*, got -5\.0"),
        (["--data.n_train", "100000"], r"`data\.n_train` and `data\.n_val` must .* fit into the 1500"),
        (["--resume", "--overwrite"], r"`--resume` and `--overwrite` exclude each other"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(arguments, message, recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert re.search(message, fails(capsys, ["train", recipe, "--out", str(out), *arguments]))
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "trainer: {max_step: 3}",
            r"`trainer\.max_step` is not an option\. Did you mean `trainer\.max_steps`",
        ),
        ("- a\n- b", r"must hold options by name, got list"),
        ("a: [", r"must be YAML"),
        ("!!python/object/apply:os.system ['true']", r"must be YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_name(text, message, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    told = fails(capsys, ["train", str(path)])
    assert re.search(message, told)
    assert str(path) in told


def test_a_missing_recipe_is_named(capsys):
    assert "nowhere.yaml: no such recipe" in fails(capsys, ["train", "nowhere.yaml"])


def test_a_foreign_element_is_refused(run, tmp_path, capsys):
    path = tmp_path / "in.xyz"
    ase.io.write(path, molecule("CH3Cl"))
    message = fails(capsys, ["predict", str(run / "model.safetensors"), str(path), str(tmp_path / "out.xyz")])
    assert "`z` contains 17, which was absent from training" in message
    assert not (tmp_path / "out.xyz").exists()


@pytest.mark.parametrize(
    ("part", "message"),
    [("tset", r"`part` must be one of train, val, test; got 'tset'")],
)
def test_a_wrong_part_is_named(part, message, run, capsys):
    assert re.search(
        message, fails(capsys, ["evaluate", str(run / "model.safetensors"), str(SAMPLE), "--part", part])
    )


def test_a_part_of_another_file_is_refused(run, tmp_path, capsys):
    with np.load(SAMPLE) as file:
        np.savez(
            tmp_path / "short.npz", **{key: file[key][:9] if key in "EFR" else file[key] for key in "EFRz"}
        )
    message = fails(
        capsys, ["evaluate", str(run / "model.safetensors"), str(tmp_path / "short.npz"), "--part", "test"]
    )
    assert "splits a file of 1500 structures, got one of 9" in message


def test_part_needs_the_split_of_the_run(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    save(Potential(SchNet(8, 8, 1, 8, 4.0)), path)
    message = fails(capsys, ["evaluate", str(path), str(SAMPLE), "--part", "test"])
    assert "split.npz: no such file; training writes it beside" in message


@pytest.mark.parametrize(
    ("verb", "files", "options", "message"),
    [
        ("predict", ("in.foo", "out.xyz"), [], r"in\.foo: ASE cannot read it"),
        ("predict", ("empty.xyz", "out.xyz"), [], r"empty\.xyz: "),
        ("predict", ("in.xyz", "out.foo"), [], r"out\.foo: ASE has no format of this extension"),
        ("predict", ("in.xyz", "no/out.xyz"), [], r"no/out\.xyz: its folder does not exist"),
        (
            "predict",
            ("in.xyz", "out.xyz"),
            ["--device", "tpu"],
            r"`--device` must be 'cpu', 'cuda', 'cuda:1' or another device of PyTorch's, got 'tpu'",
        ),
        ("predict", ("in.xyz", "out.xyz"), ["--threads", "0"], r"`--threads` must be at least 1, got 0"),
        ("relax", ("in.xyz", "out.xyz"), ["--index", "5"], r"in\.xyz: has no structure 5; they count from 0"),
        ("relax", ("none.xyz", "out.xyz"), [], r"none\.xyz"),
        ("md", ("in.xyz", "out.xyz"), ["--timestep", "0"], r"`timestep` must be positive and in fs, got 0"),
        ("md", ("in.xyz", "out.foo"), [], r"out\.foo"),
    ],
)
def test_wrong_files_and_settings_are_named_before_any_work(
    verb, files, options, message, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.xyz", molecule("CH3CH2OH"))
    Path("in.foo").write_text("what is this")
    Path("empty.xyz").write_text("")
    before = sorted(tmp_path.iterdir())
    assert re.search(message, fails(capsys, [verb, str(run / "model.safetensors"), *files, *options]))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/parity.png", "its folder does not exist"), ("parity.foo", "must be a picture with extension .eps")],
)
def test_a_picture_that_cannot_be_written_is_named_before_the_work(name, message, run, tmp_path, capsys):
    arguments = ["evaluate", str(run / "model.safetensors"), "nowhere.npz", "--plot", str(tmp_path / name)]
    assert message in fails(capsys, arguments)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_a_configuration(path):
    parser = train.build()
    options = parser.parse_args(["--config", str(path)])
    assert options.trainer.max_steps > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_recipes_train_the_paper_s_network(path):
    if path.parts[-3] in ("silicon", "organic"):
        pytest.skip("all pairs of a molecule are none of a crystal, nor of molecules of any size")
    if path.stem == "u0_wide":
        pytest.skip("its network is wider than the paper's on purpose")
    config = SchNetConfig(**yaml.safe_load(path.read_text())["model"])
    expected = SchNetConfig.paper(readout=config.readout, dipole=config.dipole)
    assert config == expected


def test_a_recipe_may_hold_energies_by_element(recipe, tmp_path):
    options = yaml.safe_load(Path(recipe).read_text())
    options["data"]["references"] = {"H": -16.0, "C": -1000.0, "O": -2000.0}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(options))
    assert cli.main(["train", str(tmp_path / "own.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    atomref = load(tmp_path / "run" / "model.safetensors").atomref
    # Each element has the given energy and the same share of what is left: the mean residual an atom.
    assert float(atomref[6] - atomref[1]) == pytest.approx(-984.0, abs=1e-9)
    assert float(atomref[8] - atomref[1]) == pytest.approx(-1984.0, abs=1e-9)


@pytest.mark.parametrize("verb", ["", *app.COMMANDS])
def test_help_fits_80_columns_and_gives_an_example(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        sys.exit(cli.main([*([verb] if verb else []), "--help"]))
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    assert " \\\n" not in text  # each example fits into a line
    assert re.search(rf"\n\nDocumentation: https://\S+{verb and f'/cli/{verb}.html'}\n$", text)
    if verb:
        assert re.match(rf"usage: pyg-schnet {verb} [^\n]*\[--key value …\]\n\n", text)
    assert re.search(rf"\n\n(Examples?|From a file to molecular dynamics):\n  pyg-schnet {verb}", text)
    assert not re.search(r"\(type:|\bnull, default|\[options\]|<class|CONFIG\b", text)


def test_without_arguments_the_commands_are_listed_with_a_line_each(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert dict(re.findall(r"^  ([a-z]+) +(.+)", text, re.M)).items() >= app.COMMANDS.items()
    assert len(re.findall("^  pyg-schnet ", text, re.M)) == 6


@pytest.mark.parametrize("name", app.COMMANDS)
def test_each_command_is_a_module(name):
    assert find_spec(f"pyg_schnet.cli.{name}") is not None


def test_defaults_are_told_where_they_tell_something(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main(["relax", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "on the cell, in GPa (default: 0.0)" in text
    assert "also relax the cells, of one structure after the other --pressure" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "x"], "COMMAND must be one of data, .*; got 'trian'. Did you mean 'train'[?]"),
        (["--foo"], "`--foo` is not an option. See pyg-schnet --help"),
        (["relax"], "`MODEL`, `IN` and `OUT` must be given; usage: pyg-schnet relax MODEL IN OUT "),
        (["train"], "`--data.path` must be given; usage: pyg-schnet train RECIPE "),
        (["relax", "a", "b", "c", "--fmx", "3"], "`--fmx` is not an option. Did you mean `--fmax`[?]"),
        (["evaluate", "a", "b", "--overwrit"], "`--overwrit` is not an option. Did you mean `--overwrite`"),
        (["data", "qm9", "--rot", "x"], "`--rot` is not an option. Did you mean `--root`[?]"),
        (["relax", "a", "b", "c", "--fmax", "much"], "`--fmax` must be a number, got 'much'"),
        (["relax", "a", "b", "c", "--fmax"], "`--fmax` must be followed by a value"),
        (["md", "a", "b", "c", "--seed", "x"], "`--seed` must be a whole number, got 'x'"),
        (["md", "a", "b", "c", "--closest", "x"], "`--closest` must be a number or null, got 'x'"),
        (
            ["relax", "a", "b", "c", "d"],
            "`d` is one argument too many; usage: pyg-schnet relax",
        ),
        (["evaluate", "a", "b", "--json=3"], "`--json` must have no value, got '3'"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_with_a_way_out(arguments, message, capsys):
    told = fails(capsys, arguments)
    assert re.search(message, told)
    assert told.count("\n") == 1


def test_the_exit_code_tells_a_mistake_from_a_failure(monkeypatch, capsys):
    def fail(error):
        def run(options):
            raise error

        monkeypatch.setattr("pyg_schnet.cli.select.run", run)
        return cli.main(["select", "a,b", "pool.xyz", "out.xyz"])

    assert fail(ValueError("wrong")) == fail(FileNotFoundError("absent")) == 2
    assert fail(FloatingPointError("diverged")) == fail(RuntimeError("broken")) == 1
    assert fail(KeyboardInterrupt()) == 130


def test_train_prints_one_json_object_if_asked(recipe, tmp_path, capsys):
    assert cli.main(["train", recipe, "--out", str(tmp_path / "run"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == str(tmp_path / "run" / "model.safetensors")
    assert told["steps"] == 4
    assert told["best"]["step"] in (2, 4)
    assert told["best"]["val_forces_mae_eV_per_A"] > 0


def test_evaluate_may_be_quiet(run, capsys, tmp_path):
    picture = tmp_path / "parity.png"
    arguments = ["evaluate", str(run / "model.safetensors"), str(SAMPLE), "--part", "val", "--quiet"]
    assert cli.main([*arguments, "--plot", str(picture)]) == 0
    assert capsys.readouterr() == ("", "")
    assert picture.exists()


def test_models_of_different_splits_have_no_common_test_set(run, recipe, tmp_path, capsys):
    def arguments(other):
        models = ",".join(str(folder / "model.safetensors") for folder in (run, other))
        return ["evaluate", models, str(SAMPLE), "--part", "test", "--json"]

    shutil.copytree(run, tmp_path / "same")
    assert cli.main(arguments(tmp_path / "same")) == 0
    other = tmp_path / "other"
    assert cli.main(["train", recipe, "--data.seed", "1", "--out", str(other), "--quiet"]) == 0
    capsys.readouterr()
    message = fails(capsys, arguments(other))
    assert "`--part` must be the same structures for all models, got different splits beside " in message


@pytest.fixture(scope="module")
def in_hartree(tmp_path_factory):
    """Return the sample in Hartree and Bohr, and the run that was told so."""
    folder = tmp_path_factory.mktemp("hartree")
    with np.load(SAMPLE) as file:
        arrays = {"z": file["z"], "R": file["R"] / 0.529177210903}
        arrays |= {"E": file["E"] / 627.5094740631, "F": file["F"] / 627.5094740631 * 0.529177210903}
    np.savez(folder / "frames.npz", **arrays)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(TINY))
    options = ["--data.path", str(folder / "frames.npz"), "--data.units", "Hartree, Bohr", "--quiet"]
    assert cli.main(["train", str(folder / "recipe.yaml"), *options, "--out", str(folder / "run")]) == 0
    return folder


def test_evaluate_reads_data_in_the_units_of_the_run(run, in_hartree, capsys):
    def errors(model, *arguments):
        assert cli.main(["evaluate", str(model / "run" / "model.safetensors"), *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    told = errors(in_hartree, str(in_hartree / "frames.npz"))
    assert told["units"] == "Hartree, Bohr"
    same = errors(in_hartree, str(SAMPLE), "--units", "kcal/mol")
    assert "units" not in same
    for name in ("energy_mae", "forces_mae"):
        assert told[name] == pytest.approx(same[name], rel=1e-5)
    assert "units" not in errors(run.parent, str(SAMPLE))


def test_evaluate_reads_the_labels_that_were_trained_on(tmp_path, capsys):
    with np.load(SAMPLE) as file:
        arrays = {"z": file["z"], "R": file["R"], "E": file["E"] + 100, "dft": file["E"], "slope": file["F"]}
    np.savez(tmp_path / "frames.npz", **arrays)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(TINY))
    data = ["--data.path", str(tmp_path / "frames.npz"), "--data.units", "kcal/mol"]
    data += ["--data.energy_key", "dft", "--data.forces_key", "slope"]
    run = tmp_path / "run"
    assert cli.main(["train", str(tmp_path / "recipe.yaml"), *data, "--out", str(run), "--quiet"]) == 0

    def errors(*arguments):
        assert cli.main(["evaluate", str(run), *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    own = errors(str(tmp_path / "frames.npz"))
    assert own["keys"] == {"energy_key": "dft", "forces_key": "slope"}
    same = errors(str(SAMPLE), "--energy_key", "E", "--forces_key", "F", "--units", "kcal/mol")
    assert "keys" not in same
    for name in ("energy_mae", "forces_mae"):
        assert own[name] == pytest.approx(same[name], rel=1e-6)
    other = errors(str(tmp_path / "frames.npz"), "--energy_key", "E", "--forces_key", "none")
    assert "forces_mae" not in other
    assert other["energy_mae"] > 4  # eV: 100 kcal/mol


def test_models_of_runs_with_different_units_need_one(run, in_hartree, capsys):
    models = f"{run / 'model.safetensors'},{in_hartree / 'run' / 'model.safetensors'}"
    message = fails(capsys, ["evaluate", models, str(SAMPLE)])
    assert "`--units` must be given" in message


def findings_of_bonds(capsys):
    findings = json.loads(capsys.readouterr().out)["findings"]
    return [finding for finding in findings if finding["check"] == "bonds"]


def test_check_reads_structures_in_the_units_of_the_run(in_hartree, capsys):
    arguments = ["check", str(in_hartree / "run" / "model.safetensors"), str(in_hartree / "frames.npz")]
    assert cli.main([*arguments, "--only", "bonds", "--json"]) in (0, 1)
    assert "skip" not in [each["verdict"] for each in findings_of_bonds(capsys)]  # there are none at 1.89 Å


def test_check_reads_other_formats_in_the_units_that_are_given(run, tmp_path, capsys):
    atoms = molecule("CH3CH2OH")
    atoms.positions /= 0.529177210903
    ase.io.write(tmp_path / "bohr.xyz", atoms)
    arguments = [
        "check",
        str(run / "model.safetensors"),
        str(tmp_path / "bohr.xyz"),
        "--only",
        "bonds",
        "--json",
    ]
    assert cli.main([*arguments, "--units", "Hartree, Bohr"]) in (0, 1)
    assert "skip" not in [each["verdict"] for each in findings_of_bonds(capsys)]


@pytest.mark.process
def test_a_charge_is_told_in_one_line(run, tmp_path):
    """In a process of its own, for pytest keeps warnings for itself."""
    atoms = molecule("CH3CH2OH")
    atoms.info["charge"] = 1
    ase.io.write(tmp_path / "in.xyz", atoms)
    model = str(run / "model.safetensors")
    code = "import sys; from pyg_schnet import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        code,
        "predict",
        model,
        str(tmp_path / "in.xyz"),
        str(tmp_path / "out.xyz"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stderr.splitlines() if "charge" in line)
    assert line.startswith("pyg-schnet: `atoms.info` holds a charge, 1, which is ignored")


def test_a_path_may_hold_a_comma(run, tmp_path):
    folder = tmp_path / "lr=1e-3,cutoff=5"
    shutil.copytree(run, folder)
    assert cli.main(["evaluate", str(folder / "model.safetensors"), str(SAMPLE), "--json"]) == 0
