"""Pages of ``docs/api/``: every public name is on exactly one."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.public_names import PACKAGES, public_names

FOLDER = Path(__file__).parents[2] / "docs" / "api"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")


def directives(page: Path) -> list[str]:
    """Return the full names of the objects that the directives of a page document."""
    module, names = "", []
    pattern = r"^\.\. (currentmodule|auto(?:class|function|data|exception)):: (\S+)"
    for kind, name in re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE):
        if kind == "currentmodule":
            module = name
        else:
            names.append(name if name.startswith("pyg_schnet") else f"{module}.{name}")
    return names


def summaries(page: Path) -> list[str]:
    """Return the names in the table at the top of a page, the last part of each."""
    table = re.search(r"autosummary::\n.*?\n\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert table is not None
    return [line.strip(" ~").rpartition(".")[2] for line in table[1].splitlines()]


DOCUMENTED = [name for page in PAGES for name in directives(page)]


def test_every_public_name_is_on_a_page():
    pages = {id(value_of(name)) for name in DOCUMENTED}
    assert sorted(path for path, value in public_names().items() if id(value) not in pages) == []


def test_no_name_is_documented_twice():
    assert sorted({name for name in DOCUMENTED if DOCUMENTED.count(name) > 1}) == []


def test_only_public_names_are_documented():
    known = {id(value) for value in public_names().values()}
    assert [name for name in DOCUMENTED if id(value_of(name)) not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_table_of_a_page_lists_what_the_page_documents(page):
    assert summaries(page) == [name.rpartition(".")[2] for name in directives(page)]


def test_the_index_links_to_all_pages():
    text = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert [
        page.stem for page in PAGES if f"({page.name})" not in text or f"\n{page.stem}\n" not in text
    ] == []


def test_the_index_names_all_packages():
    text = (FOLDER / "index.md").read_text(encoding="utf-8")
    inner = {"pyg_schnet", "pyg_schnet.compile"}  # on the pages of other packages
    assert [package for package in PACKAGES if f"`{package}`" not in text and package not in inner] == []


def value_of(name: str) -> object:
    module, _, own = name.rpartition(".")
    return getattr(import_module(module), own)
