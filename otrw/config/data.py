"""Settings of the data: which images, how imbalanced, how wrong the labels, how augmented."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from otrw.errors import check

OWN_SOURCES = ("folder", "table", "embeddings")
IMBALANCE_FACTOR = 20.0
"""Of digits and CIFAR where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to a training image. Draws depend on (seed, epoch, sample), never on the rank."""

    crop_padding: int = 4
    """Pixels added on every side before a random crop back to the image size; 0 turns the crop off."""
    padding_mode: Literal["zero", "reflect"] = "reflect"
    """What the added pixels hold."""
    horizontal_flip: bool = True
    """Mirror each image with probability one half."""
    policy: Literal["none", "randaugment", "autoaugment", "trivialaugment"] = "none"
    """Further changes of shape and colour, drawn for each image, between flip and cutout. randaugment: arXiv 1909.13719.
    autoaugment: the policy found for CIFAR-10, arXiv 1805.09501. trivialaugment: arXiv 2103.10158."""
    num_operations: int = 2
    """randaugment: operations one after the other."""
    magnitude: int = 9
    """randaugment: strength of each operation, from 0 to 30."""
    cutout_size: int = 0
    """Side of a square set to the mean colour at a random place, in pixels; 0 turns it off (arXiv 1708.04552)."""

    crop_scale: float = 0.08
    """Images that are decoded batch by batch: smallest share of an image's area that a random crop, made square, takes
    (arXiv 1409.4842); 1 turns it off, and training images are cropped as those of evaluation are."""

    def __post_init__(self) -> None:
        check(self.crop_padding >= 0, "data.augment.crop_padding", self.crop_padding, "be >= 0")
        check(self.num_operations >= 1, "data.augment.num_operations", self.num_operations, "be >= 1")
        check(0 <= self.magnitude <= 30, "data.augment.magnitude", self.magnitude, "be in [0, 30]")
        check(self.cutout_size >= 0, "data.augment.cutout_size", self.cutout_size, "be >= 0")


@dataclass(frozen=True, kw_only=True)
class ColumnsConfig:
    """Names of the columns of a table; null takes the first of the usual names that the table has."""

    image: str | None = None
    """Path below `data.root`, or the encoded image itself, as bytes or as the hub's struct {bytes, path}. Null: image, img,
    path, file, file_name, filename, image_path."""
    embedding: str | None = None
    """List of numbers, of one length. Null: embedding, embeddings, features, vector, x, X."""
    label: str | None = None
    """Name, or whole number. Null: label, labels, class, class_name, target, fine_label, y."""
    split: str | None = None
    """train, trusted, validation (val, valid, dev) or test, in every row. Null: split."""
    trusted: str | None = None
    """true or 1 where somebody has checked the label: the row belongs to the trusted set. Null: trusted."""
    true_label: str | None = None
    """The right label where it is known, for evaluation alone. Null: true_label."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which samples, how imbalanced, how wrong the labels."""

    source: Literal["digits", "cifar10", "cifar100", "folder", "table", "embeddings"] = "digits"
    """digits: scikit-learn's bundled handwritten digits (no download). cifar10, cifar100: files below `root`. Your own data:
    folder: images in one folder a class. table: Parquet, CSV, JSONL or a text list of images and labels. embeddings: an
    array of features with labels."""
    root: str = "data"
    """Folder of the data: holds `cifar10/*.parquet` as on the Hugging Face hub or torchvision's `cifar-10-batches-py`; for
    your own data the folder of images, of the table, or the file itself."""
    files: str | None = None
    """table, embeddings: names or patterns below `root`, separated by commas, such as train-*.parquet,test.csv. A file's name
    says which part it is (train, trusted, val, test) unless a column does. Null: all tables that `root` holds."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Names of a table's columns."""
    trusted: str | None = None
    """CSV or Parquet of samples that somebody checked (columns identity, label, verdict), as launch/choose_trusted.py writes
    it: they leave training and are the meta set."""
    corrections: str | None = None
    """CSV or Parquet files, separated by commas, of samples that somebody looked at after an audit, with the same columns, such
    as a filled-in audit.csv: labels are corrected wherever the sample is, what is of no class leaves, none changes its part."""
    memory_limit_gib: float = 2.0
    """Decoded images of up to this size together are kept in memory as uint8, in GiB; larger sets stay in their files."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What to do with images that cannot be decoded: refuse to start, or leave them out, count and record them."""
    smallest_class: int = 0
    """Classes of your own data with fewer training samples than this are left out, and said to be."""
    test_share: float = 0.2
    """Share of every class that is cut out for a test set where your own data come without one, in (0, 1)."""
    layout: Literal["auto", "parquet", "torchvision"] = "auto"
    """File layout below `root`; auto takes Parquet when it is there."""
    download: bool = False
    """Let torchvision download CIFAR into `root` when it is missing. Nothing is ever downloaded without this."""
    cache: str = "~/.cache/otrw"
    """Folder for decoded images (one uint8 array a data set); an empty string keeps nothing."""
    labels: Literal["fine", "coarse"] = "fine"
    """coarse (CIFAR-100 only): train on the 20 superclasses, with the long tail over the fine classes inside each."""
    imbalance_factor: float | None = None
    """Thins classes until the largest is this many times the smallest, >= 1. Null: 20 for digits and CIFAR; your own data
    stay as they are."""
    profile: Literal["exponential", "step"] = "exponential"
    """How class sizes fall from head to tail: n_c = head * factor^(-c/(C-1)), or half large and half small classes."""
    num_meta_per_class: int = 10
    """Images a class of the small, trusted, balanced meta set; cut out before the tail is made. Not used where your own data
    have a trusted set; where they have none, their labels are taken on trust."""
    num_validation_per_class: int = 0
    """Images a class of a balanced validation set for choosing hyper-parameters; cut out before the tail is made."""
    num_meta_used_per_class: int | None = None
    """How many of the meta images that were cut out are used; null uses all. The split stays as it is, and fewer are a part
    of more, so that runs with few and with many share everything else."""
    num_classes_without_meta: int = 0
    """So many classes, the rarest, have no meta image at all."""
    meta_label_noise_rate: float = 0.0
    """Share of the used meta images with a wrong label, any other class: a trusted set that is not quite right. In [0, 1)."""
    label_noise: Literal["none", "symmetric", "similar", "instance"] = "none"
    """symmetric: a wrong label is any other class. similar: it is the class most easily confused (arXiv 1609.03683).
    instance: whether and to what depends on the image itself (arXiv 2006.07836, appendix). Meta, validation and test labels
    stay right."""
    label_noise_rate: float = 0.0
    """Probability that a training label is wrong, in [0, 1)."""
    labels_file: str | None = None
    """Other given labels for the training samples, in their order: .npy, .npz, .csv or .pt (CIFAR-N's). FILE:NAME takes one
    array of several, such as CIFAR-10_human.npz:worse_label. The source's own labels are then the right ones."""
    many_above: int = 100
    """Classes with more training images than this are "many-shot" (arXiv 1904.05160)."""
    few_below: int = 20
    """Classes with fewer training images than this are "few-shot"."""
    seed: int | None = None
    """Seed of the split and of the label noise; null takes run.seed."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random crops, flips and cutout of training images."""
    image_size: int | None = None
    """Side in pixels of the square that the net sees: shorter side resized, centre cut out. Null: what a torchvision/ or timm/
    net was made for; the images' own size for other nets."""
    resize_size: int | None = None
    """Evaluation of images that are decoded batch by batch: pixels of the shorter side before the centre crop to image_size.
    Null: the net's own share."""
    mean: tuple[float, ...] = ()
    """Of each colour channel, in [0, 1]: subtracted from images. Empty: that of a torchvision/ or timm/ net's own training,
    or of the training set for other nets."""
    std: tuple[float, ...] = ()
    """Standard deviation of each colour channel, in (0, 1]: images are divided by it. Empty: as `mean`."""
    workers: int | None = None
    """Processes that decode large images for each training process; 0: it does so itself. Null: one a core, at most 8."""

    def __post_init__(self) -> None:
        if self.imbalance_factor is None and not self.is_own:
            object.__setattr__(self, "imbalance_factor", IMBALANCE_FACTOR)  # written out, as in every earlier record
        factor = self.imbalance_factor
        check(factor is None or factor >= 1, "data.imbalance_factor", factor, "be >= 1")
        check(self.num_meta_per_class >= 1, "data.num_meta_per_class", self.num_meta_per_class, "be >= 1")
        check(
            self.num_validation_per_class >= 0,
            "data.num_validation_per_class",
            self.num_validation_per_class,
            "be >= 0",
        )
        check(0 <= self.label_noise_rate < 1, "data.label_noise_rate", self.label_noise_rate, "be in [0, 1)")
        check(
            (self.label_noise == "none") == (self.label_noise_rate == 0),
            "data.label_noise_rate",
            self.label_noise_rate,
            f"agree with data.label_noise={self.label_noise}",
            "set both, or neither",
        )
        check(
            self.labels == "fine" or self.source == "cifar100",
            "data.labels",
            self.labels,
            f"be 'fine' for {self.source}",
            "only cifar100 has coarse labels",
        )
        check(
            self.label_noise not in ("similar", "instance") or not self.is_own,
            "data.label_noise",
            self.label_noise,
            f"be 'none' or 'symmetric' for {self.source}",
            "it is made of digits or CIFAR",
        )
        of_tables = self.source in ("table", "embeddings")
        check(self.files is None or of_tables, "data.files", self.files, "come with data.source table or embeddings")
        named = [name for name, value in vars(self.columns).items() if value is not None]
        check(not named or of_tables, "data.columns", named, "come with data.source table or embeddings")
        for key in ("trusted", "corrections"):
            value = getattr(self, key)
            check(value is None or self.is_own, f"data.{key}", value, "come with data.source folder, table or embeddings")
        check(self.corrections is None or len(self.correction_files) > 0, "data.corrections", self.corrections, "name a file")
        check(
            self.corrections is None or self.label_noise == "none",
            "data.label_noise",
            self.label_noise,
            "be 'none' with data.corrections",
            "what was judged would be spoilt again",
        )
        check(
            self.image_size is None or self.source != "embeddings",
            "data.image_size",
            self.image_size,
            "be null for embeddings",
        )
        check(
            self.labels_file is None or (self.source in ("cifar10", "cifar100") and self.labels == "fine"),
            "data.labels_file",
            self.labels_file,
            "come with data.source cifar10 or cifar100 and data.labels=fine",
            "tables and embeddings have columns for it",
        )
        check(
            self.labels_file is None or self.label_noise == "none",
            "data.label_noise",
            self.label_noise,
            "be 'none' with data.labels_file",
            "its labels are wrong of themselves",
        )
        check(self.few_below <= self.many_above + 1, "data.few_below", self.few_below, "be at most data.many_above + 1")
        check(len(self.mean) == len(self.std), "data.std", list(self.std), f"have {len(self.mean)} numbers, as data.mean")
        check(
            self.resize_size is None or self.image_size is None or self.resize_size >= self.image_size,
            "data.resize_size",
            self.resize_size,
            f"be at least data.image_size={self.image_size}",
        )

    @property
    def correction_files(self) -> tuple[str, ...]:
        """The files of `corrections`; the whole text where a file is called that."""
        if self.corrections is None or Path(self.corrections).expanduser().is_file():
            return () if self.corrections is None else (self.corrections,)
        return tuple(name.strip() for name in self.corrections.split(",") if name.strip())

    @property
    def is_own(self) -> bool:
        """Whether the data are the user's own, and not one of the benchmarks that are made long-tailed."""
        return self.source in OWN_SOURCES

    @property
    def may_know_wrong_labels(self) -> bool:
        """Whether right and given labels can differ: by design, or because files hold both."""
        return self.label_noise != "none" or self.labels_file is not None or self.source in ("table", "embeddings")
