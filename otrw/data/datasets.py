"""From a DataConfig to the sets that training uses."""

import hashlib
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from otrw.config import DataConfig
from otrw.data.augment import Augmentation
from otrw.data.decoding import default_workers
from otrw.data.duplicates import Copies, num_copies
from otrw.data.files import ImageFiles
from otrw.data.loader import SampleSet, Transform
from otrw.data.long_tail import Split, long_tail_indices
from otrw.data.noise import SIMILAR_CIFAR10, SIMILAR_DIGITS, next_in_group, noisy_labels, some_wrong_labels
from otrw.data.own import facts_of, skipped_note
from otrw.data.policies import Policy
from otrw.data.raw import RawData
from otrw.data.sources import load_raw
from otrw.data.split import own_split
from otrw.data.verdicts import UNSEEN, corrected
from otrw.data.view import ImageTransform, normalisation, view_of
from otrw.errors import UserError
from otrw.models.library_nets import NetInput
from otrw.seeds import seed_for


class Datasets(NamedTuple):
    """Everything that a run trains on, chooses by and is tested on."""

    train: SampleSet
    meta: SampleSet
    validation: SampleSet | None
    test: SampleSet
    class_names: tuple[str, ...]
    given_sizes: Tensor
    """(C,) training samples a class by their given labels: what a learner can know."""
    true_sizes: Tensor
    """(C,) by their right labels: the profile that was asked for, which defines many / medium / few."""
    mean: Tensor
    """(channels,) that is subtracted from images, in [0, 255]: of the training set, or what the net was made for"""
    std: Tensor
    split_hash: str
    augmentation: Augmentation
    copies: Copies = Copies()
    """Images that are equal to others; empty as text where there are none."""
    identities: tuple[str, ...] | None = None
    """What each row of the source is called outside, by `SampleSet.source_index`; None for digits and CIFAR."""
    is_settled: np.ndarray | None = None
    """(N,) bool, whether somebody looked at the label after an audit, by `SampleSet.source_index`; None where nobody did."""
    knows_truth: bool = True
    """Whether `true_labels` are known to be right; where not, they are the given ones."""
    meta_is_checked: bool = True
    """Whether somebody checked the labels of the meta set; False: drawn from training, taken on trust."""
    notes: tuple[str, ...] = ()
    """What a user should know of how these sets came about, a line each; said at the start of a run."""
    facts: dict[str, object] | None = None
    """For the record: where the samples come from, how many there are in each part, what was skipped; None without such."""
    view: NetInput | None = None
    """What the net sees of an image; None: the image as it is."""
    crop_scale: float = 1.0
    """Of images in files: smallest share of the area that a random crop takes."""
    workers: int = 0
    """Processes that decode images in files."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Colour channels of an image, or length of an embedding."""
        return 3 if isinstance(self.train.inputs, ImageFiles) else self.train.inputs.shape[-1]

    def transform(self, *, train: bool) -> Transform:
        """What a batch goes through: images are augmented (for training) and normalised, uint8 -> float (n, channels, h, w);
        embeddings are standardised, (n, D).
        """
        if isinstance(self.train.inputs, Tensor) and self.train.inputs.dim() == 2:
            return partial(_standardized, mean=self.mean, std=self.std)
        augmentation = self.augmentation if train else None
        return ImageTransform(self.mean, self.std, augmentation, self.view, self.crop_scale, self.workers)


