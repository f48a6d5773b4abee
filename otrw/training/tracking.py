"""What a run leaves behind while it trains: metrics.jsonl for the table, TensorBoard for the eye.

The only importer of SummaryWriter. On every process but the main one a journal does nothing.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from otrw.config import Config
from otrw.data.decoding import pictures
from otrw.data.files import ImageFiles
from otrw.records import ledger
from otrw.training.pictures import confusion_picture, suspects_picture
from otrw.training.run_text import run_text

NUM_PROJECTED = 1000  # most samples of a set in TensorBoard's embedding projector
NUM_SUSPECTS = 32
"""Training samples of lowest weight that are shown."""
LAYOUT = {
    "training": {
        "error (%)": ["Multiline", ["test/error", "test/balanced_error", "validation/error"]],
        "error by class size (%)": ["Multiline", ["test/many_error", "test/medium_error", "test/few_error"]],
        "loss": ["Multiline", ["train/loss", "train/meta_loss"]],
    }
}
"""The curves that belong together, for the Custom Scalars tab."""
SEARCH_METRICS = ("validation/balanced_error", "validation/error")  # of a search's HParams table: never the test set's


class Journal:
    """The record of one variant while it is made."""

    def __init__(
        self,
        folder: Path,
        *,
        is_main: bool,
        tensorboard: bool,
        kept_lines: int = 0,
        lines: str | None = None,
        seconds: float = 0.0,
        report: Callable[[dict], None] | None = None,
        searched: Mapping[str, object] | None = None,
    ) -> None:
        """Begin or go on.

        Args:
            folder: of the variant.
            is_main: whether this process writes.
            tensorboard: whether there are TensorBoard logs.
            kept_lines: epochs that a checkpoint has; what stands behind them in metrics.jsonl is dropped.
            lines: those of the checkpoint, which count where the file has others; None in checkpoints of earlier versions.
            seconds: that the training had taken at the checkpoint.
            report: told every line.
            searched: what a search chose.
        """
        self.folder = folder
        self.is_main = is_main
        self.num_lines = kept_lines
        self.report = report
        self.searched = searched
        self._writer = None
        self._started = time.monotonic() - seconds
        if not is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if lines is None:
            ledger.keep_lines(folder / "metrics.jsonl", kept_lines)
        else:
            ledger.write_text(folder / "metrics.jsonl", lines)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # 1 s

            purge_step = kept_lines + 1 if kept_lines else None
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step, flush_secs=10)
            self._writer.add_custom_scalars(LAYOUT)
            if searched is not None:
                self._declare_hparams(searched, SEARCH_METRICS)

    def epoch(self, line: dict) -> None:
        """Append an epoch's figures; nested ones become ``test/error`` and the like. The step counts epochs of all rounds."""
        self.num_lines += 1
        if not self.is_main:
            return
        ledger.append_line(self.folder / "metrics.jsonl", line)
        if self._writer:
            for tag, value in _flat(line):
                if tag not in ("stage", "round", "epoch"):
                    # tabs sort tags by name, and the error is what they should open on
                    self._writer.add_scalar("train/learning_rate" if tag == "learning_rate" else tag, value, self.num_lines)
        if self.report:
            if self._writer:
                self._writer.flush()  # a search may stop this process as soon as it has the report
            self.report(line)

    def seconds(self) -> float:
        """That the variant has taken in all its parts; what was done behind a checkpoint and is done again counts once."""
        return time.monotonic() - self._started

    def lines(self) -> str:
        """What metrics.jsonl holds, for a checkpoint; empty on other processes than the main one."""
        path = self.folder / "metrics.jsonl"
        return path.read_text(encoding="utf-8") if self.is_main and path.exists() else ""

    def solve(self, diagnostics: dict) -> None:
        """Sinkhorn iterations, marginal error and the like of a solve that precedes the next epoch."""
        if self._writer:
            for key, value in diagnostics.items():
                if value is not None and not isinstance(value, str):
                    self._writer.add_scalar(f"transport/{key}", float(value), self.num_lines)

    def weights(self, weights: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> None:
        """Histograms of the weights, of all samples and of each class (of the first ten)."""
        if self._writer:
            self._writer.add_histogram("weights/all", weights.cpu(), self.num_lines)
            for label, name in list(enumerate(class_names))[:10]:
                members = weights[labels == label].cpu()
                if len(members):
                    self._writer.add_histogram(f"weights/class_{label}_{name}", members, self.num_lines)

    def describe(self, config: Config, result: dict) -> None:
        """What was trained on what, and how it ended, for the Text tab.

        Args:
            config: of the variant.
            result: as in result.json.
        """
        if self._writer:
            self._writer.add_text("run", run_text(config, result, self.folder), self.num_lines)

    def suspects(
        self, images: Tensor | ImageFiles, given: Tensor, suggested: Tensor, weights: Tensor, class_names: tuple[str, ...]
    ) -> None:
        """The training samples of lowest weight, as a picture with their labels; weight 0.2 counts a fifth of the mean.

        Args:
            images: (n, H, W, C) uint8 or files, of all training samples; of embeddings (n, D) no picture is made.
            given: (n,) labels of the training set.
            suggested: (n,) labels held more probable: of the transport plan, or the net's predictions.
            weights: (n,) weights of mean 1.
            class_names: by label.
        """
        if not self._writer:
            return
        order = weights.argsort(stable=True)[:NUM_SUSPECTS]
        shown = pictures(images, order)
        if shown is None:
            return
        labels, others, lowest = (column[order.to(column.device)].tolist() for column in (given, suggested, weights))
        picture = suspects_picture(shown, labels, others, lowest, class_names)
        self._writer.add_image("weights/lowest", picture, self.num_lines)

    def project(
        self, name: str, embeddings: Tensor, images: Tensor | ImageFiles, columns: Mapping[str, Sequence[object]]
    ) -> None:
        """Embeddings of a set in the projector, with a thumbnail and several facts a sample to colour by.

        Args:
            name: of the set; the projector opens on the first in alphabetical order, so train comes before unseen_test.
            embeddings: (n, D); at most `NUM_PROJECTED`, evenly spaced, are kept.
            images: (n, H, W, C) uint8 or files; of embeddings (n, D) there are no thumbnails.
            columns: {name: n values}, such as class and weight; the first labels the points.
        """
        if not self._writer:
            return
        n = len(embeddings)
        chosen = torch.arange(n) if n <= NUM_PROJECTED else torch.linspace(0, n - 1, NUM_PROJECTED).round().long()
        facts = {key: list(values) for key, values in columns.items()}
        thumbnails = pictures(images, chosen)
        self._writer.add_embedding(
            embeddings.cpu()[chosen],
            metadata=[[values[i] for values in facts.values()] for i in chosen.tolist()],
            metadata_header=list(facts),
            label_img=None if thumbnails is None else thumbnails.permute(0, 3, 1, 2).float() / 255,
            tag=name,
            global_step=self.num_lines,
        )

    def finish(
        self,
        hyper_parameters: dict,
        metrics: dict,
        confusion: np.ndarray,
        class_names: tuple[str, ...],
        probabilities: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        images: Tensor | ImageFiles,
    ) -> None:
        """Confusion matrix as a picture, PR curves, hparams and the test images in the projector; then close."""
        if not self._writer:
            return
        self._writer.add_image("view/confusion", confusion_picture(confusion, class_names), self.num_lines)
        for label, name in list(enumerate(class_names))[:10]:
            self._writer.add_pr_curve(f"test/class_{label}_{name}", labels == label, probabilities[:, label], self.num_lines)
        n = min(len(images), len(labels))
        predicted = probabilities.argmax(1)
        facts = {
            "class": [in_words(class_names[label]) for label in labels[:n].tolist()],
            "predicted": [in_words(class_names[label]) for label in predicted[:n].tolist()],
            "is_right": ["right" if right else "wrong" for right in (predicted == labels)[:n].tolist()],
        }
        self.project("unseen_test", embeddings[:n], images[:n], facts)
        self._write_final(metrics, hyper_parameters)
        self._writer.close()

    def close(self) -> None:
        """Flush, without the final pictures; on a disk that is full the end of the curves is missing."""
        if self._writer:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _write_final(self, metrics: dict, hyper_parameters: dict) -> None:
        """HParams shows the last value of a curve, so the figures of the record need no tags of their own."""
        assert self._writer is not None
        metrics = {f"test/{key}": value for key, value in metrics.items() if value is not None}
        if self.searched is None:
            self._declare_hparams(hyper_parameters, tuple(metrics))
        if self.num_lines == 0:  # a stage 1 from a file has no curves
            for key, value in metrics.items():
                self._writer.add_scalar(key, value, 0)

    def _declare_hparams(self, hyper_parameters: Mapping[str, object], metrics: tuple[str, ...]) -> None:
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        assert self._writer is not None
        run, variant = self.folder.parent.name, self.folder.name
        others = {key: value for key, value in hyper_parameters.items() if key not in ("row", "seed")}
        named: dict[str, object] = {"Run": run, "Variant": variant} | others  # the table shows the first five, capitals first
        if "seed" in hyper_parameters:
            named["Seed"] = hyper_parameters["seed"]
        plain = {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in named.items()}
        event_file = self._writer._get_file_writer()
        for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
            plugin = summary.value[0].metadata.plugin_data
            data = HParamsPluginData.FromString(plugin.content)
            if data.HasField("session_start_info"):
                data.session_start_info.group_name = f"{variant} {run}"  # else the table names rows by cut paths
                plugin.content = data.SerializeToString()
            event_file.add_summary(summary)  # add_hparams would open a second run


def in_words(class_name: str) -> str:
    """A class name that the projector does not take for a number, which it would colour by a gradient."""
    return f"class {class_name}" if class_name.isdigit() else class_name


def _flat(line: dict, prefix: str = "") -> list[tuple[str, float]]:
    flat = []
    for key, value in line.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat.append((f"{prefix}{key}", float(value)))
    return flat
