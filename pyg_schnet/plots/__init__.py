"""Pictures: data sets, learning curves, errors of potentials, filters and embeddings of SchNets.

To add a plot, write a module with ``plot_NAME``, export it here, and add it to ``PICTURES`` in
:mod:`pyg_schnet.cli.pictures` if the command ``plot`` draws it.
"""

from pyg_schnet.plots.atomic_energies import plot_atomic_energies as plot_atomic_energies
from pyg_schnet.plots.calibration import plot_calibration as plot_calibration
from pyg_schnet.plots.data_set import plot_data_set as plot_data_set
from pyg_schnet.plots.distances import pair_distances as pair_distances
from pyg_schnet.plots.dynamics import plot_dynamics as plot_dynamics
from pyg_schnet.plots.embeddings import plot_elements as plot_elements
from pyg_schnet.plots.errors import plot_errors as plot_errors
from pyg_schnet.plots.filter_profiles import plot_filter_profiles as plot_filter_profiles
from pyg_schnet.plots.filters import plot_filters as plot_filters
from pyg_schnet.plots.learning_curve import plot_learning_curve as plot_learning_curve
from pyg_schnet.plots.parity import plot_parity as plot_parity
