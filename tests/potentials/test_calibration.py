"""Deviations are made as large as errors are: known factors come back, from few potentials and from many."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from pyg_schnet import Ensemble, Potential, SchNet
from pyg_schnet.cli import main
from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.calibration import Calibration, calibrate, calibrations
from pyg_schnet.potentials.metrics import evaluate
from pyg_schnet.simulation import SchNetCalculator, select

FACTOR = 1.8
FRAMES, ATOMS = 3000, 3


def draw(potentials, components, n=20_000, seed=0, factor=FACTOR):
    """Predictions and labels of 0: deviations over two decades, errors in common and errors apart."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=(n, 1, 1)))
    apart = size * rng.normal(size=(n, components, potentials))
    common = math.sqrt(factor**2 - 1 / potentials) * size[..., 0] * rng.normal(size=(n, components))
    return common[..., None] + apart


def calibration(*arguments, **options):
    members = torch.from_numpy(draw(*arguments, **options))
    deviation = members.var(-1).sum(1).sqrt()
    potentials, components = members.size(2), members.size(1)
    return Calibration(deviation, members.mean(-1), components * (potentials - 1))


# Standard errors of the factor: 1 / sqrt(2 n d ν / (ν + d + 2)) = 0.5 to 1 %.
@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("potentials", [2, 3, 5, 30])
def test_the_factor_of_normal_errors_comes_back(potentials, components):
    found = calibration(potentials, components)
    assert found.factor == pytest.approx(FACTOR, rel=0.03)
    after = found.scaled(found.factor)
    for k in (1, 2):
        assert after.share_within(k) == pytest.approx(found.expected_share(k), abs=0.01)
    assert after.miscalibration_area < 0.005 < 0.08 < found.miscalibration_area
    assert after.factor == pytest.approx(1, rel=1e-8)


def test_for_many_potentials_the_factor_is_the_closed_form_and_shares_are_normal():
    found = calibration(2000, 1, n=2000)
    closed = (found.error[:, 0] / found.deviation).square().mean().sqrt().item()
    assert found.factor == pytest.approx(closed, rel=3e-3)
    assert found.expected_share(1) == pytest.approx(0.6827, abs=3e-4)
    assert found.expected_share(2) == pytest.approx(0.9545, abs=3e-4)
    assert found.scaled(found.factor).ence < 0.1  # measured 0.04; bins of 200
    assert found.scaled(found.factor).sharpness == pytest.approx(found.rmse, rel=0.1)


def test_for_three_potentials_the_closed_form_is_ruled_by_accidents():
    found = calibration(3, 1)
    closed = (found.error[:, 0] / found.deviation).square().mean().sqrt().item()
    assert closed > 2 * FACTOR


def test_the_factor_is_that_of_the_greatest_likelihood():
    found = calibration(3, 3, n=500)

    def likelihood(factor):  # of Student's joint distribution of three components, up to constants
        reduced = found.error.square().sum(1) / (factor * found.deviation / 3**0.5).square()
        return (-0.5 * (6 + 3) * torch.log1p(reduced / 6) - 3 * math.log(factor)).sum().item()

    best = likelihood(found.factor)
    for other in (0.98, 0.999, 1.001, 1.02):
        assert likelihood(other * found.factor) < best
    assert found.degrees == 6


@pytest.mark.parametrize(("potentials", "components"), [(2, 1), (3, 1), (2, 3)])
def test_errors_of_zero_are_no_end_of_the_search(potentials, components):
    found = calibration(potentials, components, n=1200)
    degrees = components * (potentials - 1)
    zeros = 1200 * degrees // (degrees + components)  # from which on the most likely factor is zero
    found.error[:zeros] = 0
    with pytest.raises(ValueError, match=rf"`error`.*{zeros}.*1200"):
        _ = found.factor
    found = Calibration(found.deviation[1:], found.error[1:], degrees)
    square = found.error.square().sum(1) / (found.factor * found.deviation).square()
    weight = (degrees + components) / (degrees + components * square)
    assert found.factor > 0
    assert (weight * square).mean().item() == pytest.approx(1, rel=1e-9)  # the equation that defines it


