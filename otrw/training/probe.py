"""Linear probes of embeddings: logistic regression by scikit-learn, on one process, in float64."""

import numpy as np

FOLDS = 5  # as cleanlab's own examples take
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of scikit-learn, the inverse of the L2 penalty
STRENGTH_OF_ALL = 1.0  # scikit-learn's default, where there are samples enough
STRENGTH_OF_ONE = 0.1  # where a class has a single sample, nothing can be held out
SMALLEST_SPREAD = 0.1  # of a feature, as a share of the root mean square of all
MOST_ITERATIONS = 200  # of L-BFGS; the opinions of a probe that stops there differ in the third digit


def standardized(embeddings: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Embeddings (M, D) with the mean and the standard deviation of others (N, D) taken out; float64.

    A feature that hardly varies is not blown up: all that it could tell is rounding, which is another on two processes.
    """
    like = like.astype(np.float64)
    spread = like.std(0)
    smallest = SMALLEST_SPREAD * float(np.sqrt(np.square(spread).mean()))
    return (embeddings.astype(np.float64) - like.mean(0)) / np.maximum(spread, max(smallest, 1e-12))


def probe_opinions(
    embeddings: np.ndarray, labels: np.ndarray, others: np.ndarray, num_classes: int, *, strength: float, balanced: bool = False
) -> np.ndarray:
    """Class probabilities (N, C) of others by a probe that was fitted to embeddings.

    Args:
        embeddings: (M, D) standardised, to fit to.
        labels: (M,) their classes; a class without a sample has probability 0.
        others: (N, D) standardised, to judge.
        num_classes: C.
        strength: inverse of the L2 penalty.
        balanced: weigh the samples so that every class has the same mass.
    """
    from sklearn.linear_model import LogisticRegression  # 1 s, needed by few variants

    present = np.unique(labels)
    opinions = np.zeros((len(others), num_classes))
    if len(present) == 1:
        opinions[:, present] = 1.0
        return opinions
    probe = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS, class_weight="balanced" if balanced else None)
    _fit(probe, embeddings, labels)
    opinions[:, present] = probe.predict_proba(others)
    return opinions


def chosen_strength(embeddings: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """The strength of `STRENGTHS` under which held-out trusted samples are most likely, by folds that hold every class.

    Args:
        embeddings: (M, D) standardised, of the trusted samples.
        labels: (M,) their classes.
        num_classes: C.
    """
    sizes = np.bincount(labels, minlength=num_classes)
    num_folds = min(FOLDS, int(sizes[sizes > 0].min()))
    if num_folds < 2:
        return STRENGTH_OF_ONE
    folds = fold_of_sample(labels, num_folds, seed=0)

    def held_out_loss(strength: float) -> float:
        total = 0.0
        for fold in range(num_folds):
            out = folds == fold
            opinions = probe_opinions(embeddings[~out], labels[~out], embeddings[out], num_classes, strength=strength)
            total -= float(np.log(np.maximum(opinions[np.arange(out.sum()), labels[out]], 1e-12)).sum())
        return total

    return min(STRENGTHS, key=held_out_loss)


def fold_of_sample(labels: np.ndarray, num_folds: int, *, seed: int) -> np.ndarray:
    """(N,) number of the fold of each sample; every class is dealt out evenly, in an order of the seed."""
    generator = np.random.default_rng(seed)
    folds = np.zeros(len(labels), dtype=np.int64)
    start = 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        folds[members] = (start + np.arange(len(members))) % num_folds
        start += len(members)  # the extra ones of small classes do not all land in the first fold
    return folds


def out_of_fold_opinions(
    embeddings: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int, balanced: bool = False
) -> np.ndarray:
    """Class probabilities (N, C) of every sample by a probe of given labels that has not seen it (cross-validation).

    Args:
        embeddings: (N, D) of the training samples.
        labels: (N,) their given labels, wrong ones too.
        num_classes: C.
        seed: of the folds.
        balanced: weigh the samples so that every class has the same mass.
    """
    scaled = standardized(embeddings, embeddings)
    folds = fold_of_sample(labels, FOLDS, seed=seed)
    opinions = np.zeros((len(labels), num_classes))
    for fold in range(FOLDS):
        out = folds == fold
        if out.any():
            opinions[out] = probe_opinions(
                scaled[~out], labels[~out], scaled[out], num_classes, strength=STRENGTH_OF_ALL, balanced=balanced
            )
    return opinions


def trusted_opinions(trusted: np.ndarray, labels: np.ndarray, others: np.ndarray, num_classes: int) -> np.ndarray:
    """Class probabilities (N, C) of the training samples by a probe of the trusted ones alone.

    Args:
        trusted: (M, D) embeddings of the trusted samples.
        labels: (M,) their classes.
        others: (N, D) embeddings of the training samples.
        num_classes: C.
    """
    scaled = standardized(trusted, others)
    strength = chosen_strength(scaled, labels, num_classes)
    return probe_opinions(scaled, labels, standardized(others, others), num_classes, strength=strength)


def _fit(probe: object, embeddings: np.ndarray, labels: np.ndarray) -> None:
    """Fit, without scikit-learn's word on how far it came: `MOST_ITERATIONS` is far enough."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(embeddings, labels)  # type: ignore[attr-defined]
