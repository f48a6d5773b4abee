"""Which configs count as the same method."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otrw.config import Config, to_dict
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.records.fingerprint import USED_IF, decisive_settings, fingerprint, flatten, shared_settings


def test_a_method_is_what_decides_the_numbers_and_nothing_else():
    here = parse_config(["--config", "official", "--run.directory", "a", "--data.root", "b", "--stage1.checkpoint", "c"])
    there = parse_config(["--config", "official", "--run.precision", "bf16", "--run.seed", "3"])
    assert here.run.preset == there.run.preset == "official"
    assert decisive_settings(to_dict(here)) == decisive_settings(to_dict(there))
    assert fingerprint(to_dict(here)) == fingerprint(to_dict(there))
    assert fingerprint(to_dict(here), with_seed=True) != fingerprint(to_dict(there), with_seed=True)
    other = parse_config(["--config", "official", "--stage1.epochs", "24"])
    assert decisive_settings(to_dict(other)) == decisive_settings(to_dict(here)) | {"stage1.epochs": 24}


def test_records_from_before_a_setting_existed_have_the_same_method():
    config = to_dict(parse_config([]))
    before = {**config, "ot": {key: value for key, value in config["ot"].items() if key != "solver"}}
    assert fingerprint(before) == fingerprint(config)


def test_the_seed_of_the_split_follows_the_seed_of_the_run():
    one = to_dict(parse_config(["--run.seed", "1"]))
    same = to_dict(parse_config(["--run.seed", "1", "--data.seed", "1"]))
    other = to_dict(parse_config(["--run.seed", "1", "--data.seed", "2"]))
    assert fingerprint(one, with_seed=True) == fingerprint(same, with_seed=True) != fingerprint(other, with_seed=True)
    assert fingerprint(one) != fingerprint(other)


def test_one_split_for_all_seeds_is_another_experiment_than_a_split_for_each():
    own, fixed = (
        [to_dict(parse_config(["--run.seed", seed, *more])) for seed in ("0", "1")] for more in ([], ["--data.seed", "0"])
    )
    assert fingerprint(own[0]) == fingerprint(own[1])
    assert fingerprint(fixed[0]) == fingerprint(fixed[1]) != fingerprint(own[0])
    assert decisive_settings(fixed[1])["data.seed"] == 0
    assert fingerprint(own[0], with_seed=True) == fingerprint(fixed[0], with_seed=True)  # the same numbers
    assert fingerprint(own[1], with_seed=True) != fingerprint(fixed[1], with_seed=True)


def test_settings_that_a_row_does_not_use_do_not_count():
    default, other = parse_config([]), parse_config(["--ot.epsilon", "0.7"])
    hashes = [
        {variant: fingerprint(to_dict(variant_config(c, variant))) for variant in ("stage1", "class_balanced", "ot")}
        for c in (default, other)
    ]
    assert hashes[0]["stage1"] == hashes[1]["stage1"]
    assert hashes[0]["class_balanced"] == hashes[1]["class_balanced"]
    assert hashes[0]["ot"] != hashes[1]["ot"]
    assert len(set(hashes[0].values())) == 3


def test_the_closed_form_does_not_depend_on_settings_of_iterations():
    default, other = (
        to_dict(variant_config(parse_config(["--ot.learning_rate", rate]), "ot_meta")) for rate in ("0.03", "1.0")
    )
    assert fingerprint(default) == fingerprint(other)
    for config in (default, other):
        config["ot"] |= {"weights": "sgd"}
    assert fingerprint(default) != fingerprint(other)


def of(variant, **values):
    """A variant's config as a nested dict, with values by dotted path (dots as two underscores)."""
    base = ["--config", "official"] if "official" in values else ["--data.label_noise", "symmetric"]
    config = to_dict(variant_config(parse_config(base), variant))
    for name, value in values.items():
        if name != "official":
            *sections, key = name.split("__")
            section = config
            for one in sections:
                section = section[one]
            section[key] = value
    return config


@pytest.mark.parametrize(
    ("variant", "changed", "given"),
    [
        ("ot", {"stage2__meta_batch_size": 7}, {}),
        ("ot", {"stage2__meta_forward": "separate"}, {}),
        ("ot", {"ot__predictions": "out_of_fold"}, {"ot__label_softening": 0.0}),
        ("class_balanced", {"ot__confidence_power": 1.0, "ot__weight_power": 7.0}, {}),
        ("ot", {"ot__transition_prior": 7.0, "ot__num_plan_rounds": 7, "ot__smoothing_samples": 7.0}, {}),
        ("ot_noise_aware_meta", {"ot__epsilon": 7.0, "ot__mixing": 0.3, "ot__label_softening": 0.3}, {}),
        ("ot_noise_aware_meta", {"ot__label_cost": "mean_squared", "ot__solver": "pot", "ot__prototype": "mean_image"}, {}),
        ("ot", {"ot__hidden_size": 7}, {"ot__weights": "sgd"}),
        ("ot", {"ot__num_steps": 7}, {"ot__weights": "sgd", "ot__scope": "batch"}),
        ("ot", {"ot__prototype": "mean_image"}, {}),
        ("ot", {"ot__label_cost": "mean_squared"}, {"ot__mixing": 1.0}),
        ("ot", {"stage2__optimizer__milestones": [0.1]}, {}),
        ("ot", {"stage1__optimizer__decay_factor": 0.5}, {}),
        ("ot", {"stage1__loss__ldam_scale": 7.0}, {}),
        ("ot", {"stage2__loss__logit_adjustment": 7.0}, {}),
        ("ot", {"ot__strategy": "gathered"}, {}),
        ("stage1", {"stage2__epochs": 7}, {}),
        ("stage1", {"ot__epsilon": 7.0}, {}),
        ("class_balanced", {"ot__scope": "batch"}, {}),
        ("class_balanced", {"stage2__embeddings": "forward"}, {}),
        ("ot", {"data__label_noise_rate": 0.3}, {"data__label_noise": "none"}),
    ],
)
def test_what_a_variant_does_not_use_does_not_split_it(variant, changed, given):
    assert fingerprint(of(variant, **given)) == fingerprint(of(variant, **given, **changed))


