"""`run`: a whole run, stage 1 once and every variant of stage 2 on top of it."""

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.accelerator import Accelerator
from rich.console import Console

from otrw import distributed
from otrw.config import Config, Stage1Config, Variant
from otrw.config.variants import variant_config
from otrw.data.datasets import Datasets, make_datasets
from otrw.data.files import ImageFiles
from otrw.errors import UserError
from otrw.models.build import couples_samples
from otrw.models.heads import Net
from otrw.models.library_nets import net_input
from otrw.models.names import library_of
from otrw.training import checkpoints
from otrw.training.agreement import check_same, check_same_settings
from otrw.training.competitors import check_installed
from otrw.training.embeddings import EmbeddingCache, backbone_key
from otrw.training.ending import told
from otrw.training.folder import Report, finished_result, open_folder, open_variant
from otrw.training.process_group import start_accelerator
from otrw.training.progress import Progress
from otrw.training.provenance import identity, stage1_as_trained
from otrw.training.result import data_name, make_result
from otrw.training.session import Session
from otrw.training.stages import fresh_net, stage1, stage2
from otrw.training.stop import StopRequest
from otrw.training.threads import leaves_bf16_unused, set_threads
from otrw.training.weighting import Weighting


class RunResult(NamedTuple):
    """What a run produced; replicated."""

    folder: Path
    variants: dict[str, dict]
    """Result of each variant, as in its result.json."""


def run(
    config: Config,
    report: Report | None = None,
    console: Console | None = None,
    searched: Mapping[str, object] | None = None,
    stop: StopRequest | None = None,
) -> RunResult:
    """Train stage 1 and every variant of `config.variants` on it; or go on with an interrupted run.

    A stage 1 that is given by `stage1.checkpoint` is evaluated for the record only where the variants name it.
    report(line) is called on the main process after every epoch with the line of metrics.jsonl. console: where the main
    process shows progress; None is silent. searched: what a search chose, the columns of its HParams table, which is
    then filled from the first epoch on. stop: ends the run between two steps when a signal that it listens to comes; a
    library's caller keeps its signals. Raises UserError for bad input, NonFiniteError where training diverges,
    UserInterrupt where it was interrupted, RunEndedError where a disk is full or another process is gone.
    """
    if any(variant.startswith("cleanlab") for variant in config.variants):
        check_installed()
    stop = stop or StopRequest()
    threads = set_threads(config.model.name, config.run.threads)
    accelerator = start_accelerator(config.run)
    check_same_settings(config)
    own_input = net_input(config.model.name) if library_of(config.model.name) else None
    data = distributed.first_on_each_machine(
        lambda: make_datasets(config.data, config.data_seed, accelerator.device, own_input)
    )
    check_same({"the split of the data": data.split_hash, **identity(config, data)})
    _check_truth(config, data)
    net, stage1_settings, stage1_line = _start_net(config, data, accelerator.device)
    results: dict[str, dict] = {}
    with ExitStack() as held, Progress(console if distributed.is_main() else None) as progress:
        folder = distributed.on_main(lambda: open_folder(config, held))  # last: bad input leaves nothing behind
        progress.say(_describe(config, data, net, accelerator, folder))
        progress.say(f"{threads.number} thread{'s' if threads.number > 1 else ''} a process ({threads.reason})")
        if accelerator.device.type == "cpu" and leaves_bf16_unused(config.model.name, accelerator.mixed_precision):
            progress.say("float32; this CPU has bf16 instructions: --run.precision bf16 is faster")
        if stage1_line:
            progress.say(stage1_line)
        elif net.origin:
            progress.say(net.origin)
        later: tuple[Variant, ...] = tuple(variant for variant in config.variants if variant != "stage1")
        stage1_embeddings: EmbeddingCache | None = None
        is_trained = config.stage1.checkpoint is None or "stage1" in config.variants
        held.enter_context(told(folder, stop))
        for variant in ("stage1", *later) if is_trained else later:
            variant_settings = replace(variant_config(config, variant), stage1=stage1_settings)
            if variant != "stage1" and stage1_embeddings is None:
                stage1_embeddings = _embedding_cache(config, data, net, accelerator)
            session = open_variant(variant_settings, accelerator, data, folder / variant, progress, stop, report, searched)
            session = session._replace(embeddings=stage1_embeddings)
            done = distributed.on_main(partial(finished_result, folder / variant))
            if done is not None:
                if variant == "stage1":
                    checkpoints.load_model(folder / variant / "model.safetensors", net, identity(config, data))
                results[variant] = done
                continue
            try:
                results[variant] = _train_variant(session, net)
            finally:
                session.journal.close()
            distributed.barrier()
    return RunResult(folder, results)


