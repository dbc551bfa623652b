"""The pages for contributors name what exists, and the picture of the layers is that of the contract."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pyg_schnet"
if not PACKAGE.is_dir():
    pytest.skip("there is no source of the package here", allow_module_level=True)

PAGES = [
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "contributing.md",
    *sorted((ROOT / "docs" / "how_to").glob("*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "release" / "README.md",
]
NAMES = ("NAME", "my_models", "trajectory")  # of files that a reader would write

_spec = importlib.util.spec_from_file_location("layers", ROOT / "docs" / "_ext" / "layers.py")
layers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(layers)


@pytest.fixture(scope="module")
def contract() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def new_files(text: str) -> set[str]:
    """Return the files that a page adds: captions of blocks."""
    return {*re.findall(r'^:caption: "`(\S+)`"', text, flags=re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    fences = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
    named = re.findall(r"`([\w.]+/[\w./-]*|[\w-]+\.(?:py|toml|md|cff))`", fences.sub("", text))
    added = {Path(name).as_posix() for name in new_files(text)}
    missing = [
        name
        for name in named
        if not any(word in name for word in NAMES)
        and not any(path.endswith(name) for path in added)
        and not (name == "dist/" or (ROOT / name).exists() or (PACKAGE / name).exists())
    ]
    assert missing == []


def test_the_architecture_names_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\npyg_schnet/\n(.*?)\ndatasets/ ", text, flags=re.DOTALL)[1]
    named = {line.split("/")[0] for line in re.findall(r"^ +(\w+/)", tree, flags=re.MULTILINE)}
    packages = {path.parent.name for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE}
    assert named == packages


def test_the_picture_shows_each_package_below_those_that_import_it(contract):
    rows, exceptions = layers.contract(contract)
    boxes = layers.boxes(rows)
    heights = [row[0].y for row in boxes]
    assert [[box.name for box in row] for row in boxes] == rows
    assert rows[0] == ["cli"]
    assert rows[-1] == ["kernels"]
    assert heights == sorted(heights)
    assert ("potentials", "compile") in exceptions
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {
        name for row in rows for name in row
    }


def test_no_text_of_the_picture_leaves_its_box(contract):
    for row in layers.boxes(layers.contract(contract)[0]):
        for box in row:
            assert box.lines
            assert max(map(len, box.lines)) * layers.LETTER <= box.width - 20
            assert 44 + layers.LINE * (len(box.lines) - 1) < box.height
        assert row[-1].x + row[-1].width <= layers.WIDTH - layers.MARGIN + 2


def test_the_picture_is_well_formed_and_names_the_layers_for_screen_readers(contract):
    picture = ElementTree.fromstring(layers.draw(contract))
    (svg,) = picture
    label = svg.get("aria-label")
    assert label.startswith("Layers, from the top: cli; report; prediction and checks and training;")
    names = [text.text for text in svg.iter("text") if text.get("class") == "name"]
    assert names[0] == "cli"
    assert len(names) == 17
    assert len([path for path in svg.iter("path") if path.get("class") == "exception"]) == 2
