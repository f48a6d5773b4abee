"""The precision that runs started here will train with, known before they start: it is part of what they are."""

import os

from otrw.config import RunConfig


def resolved_precision(run: RunConfig) -> str:
    """One of "no", "bf16" or "fp16": run.precision, with "auto" resolved for this machine, as `start_accelerator` does."""
    if run.precision != "auto":
        return run.precision
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked != "no" or run.cpu:
        return asked
    import torch  # the one question that needs it

    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
