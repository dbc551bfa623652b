"""The page of a report: its sections, its sentences, and that it loads and runs nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser

import ase.io
import matplotlib.figure
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from matplotlib.figure import Figure

from pyg_schnet import Potential, SchNet
from pyg_schnet.checks import CHECKS, CheckResult, Report
from pyg_schnet.checks.descriptions import DESCRIPTIONS
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.potentials.targets import Target
from pyg_schnet.report import Accuracy, Contents, DataSet, model_sections, render_page, run_sections
from pyg_schnet.report.contents import Simulation
from pyg_schnet.report.figures import embed
from pyg_schnet.report.verdict import find_warnings, verdict
from pyg_schnet.simulation.recorder import RunLog

DATE = datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)
EVIL = "<script>alert(1)</script>"
KEYS = ["errors", "structures", "checks", "dynamics", "data", "settings", "learning", "filters", "timings"]
ROWS = [
    {"step": 10 * k, "minutes": 0.1 * k, "lr": 1e-3 * (3 - k), "loss": 1 / k, "val_energy_mae_eV": 0.1 / k}
    for k in (1, 2, 3)
]
PASSED = CheckResult("rotation", "energy", "pass", 1e-12, 1e-8, "eV")
FAILED = CheckResult("drift", "energy", "fail", 0.5, 0.1, "meV/atom/ps", f"forces jump {EVIL}")


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, texts, and sections with their parts."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, tag: str) -> str:
        return " ".join("".join(self.texts.get(tag, [])).split())


@pytest.fixture(autouse=True)
def blank(monkeypatch):
    """Pictures that are empty: they are drawn once, in the page of the fixture `html`."""
    for module in (model_sections, run_sections):
        for name in [name for name in vars(module) if name.startswith("plot_")]:
            monkeypatch.setattr(module, name, lambda *arguments, **options: Figure((1, 1)))


@pytest.fixture(scope="module")
def html(water):
    """A page with its pictures, which have few points; fixtures of modules come before `blank`."""
    save = matplotlib.figure.Figure.savefig

    def coarsely(self, path, **kwargs):
        self.set_layout_engine("none")
        save(self, path, **{**kwargs, "dpi": 10})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", coarsely)
        return render_page(water, DATE)


def frames(base: Atoms, number: int = 6, forces: bool = True, stress: bool = False) -> list[Atoms]:
    rng, found = np.random.default_rng(0), []
    for _ in range(number):
        atoms = base.copy()
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        results = {"energy": float(rng.normal(-5, 0.1))}
        if forces:
            pulls = rng.normal(0, 0.5, atoms.positions.shape)
            results["forces"] = pulls - pulls.mean(axis=0)
        if stress:
            results["stress"] = rng.normal(0, 0.01, 6)
        atoms.calc = SinglePointCalculator(atoms, **results)
        found.append(atoms)
    return found


def contents(folder, structures: list[Atoms], file: str = "frames.extxyz", **changes) -> Contents:
    path = folder / file.replace("/", "∕")
    ase.io.write(path, structures, format="extxyz")
    dataset = AtomsDataset(path=path)
    torch.manual_seed(0)
    options = {"readout": "mean"} if changes.pop("is_mean", False) else {}
    model = SchNet(
        hidden_channels=4, num_filters=4, num_interactions=1, num_gaussians=8, cutoff=3.0, **options
    )
    potential = Potential(model.eval(), elements=dataset.elements())
    split = {"train": torch.tensor([0, 1]), "val": torch.tensor([2]), "test": torch.tensor([3, 4, 5])}
    data = DataSet.of(path.name, dataset, split)
    accuracy = Accuracy.of_structures(potential, dataset[split["test"]], path.name, "test", 3, data)
    given = {
        "name": "a run",
        "potential": potential,
        "provenance": {"n_train": 2, "pyg_schnet": "0.2.0"},
        "settings": {"trainer": {"optimizer": "adam", "lr": 0.002, "schedule": "cosine"}},
        "rows": ROWS,
        "data": [data],
        "accuracy": accuracy,
        "checks": Report("model", "float64", [PASSED]),
    }
    return Contents(**{**given, **changes})


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    return contents(tmp_path_factory.mktemp("water"), frames(molecule("H2O")))


@pytest.fixture(scope="module")
def properties(tmp_path_factory):
    """Contents of a model of a gap and a dipole moment, without energies."""
    folder, structures = tmp_path_factory.mktemp("properties"), frames(molecule("H2O"))
    for number, atoms in enumerate(structures):
        atoms.info |= {"mu": 1.5 + 0.1 * number} | ({"gap": 7.0 + number % 3} if number != 4 else {})
        atoms.calc = None
    ase.io.write(folder / "frames.extxyz", structures)
    names = ["gap", "mu"]
    dataset = AtomsDataset(path=folder / "frames.extxyz", energy_key="none", properties=names)
    torch.manual_seed(0)
    model = SchNet(
        hidden_channels=4, num_filters=4, num_interactions=1, num_gaussians=8, cutoff=3.0, readout=None
    )
    targets = [Target(name) for name in names]
    heads = {target: target.readout(4, mean=7.0 if target.name == "gap" else None) for target in targets}
    potential = Potential(model.eval(), elements=[1, 8], properties=heads)
    split = {"train": torch.tensor([0, 1]), "test": torch.tensor([2, 3, 4, 5])}
    data = DataSet.of("frames.extxyz", dataset, split, properties=names)
    accuracy = Accuracy.of_structures(potential, dataset[split["test"]], "frames.extxyz", "test", 4, data)
    rows = [{"step": 10, "minutes": 1.0, "lr": 1e-3, "loss": 1.0, "val_gap_mae_eV": 0.5, "val_mu_mae_D": 0.2}]
    origin = {"n_train": 2, "validation": rows[0]}
    settings = {"data": {"targets": names}}
    return Contents("properties", potential, origin, settings, rows, [data], accuracy)


def test_a_model_without_energies_is_reported_by_its_properties(properties):
    page = Page(render_page(properties, DATE))
    keys = ["errors", "data", "settings", "learning", "filters", "timings"]
    assert [section["id"] for section in page.all("section")] == keys
    cells = page.said("td")
    assert "gap" in cells
    assert "kcal/mol" in cells
    assert "mu" in cells
    assert "dynamics" not in cells
    assert "0.500 eV" in page.said("dd")  # of the validation
    first, second, third = verdict(properties)
    assert "It was trained on gap and mu of 2 structures" in first
    assert re.search(r"errors are \S+ eV in gap \(\S+ % of the spread.*\) and \S+ D in mu", second)
    assert "no energies" in third
    assert properties.accuracy.step is None


def test_the_spread_of_a_property_is_relative_to_its_references(properties):
    gaps = np.array([9.0, 7.0, 9.0])  # of the test structures that have one
    assert properties.accuracy.spreads["gap"] == pytest.approx(gaps.std())
    sentences = list(find_warnings(properties))
    assert any(
        "error of mu is" in sentence and "always predicts the mean" in sentence for sentence in sentences
    )


def test_of_many_properties_the_range_of_errors_is_stated(properties):
    own = properties.accuracy.evaluation.properties
    many = {f"gap{number}": own["gap"] for number in range(4)} | own
    spreads = {name: 2.0 if name == "mu" else 100.0 for name in many}
    evaluation = replace(properties.accuracy.evaluation, properties=many)
    accuracy = replace(properties.accuracy, evaluation=evaluation, spreads=spreads)
    _, sentence, _ = verdict(replace(properties, accuracy=accuracy))
    assert re.search(r"% \(gap\d?\) to .* % \(mu\) of the spread of the labels in 6 properties", sentence)


def test_each_section_has_a_title_and_a_sentence(html):
    page = Page(html)
    assert [section["id"] for section in page.all("section")] == KEYS
    shows = [one for one in page.all("p") if one.get("class") == "shows"]
    assert len(shows) == len(KEYS)
    links = [link["href"] for link in page.all("a")]
    assert links == [f"#{key}" for key in KEYS]
    assert "2026-01-02 03:04 UTC" in html


def test_the_page_loads_nothing_and_runs_only_its_own_script(html):
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action"):
                assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:80])
    assert set(re.findall(r"""\bhttps?://[^\s"'<>]+""", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # names of formats, which are not loaded
    assert "@import" not in html
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", html))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_identifiers_are_unique_and_references_lead_somewhere(html):
    found = [a["id"] for _, a in Page(html).elements if "id" in a]
    assert len(found) == len(set(found))
    referred = set(re.findall(r"""(?:href="|url\()#([^")]+)""", html))
    assert referred <= set(found)


