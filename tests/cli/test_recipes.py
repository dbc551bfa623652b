"""The recipes of the package are listed and printed, and what is printed is a recipe again."""

import json
from pathlib import Path

import pytest

from pyg_schnet import cli
from pyg_schnet.io.recipes import data_set_of, find_recipe, named_recipes, read_title

ROOT = Path(__file__).parents[2]


def test_the_list_has_each_recipe_with_its_title_and_that_for_own_files_first(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["recipes"]) == 0
    text = capsys.readouterr().out
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2:3].strip()]
    assert listed[0] == "own_file"
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "datasets").glob("*/recipes/*.yaml"))
    assert "Energies and forces of one molecule from a file of your" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_printed_recipe_is_that_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes", "own_file"]) == 0
    text = capsys.readouterr().out
    assert text == find_recipe("own_file").read_text(encoding="utf-8")
    Path("mine.yaml").write_text(text, encoding="utf-8")
    assert cli.main(["train", "mine.yaml"]) == 2
    assert "got the recipe's FILE; add --data.path" in capsys.readouterr().err


def test_json_has_paths_titles_and_text(capsys):
    assert cli.main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {name: Path(entry["path"]) for name, entry in listed.items()} == named_recipes()
    assert cli.main(["recipes", "own_file", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"].startswith(f"# {listed['own_file']['title']}\n")


def test_an_unknown_recipe_is_told_with_the_nearest(capsys):
    assert cli.main(["recipes", "own_fiel"]) == 2
    message = capsys.readouterr().err
    assert "own_fiel: no such recipe" in message
    assert "Did you mean 'own_file'?" in message


@pytest.mark.parametrize("name", named_recipes())
def test_the_title_of_a_recipe_is_a_sentence(name):
    title = read_title(named_recipes()[name])
    assert title[0].isupper()
    assert title.endswith(".")


def test_a_recipe_without_a_comment_has_no_title(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {path: mine.xyz}\n")
    assert read_title(path) == ""


@pytest.mark.parametrize("path", ["datasets/silicon/recipes/mlearn.yaml", "recipes/silicon/mlearn.yaml"])
def test_a_recipe_belongs_to_the_data_set_of_its_folder_in_a_clone_and_in_the_wheel(path):
    assert data_set_of(Path(path)) == "silicon"