@pytest.mark.parametrize(
    ("variant", "changed", "given"),
    [
        ("ot_meta", {"stage2__meta_batch_size": 7}, {}),
        ("ot", {"ot__hidden_size": 7}, {"ot__weights": "network"}),
        ("ot", {"ot__num_steps": 7}, {"ot__weights": "sgd"}),
        ("ot", {"stage2__optimizer__milestones": [0.1]}, {"stage2__optimizer__schedule": "step"}),
        ("ot", {"stage1__loss__ldam_scale": 7.0}, {"stage1__loss__name": "ldam"}),
        ("stage1", {"ot__class_balanced_beta": 0.9}, {"stage1__class_balanced_from_epoch": 3}),
        ("ot", {"stage2__embeddings": "forward"}, {"ot__reference": "prototypes", "ot__prototype": "mean_image"}),
        ("ot", {"ot__label_softening": 0.25}, {}),
        ("ot_noise_aware", {"ot__transition_prior": 7.0}, {}),
        ("ot", {"ot__weight_power": 0.5}, {}),
        ("ot", {"ot__confidence_power": 0.5}, {}),
        ("ot", {"ot__predictions": "out_of_fold"}, {"ot__confidence_power": 1.0}),
        ("ot_noise_aware", {"ot__plan_cost": "probe"}, {}),
        ("ot_noise_aware", {"ot__num_plan_rounds": 7}, {}),
        ("ot_noise_aware", {"ot__prototype_cap": 7.0}, {}),
        ("ot_noise_aware", {"ot__smoothing_samples": 7.0}, {}),
        ("ot_noise_aware_labels_meta", {"ot__label_transport": 0.7}, {}),
        ("ot_noise_aware", {"stage2__refresh_every_epochs": 7}, {}),
    ],
)
def test_what_a_variant_uses_does(variant, changed, given):
    assert fingerprint(of(variant, **given)) != fingerprint(of(variant, **given, **changed))


@pytest.mark.parametrize("solver", ["newton", "newton_cg", "sinkhorn"])
def test_ways_to_one_plan_count_as_one_and_memory_not_at_all(solver):
    for other in ({}, {"ot__weights": "sgd"}, {"ot__weights": "network"}):
        assert fingerprint(of("ot", ot__solver=solver, ot__memory_mebibytes=7, **other)) == fingerprint(of("ot", **other))
        assert fingerprint(of("ot", ot__solver="pot", **other)) != fingerprint(of("ot", **other))
    by_potential = {"ot__weights": "sgd", "ot__stopping": "potential"}
    assert fingerprint(of("ot", ot__solver="sinkhorn", **by_potential)) == fingerprint(of("ot", **by_potential))


def test_every_condition_names_a_setting_that_there_is():
    assert set(USED_IF) <= set(flatten(to_dict(Config())))


def _retyped(value, whole):
    if isinstance(value, dict):
        return {key: _retyped(one, whole) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_retyped(one, whole) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return whole(value)


@given(st.sampled_from(["digits_lt", "official", "cifar100_lt"]), st.sampled_from(["stage1", "ot", "class_balanced_meta"]))
def test_ten_is_ten_however_it_is_written(preset, variant):
    config = to_dict(variant_config(parse_config(["--config", preset]), variant))
    as_floats = _retyped(copy.deepcopy(config), float)
    as_integers = _retyped(copy.deepcopy(config), lambda value: int(value) if value == int(value) else value)
    assert fingerprint(as_floats) == fingerprint(as_integers) == fingerprint(config)
    assert fingerprint(as_floats, with_seed=True) == fingerprint(as_integers, with_seed=True)


def test_precision_counts_and_float32_is_what_old_records_mean():
    config = of("ot")
    assert fingerprint(config) == fingerprint(config, precision="no") != fingerprint(config, precision="bf16")
    assert decisive_settings(config, precision="bf16")["precision"] == "bf16"


def test_an_ot_variant_and_its_control_share_all_but_their_weighting():
    left, right = of("ot_meta"), of("class_balanced_meta")
    assert shared_settings(left) == shared_settings(right)
    assert shared_settings(left) != shared_settings(of("class_balanced"))  # no meta images
    assert shared_settings(left) != shared_settings(of("class_balanced_meta", stage1__epochs=7))
    assert shared_settings(left) != shared_settings(of("class_balanced_meta", run__seed=7))
    assert shared_settings(left) != shared_settings(right, precision="bf16")
