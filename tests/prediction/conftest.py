"""Fixtures of predictions: those of simulations."""

from tests.simulation.conftest import calculator as calculator
from tests.simulation.conftest import crystal as crystal
from tests.simulation.conftest import ethanol as ethanol
from tests.simulation.conftest import evaluations as evaluations
from tests.simulation.conftest import no_gradient as no_gradient
from tests.simulation.conftest import overflowing as overflowing
from tests.simulation.conftest import potential as potential
from tests.simulation.conftest import springs as springs
