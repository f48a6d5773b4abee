"""Questions asked of many runs: conditions and methods to compare; `study_jobs` makes jobs of them. No torch.

A study has cells (conditions) and variants (methods); every variant of a cell and seed starts from one stage 1.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from otrw.config import Config, Variant, flatten, to_dict
from otrw.config.command_line import parse_config
from otrw.config.known_data import KNOWN_DATA
from otrw.config.variants import ITERATING

FACTORS = {"digits": 20.0, "cifar10": 100.0, "cifar100": 100.0}
"""Imbalance factor of each data set in every study."""


class Cell(NamedTuple):
    """One condition."""

    name: str
    """In folder names and at the head of a column."""
    settings: Mapping[str, object]
    """What makes the condition, as dotted path -> value; cells of a study differ in these alone."""
    panel: str = ""
    """Cells of one panel are points of one line in the figure."""
    place: float | None = None
    """Where on that line; None: a place of its own."""
    panels: tuple[str, ...] = ()
    """More panels to which it belongs: data without wrong labels begin every line of noise."""
    datasets: tuple[str, ...] = ()
    """The data sets that have it; none: all of the study's."""

    @property
    def title(self) -> str:
        """In words."""
        if not self.panel:
            return self.name
        return self.panel if self.place is None else f"{self.panel} {self.place:g}"


class Study(NamedTuple):
    """A question."""

    name: str
    """Of its script and its folder of records."""
    title: str
    axis: str
    """What `Cell.place` counts."""
    datasets: tuple[str, ...]
    cells: tuple[Cell, ...]
    variants: tuple[Variant, ...]
    settings: Mapping[str, object] = {}
    """Settings of all cells."""
    metrics: Mapping[str, str] = {"test error in %": "test.error"}
    """{title: place in result.json}; the first is drawn."""
    records: str = ""
    """Folder of records, where they are another study's."""
    reference: str = ""
    """Variant that the others are held against in its tables; empty takes the usual OT variant."""
    asks_for: str = ""
    """A setting that the caller must give; a cell's own value of it is what is put behind the caller's."""

    @property
    def folder(self) -> str:
        """Name of the folder of its records."""
        return self.records or self.name


def _noise(kind: str, rates: Sequence[float]) -> tuple[Cell, ...]:
    return tuple(
        Cell(f"{kind}{100 * rate:g}", {"data.label_noise": kind, "data.label_noise_rate": rate}, kind, 100 * rate)
        for rate in rates
    )


CONTROLS: tuple[Variant, ...] = ("class_balanced_meta", "balanced_softmax_meta", "meta_only")
TRUSTED: tuple[Variant, ...] = ("trusted_probe_meta", "trusted_probe_labels_meta")
CLEANERS: tuple[Variant, ...] = (
    "gold_correction_meta",
    "small_loss_meta",
    "out_of_fold_meta",
    "cleanlab_meta",
    "early_learning_meta",
    "meta_weight_net_meta",
)
TRANSPORT: tuple[Variant, ...] = (
    "ot_meta",
    "ot_labels_meta",
    "ot_noise_aware_meta",
    "ot_noise_aware_labels_meta",
    "ot_learned_meta",
    "ot_learned_labels_meta",
    "ot_pooled_meta",
    "ot_pooled_labels_meta",
)
EVERYONE: tuple[Variant, ...] = ("stage1", *CONTROLS, *TRUSTED, *CLEANERS, *TRANSPORT, "oracle_meta")
FEW: tuple[Variant, ...] = ("stage1", "class_balanced_meta", "meta_only", *TRUSTED, *TRANSPORT, "oracle_meta")
CLEAN = Cell("clean", {"data.label_noise": "none", "data.label_noise_rate": 0.0}, "", 0.0, ("symmetric", "similar", "instance"))
SYMMETRIC40 = {"data.label_noise": "symmetric", "data.label_noise_rate": 0.4, "ot.label_transport": 0.5}
QUALITY = {
    "AUROC": "weights.label_quality_auroc",
    "AUROC within class": "weights.label_quality_auroc_within",
    "AUROC, three rarest": "weights.label_quality_auroc_tail",
    "precision of right labels, three rarest": "weights.label_quality_precision_tail",
}

HEAD = {"stage2.trainable": "classifier", "stage2.rounds": 1}
"""The classifier re-trained on embeddings of a stage 1 that learned from the wrong labels: what CPU time allows."""

