"""Weights of training samples by optimal transport: `OTReweighter`, usable alone in anyone's training loop."""

from otrw.reweight.reweighter import Diagnostics, OTReweighter

__all__ = ["Diagnostics", "OTReweighter"]
