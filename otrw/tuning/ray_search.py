"""A search from its plan to its best config: stage 1, then trials by Ray Tune, every outcome written as it comes."""

import math
import shutil
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from rich.console import Console

from otrw.errors import UserError
from otrw.records import ledger
from otrw.tuning.connect import check_nodes, connect
from otrw.tuning.halving import SettingHalving
from otrw.tuning.outcomes import (
    format_value,
    own_epochs,
    print_outcomes,
    read_outcomes,
    read_proposed,
    short_names,
    write_best,
)
from otrw.tuning.proposals import Proposal, Proposals
from otrw.tuning.space import parse_space
from otrw.tuning.trial import Job, run_trial, shared_stage1, trial_settings

REDUCTION_FACTOR = 3  # ASHA goes on with the best third (arXiv 1810.05934 uses 4; Hyperband's authors 3 or 4)
SHARED_GPU = 0.25  # default share of a trial: the nets are small
LINE_WIDTH = 80
MOST_SHOWN = 200  # characters of an error


def run_search(folder: Path, search: dict, console: Console, address: str | None) -> bool:
    """Run a search, or the rest of it, in its folder. Returns whether a best setting was found.

    search: as in search.yaml. address: of a Ray cluster, None for Ray on this machine. Raises UserError for bad input.
    """
    with ledger.locked(folder, "--resume", "searches there"):
        return _run_search(folder, search, console, address)


def _run_search(folder: Path, search: dict, console: Console, address: str | None) -> bool:
    say = _printer(console)
    outcomes = read_outcomes(folder)
    proposals = _proposals(folder, search, outcomes)
    num_expected = search["trials"] * len(search["seeds"])
    if len(outcomes) < num_expected:
        was_running = ray.is_initialized()
        job = _job(folder, search, connect(address, search["cpus_per_trial"] / search["processes_per_trial"]))
        try:
            if address is not None:
                check_nodes(address, folder)
            _train_stage1(search, job, say)
            _run_trials(folder, search, job, proposals, outcomes, say)
        finally:
            if not was_running:
                ray.shutdown()
    ranked = print_outcomes(console, search, outcomes, num_expected)
    if not ranked:
        say("no setting finished with all its seeds; what went wrong is in trials.jsonl")
        return False
    write_best(folder, search, ranked[0])
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    for line in (
        f"records      {shown}",
        f"curves       tensorboard --logdir {shown / 'trials'}",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    return True


def _proposals(folder: Path, search: dict, outcomes: dict[str, dict]) -> Proposals:
    return Proposals(
        search["algorithm"],
        parse_space(search["space"]),
        num_settings=search["trials"],
        seeds=search["seeds"],
        search_seed=search["config"]["run"]["seed"],
        proposed=read_proposed(folder),
        outcomes={name: _told(line) for name, line in outcomes.items()},
    )


def _told(line: dict) -> float | None:
    """What the proposals learn of a trial: its value, nan where its setting was stopped before it began, None: failed."""
    if line["state"] == "failed":
        return None
    return math.nan if line["value"] is None else line["value"]


def _job(folder: Path, search: dict, resources: dict[str, float]) -> Job:
    """Resources of a process; raises UserError where no trial would ever fit."""
    processes, gpus = search["processes_per_trial"], search["gpus_per_trial"]
    if gpus is None:
        has_gpu = resources.get("GPU", 0) > 0 and not search["config"]["run"]["cpu"]
        gpus = (processes if processes > 1 else SHARED_GPU) if has_gpu else 0
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, key, wanted in (("cpus", "CPU", search["cpus_per_trial"]), ("gpus", "GPU", gpus)):
        # how many processes of this size there is room for, none of them across nodes
        room = sum(int(node.get(key, 0) // (wanted / processes)) for node in nodes) if wanted else processes
        if room < processes:
            have = f"{resources.get(key, 0):g}" + (f" on {len(nodes)} nodes" if len(nodes) > 1 else "")
            raise UserError(
                f"--{name}-per-trial must be at most what Ray has, got {wanted:g} where there are {have}; take fewer"
            )
    cpus = search["cpus_per_trial"] / processes
    return Job(str(folder), search["row"], search["metric"], processes, cpus, gpus / processes)


def _train_stage1(search: dict, job: Job, say: Callable[[str], None]) -> None:
    """Train each stage 1 that all settings share before the trials; where the space changes it, trials do it themselves."""
    if any(path.startswith(("data.", "model.", "stage1.")) for path in search["space"]):
        say("the space changes stage 1: trials train it, equal ones once")
        return
    started, groups, waiting = time.monotonic(), [], []
    task = ray.remote(max_retries=search["retries"])(_stage1_task)
    for seed in search["seeds"]:
        options: dict[str, Any] = {"num_cpus": job.cpus, "num_gpus": job.gpus}
        if job.num_processes > 1:
            group = placement_group([_bundle(job)] * job.num_processes)
            groups.append(group)
            options = {
                "num_cpus": 0,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True),
            }
        waiting.append(task.options(**options).remote(job, seed))
    try:
        ray.get(waiting)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        for group in groups:
            remove_placement_group(group)
    noun = "stage 1" if len(waiting) == 1 else f"stage 1 of {len(waiting)} seeds"
    say(f"{noun} ready after {time.monotonic() - started:.0f} s")


def _stage1_task(job: Job, seed: int) -> None:
    shared_stage1(trial_settings(job, {}, seed), job)


def _run_trials(
    folder: Path, search: dict, job: Job, proposals: Proposals, outcomes: dict[str, dict], say: Callable[[str], None]
) -> None:
    halving = _halving(folder, search, outcomes)
    written = _Outcomes(folder, search, outcomes, say)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, job=job),
            # the first bundle is the trial's own process, which only waits where there are several
            tune.PlacementGroupFactory([_bundle(job)] if job.num_processes == 1 else [{}, *[_bundle(job)] * job.num_processes]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(proposals, folder, search["metric"], halving, written),
            scheduler=_Scheduler(halving, search["metric"]) if halving else FIFOScheduler(),
            num_samples=search["trials"] * len(search["seeds"]) - len(outcomes),
            max_concurrent_trials=search["concurrent"],
            reuse_actors=job.num_processes == 1,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"{time.time_ns()}",  # Ray's own state is not gone on with: the files of the search say what is over
            storage_path=str(folder / "ray"),
            failure_config=tune.FailureConfig(max_failures=search["retries"]),
            callbacks=[written],
            verbose=0,
        ),
    )
    tuner.fit()
    shutil.rmtree(folder / "ray", ignore_errors=True)


