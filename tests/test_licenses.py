"""The table of licenses lists what the package brings, as it is, and nothing that forbids its license."""

from __future__ import annotations

import importlib.util
import re
import sys
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("licenses", ROOT / "release" / "licenses.py")
licenses = importlib.util.module_from_spec(_spec)
sys.modules["licenses"] = licenses  # where dataclasses look for its names
_spec.loader.exec_module(licenses)

SECTIONS = dict(re.findall(r"^## (.+)\n\n((?:\|.*\n)+)", licenses.PAGE.read_text(encoding="utf-8"), re.M))
ROWS = {
    title: {
        name: (version, license)
        for name, version, license in re.findall(
            r"^\| \[(.+?)\]\(https?://\S+\) \| (.+) \| (.+) \|$", table, re.M
        )
    }
    for title, table in SECTIONS.items()
}
LISTED = {name: row for rows in ROWS.values() for name, row in rows.items()}


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def test_every_required_package_is_listed_and_no_other_under_that_title():
    assert set(ROWS["Required"]) == names(licenses.required())


@pytest.mark.parametrize("extra", sorted(licenses.optional()))
def test_every_package_of_an_extra_is_listed_under_it(extra):
    listed = set(ROWS[f"Only with `pyg-schnet[{extra}]`"])
    assert names(licenses.optional()[extra]) <= listed


def test_nothing_that_is_always_installed_has_a_license_that_binds_those_who_import_it():
    for title in ("Required", "Brought by those"):
        for name, (_, license) in ROWS[title].items():
            assert licenses.parts_of(license) <= licenses.PERMISSIVE | licenses.WEAK, name


def test_no_license_is_unknown():
    known = licenses.PERMISSIVE | licenses.WEAK | licenses.STRONG
    for name, (_, license) in LISTED.items():
        assert licenses.parts_of(license) <= known, name


def test_the_versions_are_those_that_make_installs():
    pinned = re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M
    )
    pairs = {(canonicalize_name(name), version) for name, version in pinned}
    for name, (version, _) in LISTED.items():
        assert version == "–" or (name, version) in pairs, f"{name} {version}: say make LICENSES.md"


@pytest.mark.parametrize("name", sorted(LISTED))
def test_the_license_is_that_of_the_installed_package(name):
    try:
        version = metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if version != LISTED[name][0]:
        pytest.skip(f"{name} is installed in version {version}")
    package = licenses.package_of(name)
    assert package.license == LISTED[name][1]


def info(**fields: str) -> Message:
    message = Message()
    for field, value in fields.items():
        message[field.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "license"),
    [
        ({"License_Expression": "Apache-2.0 AND MIT", "License": "whatever"}, "Apache-2.0 AND MIT"),
        ({"License": "bsd-3-clause"}, "BSD-3-Clause"),
        ({"License": "BSD 3-Clause License\n\nCopyright"}, "BSD-3-Clause"),
        ({"License": "see LICENSE", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
    ],
)
def test_a_license_is_read_where_packages_state_it(fields, license):
    assert licenses.license_of("name", info(**fields)) == license


def test_a_license_that_is_not_told_exactly_has_to_be_read():
    loose = info(License="BSD", Classifier="License :: OSI Approved :: BSD License")
    expected = r"the license of name must be one of SPDX's, got \['BSD', 'BSD License'\]; read it, and add it"
    with pytest.raises(ValueError, match=expected):
        licenses.license_of("name", loose)


def test_what_a_package_needs_is_listed_too_with_what_that_needs(monkeypatch):
    needs = {"a": ["b[x]"], "b": ["c; extra == 'x'", "d; extra == 'y'"], "c": ["a"]}
    monkeypatch.setattr(metadata, "requires", needs.__getitem__)
    assert licenses.closure([Requirement("a")]) == {"a", "b", "c"}
