"""What `OTSampleWeights` is worth for tables: balanced test error beside the usual remedies, on scikit-learn's own data.

    pip install imbalanced-learn cleanlab
    python analysis/bench_sample_weights.py                        # minutes on one core
    python analysis/bench_sample_weights.py --datasets wine --seeds 2 --trusted 3

Digits (64 columns, 10 classes), wine (13, 3) and breast cancer (30, 2) are made long-tailed (largest over smallest class 10, in
a random order of the classes) and three training labels in ten are replaced by another class's. A third of each class is the
test set, with right labels. The same trusted rows of every class are given to every method and are in its training set:

none            all rows alike
class_weight    the estimator's own class_weight="balanced"
oversampling    imbalanced-learn's RandomOverSampler
smote           imbalanced-learn's SMOTE
cleanlab        rows that cleanlab's filter names are dropped (five folds of the same estimator), then class_weight="balanced"
trusted         the trusted rows alone
transport       OTSampleWeights with its defaults
oracle          rows with wrong labels dropped, then class_weight="balanced": what no method can know

Estimators are logistic regression and histogram gradient boosting, both on standardised columns; boosting with
20 rounds of trees and leaves of at least 5 rows, since its default of 20 is more than some classes have. The record of every
error goes to analysis/results/benchmarks/sample-weights-DATASET.json.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from otrw.commands.exit import exit_with_message
from otrw.errors import UserError, check
from otrw.records import ledger
from otrw.reweight.estimator import OTSampleWeights

RESULTS = Path(__file__).resolve().parent / "results" / "benchmarks"
DATASETS = {"wine": load_wine, "breast_cancer": load_breast_cancer, "digits": load_digits}
ESTIMATORS = {
    "logistic": LogisticRegression(max_iter=1000),
    "boosting": HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5, random_state=0),
}
METHODS = ("none", "class_weight", "oversampling", "smote", "cleanlab", "trusted", "transport", "oracle")
IMBALANCE_FACTOR = 10
NOISE_RATE = 0.3
NUM_FOLDS = 5


class Task(NamedTuple):
    """Long-tailed, spoilt training rows, trusted rows and a test set; columns standardised by the training rows."""

    features: np.ndarray
    given: np.ndarray
    is_wrong: np.ndarray
    trusted: np.ndarray
    trusted_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def make_task(name: str, seed: int, num_trusted: int) -> Task:
    """The data set with this seed's split, order of class sizes and wrong labels."""
    features, labels = DATASETS[name](return_X_y=True)
    num_classes = int(labels.max()) + 1
    random = np.random.default_rng(seed)
    members = [random.permutation(np.flatnonzero(labels == label)) for label in random.permutation(num_classes)]
    num_test = min(map(len, members)) // 3
    head = min(map(len, members)) - num_test - num_trusted
    train, trusted, test = [], [], []
    for place, rows in enumerate(members):
        size = max(3, int(head * IMBALANCE_FACTOR ** (-place / (num_classes - 1))))
        test.append(rows[:num_test])
        trusted.append(rows[num_test : num_test + num_trusted])
        train.append(rows[num_test + num_trusted :][:size])
    rows, trusted_rows, test_rows = (np.concatenate(part) for part in (train, trusted, test))
    given = labels[rows].copy()
    is_wrong = random.random(len(rows)) < NOISE_RATE
    given[is_wrong] = (given[is_wrong] + random.integers(1, num_classes, int(is_wrong.sum()))) % num_classes
    scale = StandardScaler().fit(features[rows]).transform
    return Task(
        scale(features[rows]),
        given,
        is_wrong,
        scale(features[trusted_rows]),
        labels[trusted_rows],
        scale(features[test_rows]),
        labels[test_rows],
    )


def train(method: str, estimator: Any, task: Task, seed: int) -> Any:
    """The estimator trained with one remedy."""
    x, y = np.concatenate([task.features, task.trusted]), np.concatenate([task.given, task.trusted_labels])
    is_trusted = np.arange(len(y)) >= len(task.given)
    balanced = clone(estimator).set_params(class_weight="balanced")
    match method:
        case "none":
            return clone(estimator).fit(x, y)
        case "class_weight":
            return balanced.fit(x, y)
        case "oversampling":
            from imblearn.over_sampling import RandomOverSampler

            return clone(estimator).fit(*RandomOverSampler(random_state=seed).fit_resample(x, y))
        case "smote":
            from imblearn.over_sampling import SMOTE

            neighbours = min(5, int(np.bincount(y)[np.unique(y)].min()) - 1)
            return clone(estimator).fit(*SMOTE(random_state=seed, k_neighbors=neighbours).fit_resample(x, y))
        case "cleanlab":
            from cleanlab.filter import find_label_issues

            folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
            probabilities = cross_val_predict(clone(estimator), x, y, cv=folds, method="predict_proba")
            kept = ~np.asarray(find_label_issues(y, probabilities, n_jobs=1)) | is_trusted
            return balanced.fit(x[kept], y[kept])
        case "trusted":
            return clone(estimator).fit(task.trusted, task.trusted_labels)
        case "transport":
            weights = OTSampleWeights().fit(task.features, task.given, task.trusted, task.trusted_labels).sample_weight_
            return clone(estimator).fit(x, y, sample_weight=np.concatenate([weights, np.ones(len(task.trusted))]))
        case _:
            kept = np.concatenate([~task.is_wrong, np.ones(len(task.trusted), dtype=bool)])
            return balanced.fit(x[kept], y[kept])


