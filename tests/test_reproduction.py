"""The paper's tables are made by recipes and commands, and pages hold what the ledgers hold."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import reproduce  # noqa: E402
from benchmarks.reproduction import ledger, pages, plots, running  # noqa: E402
from benchmarks.reproduction.cells import MOLECULES, Sources, cells, other_value, paper_value  # noqa: E402
from benchmarks.reproduction.ledger import Entry  # noqa: E402
from pyg_schnet import Ensemble, load  # noqa: E402
from pyg_schnet.datasets import AtomsDataset  # noqa: E402
from pyg_schnet.potentials.metrics import evaluate  # noqa: E402

TABLES = ("table1", "table2", "table2-revised", "table3", "qm9-targets")
ENTRY = Entry(
    table="table2", row="ethanol", column="schnet-1k-both", quantity="energy", unit="kcal/mol", n_train=1000,
    labels="original", split="01", seed=0, steps=10, minutes=1.23, device="x86_64", threads=1, commit="abc",
    mae=0.0767, paper=0.08,
)  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_each_cell_has_a_recipe_that_names_known_options(table):
    from pyg_schnet.cli.train import with_recipe

    for cell in cells(table, Sources()):
        if cell.model != "gdml":
            with_recipe([str(ROOT / cell.recipe), *cell.options])


@pytest.mark.parametrize("table", TABLES)
def test_a_cell_without_its_data_says_what_it_needs(table):
    for cell in cells(table, Sources()):
        assert cell.missing.startswith(("needs ", "its kernel takes "))


def test_table_2_has_one_recipe_for_all_molecules():
    recipes = {c.recipe for c in cells("table2", Sources()) if c.column == "schnet-1k-both"}
    assert recipes == {"datasets/md17/recipes/md17_n1000.yaml"}
    assert {row for cell in cells("table2", Sources()) for row in cell.rows} == set(MOLECULES)


def test_the_papers_numbers_are_those_of_its_tables():
    assert paper_value("table1", "110462", "schnet", "energy") == 0.31
    assert paper_value("table1", "100000", "dtnn", "energy") == 0.84
    assert paper_value("table2", "aspirin", "schnet-1k-both", "forces") == 1.35
    assert paper_value("table2", "toluene", "gdml-1k", "energy") == 0.12
    assert paper_value("table2", "benzene", "dtnn-50k-energy", "forces") is None
    assert paper_value("table3", "unknown", "schnet-both", "energy") == 2.40
    assert paper_value("table2-revised", "ethanol", "schnet-1k-both", "energy") is None
    assert other_value("table2-revised", "aspirin", "forces") == 1.039
    assert other_value("table2-revised", "aspirin", "energy") is None
    assert other_value("table2", "aspirin", "forces") is None
    assert other_value("qm9-targets", "zpve", "zpve") == 0.001616


def test_a_ledger_keeps_the_last_number_of_each_cell(tmp_path):
    path = tmp_path / "results.csv"
    other = dataclasses.replace(ENTRY, row="benzene", paper=None)
    ledger.record(path, [ENTRY, other])
    ledger.record(path, [dataclasses.replace(ENTRY, mae=0.05)])
    found = ledger.read(path)
    assert [(e.row, e.mae, e.paper) for e in found] == [("benzene", 0.0767, None), ("ethanol", 0.05, 0.08)]
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
    assert ledger.read(tmp_path / "none.csv") == []


def test_a_table_shows_ours_beside_the_papers():
    worse = dataclasses.replace(ENTRY, quantity="forces", mae=0.4567, paper=0.39)
    lines = pages.table("table2", [ENTRY, worse]).splitlines()
    energy, forces = (line for line in lines if line.startswith("| ethanol"))
    assert "| **0.077** (0.08) |" in energy
    assert "| – (0.93) |" in energy
    assert "| 0.457 (0.39) |" in forces
    assert len({line.count("|") for line in lines if line}) == 1


@pytest.mark.parametrize(
    ("name", "rows", "parts"), [("table1", 3, 1), ("table2", 8, 2), ("table3", 2, 2), ("qm9-targets", 11, 1)]
)
def test_tables_have_a_row_for_each_of_the_papers(name, rows, parts):
    tables = pages.table(name, []).split("\n\n")
    assert [len(table.splitlines()) - 2 for table in tables] == parts * [rows]


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_pages_hold_what_the_ledgers_hold(page):
    text = page.read_text(encoding="utf-8")
    assert pages.with_tables(text) == text, "run python benchmarks/reproduce.py pages"
    outdated = text.replace("| ethanol |", "| methanol |")
    assert outdated != text
    assert pages.with_tables(outdated) == text


def test_the_summary_has_the_best_column_of_table_2():
    lines = pages.summary("table2-summary", [ENTRY]).splitlines()
    assert len(lines) == 2 + len(MOLECULES)
    assert "| ethanol | **0.077** (0.08) | – (0.39) |" in lines


def test_runs_of_a_column_are_joined_in_one_row():
    other = dataclasses.replace(ENTRY, row="benzene", steps=2000, minutes=2.5, commit="def")
    forces = dataclasses.replace(ENTRY, quantity="forces")  # of the same run
    row = pages.runs("", [ENTRY, forces, other]).splitlines()[-1]
    recipe = "[md17_n1000.yaml](../datasets/md17/recipes/md17_n1000.yaml)"
    assert row == f"| table2 | SchNet, 1k, both | {recipe} | 2 | 10 to 2,000 | 1.2 to 2.5 | abc, def |"


def write_parts(folder, count):
    """A few frames of the sample in the layout of revised MD17."""
    with np.load(ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz") as sample:
        for number, part in enumerate(("train_01", "test_02", "test_01")):
            frames = slice(count * number, count * (number + 1))
            arrays = {"nuclear_charges": sample["z"], "coords": sample["R"][frames]}
            for prefix in ("", "old_"):
                arrays[f"{prefix}energies"] = sample["E"][frames].reshape(-1)
                arrays[f"{prefix}forces"] = sample["F"][frames]
            np.savez(folder / f"rmd17_ethanol_{part}.npz", **arrays)


@pytest.fixture
def own_ledger(tmp_path, monkeypatch):
    """A ledger and pages of this test's own."""
    monkeypatch.setattr(ledger, "path_of", lambda dataset: tmp_path / f"{dataset}.csv")
    monkeypatch.setattr(pages, "write", lambda: None)
    return tmp_path / "md17.csv"


