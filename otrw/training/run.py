"""`run`: a whole run, stage 1 once and every variant of stage 2 on top of it."""

import copy
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.accelerator import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from rich.console import Console
from torch import Tensor

from otrw import distributed
from otrw.config import Config, RunConfig, Variant, to_dict
from otrw.config.variants import variant_config
from otrw.data.datasets import Datasets, make_datasets
from otrw.errors import UserError
from otrw.models.build import num_parameters
from otrw.models.heads import HeadOnly, Net
from otrw.records import ledger
from otrw.training import checkpoints
from otrw.training.embeddings import EmbeddingCache, backbone_key
from otrw.training.loop import Session, embed, evaluate, summary
from otrw.training.metrics import group_error
from otrw.training.progress import Progress
from otrw.training.stages import fresh_net, image_views, stage1, stage2
from otrw.training.tracking import Journal
from otrw.training.weighting import Weighting


class RunResult(NamedTuple):
    """What a run produced; replicated."""

    folder: Path
    variants: dict[str, dict]
    """Result of each variant, as in its result.json."""


Report = Callable[[dict], None]


def run(
    config: Config,
    report: Report | None = None,
    console: Console | None = None,
    searched: Mapping[str, object] | None = None,
) -> RunResult:
    """Train stage 1 and every variant of `config.variants` on it; or go on with an interrupted run.

    A stage 1 that is given by `stage1.checkpoint` is evaluated for the record only where the variants name it.
    report(line) is called on the main process after every epoch with the line of metrics.jsonl. console: where the main
    process shows progress; None is silent. searched: what a search chose, the columns of its HParams table, which is
    then filled from the first epoch on. Raises UserError for bad input, NonFiniteError where training diverges.
    """
    accelerator = start_accelerator(config.run)
    data = distributed.first_on_each_machine(lambda: make_datasets(config.data, config.data_seed, accelerator.device))
    net, stage1_epochs = _start_net(config, data, accelerator.device)
    results: dict[str, dict] = {}
    with ExitStack() as held, Progress(console if distributed.is_main() else None) as progress:
        folder = distributed.on_main(lambda: _open_folder(config, held))  # last: bad input leaves nothing behind
        progress.say(_describe(config, data, accelerator, folder))
        later: tuple[Variant, ...] = tuple(variant for variant in config.variants if variant != "stage1")
        stage1_embeddings: EmbeddingCache | None = None
        is_trained = config.stage1.checkpoint is None or "stage1" in config.variants
        for variant in ("stage1", *later) if is_trained else later:
            # the epochs that the net has really had, where stage 1 comes from a file
            variant_settings = replace(variant_config(config, variant), stage1=replace(config.stage1, epochs=stage1_epochs))
            if variant != "stage1" and stage1_embeddings is None:
                stage1_embeddings = _embedding_cache(config, data, net, accelerator)
            session = _open_variant(variant_settings, accelerator, data, folder / variant, progress, report, searched)
            session = session._replace(embeddings=stage1_embeddings)
            done = distributed.on_main(partial(_finished, folder / variant))
            if done is not None:
                if variant == "stage1":
                    checkpoints.load_model(folder / variant / "model.safetensors", net, {})
                results[variant] = done
                continue
            try:
                results[variant] = _train_variant(session, net)
            finally:
                session.journal.close()
            distributed.barrier()
    return RunResult(folder, results)


def start_accelerator(run: RunConfig) -> Accelerator:
    """The process group, with the launcher's silent traps turned into errors."""
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "the launcher must set WORLD_SIZE, got MASTER_ADDR without it: accelerate started one process where "
            "several were asked for; use --config_file launch/accelerate/cpu_2.yaml, or torchrun"
        )
    # torch 2.14 renames broadcast_buffers to forward_sync_buffers, which torch 2.11 does not have
    warnings.filterwarnings("ignore", message=".*broadcast_buffers. is deprecated", category=FutureWarning)
    on_cpu = run.cpu or not torch.cuda.is_available()
    precision: str = run.precision
    if precision == "auto":
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        on_gpu = "bf16" if not on_cpu and torch.cuda.is_bf16_supported() else "no"
        precision = asked if asked != "no" else on_gpu
    if on_cpu and precision == "fp16":
        raise UserError("run.precision must be 'no' or 'bf16' on a CPU, got 'fp16'; float16 has no CPU training kernels")
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),  # averaged once an epoch instead
            InitProcessGroupKwargs(timeout=timedelta(seconds=run.timeout_seconds)),
        ],
    )
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise UserError(f"the launcher must start one group of {expected} processes, got {accelerator.num_processes}")
    return accelerator


