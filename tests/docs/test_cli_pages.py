"""Pages of ``docs/cli/``: their commands run, and ``--json`` prints the keys that they list."""

import json
import re
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pyg_schnet.cli import main
from pyg_schnet.cli.app import COMMANDS
from pyg_schnet.io.units import kcal_per_mol

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "cli"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md") if path.stem != "index"}
SHORT = shlex.split(
    "--data.n_train 60 --data.n_val 20 --trainer.max_steps 4 --trainer.val_every 2 --trainer.threads 1"
)
# Results and their keys that the examples do not have: labels of stress, an ensemble.
RARE = {"evaluate": {"stress_mae", "stress_rmse", "trained_on", "units", "keys", "calibration"}}


def examples(page: str) -> list[str]:
    """Return the commands of the console blocks of a page, but those marked as not tested."""
    blocks = re.findall(r"(<!-- not tested.*\n)?```console\n(.*?)```", PAGES[page], re.DOTALL)
    return [line[2:] for mark, block in blocks if not mark for line in block.splitlines()]


def run(line: str, *more: str) -> int:
    """Run a command line within this process, and return its exit code."""
    line, _, target = line.partition(" > ")
    words = [*shlex.split(line)[1:], *more]
    if words[0] == "train" and "--print_config" not in words:
        words += SHORT
    if not target:
        return main(words)
    with Path(target).open("w", encoding="utf-8") as file, redirect_stdout(file):
        try:
            return main(words)
        except SystemExit as end:  # after --print_config
            return int(end.code or 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the files that the pages name, and trained runs."""
    folder = tmp_path_factory.mktemp("cli")
    data = np.load(ROOT / "datasets" / "md17" / "ethanol_gfn2_xtb.npz")
    frames = [Atoms(data["z"], positions) for positions in data["R"][:100]]
    for number, frame in enumerate(frames):
        energy, forces = kcal_per_mol * float(data["E"][number, 0]), kcal_per_mol * data["F"][number]
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    write(folder / "frames.extxyz", frames)
    molecules = [
        Atoms(frame.numbers, frame.positions, info={"gap": 0.1 * n}) for n, frame in enumerate(frames)
    ]
    for molecule in molecules:
        molecule.arrays["charges"] = np.full(len(molecule), 0.5)
    write(folder / "molecules.extxyz", molecules)
    write(folder / "start.xyz", frames[0])
    write(folder / "pool.xyz", frames[:8])
    np.savez(
        folder / "orca.npz", atomic_numbers=data["z"], coordinates=data["R"], E=data["E"].ravel(), F=data["F"]
    )
    cutoff = shlex.split(
        "--model.cutoff 5 --model.envelope polynomial --model.last_center null --model.gamma null"
    )
    for name, seed, model in (("RUN", 0, []), ("OTHER", 1, []), ("RUN_WITH_CUTOFF", 0, cutoff)):
        options = [*model, "--out", str(folder / name), "--trainer.seed", str(seed), "--quiet", *SHORT]
        assert main(["train", "own_file", "--data.path", str(folder / "frames.extxyz"), *options]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch) -> Path:
    """A copy of the trained folder as the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.process
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_and_json_has_its_keys(folder, page, capsys):
    if page == "train":
        shutil.rmtree(folder / "RUN")
    # A barely trained model soon leaves its domain, relaxes slowly, and does not pass every check.
    unlimited = ["--max_force", "null", "--closest", "null"] if page == "md" else []
    allowed = {0, 1} if page in ("relax", "check") else {0}
    first, *others = examples(page)
    assert run(first, "--json", *unlimited) in allowed, capsys.readouterr().err
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    if page not in ("recipes", "models"):  # whose keys are the names of recipes and models
        keys = {re.sub(r"_(kcal|GPa)$", "", key) for key in printed}
        assert keys <= listed_keys(page) <= keys | RARE.get(page, set())
    for line in others:
        assert run(line, *unlimited) in allowed, (line, capsys.readouterr().err)


def listed_keys(page: str) -> set[str]:
    """Return the keys in the first column of the tables of a page's section on ``--json``."""
    section = re.search(r"## Output of `--json`\n(.*?)\n## ", PAGES[page], re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_every_command_has_a_page_that_the_index_lists():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert PAGES.keys() == COMMANDS.keys()
    assert [
        name for name in COMMANDS if f"| [`{name}`]({name}.md) |" not in index or f"\n{name}\n" not in index
    ] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_lists_all_options(page):
    wanted = [f"{page} {section}" for section in ("-", "data", "model", "trainer", "fabric")]
    listed = re.findall(r"```\{options\} (.*)\n```", PAGES[page])
    assert listed == (wanted if page == "train" else [page])
