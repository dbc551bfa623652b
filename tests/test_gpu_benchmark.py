"""The benchmark for GPUs, tried on a CPU: what it measures, what it survives, what the page says."""

import importlib
import json
import re
from dataclasses import asdict

import pytest
import torch

from benchmarks import gpu, inputs
from benchmarks.accelerator import capture, operations, pages, steps, tests, timing
from benchmarks.accelerator.implementations import EAGER, PYG, Work, build, save_structures
from benchmarks.accelerator.rows import FAILED, SKIPPED, Row, Rows, Skipped, read
from pyg_schnet.kernels import IMPLEMENTATIONS
from pyg_schnet.training import captured_step
from tests.gpu_like import gpu_like
from tests.recorded_operations import RecordedOperations

TINY = timing.Settings(torch.device("cpu"), seconds=0.0, quick=True, variants=(PYG, EAGER))
MACHINE = {"device": "FAKE GPU", "driver": "0", "cuda": "0", "torch": "0", "torch_geometric": "0"}
MACHINE |= {"commit": "fake", "date": "never", "seconds": {}}
TASK = "QM9, 512, energy, 128 × 6, a training step"


@pytest.fixture
def rows(tmp_path):
    return Rows(tmp_path / "rows.jsonl", "section")


def test_every_operation_agrees_with_plain_pytorch_repeats_and_is_timed(rows):
    operations.measure(rows, TINY)
    found = read(rows.path)
    assert [row.note for row in found if not row.good] == []
    own = [row for row in found if row.variant == "ours"]
    names = {str(op).split(".")[1] for op in IMPLEMENTATIONS}
    assert {row.task.split(",")[0].split()[0] for row in own} == names
    assert all(row.repeats and row.difference is not None and row.ms > 0 for row in own)


@pytest.mark.parametrize("section", ["paper_forces", "large_energies", "box"])
def test_steps_of_both_sides_agree_and_are_timed(section, rows):
    getattr(steps, section)(rows, TINY)
    theirs, ours = read(rows.path)
    assert [theirs.note, ours.note] == ["", ""]
    assert theirs.ms > 0 < ours.ms
    assert ours.difference < ours.bound
    assert ours.repeats is (None if section == "box" else True)


def test_times_are_those_between_events_after_a_step_each(monkeypatch):
    clock, calls = [0.0], []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock[0]

        def elapsed_time(self, other):
            return other.at - self.at

    def step():
        clock[0] += 5.0 if len(calls) == 9 else 2.0  # ms; one is slow
        calls.append("step")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_000_000)
    device = torch.device("cuda")
    assert timing.milliseconds(step, timing.Settings(device, seconds=0.0)) == 2.0
    warm_up = timing.WARM_UP * ["step"]
    assert calls == [*warm_up, "wait", "step", "step", "wait", *timing.MIN_STEPS * ["step"], "wait"]
    assert timing.peak_megabytes(step, device) == 3.0
    assert calls[-4:] == ["wait", "reset", "step", "wait"]
    assert timing.peak_megabytes(step, torch.device("cpu")) is None


def test_the_machine_is_described_with_its_driver(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 575.57.08\necho 575.57.08\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "FAKE GPU")
    machine = gpu.describe("cuda")
    assert (machine["device"], machine["driver"]) == ("FAKE GPU", "575.57.08")
    assert machine.keys() >= {"torch", "torch_geometric", "cuda", "commit", "date", "cores"}
    assert "driver" not in gpu.describe("cpu")


@pytest.mark.parametrize("forces", [True, False], ids=["forces", "energies"])
def test_captured_steps_have_the_losses_of_steps_operation_by_operation(forces, tmp_path, monkeypatch):
    monkeypatch.setitem(captured_step.CAPTURES, "cpu", RecordedOperations)
    data = save_structures(tmp_path, "ethanol", inputs.md17(None, 3)[0], "paper")
    work = Work("ethanol", data, "paper", forces=forces)
    losses = []
    with gpu_like():
        for captured in (True, False):
            peer = build(EAGER, work, torch.device("cpu"), None, small=True)
            step = capture.training_step(peer, captured)
            losses.append(torch.stack([step() for _ in range(steps.CAPTURED_STEPS)]))
    assert 0 < timing.difference(*losses) + 1e-9 < steps.LOSS_BOUND
    assert len({*losses[0].tolist()}) == steps.CAPTURED_STEPS


