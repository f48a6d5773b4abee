"""Distributed training for long-tailed data, re-weighted by optimal transport."""

__version__ = "0.1.0"
