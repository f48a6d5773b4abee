"""Distributed training for long-tailed, partly mislabelled data, re-weighted by optimal transport.

The public names load what they need when they are first used; ``import otrw`` itself takes milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from otrw.config import Config as Config
    from otrw.config.command_line import parse_config as parse_config
    from otrw.errors import NonFiniteError as NonFiniteError
    from otrw.errors import UserError as UserError
    from otrw.ot.semi_relaxed import semi_relaxed_weights as semi_relaxed_weights
    from otrw.ot.sinkhorn import sinkhorn as sinkhorn
    from otrw.reweight import OTReweighter as OTReweighter
    from otrw.reweight.estimator import OTSampleWeights as OTSampleWeights
    from otrw.training.model_file import load as load
    from otrw.training.run import run as run

_HOME = {
    "Config": "otrw.config",
    "NonFiniteError": "otrw.errors",
    "OTReweighter": "otrw.reweight",
    "OTSampleWeights": "otrw.reweight.estimator",
    "UserError": "otrw.errors",
    "load": "otrw.training.model_file",
    "parse_config": "otrw.config.command_line",
    "run": "otrw.training.run",
    "semi_relaxed_weights": "otrw.ot.semi_relaxed",
    "sinkhorn": "otrw.ot.sinkhorn",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'otrw' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