def _check_truth(config: Config, data: Datasets) -> None:
    """Refuse variants that are told which labels are wrong, or how many, where nobody knows."""
    for variant in config.variants if not data.knows_truth else ():
        if variant.startswith("oracle"):
            raise UserError(f"variants must not have {variant!r} where nobody knows which labels are wrong; leave it out")
        if variant.startswith("small_loss") and config.ot.dropped_share is None:
            raise UserError(f"ot.dropped_share must be a number for {variant} where no label is known to be wrong; try 0.2")


def _start_net(config: Config, data: Datasets, device: torch.device) -> tuple[Net, Stage1Config, str]:
    """The net that stage 1 starts from, or ends with where a finished one is given; the settings it had; a line on them."""
    net = fresh_net(config, data, device, "stage1")
    if config.stage1.checkpoint is None:
        return net, config.stage1, ""
    path = Path(config.stage1.checkpoint).expanduser()
    return net, *stage1_as_trained(config, checkpoints.load_model(path, net, identity(config, data)))


def _train_variant(session: Session, stage1_net: Net) -> dict:
    """Train one variant from where it stopped, write its record, return its result."""
    config, folder = session.config, session.journal.folder
    state = checkpoints.load_latest(folder / "checkpoints", session.progress.say)
    variant = config.variants[0]
    weighting: Weighting | None = None
    if variant == "stage1":
        net = stage1_net
        if not config.stage1.checkpoint:
            stage1(session, net, state)
    else:
        net, weighting = stage2(session, copy.deepcopy(stage1_net), state)
    result = make_result(session, net, weighting)
    return distributed.on_main(lambda: result)


def _embedding_cache(config: Config, data: Datasets, net: Net, accelerator: Accelerator) -> EmbeddingCache:
    mean, std = data.mean.tolist(), data.std.tolist()
    view = "" if data.view is None else f"{data.view} "
    facts = f"{mean} {std} {view}{accelerator.device.type} {accelerator.mixed_precision} {torch.__version__}"
    return EmbeddingCache(config.data.cache, backbone_key(net.backbone), facts)


def _describe(config: Config, data: Datasets, net: Net, accelerator: Accelerator, folder: Path) -> str:
    """What is about to be trained, in a few lines."""
    wrong = int((data.train.labels != data.train.true_labels).sum())
    inputs = data.train.inputs
    samples = "samples" if isinstance(inputs, torch.Tensor) and inputs.dim() == 2 else "images"
    held_out = "" if data.validation is None else f"{len(data.validation)} validation and "
    lines = [
        f"{data_name(config, data)}: {len(data.train)} training {samples} in {data.num_classes} classes of "
        f"{int(data.true_sizes.max())} down to {int(data.true_sizes.min())},",
        f"  {len(data.meta)} {'trusted' if data.meta_is_checked else 'unchecked'} meta {samples}, "
        f"{held_out}{len(data.test)} test {samples}",
        *(f"  {note}" for note in data.notes),
    ]
    if isinstance(inputs, ImageFiles) and data.view is not None:
        workers = "no workers" if data.workers == 0 else f"{data.workers} worker{'s' if data.workers > 1 else ''}"
        lines.append(f"  {data.view.image_size} x {data.view.image_size} pixels of each are decoded by {workers} a process")
    if str(data.copies):
        lines.append(f"  {data.copies}")
    if wrong:
        whence = "on purpose" if config.data.label_noise != "none" else "as the files say"
        lines.append(f"  {wrong} of the training labels ({100 * wrong / len(data.train):.0f} %) are wrong, {whence}")
    lines.append(f"{config.model.name} on {accelerator.num_processes} x {accelerator.device.type}; records in {folder}")
    if couples_samples(net) and accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        lines.append("BatchNorm normalises each process's own samples: results depend on the number of processes")
    if couples_samples(net) and config.run.accumulation_steps > 1:
        lines.append("BatchNorm normalises each part of a batch: results depend on run.accumulation_steps")
    return "\n".join(lines)
