"""What to train: the tree of settings, its presets, and how a command line becomes one."""

from otrw.config.tree import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    LossName,
    ModelConfig,
    OptimizerConfig,
    OTConfig,
    RunConfig,
    Stage1Config,
    Stage2Config,
    Variant,
    to_dict,
)

__all__ = [
    "AugmentConfig",
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
    "to_dict",
]