def test_errors_that_are_no_numbers_have_no_factor():
    found = calibration(3, 1, n=100)
    found.error[7] = math.nan
    with pytest.raises(ValueError, match=r"`error`.*`deviation`.*finite"):
        _ = found.factor


def test_constants_scale_through():
    found = calibration(3, 3, n=1000)
    for constant in (1e-3, 7.0):
        scaled = found.scaled(constant)
        assert scaled.factor == pytest.approx(found.factor / constant, rel=1e-8)
        assert scaled.sharpness == pytest.approx(found.sharpness * constant, rel=1e-12)
        assert scaled.rank_correlation == found.rank_correlation
        other_unit = Calibration(constant * found.deviation, constant * found.error, found.degrees)
        assert other_unit.factor == pytest.approx(found.factor, rel=1e-10)
        assert other_unit.ence == pytest.approx(found.ence, rel=1e-10)
        assert other_unit.rmse == pytest.approx(constant * found.rmse, rel=1e-12)


def test_numbers_of_four_errors_are_those_found_by_hand():
    deviation = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    found = Calibration(deviation, torch.tensor([[0.5], [-3.0], [4.0], [-10.0]], dtype=torch.float64), 1)
    assert found.rmse == pytest.approx(math.sqrt((0.25 + 9 + 16 + 100) / 4))
    assert found.sharpness == pytest.approx(math.sqrt(30 / 4))
    assert [found.share_within(k) for k in (0.4, 1, 2, 3)] == [0, 0.25, 0.75, 1]
    assert found.expected_share(1) == pytest.approx(0.5)  # Cauchy's quartiles
    assert found.rank_correlation == pytest.approx(1)
    expected, observed = found.reliability(5)
    assert expected.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert observed.tolist() == [
        0,
        0,
        0.25,
        0.75,
        1,
    ]  # 2/π atan of 0.5, 1.5, 1.33, 2.5: 0.30, 0.63, 0.59, 0.76
    (before,), (error,), _ = found.bins()
    assert (before, error) == (pytest.approx(found.sharpness), pytest.approx(found.rmse))
    assert found.ence == pytest.approx(abs(found.sharpness - found.rmse) / found.sharpness)


def test_bins_have_equal_numbers_sorted_by_deviation():
    found = calibration(5, 1, n=1000)
    deviation, error, _ = found.bins(4)
    order = found.deviation.argsort()
    for number in range(4):
        rows = order[250 * number : 250 * (number + 1)]
        assert deviation[number] == pytest.approx(found.deviation[rows].square().mean().sqrt().item())
        assert error[number] == pytest.approx(found.error[rows].square().mean().sqrt().item())
    assert bool((deviation.diff() > 0).all())
    normal = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 1)))
    _, error, spread = Calibration(torch.linspace(1, 2, 4000, dtype=torch.float64), normal, 4).bins(4)
    torch.testing.assert_close(spread, error / 2000**0.5, rtol=0.2, atol=0)


