"""The folder of a run, and in it the folder of each variant: made, found again, and held against other processes."""

import contextlib
import itertools
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator

from otrw import atomic, distributed
from otrw.config import Config, to_dict
from otrw.config.resume import fixed_differences
from otrw.data.datasets import Datasets
from otrw.errors import UserError
from otrw.records import ledger
from otrw.training import checkpoints
from otrw.training.progress import Progress
from otrw.training.provenance import identity
from otrw.training.session import Session
from otrw.training.stop import StopRequest
from otrw.training.tracking import Journal

Report = Callable[[dict], None]
"""Told every line of metrics.jsonl, on the main process."""
MOST_CHARACTERS = 60  # of the data's name in that of a run


def open_folder(config: Config, held: ExitStack) -> Path:
    """Make the run's folder and write what it is, or find the one to go on with; hold it against other processes."""
    if config.run.resume is not None:
        held.enter_context(ledger.locked(Path(config.run.resume)))
        return Path(config.run.resume)
    parent = Path(config.run.directory).expanduser()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = _made(parent / config.run.name) if config.run.name else _made_anew(parent / _default_name(config))
        held.enter_context(ledger.locked(folder))
        ledger.write_yaml(folder / "config.yaml", to_dict(config))
    except FileExistsError as error:
        taken = error.filename
        raise UserError(f"run.name must be new, got {taken!r}; go on with it by --run.resume {taken}") from None
    except OSError as error:
        raise UserError(f"run.directory must be writable, got {str(parent)!r} ({error.strerror}); choose another") from None
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _made_anew(folder: Path) -> Path:
    """A folder of this name, or with a number behind it where another run began in the same second."""
    for number in itertools.count(2):
        with contextlib.suppress(FileExistsError):
            return _made(folder)
        folder = folder.with_name(f"{folder.name.partition('+')[0]}+{number}")
    raise AssertionError


def _default_name(config: Config) -> str:
    data = config.data
    noise = f"-noise{100 * data.label_noise_rate:g}" if data.label_noise_rate else ""
    what = f"{data.source}_lt-if{data.imbalance_factor:g}" if not data.is_own else _plain(Path(data.root).resolve().name)
    name = f"{what}{noise}-seed{config.run.seed}"
    return f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _plain(name: str) -> str:
    """A folder's name without what a shell takes for something else."""
    return re.sub(r"[^\w.-]+", "_", name)[:MOST_CHARACTERS].strip("_.") or "run"


def open_variant(
    config: Config,
    accelerator: Accelerator,
    data: Datasets,
    folder: Path,
    progress: Progress,
    stop: StopRequest,
    report: Report | None,
    searched: Mapping[str, object] | None,
) -> Session:
    """The session of a variant, whose journal goes on after the last checkpoint; a finished one's journal stays shut."""
    distributed.on_main(lambda: _check_unchanged(config, _samples(config, data), folder))
    state = checkpoints.load_latest(folder / "checkpoints")
    progress.variant = config.variants[0]
    is_done = (folder / "result.json").exists()

    def begun() -> Journal:
        journal = Journal(
            folder,
            is_main=distributed.is_main() and not is_done,
            tensorboard=config.run.tensorboard,
            kept_lines=state["num_lines"] if state else 0,
            lines=state.get("lines") if state else None,
            seconds=state.get("seconds", 0.0) if state else 0.0,
            report=report,
            searched=searched,
        )
        if journal.is_main:
            for place in (folder.parent, folder, folder / "checkpoints"):
                atomic.remove_partial(place, 0)  # of killed processes: nobody else writes here while the folder is held
            ledger.write_yaml(folder / "config.yaml", to_dict(replace(config, run=replace(config.run, resume=None))))
            devices = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "cpu"
            ledger.write_json(
                folder / "environment.json",
                ledger.environment(
                    device=devices,
                    world_size=accelerator.num_processes,
                    precision=accelerator.mixed_precision,
                    threads=torch.get_num_threads(),
                    **_samples(config, data),
                ),
            )
        return journal

    journal = distributed.on_every_process(begun)
    return Session(config, accelerator, data, journal, progress, stop)


def _samples(config: Config, data: Datasets) -> dict[str, str]:
    """What a variant is trained on, for environment.json: hashes of the split and of the labels that are given."""
    return {"split_hash": data.split_hash, "given_labels": identity(config, data)["given_labels"]}


def _check_unchanged(config: Config, samples: Mapping[str, str], folder: Path) -> None:
    """Raise UserError where a variant that was begun would go on with other settings, samples or labels.

    Args:
        config: of the variant.
        samples: `_samples` of the data as they are now; what earlier records do not have is not compared.
        folder: of the variant.
    """
    if not (folder / "config.yaml").is_file():
        return
    begun = ledger.read_settings(folder / "config.yaml")
    for path, (old, new) in fixed_differences(begun, to_dict(config)).items():
        raise UserError(f"{path} must be {old!r}, as {folder} was begun with, got {new!r}; start a new run for other settings")
    environment = ledger.read_json(folder / "environment.json") if (folder / "environment.json").is_file() else {}
    for key, value in samples.items():
        old = environment.get(key, value) if isinstance(environment, dict) else value
        if old != value:
            raise UserError(
                f"data.root must hold the samples and labels that {folder} was begun with ({key} {old}), got others ({value}); "
                "start a new run for other data"
            )


def finished_result(folder: Path) -> dict | None:
    """What a finished variant has in its result.json; None where it is not finished."""
    return ledger.read_record(folder).result if (folder / "result.json").exists() else None
