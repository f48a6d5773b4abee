"""What a caller of `OTReweighter` hands over, checked: a bad array gives one sentence, on every process."""

import numpy as np
import torch
from torch import Tensor

from otrw import distributed
from otrw.errors import UserError

Array = Tensor | np.ndarray


def checked_embeddings(value: Array, name: str, device: torch.device) -> Tensor:
    """(n, D) finite numbers as float32 on the device. Raises UserError."""
    embeddings = torch.as_tensor(value).detach()
    if embeddings.dim() != 2:
        raise UserError(f"{name} must have shape (n, D), got {tuple(embeddings.shape)}; flatten each sample's features")
    if embeddings.is_complex() or embeddings.dtype == torch.bool:
        raise UserError(f"{name} must be real numbers, got {embeddings.dtype}")
    embeddings = embeddings.to(device, torch.float32)
    finite = embeddings.isfinite().all(1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten()
        raise UserError(
            f"{name} must be finite, got nan or inf in {len(bad)} of {len(finite)} rows, first in row {int(bad[0])}"
        )
    return embeddings


def checked_labels(value: Array, name: str, num_samples: int, num_classes: int, device: torch.device) -> Tensor:
    """(n,) class indices as int64 on the device; whole numbers of any type are taken. Raises UserError."""
    labels = torch.as_tensor(value).detach()
    if tuple(labels.shape) != (num_samples,):
        raise UserError(f"{name} must have shape ({num_samples},), one label for each embedding, got {tuple(labels.shape)}")
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise UserError(f"{name} must be whole numbers, got {labels.dtype} with fractions; they are class indices")
    labels = labels.to(device, torch.int64)
    bad = (labels < 0) | (labels >= num_classes)
    if bool(bad.any()):
        raise UserError(f"{name} must be in 0 to {num_classes - 1}, got {int(labels[bad][0])}; num_classes is {num_classes}")
    return labels


def check_classes_present(labels: Tensor, num_classes: int) -> None:
    """Raise UserError where the reference lacks a class: its samples would lose their weight to the other classes."""
    missing = (torch.bincount(labels, minlength=num_classes) == 0).nonzero().flatten().tolist()
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise UserError(
            f"the reference must have a sample of every class, got none of class {shown}; add one, or pass "
            "allow_missing=True if those classes shall be weighted by their likeness to the others"
        )


def check_range(index: Tensor, num_local: int, num_samples: int) -> None:
    """Raise UserError unless the index is (num_local,) whole numbers of samples that there are."""
    if index.is_floating_point() or index.dim() != 1 or len(index) != num_local:
        raise UserError(f"index must be ({num_local},) whole numbers, got {tuple(index.shape)} of {index.dtype}")
    if len(index) and (int(index.min()) < 0 or int(index.max()) >= num_samples):
        raise UserError(f"index must be in 0 to {num_samples - 1}, got {int(index.min())} to {int(index.max())}")


def check_index(index: Tensor, num_local: int, num_samples: int) -> None:
    """Raise UserError, on every process, unless the processes together name each of the samples exactly once."""
    distributed.on_every_process(lambda: check_range(index, num_local, num_samples))
    times = distributed.all_reduce_sum(torch.bincount(index, minlength=num_samples))
    if not bool((times == 1).all()):
        missed, repeated = int((times == 0).sum()), int((times > 1).sum())
        raise UserError(
            f"index must name each of {num_samples} samples once, got {missed} missing and {repeated} repeated; "
            "drop the padding of a distributed sampler before the fit"
        )
