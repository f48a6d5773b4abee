"""Means over seeds, and how sure a difference between two methods is. Pure functions on lists of numbers. No torch."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

MOST_ENUMERATED = 16  # pairs up to which all 2^n sign patterns are tried
NUM_RANDOM_FLIPS = 100_000  # sign patterns tried above that, always the same ones
FEWEST_FOR_TEST = 6  # with fewer pairs no sign-flip test can reach p < 0.05 (two-sided: 2 / 2^5 = 0.06)


class Difference(NamedTuple):
    """Left minus right, paired over seeds."""

    mean: float
    num_pairs: int
    standard_error: float | None
    """Standard deviation of the differences over the square root of their number; None for one pair."""
    low: float | None
    """Ends of the 95 % interval by Student's t; None for one pair."""
    high: float | None
    p: float | None
    """Two-sided, exact sign-flip test; None below `FEWEST_FOR_TEST` pairs."""


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation (n - 1 below the fraction line); None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def paired_difference(left: Mapping[int, float], right: Mapping[int, float]) -> Difference | None:
    """left, right: {seed: value}. Compares the seeds that both have; None where there are none."""
    seeds = sorted(left.keys() & right.keys())
    if not seeds:
        return None
    differences = [left[seed] - right[seed] for seed in seeds]
    mean, std = mean_std(differences)
    if std is None:
        return Difference(mean, 1, None, None, None, None)
    standard_error = std / math.sqrt(len(seeds))
    half = t_quantile(0.975, len(seeds) - 1) * standard_error
    p = sign_flip_p(differences) if len(seeds) >= FEWEST_FOR_TEST else None
    return Difference(mean, len(seeds), standard_error, mean - half, mean + half, p)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of "the differences are symmetric around 0" by flipping their signs (Fisher's randomisation test).

    The share of sign patterns whose mean is at least as far from 0 as the one seen: all 2^n patterns up to n = 16, then a
    fixed random sample with the observed pattern counted in.
    """
    values = np.asarray(differences, dtype=np.float64)
    seen = abs(values.sum()) * (1 - 1e-12)  # equal sums may differ in the last bit
    if len(values) <= MOST_ENUMERATED:
        signs = np.array(list(product((1, -1), repeat=len(values))))
        return float((np.abs(signs @ values) >= seen).mean())
    signs = np.random.default_rng(0).choice((1, -1), size=(NUM_RANDOM_FLIPS, len(values)))
    return float((1 + (np.abs(signs @ values) >= seen).sum()) / (1 + NUM_RANDOM_FLIPS))


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile (above one half) of Student's t for whole degrees of freedom >= 1, by bisection of `t_cdf`."""
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0; the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    total, term = 0.0, cosine if degrees % 2 else 1.0
    for k in range(2 + degrees % 2, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    inside = 2 / math.pi * (theta + sine * total) if degrees % 2 else sine * total
    return (1 + inside) / 2


def reliability(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, mean confidence and accuracy of each confidence bin, nan where it is empty.

    confidence (n,) in [0, 1], correct (n,) bool. Bins of equal width (arXiv 1706.04599); 1 belongs to the last.
    """
    bins = np.clip((confidence * num_bins).astype(int), 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = [np.bincount(bins, weights=values.astype(np.float64), minlength=num_bins) for values in (confidence, correct)]
    with np.errstate(invalid="ignore"):
        return counts, sums[0] / counts, sums[1] / counts


def best_so_far(values: Sequence[float | None]) -> list[float]:
    """Smallest value up to each place; nan until there is one."""
    best, result = math.nan, []
    for value in values:
        if value is not None and not value >= best:
            best = value
        result.append(best)
    return result
