"""What is uploaded and installed: the wheel and the source distribution are whole and say what they are."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="needs hatchling: pip install 'pyg-schnet[test]'")

ROOT = Path(__file__).parents[1]
if not (ROOT / "pyg_schnet").is_dir():
    pytest.skip("there is no source of the package here", allow_module_level=True)

_spec = importlib.util.spec_from_file_location("distribution", ROOT / "release" / "distribution.py")
distribution = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(distribution)

pytestmark = pytest.mark.nightly

# In a process without the checkout on its path: imports, reads a card, and finds the kernels' sources.
PROBE = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
import pyg_schnet
from pyg_schnet.datasets.cards.card import read_card
from pathlib import Path
print(Path(pyg_schnet.__file__).parents[1])
print(*[read_card(name).name for name in ("iso17", "md17", "md22", "qm9")])
library = importlib.import_module("pyg_schnet.kernels.c.library")
from pyg_schnet.io.recipes import find_recipe
print(find_recipe("own_file"), find_recipe("datasets/md17/recipes/own_file.yaml"))
from pyg_schnet.cli import main
main(["recipes", "own_file", "--json"])
print(all((Path(library.__file__).parent / name).is_file() for name in library._SOURCES))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution and the wheel."""
    sdist, wheel = distribution.build(tmp_path_factory.mktemp("dist"))
    return sdist, wheel


def without(path: Path, name: str, folder: Path) -> Path:
    """Copy a distribution, but for one file."""
    copy = folder / path.name
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
            for item in old.infolist():
                if item.filename != name:
                    new.writestr(item, old.read(item))
        return copy
    with tarfile.open(path) as old, tarfile.open(copy, "w:gz") as new:
        for member in old:
            if member.name.partition("/")[2] != name:
                new.addfile(member, old.extractfile(member))
    return copy


def test_the_wheel_has_the_package_its_kernels_cards_and_licence_and_nothing_else(built):
    distribution.check_wheel(built[1])
    names = distribution.contents(built[1])
    assert "pyg_schnet/kernels/c/runtime.c" in names
    assert "pyg_schnet/kernels/c/runtime.h" in names
    assert "pyg_schnet/datasets/cards/qm9.toml" in names
    assert {name.partition("/")[0] for name in names} == {"pyg_schnet", f"{_stem(built[1])}.dist-info"}


def test_the_source_distribution_has_what_building_and_testing_need(built):
    distribution.check_sdist(built[0])
    names = distribution.contents(built[0])
    assert "tests/test_distribution.py" in names
    assert "datasets/md17/ethanol_gfn2_xtb.npz" in names


def test_the_wheel_of_the_source_distribution_is_that_of_the_checkout(built, tmp_path):
    source = distribution.unpack(built[0], tmp_path / "source")
    (again,) = distribution.build(tmp_path, source, kinds=("wheel",))
    distribution.check_same(built[1], again)


def test_the_unpacked_wheel_works_alone(built, tmp_path):
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-I", "-c", PROBE, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder, cards, recipes, printed, kernels = done.stdout.splitlines()
    assert Path(folder) == tmp_path
    assert cards == "iso17 md17 md22 qm9"
    assert recipes.split() == 2 * [f"{tmp_path}/pyg_schnet/datasets/recipes/md17/own_file.yaml"]
    assert json.loads(printed)["path"] == recipes.split()[0]
    assert kernels == "True"


@pytest.mark.parametrize(
    "name", ["pyg_schnet/potentials/potential.py", "pyg_schnet/datasets/cards/md22.toml"]
)
def test_a_wheel_that_lacks_a_file_is_refused(built, tmp_path, name):
    with pytest.raises(distribution.BadDistribution, match=rf"\.whl lacks {name}; see"):
        distribution.check_wheel(without(built[1], name, tmp_path))


def test_a_wheel_with_tests_in_it_is_refused(built, tmp_path):
    copy = Path(shutil.copy(built[1], tmp_path))
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("tests/conftest.py", "")
    with pytest.raises(distribution.BadDistribution, match=r"should not have tests/conftest\.py"):
        distribution.check_wheel(copy)


def test_a_wheel_without_its_licence_is_refused(built, tmp_path):
    copy = without(built[1], f"{_stem(built[1])}.dist-info/licenses/LICENSE", tmp_path)
    with pytest.raises(distribution.BadDistribution, match="lacks the LICENSE"):
        distribution.check_wheel(copy)


@pytest.mark.parametrize("name", ["constraints-min.txt", "datasets/md17/ethanol_gfn2_xtb.npz"])
def test_a_source_distribution_that_lacks_a_file_is_refused(built, tmp_path, name):
    with pytest.raises(distribution.BadDistribution, match=rf"lacks {name}; see"):
        distribution.check_sdist(without(built[0], name, tmp_path))


def _stem(wheel: Path) -> str:
    return "-".join(wheel.name.split("-")[:2])
