"""Weights of training samples by optimal transport: `OTReweighter`, usable alone in anyone's training loop."""

from otrw.reweight.diagnostics import Diagnostics
from otrw.reweight.reweighter import OTReweighter

__all__ = ["Diagnostics", "OTReweighter"]
