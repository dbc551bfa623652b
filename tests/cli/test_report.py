"""The command `report`: what it measures, what it refuses, and its page in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.figure
import pytest
import torch
import yaml
from matplotlib.figure import Figure

from pyg_schnet import Potential, SchNet, cli
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.report import model_sections, run_sections

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TINY = {
    "data": {"path": str(SAMPLE), "n_train": 64, "n_val": 1424},  # 12 are left to test
    "model": {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "cutoff": 4.0},
    "trainer": {"max_steps": 2, "val_every": 2, "batch_size": 8},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(TINY))
    assert cli.main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def blank(monkeypatch):
    """Pictures that are empty."""

    for module in (model_sections, run_sections):
        for name in [name for name in vars(module) if name.startswith("plot_")]:
            monkeypatch.setattr(module, name, lambda *arguments, **options: Figure((1, 1)))


def fails(capsys, *arguments) -> str:
    capsys.readouterr()
    assert cli.main(["report", *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("pyg-schnet: ")
    assert message.count("\n") == 1
    return message


def test_a_run_is_reported_with_the_structures_that_training_left(trained, tmp_path, capsys, blank):
    path = tmp_path / "page.html"
    arguments = ["report", str(trained), "--out", str(path), "--skip_checks", "--json"]
    capsys.readouterr()
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"]["n"] == 12
    assert found["checks"] is None
    assert found["report"] == str(path)
    assert found["bytes"] == path.stat().st_size
    assert "On 12 structures that the model was not trained on" in found["verdict"][1]
    text = path.read_text()
    assert "64 training, 1,424 validation, 12 test" in text
    assert str(trained.parent) not in text  # folders tell who wrote it
    assert str(SAMPLE.parent) not in text


def test_an_existing_report_stays_unless_it_may_be_replaced(trained, tmp_path, capsys, blank):
    path = tmp_path / "page.html"
    path.write_text("mine")
    assert "--overwrite" in fails(capsys, trained, "--out", path, "--skip_checks")
    assert path.read_text() == "mine"
    arguments = ["report", str(trained), "--out", str(path), "--skip_checks", "--quiet", "--overwrite"]
    assert cli.main(arguments) == 0
    assert path.read_text() != "mine"
    assert capsys.readouterr().out == ""


def test_a_failure_leaves_no_report(trained, tmp_path, monkeypatch, capsys, blank):
    def broken(*arguments, **options):
        raise ValueError("no picture today")

    monkeypatch.setattr(model_sections, "plot_parity", broken)
    assert "no picture today" in fails(capsys, trained, "--out", tmp_path / "page.html", "--skip_checks")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_have_one_clear_line(trained, tmp_path, capsys):
    model, page = trained / "model.safetensors", tmp_path / "page.html"
    assert "`report` takes one model" in fails(capsys, f"{trained},{trained}")
    assert "must end in .html" in fails(capsys, trained, "--out", tmp_path / "page.pdf")
    assert "folder does not exist" in fails(capsys, trained, "--out", tmp_path / "no" / "page.html")
    assert "`FILE` must be given with the checkpoint" in fails(capsys, model, "--out", page)
    assert "no such log" in fails(capsys, trained, "--out", page, "--md", tmp_path / "no.csv")
    assert "must be the log of a run" in fails(
        capsys, trained, "--out", page, "--md", trained / "metrics.csv"
    )
    assert "`--max_structures` must be at least 1" in fails(capsys, trained, "--max_structures", 0)
    save(Potential(torch.nn.MultiheadAttention(1, 1)), tmp_path / "other.safetensors")
    assert "not a SchNet" in fails(capsys, tmp_path / "other.safetensors", SAMPLE, "--out", page)


def test_data_that_are_gone_are_asked_for(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(str(SAMPLE), str(tmp_path / "gone.npz")))
    message = fails(capsys, run, "--skip_checks")
    assert f"pyg-schnet report {run} FILE" in message
    assert "--only" not in message


def test_a_checkpoint_alone_is_reported_on_a_file(tmp_path, capsys, blank):
    torch.manual_seed(0)
    model = SchNet(hidden_channels=8, num_filters=8, num_interactions=1, cutoff=4.0)
    save(Potential(model, elements=[1, 6, 8]), tmp_path / "model.safetensors")
    arguments = [str(tmp_path / "model.safetensors"), str(SAMPLE), "--max_structures", "5", "--skip_checks"]
    assert cli.main(["report", *arguments]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "evenly chosen from 1,500" in text
    assert "There is no metrics.csv" in text


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    """A report with its pictures, coarsely drawn, and the checks."""
    save_in_full = matplotlib.figure.Figure.savefig
    path = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            matplotlib.figure.Figure,
            "savefig",
            lambda self, file, **options: save_in_full(self, file, **{**options, "dpi": 30}),
        )
        assert cli.main(["report", str(trained), "--out", str(path), "--quiet"]) == 0
    return path


def browse(page: Path, folder: Path, *options: str, width: int = 1000) -> tuple[str, str]:
    """Load a page in a browser; return what it printed, the document by default, and what it logged."""
    if BROWSER is None:
        pytest.skip("needs Chromium, which is not installed")
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={folder / 'profile'}", f"--window-size={width},6000", "--enable-logging=stderr"),
        *(*(options or ["--dump-dom"]), page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def with_probe(page: Path, folder: Path, probe: str) -> Path:
    """Copy a page with a script that writes what it finds into the title, which the policy forbids."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    path = folder / "probed.html"
    path.write_text(text.replace("</body>", f"<script>{probe}</script></body>"))
    return path


