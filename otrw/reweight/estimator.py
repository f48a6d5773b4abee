"""`OTSampleWeights`: weights and suspected labels of a table or of embeddings, in scikit-learn's manner.

The file is loaded by those who ask for it: scikit-learn takes a second, and training does not need it.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from otrw.errors import UserError, shown
from otrw.reweight.reweighter import OTReweighter

SHARE_OF_COPIES = 0.1
"""Of the trusted rows that may be in X too without a warning: some that a table repeats by itself."""
SMALLEST_SCALE = 1e-12  # of a column's largest number: one that varies less is constant, and is only centred


class OTSampleWeights(BaseEstimator):
    """One weight for each sample, and a score for each label, from a few samples whose labels were checked.

    The weights are those of `OTReweighter` in closed form (arXiv 2208.02951, with the sample marginal free): the weighted
    samples look like the trusted ones, so that rare classes count for more and wrong labels for less. They go into any
    estimator's ``sample_weight``. The trusted samples belong into the training set too, with weight 1, as in the example.
    It is no cure-all: on scikit-learn's tables with three labels in ten wrong it was ahead of class weights and resampling, but
    not always of cleanlab's filter, nor for a linear model of the trusted rows alone (analysis/LOG.md): compare them.

    The score of a label is what the features alone say of it: the plan of the same problem without the label cost gives each
    sample a distribution over the trusted labels, and the score is the share of the given one.

    Args:
        epsilon: strength of the entropy, in units of the cost, > 0. Smaller finds wrong labels more sharply and leaves
            fewer effective samples.
        mixing: share of the features in the cost of the weights, in [0, 1]; the rest is the label.
        standardize: whether columns are centred and scaled to unit variance before angles are taken. Columns of different
            units need it; embeddings of a net that was trained for angles may do without.
        num_trusted_per_class: of the samples that are drawn as trusted where `fit` gets none.
        random_state: of that draw.

    Attributes:
        sample_weight_: (n,) weights with mean 1; 1 for rows that were drawn as trusted.
        label_score_: (n,) in [0, 1], low where the given label is probably wrong; nan for rows that were drawn as trusted, as
            nothing judges them.
        suggested_label_: (n,) the most probable label of each sample, of the type of y.
        label_probability_: (n, C) the distribution that both come from, columns in the order of classes_.
        classes_: (C,) the labels of y and y_trusted, sorted.
        trusted_index_: rows of X that were drawn as trusted, or empty.
        n_features_in_: columns of X.
        feature_names_in_: their names, where X is a data frame.

    Example:
        >>> import numpy as np
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> X, y = load_wine(return_X_y=True)
        >>> trusted = np.concatenate([np.flatnonzero(y == c)[:5] for c in range(3)])
        >>> rest = np.setdiff1d(np.arange(len(y)), trusted)
        >>> given = y[rest].copy()
        >>> given[::4] = (given[::4] + 1) % 3  # a quarter is wrong
        >>> ot = OTSampleWeights().fit(X[rest], given, X[trusted], y[trusted])
        >>> weight = np.concatenate([ot.sample_weight_, np.ones(len(trusted))])
        >>> model = make_pipeline(StandardScaler(), LogisticRegression())
        >>> _ = model.fit(X[np.r_[rest, trusted]], np.r_[given, y[trusted]], logisticregression__sample_weight=weight)
        >>> is_wrong = given != y[rest]
        >>> bool(ot.sample_weight_[is_wrong].mean() < 0.5 * ot.sample_weight_[~is_wrong].mean())
        True

    The same weights in other training loops, for samples in the order of X:

        sampler = torch.utils.data.WeightedRandomSampler(ot.sample_weight_, len(X))
        loader = torch.utils.data.DataLoader(dataset, batch_size=64, sampler=sampler)  # and the plain mean of the loss

    ::

        class Weighted(lightning.LightningModule):  # a dataset that gives (x, y, weight), such as
            ...                                     # TensorDataset(x, y, torch.as_tensor(ot.sample_weight_).float())
            def training_step(self, batch, _):
                x, y, weight = batch
                return (weight * cross_entropy(self.net(x), y, reduction="none")).sum() / weight.sum()

    ::

        class Weighted(transformers.Trainer):  # a dataset with a column "weight"; remove_unused_columns=False
            def compute_loss(self, model, inputs, return_outputs=False, **_):
                weight, labels = inputs.pop("weight"), inputs.pop("labels")
                outputs = model(**inputs)
                loss = (weight * cross_entropy(outputs.logits, labels, reduction="none")).sum() / weight.sum()
                return (loss, outputs) if return_outputs else loss
    """

    def __init__(
        self,
        *,
        epsilon: float = 0.05,
        mixing: float = 0.5,
        standardize: bool = True,
        num_trusted_per_class: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.epsilon = epsilon
        self.mixing = mixing
        self.standardize = standardize
        self.num_trusted_per_class = num_trusted_per_class
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_trusted: ArrayLike | None = None,
        y_trusted: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
    ) -> "OTSampleWeights":
        """Weights and scores of all samples.

        Args:
            X: (n, D) features or embeddings, an array or a data frame of numbers.
            y: (n,) their given labels: strings, whole numbers, booleans or categories.
            X_trusted: (m, D) features of samples whose labels were checked; best the same number of every class, and
                none of them in X too, where it would be judged by itself. Without them some of X are drawn, with a warning.
            y_trusted: (m,) their labels, with every class of y among them.
            predictions: (n, C) class probabilities of any model that was not trained on the sample itself, such as
                those of `sklearn.model_selection.cross_val_predict`, columns in the sorted order of all labels. They
                multiply the distribution that scores and suggestions come from; the weights do without.

        Returns:
            The estimator.

        Raises:
            ValueError: where an array cannot be right; a `UserError` is one too.
        """
        features, given = validate_data(self, X, _plain_labels(y, "y"), dtype=[np.float64, np.float32])
        check_classification_targets(given)
        if (X_trusted is None) != (y_trusted is None):
            missing = "y_trusted" if y_trusted is None else "X_trusted"
            raise UserError(f"X_trusted and y_trusted must come together, got no {missing}")
        self.trusted_index_ = np.zeros(0, dtype=np.int64)
        if X_trusted is None or y_trusted is None:  # both
            self.trusted_index_ = self._drawn(given)
            trusted, trusted_labels = features[self.trusted_index_], given[self.trusted_index_]
        else:
            plain = _plain_labels(y_trusted, "y_trusted")
            trusted, trusted_labels = validate_data(self, X_trusted, plain, reset=False, dtype=[np.float64, np.float32])
            check_classification_targets(trusted_labels)
            _warn_of_trusted_rows(features, trusted)
        self.classes_, all_codes, trusted_codes = _encoded(given, trusted_labels)
        if self.standardize:
            centre, scale = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
            scale = np.where(scale > SMALLEST_SCALE * np.abs(features).max(0), scale, 1.0)
            features, trusted = (((x - centre) / scale).astype(x.dtype) for x in (features, trusted))
        rest = np.setdiff1d(np.arange(len(features)), self.trusted_index_)  # a trusted row would be judged by itself
        if not len(rest):
            raise UserError("X must have two samples of some class where none is trusted, got one sample of each")
        features, codes = features[rest], all_codes[rest]
        num_classes = max(2, len(self.classes_))  # with a single class the second stays empty

        def reweighter(mixing: float, label_transport: float) -> OTReweighter:
            made = OTReweighter(
                len(features), num_classes, epsilon=self.epsilon, mixing=mixing, label_transport=label_transport
            )
            made.set_reference(trusted, trusted_codes, allow_missing=True)  # _encoded has looked for missing ones
            return made

        weights = reweighter(self.mixing, 0.0).fit(features, codes).double().numpy()
        by_features = reweighter(1.0, 1.0)
        by_features.fit(features, codes)
        assert by_features.label_targets is not None
        probability = by_features.label_targets.double().numpy()[:, : len(self.classes_)]
        if predictions is not None:
            product = probability * _checked_predictions(predictions, (len(all_codes), probability.shape[1]))[rest]
            is_none = product.sum(1, keepdims=True) == 0  # where both rule out what the other holds possible, the plan's stays
            probability = np.where(is_none, probability, product)
        probability = probability / np.maximum(probability.sum(1, keepdims=True), np.finfo(float).tiny)
        score = probability[np.arange(len(codes)), codes]
        self.sample_weight_ = _with_rows(np.ones(len(all_codes)), rest, weights)
        self.label_score_ = _with_rows(np.full(len(all_codes), np.nan), rest, score)
        self.label_probability_ = _with_rows(np.eye(len(self.classes_))[all_codes], rest, probability)
        self.suggested_label_ = self.classes_[self.label_probability_.argmax(1)]
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _drawn(self, labels: np.ndarray) -> np.ndarray:
        """Rows to be trusted where nobody has checked any: at most half of a class, at least one."""
        if self.num_trusted_per_class < 1:
            raise UserError(f"num_trusted_per_class must be >= 1, got {shown(self.num_trusted_per_class)}")
        warnings.warn(
            f"no trusted samples were given: {self.num_trusted_per_class} of each class of X (at most half of it) are drawn "
            "and their labels taken on trust: where they are wrong, wrong labels may get the larger weights; pass X_trusted "
            "and y_trusted whose labels somebody has checked",
            UserWarning,
            stacklevel=3,
        )
        random, rows = check_random_state(self.random_state), []
        for members in (np.flatnonzero(labels == label) for label in np.unique(labels)):
            number = min(self.num_trusted_per_class, max(1, len(members) // 2))
            rows.append(random.permutation(members)[:number])
        return np.sort(np.concatenate(rows))


def _warn_of_trusted_rows(features: np.ndarray, trusted: np.ndarray) -> None:
    """Warn where trusted rows are among the others: nothing is as like them, so that they take nearly all the weight."""
    rows, of_trusted = ({row.tobytes() for row in np.ascontiguousarray(x, dtype=np.float64)} for x in (features, trusted))
    number = len(rows & of_trusted)
    if number < max(2, SHARE_OF_COPIES * len(of_trusted)) or len(rows) < len(features) / 2:  # tables of few values repeat rows
        return
    warnings.warn(
        f"{number} rows of X_trusted are in X too: each is what is most like itself, and takes weight from all others; leave "
        "them out of X, and train on them with weight 1 beside it",
        UserWarning,
        stacklevel=3,
    )


def _with_rows(table: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    table[rows] = values
    return table


def _plain_labels(given: ArrayLike, name: str) -> np.ndarray:
    """(n,) labels, none missing; whole numbers and booleans of a pandas type that knows missing ones become numpy's."""
    labels = np.asarray(given)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = column_or_1d(labels, warn=True)
    if labels.ndim != 1:
        return labels  # scikit-learn says what is wrong
    missing = np.array([_is_missing(label) for label in labels]) if labels.dtype == object else labels != labels
    if np.any(missing):
        raise UserError(f"{name} must have a label for every sample, got none for {int(np.sum(missing))}; drop those rows")
    if labels.dtype == object and len(labels):
        kinds = {type(label) for label in labels}
        if kinds <= {bool, np.bool_}:
            return labels.astype(bool)
        if all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
            return labels.astype(np.int64)
    return labels


