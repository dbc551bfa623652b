"""The picture of a run of dynamics: energies and temperature over time."""

import math

import numpy as np
import pytest

from pyg_schnet.plots import plot_dynamics


def rows(conserved=True):
    drift = 0.1 if conserved else math.nan
    return [
        {
            "time_ps": 0.1 * k,
            "potential_eV": -5 + 0.2 * k,
            "total_eV": -4 + 0.001 * k,
            "temperature_K": 300.0 + k,
            "drift_meV_per_atom_ps": drift,
        }
        for k in range(3)
    ]


def test_energies_are_relative_to_the_first_frame(figures):
    plot_dynamics(rows(), "dynamics.png")
    energies, total, temperature = figures[0].axes
    potential, both = (line.get_ydata() for line in energies.get_lines())
    np.testing.assert_allclose(potential, [0, 0.2, 0.4])
    np.testing.assert_allclose(both, [0, 0.001, 0.002])
    np.testing.assert_allclose(total.get_lines()[0].get_ydata(), [0, 1, 2])  # meV
    np.testing.assert_allclose(temperature.get_lines()[0].get_ydata(), [300, 301, 302])
    assert temperature.get_title(loc="right") == "mean 301 K"
    assert temperature.get_xlabel() == "time (ps)"


def test_with_a_thermostat_no_energy_is_conserved(figures):
    plot_dynamics(rows(conserved=False), "dynamics.png")
    assert len(figures[0].axes) == 2


def test_one_frame_is_no_run(figures):
    with pytest.raises(ValueError, match="at least two frames, got 1"):
        plot_dynamics(rows()[:1], "dynamics.png")