def _halving(folder: Path, search: dict, outcomes: dict[str, dict]) -> SettingHalving | None:
    """Successive halving, told what the trials before an interruption had reached at each epoch; None without early stops."""
    if search["scheduler"] == "none":
        return None
    halving = SettingHalving(search["grace_epochs"] / search["epochs"], REDUCTION_FACTOR)
    key = search["metric"].partition("/")[2]
    for name, line in outcomes.items():
        setting = int(name.partition("-")[0])
        epochs_per_round, rounds = own_epochs(search, line["settings"])
        for epoch in ledger.read_lines(folder / line["folder"] / "metrics.jsonl"):
            number = (epoch["round"] - 1) * epochs_per_round + epoch["epoch"]
            if "validation" in epoch and number <= line["epochs"] and epoch["validation"][key] is not None:
                halving.report(setting, line["seed"], number / (epochs_per_round * rounds), epoch["validation"][key])
        if line["state"] == "stopped":
            halving.stop(setting)
    return halving


class _Scheduler(FIFOScheduler):
    """Ends a trial whose setting is not to go on."""

    def __init__(self, halving: SettingHalving, metric: str) -> None:
        super().__init__()
        self._halving, self._metric = halving, metric

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict) -> str:
        if "failed" in result or result.get("finished") or self._metric not in result:
            return TrialScheduler.CONTINUE
        setting = int(trial.config["trial"].partition("-")[0])
        goes_on = self._halving.report(setting, trial.config["seed"], result["share"], result[self._metric])
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


