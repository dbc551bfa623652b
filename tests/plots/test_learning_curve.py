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
    assert labels == ["validation MAE\n(meV, meV/Å)", "training loss\n(no unit)", "learning\nrate"]
    assert rate.get_xlabel() == "training step"


@pytest.mark.parametrize("missing", ["lr", "loss"])
def test_what_the_rows_lack_has_no_panel(figures, missing):
    rows = [row(10), row(20)]
    for one in rows:
        del one[missing]
    plot_learning_curve(rows, "curve.png")
    assert len(figures[0].axes) == 2


def test_errors_of_three_kinds_have_their_units_in_the_legend(figures):
    others = {"val_forces_mae_eV_per_A": 0.1, "val_stress_mae_eV_per_A3": 0.001}
    plot_learning_curve([row(10, **others)], "curve.png")
    names = [text.get_text() for text in figures[0].axes[0].get_legend().texts]
    assert names == ["energy (meV)", "forces (meV/Å)", "stress (meV/Å³)"]
