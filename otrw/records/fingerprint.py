"""What a variant's numbers depend on, apart from where it ran: tables group records by it, finished work is found by it."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping

from otrw.config import Config, flatten, to_dict

WHERE = (
    "run.",
    "data.root",
    "data.layout",
    "data.download",
    "data.cache",
    "data.workers",
    "stage1.checkpoint",
    "ot.strategy",
    "ot.memory_mebibytes",
)
"""Where and how fast it runs. The strategy of a solve spreads the same sums over processes, as their number does."""
OWN_SOLVERS = ("auto", "newton", "newton_cg", "sinkhorn")
"""Ways to one plan, within the tolerance: they count as one, and so do records from before there was a choice."""
FLOAT32 = "no"
"""What accelerate calls no autocast; records of it do not mention precision."""
OWN_WEIGHTING = ("variants", "ot.", "stage2.rounds", "stage2.refresh_every_epochs")
"""Settings in which an OT variant and its control may differ, and still be variants of one experiment."""

LOOKS_AGAIN = ("trusted_probe", "small_loss", "out_of_fold", "cleanlab")
"""Weights without transport that are taken anew from fresh embeddings."""

_Value = Callable[[str], object]


def _transports(value: _Value) -> bool:
    return not _is_stage1(value) and value("ot.weights") in ("semi_relaxed", "sgd", "network", "noise_aware")


def _is_noise_aware(value: _Value) -> bool:
    return _transports(value) and value("ot.weights") == "noise_aware"


def _has_atoms(value: _Value) -> bool:
    """Transport from reference atoms, at a cost that epsilon and mixing shape."""
    return _transports(value) and not _is_noise_aware(value)


def _is_stage1(value: _Value) -> bool:
    return value("variants") == ["stage1"]


def _weights(value: _Value) -> object:
    return None if _is_stage1(value) else value("ot.weights")


def _iterates(value: _Value) -> bool:
    return _transports(value) and value("ot.weights") in ("sgd", "network")


def _is_sgd(value: _Value) -> bool:
    return _transports(value) and value("ot.weights") == "sgd"


def _unrolls(value: _Value) -> bool:
    return _is_sgd(value) and value("ot.gradient") == "unrolled"


def _uses_solver(value: _Value) -> bool:
    """Whether the choice of a solver is looked at: not by unrolled steps, nor by the closed form of a batch."""
    in_batch = value("ot.scope") == "batch" and value("ot.weights") == "semi_relaxed"
    return _has_atoms(value) and not _unrolls(value) and not in_batch


def _uses_label_cost(value: _Value) -> bool:
    return _has_atoms(value) and value("ot.mixing") != 1


def _uses_predictions(value: _Value) -> bool:
    softens = _uses_label_cost(value) and value("ot.label_softening") != 0
    return softens or (_transports(value) and value("ot.confidence_power") != 0)


def _uses_beta(value: _Value) -> bool:
    """The control, the oracle and the start of sgd; and a stage 1 with deferred re-weighting, which every variant has."""
    own = _weights(value) in ("class_balanced", "oracle", "sgd", *LOOKS_AGAIN)
    return own or value("stage1.class_balanced_from_epoch") is not None


def _uses_embeddings(value: _Value) -> bool:
    """Training of the head alone; and the mean images of prototypes, which are embedded in train mode with "forward"."""
    mean_images = value("ot.reference") == "prototypes" and value("ot.prototype") == "mean_image"
    return value("stage2.trainable") == "classifier" or (_has_atoms(value) and mean_images)


def _of_stage(stage: str) -> dict[str, Callable[[_Value], bool]]:
    """Settings of loss and optimiser, which both stages have."""

    def if_equal(path: str, wanted: str) -> Callable[[_Value], bool]:
        return lambda value: value(f"{stage}.{path}") == wanted

    def if_not_zero(path: str) -> Callable[[_Value], bool]:
        return lambda value: value(f"{stage}.{path}") != 0

    used_if = {
        "loss.logit_adjustment": if_equal("loss.name", "logit_adjusted"),
        "loss.ldam_max_margin": if_equal("loss.name", "ldam"),
        "loss.ldam_scale": if_equal("loss.name", "ldam"),
        "loss.early_learning_factor": if_equal("loss.name", "early_learning"),
        "loss.early_learning_momentum": if_equal("loss.name", "early_learning"),
        "optimizer.nesterov": lambda value: (
            value(f"{stage}.optimizer.momentum") != 0 and value(f"{stage}.optimizer.name") == "sgd"
        ),
        "optimizer.beta2": if_equal("optimizer.name", "adamw"),
        "optimizer.weight_decay_on": if_not_zero("optimizer.weight_decay"),
        "optimizer.milestones": if_equal("optimizer.schedule", "step"),
        "optimizer.decay_factor": if_equal("optimizer.schedule", "step"),
    }
    return {f"{stage}.{path}": condition for path, condition in used_if.items()}


USED_IF: dict[str, Callable[[_Value], bool]] = {
    "data.num_meta_used_per_class": lambda value: not _is_stage1(value),
    "data.num_classes_without_meta": lambda value: not _is_stage1(value),
    "data.meta_label_noise_rate": lambda value: not _is_stage1(value),
    "data.label_noise_rate": lambda value: value("data.label_noise") != "none",
    "data.augment.padding_mode": lambda value: value("data.augment.crop_padding") != 0,
    "data.augment.num_operations": lambda value: value("data.augment.policy") == "randaugment",
    "data.augment.magnitude": lambda value: value("data.augment.policy") == "randaugment",
    "ot.weights": lambda value: not _is_stage1(value),
    "ot.scope": _has_atoms,
    "ot.solver": _uses_solver,
    "ot.epsilon": _has_atoms,
    "ot.mixing": _has_atoms,
    "ot.label_cost": _uses_label_cost,
    "ot.label_softening": _uses_label_cost,
    "ot.weight_power": _transports,
    "ot.confidence_power": _transports,
    "ot.predictions": _uses_predictions,
    "ot.reference": _has_atoms,
    "ot.prototype": lambda value: _has_atoms(value) and value("ot.reference") == "prototypes",
    "ot.label_transport": lambda value: _transports(value) or _weights(value) == "trusted_probe",
    "ot.dropped_share": lambda value: _weights(value) == "small_loss",
    "ot.plan_cost": _is_noise_aware,
    "ot.num_plan_rounds": _is_noise_aware,
    "ot.transition_prior": _is_noise_aware,
    "ot.prototype_cap": _is_noise_aware,
    "ot.smoothing_samples": _is_noise_aware,
    "ot.max_iterations": _iterates,
    "ot.tolerance": _iterates,
    "ot.stopping": lambda value: _iterates(value) and (_unrolls(value) or value("ot.solver") != "pot"),
    "ot.gradient": _is_sgd,
    "ot.parametrization": _is_sgd,
    "ot.num_steps": lambda value: _iterates(value) and value("ot.scope") == "dataset",
    "ot.learning_rate": _iterates,
    "ot.weight_decay": _is_sgd,
    "ot.hidden_size": lambda value: _transports(value) and value("ot.weights") == "network",
    "ot.class_balanced_beta": _uses_beta,
    "stage2.embeddings": _uses_embeddings,
    # a batch's reference is taken anew every epoch wherever the net moves
    "stage2.refresh_every_epochs": lambda value: (
        (_transports(value) and value("ot.scope") == "dataset") or _weights(value) in LOOKS_AGAIN
    ),
    "stage2.meta_batch_size": lambda value: value("stage2.meta_loss_factor") != 0,
    "stage2.meta_forward": lambda value: value("stage2.meta_loss_factor") != 0,
    **_of_stage("stage1"),
    **_of_stage("stage2"),
}
"""When a variant uses a setting; those that are not named here are always used, but stage2.* only after a stage 1.
Stage 1 counts for every variant, also where a control trains a new net: the record is one of an experiment with that stage 1.
"""


def decisive_settings(config: Mapping, *, precision: str | None = None, with_seed: bool = False) -> dict[str, object]:
    """The settings that decide a variant's numbers and differ from the defaults, as dotted path -> value.

    Where and how fast it runs is left out (files, folders, devices, logging), and so are settings that the variant does not
    use (`USED_IF`; in a config of several variants all are used). Since defaults are left out, records of older versions,
    written before a setting existed, compare with newer ones. Numbers are compared as numbers: 10 is 10.0.

    Two seeds make a run: run.seed, and data.seed for its split, which follows run.seed where it is null. Without seeds, a
    data.seed that is set stands among the settings: one split for all seeds is another experiment than a split for each.
    With seeds, both stand there as numbers, however they came to be.

    Args:
        config: nested dict, as in a variant's config.yaml.
        precision: autocast that the net was trained with, as environment.json says it: "no" (float32), "bf16" or "fp16";
            None where it is not known, which counts as float32.
        with_seed: whether the seeds count too.
    """
    settings = {path: _canonical(path, value) for path, value in flatten(config).items() if not path.startswith(WHERE)}
    split_seed = settings.pop("data.seed", None)
    if with_seed:
        seed = _canonical("run.seed", (config.get("run") or {}).get("seed", 0))
        settings |= {"run.seed": seed, "data.seed": seed if split_seed is None else split_seed}
    elif split_seed is not None:
        settings["data.seed"] = split_seed
    if precision not in (None, FLOAT32):
        settings["precision"] = precision
    return {
        path: value
        for path, value in sorted(settings.items())
        if (path not in _DEFAULTS or _DEFAULTS[path] != value) and _is_used(path, settings)
    }


def fingerprint(config: Mapping, *, precision: str | None = None, with_seed: bool = False) -> str:
    """12 hex digits that two configs share if and only if their `decisive_settings` are equal. Arguments as there."""
    text = json.dumps(decisive_settings(config, precision=precision, with_seed=with_seed), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shared_settings(config: Mapping, *, precision: str | None = None) -> dict[str, object]:
    """The decisive settings and seeds without the variant's own weighting: equal for an OT variant and its control."""
    control = {**config, "variants": ["class_balanced"], "ot": {**(config.get("ot") or {}), "weights": "none"}}
    settings = decisive_settings(control, precision=precision, with_seed=True)
    beta = settings.get("ot.class_balanced_beta")  # of a stage 1 with deferred re-weighting
    shared = {path: value for path, value in settings.items() if not path.startswith(OWN_WEIGHTING)}
    return shared if beta is None else shared | {"ot.class_balanced_beta": beta}


def _is_used(path: str, settings: Mapping[str, object]) -> bool:
    def value(other: str) -> object:
        return settings.get(other, _DEFAULTS.get(other))

    variants = settings.get("variants", _DEFAULTS["variants"])
    if not isinstance(variants, list) or len(variants) != 1:
        return True
    if path.startswith("stage2.") and _is_stage1(value):
        return False
    return path not in USED_IF or USED_IF[path](value)


def _canonical(path: str, value: object) -> object:
    """One form for equal values: whole floats as integers, lists element by element, numbers that YAML read as text."""
    if path == "ot.solver" and value in OWN_SOLVERS:
        return OWN_SOLVERS[0]
    if isinstance(value, list | tuple):
        return [_canonical(path, one) for one in value]
    if isinstance(value, str) and path in _NUMBERS:
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


_FLAT_DEFAULTS = flatten(to_dict(Config()))
_NUMBERS = {p for p, v in _FLAT_DEFAULTS.items() if isinstance(v, int | float) and not isinstance(v, bool)}
_DEFAULTS = {path: _canonical(path, value) for path, value in _FLAT_DEFAULTS.items()}
_DEFAULTS |= {"run.seed": None, "data.seed": None}
