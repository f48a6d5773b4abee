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
    kind: Literal["symmetric", "similar"] = "symmetric",
    seed: int,
    similar: dict[int, int] | None = None,
) -> np.ndarray:
    """Labels (N,) of which each is wrong with probability `rate`, independently.

    symmetric: any other class, equally likely. similar: the class that `similar` names; classes that it does not name
    stay right. Drawn for every row of the source, so that subsets of it carry the same wrong labels.
    """
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