def make_datasets(config: DataConfig, seed: int, device: torch.device, own: NetInput | None = None) -> Datasets:
    """Load the source, divide it, spoil labels where asked for; the same on every process.

    Args:
        config: which images, how imbalanced, how wrong the labels.
        seed: of the split and of the wrong labels.
        device: where images and labels lie.
        own: what images the net was made for, where it says so.

    Raises:
        UserError: for data that are missing or do not fit the settings.
    """
    view = view_of(config, own)
    raw = load_raw(config)
    divided = own_split(config, raw, seed) if config.is_own else None
    assert raw.parts.test is not None
    split, copies = _without_copies(_split(config, raw, seed) if divided is None else divided.split, raw)
    raw, split = corrected(raw, split)
    assert raw.parts.test is not None
    to_label = np.arange(len(raw.class_names))
    class_names = raw.class_names
    if config.labels == "coarse":
        assert raw.groups is not None
        to_label, class_names = raw.groups, raw.group_names
    right = raw.labels if raw.true_labels is None else raw.true_labels
    true_labels = to_label[right]
    # checked labels of benchmarks are the right ones; of one's own data only what is given can be known while training
    checked_labels = to_label[raw.labels] if divided is not None else true_labels
    given_labels = to_label[raw.labels]
    if config.label_noise != "none":
        given_labels[raw.parts.train] = noisy_labels(
            given_labels[raw.parts.train],
            len(class_names),
            config.label_noise_rate,
            kind=config.label_noise,
            seed=seed,
            similar=_similar_classes(config, raw),
            inputs=np.asarray(raw.inputs[raw.parts.train]) if config.label_noise == "instance" else None,
        )

    def select(rows: np.ndarray, given: np.ndarray) -> SampleSet:
        arrays = (given[rows], true_labels[rows], right[rows], rows)
        tensors = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
        inputs = raw.inputs[rows]
        if isinstance(inputs, ImageFiles):
            return SampleSet(inputs, *tensors)
        return SampleSet(torch.from_numpy(np.ascontiguousarray(inputs)).to(device), *tensors)

    if isinstance(raw.inputs, ImageFiles) and view is None:
        raise UserError(f"data.image_size must be given for these images, got null; {raw.in_files_since}")
    train, test = select(split.train, given_labels), select(raw.parts.test, true_labels)
    given_sizes, true_sizes = (
        torch.bincount(labels, minlength=len(class_names)) for labels in (train.labels, train.true_labels)
    )
    augment = config.augment
    mean, std = normalisation(config, own, train.inputs)
    return Datasets(
        train=train,
        meta=select(*_trusted(config, split, checked_labels, seed)),
        validation=select(split.validation, checked_labels) if len(split.validation) else None,
        test=test,
        class_names=tuple(class_names),
        given_sizes=given_sizes,
        true_sizes=true_sizes,
        mean=mean.to(device),
        std=std.to(device),
        split_hash=split.hash if divided is None else own_hash(split, raw),
        augmentation=Augmentation(
            augment.crop_padding,
            augment.padding_mode,
            augment.horizontal_flip,
            augment.cutout_size,
            Policy(augment.policy, augment.num_operations, augment.magnitude),
        ),
        copies=copies,
        view=view,
        crop_scale=augment.crop_scale,
        workers=default_workers() if config.workers is None else config.workers,
        identities=raw.identities,
        is_settled=None if raw.settled is None else raw.settled != UNSEEN,
        knows_truth=divided is None or raw.true_labels is not None or config.label_noise != "none",
        meta_is_checked=divided is None or divided.meta_is_checked,
        notes=() if divided is None else tuple(note for note in (*raw.notes, *divided.notes, skipped_note(raw)) if note),
        facts=None if divided is None else facts_of(raw),
    )


