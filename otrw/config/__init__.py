"""What to train: the tree of settings, its presets, and how a command line becomes one."""

from otrw.config.data import AugmentConfig, ColumnsConfig, DataConfig
from otrw.config.model import ModelConfig
from otrw.config.optimization import LossConfig, LossName, OptimizerConfig
from otrw.config.run import RunConfig
from otrw.config.stages import Stage1Config, Stage2Config
from otrw.config.transport import OTConfig
from otrw.config.tree import Config, Variant, flatten, to_dict

__all__ = [
    "AugmentConfig",
    "ColumnsConfig",
    "Config",
    "DataConfig",
    "LossConfig",
    "LossName",
    "ModelConfig",
    "OTConfig",
    "OptimizerConfig",
    "RunConfig",
    "Stage1Config",
    "Stage2Config",
    "Variant",
    "flatten",
    "to_dict",
]