def _start_net(config: Config, data: Datasets, device: torch.device) -> tuple[Net, int]:
    """The net that stage 1 starts from, or ends with where a finished one is given; and the epochs of that stage 1."""
    net, epochs = fresh_net(config, data, device, "stage1"), config.stage1.epochs
    if config.stage1.checkpoint:
        facts = checkpoints.load_model(Path(config.stage1.checkpoint).expanduser(), net, _identity(config, data))
        epochs = int(facts.get("stage1_epochs", epochs))
    return net, epochs


def _train_variant(session: Session, stage1_net: Net) -> dict:
    """Train one variant from where it stopped, write its record, return its result."""
    config, folder = session.config, session.journal.folder
    started = time.monotonic()
    state = checkpoints.load_latest(folder / "checkpoints")
    variant = config.variants[0]
    weighting: Weighting | None = None
    if variant == "stage1":
        net = stage1_net
        if not config.stage1.checkpoint:
            stage1(session, net, state)
    else:
        net, weighting = stage2(session, copy.deepcopy(stage1_net), state)
    result = _result(session, net, weighting, time.monotonic() - started)
    return distributed.on_main(lambda: result)


def _result(session: Session, net: Net, weighting: Weighting | None, seconds: float) -> dict:
    """Evaluate for the record, and on the main process write it; result.json comes last, it means "done"."""
    config, data, folder = session.config, session.data, session.journal.folder
    views = image_views(session)
    local, embeddings = embed(session, net, data.test, views.transform)
    counts = evaluate(session, HeadOnly(net.head), data.test.with_inputs(embeddings), None)
    probabilities = distributed.gather_by_index(local.index, local.probabilities, len(data.test))
    correct = probabilities.argmax(1) == data.test.labels
    lines = ledger.read_lines(folder / "metrics.jsonl")
    test_errors = [line["test"]["error"] for line in lines if "test" in line]
    result = {
        "row": config.variants[0],
        "dataset": config.data.source + ("_coarse" if config.data.labels == "coarse" else ""),
        "imbalance_factor": config.data.imbalance_factor,
        "seed": config.run.seed,
        "test": summary(session, counts),
        "best_epoch_test_error": min(test_errors, default=None),
        "confusion": counts.confusion.long().tolist(),
        "model": {
            "name": config.model.name,
            "width_multiplier": config.model.width_multiplier,
            "num_parameters": num_parameters(net),
        },
        "class_names": list(data.class_names),
        "given_sizes": data.given_sizes.tolist(),
        "true_sizes": data.true_sizes.tolist(),
        "split_hash": data.split_hash,
        "seconds": round(seconds, 1),
    }
    if not torch.equal(data.test.subclasses, data.test.labels):
        result["subclass_error"] = group_error(correct, data.test.subclasses)
    if data.validation is not None:
        _, embeddings_validation = embed(session, net, data.validation, views.transform)
        validation = data.validation.with_inputs(embeddings_validation)
        result["validation"] = summary(session, evaluate(session, HeadOnly(net.head), validation, None))
    if weighting is not None:
        result["weights"] = weighting.describe() | weighting.movement() | {"class_mass": _class_mass(weighting.weights, data)}
    if distributed.is_main():
        _write_record(session, net, weighting, result, probabilities.cpu(), embeddings.cpu())
    distributed.barrier()
    return result


def _write_record(
    session: Session, net: Net, weighting: Weighting | None, result: dict, probabilities: Tensor, embeddings: Tensor
) -> None:
    config, data, folder = session.config, session.data, session.journal.folder
    test, train = data.test, data.train
    confidence, predicted = probabilities.max(1)
    ledger.write_columns(
        folder / "predictions.parquet",
        {
            "index": test.source_index.cpu().numpy(),
            "label": test.labels.cpu().numpy(),
            "prediction": predicted.numpy(),
            "confidence": confidence.numpy(),
        },
    )
    if weighting is not None:
        columns = {
            "index": train.source_index,
            "given_label": train.labels,
            "true_label": train.true_labels,
            "weight": weighting.weights.float(),
        }
        if weighting.targets.dim() == 2:
            columns["target_label"] = weighting.targets.argmax(1)
        ledger.write_columns(folder / "weights.parquet", {key: value.cpu().numpy() for key, value in columns.items()})
    facts = _identity(config, data) | {"stage1_epochs": str(config.stage1.epochs)}
    checkpoints.save_model(folder / "model.safetensors", net, facts)
    session.journal.finish(
        {
            "row": config.variants[0],
            "weights": config.ot.weights,
            "mixing": config.ot.mixing,
            "epsilon": config.ot.epsilon,
            "label_transport": config.ot.label_transport,
            "meta_loss_factor": config.stage2.meta_loss_factor,
            "learning_rate": config.stage2.optimizer.learning_rate,
            "imbalance_factor": config.data.imbalance_factor,
            "label_noise_rate": config.data.label_noise_rate,
            "seed": config.run.seed,
        },
        {key: value for key, value in result["test"].items() if key != "class_error"},
        torch.tensor(result["confusion"]).numpy(),
        data.class_names,
        probabilities,
        test.labels.cpu(),
        embeddings,
        test.inputs[:1000].cpu(),
    )
    ledger.write_json(folder / "result.json", result)
    checkpoints.remove_states(folder / "checkpoints")


