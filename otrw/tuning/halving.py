"""Which settings go on: asynchronous successive halving (arXiv 1810.05934) of settings, over all their seeds. No ray.

A trial is judged at shares of its own epochs, so that settings with different numbers of epochs or rounds are compared at the
same place of their schedules. What is stopped is a setting with all its seeds: a setting of three seeds would otherwise have to
win three draws, and the best would rarely be seen through.
"""

import math
import statistics


class SettingHalving:
    """Judges settings at rungs: shares of the epochs at which only the better part goes on."""

    def __init__(self, grace_share: float, reduction_factor: int) -> None:
        """grace_share: of its epochs, in (0, 1], that every trial gets; reduction_factor: of a rung's settings, 1 goes on."""
        self._factor = reduction_factor
        self._rungs = []
        while grace_share < 1 - 1e-9:
            self._rungs.append(grace_share)
            grace_share *= reduction_factor
        self._values: list[dict[tuple[int, int], float]] = [{} for _ in self._rungs]
        self._stopped: set[int] = set()

    def report(self, setting: int, seed: int, share: float, value: float) -> bool:
        """A trial has this value (smaller is better) after this share of its epochs; returns whether its setting goes on."""
        for rung, values in zip(self._rungs, self._values, strict=True):
            if share < rung - 1e-9 or (setting, seed) in values:
                continue
            values[setting, seed] = value if math.isfinite(value) else math.inf
            if self._is_poor(setting, values):
                self._stopped.add(setting)
        return setting not in self._stopped

    def stop(self, setting: int) -> None:
        """A setting that was stopped before an interruption."""
        self._stopped.add(setting)

    def is_stopped(self, setting: int) -> bool:
        """Whether trials of this setting are to end, and others not to begin."""
        return setting in self._stopped

    def _is_poor(self, setting: int, values: dict[tuple[int, int], float]) -> bool:
        """Whether other settings at this rung are better than it, all but the share that goes on.

        A setting's score is its mean distance from the median of each seed, since seeds differ in their split. Where all
        its seeds have arrived, it is a mean over them; before, over those that have.
        """
        medians = {
            seed: statistics.median(value for (_, of), value in values.items() if of == seed) for seed in {s for _, s in values}
        }
        distances: dict[int, list[float]] = {}
        for (number, seed), value in values.items():
            distances.setdefault(number, []).append(0.0 if value == medians[seed] else value - medians[seed])
        scores = {number: statistics.fmean(found) for number, found in distances.items()}
        others = sorted(score for number, score in scores.items() if number != setting)
        if not others:
            return False
        place = (len(others) - 1) / self._factor  # the quantile by linear interpolation, as Ray Tune's ASHA has it
        below, above = others[math.floor(place)], others[math.ceil(place)]
        cutoff = below if below == above else below + (place - math.floor(place)) * (above - below)
        return scores[setting] > cutoff
