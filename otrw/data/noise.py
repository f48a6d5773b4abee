"""Wrong labels, on purpose. Pure numpy."""

from typing import Literal

import numpy as np

from otrw.seeds import seed_for

# Pairs that people and nets confuse (arXiv 1609.03683, section 5): true class -> label given.
SIMILAR_DIGITS = {2: 7, 3: 8, 5: 6, 6: 5, 7: 1}
SIMILAR_CIFAR10 = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


def next_in_group(groups: np.ndarray) -> dict[int, int]:
    """Similar class of each class: the next one of its group, in a circle. groups (C,) -> {class: class}."""
    result: dict[int, int] = {}
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        result.update(zip(members.tolist(), np.roll(members, -1).tolist(), strict=True))
    return result


def noisy_labels(
    labels: np.ndarray,
    num_classes: int,
    rate: float,
    *,
    kind: Literal["symmetric", "similar", "instance"] = "symmetric",
    seed: int,
    similar: dict[int, int] | None = None,
    inputs: np.ndarray | None = None,
) -> np.ndarray:
    """Labels (N,) of which each is wrong with probability `rate`, independently.

    symmetric: any other class, equally likely. similar: the class that `similar` names; classes that it does not name
    stay right. instance: see `instance_dependent_labels`, of the samples' inputs (N, ...). Drawn for every row of the
    source, so that subsets of it carry the same wrong labels.
    """
    if kind == "instance":
        assert inputs is not None
        return instance_dependent_labels(inputs, labels, num_classes, rate, seed=seed)
    generator = np.random.default_rng(seed_for(seed, "label noise"))
    wrong = generator.random(len(labels)) < rate
    if kind == "symmetric":
        other = (labels + generator.integers(1, num_classes, len(labels))) % num_classes
    else:
        table = np.arange(num_classes)
        for true, given in (similar or {}).items():
            table[true] = given
        other = table[labels]
    return np.where(wrong, other, labels)


RATE_SPREAD = 0.1  # standard deviation of the samples' rates around their mean, as in the paper


def instance_dependent_labels(
    inputs: np.ndarray, labels: np.ndarray, num_classes: int, rate: float, *, seed: int
) -> np.ndarray:
    """Labels (N,) that are wrong as the sample itself has it (arXiv 2006.07836, algorithm 2 of the appendix).

    Sample n is wrong with probability q_n, drawn from a normal distribution around `rate` and cut to [0, 1]; its wrong label
    is k with probability q_n softmax_k(x_n W_y), k not y, with one random W (D, C) a true class y. Alike samples of a
    class so get the same wrong label. x: the inputs with mean and standard deviation taken out.

    Args:
        inputs: (N, ...) images or embeddings.
        labels: (N,) right labels.
        num_classes: C.
        rate: mean of the rates.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed_for(seed, "instance-dependent label noise"))
    rates = _cut_normal(generator, rate, len(labels))
    flat = inputs.reshape(len(inputs), -1)
    mean, std = float(flat.mean()), max(float(flat.std()), 1e-12)
    given = labels.copy()
    for label in range(num_classes):
        projection = generator.normal(size=(flat.shape[1], num_classes))
        members = np.flatnonzero(labels == label)
        scores = (flat[members] - mean) / std @ projection
        scores[:, label] = -np.inf
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares *= (rates[members] / shares.sum(1))[:, None]
        shares[:, label] = 1 - rates[members]
        draws = generator.random(len(members))[:, None]
        given[members] = np.minimum((shares.cumsum(1) < draws).sum(1), num_classes - 1)
    return given


def _cut_normal(generator: np.random.Generator, mean: float, num: int) -> np.ndarray:
    """(num,) draws of a normal distribution around the mean, those outside [0, 1] drawn again."""
    values = generator.normal(mean, RATE_SPREAD, num)
    while (outside := (values < 0) | (values > 1)).any():
        values[outside] = generator.normal(mean, RATE_SPREAD, int(outside.sum()))
    return values


def some_wrong_labels(labels: np.ndarray, num_classes: int, share: float, *, seed: int) -> np.ndarray:
    """Labels (M,) of which exactly round(share M) are any other class: in a set so small a rate would be a matter of luck."""
    generator = np.random.default_rng(seed_for(seed, "meta label noise"))
    wrong = generator.permutation(len(labels))[: round(share * len(labels))]
    given = labels.copy()
    given[wrong] = (labels[wrong] + generator.integers(1, num_classes, len(wrong))) % num_classes
    return given
