"""What a search may choose: a file of dotted paths and distributions. No ray.

ot.epsilon: {loguniform: [0.02, 1.0]}
ot.mixing: {grid: [0, 0.5, 1]}
stage2.optimizer.learning_rate: {uniform: [0.01, 0.2]}
stage2.rounds: {randint: [1, 3]}
ot.weights: {choice: [semi_relaxed, network]}
"""

import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from otrw.config import Config, Variant, flatten, to_dict
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.errors import UserError, check
from otrw.records.fingerprint import fingerprint
from otrw.records.read import read_yaml

SPACES = Path(__file__).resolve().parent / "spaces"
RANGES = ("uniform", "loguniform", "randint")
LISTS = ("choice", "grid")
MOST_VALUES = 1000  # of one setting; each is tried on the config before a search starts
LARGEST = 2**53  # whole numbers up to here are exact as floats
NOT_SEARCHED = ("run.", "variants", "stage1.checkpoint", "data.num_validation_per_class", "data.seed")


class Distribution(NamedTuple):
    """Values of one setting. Ranges are [low, high], both ends included; choice and grid list their values."""

    kind: str
    values: tuple

    def sample(self, generator: np.random.Generator) -> object:
        """One value, a plain Python number or what the list holds."""
        low, high = self.values[0], self.values[-1]
        match self.kind:
            case "uniform":
                return self.rounded(generator.uniform(low, high))
            case "loguniform":
                return self.rounded(math.exp(generator.uniform(math.log(low), math.log(high))))
            case "randint":
                return int(generator.integers(low, high, endpoint=True))
            case _:
                return self.values[int(generator.integers(len(self.values)))]

    def rounded(self, value: float) -> float:
        """A value of a range to four significant digits, what a person would write into a config."""
        return min(max(float(f"{value:.4g}"), self.values[0]), self.values[1]) if self.kind != "randint" else value


Space = dict[str, Distribution]


