"""How well wrong labels are found in embeddings that a net of other classes made, and what a linear classifier makes of it.

    pip install cleanlab
    python analysis/bench_finding_labels.py --root FOLDER_WITH_CIFAR            # half an hour on one core
    python analysis/bench_finding_labels.py --root data --seeds 1 --kinds symmetric --rates 0.4
    python analysis/bench_finding_labels.py --table                             # of the record; --plot found.png draws it

No training of nets: CIFAR-10-LT 100 with wrong labels, seen by the committed ResNet-32 of CIFAR-100-LT 20, as by any net that
somebody brings. Each method gets the same embeddings and, where it takes trusted images, the same ten a class:

class_balanced     no method: every label is believed
trusted_alone      a linear probe of the trusted images is the classifier
trusted_probe      its probability of the given label is the weight
out_of_fold        a probe of the other folds' labels, every class weighing the same
cleanlab           its filter and its normalised margin, from out-of-fold probabilities
self_confidence    the out-of-fold probability of the given label, cleanlab's other score (no filter, hence no error)
ot                 OT weights in closed form, in each class over their mean
noise_aware        the noise-aware plan by prototypes; learned: by its probe; pooled: by the pool (`otrw.ot.probe_cost`)
oracle             what no method can know

Found: AUROC of wrong labels over all samples, within given classes, and in the three rarest. Of methods that say how probable
each label is wrong also F1 of those above one half, and their sum over the number of wrong ones. Error: balanced, on the test
set, of a logistic regression on samples with the method's weights, every class of the same mass, and trusted images that weigh
a tenth of all samples together, or as much as they. The record goes to analysis/results/benchmarks/finding-labels-cpu.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from otrw.analysis.figures.style import new_figure, save, styled
from otrw.analysis.statistics import paired_difference
from otrw.analysis.variant_styles import STYLES
from otrw.commands.exit import exit_with_message
from otrw.config import Config
from otrw.config.command_line import parse_config
from otrw.data.datasets import Datasets, make_datasets
from otrw.data.loader import SampleSet
from otrw.errors import check
from otrw.models.build import build_model
from otrw.records import ledger
from otrw.reweight import OTReweighter
from otrw.training import checkpoints
from otrw.training.competitors import Seen, check_installed, confidence_weights, judge
from otrw.training.metrics import wrong_label_figures
from otrw.training.probe import out_of_fold_opinions, standardized, trusted_opinions

RESULTS = Path(__file__).resolve().parent / "results" / "benchmarks"
NET = Path(__file__).resolve().parent / "checkpoints" / "cifar100_lt-if20-official-seed0.safetensors"
KINDS = ("symmetric", "similar", "instance")
PLANS: dict[str, Literal["prototypes", "probe", "pool"]] = {
    "noise_aware": "prototypes",
    "learned": "probe",
    "pooled": "pool",
}
JUDGES = ("trusted_probe", "out_of_fold", "cleanlab")
METHODS = ("class_balanced", "trusted_alone", *JUDGES, "self_confidence", "ot", *PLANS, "oracle")
FIGURES = {"all": "label_quality_auroc", "within": "label_quality_auroc_within", "tail": "label_quality_auroc_tail"}
TRUSTED_SHARES = (0.1, 1.0)  # of the mass of all samples, that of the trusted images
PENALTY = 1e-3  # of the logistic regression, beside a mean loss
MOST_ITERATIONS = 200
BATCH_SIZE = 500


class Task(NamedTuple):
    """One draw of samples and wrong labels."""

    data: Datasets
    seen: Seen
    test: np.ndarray
    """(T, D) embeddings"""


class Verdict(NamedTuple):
    """What a method says of the samples."""

    weights: np.ndarray | None
    """(N,) every class of the same mass; None where it has none"""
    quality: Tensor | None
    """(N,) lower where the label looks wrong; None: it says nothing"""
    is_probability: bool = False
    """whether quality is minus the probability that the label is wrong"""


def settings(root: str, kind: str, rate: float, seed: int) -> Config:
    """CIFAR-10-LT 100 with these wrong labels."""
    noise = [f"--data.label_noise={kind}", f"--data.label_noise_rate={rate}", f"--run.seed={seed}"]
    return parse_config(["--config=cifar10_lt", f"--data.root={root}", "--data.imbalance_factor=100", *noise])


def embedded(data: Datasets, samples: SampleSet) -> np.ndarray:
    """(n, D) by the committed net, each image once whatever its label."""
    net = build_model("resnet32", 100, in_channels=3)
    checkpoints.load_model(NET, net, {}, name="the committed net")
    net.eval()
    transform = data.transform(train=False)
    with torch.inference_mode():
        parts = [net.backbone(transform(samples.in_memory, part, 0)) for part in torch.arange(len(samples)).split(BATCH_SIZE)]
    return torch.cat(parts).numpy()


class Embedder:
    """Embeddings of samples by their row in the source, computed once over all draws."""

    def __init__(self) -> None:
        self.known: dict[int, np.ndarray] = {}

    def __call__(self, data: Datasets, samples: SampleSet) -> np.ndarray:
        """(n, D)."""
        rows = samples.source_index.tolist()
        new = [place for place, row in enumerate(rows) if row not in self.known]
        if new:
            part = SampleSet(*(getattr(samples, name)[torch.tensor(new)] for name in _FIELDS))
            self.known |= dict(zip([rows[place] for place in new], embedded(data, part), strict=True))
        return np.stack([self.known[row] for row in rows])


_FIELDS = ("inputs", "labels", "true_labels", "subclasses", "source_index")


def make_task(config: Config, embed: Embedder) -> Task:
    """The draw of this config. Images are normalised by its own training set, which hardly differs from seed to seed."""
    data = make_datasets(config.data, config.run.seed, torch.device("cpu"))
    x, trusted, test = (embed(data, samples) for samples in (data.train, data.meta, data.test))
    nothing = np.zeros((len(x), data.num_classes))
    seen = Seen(x, nothing, data.train.labels.numpy(), trusted, data.meta.labels.numpy(), data.num_classes)
    return Task(data, seen, test)


def verdict(method: str, task: Task, config: Config) -> Verdict:
    """What the method makes of a task."""
    data, seen = task.data, task.seen
    labels, number = data.train.labels, data.num_classes
    beta, seed = config.ot.class_balanced_beta, config.run.seed
    if method == "class_balanced":
        return Verdict(_of_confidence(torch.ones(len(labels)), task, beta), None)
    if method == "oracle":
        return Verdict(_of_confidence((labels == data.train.true_labels).float(), task, beta), None)
    if method in JUDGES:
        found = judge(method, seen, dropped_share=0.0, seed=seed)
        return Verdict(_of_confidence(torch.as_tensor(found.confidence), task, beta), torch.as_tensor(found.quality))
    if method == "self_confidence":
        opinions = out_of_fold_opinions(seen.embeddings, seen.labels, number, seed=seed)
        return Verdict(None, torch.as_tensor(opinions[np.arange(len(labels)), seen.labels]) - 1, True)
    ot = config.ot
    if method in PLANS:
        ot = replace(ot, weights="noise_aware", plan_cost=PLANS[method], smoothing_samples=0.0)
    reweighter = OTReweighter(len(labels), number, replace(ot, label_transport=0.0), seed=seed)
    reweighter.set_reference(seen.trusted_embeddings, seen.trusted_labels)
    weights = reweighter.fit(seen.embeddings, labels)
    scores = reweighter.wrong_label_scores(labels)
    if scores is not None:
        return Verdict(weights.double().numpy(), -scores, True)
    means = torch.zeros(number).index_add_(0, labels, weights) / torch.bincount(labels, minlength=number)
    return Verdict(weights.double().numpy(), weights / means[labels])


def _of_confidence(confidence: Tensor, task: Task, beta: float) -> np.ndarray:
    return confidence_weights(confidence, task.data.train.labels, task.data.num_classes, beta).double().numpy()


def figures(said: Verdict, task: Task) -> dict[str, float]:
    """How well wrong labels are found, in percent."""
    labels = task.data.train.labels
    wrong = labels != task.data.train.true_labels
    if said.quality is None:
        return {}
    found = wrong_label_figures(torch.ones(len(labels)), said.quality.double(), labels, wrong, task.data.true_sizes)
    shown = {name: 100 * float(found[key] or 0) for name, key in FIGURES.items()}
    if said.is_probability:
        scores = -said.quality
        flagged = scores > 0.5
        shown["F1"] = 200 * float((flagged & wrong).sum()) / max(1, int(flagged.sum()) + int(wrong.sum()))
        shown["sum"] = 100 * float(scores.sum()) / int(wrong.sum())
    return shown


def error(weights: np.ndarray, trusted_share: float, task: Task) -> float:
    """Balanced test error in % of a logistic regression with these weights."""
    seen = task.seen
    x = np.concatenate([seen.embeddings, seen.trusted_embeddings])
    trusted = np.full(len(seen.trusted_labels), trusted_share * weights.sum() / len(seen.trusted_labels))
    mass = np.concatenate([weights, trusted])
    model = LogisticRegression(C=1 / (PENALTY * mass.sum()), max_iter=MOST_ITERATIONS)
    model.fit(standardized(x, seen.embeddings), np.concatenate([seen.labels, seen.trusted_labels]), sample_weight=mass)
    return balanced_error(model.predict(standardized(task.test, seen.embeddings)), task)


def error_of_trusted_alone(task: Task) -> float:
    """Balanced test error in % of a probe of the trusted images, its penalty chosen on them."""
    seen = task.seen
    opinions = trusted_opinions(seen.trusted_embeddings, seen.trusted_labels, task.test, seen.num_classes)
    return balanced_error(opinions.argmax(1), task)


def balanced_error(said: np.ndarray, task: Task) -> float:
    """In %, of what is said of the test set."""
    labels = task.data.test.labels.numpy()
    return 100 * float(np.mean([(said[labels == label] != label).mean() for label in range(task.data.num_classes)]))


def measure(root: str, kind: str, rate: float, seed: int, embed: Embedder) -> dict:
    """The entry of one draw."""
    config = settings(root, kind, rate, seed)
    task = make_task(config, embed)
    wrong = task.data.train.labels != task.data.train.true_labels
    entry: dict = {"kind": kind, "rate": rate, "seed": seed, "split_hash": task.data.split_hash}
    entry |= {"wrong": float(wrong.float().mean()), "found": {"trusted_alone": {}}}
    alone = round(error_of_trusted_alone(task), 3)
    errors: dict[str, dict[str, float]] = {f"{share:g}": {"trusted_alone": alone} for share in TRUSTED_SHARES}
    for method in METHODS:
        if method == "trusted_alone":
            continue
        said = verdict(method, task, config)
        entry["found"][method] = {name: round(value, 2) for name, value in figures(said, task).items()}
        if said.weights is not None:
            for share in TRUSTED_SHARES:
                errors[f"{share:g}"][method] = round(error(said.weights, share, task), 3)
    return entry | {"error": errors}


def show(entries: Sequence[dict], console: Console) -> None:
    """A table a kind and rate: means over seeds, and pooled with the smaller share against each method at its better one,
    paired by seed."""
    for kind, rate in dict.fromkeys((entry["kind"], entry["rate"]) for entry in entries):
        chosen = [entry for entry in entries if (entry["kind"], entry["rate"]) == (kind, rate)]
        share = 100 * np.mean([entry["wrong"] for entry in chosen])
        table = Table(title=f"{kind}, {share:.0f} % wrong, {len(chosen)} seeds: AUROC and test error in %")
        shares = [f"{share:g}" for share in TRUSTED_SHARES]
        heads = ("method", *FIGURES, "F1", "sum", *(f"error, {share}" for share in shares), "pooled's is less by")
        for head in heads:
            table.add_column(head, justify="left" if head == "method" else "right")
        pooled = {entry["seed"]: entry["error"][shares[0]]["pooled"] for entry in chosen}
        for method in METHODS:
            cells = [_mean([entry["found"][method].get(name) for entry in chosen]) for name in (*FIGURES, "F1", "sum")]
            sides = [{e["seed"]: e["error"][share].get(method) for e in chosen} for share in shares]
            means = [_mean(list(side.values())) for side in sides]
            better = min(sides, key=lambda side: sum(value or 0 for value in side.values()))
            table.add_row(method, *cells, *means, _gain(better, pooled) if method != "pooled" else "")
        console.print(table)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}" if known else "-"


def _gain(own: dict[int, float | None], pooled: dict[int, float | None]) -> str:
    known = [{seed: value for seed, value in side.items() if value is not None} for side in (own, pooled)]
    found = paired_difference(*known)
    if found is None:
        return "-"
    return f"{found.mean:.1f}" if found.low is None else f"{found.mean:.1f} ({found.low:.1f} to {found.high:.1f})"


DRAWN = {
    "class_balanced": ("class-balanced", STYLES["class_balanced_meta"]),
    "trusted_probe": ("trusted probe", STYLES["trusted_probe_meta"]),
    "out_of_fold": ("out-of-fold filter", STYLES["out_of_fold_meta"]),
    "cleanlab": ("cleanlab (margin)", STYLES["cleanlab_meta"]),
    "self_confidence": ("cleanlab (self-confidence)", STYLES["early_learning_meta"]),
    "ot": ("OT", STYLES["ot"]),
    "noise_aware": ("noise-aware OT", STYLES["ot_noise_aware_meta"]),
    "pooled": ("pooled OT", STYLES["ot_pooled_labels_meta"]),
}


def plot(entries: Sequence[dict], output: Path) -> None:
    """What the oracle errs less, and how well wrong labels of the rarest classes are found: mean and range over draws."""

    def over_oracle(entry: dict, method: str) -> float | None:
        errors = [error for error in entry["error"].values() if method in error]
        return min(e[method] for e in errors) - min(e["oracle"] for e in errors) if errors else None

    panels = {
        "test error above the oracle's (points)": over_oracle,
        "AUROC of wrong labels, three rarest classes (%)": lambda entry, method: entry["found"][method].get("tail"),
    }
    conditions = list(dict.fromkeys((entry["kind"], entry["rate"]) for entry in entries))
    with matplotlib.rc_context(styled()):
        figure = new_figure(10, 4)
        axes = figure.subplots(1, 2)
        for axis, (title, value) in zip(axes, panels.items(), strict=True):
            for place, (method, (name, style)) in enumerate(DRAWN.items()):
                for x, condition in enumerate(conditions):
                    values = [value(entry, method) for entry in entries if (entry["kind"], entry["rate"]) == condition]
                    if None in values:
                        continue
                    at = x + (place - (len(DRAWN) - 1) / 2) * 0.09
                    axis.plot([at, at], [min(values), max(values)], color=style.color, linewidth=1)
                    label = name if x == 0 else None
                    axis.plot(at, np.mean(values), marker=style.marker, color=style.color, linestyle="", label=label)
            shares = [100 * np.mean([e["wrong"] for e in entries if (e["kind"], e["rate"]) == one]) for one in conditions]
            names = [f"{kind}\n{share:.0f} % wrong" for (kind, _), share in zip(conditions, shares, strict=True)]
            axis.set_xticks(range(len(conditions)), names, fontsize=8)
            axis.set_title(title)
            axis.grid(visible=False, axis="x")
        shown = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        names = [name for name, _ in DRAWN.values() if name in shown]
        figure.legend([shown[name] for name in names], names, loc="outside lower center", ncols=4)
        save(figure, output.parent, output.stem, ("png",))


def main(arguments: Sequence[str]) -> None:
    """Parse, measure, print, write the record after every draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of CIFAR-10, as data.root (default: data)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of each kind and rate (default: 5)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of wrong labels (default: all)")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.2, 0.4], help="shares in (0, 1) (default: 0.2 0.4)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the record, and measure nothing")
    parser.add_argument("--table", action="store_true", help="print the record as tables, and measure nothing")
    options = parser.parse_args(arguments)
    path = options.output / "finding-labels-cpu.json"
    console = Console(width=110)
    if options.plot or options.table:
        entries = json.loads(path.read_text())["entries"]
        if options.table:
            show(entries, console)
        if options.plot:
            plot(entries, options.plot)
        return
    check(options.seeds >= 1, "--seeds", options.seeds, "be >= 1")
    check(all(0 < rate < 1 for rate in options.rates), "--rates", options.rates, "be in (0, 1)")
    check_installed()
    embed, entries = Embedder(), []
    options.output.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for kind in options.kinds:
            for rate in options.rates:
                entries.append(measure(options.root, kind, rate, seed, embed))
                facts = {"net": NET.name, "trusted_shares": TRUSTED_SHARES, "penalty": PENALTY}
                record = {"benchmark": "finding-labels", "environment": ledger.environment(), **facts, "entries": entries}
                ledger.write_json(path, record)
                console.print(f"{kind} {rate:g}, seed {seed}: done", highlight=False)
    show(entries, console)
    console.print(f"record: {path}", highlight=False)


if __name__ == "__main__":
    exit_with_message(lambda: main(sys.argv[1:]))
