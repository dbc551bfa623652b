"""The picture of a run shows what training saw."""

import numpy as np
import pytest

from pyg_schnet.plots import plot_learning_curve


def row(step, **others):
    return {"step": step, "lr": 1e-3 / step, "loss": 2.0 / step, "val_energy_mae_eV": 0.5 / step, **others}


def test_loss_and_learning_rate_are_below_the_errors(figures):
    plot_learning_curve([row(10), row(20), row(40)], "curve.png")
    errors, loss, rate = figures[0].axes
    np.testing.assert_allclose(errors.get_lines()[0].get_xydata(), [[10, 50], [20, 25], [40, 12.5]])
    np.testing.assert_allclose(loss.get_lines()[0].get_xydata(), [[10, 0.2], [20, 0.1], [40, 0.05]])
    np.testing.assert_allclose(rate.get_lines()[0].get_xydata(), [[10, 1e-4], [20, 5e-5], [40, 2.5e-5]])
    labels = [axes.get_ylabel() for axes in figures[0].axes]
    assert labels == ["energy MAE\n(meV)", "training loss\n(no unit)", "learning rate\n(no unit)"]
    assert rate.get_xlabel() == "training step"


@pytest.mark.parametrize("missing", ["lr", "loss"])
def test_what_the_rows_lack_has_no_panel(figures, missing):
    rows = [row(10), row(20)]
    for one in rows:
        del one[missing]
    plot_learning_curve(rows, "curve.png")
    assert len(figures[0].axes) == 2


def test_errors_of_each_kind_have_a_panel_with_their_unit(figures):
    others = {"val_forces_mae_eV_per_A": 0.1, "val_stress_mae_eV_per_A3": 0.001}
    plot_learning_curve([row(10, **others)], "curve.png")
    labels = [axes.get_ylabel() for axes in figures[0].axes[:3]]
    assert labels == ["energy MAE\n(meV)", "force MAE\n(meV/Å)", "stress MAE\n(GPa)"]
    stress = figures[0].axes[2].get_lines()[0].get_ydata()
    np.testing.assert_allclose(stress, [0.160218], rtol=1e-5)  # an eV/Å³ is 160.2 GPa


def test_the_lowest_error_is_labeled(figures):
    plot_learning_curve([row(10), row(40), row(20)], "curve.png")
    (label,) = figures[0].axes[0].texts
    assert label.get_text() == "12.5"
    assert label.xy == (40, 12.5)


def test_more_than_six_panels_are_in_two_columns(figures):
    names = ("mu", "gap", "homo", "lumo", "U0", "Cv")
    others = {f"val_{name}_mae_eV": 0.1 for name in names}
    plot_learning_curve([row(10, **others)], "curve.png")
    assert len(figures[0].axes) == 9
    places = [axes.get_position() for axes in figures[0].axes]
    assert len({round(place.x0, 6) for place in places}) == 2
    with_steps = {axes.get_ylabel() for axes in figures[0].axes if axes.get_xlabel() == "training step"}
    assert with_steps == {"lumo MAE\n(eV)", "learning rate\n(no unit)"}
