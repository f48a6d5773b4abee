"""Which labels of a run's training set are probably wrong: its weights.parquet as a list, worst first. No torch."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from otrw.errors import UserError
from otrw.records.ledger import Record, read_table

FLAGGED = 0.5
"""Score from which a label counts as wrong: it is more probably wrong than right."""
LOW_WEIGHT = 0.8
"""Of scores that come from weights alone, which are no probabilities: a weight of a quarter of its class's mean."""
SAME_WEIGHT = 1e-6
"""Range of weights over their class's mean that is rounding."""
NEEDED = ("index", "given_label", "weight")


class Audit(NamedTuple):
    """Training samples, the most suspicious first. N samples, C classes."""

    row: np.ndarray
    """(N,) row in the data set"""
    identity: np.ndarray
    """(N,) object: what each sample is called; its row where the data set has no names"""
    given: np.ndarray
    """(N,) class index of the label"""
    suggested: np.ndarray
    """(N,) class index that is more probable: of the plan where it says another than the given one, else of the net"""
    weight: np.ndarray
    """(N,) with mean 1"""
    relative: np.ndarray
    """(N,) weight over the mean weight of those given the same label"""
    score: np.ndarray
    """(N,) in [0, 1]: the probability that the given label is wrong where `by_plan`; else the higher the more suspicious"""
    true: np.ndarray | None
    """(N,) right class index; None where it is not known"""
    class_names: tuple[str, ...]
    by_plan: bool
    """Whether scores are those of a noise-aware plan; else they come from weights: 1 / (1 + weight / mean of the class)."""
    num_settled: int = 0
    """Further training samples whose labels somebody has looked at already."""

    @property
    def flagged(self) -> np.ndarray:
        """(N,) bool: labels that count as wrong."""
        return self.score > (FLAGGED if self.by_plan else LOW_WEIGHT)

    @property
    def estimated_num_wrong(self) -> float | None:
        """How many labels are wrong by the plan, the sum of their probabilities; None without a noise-aware plan."""
        return float(self.score.sum()) if self.by_plan else None


def headline(audit: Audit) -> str:
    """How many labels stand out, in a sentence that claims no more than the scores can."""
    flagged, total = int(audit.flagged.sum()), len(audit.given)
    if audit.estimated_num_wrong is None:
        return f"{flagged} of {total} training labels weigh less than a quarter of their class's mean: the list begins there."
    more = round(audit.estimated_num_wrong)
    text = f"{flagged} of {total} training labels are probably wrong; the plan's probabilities add up to {more}"
    return f"{text}: look beyond them." if more > flagged else f"{text}."


class Found(NamedTuple):
    """How well wrong labels are found, where they are known."""

    num_samples: int
    num_wrong: int
    precision: float | None
    """Share of the flagged labels that are wrong; None without any."""
    recall: float | None
    """Share of the wrong labels that are flagged."""
    average_precision: float | None
    auroc: float | None


def make_audit(record: Record) -> Audit:
    """The list of a variant.

    Args:
        record: of a variant with weights; weights.parquet lies in its folder.

    Raises:
        UserError: where the file is missing, damaged, another run's or of other classes, or weights are those of classes.
    """
    path = record.path / "weights.parquet"
    columns = read_table(record, path.name)
    if columns is None:
        raise UserError(f"{path} must be there: it stays in the folder of the run and only variants of stage 2 have one")
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UserError(f"{path} must have the columns {', '.join(NEEDED)}, got none named {missing[0]}")
    names = tuple(str(name) for name in record.result.get("class_names") or ())
    given = columns["given_label"].astype(np.int64)
    if not len(given) or given.min() < 0 or given.max() >= len(names):
        raise UserError(f"{path} must hold labels of the {len(names)} classes of result.json, got others")
    weight = columns["weight"].astype(np.float64)
    class_mean = np.bincount(given, weights=weight, minlength=len(names)) / np.maximum(
        np.bincount(given, minlength=len(names)), 1
    )
    relative = weight / np.maximum(class_mean[given], np.finfo(float).tiny)
    # a plan that has the given label in its cost repeats it: within a class its weights tell more (analysis/LOG.md)
    by_plan = "wrong_label_score" in columns and (record.config.get("ot") or {}).get("weights") == "noise_aware"
    score = columns["wrong_label_score"].astype(np.float64) if by_plan else 1 / (1 + relative)
    if not by_plan and np.ptp(relative) < SAME_WEIGHT:
        raise UserError(
            f"{record.path} must weigh samples of one class differently, or there is no order to list them in; got weights of "
            "whole classes: take a variant with transport, such as ot_pooled_meta"
        )
    num_settled = 0
    if "is_settled" in columns:  # nobody wants to look at a label twice
        is_open = ~columns["is_settled"].astype(bool)
        if not is_open.any():
            raise UserError(f"{path} must have a label that nobody has looked at, got none among {len(given)} training samples")
        num_settled = int((~is_open).sum())
        columns = {name: values[is_open] for name, values in columns.items()}
        given, weight, relative, score = given[is_open], weight[is_open], relative[is_open], score[is_open]
    identity = columns.get("identity")
    data = record.result.get("data") or {}
    knows_truth = data.get("knows_truth", True) and "true_label" in columns
    true = columns["true_label"].astype(np.int64) if knows_truth else None
    order = np.lexsort((columns["index"], relative, -score))
    return Audit(
        columns["index"][order],
        (columns["index"].astype(str) if identity is None else identity).astype(object)[order],
        given[order],
        _suggested(columns, given)[order],
        weight[order],
        relative[order],
        score[order],
        None if true is None else true[order],
        names,
        by_plan,
        num_settled,
    )