@pytest.mark.nightly
def test_a_cell_is_trained_measured_and_taken_down_once(tmp_path, own_ledger, monkeypatch, capsys):
    write_parts(tmp_path, 20)
    recipe = ROOT / "datasets" / "md17" / "recipes" / "md17_n1000.yaml"
    short = yaml.safe_load(recipe.read_text())
    short["trainer"] |= {"max_steps": 4, "val_every": 2}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(short))
    original = running._call
    monkeypatch.setattr(
        running,
        "_call",
        lambda command, folder: original(
            [str(tmp_path / "short.yaml") if a == str(recipe) else a for a in command], folder
        ),
    )
    arguments = ["table2", "--md17", str(tmp_path), "--rows", "ethanol", "--columns", "schnet-1k-both"]
    arguments += ["--runs", str(tmp_path / "runs"), "--threads", "1"]
    assert reproduce.main(arguments) == 0
    energy, forces = ledger.read(own_ledger)
    assert (energy.quantity, energy.n_train, energy.steps, energy.threads) == ("energy", 20, 4, 1)
    assert (energy.paper, forces.paper) == (0.08, 0.39)
    folder = tmp_path / "runs" / "table2-ethanol-schnet-1k-both"
    said = original(
        [
            *running._program(""),
            *("evaluate", str(folder / "model.safetensors"), str(tmp_path / "rmd17_ethanol_test_01.npz")),
            *("--json", "--energy_key", "old_energies", "--forces_key", "old_forces"),
        ],
        folder,
    )
    assert forces.mae == pytest.approx(json.loads(said)["forces_mae_kcal"], rel=1e-4)
    capsys.readouterr()
    assert reproduce.main(arguments) == 0  # it is in the ledger
    assert capsys.readouterr().out == ""


@pytest.fixture
def short_cell(tmp_path, monkeypatch):
    """A cell of a checkout of its own, whose recipe is made by `recipe(steps)`."""
    write_parts(tmp_path, 20)
    monkeypatch.setattr(running, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(running, "commit", lambda: "abc")
    (tmp_path / "checkout").mkdir()
    model = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1}

    def recipe(steps):
        text = yaml.safe_dump(
            {"data": {"path": "x"}, "model": model, "trainer": {"max_steps": steps, "val_every": 2}}
        )
        (tmp_path / "checkout" / "short.yaml").write_text(text)

    cell = cells("table2", Sources(md17=tmp_path))[0]
    cell = dataclasses.replace(
        cell,
        rows={"ethanol": (str(tmp_path / "rmd17_ethanol_test_01.npz"), "--energy_key", "old_energies")},
        recipe="short.yaml",
        options=tuple(option.replace("benzene", "ethanol") for option in cell.options),
    )
    return cell, recipe