FINE_TUNED = {
    "stage2.trainable": "all",
    "stage2.epochs": 8,
    "stage2.rounds": 1,
    "stage2.refresh_every_epochs": 2,
    "stage2.meta_batch_size": 32,
    "stage2.optimizer.learning_rate": 0.01,
}
"""The whole net, with weights from fresh embeddings every second epoch."""
WEIGHTS_KEPT = {"stage2.refresh_every_epochs": None}
"""As stage 1 gave them. A net that trains on the trusted images knows them by heart, and what is found from its embeddings is
misled where labels are wrong as people's are (analysis/LOG.md)."""
HUMAN = (
    ("worse_label", "worst of three", "cifar10"),
    ("random_label1", "one person", "cifar10"),
    ("aggre_label", "majority of three", "cifar10"),
    ("noisy_label", "one person", "cifar100"),
)
"""CIFAR-N's arrays of labels: (name, whose, data set); of three people the worst one is a wrong one where there is one."""

NOISE_TAIL = Study(
    "noise_tail",
    "Wrong labels and a long tail",
    "wrong labels (%)",
    ("digits", "cifar10", "cifar100"),
    (CLEAN, *_noise("symmetric", (0.2, 0.4)), *_noise("similar", (0.2, 0.4)), *_noise("instance", (0.2, 0.4))),
    EVERYONE,
    HEAD | {"ot.label_transport": 0.5},
    reference="ot_learned_labels_meta",
)
STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        NOISE_TAIL,
        Study(
            "few_trusted",
            "How few trusted images are enough, 40 % wrong labels",
            "trusted images a class",
            ("digits", "cifar10"),
            (
                *(Cell(f"trusted{n}", {"data.num_meta_used_per_class": n}, "every class", n) for n in (1, 2, 5, 10, 20)),
                *(
                    Cell(
                        f"trusted{n}-without2",
                        {"data.num_meta_used_per_class": n, "data.num_classes_without_meta": 2},
                        "none in the two rarest classes",
                        n,
                    )
                    for n in (5, 20)
                ),
            ),
            FEW,
            HEAD | SYMMETRIC40 | {"data.num_meta_per_class": 20},
        ),
        Study(
            "imperfect_trusted",
            "Trusted images with wrong labels, 40 % wrong labels elsewhere",
            "wrong labels among the trusted images (%)",
            ("digits", "cifar10"),
            tuple(
                Cell(f"wrong{100 * share:g}", {"data.meta_label_noise_rate": share}, "symmetric", 100 * share)
                for share in (0.0, 0.05, 0.1)
            ),
            FEW,
            HEAD | SYMMETRIC40,
        ),
        Study(
            "trusted_weight",
            "How much the trusted images weigh in the loss, 40 and 20 % wrong labels",
            "weight of the trusted images' loss",
            ("digits", "cifar10", "cifar100"),
            (
                *(Cell(f"factor{f:g}", {"stage2.meta_loss_factor": f}, "symmetric 40 %, weight", f) for f in (0.1, 1.0)),
                *(
                    Cell(f"{kind}{f:g}", {"stage2.meta_loss_factor": f, "data.label_noise": kind}, f"{kind} 40 %, weight", f)
                    for kind in ("similar", "instance")
                    for f in (0.1, 1.0)
                ),
                *(
                    Cell(
                        f"{kind}20-{f:g}",
                        {"stage2.meta_loss_factor": f, "data.label_noise": kind, "data.label_noise_rate": 0.2},
                        f"{kind} 20 %, weight",
                        f,
                    )
                    for kind in ("symmetric", "similar", "instance")
                    for f in (0.1, 1.0)
                ),
            ),
            (
                "stage1",
                "class_balanced_meta",
                "trusted_probe_meta",
                "out_of_fold_meta",
                "cleanlab_meta",
                *TRANSPORT,
                "oracle_meta",
            ),
            HEAD | SYMMETRIC40,
            reference="ot_learned_labels_meta",
        ),
        Study(
            "fine_tuning",
            "The whole net fine-tuned, weights fresh every second epoch or as stage 1 gave them, 40 % wrong labels",
            "",
            ("cifar10", "cifar100", "digits"),
            (Cell("finetuned8", {}, "fresh weights"), Cell("finetuned8-kept", WEIGHTS_KEPT, "weights kept")),
            ("stage1", "class_balanced_meta", "meta_only", *TRUSTED, "cleanlab_meta", *TRANSPORT, "oracle_meta"),
            SYMMETRIC40 | FINE_TUNED,
        ),
        Study(
            "subgroups",
            "Hidden subgroups: 20 superclasses of CIFAR-100, the tail inside each",
            "",
            ("cifar100",),
            (Cell("coarse", {}),),
            ("stage1", "cross_entropy_meta", "class_balanced_meta", "meta_only", "trusted_probe_meta", "ot", "ot_meta"),
            {"data.labels": "coarse"},
            {"worst subgroup, test error in %": "subclass_error.max", "test error in %": "test.error"},
        ),
        NOISE_TAIL._replace(
            name="finding_wrong_labels",
            title="Finding wrong labels",
            cells=NOISE_TAIL.cells[1:],
            variants=(
                *TRUSTED[:1],
                "small_loss_meta",
                "out_of_fold_meta",
                "cleanlab_meta",
                "ot_meta",
                "ot_noise_aware_meta",
                "ot_learned_meta",
                "ot_pooled_meta",
            ),
            metrics=QUALITY,
            records="noise_tail",
            reference="cleanlab_meta",
        ),
        Study(
            "human_errors",
            "Labels that people gave (CIFAR-10N and CIFAR-100N, arXiv 2110.12088)",
            "",
            ("cifar10", "cifar100"),
            (
                *(
                    Cell(
                        f"{name}-{f:g}",
                        {"data.labels_file": f":{name}", "stage2.meta_loss_factor": f},
                        f"{whose}, weight",
                        f,
                        datasets=(dataset,),
                    )
                    for name, whose, dataset in HUMAN
                    for f in (0.1, 1.0)
                ),
                *(
                    Cell(
                        f"{name}-{end}",
                        {"data.labels_file": f":{name}"} | FINE_TUNED | kept,
                        f"{whose}, {words}",
                        datasets=(dataset,),
                    )
                    for name, whose, dataset in HUMAN
                    if name in ("worse_label", "noisy_label")
                    for end, words, kept in (
                        ("finetuned", "fine-tuned", {}),
                        ("finetuned-kept", "fine-tuned, weights kept", WEIGHTS_KEPT),
                    )
                ),
            ),
            EVERYONE,
            HEAD | {"ot.label_transport": 0.5},
            {"test error in %": "test.error"} | QUALITY,
            reference="ot_pooled_labels_meta",
            asks_for="data.labels_file",
        ),
    )
}
"""By name."""


