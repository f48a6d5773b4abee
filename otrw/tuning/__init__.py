"""Hyper-parameter search with Ray Tune, the only importer of ray."""
