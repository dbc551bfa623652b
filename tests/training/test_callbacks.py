"""Callbacks see a run, may end it, and lose nothing where they fail."""

import math

import pytest
import torch
from safetensors.torch import load_file

from pyg_schnet.training import Callback


class Recorder(Callback):
    """What a run called, with the step; acts as told by method and step."""

    def __init__(self, **acts):
        self.calls, self.acts = [], acts
        self.rows, self.losses, self.error, self.minutes = [], [], None, []

    def act(self, method, training):
        self.calls.append((method, training.step))
        step, act = self.acts.get(method, (None, None))
        if step == training.step:
            act(training)

    def on_start(self, training):
        self.act("start", training)

    def on_step(self, training, loss):
        self.losses.append(float(loss))
        self.minutes.append(training.minutes)
        self.act("step", training)

    def on_validation(self, training, metrics):
        self.rows.append(dict(metrics))
        self.act("validation", training)

    def on_end(self, training, error):
        self.error = error
        self.act("end", training)


def stop(training):
    training.stop()


def fail(training):
    raise ArithmeticError("mine")


def same(first, second):
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_callbacks_are_called_from_start_to_end(recipe, run):
    seen = Recorder()
    directory = run(recipe(max_steps=6, val_every=4), callbacks=[seen])
    steps = [("step", n) for n in range(1, 7)]
    assert seen.calls == [
        ("start", 0), *steps[:4], ("validation", 4), *steps[4:], ("validation", 6), ("end", 6)
    ]  # fmt: skip
    assert seen.error is None
    assert seen.rows == directory.read_metrics()
    assert seen.rows[0]["loss"] == pytest.approx(sum(seen.losses[:4]) / 4)
    assert 0 < seen.minutes[0] < seen.minutes[-1]


def test_callbacks_change_no_number_of_a_run(recipe, run):
    plain, watched = run(recipe("plain")), run(recipe("watched"), callbacks=[Recorder()])
    assert same(plain.last, watched.last)


def test_a_callback_sees_current_and_averaged_weights_and_the_best_validation(recipe, run):
    seen = {}

    def look(training):
        seen["run"], seen["best"] = training.run.path, (training.best_step, training.best_loss)
        seen["averaged"] = {name: t.clone() for name, t in training.averaged.state_dict().items()}
        seen["current"] = {name: t.clone() for name, t in training.potential.state_dict().items()}
        seen["options"] = training.config

    config = recipe(max_steps=5)
    directory = run(config, callbacks=[Recorder(validation=(5, look))])
    kept, last = load_file(directory.model), load_file(directory.last)
    assert all(torch.equal(seen["averaged"][name], kept[name]) for name in seen["averaged"])
    assert all(torch.equal(seen["current"][name], last[f"potential.{name}"]) for name in seen["current"])
    assert seen["run"] == directory.path
    assert seen["options"] is config.trainer
    assert seen["best"][0] == 5
    assert math.isfinite(seen["best"][1])


@pytest.mark.parametrize(
    ("method", "step", "last"), [("start", 0, 1), ("step", 7, 8), ("validation", 10, 10), ("step", 20, 20)]
)
def test_a_callback_ends_a_run_after_a_validation(recipe, run, method, step, last):
    seen = Recorder(**{method: (step, stop)})
    directory = run(recipe(), callbacks=[seen])
    assert [row["step"] for row in directory.read_metrics()] == [n for n in (5, 10, 15) if n < last] + [last]
    assert seen.calls[-1] == ("end", last)
    assert seen.error is None
    assert directory.model.is_file()


@pytest.mark.parametrize(("method", "step"), [("step", 7), ("validation", 10)])
def test_a_run_whose_callback_failed_is_resumed_to_the_same_weights(recipe, run, method, step):
    whole, config = run(recipe("whole", max_steps=15)), recipe(max_steps=15)
    seen, failing = Recorder(), Recorder(**{method: (step, fail)})
    with pytest.raises(ArithmeticError, match="mine"):
        run(config, callbacks=[seen, failing])
    assert seen.calls[-1] == ("end", step)
    assert isinstance(seen.error, ArithmeticError)
    again = Recorder()
    directory = run(config, callbacks=[again], resume=True)
    assert again.calls[0] == ("start", step)
    assert same(directory.last, whole.last)


def test_a_callback_that_fails_at_the_end_keeps_others_from_nothing(recipe, run):
    first, failing, last = Recorder(), Recorder(end=(20, fail)), Recorder()
    with pytest.raises(ArithmeticError, match="mine"):
        run(recipe(), callbacks=[first, failing, last])
    assert first.calls[-1] == last.calls[-1] == ("end", 20)
    assert isinstance(first.error, ArithmeticError)
    assert last.error is None


def test_weights_that_are_not_finite_end_callbacks_with_the_error(recipe, run):
    def spoil(training):
        with torch.no_grad():
            next(training.potential.parameters()).fill_(torch.nan)

    seen = Recorder(step=(3, spoil))
    with pytest.raises(FloatingPointError):
        run(recipe(compile=False), callbacks=[seen])
    assert isinstance(seen.error, FloatingPointError)


def test_the_state_of_a_failed_callback_has_finite_weights_or_is_not_written(recipe, run):
    def spoil(training):
        with torch.no_grad():
            next(training.potential.parameters()).fill_(torch.nan)
        raise ArithmeticError

    config = recipe(compile=False)
    with pytest.raises(FloatingPointError):
        run(config, callbacks=[Recorder(step=(7, spoil))])
    assert all(t.isfinite().all() for t in load_file(f"{config.out}/last.safetensors").values())