class _Searcher(Searcher):
    """Gives Ray Tune our proposals and writes down what was handed out."""

    def __init__(
        self, proposals: Proposals, folder: Path, key: str, halving: SettingHalving | None, outcomes: "_Outcomes"
    ) -> None:
        super().__init__()
        self._halving, self._outcomes = halving, outcomes
        self._proposals = proposals
        self._key = key
        self._folder = folder
        self._given: dict[str, Proposal] = {}
        self._written = {proposal.trial for proposal in read_proposed(folder)}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: object) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        while (proposal := self._proposals.next()) and self._halving and self._halving.is_stopped(proposal.setting):
            self._outcomes.skip(proposal)
            self._proposals.tell(proposal, math.nan)
        if proposal is None:
            return Searcher.FINISHED
        self._given[trial_id] = proposal
        if proposal.trial not in self._written:
            ledger.append_line(self._folder / "proposed.jsonl", proposal._asdict())
        return {"trial": proposal.trial, "settings": proposal.settings, "seed": proposal.seed}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if trial_id in self._given:
            is_known = result is not None and not error and "failed" not in result
            self._proposals.tell(self._given.pop(trial_id), result.get(self._key) if is_known and result else None)

    def __getstate__(self) -> dict:
        return {}  # Ray Tune keeps copies to restore a search from, which we do from our own files

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `Proposals`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `Proposals`."""


class _Outcomes(tune.Callback):
    """Writes and prints one line a trial that is over."""

    def __init__(self, folder: Path, search: dict, outcomes: dict[str, dict], say: Callable[[str], None]) -> None:
        self._folder, self._search, self._outcomes, self._say = folder, search, outcomes, say
        self._names = short_names(list(search["space"]))
        self._num_expected = search["trials"] * len(search["seeds"])

    def __getstate__(self) -> dict:
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        result = trial.last_result
        if "failed" in result:
            self._write(trial, "failed", result["failed"])
        else:
            self._write(trial, "finished" if result.get("finished") else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        self._write(trial, "failed", _last_line(trial))
        kept = self._folder / "trials" / trial.config["trial"] / "error.txt"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(_error_text(trial), encoding="utf-8")

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        self._say(f"{trial.config['trial']}  again after: {_last_line(trial)}")

    def _write(self, trial: Trial, state: str, error: str | None = None) -> None:
        config, result = trial.config, trial.last_result or {}
        value = result.get(self._search["metric"]) if state != "failed" else None
        self._add(config, state, value, result, error)

    def skip(self, proposal: Proposal) -> None:
        """A seed that is not trained, since its setting was stopped by others."""
        self._add(proposal._asdict(), "stopped", None, {}, None)

    def _add(self, config: dict, state: str, value: float | None, result: dict, error: str | None) -> None:
        line = {
            "trial": config["trial"],
            "state": state,
            "settings": config["settings"],
            "metric": self._search["metric"],
            "value": value,
            "epochs": result.get("epoch", 0),
            "seconds": round(result.get("seconds", 0.0), 1),
            "started": result.get("started", time.time()),
            "folder": f"trials/{config['trial']}/{self._search['row']}",
            "seed": config["seed"],
        } | ({"error": error} if error else {})
        ledger.append_line(self._folder / "trials.jsonl", line)
        self._outcomes[config["trial"]] = line
        settings = " ".join(f"{self._names[path]}={format_value(value)}" for path, value in config["settings"].items())
        shown = "-" if value is None else f"{value:.2f}"
        count = f"{len(self._outcomes)}/{self._num_expected}"
        what = error or f"epoch {line['epochs']}, {line['seconds']:.0f} s, {settings}"
        self._say(f"{count:>7}  {config['trial']}  {state:<8} {shown:>6}  {what}")


def _error_text(trial: Trial) -> str:
    try:
        return Path(trial.error_file).read_text(encoding="utf-8")
    except (OSError, TypeError):
        return ""


def _last_line(trial: Trial) -> str:
    """The last line of the trial's error, which names it."""
    lines = [line for line in _error_text(trial).splitlines() if line.strip()]
    return lines[-1].strip()[:MOST_SHOWN] if lines else "its process or its node was lost"


def _bundle(job: Job) -> dict[str, float]:
    return {"CPU": job.cpus} | ({"GPU": job.gpus} if job.gpus else {})


def _printer(console: Console) -> Callable[[str], None]:
    def say(text: str) -> None:
        for line in textwrap.wrap(text, LINE_WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False):
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    return say