def _open_folder(config: Config, held: ExitStack) -> Path:
    """Make the run's folder and write what it is, or find the one to go on with; hold it against other processes."""
    if config.run.resume is not None:
        held.enter_context(ledger.locked(Path(config.run.resume)))
        return Path(config.run.resume)
    parent = Path(config.run.directory).expanduser()
    name = config.run.name or _default_name(config)
    folder = parent / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        held.enter_context(ledger.locked(folder))
        ledger.write_yaml(folder / "config.yaml", to_dict(config))
    except FileExistsError:
        raise UserError(f"run.name must be new, got {str(folder)!r}; go on with it by --run.resume {folder}") from None
    except OSError as error:
        raise UserError(f"run.directory must be writable, got {str(parent)!r} ({error.strerror}); choose another") from None
    return folder


def _default_name(config: Config) -> str:
    data = config.data
    noise = f"-noise{100 * data.label_noise_rate:g}" if data.label_noise_rate else ""
    name = f"{data.source}_lt-if{data.imbalance_factor:g}{noise}-seed{config.run.seed}"
    return f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _open_variant(
    config: Config,
    accelerator: Accelerator,
    data: Datasets,
    folder: Path,
    progress: Progress,
    report: Report | None,
    searched: Mapping[str, object] | None,
) -> Session:
    state = checkpoints.load_latest(folder / "checkpoints")
    progress.variant = config.variants[0]
    is_done = (folder / "result.json").exists()
    journal = Journal(
        folder,
        is_main=distributed.is_main() and not is_done,
        tensorboard=config.run.tensorboard,
        kept_lines=state["num_lines"] if state else 0,
        report=report,
        searched=searched,
    )
    if journal.is_main:
        ledger.write_yaml(folder / "config.yaml", to_dict(replace(config, run=replace(config.run, resume=None))))
        devices = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "cpu"
        ledger.write_json(
            folder / "environment.json",
            ledger.environment(
                device=devices,
                world_size=accelerator.num_processes,
                precision=accelerator.mixed_precision,
                threads=torch.get_num_threads(),
            ),
        )
    return Session(config, accelerator, data, journal, progress)


def _embedding_cache(config: Config, data: Datasets, net: Net, accelerator: Accelerator) -> EmbeddingCache:
    mean, std = data.mean.tolist(), data.std.tolist()
    facts = f"{mean} {std} {accelerator.device.type} {accelerator.mixed_precision} {torch.__version__}"
    return EmbeddingCache(config.data.cache, backbone_key(net.backbone), facts)


def _finished(folder: Path) -> dict | None:
    return ledger.read_record(folder).result if (folder / "result.json").exists() else None


def _identity(config: Config, data: Datasets) -> dict[str, str]:
    """What a saved net must share with a run that starts from it."""
    return {
        "source": config.data.source,
        "split": data.split_hash,
        "model": f"{config.model.name} x{config.model.width_multiplier:g} {config.model.head}",
    }


def _class_mass(weights: Tensor, data: Datasets) -> list[float]:
    mass = torch.zeros(data.num_classes, dtype=torch.float64, device=weights.device)
    mass.index_add_(0, data.train.labels, weights.double())
    return (mass / mass.sum()).tolist()


def _describe(config: Config, data: Datasets, accelerator: Accelerator, folder: Path) -> str:
    """What is about to be trained, in a few lines."""
    wrong = int((data.train.labels != data.train.true_labels).sum())
    lines = [
        f"{config.data.source}: {len(data.train)} training images in {data.num_classes} classes of "
        f"{int(data.true_sizes.max())} down to {int(data.true_sizes.min())},",
        f"  {len(data.meta)} trusted meta images, {len(data.test)} test images",
    ]
    if wrong:
        lines.append(f"  {wrong} of the training labels ({100 * wrong / len(data.train):.0f} %) are wrong, on purpose")
    lines.append(f"{config.model.name} on {accelerator.num_processes} x {accelerator.device.type}; records in {folder}")
    if config.model.name != "small" and accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        lines.append("BatchNorm normalises each process's own samples: results depend on the number of processes")
    return "\n".join(lines)
