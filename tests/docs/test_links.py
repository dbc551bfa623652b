"""Dead links within the built documentation are found, and others are not reported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXTENSIONS = Path(__file__).parents[2] / "docs" / "_ext"


def extension(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(tmp_path):
    def of(index: str) -> tuple[int, list[str]]:
        (tmp_path / "api").mkdir()
        (tmp_path / "api" / "nn.html").write_text(
            '<a href="../index.html"></a><dt id="Energy_Å"></dt>', "utf-8"
        )
        (tmp_path / "a b.png").write_bytes(b"")
        (tmp_path / "index.html").write_text(index, "utf-8")
        return extension("links").check(tmp_path)

    return of


@pytest.mark.parametrize(
    "link",
    [
        '<a href="api/nn.html">',
        '<a href="api/nn.html#Energy_%C3%85">',
        '<a href="#here"><h1 id="here">',
        '<a href="#"></a>',
        '<img src="a%20b.png?v=1">',
        '<a href="./api/../api/nn.html#">',
    ],
)
def test_a_link_to_what_exists_is_counted(check, link):
    assert check(link) == (2, [])


@pytest.mark.parametrize("link", ["nn.html", "api/nn.html#Energy", "#there", "api", "../index.html"])
def test_a_dead_link_is_named_with_its_page(check, link):
    assert check(f'<a href="{link}">') == (2, [f"index.html: {link}"])


def test_a_missing_picture_or_script_is_named(check):
    assert check('<img src="no.png"><script src="no.js"></script>')[1] == [
        "index.html: no.png",
        "index.html: no.js",
    ]


@pytest.mark.parametrize(
    "link", ["https://example.org/a#b", "mailto:a@example.org", "data:image/png;base64,AA", "//e.org/x"]
)
def test_other_sites_are_not_followed(check, link):
    assert check(f'<a href="{link}">') == (1, [])


def test_links_from_the_source_lead_to_the_name_under_which_an_object_is_documented():
    pytest.importorskip("sphinx")
    names = {("nn.readout", "Mean.combine"): "nn.Mean.combine", ("nn.radial", "Cutoff"): "nn.radial.Cutoff"}
    for module, wrong, right in (
        ("nn.readout", "nn.readout.Mean.combine", "nn.Mean.combine"),
        ("nn.radial", "nn.Cutoff", "nn.radial.Cutoff"),
        ("nn.radial", "nn.Unknown", "nn.Unknown"),
    ):
        link = '<a class="viewcode-back" href="../api/nn.html#{}">'
        corrected = extension("reexports").with_anchors(link.format(wrong), module, names)
        assert corrected == link.format(right)
