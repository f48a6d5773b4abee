"""What a variant's numbers depend on, apart from where it ran: tables group records by it, finished work is found by it."""

import hashlib
import json
from collections.abc import Mapping

from otrw.config import Config, flatten, to_dict

WHERE = ("run.", "data.root", "data.layout", "data.download", "data.cache", "stage1.checkpoint")
WITHOUT_TRANSPORT = ("none", "class_balanced", "oracle")
OF_ITERATIONS = tuple(
    f"ot.{name}"
    for name in (
        "max_iterations",
        "tolerance",
        "stopping",
        "gradient",
        "parametrization",
        "num_steps",
        "learning_rate",
        "weight_decay",
        "hidden_size",
        "class_balanced_beta",
    )
)
"""Settings that the closed form of semi_relaxed weights has no use for."""


def decisive_settings(config: Mapping, *, with_seed: bool = False) -> dict[str, object]:
    """The settings that decide a variant's numbers and differ from the defaults, as dotted path -> value.

    config: nested dict, as in a variant's config.yaml. Where and how fast it runs is left out (files, folders, devices,
    logging), and so are settings that the variant does not use, and the seeds unless asked for. Since defaults are left out,
    records of older versions, written before a setting existed, compare with newer ones.
    """
    settings = {path: value for path, value in flatten(config).items() if not path.startswith(WHERE)}
    split_seed = settings.pop("data.seed", None)
    if with_seed:
        seed = (config.get("run") or {}).get("seed", 0)
        settings |= {"run.seed": seed, "data.seed": seed if split_seed is None else split_seed}
    defaults = flatten(to_dict(Config())) | {"run.seed": None, "data.seed": None}
    used = _used_sections(settings)
    unused = OF_ITERATIONS if settings.get("ot.weights", defaults["ot.weights"]) == "semi_relaxed" else ()
    return {
        path: value
        for path, value in sorted(settings.items())
        if (path not in defaults or defaults[path] != value) and path.startswith(used) and path not in unused
    }


def fingerprint(config: Mapping, *, with_seed: bool = False) -> str:
    """12 hex digits that two configs share if and only if their `method` is equal."""
    text = json.dumps(decisive_settings(config, with_seed=with_seed), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _used_sections(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Beginnings of the paths that the variant makes use of."""
    if settings.get("variants") == ["stage1"]:
        return ("data.", "model.", "stage1.", "variants", "run.")
    if settings.get("ot.weights") in WITHOUT_TRANSPORT:
        return ("data.", "model.", "stage1.", "stage2.", "variants", "run.", "ot.weights", "ot.class_balanced_beta")
    return ("",)
