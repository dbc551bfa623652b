"""What GitHub, PyPI and pre-commit read agrees with the Makefile, the package and each other."""

from __future__ import annotations

import importlib.util
import re
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

import pyg_schnet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted(GITHUB.glob("ISSUE_TEMPLATE/[0-9]*.yml"))
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
of_checkout = pytest.mark.skipif(not GITHUB.is_dir(), reason="source distributions have no .github")

_spec = importlib.util.spec_from_file_location("version", ROOT / "release" / "version.py")
version = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(version)

# docs.github.com: "Syntax for GitHub's form schema" and "Syntax for issue forms".
TEXT, FLAG = {"type": "string", "minLength": 1}, {"type": "boolean"}
LABEL = {"label": TEXT, "description": TEXT}
ATTRIBUTES = {
    "markdown": {"value": TEXT},
    "input": {**LABEL, "placeholder": TEXT, "value": TEXT},
    "textarea": {**LABEL, "placeholder": TEXT, "value": TEXT, "render": TEXT},
    "dropdown": {**LABEL, "multiple": FLAG, "options": {"type": "array"}, "default": {"type": "integer"}},
    "checkboxes": {
        **LABEL,
        "options": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"label": TEXT, "required": FLAG},
                "required": ["label"],
                "additionalProperties": False,
            },
        },
    },
}