def _is_missing(label: object) -> bool:
    """None, nan, which differs from itself, and pandas.NA, of which nothing is known."""
    try:
        return label is None or bool(label != label)
    except TypeError:
        return True


def _encoded(given: np.ndarray, trusted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(all labels sorted, given ones as their numbers, trusted ones likewise)."""
    kinds = [np.asarray(labels).dtype.kind for labels in (given, trusted)]
    if any(kind in "OUST" for kind in kinds) and any(kind in "biuf" for kind in kinds):
        raise UserError(f"y and y_trusted must be labels of one type, got {given.dtype} and {trusted.dtype}")
    try:
        classes, codes = np.unique(np.concatenate([given, trusted]), return_inverse=True)
    except TypeError:
        raise UserError("y and y_trusted must be labels of one type, got several, such as numbers among strings") from None
    codes, trusted_codes = codes[: len(given)], codes[len(given) :]
    absent: Sequence[object] = classes[np.setdiff1d(codes, trusted_codes)].tolist()
    if absent:
        raise UserError(
            f"y_trusted must have a sample of every class of y, got none of {shown(absent[:8])}; check some samples of it"
        )
    return classes, codes, trusted_codes


def _checked_predictions(predictions: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    probabilities = np.asarray(predictions, dtype=np.float64)
    if probabilities.shape != shape:
        raise UserError(f"predictions must have shape {shape}, a column a class of classes_, got {probabilities.shape}")
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise UserError("predictions must be probabilities, finite and >= 0, got others; pass predict_proba's")
    return probabilities