def test_steps_that_are_not_captured_are_skipped_with_the_reason(tmp_path):
    data = save_structures(tmp_path, "ethanol", inputs.md17(None, 3)[0], "paper")
    peer = build(EAGER, Work("ethanol", data, "paper"), torch.device("cpu"), None, small=True)
    with pytest.raises(Skipped, match="steps are captured on GPUs only"):
        capture.training_step(peer)


def test_wrong_results_count_as_failures(rows, monkeypatch):
    monkeypatch.setattr(operations, "BOUNDS", dict.fromkeys(operations.BOUNDS, -1.0))
    case = operations.cases(operations.Operands(torch.device("cpu"), torch.float64, 1, 16))[0]
    operations._measure_case(rows, TINY, case, torch.float64)
    assert [row.good for row in read(rows.path)] == [True, False]


def test_a_failure_is_a_row_and_the_others_go_on(rows):
    with rows.row("one", "ours"):
        raise RuntimeError("first line\nsecond line")
    with rows.row("two", "ours"):
        raise Skipped("not installed")
    with rows.row("three", "ours") as row:
        row.ms = 1.0
    with rows.row("four", "ours", only_failure=True):
        pass
    rows.path.write_text(rows.path.read_text() + '{"section": "cut')  # by a kill
    failed, skipped, good = read(rows.path)
    assert (failed.status, failed.note, failed.good) == (FAILED, "RuntimeError: first line", False)
    assert (skipped.status, skipped.note, skipped.good) == (SKIPPED, "not installed", True)
    assert good.ms == 1.0


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([1.0], [1.0, 4.0], float("inf")),
        ([float("nan")], [1.0], float("inf")),
        ([0.0], [0.0], 0.0),
        ([1.0], [0.0], float("inf")),
        ([], [], 0.0),
    ],
)
def test_results_are_compared_by_their_largest_difference(found, expected, apart):
    assert timing.difference(torch.tensor(found), torch.tensor(expected)) == apart
    assert timing.difference([torch.zeros(1), torch.tensor(found)], torch.tensor(expected)) == float("inf")


def test_lines_of_pytest_become_rows():
    lines = [
        "tests/test_gpu.py::test_bits_repeat[a b] PASSED                  [ 50%]",
        "tests/x/test_y.py::test_other FAILED [100%]",
        "tests/x/test_y.py::test_other SKIPPED (needs two GPUs) [100%]",
        "[gw1] [  9%] PASSED tests/test_gpu.py::test_bits_repeat[a b] ",
    ]
    found = [tests.outcome(line) for line in lines]
    assert [(row.task, row.variant, row.good) for row in found] == [
        ("test_bits_repeat[a b]", "tests/test_gpu.py", True),
        ("test_other", "tests/x/test_y.py", False),
        ("test_other", "tests/x/test_y.py", True),
        ("test_bits_repeat[a b]", "tests/test_gpu.py", True),
    ]
    assert found[2].note == "needs two GPUs"
    assert tests.outcome("collected 3 items") is None


def test_without_a_gpu_it_says_so_and_exits_with_2(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "benchmarks/gpu.py needs a CUDA device, and PyTorch finds none here\n"


def test_numbers_of_a_cpu_need_a_file_of_their_own(capsys):
    assert gpu.main(["--device", "cpu"]) == 2
    assert "`--json` must name a file" in capsys.readouterr().err


def test_all_sections_together_end_before_eight_minutes(monkeypatch, tmp_path):
    clock, budgets = [0.0], []

    def use_up(name, options, path, budget):
        budgets.append(budget)
        clock[0] += budget
        return [Row(name, "task", "ours", ms=1.0)]

    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu, "run_in_process", use_up)
    monkeypatch.setattr(gpu, "describe", lambda device: dict(MACHINE))
    path = tmp_path / "gpu.json"
    rows = gpu.run_sections(gpu.parse([]), tmp_path, path)
    assert sum(budgets) <= gpu.LIMIT < 480
    assert min(budgets) >= gpu.RESERVE  # the last one has time, too
    assert len(rows) == len(gpu.SECTIONS) == len(json.loads(path.read_text())["rows"])


def test_every_section_exists():
    for module, function, _ in gpu.SECTIONS.values():
        assert callable(getattr(importlib.import_module(f"benchmarks.accelerator.{module}"), function))