def test_text_of_pictures_is_text(html):
    page = Page(html)
    assert "force component (eV/Å)" in page.said("text")
    assert not page.all("style")[1:]  # pictures bring no style sheets, which would apply to the page


def test_the_verdict_has_errors_with_units_and_what_was_not_seen_in_training(water):
    about_model, about_errors, about_checks = verdict(water)
    assert "1 interaction of 4 features" in about_model
    assert "energies and forces of 2 structures of H₂O" in about_model
    assert re.search(
        r"On 3 structures that the model was not trained on, .* meV \(.* kcal/mol\) in the", about_errors
    )
    assert re.search(
        r"[\d.,]+ meV/Å in force components \([\d.,]+ % of their root mean square\)", about_errors
    )
    assert about_checks.startswith(
        "It passed all 1 check of physics; there are 2 warnings"
    )  # it is untrained


def test_failed_checks_are_in_verdict_warnings_and_table(tmp_path):
    found = contents(tmp_path, frames(molecule("H2O")), checks=Report("m", "float64", [PASSED, FAILED]))
    assert verdict(found)[2].startswith("It failed 1 of 2 checks of physics; there are 3 warnings")
    assert any("“drift, energy” failed" in sentence for sentence in find_warnings(found))
    page = render_page(found, DATE)
    assert '<td class="failed">failed</td>' in page
    assert "1.0·10⁻⁸" in page
    assert "Molecular dynamics without a thermostat conserves" in page


