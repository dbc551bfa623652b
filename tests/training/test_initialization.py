"""Fine-tuning: weights are taken over, references are fitted or kept, and some weights stay as they are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import pyg_schnet
from pyg_schnet import SchNet
from pyg_schnet.cli.train import build, with_recipe
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.loader import collate
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials import checkpoint
from pyg_schnet.training.initialization import LEARNING_RATE, freeze, read_initialization


@pytest.fixture
def pretrained(run, recipe):
    return run(recipe("pretrained"))


def tuning(config, pretrained, out="tuned", data=None, **trainer):
    """The same recipe from a model, on other options."""
    return replace(
        config,
        data=replace(config.data, **(data or {})),
        trainer=replace(config.trainer, **trainer),
        init=str(pretrained.path),
        out=f"{config.out}_{out}",
    )


def network(potential):
    return dict(potential.model.named_parameters())


def test_before_the_first_step_forces_are_those_of_the_model(pretrained, write):
    before, data = pretrained.potential, AtomsDataset(path=write("other.npz", seed=5))
    initial = read_initialization(str(pretrained.model))
    potential = initial.build(data, data.references(), False, 0)
    assert all(torch.equal(weight, network(before)[name]) for name, weight in network(potential).items())
    batch = collate(data, list(range(8)))
    assert torch.equal(potential.eval()(batch)["forces"], before(batch)["forces"])


def test_references_are_fitted_to_the_differences_from_the_model(pretrained, write):
    data = AtomsDataset(path=write())
    potential = read_initialization(str(pretrained.model)).build(data, data.references(), False, 0)
    batch = collate(data, list(range(16)))
    residual = batch.energy - potential(batch, forces=False)["energy"].detach()
    assert abs(float(residual.mean())) < 1e-9


def test_kept_references_are_those_of_the_model(run, recipe, pretrained):
    tuned = run(tuning(recipe(), pretrained, data={"references": "keep"}))
    assert torch.equal(tuned.potential.atomref, pretrained.potential.atomref)


def test_new_elements_are_added_and_absent_ones_are_not_allowed(run, recipe, pretrained, write):
    path = write("ammonia.npz", "ammonia")
    tuned = run(tuning(recipe(), pretrained, data={"path": path}))
    assert tuned.potential.elements == [1, 7]
    origin = checkpoint.provenance(tuned.model)["init"]
    assert origin["new_elements"] == ["N"]
    with pytest.raises(ValueError, match=r"data.references.*keep.*N"):
        run(tuning(recipe(), pretrained, "kept", data={"path": path, "references": "keep"}))


@pytest.mark.parametrize("compiled", [False, True])
def test_frozen_weights_stay_equal_to_the_bit(run, recipe, pretrained, compiled):
    frozen = ["embedding", "interactions.0.cfconv.*"]
    tuned = run(tuning(recipe(), pretrained, freeze=frozen, compile=compiled))
    before, after = network(pretrained.potential), network(tuned.potential)
    for name in before:
        is_frozen = name.startswith(("embedding", "interactions.0.cfconv"))
        assert torch.equal(before[name], after[name]) is is_frozen, name


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_a_resumed_run_is_equal_to_the_bit_and_needs_no_initial_file(run, recipe, pretrained, optimizer):
    options = {"optimizer": optimizer, "freeze": ["embedding"]}
    config = tuning(recipe(), pretrained, **options)
    whole = run(config)
    halted = replace(config, out=f"{config.out}_halted")
    with pytest.raises(KeyboardInterrupt):
        run(halted, interrupt_after=13)
    stored = yaml.safe_load(Path(halted.out, "config.yaml").read_text(encoding="utf-8"))
    pretrained.model.unlink()
    again = run(replace(halted, init=stored["init"]), resume=True)
    one, other = load_file(whole.model), load_file(again.model)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert checkpoint.provenance(again.model)["init"] == checkpoint.provenance(whole.model)["init"]


def test_a_run_resumes_only_with_its_own_initial_model(run, recipe, pretrained):
    config = tuning(recipe(), pretrained)
    run(config)
    other = run(recipe("other", seed=3))
    with pytest.raises(ValueError, match=r"`init` must be"):
        run(replace(config, init=str(other.path)), resume=True)


def test_the_hash_of_the_initial_model_is_stored_and_checked(run, recipe, pretrained):
    tuned = run(tuning(recipe(), pretrained))
    path, digest = yaml.safe_load(tuned.config.read_text(encoding="utf-8"))["init"].split("#sha256=")
    assert path == str(pretrained.model)
    assert checkpoint.provenance(tuned.model)["init"]["sha256"] == digest
    with pytest.raises(ValueError, match=r"`init`.*SHA-256"):
        read_initialization(f"{path}#sha256={'0' * 64}")


def test_an_option_that_contradicts_the_model_is_rejected(run, recipe, pretrained):
    with pytest.raises(ValueError, match=r"`model.cutoff` must be 4.0"):
        run(tuning(recipe(model={"cutoff": 3.0}), pretrained))


def test_from_python_the_model_replaces_the_architecture_and_the_rate_of_a_recipe(
    pretrained, write, tmp_path
):
    tuned = pyg_schnet.train(
        write("python.npz", seed=2), init=pretrained, out=tmp_path / "python", trainer={"max_steps": 2}
    )
    entries = yaml.safe_load(tuned.config.read_text(encoding="utf-8"))
    assert entries["model"]["hidden_channels"] == 8
    assert entries["trainer"]["lr"] == LEARNING_RATE
    with pytest.raises(ValueError, match=r"model.num_gaussians"):
        pyg_schnet.train(write(), init=pretrained, out=tmp_path / "no", model={"num_gaussians": 9})


def test_on_the_command_line_too(pretrained, write):
    parser = build()
    arguments = with_recipe(["own_file", "--data.path", write(), "--init", str(pretrained.path)])
    options = parser.parse_args(arguments)
    assert SchNetConfig(**options.model.as_dict()) == pretrained.potential.model.config
    assert options.trainer.lr == LEARNING_RATE
    options = parser.parse_args(with_recipe([*arguments, "--trainer.lr", "1e-3"]))
    assert options.trainer.lr == 1e-3


@pytest.mark.parametrize("std", [None, 0.5])
def test_models_of_pyg_are_fine_tuned_in_the_unit_of_the_data(tmp_path, write, std):
    data = AtomsDataset(path=write())
    ours = SchNet(16, 16, 1, 12, 4.0, mean=None if std is None else 3.0, std=std)
    torch.save(ours.to_pyg().state_dict(), tmp_path / "pyg.pt")
    initial = read_initialization(str(tmp_path / "pyg.pt"))
    potential = initial.build(data, data.references(), False, 0)
    batch = collate(data, list(range(16)))
    residual = batch.energy - potential(batch, forces=False)["energy"].detach()
    assert abs(float(residual.mean())) < 1e-6
    assert torch.equal(potential.model.embedding.weight, ours.embedding.weight)
    with pytest.raises(ValueError, match=r"data.references.*another package"):
        initial.kept_references(data)


def test_a_pattern_that_matches_nothing_lists_the_names():
    with pytest.raises(ValueError, match=r"trainer.freeze.*'readot'.*embedding"):
        freeze(SchNet(8, 8, 1), ["readot"])
    with pytest.raises(ValueError, match=r"leave weights to train"):
        freeze(SchNet(8, 8, 1), ["*"])


def test_references_cannot_be_kept_without_a_model(recipe):
    with pytest.raises(ValueError, match=r"data.references.*`init`"):
        recipe(data={"references": "keep"})
