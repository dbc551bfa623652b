"""Training: configuration, data, loss, optimizer, loop and the run's directory."""

from typing import TYPE_CHECKING

from pyg_schnet._lazy import lazy_names

if TYPE_CHECKING:
    from pyg_schnet.training.callbacks import Callback as Callback
    from pyg_schnet.training.callbacks import Training as Training
    from pyg_schnet.training.config import DataConfig as DataConfig
    from pyg_schnet.training.config import FabricConfig as FabricConfig
    from pyg_schnet.training.config import TrainConfig as TrainConfig
    from pyg_schnet.training.config import TrainerConfig as TrainerConfig
    from pyg_schnet.training.loggers import LightningLogger as LightningLogger
    from pyg_schnet.training.loggers import WandbLogger as WandbLogger
    from pyg_schnet.training.loss import potential_loss as potential_loss
    from pyg_schnet.training.progress import Report as Report
    from pyg_schnet.training.run import train as train
    from pyg_schnet.training.run_directory import RunDirectory as RunDirectory
    from pyg_schnet.training.soap import Soap as Soap

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Callback": "callbacks",
        "Training": "callbacks",
        "DataConfig": "config",
        "FabricConfig": "config",
        "TrainConfig": "config",
        "TrainerConfig": "config",
        "LightningLogger": "loggers",
        "WandbLogger": "loggers",
        "potential_loss": "loss",
        "Report": "progress",
        "train": "run",
        "RunDirectory": "run_directory",
        "Soap": "soap",
    },
)