def cell_of(study: Study, config: Mapping) -> Cell | None:
    """The cell that a record is of, by the settings that tell the study's cells apart; None where it is of none.

    Args:
        study: the question.
        config: nested dict, as in a variant's config.yaml.
    """
    settings = flatten(to_dict(Config())) | flatten(config)  # a setting younger than the record has its default
    paths = {path for cell in study.cells for path in cell.settings} | set(study.settings)
    variants = settings.get("variants")
    variant = str(variants[0]) if isinstance(variants, list) and len(variants) == 1 else ""
    is_stage1 = variant == "stage1"
    left = LEFT_TO_VARIANTS - ({"stage2.refresh_every_epochs"} if variant.startswith(ITERATING) else set())
    paths = {path for path in paths - left if not (is_stage1 and path.startswith(("stage2.", *_OF_META)))}
    preset = flatten(to_dict(parse_config(["--config", KNOWN_DATA[str(settings["data.source"])].preset])))
    preset |= {"data.label_noise": "none", "data.label_noise_rate": 0.0}
    for cell in study.cells:
        wanted = preset | dict(study.settings) | dict(cell.settings)
        if all(_agrees(study, path, settings[path], wanted[path]) for path in paths):
            return cell
    return None


def _agrees(study: Study, path: str, value: object, wanted: object) -> bool:
    return str(value).endswith(str(wanted)) if path == study.asks_for else value == wanted


LEFT_TO_VARIANTS = {"ot.label_transport", "stage2.rounds", "stage2.refresh_every_epochs", "stage2.epochs"}
"""Settings that a variant may switch off, or a caller cut short: they do not say which cell a record is of."""
_OF_META = ("data.num_meta_used", "data.num_classes_without_meta", "data.meta_label")  # stage 1 is the same for all of them
