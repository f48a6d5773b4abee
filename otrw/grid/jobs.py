"""The cells of a results table as jobs: what each trains, what of it is done, and how much work is left. No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from otrw.config import Config, Variant, to_dict
from otrw.config.command_line import PRESETS, parse_config
from otrw.config.known_data import KNOWN_DATA
from otrw.config.resume import fixed_differences
from otrw.config.tree import uses_meta
from otrw.config.variants import variant_config
from otrw.config.yaml_files import load_yaml
from otrw.data.long_tail import class_profile
from otrw.data.sources import load_raw
from otrw.errors import UserError
from otrw.grid.precision import resolved_precision
from otrw.records import ledger
from otrw.records.config_check import check_config
from otrw.records.fingerprint import fingerprint

CACHED_WHERE_TOO_LONG = {("official", "cifar100"): ["--stage2.embeddings", "cached"]}  # 1,000 meta images a step else


class Job(NamedTuple):
    """One run: stage 1 once and every variant of a preset on it, for one data set, factor and seed."""

    name: str
    preset: str
    arguments: tuple[str, ...]
    """What launch/train.py is called with, but for where the run goes."""
    config: Config
    hashes: dict[Variant, str]
    """Method hash of each variant, with its seed and the precision that it has on this machine."""


class VariantState(NamedTuple):
    """How far one variant of a job is."""

    done_epochs: int
    epochs: int
    is_done: bool
    work: float
    """Forward passes of images that the whole variant costs, a training step counting three an image."""

    @property
    def work_left(self) -> float:
        """Forward passes of images that remain."""
        return 0.0 if self.is_done else self.work * (1 - self.done_epochs / max(1, self.epochs))


def make_jobs(
    presets: Sequence[str],
    datasets: Sequence[str],
    factors: Sequence[float],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
) -> list[Job]:
    """The grid in the order in which it is trained: seed by seed, so that a whole table of one seed comes first.

    A preset named after a data set (cifar10_lt) is trained on that one alone. Raises UserError for bad settings.
    """
    for preset in presets:
        if not (PRESETS / f"{preset}.yaml").is_file():
            known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
            raise UserError(f"--presets must name some of {known}, got {preset!r}")
    jobs = []
    for seed in seeds:
        for factor in factors:
            for dataset in datasets:
                for preset in presets:
                    if preset.endswith("_lt") and not preset.startswith(f"{dataset}_"):
                        continue
                    jobs.append(make_job(preset, dataset, factor, seed, overrides))
    if not jobs:
        raise UserError(f"--presets must fit --datasets, got {' '.join(presets)} for {' '.join(datasets)}")
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise UserError("--presets, --datasets, --factors and --seeds must name every value once")
    return jobs


def make_job(
    preset: str, dataset: str, factor: float, seed: int, overrides: Sequence[str] = (), name: str | None = None
) -> Job:
    """One run of a preset on a data set; without a name it is called after them and its settings.

    Raises:
        UserError: for settings that cannot be.
    """
    cell = ["--data.source", dataset, "--data.imbalance_factor", f"{factor:g}", "--run.seed", str(seed)]
    arguments = ["--config", preset, *cell, *CACHED_WHERE_TOO_LONG.get((preset, dataset), []), *overrides]
    config = parse_config(arguments)
    variants: tuple[Variant, ...] = ("stage1", *(variant for variant in config.variants if variant != "stage1"))
    precision = resolved_precision(config.run)
    hashes: dict[Variant, str] = {
        variant: fingerprint(to_dict(variant_config(config, variant)), precision=precision, with_seed=True)
        for variant in variants
    }
    whole = fingerprint(to_dict(config), precision=precision, with_seed=True)
    default = f"{preset}-{dataset}_lt-if{factor:g}-seed{seed}-{whole[:6]}"
    return Job(name or default, preset, tuple(arguments), config, hashes)


def finished_variants(directories: Iterable[Path]) -> dict[str, Path]:
    """Method hash with seed -> folder, of every finished variant below the directories; broken records do not count."""
    found: dict[str, Path] = {}
    for path in [path for directory in directories for path in ledger.result_files(directory)]:
        try:
            modified = path.stat().st_mtime_ns
        except OSError:
            continue  # gone since
        variant_hash = _hash_of_record(path.parent, modified)
        if variant_hash is not None:
            found.setdefault(variant_hash, path.parent)
    return found


@cache
def _hash_of_record(folder: Path, _modified_ns: int) -> str | None:
    try:
        record = ledger.read_record(folder)
        check_config(record.config)
        return fingerprint(record.config, precision=record.environment.get("precision"), with_seed=True)
    except (UserError, TypeError, ValueError, AttributeError):
        return None


def job_state(job: Job, directory: Path, finished: dict[str, Path]) -> dict[Variant, VariantState]:
    """How far each variant of a job is, from its folder and from equal variants that were trained elsewhere."""
    states: dict[Variant, VariantState] = {}
    for variant, variant_hash in job.hashes.items():
        settings = job.config.stage1 if variant == "stage1" else job.config.stage2
        epochs = settings.epochs * (1 if variant == "stage1" else variant_config(job.config, variant).stage2.rounds)
        is_done = variant_hash in finished
        done = epochs if is_done else min(epochs, _num_lines(directory / job.name / variant / "metrics.jsonl"))
        states[variant] = VariantState(done, epochs, is_done, variant_work(job.config, variant))
    return states


def _num_lines(path: Path) -> int:
    try:
        return len(ledger.read_lines(path))
    except UserError:
        return 0  # damaged: the run that goes on with it says so


def job_states(jobs: list[Job], directory: Path) -> dict[str, dict[Variant, VariantState]]:
    """{name of the job: how far each of its variants is}; variants trained anywhere below the directory count."""
    finished = finished_variants([directory])
    return {job.name: job_state(job, directory, finished) for job in jobs}


def check_folders(jobs: Iterable[Job], directory: Path) -> None:
    """Refuse to go on with runs that were begun with other settings, which is what would be trained then.

    Raises:
        UserError: for the first such folder, with the setting.
    """
    for job in jobs:
        path = directory / job.name / "config.yaml"
        try:
            begun = load_yaml(path) if path.is_file() else {}
        except UserError:
            continue  # damaged: the run that goes on with it says so
        for key, (before, now) in fixed_differences(begun, to_dict(job.config)).items():
            raise UserError(
                f"{path.parent} was begun with {key} {_short(before)}, got {_short(now)}: "
                "give the same settings, or another --directory"
            )


def check_data(jobs: Iterable[Job]) -> None:
    """Read the data of every job once, so that files that are not there are one line, and not one for each run.

    Raises:
        UserError: for files that are missing or damaged.
    """
    seen = []
    for job in jobs:
        data = job.config.data
        files = (data.source, data.root, data.layout, data.labels_file)
        if files not in seen:
            load_raw(data)
            seen.append(files)


def _short(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def is_done(variants: dict[Variant, VariantState]) -> bool:
    """Whether nothing of a job is left to train."""
    return all(state.is_done for state in variants.values())


def variant_work(config: Config, variant: Variant) -> float:
    """Forward passes of images that a variant costs, a training step counting three an image (forward and backward)."""
    data, known = config.data, KNOWN_DATA[config.data.source]
    num_cut = data.num_meta_per_class + data.num_validation_per_class
    head = known.num_per_class - num_cut
    assert data.imbalance_factor is not None
    num_train = int(class_profile(known.num_classes, head, data.imbalance_factor, data.profile).sum())
    num_meta = known.num_classes * data.num_meta_per_class
    num_test = known.num_test + known.num_classes * data.num_validation_per_class

    def evaluations(epochs: int) -> int:
        return num_test * -(-epochs // config.run.evaluate_every_epochs)

    if variant == "stage1":
        if config.stage1.checkpoint:
            return num_test
        return 3.0 * config.stage1.epochs * num_train + evaluations(config.stage1.epochs)
    settings = replace(config.stage2, rounds=variant_config(config, variant).stage2.rounds)
    num_steps = -(-num_train // settings.batch_size)
    with_meta = uses_meta(variant)
    num_images = num_train + with_meta * num_steps * (settings.meta_batch_size or num_meta)
    if settings.trainable == "classifier" and settings.embeddings == "cached":
        num_later = sum(1 for other in config.variants if other != "stage1")
        return float(num_train + num_meta + 3 * num_test) / max(1, num_later)  # embedded once for all of them
    passes = 1 if settings.trainable == "classifier" else 3
    return float(settings.rounds * (settings.epochs * passes * num_images + num_train + evaluations(settings.epochs)))