def detection(task: Task, seed: int) -> dict[str, float]:
    """How well wrong labels are found: OTSampleWeights' score, the same with out-of-fold predictions, and those alone."""
    x, y = np.concatenate([task.features, task.trusted]), np.concatenate([task.given, task.trusted_labels])
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    model = clone(ESTIMATORS["logistic"])
    predictions = cross_val_predict(model, x, y, cv=folds, method="predict_proba")[: len(task.given)]
    arguments = (task.features, task.given, task.trusted, task.trusted_labels)
    scores = {
        "transport": OTSampleWeights().fit(*arguments).label_score_,
        "transport and predictions": OTSampleWeights().fit(*arguments, predictions=predictions).label_score_,
        "predictions": predictions[np.arange(len(task.given)), task.given],
    }
    figures = {}
    for name, score in scores.items():
        figures[f"auroc {name}"] = 100 * float(roc_auc_score(task.is_wrong, -score))
        figures[f"average precision {name}"] = 100 * float(average_precision_score(task.is_wrong, -score))
    return figures


def measure(datasets: list[str], numbers_trusted: list[int], num_seeds: int, say: Callable[[str], None]) -> list[dict]:
    """One entry a data set, number of trusted rows and seed: {estimator: {method: error}} and how wrong labels are found."""
    entries = []
    for name in datasets:
        for num_trusted in numbers_trusted:
            for seed in range(num_seeds):
                task = make_task(name, seed, num_trusted)
                errors: dict[str, dict[str, float]] = {}
                for kind, estimator in ESTIMATORS.items():
                    errors[kind] = {}
                    for method in METHODS:
                        model = train(method, estimator, task, seed)
                        right = balanced_accuracy_score(task.test_labels, model.predict(task.test))
                        errors[kind][method] = round(100 * (1 - float(right)), 3)
                found = {key: round(value, 2) for key, value in detection(task, seed).items()}
                entries.append(
                    {
                        "dataset": name,
                        "num_trusted_per_class": num_trusted,
                        "seed": seed,
                        "num_train": len(task.given),
                        "num_test": len(task.test),
                        "error": errors,
                        "detection": found,
                    }
                )
            say(f"{name}, {num_trusted} trusted a class: done")
    return entries


def show(entries: list[dict], console: Console) -> None:
    """Mean and standard deviation over seeds; transport against the best other remedy, paired by seed."""
    table = Table(title="balanced test error in %, mean (standard deviation) over seeds")
    for head in ("data", "trusted", "estimator", *METHODS):
        table.add_column(head, justify="left" if head == "data" else "right")
    groups = dict.fromkeys((entry["dataset"], entry["num_trusted_per_class"]) for entry in entries)
    for name, num_trusted in groups:
        chosen = [e for e in entries if (e["dataset"], e["num_trusted_per_class"]) == (name, num_trusted)]
        for kind in ESTIMATORS:
            columns = [np.array([entry["error"][kind][method] for entry in chosen]) for method in METHODS]
            cells = [f"{column.mean():.1f} ({column.std(ddof=min(1, len(column) - 1)):.1f})" for column in columns]
            table.add_row(name, str(num_trusted), kind, *cells)
    console.print(table)
    found = Table(title="wrong labels found: AUROC / average precision in %, mean over seeds")
    kinds = ("transport", "transport and predictions", "predictions")
    for head in ("data", "trusted", *kinds):
        found.add_column(head, justify="left" if head == "data" else "right")
    for name, num_trusted in groups:
        chosen = [e["detection"] for e in entries if (e["dataset"], e["num_trusted_per_class"]) == (name, num_trusted)]
        means = [[np.mean([e[f"{what} {kind}"] for e in chosen]) for what in ("auroc", "average precision")] for kind in kinds]
        found.add_row(name, str(num_trusted), *(f"{a:.1f} / {b:.1f}" for a, b in means))
    console.print(found)


def main(arguments: list[str]) -> None:
    """Parse, measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=tuple(DATASETS), default=list(DATASETS))
    parser.add_argument("--trusted", nargs="+", type=int, default=[5], help="trusted rows a class (default: 5)")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds (default: 10)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args(arguments)
    check(options.seeds >= 1, "--seeds", options.seeds, "be >= 1")
    check(all(1 <= number <= 20 for number in options.trusted), "--trusted", options.trusted, "be 1 to 20")
    for package, name in (("imblearn", "imbalanced-learn"), ("cleanlab", "cleanlab")):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{name} must be installed for this benchmark, got none; pip install {name}")
    console = Console(width=180)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compared libraries
        for name in options.datasets:
            entries = measure([name], options.trusted, options.seeds, lambda line: console.print(line, highlight=False))
            show(entries, console)
            console.print(f"record: {_record(options.output, name, entries)}", highlight=False)


def _record(folder: Path, dataset: str, entries: list[dict]) -> Path:
    """Write the record of a data set and return its path."""
    versions = {name: importlib.metadata.version(name) for name in ("scikit-learn", "imbalanced-learn", "cleanlab")}
    settings = {"imbalance_factor": IMBALANCE_FACTOR, "noise_rate": NOISE_RATE, "transport": OTSampleWeights().get_params()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sample-weights-{dataset.replace('_', '-')}.json"
    record = {"benchmark": "sample-weights", "environment": ledger.environment(compared=versions), **settings}
    ledger.write_json(path, record | {"entries": entries})
    return path


if __name__ == "__main__":
    exit_with_message(lambda: main(sys.argv[1:]))