class Drawn(nn.Module):
    """A potential whose errors are given, looked up by ``idx``."""

    def __init__(self, energy, forces):
        super().__init__()
        self.elements, self.model = [1, 8], nn.Identity()
        self.register_buffer("atomref", torch.zeros(100, dtype=torch.float64))
        self.energy, self.forces = torch.from_numpy(energy), torch.from_numpy(forces)

    def forward(self, batch, forces=True, stress=False):
        energy = batch.energy + self.energy[batch.idx]
        return {"energy": energy, "forces": batch.forces + self.forces[batch.idx].view(-1, 3)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(0)
    shape = (FRAMES, ATOMS, 3)
    arrays = {"R": rng.normal(size=shape), "E": rng.normal(size=FRAMES) - 1e3, "F": rng.normal(size=shape)}
    path = tmp_path_factory.mktemp("calibration") / "frames.npz"
    np.savez(path, z=[8, 1, 1], **arrays)
    return AtomsDataset(path=path)


@pytest.fixture
def ensemble():
    energy = draw(3, 1, FRAMES)[:, 0]
    forces = draw(3, 3, FRAMES * ATOMS, factor=0.9).reshape(FRAMES, ATOMS, 3, 3)
    return Ensemble([Drawn(energy[:, k].copy(), forces[..., k].copy()) for k in range(3)]).eval()


def test_a_calibrated_ensemble_deviates_by_its_errors(ensemble, dataset):
    calibrated = calibrate(ensemble, dataset, 500)
    assert not ensemble.is_calibrated
    assert calibrated.is_calibrated
    assert not calibrated.training
    # Standard errors: 3,000 energies of 2 degrees of freedom 1.4 %, 9,000 forces of 6 degrees 0.4 %.
    assert calibrated.factors["energy"] == pytest.approx(FACTOR, rel=0.05)
    assert calibrated.factors["forces"] == pytest.approx(0.9, rel=0.02)
    raw, scaled = evaluate(ensemble, dataset, 500), evaluate(calibrated, dataset, 500)
    for name, factor in calibrated.factors.items():
        before, after = (getattr(one, f"{name}_deviation") for one in (raw, scaled))
        torch.testing.assert_close(after, factor * before)
        torch.testing.assert_close(getattr(scaled, name), getattr(raw, name))
    again = calibrate(calibrated, dataset, 500)
    assert again.factors == pytest.approx(calibrated.factors, rel=1e-6)


def test_calibrating_leaves_the_modes_of_the_potentials(ensemble, dataset):
    for potential in ensemble.potentials:
        potential.eval()
    ensemble.training = True  # as Ensemble([...]) of loaded potentials is
    calibrate(ensemble, dataset)
    assert not any(part.training for potential in ensemble.potentials for part in potential.modules())


def test_energies_count_per_atom(ensemble, dataset):
    evaluation = evaluate(ensemble, dataset, 500)
    found = calibrations(evaluation)["energy"]
    assert found.rmse == pytest.approx(evaluation.energy_rmse / ATOMS)
    assert found.deviation.tolist() == pytest.approx((evaluation.energy_deviation / ATOMS).tolist())


def test_a_calibration_that_tells_nothing_is_refused(ensemble, dataset):
    with pytest.raises(ValueError, match=r"`evaluation`.*10.*structures.*9"):
        calibrate(ensemble, dataset[:9])
    one = ensemble.potentials[0]
    with pytest.raises(ValueError, match=r"ensemble.*potentials"):
        calibrations(evaluate(one, dataset[:20]))
    with pytest.raises(ValueError, match=r"deviations.*energy.*potential.*twice"):
        calibrate(Ensemble([one, one]), dataset[:20])


def test_predictions_that_are_not_finite_are_no_calibration(ensemble, dataset):
    ensemble.potentials[1].energy[:] = np.nan
    with pytest.raises(ValueError, match=r"`energy`.*finite"):
        calibrate(ensemble, dataset[:20])


SAMPLE = "datasets/md17/ethanol_gfn2_xtb.npz"
TINY = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 12}


@pytest.fixture
def paths(tmp_path, randomize):
    made = [tmp_path / str(k) / "model.safetensors" for k in range(3)]
    for seed, path in enumerate(made):
        path.parent.mkdir()
        checkpoint.save(Potential(randomize(SchNet(**TINY), seed), 0.1, elements=[1, 6, 8]), path)
    return [str(path) for path in made]


@pytest.fixture
def few(tmp_path):
    """Forty frames of the sample, in a file."""
    with np.load(SAMPLE) as file:
        arrays = {name: file[name] for name in file.files}
    frames = len(arrays["E"])
    cut = {name: array[:40] if array.shape[:1] == (frames,) else array for name, array in arrays.items()}
    np.savez(tmp_path / "few.npz", **cut)
    return str(tmp_path / "few.npz")