def load_space(name: str) -> Space:
    """The space of a file, or of otrw/tuning/spaces/NAME.yaml. Raises UserError."""
    path = next((path for path in (Path(name), SPACES / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        known = ", ".join(sorted(path.stem for path in SPACES.glob("*.yaml")))
        raise UserError(f"--space must name a file or one of {known}, got {name!r}")
    try:
        content = read_yaml(path)
    except UserError as error:
        raise UserError(f"--space {name} must be a YAML file ({error})") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"--space {name} must hold lines such as ot.epsilon: {{loguniform: [0.02, 1.0]}}")
    return parse_space(content)


def parse_space(content: Mapping) -> Space:
    """Space from {dotted path: {kind: values}}. Raises UserError for unknown paths, kinds and empty ranges."""
    known = [path for path in flatten(to_dict(Config())) if not path.startswith(NOT_SEARCHED)]
    space: Space = {}
    for path, entry in content.items():
        if path not in known:
            near = difflib.get_close_matches(str(path), known, n=1)
            remedy = f"did you mean {near[0]}?" if near else "see python launch/train.py --print_config"
            raise UserError(f"space path must be a setting to search, got {path!r}; {remedy}")
        space[path] = _distribution(path, entry)
    return space


def to_plain(space: Space) -> dict:
    """The space as its file says it."""
    return {path: {distribution.kind: list(distribution.values)} for path, distribution in space.items()}


def check_values(space: Space, base: list[str]) -> None:
    """Refuse values that no config takes: each end of a range and each listed value, set alone on the base.

    base: arguments for parse_config. Raises UserError.
    """
    for path, distribution in space.items():
        for value in distribution.values:
            try:
                settings_config(base, {path: value})
            except UserError as error:
                raise UserError(f"space {path}: {error}") from None


def settings_config(base: list[str], settings: Mapping[str, object]) -> Config:
    """The config of a setting: parse_config's arguments `base`, and values by dotted path. Raises UserError."""
    changes = [f"--{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in settings.items()]
    return parse_config([*base, *changes])


def without_effect(space: Space, base: list[str], variant: Variant) -> list[str]:
    """Settings of the space that a variant does not look at, whatever the listed values of the others are set to.

    Args:
        space: values that `check_values` has found right.
        base: arguments for parse_config.
        variant: what the trials train.
    """
    listed = [(path, value) for path, found in space.items() if found.kind in LISTS for value in found.values]

    def looks_at(path: str) -> bool:
        for other in ({}, *({other: value} for other, value in listed if other != path)):
            prints = set()
            for value in dict.fromkeys(space[path].values):
                try:
                    config = settings_config(base, {**other, path: value})
                except UserError:  # two values that do not go together
                    continue
                prints.add(fingerprint(to_dict(variant_config(config, variant))))
            if len(prints) > 1:
                return True
        return False

    return [path for path, found in space.items() if len(set(found.values)) > 1 and not looks_at(path)]


def sample_settings(space: Space, number: int, seed: int) -> dict[str, object]:
    """Setting `number` of a random search; depends on nothing but (space, number, seed)."""
    generator = np.random.default_rng((seed, number))
    return {path: distribution.sample(generator) for path, distribution in space.items()}


def grid_size(space: Space) -> int:
    """How many settings a grid has. Raises UserError where a path has a range instead of a list."""
    for path, distribution in space.items():
        check(distribution.kind in LISTS, f"space {path}", distribution.kind, "be grid or choice with --algorithm grid")
    return math.prod(len(distribution.values) for distribution in space.values())


def grid_setting(space: Space, number: int) -> dict[str, object]:
    """Setting `number` of all combinations, the last path changing fastest."""
    settings: dict[str, object] = {}
    for path, distribution in reversed(space.items()):
        number, place = divmod(number, len(distribution.values))
        settings[path] = distribution.values[place]
    return {path: settings[path] for path in space}


def _distribution(path: str, entry: object) -> Distribution:
    kinds = (*RANGES, *LISTS)
    is_known = isinstance(entry, dict) and len(entry) == 1 and next(iter(entry)) in kinds
    check(is_known, f"space {path}", entry, f"be one of {', '.join(kinds)} with its values", "e.g. {loguniform: [0.02, 1.0]}")
    assert isinstance(entry, dict)
    ((kind, values),) = entry.items()
    check(isinstance(values, list) and len(values) > 0, f"space {path}", entry, "list values", f"e.g. {{{kind}: [1, 2]}}")
    if kind in LISTS:
        check(
            len(values) <= MOST_VALUES, f"space {path}", f"{len(values)} values", f"list at most {MOST_VALUES}", "take a range"
        )
        check(len(set(map(repr, values))) == len(values), f"space {path}", values, "list each value once")
        check(
            all(map(_is_plain, values)),
            f"space {path}",
            values,
            "list finite numbers, words, true, false, null or lists of them",
        )
        return Distribution(kind, tuple(values))
    number = int if kind == "randint" else (int, float)
    values = [_number(value) for value in values]
    is_range = len(values) == 2 and all(isinstance(value, number) and not isinstance(value, bool) for value in values)
    check(
        is_range and all(math.isfinite(value) and abs(value) <= LARGEST for value in values),
        f"space {path}",
        values,
        f"be [low, high] of {'whole ' if kind == 'randint' else ''}numbers for {kind}",
        f"finite and up to {LARGEST:.0e}",
    )
    low, high = values
    check(low < high, f"space {path}", values, "be [low, high] with low < high", "give a single value on the command line")
    check(kind != "loguniform" or low > 0, f"space {path}", values, "start above 0 for loguniform")
    return Distribution(kind, (low, high) if kind == "randint" else (float(low), float(high)))


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, int | float):
        return math.isfinite(value)
    return value is None or isinstance(value, str)


def _number(value: object) -> object:
    """PyYAML reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