@pytest.mark.nightly
def test_a_run_that_was_kept_goes_on_elsewhere(tmp_path, short_cell):
    cell, recipe = short_cell
    steps = []
    for runs, last in (("one", 2), ("two", 4)):
        recipe(last)
        entries = running.measure(cell, tmp_path / runs / cell.name, 1, [])
        steps.append(entries[0].steps)
        if runs == "one":
            running.keep([cell], tmp_path / "one")
            kept = running.unfinished_of(cell)
            assert sorted(path.name for path in kept.iterdir()) == [
                *("config.yaml", "last.safetensors", "metrics.csv", "model.safetensors", "split.npz")
            ]
            assert not [path.name for path in kept.iterdir() if str(tmp_path).encode() in path.read_bytes()]
    assert steps == [2, 4]
    assert not running.unfinished_of(cell).exists()
    rows = (tmp_path / "two" / cell.name / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4"]


@pytest.mark.nightly
def test_an_ensemble_is_trained_with_other_seeds_and_measured_as_one(tmp_path, short_cell):
    cell, recipe = short_cell
    recipe(4)
    cell = dataclasses.replace(cell, members=2)
    folder = tmp_path / "runs" / cell.name
    (entry, _) = running.measure(cell, folder, 1, [])
    models = [folder / f"seed-{seed}" / "model.safetensors" for seed in (0, 1)]
    labels = AtomsDataset(
        path=str(tmp_path / "rmd17_ethanol_test_01.npz"), energy_key="old_energies", forces_key="old_forces"
    )
    expected = evaluate(Ensemble.load(models), labels).as_dict()
    assert entry.mae == pytest.approx(expected["energy_mae_kcal"], rel=1e-4)
    assert not torch.equal(*(load(model).model.embedding.weight for model in models))
    running.keep([cell], tmp_path / "runs")
    assert sorted(path.name for path in running.unfinished_of(cell).iterdir()) == ["seed-0", "seed-1"]


@pytest.mark.nightly
def test_a_cell_that_fails_is_told_and_leaves_no_row(tmp_path, own_ledger, capsys):
    arguments = ["table2", "--md17", str(tmp_path), "--rows", "ethanol", "--columns", "schnet-1k-both"]
    assert reproduce.main([*arguments, "--runs", str(tmp_path / "runs")]) == 1
    assert "table2-ethanol-schnet-1k-both: failed, see " in capsys.readouterr().out
    log = (tmp_path / "runs" / "table2-ethanol-schnet-1k-both.log").read_text()
    assert "rmd17_ethanol_train_01.npz" in log
    assert ledger.read(own_ledger) == []


def test_plots_are_drawn_of_what_there_is(tmp_path):
    curve = dataclasses.replace(ENTRY, table="table1", row="50000", column="schnet", n_train=50000)
    assert [path.name for path in plots.draw([ENTRY, curve], tmp_path)] == ["table2.png", "table1.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert plots.draw([], tmp_path / "none") == []


def test_gdml_is_run_by_its_own_program_where_its_kernel_fits(tmp_path, own_ledger, monkeypatch, capsys):
    commands = []

    def call(command, folder):
        commands.append(command)
        return json.dumps(
            {"points": 1000, "seconds": 90, "energy_mae": 0.15, "forces_mae": 0.78, "sigma": 20}
        )

    monkeypatch.setattr(running, "_call", call)
    monkeypatch.setattr(running, "python_of", lambda name: f"{name}/python")
    arguments = ["table2", "--md17", str(tmp_path), "--rows", "ethanol", "aspirin", "--columns", "gdml-1k"]
    assert reproduce.main([*arguments, "--runs", str(tmp_path / "runs")]) == 0
    ((python, program, *files, option, limit),) = commands
    assert (python, option, limit) == ("sgdml/python", "--memory", "12")
    assert program.endswith("benchmarks/baselines/gdml.py")
    assert [Path(file).name for file in files] == [
        f"rmd17_ethanol_{part}.npz" for part in ("train_01", "test_02", "test_01")
    ]
    energy, forces = ledger.read(own_ledger)
    assert (energy.mae, forces.mae, forces.paper, forces.unit) == (0.15, 0.78, 0.79, "kcal/mol/Å")
    assert (energy.minutes, energy.n_train) == (1.5, 1000)
    assert "table2-aspirin-gdml-1k: its kernel takes 32 GB, more than 12" in capsys.readouterr().out
