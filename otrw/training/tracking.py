"""What a run leaves behind while it trains: metrics.jsonl for the table, TensorBoard for the eye.

The only importer of SummaryWriter. On every process but the main one a journal does nothing.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from otrw.records import ledger

NUM_PROJECTED = 500  # samples in TensorBoard's embedding projector
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
        report: Callable[[dict], None] | None = None,
        searched: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.is_main = is_main
        self.num_lines = kept_lines
        self.report = report
        self.searched = searched
        self._writer = None
        if not is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        ledger.keep_lines(folder / "metrics.jsonl", kept_lines)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # 1 s

            purge_step = kept_lines + 1 if kept_lines else None
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step, flush_secs=10)
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
                    self._writer.add_scalar(tag, value, self.num_lines)
        if self.report:
            if self._writer:
                self._writer.flush()  # whoever is told may end this process
            self.report(line)

    def solve(self, diagnostics: dict) -> None:
        """Sinkhorn iterations, marginal error and the like of a solve that precedes the next epoch."""
        if self._writer:
            for key, value in diagnostics.items():
                if value is not None:
                    self._writer.add_scalar(f"transport/{key}", float(value), self.num_lines)

    def weights(self, weights: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> None:
        """Histograms of the weights, of all samples and of each class (of the first ten)."""
        if self._writer:
            self._writer.add_histogram("weights/all", weights.cpu(), self.num_lines)
            for label, name in list(enumerate(class_names))[:10]:
                members = weights[labels == label].cpu()
                if len(members):
                    self._writer.add_histogram(f"weights/class_{label}_{name}", members, self.num_lines)

    def finish(
        self,
        hyper_parameters: dict,
        metrics: dict,
        confusion: np.ndarray,
        class_names: tuple[str, ...],
        probabilities: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        images: Tensor,
    ) -> None:
        """Confusion matrix as a picture, PR curves, hparams and the embedding projector; then close."""
        if not self._writer:
            return
        self._writer.add_image("test/confusion", confusion_picture(confusion, class_names), self.num_lines)
        for label, name in list(enumerate(class_names))[:10]:
            self._writer.add_pr_curve(f"test/class_{label}_{name}", labels == label, probabilities[:, label], self.num_lines)
        self._writer.add_embedding(
            embeddings[:NUM_PROJECTED],
            metadata=[class_names[label] for label in labels[:NUM_PROJECTED].tolist()],
            label_img=images[:NUM_PROJECTED].permute(0, 3, 1, 2).float() / 255,
            tag="test",
            global_step=self.num_lines,
        )
        self._write_final(metrics, hyper_parameters)
        self._writer.close()

    def close(self) -> None:
        """Flush, without the final pictures."""
        if self._writer:
            self._writer.close()

    def _write_final(self, metrics: dict, hyper_parameters: dict) -> None:
        assert self._writer is not None
        metrics = {f"final/{key}": value for key, value in metrics.items() if value is not None}
        if self.searched is None:
            self._declare_hparams(hyper_parameters, tuple(metrics))
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, self.num_lines)

    def _declare_hparams(self, hyper_parameters: Mapping[str, object], metrics: tuple[str, ...]) -> None:
        from torch.utils.tensorboard.summary import hparams

        assert self._writer is not None
        plain = {
            key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in hyper_parameters.items()
        }
        event_file = self._writer._get_file_writer()
        for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
            event_file.add_summary(summary)  # add_hparams would open a second run


def confusion_picture(confusion: np.ndarray, class_names: tuple[str, ...], cell: int = 46) -> Tensor:
    """Counts (C, C), true class down and predicted class across -> (3, height, width) in [0, 1].

    Shade is the share of the true class; with few classes cells hold percentages and the margins name the classes.
    """
    from PIL import Image, ImageDraw, ImageFont

    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    num_classes = len(share)
    with_text = num_classes <= 20
    cell = cell if with_text else max(4, 800 // num_classes)
    left, top = (96, 44) if with_text else (0, 0)
    picture = Image.new("RGB", (left + cell * num_classes, top + cell * num_classes), "white")
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(size=15)
    for i, j in np.ndindex(num_classes, num_classes):
        x, y = left + j * cell, top + i * cell
        shade = float(share[i, j]) ** 0.5
        colour = tuple(int(255 + shade * (c - 255)) for c in (8, 64, 129))
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=colour)
        if with_text and share[i, j] >= 0.005:
            ink = "white" if shade > 0.6 else "black"
            draw.text((x + cell / 2, y + cell / 2), f"{100 * share[i, j]:.0f}", fill=ink, anchor="mm")
    if with_text:
        draw.text((left, 4), "predicted (columns), true (variants), % of the true class", fill="black")
        for label, name in enumerate(class_names):
            draw.text((left - 6, top + (label + 0.5) * cell), name[:14], fill="black", anchor="rm")
            draw.text((left + (label + 0.5) * cell, top - 7), name[:5], fill="black", anchor="ms")
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def _flat(line: dict, prefix: str = "") -> list[tuple[str, float]]:
    flat = []
    for key, value in line.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat.append((f"{prefix}{key}", float(value)))
    return flat