def test_names_of_files_and_labels_are_escaped(tmp_path):
    found = contents(
        tmp_path,
        frames(molecule("H2O")),
        f"{EVIL}‮\x07.extxyz",
        name=f"</title>{EVIL}",
        labels='"><img src=x onerror=alert(1)>',
        checks=Report(EVIL, "float64", [FAILED]),
        provenance={"n_train": 2, "torch": EVIL, "date": EVIL},
        settings={"data": {"path": f"/secret/folder/{EVIL}"}, "trainer": {"optimizer": EVIL}},
    )
    html = render_page(found, DATE)
    page = Page(html)
    assert [script.get("type") for script in page.all("script")] == ["application/json", None]
    assert not page.all("img")
    assert EVIL not in html
    assert "secret" not in html
    assert "\x07" not in html
    assert "‮" not in html
    assert "&lt;script&gt;alert(1)" in html
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), tag


def test_missing_parts_state_the_command_that_adds_them(tmp_path):
    found = contents(tmp_path, frames(molecule("H2O")), rows=[], checks=None, settings={}, provenance={})
    page = Page(render_page(found, DATE))
    said = page.said("p") + page.said("code")
    for command in (
        "pyg-schnet md RUN",
        "pyg-schnet report RUN --md",
        "pyg-schnet train --out RUN",
        "--skip_checks",
    ):
        assert command in said, command


def test_atoms_have_the_errors_of_their_forces(water, html):
    (data,) = re.findall(r'<script type="application/json" id="structures-data">(.*?)</script>', html, re.S)
    views = json.loads(data)
    assert [view["title"].split(":")[0] for view in views] == [
        "all 3 structures",
        *(view["title"].split(":")[0] for view in views[1:]),
    ]
    assert all(view["symbols"] == ["O", "H", "H"] for view in views)
    evaluation = water.accuracy.evaluation
    errors = 1e3 * (evaluation.forces[1] - evaluation.forces[0]).norm(dim=1).reshape(3, 3)
    worst = views[-1]
    place = int(errors.square().mean(1).argmax())
    assert worst["title"].startswith(f"structure {place + 3}: largest error")
    np.testing.assert_allclose(
        [float(text.replace(",", "")) for text in worst["values"]], errors[place], rtol=1e-2
    )
    assert worst["colors"][int(errors[place].argmax())] == worst["scale"]["stops"][-1]
    assert html.count('<svg class="still"') == len(views)  # with JavaScript off


def test_energies_alone_color_atoms_by_their_contributions(tmp_path):
    html = render_page(contents(tmp_path, frames(molecule("H2O"), forces=False)), DATE)
    page = Page(html)
    assert "its contribution to the predicted energy" in page.said("p")
    assert "force component" not in page.said("td")
    assert html.count('<svg class="still"') == 2