def title(document: str) -> str:
    return html.unescape(re.search("<title>(.*?)</title>", document)[1])


@pytest.mark.process
def test_a_browser_loads_the_page_without_a_message(page, tmp_path):
    document, log = browse(page, tmp_path)
    assert "CONSOLE" not in log, log
    assert "<canvas" in document
    assert 'class="still"' not in document


@pytest.mark.process
def test_without_javascript_the_structures_are_still(page, tmp_path):
    frame = (
        f'<iframe sandbox="allow-same-origin" width="1000" srcdoc="{html.escape(page.read_text())}"></iframe>'
    )
    probe = """
      window.addEventListener("load", () => {
        const inner = document.querySelector("iframe").contentDocument;
        const atoms = [...inner.querySelectorAll(".still circle")];
        const boxes = atoms.map((atom) => atom.getBoundingClientRect());
        const seen = boxes.filter((box) => box.width > 5 && box.height > 5).length;
        document.title = JSON.stringify([atoms.length, seen, inner.querySelectorAll("canvas").length]);
      });
    """
    outer = tmp_path / "outer.html"
    outer.write_text(f"<title></title><script>{probe}</script>{frame}")  # no script runs in the frame
    document, log = browse(outer, tmp_path)
    assert "Blocked script execution" in log, log
    atoms, seen, canvases = json.loads(title(document))
    assert atoms == seen == 3 * 9
    assert canvases == 0


@pytest.mark.process
def test_scripts_of_others_do_not_run(page, tmp_path):
    path = tmp_path / "evil.html"
    path.write_text(page.read_text().replace("</body>", "<script>document.title = 'evil'</script></body>"))
    document, log = browse(path, tmp_path)
    assert title(document) != "evil"
    assert "Content Security Policy" in log


@pytest.mark.process
def test_the_structure_is_drawn_and_turns(page, tmp_path):
    probe = """
      const canvas = document.querySelector("canvas");
      const pixels = () => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const filled = (data) => data.filter((value, k) => k % 4 == 3 && value > 0).length;
      const press = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
      const before = pixels();
      press("ArrowRight");
      const turned = pixels();
      press("0");
      const again = pixels();
      const changed = (one, two) => one.filter((value, k) => value != two[k]).length;
      document.title = JSON.stringify([filled(before), changed(before, turned), changed(before, again)]);
    """
    document, _ = browse(with_probe(page, tmp_path, probe), tmp_path)
    filled, turned, again = json.loads(title(document))
    assert filled > 5000
    assert turned > 1000
    assert again == 0


@pytest.mark.process
@pytest.mark.parametrize("width", [390, 1000])
def test_only_tables_and_figures_scroll_sideways(page, tmp_path, width):
    probe = "document.title = document.documentElement.scrollWidth + ' ' + window.innerWidth"
    document, _ = browse(with_probe(page, tmp_path, probe), tmp_path, width=width)
    wide, window = map(int, title(document).split())
    assert wide <= window
    if window > width:  # some browsers have a smallest width
        pytest.skip(f"the browser's window is {window} pixels wide at least")
