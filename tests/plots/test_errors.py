"""The picture of errors, and the numbers beside it."""

from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
import torch

from pyg_schnet.plots import plot_errors, plot_parity
from pyg_schnet.plots.errors import error_quantiles, shown_unit, worst_structures
from pyg_schnet.potentials.metrics import Evaluation, PropertyErrors
from pyg_schnet.potentials.targets import Target


def evaluation(energy_errors, force_errors=None, z=(8, 1, 1)):
    """Of so many water molecules; all labels are zero."""
    energy = torch.as_tensor(energy_errors, dtype=torch.float64)
    n = len(energy)
    forces = None
    if force_errors is not None:
        forces = torch.zeros(2, n * len(z), 3, dtype=torch.float64)
        forces[1] = force_errors
    return Evaluation(
        n=n,
        energy_mae=float(energy.abs().mean()),
        energy_rmse=float(energy.square().mean().sqrt()),
        forces_mae=None if forces is None else float(forces[1].abs().mean()),
        forces_rmse=None if forces is None else float(forces[1].square().mean().sqrt()),
        energy=torch.stack([torch.zeros_like(energy), energy]),
        forces=forces,
        z=torch.tensor(z).repeat(n),
        sizes=torch.full((n,), len(z)),
    )


def of_properties(**errors):
    """Errors of four structures without energies; `structures` of each label follow its errors."""
    properties = {}
    for name, (own, structures) in errors.items():
        own = torch.tensor(own, dtype=torch.float64)
        values, target = torch.stack([torch.zeros_like(own), own]), Target(name)
        mae, rmse = float(own.abs().mean()), float(own.square().mean().sqrt())
        properties[name] = PropertyErrors(target, mae, rmse, values, None, torch.tensor(structures))
    empty = torch.empty(2, 0, dtype=torch.float64)
    return Evaluation(4, None, None, None, None, empty, None, torch.empty(0), properties=properties)


def noise(*shape):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_quantiles_are_of_absolute_errors():
    errors = torch.arange(1, 102).double() * torch.tensor([1.0, -1.0]).double().repeat(51)[:101]
    found = error_quantiles(evaluation(errors))
    assert found == {"energy": pytest.approx({0.5: 51, 0.9: 91, 0.95: 96, 0.99: 100})}


def test_quantiles_of_forces_are_by_element_where_there_are_several():
    forces = torch.ones(9, 3).double()
    forces[::3] = 5.0  # oxygen
    found = error_quantiles(evaluation([0.0] * 3, forces))
    assert found["forces on O"] == dict.fromkeys((0.5, 0.9, 0.95, 0.99), 5.0)
    assert found["forces on H"] == dict.fromkeys((0.5, 0.9, 0.95, 0.99), 1.0)
    assert "forces on Si" not in error_quantiles(evaluation([0.0], noise(1, 3), z=(14,)))


def test_the_worst_structures_are_those_with_the_largest_error_of_each_kind():
    forces = torch.zeros(12, 3).double()
    forces[7] = torch.tensor([3.0, -4.0, 0.0])  # an atom of structure 2
    found = worst_structures(evaluation([0.1, -0.9, 0.2, 0.5], forces), count=2)
    assert found["energy"] == [(1, pytest.approx(0.9)), (3, pytest.approx(0.5))]
    assert found["forces"][0] == (2, pytest.approx(5.0))


def test_curves_count_how_many_errors_are_below(figures):
    plot_errors(evaluation([0.001, -0.002, 0.003, 0.004]), "errors.png")
    _, shares = figures[0].axes
    (curve,) = [line for line in shares.get_lines() if len(line.get_xdata()) == 5]
    np.testing.assert_allclose(curve.get_xdata()[1:], [1, 2, 3, 4])  # meV
    np.testing.assert_allclose(curve.get_ydata(), [0, 0.25, 0.5, 0.75, 1.0])
    assert shares.get_xlabel() == "absolute energy error (meV)"
    assert shares.get_ylabel() == "errors below (%)"


def test_quantiles_are_marked_and_told(figures):
    result = evaluation(noise(400))
    plot_errors(result, "errors.png")
    shares = figures[0].axes[1]
    marks = [line.get_xydata()[0].tolist() for line in shares.get_lines() if line.get_marker() == "o"]
    expected = [[1e3 * size, share] for share, size in error_quantiles(result)["energy"].items()]
    np.testing.assert_allclose(marks, expected)
    assert shares.texts[0].get_text().startswith(f"50 % below {expected[0][0]:.3g} meV\n90 % below ")


def test_histograms_are_densities_with_signs(figures):
    plot_errors(evaluation(noise(400) + 0.2, noise(1200, 3)), "errors.png")
    energy, _, forces, _ = figures[0].axes
    assert energy.get_xlabel() == "energy error (meV)"
    assert forces.get_xlabel() == "force error, component (meV/Å)"
    assert [text.get_text() for text in forces.get_legend().texts] == ["H", "O"]
    values, edges, _ = energy.patches[0].get_data()
    middle = (values * (edges[1:] + edges[:-1]) / 2 * np.diff(edges)).sum()
    assert middle == pytest.approx(200, abs=10)
    assert "mean" in energy.texts[0].get_text()


def test_few_errors_are_counted_and_each_is_marked(figures):
    errors = [-0.004, 0.001, 0.002, 0.0021, 0.003]
    plot_errors(evaluation(errors), "errors.png")
    axes = figures[0].axes[0]
    counts, edges, _ = axes.patches[0].get_data()
    assert counts.sum() == 5
    assert len(counts) >= 7
    assert edges[0] <= -4
    assert edges[-1] >= 3
    assert np.isclose(edges, 0).any()
    (marks,) = [line for line in axes.get_lines() if line.get_marker() == "|"]
    np.testing.assert_allclose(marks.get_xdata(), 1e3 * np.array(errors))
    assert axes.get_ylabel() == "structures"