def test_the_command_line_calibrates_and_other_doors_take_the_file(paths, few, tmp_path, capsys):
    out, picture = tmp_path / "ensemble.json", tmp_path / "calibration.png"
    options = ["--calibrate", str(out), "--plot_calibration", str(picture)]
    assert main(["evaluate", ",".join(paths), few, *options]) == 0
    text = capsys.readouterr().out
    for words in ("3 potentials", "raw", "calibrated", "energy: errors within 1σ (%)", "57.7", "64.4"):
        assert words in text
    assert picture.stat().st_size > 10_000
    expected = calibrate(Ensemble.load(paths), AtomsDataset(path=few))
    own = Ensemble.load(out)
    assert own.is_calibrated
    assert own.factors == pytest.approx(expected.factors, rel=1e-4)
    assert main(["evaluate", str(out), few, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["calibration"]
    assert report["forces"]["factor"] == pytest.approx(1, rel=1e-3)
    assert report["energy"]["expected_within_2"] == pytest.approx(0.8165, abs=1e-4)
    from ase.build import molecule

    atoms = molecule("CH3CH2OH")
    deviations = []
    for model in (str(out), paths):
        atoms.calc = SchNetCalculator(model)
        atoms.get_forces()
        deviations.append(atoms.calc.results["forces_deviation"])
    np.testing.assert_allclose(deviations[0], own.factors["forces"] * deviations[1], rtol=1e-4)
    (_, value), (_, raw) = select(out, [atoms], 1)[0], select(paths, [atoms], 1)[0]
    assert value == pytest.approx(own.factors["forces"] * raw, rel=1e-4)
    atoms.write(tmp_path / "pool.xyz")
    chosen = [str(tmp_path / name) for name in ("pool.xyz", "chosen.xyz")]
    assert main(["select", str(out), *chosen, "--k", "1"]) == 0


def test_an_ensemble_moves_with_its_checkpoints_and_knows_them(paths, tmp_path, randomize):
    (tmp_path / "runs").mkdir()
    moved = tmp_path / "elsewhere"
    ensemble = Ensemble([*Ensemble.load(paths).potentials], {"energy": 2.0, "forces": 3.0})
    ensemble.save(tmp_path / "ensemble.json", paths)
    moved.mkdir()
    for name in ("0", "1", "2", "ensemble.json"):
        (tmp_path / name).rename(moved / name)
    assert Ensemble.load(moved / "ensemble.json").factors == {"energy": 2.0, "forces": 3.0}
    retrained = moved / "1" / "model.safetensors"
    checkpoint.save(Potential(randomize(SchNet(**TINY), 7), elements=[1, 6, 8]), retrained)
    with pytest.raises(ValueError, match=r"1.model.safetensors.*another"):
        Ensemble.load(moved / "ensemble.json")


def test_a_raw_ensemble_is_saved_as_raw(paths, tmp_path):
    Ensemble.load(paths).save(tmp_path / "raw.json", paths)
    assert not Ensemble.load(tmp_path / "raw.json").is_calibrated


def test_wrong_factors_and_files_are_refused(paths, tmp_path):
    ensemble = Ensemble.load(paths)
    potentials = list(ensemble.potentials)
    for factors, words in (
        ({"stress": 1.0}, "got 1.0 for 'stress'"),
        ({"energy": -1.0}, "got -1.0 for 'energy'"),
    ):
        with pytest.raises(ValueError, match=rf"`factors`.*positive.*numbers.*{words}"):
            Ensemble(potentials, factors)
    with pytest.raises(ValueError, match=r"`path`.*ensemble.yaml"):
        ensemble.save(tmp_path / "ensemble.yaml", paths)
    with pytest.raises(ValueError, match=r"`potentials`.*3.*potentials.*2"):
        ensemble.save(tmp_path / "ensemble.json", paths[:2])
    other = tmp_path / "other.json"
    for content in ("[1]", "no json", '{"kind": "potential"}'):
        other.write_text(content)
        with pytest.raises(ValueError, match=r"other.json.*ensemble.*--calibrate`"):
            Ensemble.load(other)
    other.write_text('{"kind": "ensemble", "format": 9}')
    with pytest.raises(ValueError, match=r"format.*9.*pyg_schnet.*1"):
        Ensemble.load(other)


def test_the_command_line_refuses_calibrations_that_mislead(paths, few, tmp_path, capsys):
    def refused(*options, models=paths):
        assert main(["evaluate", ",".join(models), few, *options]) == 2
        return " ".join(capsys.readouterr().err.split())

    out = str(tmp_path / "ensemble.json")
    assert "need two checkpoints or more" in refused("--calibrate", out, models=paths[:1])
    assert "must be on structures that were not trained on" in refused("--calibrate", out, "--part", "train")
    assert "`--calibrate` must end in .json" in refused("--calibrate", out + "x")
    (tmp_path / "ensemble.json").write_text("mine")
    assert "exists" in refused("--calibrate", out)
