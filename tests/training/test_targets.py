import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.db import connect
from ase.io import read, write
from matplotlib.figure import Figure
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

import pyg_schnet
from pyg_schnet import Potential, SchNet, plots
from pyg_schnet.cli.app import main
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.nn import SchNetConfig
from pyg_schnet.potentials.checkpoint import provenance
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.potentials.targets import Target
from pyg_schnet.report import model_sections, run_sections
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.simulation.batched_md import run_md_batched
from pyg_schnet.simulation.batched_relaxation import relax_batched
from pyg_schnet.simulation.engines.evaluator import Evaluator
from pyg_schnet.training import DataConfig
from pyg_schnet.training.loss import potential_loss
from pyg_schnet.training.properties import LabelScale, fit_readouts

TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 10, "cutoff": 4.0}
NAMES = ("H2O", "CH3OH", "NH3", "CH4", "C2H6", "CO2", "HCN", "H2CO")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Molecules with energies, forces, a gap that half of them lack, an extent, and charges."""
    generator = torch.Generator().manual_seed(0)
    frames = []
    for number in range(24):
        atoms: Atoms = ase_molecule(NAMES[number % len(NAMES)])
        noise = torch.randn(len(atoms), 3, generator=generator, dtype=torch.float64).numpy()
        atoms.positions += 0.05 * noise
        own = Atoms(atoms.symbols, atoms.positions)
        own.info |= {"energy": -10.0 * len(atoms) + float(noise[0, 0]), "r2": 3.0 * len(atoms) + number % 5}
        if number % 2:
            own.info["gap"] = 5.0 + 0.1 * number
        own.arrays["forces"] = noise - noise.mean(0)
        own.arrays["charges"] = 0.1 * own.numbers - 0.4 + 0.01 * noise[:, 0]
        frames.append(own)
    path = tmp_path_factory.mktemp("targets") / "frames.extxyz"
    write(path, frames)
    return str(path)


def test_references_and_scales_follow_from_the_labels(file):
    train = AtomsDataset(path=file, energy_key="none", properties=("gap", "charges", "r2"))
    targets = [Target("gap"), Target("charges"), Target("r2")]
    readouts, scales = fit_readouts(targets, train, SchNetConfig(**TINY))
    gap = torch.cat([item.gap for item in train])
    known = gap[gap.isfinite()]
    assert readouts[targets[0]].mean == pytest.approx(float(known.mean()))
    assert scales[targets[0]].spread == pytest.approx(float(known.std(correction=0)))
    assert scales[targets[0]].known == 0.5
    z, charges = torch.cat([item.z for item in train]), torch.cat([item.charges for item in train])
    assert float(readouts[targets[1]].atomref[8]) == pytest.approx(float(charges[z == 8].mean()))
    assert scales[targets[1]].known == 1
    label = torch.cat([item.r2 for item in train])
    assert scales[targets[2]].spread < 0.8 * float(label.std())


def with_moments(path, names, charges):
    """Write distorted molecules with dipole moments and extents of charges of the elements; return them."""
    generator, frames = torch.Generator().manual_seed(1), []
    for number in range(40):
        atoms: Atoms = ase_molecule(names[number % len(names)])
        noise = torch.randn(len(atoms), 3, generator=generator, dtype=torch.float64).numpy()
        own = Atoms(atoms.symbols, atoms.positions + 0.1 * noise)
        relative = own.positions - own.get_center_of_mass()
        charge = [charges[symbol] for symbol in own.symbols]
        squares = float((relative**2).sum())
        own.info |= {"mu": float(((charge @ relative) ** 2).sum() ** 0.5), "r2": 2 * squares + 0.01 * number}
        frames.append(own)
    write(path, frames)
    return AtomsDataset(path=path, energy_key="none", properties=("mu", "r2"))


def test_dipoles_start_at_those_of_fitted_charges_of_the_elements(tmp_path):
    true = {"H": 0.3, "C": -0.2, "O": -0.6, "N": 0.1}
    train = with_moments(tmp_path / "frames.extxyz", NAMES, true)
    mu = Target("mu")
    readouts, scales = fit_readouts([mu], train, SchNetConfig(**TINY, readout=None))
    assert scales[mu].spread < 1e-6 * float(torch.cat([item.mu for item in train]).std())
    charges = readouts[mu].charges[[1, 6, 7, 8]]
    expected = torch.tensor([true[symbol] for symbol in "HCNO"], dtype=torch.float64)
    sign = torch.sign(charges[0] - charges[1]) * torch.sign(expected[0] - expected[1])
    masses = readouts[mu].masses[[1, 6, 7, 8]]
    free = (sign * charges - expected) / masses  # charges in proportion to masses have no dipole
    assert_close(free, free.mean().expand(4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("zero_output", [True, False])
def test_training_of_dipoles_and_extents_starts_at_the_spread_of_the_labels(tmp_path, zero_output):
    train = with_moments(tmp_path / "frames.extxyz", NAMES, {"H": 0.3, "C": -0.2, "O": -0.6, "N": 0.1})
    labels = train._data
    labels["mu"] += 0.3 * torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    config = SchNetConfig(**TINY, readout=None, zero_output=zero_output)
    readouts, scales = fit_readouts([Target("mu"), Target("r2")], train, config)
    potential = Potential(SchNet(**TINY, readout=None), properties=readouts).eval()
    for own in evaluate(potential, train).properties.values():
        assert own.rmse == pytest.approx(scales[own.target].spread, rel=0.05)
        assert own.rmse < 1.01 * float(own.values[0].std())


def test_without_charges_that_explain_dipoles_the_network_does_not_start_at_zero(tmp_path):
    train = with_moments(tmp_path / "frames.extxyz", ("H2", "H2"), {"H": 0.3})
    readouts, _ = fit_readouts([Target("mu")], train, SchNetConfig(**TINY, readout=None, zero_output=True))
    (readout,) = readouts.values()
    assert not readout.charges.any()
    assert readout.network.dense2.weight.any()


def test_the_kind_must_fit_the_shape_of_the_labels(file):
    train = AtomsDataset(path=file, energy_key="none", properties=("charges",))
    with pytest.raises(ValueError, match=r"`kind`.*'charges'.*each atom.*'intensive'.*kind: atomic"):
        fit_readouts([Target("charges", "intensive")], train, SchNetConfig(**TINY))


def predicted(**labels):
    data = [Data(z=torch.ones(2, dtype=torch.long), pos=torch.rand(2, 3), **own) for own in labels["items"]]
    return Batch.from_data_list(data)


@pytest.mark.parametrize("errors", ["squared", "absolute"])
def test_the_loss_is_the_mean_over_known_labels_and_missing_ones_have_no_gradient(errors):
    values = torch.tensor([[1.0], [float("nan")], [4.0], [float("nan")]], dtype=torch.float64)
    batch = predicted(items=[{"gap": value} for value in values])
    out = {"gap": torch.tensor([2.0, 7.0, 1.0, -3.0], dtype=torch.float64, requires_grad=True)}
    scales = {Target("gap", weight=3.0): LabelScale(2.0, 0.5)}
    loss = potential_loss(out, batch, 1.0, torch.ones(()), errors, properties=scales)
    expected = 3 * (0.25 + 2.25) / 2 if errors == "squared" else 3 * (0.5 + 1.5) / 2
    assert float(loss.detach()) == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, out["gap"])
    assert gradient[[1, 3]].tolist() == [0, 0]
    assert bool((gradient[[0, 2]] != 0).all())


def test_the_loss_of_atoms_is_the_mean_over_those_with_labels():
    nan = float("nan")
    items = [{"charges": torch.tensor(own, dtype=torch.float64)} for own in ([1.0, nan], [0.0, 0.0])]
    batch = predicted(items=items)
    out = {"charges": torch.tensor([2.0, 9.0, 1.0, 3.0], dtype=torch.float64, requires_grad=True)}
    scales = {Target("charges"): LabelScale(1.0, 1.0)}
    loss = potential_loss(out, batch, 1.0, torch.ones(()), properties=scales)
    assert float(loss.detach()) == pytest.approx((1.0 + (1.0 + 9.0) / 2) / 2)
    assert float(torch.autograd.grad(loss, out["charges"])[0][1]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["logP"]}, r"`kind`.*'logP'"),
        ({"targets": []}, "`targets`.*one name or more"),
        ({"targets": ["gap"], "energy_key": "U0"}, r"`data.energy_key`.*without energy"),
    ],
)
def test_wrong_targets_are_refused_before_the_work(options, message):
    with pytest.raises(ValueError, match=message):
        DataConfig("frames.xyz", **options)


@pytest.fixture
def blank(monkeypatch):
    """Pictures that are empty."""
    for module in (plots, model_sections, run_sections):
        for name in [name for name in vars(module) if name.startswith("plot_")]:
            monkeypatch.setattr(module, name, lambda *arguments, **options: Figure((1, 1)))


OPTIONS = {"model": TINY, "data": {"n_val": 6}}
QUICK = {"max_steps": 12, "val_every": 6, "compile": False, "threads": 1, "batch_size": 6}


def test_one_network_learns_energies_forces_and_properties(file, tmp_path):
    targets = ["energy", "gap", "charges"]
    run = pyg_schnet.train(file, targets=targets, out=tmp_path / "run", trainer=QUICK, **OPTIONS)
    potential = run.potential.double()
    assert [target.name for target in potential.properties] == ["gap", "charges"]
    assert {"val_energy_mae_eV", "val_gap_mae_eV", "val_charges_mae_e"} <= run.best.keys()
    atoms = ase_molecule("CH3OH")
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    out, step = potential(data), 1e-4
    moved = [data.clone(), data.clone()]
    for own, sign in zip(moved, (1, -1), strict=True):
        own.pos[1, 2] += sign * step
    plus, minus = (float(potential(own)["energy"]) for own in moved)
    assert float(out["forces"][1, 2]) == pytest.approx((minus - plus) / (2 * step), abs=1e-5)


def test_properties_alone_are_trained_evaluated_and_predicted_by_commands(file, tmp_path, capsys, blank):
    run, options = tmp_path / "run", tmp_path / "recipe.yaml"
    recipe = {"data": {"path": file, "n_val": 6, "targets": ["gap", {"name": "r2", "weight": 0.5}]}}
    options.write_text(json.dumps(recipe | {"model": TINY, "trainer": QUICK, "out": str(run)}))
    assert main(["train", str(options)]) == 0
    text = capsys.readouterr().out
    assert "known for" in text
    assert "gap (intensive): spread" in text
    assert main(["evaluate", str(run), file, "--plot", str(tmp_path / "parity.png")]) == 0
    table = capsys.readouterr().out
    assert "eV" in table
    assert "Å²" in table
    assert main(["evaluate", str(run), file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["units"] == {"gap": "eV", "r2": "Å²"}
    out = tmp_path / "out.extxyz"
    assert main(["predict", str(run), file, str(out)]) == 0
    assert "predictions (gap in eV, r2 in Å²)" in capsys.readouterr().out
    assert {"gap", "r2"} <= read(out, 0).info.keys()
    assert read(out, 0).info["property_units"] == "gap (eV), r2 (Å²)"
    assert main(["relax", str(run), file, str(tmp_path / "relaxed.extxyz")]) != 0
    assert "must predict energies" in capsys.readouterr().err
    assert list(Path(run).glob("learning_curve*"))
    assert main(["plot", str(run), "--only", "parity,errors", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quantiles"].keys() == found["worst"].keys() == {"gap", "r2"}
    assert found["pictures"]["parity"]["shows"] == "predictions over labels: gap, r2"
    assert main(["plot", str(run), "--only", "atoms"]) == 2
    assert "predicts no energies" in capsys.readouterr().err
    assert main(["report", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"]["units"] == {"gap": "eV", "r2": "Å²"}
    assert found["checks"] is None


def test_a_checkpoint_keeps_the_references_of_properties(file, tmp_path):
    train = AtomsDataset(path=file, energy_key="none", properties=("r2", "charges"))
    config = SchNetConfig(**TINY, readout=None)
    readouts, _ = fit_readouts([Target("r2"), Target("charges")], train, config)
    potential = Potential(SchNet(**TINY, readout=None), properties=readouts).eval()
    pyg_schnet.save(potential, tmp_path / "model.safetensors")
    atoms = ase_molecule("H2O")
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    found = pyg_schnet.load(tmp_path / "model.safetensors")(data)
    assert_close(found, potential(data), rtol=0, atol=0)


def test_errors_of_properties_name_the_structures_of_their_labels(file):
    dataset = AtomsDataset(path=file, energy_key="none", properties=("gap", "charges"))
    heads = {Target(name): Target(name).readout(8) for name in ("gap", "charges")}
    potential = Potential(SchNet(**TINY, readout=None), properties=heads).eval()
    errors = evaluate(potential, dataset, batch_size=5)
    assert errors.properties["gap"].structures.tolist() == list(range(1, 24, 2))
    assert errors.properties["charges"].structures.bincount().tolist() == errors.sizes.tolist()
    errors.require_finite()
    potential.heads[0].mean = float("nan")
    with pytest.raises(ValueError, match=r"`gap` predicted.*12 of 24 structures, the first is 1"):
        evaluate(potential, dataset, batch_size=5).require_finite()


@pytest.mark.parametrize("ending", ["extxyz", "db", "traj"])
def test_predicted_properties_are_written_with_their_units(file, tmp_path, capsys, ending):
    heads = {
        target: target.readout(8)
        for target in (Target("gap"), Target("charges"), Target("logP", "intensive"))
    }
    potential = Potential(SchNet(**TINY), properties=heads).eval()
    pyg_schnet.save(potential, tmp_path / "model.safetensors")
    assert "predicts=energy (eV), forces (eV/Å), gap (eV), charges (e), logP\n" in repr(potential)
    out = tmp_path / f"out.{ending}"
    assert main(["predict", str(tmp_path / "model.safetensors"), file, str(out), "--json"]) == 0
    units = {"energy": "eV", "forces": "eV/Å", "gap": "eV", "charges": "e", "logP": ""}
    assert json.loads(capsys.readouterr().out)["units"] == units
    dataset = AtomsDataset(path=out, properties=("gap",))
    atoms = read(file, 0)
    expected = potential(Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions)))
    assert float(dataset[0].gap) == pytest.approx(float(expected["gap"].detach()), abs=1e-6)
    if ending == "db":
        (row,) = connect(out).select(limit=1)
        assert row.property_units == "gap (eV), charges (e), logP"
        assert_close(torch.tensor(row.data["charges"]), expected["charges"].detach(), rtol=1e-6, atol=1e-6)
    else:
        assert read(out, 0).info["property_units"] == "gap (eV), charges (e), logP"


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    """A model of energies, a gap and charges, and its file; weights as large as after a long training."""
    folder = tmp_path_factory.mktemp("trained")
    targets = ["energy", "gap", "charges"]
    run = pyg_schnet.train(file, targets=targets, out=folder / "run", trainer=QUICK, **OPTIONS)
    potential, generator = run.potential, torch.Generator().manual_seed(0)
    for head in (potential.model.readout, *potential.heads):
        torch.nn.init.normal_(head.network.dense2.weight, generator=generator)
    pyg_schnet.save(potential, folder / "model.safetensors")
    return SimpleNamespace(potential=potential, path=folder / "model.safetensors")


def started(file, out, trained, targets, **options):
    """Train no step from a model; return the run, its potential, and what was reported."""
    lines = []
    trainer = {**QUICK, "lr": 1e-30, "max_steps": 1, "val_every": 1, "weight_decay": 0.0, **options}
    run = pyg_schnet.train(
        file,
        targets=targets,
        out=out,
        data={"n_val": 6, "n_train": 10},  # with another mean and spread than those of the model's
        trainer=trainer,
        init=trained.path,
        report=lines.append,
    )
    return run, "\n".join(lines)


def test_readouts_of_the_same_targets_are_taken_over(file, tmp_path, trained):
    targets = ["gap", {"name": "charges", "unit": "C"}, "r2"]
    run, text = started(file, tmp_path / "run", trained, targets)
    before, after = trained.potential, run.potential
    assert not after.has_energy
    for name, weight in before.model.named_parameters():
        if not name.startswith("readout"):
            assert_close(after.model.get_parameter(name), weight)
    batch = Batch.from_data_list([Data(z=item.z, pos=item.pos) for item in AtomsDataset(path=file)[:8]])
    assert_close(after(batch)["gap"], before(batch)["gap"], rtol=1e-5, atol=1e-5)
    trained_charges, new_charges = (own.heads[1].network.dense1.weight for own in (before, after))
    assert not torch.allclose(new_charges, trained_charges, atol=0.1)  # of another unit
    readouts = {"taken": ["gap"], "new": ["charges", "r2"], "left_out": ["energy", "charges"]}
    assert provenance(run.model)["init"]["readouts"] == readouts
    assert "interactions and the readout of gap are taken over" in text
    assert "new weights: charges, r2" in text
    assert "left out: energy, charges" in text


def test_energies_keep_their_forces_where_properties_are_added(file, tmp_path, trained):
    run, _ = started(file, tmp_path / "run", trained, ["energy", "r2", "gap"])
    batch = Batch.from_data_list([Data(z=item.z, pos=item.pos) for item in AtomsDataset(path=file)[:8]])
    assert_close(run.potential(batch)["forces"], trained.potential(batch)["forces"], rtol=1e-5, atol=1e-5)
    assert run.potential.properties[0].name == "r2"


def test_energies_are_learned_from_a_model_without(file, tmp_path):
    first = pyg_schnet.train(file, targets=["gap"], out=tmp_path / "gap", trainer=QUICK, **OPTIONS)
    run, text = started(file, tmp_path / "run", first, ["energy"])
    assert run.potential.has_energy
    for name, weight in first.potential.model.named_parameters():
        assert_close(run.potential.model.get_parameter(name), weight)
    assert "new weights: energy" in text


def test_a_run_from_other_targets_resumes_to_the_bit(file, tmp_path, trained):
    options = {"data": {"n_val": 6}, "init": trained.path, "targets": ["gap", "r2"]}
    whole = pyg_schnet.train(file, out=tmp_path / "whole", trainer=QUICK, **options)
    half = {**QUICK, "schedule": "constant"}
    both = [{**half, "max_steps": steps} for steps in (6, 12)]
    pyg_schnet.train(file, out=tmp_path / "half", trainer=both[0], **options)
    again = pyg_schnet.train(file, out=tmp_path / "half", trainer=both[1], resume=True, **options)
    direct = pyg_schnet.train(file, out=tmp_path / "direct", trainer=both[1], **options)
    one, other = (run.potential.state_dict() for run in (again, direct))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert provenance(again.model)["init"] == provenance(whole.model)["init"]


def test_the_readouts_alone_can_be_trained(file, tmp_path, trained):
    frozen = ["embedding", "interactions", "heads.gap"]
    run, text = started(file, tmp_path / "run", trained, ["gap", "r2"], freeze=frozen, lr=1e-2)
    head = trained.potential.heads[0].network.dense1.weight
    assert torch.equal(run.potential.heads[0].network.dense1.weight, head)
    assert "heads.gap.network.dense1.weight" in text
    with pytest.raises(ValueError, match=r"`trainer.freeze` must leave weights"):
        started(file, tmp_path / "none", trained, ["gap"], freeze=["embedding", "interactions", "heads"])


@pytest.fixture
def model_of_gap(tmp_path):
    heads = {Target("gap"): Target("gap").readout(8)}
    pyg_schnet.save(Potential(SchNet(**TINY, readout=None), properties=heads), tmp_path / "gap.safetensors")
    return str(tmp_path / "gap.safetensors")


@pytest.mark.parametrize(
    "command",
    [
        "check MODEL FILE",
        "md MODEL FILE OUT.extxyz",
        "relax MODEL FILE OUT.extxyz",
        "lammps MODEL OUT.safetensors",
    ],
)
def test_commands_that_need_energies_refuse_a_model_without_in_one_line(
    file, model_of_gap, tmp_path, capsys, command
):
    words = command.replace("MODEL", model_of_gap).replace("FILE", file).replace("OUT", str(tmp_path / "out"))
    assert main(words.split()) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "must predict energies" in message
    assert "predicts gap" in message
    assert not list(tmp_path.glob("out*"))


def test_deviations_of_properties_alone_are_not_calibrated(file, model_of_gap, tmp_path, capsys):
    models = f"{model_of_gap},{model_of_gap}"
    assert main(["evaluate", models, file, "--calibrate", str(tmp_path / "ensemble.json")]) == 2
    assert "must have energies" in capsys.readouterr().err


@pytest.mark.parametrize(
    "use",
    [
        SchNetCalculator,
        Evaluator,
        lambda model: run_md_batched(model, [ase_molecule("H2O")], duration=1e-3),
        lambda model: relax_batched(model, [ase_molecule("H2O")]),
    ],
)
def test_engines_refuse_a_model_without_energies(model_of_gap, use):
    with pytest.raises(ValueError, match=r"must predict energies.*predicts gap"):
        use(model_of_gap)