def table(properties: dict, *required: str) -> dict:
    """Return a schema of a table with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def element(kind: str) -> dict:
    """Return the schema of one element of a form."""
    needed = {"markdown": ["value"], "dropdown": ["label", "options"], "checkboxes": ["label", "options"]}
    return table(
        {
            "type": {"const": kind},
            "id": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
            "attributes": table(ATTRIBUTES[kind], *needed.get(kind, ["label"])),
            "validations": table({"required": FLAG}),
        },
        "type",
        "attributes",
    )


FORM = table(
    {
        "name": TEXT,
        "description": TEXT,
        "title": TEXT,
        "labels": {"type": "array", "items": TEXT},
        "assignees": {"type": "array", "items": TEXT},
        "body": {"type": "array", "minItems": 1, "items": {"oneOf": [element(kind) for kind in ATTRIBUTES]}},
    },
    "name",
    "description",
    "body",
)


def read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def jobs(path: Path) -> list[dict]:
    """Return the jobs of a workflow, each with the commands and actions of its steps."""
    return list(read_yaml(path)["jobs"].values())


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {*re.findall(r"^([a-z][\w.-]*):", text, flags=re.MULTILINE)}


@of_checkout
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_make_target_of_a_workflow_exists(path):
    targets = set()
    for job in jobs(path):
        matrix = job.get("strategy", {}).get("matrix", {})
        own = [*matrix.get("target", []), *(row.get("target") for row in matrix.get("include", []))]
        commands = "\n".join(step.get("run", "") for step in job["steps"])
        assert "matrix.target" not in commands or own
        targets |= {*re.findall(r"^make ([\w.-]+)", commands, flags=re.MULTILINE), *own}
    assert path.stem == "release" or targets
    assert targets <= make_targets()


@of_checkout
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_has_a_time_limit_and_may_only_read_unless_it_says_why(path):
    assert read_yaml(path)["permissions"] == {"contents": "read"}
    assert read_yaml(path)["concurrency"]
    assert all(0 < job["timeout-minutes"] <= 240 for job in jobs(path))
    more = re.findall(r"^ {6}([\w-]+): write(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all("#" in reason or name == "pages" for name, reason in more)


@of_checkout
@pytest.mark.parametrize(
    "path", [*WORKFLOWS, GITHUB / "actions/setup/action.yml"], ids=lambda path: path.stem
)
def test_actions_are_pinned_to_a_major_version(path):
    used = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
    assert used
    for name in used:
        if name.startswith("./"):
            assert (ROOT / name / "action.yml").is_file(), name
        else:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", name), name


@of_checkout
def test_the_index_of_cpu_builds_is_stated_once_and_every_job_that_installs_uses_it():
    texts = {path: path.read_text(encoding="utf-8") for path in GITHUB.rglob("*.yml")}
    assert [path.name for path in texts if "download.pytorch.org" in texts[path]] == ["action.yml"]
    for path in WORKFLOWS:
        for job in jobs(path):
            if any("make " in step.get("run", "") for step in job["steps"]):
                assert "./.github/actions/setup" in [step.get("uses") for step in job["steps"]]


@of_checkout
def test_ci_runs_on_every_python_that_the_package_states():
    (test,) = (job for job in jobs(GITHUB / "workflows/ci.yml") if "strategy" in job)
    stated = [text.split()[-1] for text in project()["classifiers"] if "Python :: 3" in text]
    assert test["strategy"]["matrix"]["python"] == stated
    assert project()["requires-python"] == f">={stated[0]}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    newest_of_oldest = re.search(r"\(3, 10\) <= sys\.version_info < \(3, (\d+)\).*oldest", makefile)
    without = {row["python"] for row in test["strategy"]["matrix"]["exclude"]}
    assert without == {text for text in stated if int(text[2:]) >= int(newest_of_oldest[1])}


@of_checkout
@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one_that_github_accepts(path):
    jsonschema = pytest.importorskip(
        "jsonschema", reason="comes with nbclient: pip install 'pyg-schnet[test]'"
    )
    form = read_yaml(path)
    jsonschema.validate(form, FORM)
    ids = [entry["id"] for entry in form["body"] if "id" in entry]
    labels = [entry["attributes"].get("label") for entry in form["body"]]
    assert len({*ids}) == len(ids)
    assert len({*labels}) == len(labels)


@of_checkout
def test_a_report_of_a_bug_shows_version_and_data():
    text = (GITHUB / "ISSUE_TEMPLATE" / "1_bug.yml").read_text(encoding="utf-8")
    assert "`pyg-schnet --version`" in text
    assert "`pyg-schnet data FILE`" in text
    assert len(FORMS) == 4


@of_checkout
def test_pre_commit_formats_as_make_does():
    hooks = {
        entry["repo"].split("/")[-1]: entry for entry in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    }
    pinned = re.search(
        r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert hooks["ruff-pre-commit"]["rev"] == f"v{pinned[1]}"


@of_checkout
def test_read_the_docs_builds_what_make_builds():
    settings = read_yaml(ROOT / ".readthedocs.yaml")
    assert (ROOT / settings["sphinx"]["configuration"]).is_file()
    assert settings["sphinx"]["fail_on_warning"]
    (extra,) = settings["python"]["install"][0]["extra_requirements"]
    assert extra in project()["optional-dependencies"]


def test_the_repository_has_one_address():
    places = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.cff"), *ROOT.glob("*.y*ml")]
    places += [path for folder in ("docs", "release", ".github") for path in (ROOT / folder).rglob("*")]
    texts = [
        path.read_text(encoding="utf-8")
        for path in places
        if path.suffix in (".md", ".py", ".yml", ".yaml", ".toml", ".cff") and "_build" not in path.parts
    ]
    owners = {name for text in texts for name in re.findall(r"github\.com/([\w-]+)/pyg[_-]schnet", text)}
    sites = {
        name for text in texts for name in re.findall(r"([\w-]+)\.readthedocs\.io", text) if "schnet" in name
    }
    assert owners == {"pyg-schnet"}
    assert sites == {"pyg-schnet"}


def test_the_names_of_the_authors_agree():
    (author,) = project()["authors"]
    citation = read_yaml(ROOT / "CITATION.cff")
    assert [author] == citation["authors"]
    assert author["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert citation["repository-code"] == project()["urls"]["Source"]
    assert citation["url"] == project()["urls"]["Documentation"]


def test_the_version_and_its_date_are_the_same_everywhere():
    assert version.check(ROOT) == pyg_schnet.__version__
    day = read_yaml(ROOT / "CITATION.cff")["date-released"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{pyg_schnet.__version__}] - {day}\n" in changelog


@pytest.fixture
def released(tmp_path) -> Path:
    """Return a checkout of version 0.3.0 with one change after it."""
    (tmp_path / "pyg_schnet").mkdir()
    (tmp_path / "pyg_schnet" / "__init__.py").write_text('"""A package."""\n\n__version__ = "0.3.0"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 0.3.0\ndate-released: 2026-01-02\n")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n* New.\n\n"
        "## [0.3.0] - 2026-01-02\n\n* Old.\n\n## [0.2.0] - 2026-01-01\n"
    )
    return tmp_path


def test_package_citation_and_changelog_have_one_version():
    assert version.check(ROOT) == version.versions(ROOT)["pyg_schnet/__init__.py"]


def test_setting_the_version_writes_all_places_and_dates_the_changes(released):
    version.write("0.4.0", released, date(2026, 2, 3))
    assert version.check(released, "v0.4.0") == "0.4.0"
    assert version.notes(released) == "* New."
    text = (released / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [0.4.0] - 2026-02-03\n\n* New.\n\n## [0.3.0] - 2026-01-02" in text
    assert read_yaml(released / "CITATION.cff")["date-released"] == date(2026, 2, 3)


def test_a_tag_that_is_not_the_version_is_rejected(released):
    version.write("0.4.0", released)
    with pytest.raises(version.WrongVersion, match=r"0\.4\.0 in CITATION\.cff.*0\.3\.9 in tag"):
        version.check(released, "v0.3.9")


def test_a_tag_with_unreleased_changes_is_rejected(released):
    assert version.check(released) == "0.3.0"
    with pytest.raises(version.WrongVersion, match=r"Unreleased"):
        version.check(released, "v0.3.0")


def test_places_with_different_versions_are_rejected(released):
    (released / "CITATION.cff").write_text("version: 0.2.0\n")
    with pytest.raises(version.WrongVersion, match=r"0\.2\.0 in CITATION\.cff"):
        version.check(released)


@pytest.mark.parametrize("text", ["1.0", "v1.0.0", "1.0.0rc1"])
def test_a_version_of_another_form_is_rejected(released, text):
    with pytest.raises(version.WrongVersion, match=rf"0\.3\.0, got '{text}'"):
        version.write(text, released)
