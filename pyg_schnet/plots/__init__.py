"""Pictures of a data set, of a training run and of a potential's errors."""

from pyg_schnet.plots.calibration import plot_calibration as plot_calibration
from pyg_schnet.plots.data_set import plot_data_set as plot_data_set
from pyg_schnet.plots.learning_curve import plot_learning_curve as plot_learning_curve
from pyg_schnet.plots.parity import plot_parity as plot_parity
