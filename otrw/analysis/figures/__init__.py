"""Figures of run records, searches and benchmarks. The only importer of matplotlib, an optional dependency; no torch."""
