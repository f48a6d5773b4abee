"""The samples that `OTReweighter.fit` is given, checked on every process."""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.config import OTConfig
from otrw.errors import UserError, check
from otrw.reweight.inputs import Array, check_index, checked_embeddings, checked_labels


class Rows(NamedTuple):
    """Samples on the device, checked."""

    embeddings: Tensor
    """(n, D) float32"""
    labels: Tensor
    """(n,) given class indices"""
    predictions: Tensor | None
    """(n, C) float32, where they are used"""
    sample_index: Tensor
    """(n,) which samples they are"""

    def gathered(self, num_samples: int) -> "Rows":
        """All samples in their order, from every process's own; replicated."""
        embeddings, labels, predictions = (
            None if x is None else distributed.gather_by_index(self.sample_index, x, num_samples) for x in self[:3]
        )
        assert embeddings is not None
        assert labels is not None
        return Rows(embeddings, labels, predictions, torch.arange(num_samples, device=self.sample_index.device))


def checked_rows(
    given: tuple[Array, Array, Array | None, Array | None],
    config: OTConfig,
    reference_width: int | None,
    num_samples: int,
    num_classes: int,
    device: torch.device,
) -> Rows:
    """What `OTReweighter.fit` is given on this process, looked at on all of them.

    Args:
        given: embeddings, labels, index and predictions.
        config: says whether predictions are used.
        reference_width: columns of the reference's embeddings; None where there is no reference yet.
        num_samples: N of all processes.
        num_classes: C.
        device: where the rows go.

    Raises:
        UserError: on every process, where an array of any process cannot be right.
        ValueError: without a reference.
    """
    embeddings, labels, index, predictions = given
    problem: Exception | None = None
    try:
        if reference_width is None:
            raise ValueError("call set_reference before fit or step")
        embeddings = checked_embeddings(embeddings, "embeddings", device)
        labels = checked_labels(labels, "labels", len(embeddings), num_classes, device)
        shape = tuple(embeddings.shape)
        check(shape[1] == reference_width, "embeddings", shape, f"have the reference's {reference_width} columns")
        if index is None and (distributed.world_size() > 1 or len(embeddings) != num_samples):
            raise UserError(
                f"fit needs the sample index of each row, unless one process gives all {num_samples} samples in order"
            )
        predictions = _used_predictions(predictions, config, len(embeddings), num_classes, device)
    except (UserError, ValueError) as error:
        problem = error
    distributed.raise_anywhere(problem)
    assert isinstance(embeddings, Tensor)
    assert isinstance(labels, Tensor)
    assert predictions is None or isinstance(predictions, Tensor)
    rows = Rows(embeddings, labels, predictions, torch.arange(num_samples, device=device))
    if index is None:
        return rows
    index = torch.as_tensor(index).to(device)
    check_index(index, len(rows.embeddings), num_samples)
    return rows._replace(sample_index=index)


def _used_predictions(
    predictions: Array | None, config: OTConfig, num_local: int, num_classes: int, device: torch.device
) -> Tensor | None:
    """Predictions (n, C) as float32 on the device, None where the settings do not use them. Raises UserError."""
    softens = config.label_softening > 0 and config.weights != "noise_aware"
    if not softens and config.confidence_power == 0:
        return None
    if predictions is None:
        key = "confidence_power" if config.confidence_power > 0 else "label_softening"
        raise UserError(f"fit needs the model's predictions (n, C) with {key} > 0")
    checked = checked_embeddings(predictions, "predictions", device)
    check(checked.shape == (num_local, num_classes), "predictions", tuple(checked.shape), "be (n, C)")
    return checked
