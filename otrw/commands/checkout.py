"""Folders of the checkout that hold committed results; in an installed package they are not there."""

from pathlib import Path

ANALYSIS = Path(__file__).resolve().parents[2] / "analysis"
RESULTS = ANALYSIS / "results"
STUDY_RECORDS = ANALYSIS / "experiments" / "results"
"""A folder of records for each study."""
CHECKPOINTS = ANALYSIS / "checkpoints"
