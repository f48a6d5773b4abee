"""The samples that `OTReweighter.fit` is given, checked on every process."""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.config import OTConfig
from otrw.errors import UserError, check
from otrw.reweight.inputs import Array, check_index, check_range, checked_embeddings, checked_labels


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


class BatchRows(NamedTuple):
    """This process's share of a batch on the device, checked but for its padding."""

    sample_index: Tensor
    """(n,) int64"""
    embeddings: Tensor
    """(n, D) float32"""
    labels: Tensor
    """(n,) int64"""
    mask: Tensor
    """(n,) bool, False for padding"""

    def gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index, embeddings and labels of the whole batch without padding; replicated. Raises UserError for a repetition."""
        keep = distributed.all_gather_rows(self.mask)
        members, embeddings, labels = (distributed.all_gather_rows(x)[keep] for x in self[:3])
        num_distinct = len(members.unique())
        check(
            num_distinct == len(members), "index", f"{len(members)} with {num_distinct} distinct", "name a sample once a batch"
        )
        return members, embeddings, labels


def checked_batch(
    given: tuple[Array, Array, Array, Array | None],
    reference_width: int | None,
    num_samples: int,
    num_classes: int,
    device: torch.device,
) -> BatchRows:
    """What `OTReweighter.step` is given on this process (index, embeddings, labels, mask), looked at on all of them.

    Other arguments and errors as for `checked_rows`.
    """
    index, embeddings, labels, mask = given
    problem: Exception | None = None
    rows: BatchRows | None = None
    try:
        if reference_width is None:
            raise ValueError("call set_reference before fit or step")
        index = torch.as_tensor(index).to(device)
        is_real = torch.ones_like(index, dtype=torch.bool) if mask is None else torch.as_tensor(mask).to(device, torch.bool)
        check(is_real.shape == index.shape, "mask", tuple(is_real.shape), f"have shape {tuple(index.shape)}, as index has")
        embeddings, labels = torch.as_tensor(embeddings).to(device), torch.as_tensor(labels).to(device)
        for name, array in (("embedding", embeddings), ("label", labels)):
            check(len(array) == len(index), name, tuple(array.shape), f"have {len(index)} rows, as index has")
        sound = checked_embeddings(embeddings[is_real], "embedding", device)
        shape = tuple(embeddings.shape)
        check(shape[1] == reference_width, "embedding", shape, f"have the reference's {reference_width} columns")
        checked_labels(labels[is_real], "label", len(sound), num_classes, device)
        check_range(index[is_real], len(sound), num_samples)
        rows = BatchRows(index, embeddings.float(), labels.long(), is_real)
    except (UserError, ValueError) as error:
        problem = error
    distributed.raise_anywhere(problem)
    assert rows is not None
    return rows


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
