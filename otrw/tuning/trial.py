"""One trial: stage 2 for one setting and seed, on a stage 1 that all trials share. Runs in a Ray worker."""

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune

from otrw.config import Config, Variant, to_dict
from otrw.config.variants import variant_config
from otrw.errors import NonFiniteError, UserError
from otrw.records import ledger
from otrw.records.fingerprint import fingerprint
from otrw.tuning.space import settings_config


class Job(NamedTuple):
    """What all trials of a search have in common."""

    folder: str
    """Of the search, on storage that all nodes share."""
    variant: Variant
    metric: str
    num_processes: int
    cpus: float
    """CPUs of one process."""
    gpus: float
    """GPUs of one process; a fraction where several processes share one."""


def run_trial(config: dict[str, Any], job: Job) -> None:
    """Ray Tune's trainable. config: trial, settings and seed. Reports the metric and the epoch of stage 2, counted over rounds.

    May be called again for a trial that was interrupted: it goes on from its checkpoint. A setting that diverges or that
    no config takes is reported as failed, not raised: trying again would not help.
    """
    started = time.time()
    name, settings = config["trial"], config["settings"]

    def report(**facts: object) -> None:
        tune.report({"started": started, "seconds": time.time() - started, **facts})

    try:
        trial_config = trial_settings(job, settings, config["seed"])
        model = shared_stage1(trial_config, job)
        trial_config = replace(
            variant_config(trial_config, job.variant),
            stage1=replace(trial_config.stage1, checkpoint=str(model)),
            run=replace(trial_config.run, directory=str(Path(job.folder) / "trials"), name=name),
        )
        with _locked(job, name):  # an earlier attempt may take a moment to die
            _train(trial_config, job, dict(settings) | {"seed": config["seed"]}, report)
    except (UserError, RuntimeError) as error:
        if not isinstance(error, UserError) and not _is_divergence(error):
            raise
        report(failed=str(error))


def trial_settings(job: Job, settings: Mapping[str, object], seed: int) -> Config:
    """The search's config with a trial's settings and seed."""
    path = Path(job.folder) / "config.yaml"
    if not path.is_file():
        raise UserError(f"--storage must be a folder that every node sees, but {job.folder} is not on this one")
    config = settings_config(["--config", str(path)], settings)
    return replace(config, run=replace(config.run, seed=seed))


def shared_stage1(config: Config, job: Job) -> Path:
    """The model of the stage 1 that a config asks for: trained by whoever comes first, while others wait.

    Its folder is named by what its numbers depend on. A lock on a file goes with the process that holds it, so a kill
    leaves nothing locked, and the next one goes on from the checkpoint.
    """
    config = variant_config(config, "stage1")
    parent = Path(job.folder) / "stage1"
    name = fingerprint(to_dict(config), with_seed=True)
    with _locked(job, name):
        if not (parent / name / "stage1" / "result.json").exists():
            config = replace(config, run=replace(config.run, directory=str(parent), name=name))
            _run(config, job, None, lambda line: None)
    return parent / name / "stage1" / "model.safetensors"


def _train(config: Config, job: Job, searched: Mapping[str, object], report: Callable[..., None]) -> None:
    """Train and report every evaluated epoch once; the last one when the record is written, since it may end this process."""
    epochs = config.stage2.epochs * config.stage2.rounds
    folder = Path(job.folder) / "trials" / str(config.run.name) / job.variant
    seen = 0

    def tell(line: dict, finished: bool = False) -> None:
        nonlocal seen
        epoch = (line["round"] - 1) * config.stage2.epochs + line["epoch"]
        if "validation" not in line or (epoch == epochs and not finished) or epoch <= seen:
            return
        seen = epoch
        key = job.metric.partition("/")[2]
        value = line["validation"][key]
        if value is None:
            raise UserError(f"--metric must be a number on this data, got null for {job.metric}; try validation/balanced_error")
        figures = {f"validation/{name}": figure for name, figure in line["validation"].items() if figure is not None}
        report(epoch=epoch, share=epoch / epochs, finished=finished, **figures)

    for line in ledger.read_lines(folder / "metrics.jsonl"):
        tell(line)  # of an earlier attempt
    _run(config, job, searched, tell)
    tell(ledger.read_lines(folder / "metrics.jsonl")[-1], finished=True)


def _run(config: Config, job: Job, searched: Mapping[str, object] | None, report: Callable[[dict], None]) -> None:
    """A run of its own folder, or the rest of it, on one process or several."""
    folder = Path(config.run.directory) / str(config.run.name)
    if folder.exists():
        config = replace(config, run=replace(config.run, resume=str(folder)))
    if job.num_processes == 1:
        from otrw.training.run import run

        run(config, report=report, searched=searched)
        return
    from otrw.tuning.ranks import train_on_ranks

    train_on_ranks(config, job.num_processes, job.cpus, job.gpus, report, searched)


def _is_divergence(error: RuntimeError) -> bool:

    return isinstance(error, NonFiniteError)


@contextmanager
def _locked(job: Job, name: str) -> Iterator[None]:
    """Alone with a run's folder."""
    path = Path(job.folder) / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
