"""Which trial comes next: random, grid or Optuna's TPE, one trial a seed. No ray.

What was proposed and what came of it are two files of JSON lines in the search's folder; from them a search goes on after
an interruption as if nothing had happened.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from otrw.errors import UserError
from otrw.tuning.space import Space, grid_setting, sample_settings

Algorithm = Literal["random", "grid", "optuna"]


class Proposal(NamedTuple):
    """One trial: a setting and a seed."""

    trial: str
    """Its name and folder: number of the setting, and number of the seed where there are several."""
    setting: int
    """Trials of one setting differ in the seed alone."""
    settings: dict[str, Any]
    """Dotted path -> value."""
    seed: int


class Proposals:
    """Hands out each trial once; learns from the outcomes of finished settings where the algorithm does."""

    def __init__(
        self,
        algorithm: Algorithm,
        space: Space,
        *,
        num_settings: int,
        seeds: list[int],
        search_seed: int,
        proposed: list[Proposal],
        outcomes: dict[str, float | None],
    ) -> None:
        """proposed: trials of an interrupted search, in their order; outcomes: value of those that are over."""
        self._seeds = seeds
        self._next_setting = max((proposal.setting for proposal in proposed), default=-1) + 1
        self._num_settings = num_settings
        self._settings_of = _random_or_grid(algorithm, space, search_seed)
        self._tpe = _Tpe(space, search_seed) if algorithm == "optuna" else None
        self._values: dict[int, dict[int, float | None]] = {}
        known = {(proposal.setting, proposal.seed): proposal for proposal in proposed}
        missing = [
            known.get((number, seed)) or self._proposal(number, settings, seed)
            for number, settings in {proposal.setting: proposal.settings for proposal in proposed}.items()
            for seed in seeds
        ]
        self._waiting = [proposal for proposal in missing if proposal.trial not in outcomes]
        if self._tpe:
            for proposal in missing:
                self._tpe.add(proposal.setting, proposal.settings)
        for proposal in missing:
            if proposal.trial in outcomes:
                self.tell(proposal, outcomes[proposal.trial])

    def next(self) -> Proposal | None:
        """The next trial; None when all were handed out."""
        if not self._waiting and self._next_setting < self._num_settings:
            number = self._next_setting
            self._next_setting += 1
            settings = self._tpe.ask(number) if self._tpe else self._settings_of(number)
            self._waiting = [self._proposal(number, settings, seed) for seed in self._seeds]
        return self._waiting.pop(0) if self._waiting else None

    def tell(self, proposal: Proposal, value: float | None) -> None:
        """A trial is over, with this value (smaller is better), none where it failed, nan where it was not begun."""
        values = self._values.setdefault(proposal.setting, {})
        values[proposal.seed] = value
        if self._tpe and len(values) == len(self._seeds):
            has_failed = any(value is None for value in values.values())
            found = [value for value in values.values() if value is not None and not math.isnan(value)]
            self._tpe.tell(proposal.setting, sum(found) / len(found) if found and not has_failed else None)

    def _proposal(self, number: int, settings: dict[str, Any], seed: int) -> Proposal:
        name = f"{number:04d}" + (f"-seed{seed}" if len(self._seeds) > 1 else "")
        return Proposal(name, number, settings, seed)


def _random_or_grid(algorithm: Algorithm, space: Space, seed: int) -> Callable[[int], dict[str, Any]]:
    if algorithm == "grid":
        return lambda number: grid_setting(space, number)
    return lambda number: sample_settings(space, number, seed)


class _Tpe:
    """Optuna's tree-structured Parzen estimator over a space."""

    def __init__(self, space: Space, seed: int) -> None:
        try:
            import optuna  # before ray's wrappers, whose error for a missing optuna is misleading
        except ImportError:
            raise UserError(
                "--algorithm must be random or grid without optuna, got 'optuna'; pip install -e '.[optuna]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(sampler=sampler, direction="minimize")
        self._failed = optuna.trial.TrialState.FAIL
        self._space = space
        self._lists = {path: d.values for path, d in space.items() if d.kind in ("choice", "grid")}
        self._distributions = {path: self._distribution(path) for path in space}
        self._trials: dict[int, Any] = {}

    def ask(self, number: int) -> dict[str, Any]:
        self._trials[number] = trial = self._study.ask(self._distributions)
        settings = dict(trial.params)
        for path, value in settings.items():
            settings[path] = self._lists[path][value] if path in self._lists else self._space[path].rounded(value)
        return settings

    def add(self, number: int, settings: dict[str, Any]) -> None:
        """A setting that was proposed before the interruption."""
        if number not in self._trials:
            params = {p: self._lists[p].index(v) if p in self._lists else v for p, v in settings.items()}
            self._study.enqueue_trial(params)
            self._trials[number] = self._study.ask(self._distributions)

    def tell(self, number: int, value: float | None) -> None:
        trial = self._trials[number]
        if value is None:
            self._study.tell(trial, state=self._failed)
        else:
            self._study.tell(trial, value)

    def _distribution(self, path: str) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        kind, values = self._space[path]
        match kind:
            case "uniform" | "loguniform":
                return FloatDistribution(values[0], values[1], log=kind == "loguniform")
            case "randint":
                return IntDistribution(values[0], values[1])
            case _:
                return CategoricalDistribution(range(len(values)))