def test_a_model_that_is_no_sum_over_atoms_has_no_picture_of_atoms(tmp_path):
    found = contents(tmp_path, frames(molecule("H2O"), forces=False), is_mean=True)
    html = render_page(found, DATE)
    assert "not a sum over atoms" in html
    assert '<svg class="still"' not in html


def test_crystals_have_energies_per_atom_stresses_and_a_cell(tmp_path):
    base = bulk("Si", cubic=True)
    page = render_page(contents(tmp_path, frames(base, stress=True)), DATE)
    cells = Page(page).said("td")
    assert "stress component" in cells
    assert "energy per atom" in cells
    assert "meV/atom" in cells
    (data,) = re.findall(r'id="structures-data">(.*?)</script>', page, re.S)
    assert len(json.loads(data)[0]["cell"]) == 12


def test_mixtures_are_drawn_without_a_mean_over_structures(tmp_path):
    mixed = [*frames(molecule("H2O"), 3), *frames(molecule("NH3"), 3)]
    found = contents(tmp_path, [mixed[k] for k in (0, 3, 1, 4, 2, 5)])
    page = render_page(found, DATE)
    assert "all 3 structures: root mean square" not in page
    assert "2 compositions of H, N, O" in verdict(found)[0]


def test_the_same_contents_make_the_same_page(water):
    assert render_page(water, DATE) == render_page(water, DATE)


def test_the_same_picture_has_the_same_text():
    figure = Figure((1, 1))
    figure.add_axes((0, 0, 1, 1)).plot([0, 1], [0, 1], "o", clip_on=True)
    first, second = (embed("one", figure, f"a < b {EVIL}").svg for _ in range(2))
    assert first == second
    assert EVIL not in first
    assert "metadata" not in first
    assert 'id="one-0"' in first
    assert "one-" not in embed("two", figure, "").svg


def test_structures_that_were_trained_on_are_a_warning(tmp_path):
    structures = frames(molecule("H2O"))
    structures[4] = structures[0]
    found = contents(tmp_path, structures)
    assert found.accuracy.trained_on == 1
    assert any("also in the training set" in sentence for sentence in find_warnings(found))


def test_a_model_that_learned_nothing_is_a_warning(water):
    sentences = [sentence for sentence in find_warnings(water) if "always predicts the mean" in sentence]
    assert [sentence.split(" is ")[0].split()[-1] for sentence in sentences] == ["energies", "forces"]


def test_an_unfinished_schedule_is_a_warning(tmp_path, water):
    rows = [{**row, "lr": 1e-3} for row in ROWS]
    found = contents(tmp_path, frames(molecule("H2O")), rows=rows)
    assert any("--resume" in sentence for sentence in find_warnings(found))
    done = [*rows, {**rows[-1], "lr": 0.0}]
    found = contents(tmp_path, frames(molecule("H2O")), "other.extxyz", rows=done)
    assert not any("--resume" in sentence for sentence in find_warnings(found))


def test_dynamics_has_length_and_temperature(tmp_path, water):
    with RunLog(tmp_path / "path.csv") as log:
        for step in range(5):
            values = {
                "potential_eV": -1.0,
                "kinetic_eV": 0.1,
                "total_eV": -0.9,
                "temperature_K": 300.0 + step,
            }
            log.write(step=step, time_ps=step * 1e-3, drift_meV_per_atom_ps=0.0, **values)
    (tmp_path / "path.extxyz").touch()
    simulation = Simulation.read(tmp_path / "path.extxyz", water.potential)
    assert simulation.run is None
    found = Contents(**{**vars(water), "simulation": simulation})
    page = Page(render_page(found, DATE))
    assert "302 ± 2 K (standard deviation)" in page.said("dd")
    assert "0.00400 ps" in page.said("dd")


def test_the_model_that_a_run_started_from_is_named_without_its_folder(water):
    readouts = {"taken": ["energy"], "new": ["gap"], "left_out": []}
    init = {"path": "/home/me/secret/first/model.safetensors", "sha256": "ab" * 32, "readouts": readouts}
    found = Contents(**{**vars(water), "provenance": {**water.provenance, "init": init}})
    text = render_page(found, DATE)
    assert "first/model.safetensors, SHA-256 abababababab…" in text
    assert "energy (taken over); gap (new)" in text
    assert "secret" not in text


def test_every_check_is_described():
    assert {"evaluation", *CHECKS} == set(DESCRIPTIONS)