def _suggested(columns: Mapping[str, np.ndarray], given: np.ndarray) -> np.ndarray:
    """The plan's label where it is another than the given one, else the net's; the given one where neither says otherwise."""
    suggested = given
    for name in ("prediction", "target_label"):  # the plan is asked with the given label in its cost: it says another rarely
        if name in columns:
            other = columns[name].astype(np.int64)
            suggested = np.where(other != given, other, suggested)
    return suggested


def found(audit: Audit, members: np.ndarray | None = None) -> Found | None:
    """Precision, recall and the like; None where no wrong label is known.

    Args:
        audit: the list.
        members: (N,) bool of the samples that count; all by default.
    """
    if audit.true is None:
        return None
    members = np.ones(len(audit.given), dtype=bool) if members is None else members
    wrong, flagged, score = (audit.true != audit.given)[members], audit.flagged[members], audit.score[members]
    num_wrong = int(wrong.sum())
    if not num_wrong:
        return None
    hits = int((wrong & flagged).sum())
    precision = hits / int(flagged.sum()) if flagged.any() else None
    return Found(len(wrong), num_wrong, precision, hits / num_wrong, average_precision(score, wrong), auroc(score, wrong))


def few_shot(audit: Audit, record: Record) -> tuple[np.ndarray, str]:
    """Samples whose given label is a rare class, and what that means: below data.few_below, else the rarest third."""
    sizes = np.asarray(record.result.get("true_sizes") or np.bincount(audit.given, minlength=len(audit.class_names)))
    below = int((record.config.get("data") or {}).get("few_below", 20))
    rare = np.flatnonzero(sizes < below)
    if len(rare):
        return np.isin(audit.given, rare), f"classes of fewer than {below}"
    rarest = np.argsort(sizes, kind="stable")[: max(1, len(sizes) // 3)]
    number = f"the {len(rarest)} rarest classes" if len(rarest) > 1 else "the rarest class"
    return np.isin(audit.given, rarest), number


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the positives of the precision at their score, ties counted together. score, positive (n,)."""
    values, inverse = np.unique(-score, return_inverse=True)  # highest first
    hits = np.bincount(inverse, weights=positive, minlength=len(values))
    precision = np.cumsum(hits) / np.cumsum(np.bincount(inverse, minlength=len(values)))
    return float((hits * precision).sum() / positive.sum())


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Probability that a positive scores above a negative, ties counted half; None without both. score, positive (n,)."""
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return None
    values, inverse = np.unique(score, return_inverse=True)
    negatives = np.bincount(inverse[~positive], minlength=len(values))
    below = np.cumsum(negatives) - negatives / 2
    return float(below[inverse[positive]].sum() / (num_positive * num_negative))


def as_columns(audit: Audit) -> dict[str, np.ndarray]:
    """The list as columns for a file, classes by name; label and verdict are for somebody to fill in (`data.corrections`)."""
    names = np.array(audit.class_names, dtype=object)
    columns = {
        "identity": audit.identity,
        "given_label": names[audit.given],
        "suggested_label": np.where(audit.flagged & (audit.suggested == audit.given), "", names[audit.suggested]),
        "label": names[audit.given],
        "verdict": np.full(len(audit.given), "", dtype=object),
        "wrong_label_score" if audit.by_plan else "low_weight_score": audit.score,
        "weight": audit.weight,
        "index": audit.row,
    }
    return columns if audit.true is None else columns | {"true_label": names[audit.true]}
