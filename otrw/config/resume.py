"""What may change when a run goes on: where files are and how often it reports, nothing that its numbers depend on."""

from collections.abc import Mapping

from otrw.config.tree import flatten

MAY_CHANGE = (
    "data.root",
    "data.layout",
    "data.download",
    "data.cache",
    "data.workers",
    "stage1.checkpoint",  # the file may have moved; the settings it was trained with are compared
    "run.directory",
    "run.name",
    "run.resume",
    "run.cpu",
    "run.compile",
    "run.threads",
    "run.evaluate_every_epochs",
    "run.checkpoint_every_epochs",
    "run.checkpoint_every_steps",
    "run.keep_checkpoints",
    "run.tensorboard",
    "run.timeout_seconds",
)
"""Dotted paths of settings that may differ between the two parts of a run."""


def fixed_differences(left: Mapping, right: Mapping) -> dict[str, tuple[object, object]]:
    """{dotted path: (left's value, right's)} of the settings in which two configs differ and may not.

    Args:
        left: nested dict of a config; settings that it lacks, as records of earlier versions do, are not compared.
        right: the other.
    """
    left, right = flatten(left), flatten(right)
    return {
        path: (left[path], right[path])
        for path in sorted(left.keys() & right.keys())
        if path not in MAY_CHANGE and left[path] != right[path]
    }
