"""The benchmarks' arithmetic, and a smoke run; no test looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def test_the_best_number_of_threads_has_the_smallest_median():
    from benchmarks.medians import best, best_threads, medians

    times = {1: [3.0, 1.0, 2.0], 2: [0.1, 4.0, 5.0]}  # the shortest run of all says nothing
    assert medians(times) == {1: 2.0, 2: 4.0}
    assert best_threads(times) == 1
    assert best(times) == 2.0


def test_one_thread_is_preferred_where_two_are_not_faster():
    from benchmarks.medians import best_threads

    assert best_threads({2: [1.0], 1: [1.0]}) == 1


def test_what_was_not_measured_has_no_best_and_no_ratio():
    from benchmarks.medians import best, best_threads, fastest, ratio

    assert best({}) is None
    assert best_threads({1: []}) is None
    assert ratio(None, 1.0) is None
    assert ratio(1.0, None) is None
    assert fastest({"one": {}}) is None


def test_each_side_counts_with_its_own_number_of_threads():
    from benchmarks.medians import best, fastest, ratio

    sides = {"slow": {1: [9.0], 2: [5.0]}, "fast": {1: [4.0], 2: [8.0]}}
    assert fastest(sides) == "fast"
    assert ratio(best(sides["slow"]), best(sides["fast"])) == 1.25


def test_disagreement_and_missing_outputs_are_told():
    from benchmarks.agreement import Agreement, difference

    assert difference([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert difference([1.0], [1.0, 4.0]) == float("inf")
    assert Agreement("d", "p", "o", "float64", 1e-7, 1e-7, 1e-7).holds
    assert not Agreement("d", "p", "o", "float64", 1e-7, 1e-7, 1e-5).holds
    assert not Agreement("d", "p", "o", "float32", error="died").holds


def test_pages_of_speed_hold_what_the_file_holds():
    from benchmarks import speed_pages as pages

    rows = pages.read()
    for page in pages.PAGES:
        text = page.read_text(encoding="utf-8")
        assert "<!-- speed" in text
        assert pages.with_tables(text, rows) == text, "run python benchmarks/speed_pages.py"


def test_factors_of_speed_are_those_of_the_faster_peer():
    from benchmarks import speed_pages as pages

    row = {
        "task": "box",
        "pyg_ms": "30",
        "schnetpack_ms": "20",
        "compiled_ms": "",
        "ours_ms": "2",
        "pyg_mb": "9",
    }
    assert "| box | 30 ms, 9 MB | 20 ms | – | 2 ms | 10× |" in pages.table([row])
    assert "| 10 ms | 2 ms | 10× (5.0×) |" in pages.table([{**row, "compiled_ms": "10"}])


def test_the_box_keeps_its_atoms_apart():
    from benchmarks.inputs import box

    arrays = box(200)
    source, target = arrays["edge_index"]
    distance = np.linalg.norm(arrays["pos"][0][source] - arrays["pos"][0][target], axis=1)
    assert arrays["z"].shape == (200,)
    assert 1.0 < distance.min() < distance.max() < 5.0


def test_training_needs_more_operations_than_inference():
    from benchmarks.floor import count
    from benchmarks.inputs import box
    from benchmarks.tasks import TASKS

    arrays = box(30, cutoff=100.0)
    names = ("aspirin-infer", "qm9-energy", "aspirin-train")
    operations = [count(TASKS[name], arrays).operations for name in names]
    assert operations == sorted(operations)


def test_operators_and_the_rest_add_up_to_the_wall_clock():
    from benchmarks.operators import Operator, group_of, shares

    assert group_of("aten::addmm") == "matrix products"
    assert group_of("aten::index_add_") == "gathering and adding up"
    found = shares([Operator("aten::mm", 2.0, 1), Operator("autograd::engine", 1.0, 1)], 5.0)
    assert sum(found.values()) == 5.0
    assert found["matrix products"] == 2.0


def test_the_standard_library_keeps_its_profile_beside_ours():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import cProfile; print(cProfile.run)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.nightly
def test_a_quick_run_measures_and_agrees(tmp_path):
    numbers = tmp_path / "speed.json"
    command = [sys.executable, str(ROOT / "benchmarks/speed.py"), "--quick", "--json", str(numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DISAGREES" not in done.stdout
    results = json.loads(numbers.read_text())
    assert all(line["holds"] for line in results["agreement"])
    assert all(line["medians"] for task in results["results"].values() for line in task.values())


@pytest.mark.nightly
def test_the_profile_shows_matrix_products():
    command = [sys.executable, str(ROOT / "benchmarks/profile.py"), "--steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "matrix products" in done.stdout
