"""A signal ends a run after its step, with a checkpoint, and then what it was sent to end."""

import signal
import threading
from pathlib import Path

import pytest
from rich.console import Console

from pyg_schnet.cli.training_report import ConsoleReport
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training.loop import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_then_sent_to_whom_it_was_meant_for(number):
    got = []
    before = signal.signal(number, lambda number, frame: got.append(number))
    try:
        with stop_on_signal() as stop:
            assert not stop.is_set
            signal.raise_signal(number)
            assert stop.is_set
            assert got == []
        assert got == [number]
    finally:
        signal.signal(number, before)


def test_a_second_ctrl_c_ends_at_once():
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stop.clear()


def test_more_of_what_schedulers_send_are_passed_over():
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with stop_on_signal() as stop:
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
            assert stop.is_set
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_notes_nothing_and_disturbs_nothing():
    before, found = signal.getsignal(signal.SIGTERM), []

    def work():
        with stop_on_signal() as stop:
            found.append((stop.is_set, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def test_a_run_that_ends_before_its_first_validation_leaves_a_model(recipe, run, report):
    class Interrupting(report):
        def step(self, step, done, loss):
            super().step(step, done, loss)
            if step == 2:
                signal.raise_signal(signal.SIGINT)

    from pyg_schnet.training import train

    config = recipe()
    with pytest.raises(KeyboardInterrupt):
        train(config, Interrupting())
    model = Path(config.out) / "model.safetensors"
    assert checkpoint.provenance(model)["validation"] is None
    assert all(weight.isfinite().all() for weight in checkpoint.load(model).parameters())
    again, whole = run(config, resume=True), run(recipe("whole"))
    weights = [checkpoint.read(one.model, "potential")[1] for one in (again, whole)]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[1])


class Pipe:
    """Standard output whose reader ends after some lines."""

    def __init__(self, lines):
        self.lines = lines

    def write(self, text):
        self.lines -= text.count("\n")
        if self.lines < 0:
            raise BrokenPipeError
        return len(text)

    def flush(self):
        pass


class Reading(Console):
    def on_broken_pipe(self):  # Rich's own would close the output of the tests
        raise SystemExit(1)


@pytest.mark.parametrize("lines", [1, 7])  # before the first step, and after a validation
def test_a_run_whose_output_is_read_no_more_ends_after_its_step(recipe, run, report, lines, capsys):
    from pyg_schnet.training import train

    config = recipe()
    with pytest.raises(BrokenPipeError):
        train(config, ConsoleReport(Reading(file=Pipe(lines))))
    said = capsys.readouterr().err
    header, _ = checkpoint.read(f"{config.out}/last.safetensors", "training state")
    step = header["counters"]["step"]
    assert 0 < step < config.trainer.max_steps
    assert f"Interrupted after step {step}" in said
    again, whole = run(config, resume=True), run(recipe("whole"))
    weights = [checkpoint.read(one.model, "potential")[1] for one in (again, whole)]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[1])


def test_a_run_ends_after_its_step_and_goes_on_as_if_it_had_not(recipe, run, report):
    class Interrupting(report):
        def step(self, step, done, loss):
            super().step(step, done, loss)
            if step == 7:  # two steps after a validation
                signal.raise_signal(signal.SIGINT)

    from pyg_schnet.training import train

    config = recipe()
    with pytest.raises(KeyboardInterrupt):
        train(config, Interrupting())
    header, _ = checkpoint.read(f"{config.out}/last.safetensors", "training state")
    assert header["counters"]["step"] in (7, 8)
    again, whole = run(config, resume=True), run(recipe("whole"))
    for name in ("model", "last"):
        kind = {"model": "potential", "last": "training state"}[name]
        first, second = (checkpoint.read(getattr(one, name), kind)[1] for one in (again, whole))
        assert all(first[key].equal(second[key]) for key in second)
    rows = [
        [{k: v for k, v in row.items() if k != "minutes"} for row in one.read_metrics()]
        for one in (again, whole)
    ]
    assert rows[0] == rows[1]