@pytest.mark.process
@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("import os; rows.add(row); os._exit(3)", "exit status 3:"),
        ("rows.add(row); raise SystemError('of the driver')", "exit status 1: SystemError: of the driver"),
        ("import time; rows.add(row); time.sleep(999)", "its 9 s were up"),
    ],
    ids=["crash", "error", "time"],
)
def test_what_was_measured_before_a_section_ended_is_kept(body, note, monkeypatch, tmp_path):
    script = tmp_path / "gpu.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(pages.ROOT)!r})\n"
        "from pathlib import Path\nfrom benchmarks.accelerator.rows import Row, Rows\n"
        "rows = Rows(Path(sys.argv[sys.argv.index('--rows') + 1]), 'box')\n"
        f"row = Row('box', 'task', 'ours', ms=1.0)\n{body}\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    options = gpu.parse(["--device", "cpu"])
    kept, stopped = gpu.run_in_process("box", options, tmp_path / "box.jsonl", 9.0)
    assert kept.ms == 1.0
    assert (stopped.status, stopped.note) == (FAILED, note)


@pytest.mark.nightly
def test_the_whole_script_runs_on_a_cpu(tmp_path):
    path = tmp_path / "gpu.json"
    sections = ["operations", "box", "dynamics", "command"]  # the others are tested above
    arguments = ["--device", "cpu", "--quick", "--seconds", "0.01", "--json", str(path)]
    assert gpu.main([*arguments, "--sections", *sections]) == 0
    content = json.loads(path.read_text())
    assert {row["section"] for row in content["rows"]} == set(sections)
    assert set(content["machine"]["seconds"]) == set(sections)


def fake(*rows):
    """What a GPU might have measured; the numbers are made up."""
    return {"machine": MACHINE, "rows": [asdict(row) for row in rows]}


def test_a_page_shows_times_ratios_and_memory():
    content = fake(
        Row("large-energies", TASK, PYG, ms=111.0, megabytes=999.0),
        Row("large-energies", TASK, EAGER, ms=55.5, megabytes=444.0, difference=1e-6, bound=1e-4),
        Row("large-energies", TASK, "ours, compiled", ms=11.1, difference=1.0, bound=1e-4),
        Row("large-energies", TASK, "ours, captured graph", ms=22.2, repeats=False),
        Row("large-energies", TASK, "SchNetPack", SKIPPED, note="not installed"),
        Row("operations", "convolve, float32", "plain PyTorch", ms=3.0),
        Row("operations", "convolve, float32", "ours", ms=1.0, difference=0.0, bound=1.0, repeats=True),
        Row("tests", "bits repeat", "tests/test_gpu.py"),
        Row("box", "box", "section", FAILED, note="its 50 s were up"),
    )
    page = pages.section(content)
    assert "FAKE GPU, driver 0" in page
    # Results that differ or vary have no time, and make no ratio.
    assert f"| {TASK} | 111 | 55.5 | differs | differs | 2.00× | 444 (999) |" in page
    assert "| ms | PyG | ours, eager | ours, compiled | ours, captured graph | PyG over ours |" in page
    assert "Operations: 1 of 1 agree with plain PyTorch and repeat bit by bit, 3 to 3 times as fast." in page
    assert "takes 12.0 s, estimated from 216 times the step of 55.5 ms alone." in page
    assert "Tests that need a GPU: 1 passed." in page
    assert "Failed, 3 in all:" in page
    assert "* box, section: its 50 s were up" in page
    assert "results differ by 1.0e+00, bound 1e-04" in page
    assert "results differ from run to run" in page
    rendered = pages.console()
    with rendered.capture() as capture:
        for table in pages.tables([Row(**row) for row in content["rows"]]):
            rendered.print(table)
    assert "bits repeat" in capture.get()


def test_numbers_of_a_cpu_do_not_reach_the_documentation(tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"machine": {"device": "cpu"}, "rows": []}))
    with pytest.raises(
        ValueError, match=r"gpu.json: must be measured on a GPU for docs/benchmarks.md, got 'cpu'"
    ):
        pages.load(path)


def test_the_section_of_the_documentation_is_what_the_results_say():
    text = pages.PAGE.read_text(encoding="utf-8")
    assert pages.with_section(text, pages.load(gpu.RESULTS)) == text
    assert pages.with_section(text, fake()).count("FAKE GPU") == 1


@pytest.mark.skipif(gpu.RESULTS.exists(), reason="times were measured")
def test_no_time_on_a_gpu_is_claimed_before_it_was_measured():
    text = pages.PAGE.read_text(encoding="utf-8")
    part = text.partition("\n## GPUs\n")[2].partition("\n## ")[0]
    assert "No time was measured on a GPU so far, and none is claimed." in part
    assert (
        re.findall(r"\d\s?(?:ms|µs|s|×|times|fold|percent|%)\b|\dx\b|times (?:as )?fast|faster", part) == []
    )