def test_errors_of_all_elements_together_look_like_no_element(figures):
    plot_errors(evaluation(noise(4), noise(16, 3), z=(1, 6, 7, 8)), "errors.png")
    shares = figures[0].axes[3]
    assert [text.get_text() for text in shares.get_legend().texts] == ["all", "H", "C", "N", "O"]
    lines = {line.get_label(): line for line in shares.get_lines()}
    looks = {(lines[name].get_color(), lines[name].get_linewidth()) for name in ("all", "H", "C", "N", "O")}
    assert len(looks) == 5
    assert lines["all"].get_linewidth() > 3 * lines["N"].get_linewidth()


def test_energies_of_crystals_are_per_atom(figures):
    result = replace(evaluation([0.03, -0.06]), periodic=True)
    plot_errors(result, "errors.png")
    plot_parity(result, "parity.png")
    density, shares = figures[0].axes
    assert (density.get_xlabel(), shares.get_xlabel()) == (
        "energy error (meV/atom)",
        "absolute energy error (meV/atom)",
    )
    (marks,) = [line for line in density.get_lines() if line.get_marker() == "|"]
    np.testing.assert_allclose(marks.get_xdata(), [10, -20])
    above, below = figures[1].axes
    assert below.get_xlabel() == "reference energy − mean (eV/atom)"
    assert above.texts[0].get_text() == "MAE 15.0 meV/atom\nRMSE 15.8 meV/atom"
    assert error_quantiles(result)["energy per atom"][0.5] == pytest.approx(0.015)


def test_errors_beyond_the_axis_are_counted(figures):
    errors = noise(400)
    errors[0] = 50.0
    plot_errors(evaluation(errors), "errors.png")
    axes = figures[0].axes[0]
    assert axes.texts[0].get_text().endswith("1 of 400 beyond")
    assert axes.patches[0].get_data().edges[-1] < 1000


@pytest.mark.parametrize(("errors", "forces"), [([0.0], True), ([0.0, 0.0], False), ([0.1] * 3, True)])
def test_errors_without_spread_are_drawn(tmp_path, errors, forces):
    n = 3 * len(errors)
    result = evaluation(errors, torch.zeros(n, 3).double() if forces else None)
    plot_errors(result, tmp_path / "errors.png")
    assert matplotlib.image.imread(tmp_path / "errors.png").shape[1] == 2100


def test_a_parity_plot_of_many_sizes_is_relative_to_the_references(figures):
    z, sizes = torch.tensor([1, 1, 1]), torch.tensor([1, 2])
    energy = torch.tensor([[-10.5, -20.0], [-10.4, -20.2]], dtype=torch.float64)
    result = Evaluation(2, 0.15, 0.16, None, None, energy, None, z, sizes=sizes)
    atomref = torch.zeros(100, dtype=torch.float64)
    atomref[1] = -10.0
    plot_parity(result, "parity.png", atomref=atomref)
    above, below = figures[0].axes
    np.testing.assert_allclose(above.get_lines()[0].get_xydata(), [[-0.5, -0.4], [0.0, -0.2]], atol=1e-12)
    assert below.get_xlabel() == "reference energy − references (eV)"


def test_what_is_not_finite_is_named(tmp_path):
    errors = noise(5)
    errors[2] = float("nan")
    with pytest.raises(ValueError, match=r"`evaluation.energy`.*finite.*1.*10"):
        plot_errors(evaluation(errors), tmp_path / "errors.png")
    with pytest.raises(ValueError, match=r"`evaluation.forces`.*finite.*45.*90"):
        plot_errors(evaluation(noise(5), float("inf")), tmp_path / "errors.png")
    assert not (tmp_path / "errors.png").exists()


def test_errors_of_properties_have_their_units(figures):
    result = of_properties(gap=([0.1, -0.3], [1, 3]), mu=([1.0, -2.0, 0.5, 0.0], [0, 1, 2, 3]))
    assert error_quantiles(result)["gap"][0.5] == pytest.approx(0.2)
    assert error_quantiles(result).keys() == {"gap", "mu"}
    assert [shown_unit(name, result) for name in ("gap", "mu", "energy")] == [
        ("eV", 1.0),
        ("D", 1.0),
        ("meV", 1e3),
    ]
    plot_errors(result, "errors.png")
    labels = [axes.get_xlabel() for axes in figures[0].axes]
    assert labels == ["gap error (eV)", "absolute gap error (eV)", "mu error (D)", "absolute mu error (D)"]


def test_the_worst_structures_are_found_where_labels_are_missing_or_of_atoms():
    charges = ([0.1, -0.4, 0.2, 0.3], [0, 0, 2, 2])
    result = of_properties(gap=([0.1, -0.3], [1, 3]), charges=charges)
    worst = worst_structures(result)
    assert worst["gap"] == [(3, pytest.approx(0.3)), (1, pytest.approx(0.1))]
    assert worst["charges"] == [(0, pytest.approx(0.4)), (2, pytest.approx(0.3))]


def test_of_many_properties_the_cumulative_distributions_are_drawn(figures):
    names = ("homo", "lumo", "gap", "U0", "alpha")
    result = of_properties(**dict.fromkeys(names, ([0.1, -0.3], [0, 1])))
    plot_errors(result, "errors.png")
    units = ["eV"] * 4 + ["Å³"]
    labels = [axes.get_xlabel() for axes in figures[0].axes]
    assert labels == [f"absolute {name} error ({unit})" for name, unit in zip(names, units, strict=True)]


def test_without_errors_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="must have errors of energies or properties"):
        plot_errors(of_properties())