def _trusted(config: DataConfig, split: Split, checked_labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the meta set that are used, and labels of all rows, wrong for some of these where that is asked for."""
    num_classes = int(checked_labels.max()) + 1
    rows, labels = split.meta, checked_labels[split.meta]
    order = np.random.default_rng(seed_for(seed, "used meta samples")).permutation(len(rows))
    place = np.zeros(len(rows), dtype=np.int64)  # of each sample among those of its class, in this order
    for label in range(num_classes):
        members = order[labels[order] == label]
        place[members] = np.arange(len(members))
    sizes = np.bincount(checked_labels[split.train], minlength=num_classes)
    rarest = np.argsort(sizes, kind="stable")[: config.num_classes_without_meta]
    used = ~np.isin(labels, rarest)
    if config.num_meta_used_per_class is not None:
        used &= place < config.num_meta_used_per_class
    if not used.any():
        number = config.num_classes_without_meta
        raise UserError(f"data.num_classes_without_meta must leave a class its meta images, got {number} of {num_classes}")
    rows = rows[used]
    if config.meta_label_noise_rate == 0:
        return rows, checked_labels
    given = checked_labels.copy()
    given[rows] = some_wrong_labels(checked_labels[rows], num_classes, config.meta_label_noise_rate, seed=seed)
    return rows, given


def _without_copies(split: Split, raw: RawData) -> tuple[Split, Copies]:
    """The split without training images that are meta or validation images too, and a count of all copies.

    A training image that is trusted elsewhere, perhaps under another label, would be judged by itself.
    """
    assert raw.hashes is not None
    train, trusted = raw.hashes[split.train], raw.hashes[np.concatenate([split.meta, split.validation])]
    is_copy = np.isin(train, trusted)
    rows = split.train[~is_copy]
    missing = np.setdiff1d(raw.labels[split.train], raw.labels[rows])
    if len(missing):
        raise UserError(
            f"class {raw.class_names[missing[0]]} must have a training image that is no copy of a meta or validation image, "
            "got none; take another seed or a smaller data.imbalance_factor, remove copies, or leave small classes out with "
            "--data.smallest_class"
        )
    seen = int(np.isin(raw.hashes[raw.parts.test], np.concatenate([train, raw.hashes[split.meta]])).sum())
    return split._replace(train=rows), Copies(int(is_copy.sum()), num_copies(raw.hashes[rows]), seen)


def _split(config: DataConfig, raw: RawData, seed: int) -> Split:
    positions = None
    if config.labels == "coarse":
        groups = _groups(config, raw)
        positions = np.zeros(len(groups))
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            positions[members] = np.arange(len(members)) / (len(members) - 1)
    num_fine = 1 if config.labels == "fine" else len(raw.class_names) // len(raw.group_names)
    for key in ("num_meta_per_class", "num_validation_per_class"):
        if getattr(config, key) % num_fine:
            raise UserError(
                f"data.{key} must be a multiple of the {num_fine} fine classes in a coarse one, got {getattr(config, key)}"
            )
    rows = raw.parts.train
    labels = raw.labels if raw.true_labels is None else raw.true_labels
    assert config.imbalance_factor is not None
    split = long_tail_indices(
        labels[rows],
        config.imbalance_factor,
        seed=seed,
        num_meta_per_class=config.num_meta_per_class // num_fine,
        num_validation_per_class=config.num_validation_per_class // num_fine,
        profile=config.profile,
        positions=positions,
    )
    return Split(*(rows[part] for part in split))


def _groups(config: DataConfig, raw: RawData) -> np.ndarray:
    if raw.groups is None:
        raise UserError(
            f"data.layout must be 'parquet' for superclasses, got {config.layout!r} for {config.source}; "
            "torchvision's files are read without them"
        )
    return raw.groups


def _similar_classes(config: DataConfig, raw: RawData) -> dict[int, int] | None:
    if config.label_noise != "similar":
        return None
    if config.labels == "coarse":
        raise UserError("data.label_noise must be 'symmetric' with data.labels=coarse, got 'similar'")
    match config.source:
        case "digits":
            return SIMILAR_DIGITS
        case "cifar10":
            return SIMILAR_CIFAR10
        case _:
            return next_in_group(_groups(config, raw))


def own_hash(split: Split, raw: RawData) -> str:
    """16 hex digits of a split of one's own data: which samples there are, which are for what, what the trusted ones are."""
    digest = hashlib.sha256(f"{split.hash}|{raw.files_hash}|".encode())
    for array in (raw.parts.test, raw.labels[split.meta]):
        digest.update(np.asarray(array, dtype="<i8").tobytes() + b"|")
    return digest.hexdigest()[:16]


def _standardized(features: Tensor, index: Tensor, key: int, *, mean: Tensor, std: Tensor) -> Tensor:
    return (features[index] - mean) / std
