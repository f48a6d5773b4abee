"""Which samples of each class somebody should look at: spread over the class, so that few of them stand for all of it."""

import numpy as np

from otrw.errors import check

MOST_OF_A_CLASS = 2000
"""Samples of a class that are looked at; of a larger one, so many are drawn. A spread of ten does not need more."""


def candidates(labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """(n,) sorted rows of labels (N,): all of a class, or `MOST_OF_A_CLASS` drawn from it."""
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(np.flatnonzero(labels == label))[:MOST_OF_A_CLASS] for label in range(num_classes)]
    return np.sort(np.concatenate(rows))


def spread_over_classes(features: np.ndarray, labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Rows to check: of each class the sample nearest to the centre of each of `number` clusters of the class.

    The k samples that are most typical lie close together and say the same thing k times; clusters of k-means, started by
    k-means++ (Arthur and Vassilvitskii 2007), cover the class with its rarer forms and whatever was put there by mistake.

    Args:
        features: (n, D) embeddings or other features; distances are Euclidean.
        labels: (n,) given class indices.
        number: samples a class, >= 1; at most half of a class, so that as many are left to train on.
        seed: of the starts.

    Returns:
        Rows in the order of classes, in a class the largest cluster first.
    """
    from sklearn.cluster import KMeans  # 1 s

    check(number >= 1, "--per-class", number, "be >= 1")
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        wanted = min(number, max(1, len(members) // 2))
        distinct = len(np.unique(features[members], axis=0))
        if distinct <= wanted:  # copies of one sample cannot be told apart: one each, then others in order
            _, first = np.unique(features[members], axis=0, return_index=True)
            rest = np.setdiff1d(np.arange(len(members)), first)
            chosen.append(members[np.concatenate([np.sort(first), rest])[:wanted]])
            continue
        clusters = KMeans(wanted, n_init=3, random_state=seed).fit(features[members])
        distances = clusters.transform(features[members])
        distances[clusters.labels_[:, None] != np.arange(wanted)] = np.inf
        by_size = np.argsort(-np.bincount(clusters.labels_, minlength=wanted), kind="stable")
        chosen.append(members[distances.argmin(0)[by_size]])
    return np.concatenate(chosen)


def picture_features(pixels: np.ndarray, num_components: int = 32) -> np.ndarray:
    """Features where there is no net: the main directions in which small pictures differ.

    Args:
        pixels: (n, height, width, channels) small pictures of one size.
        num_components: most directions.

    Returns:
        (n, D) principal components, D at most `num_components`.
    """
    from sklearn.decomposition import PCA

    flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    return PCA(min(num_components, *flat.shape), random_state=0).fit_transform(flat)
