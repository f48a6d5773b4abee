"""Rows of a comparison: what each control switches off, and that nothing else changes."""

from dataclasses import replace
from typing import get_args

import pytest

from otrw.config import Variant
from otrw.config.command_line import parse_config
from otrw.config.variants import ITERATING, TITLES, variant_config

ROWS = get_args(Variant)
FULL = [
    "--config=digits_lt",
    "--ot.label_transport=0.5",
    "--stage2.rounds=3",
    "--stage2.refresh_every_epochs=2",
    "--stage2.meta_loss_factor=2.5",
]


@pytest.fixture(scope="module")
def config():
    return replace(parse_config(FULL), variants=ROWS)


def test_every_row_has_a_title_of_its_own():
    assert set(TITLES) == set(ROWS)
    assert len(set(TITLES.values())) == len(ROWS)


@pytest.mark.parametrize("variant", ROWS)
def test_applying_a_row_twice_changes_nothing(config, variant):
    once = variant_config(config, variant)
    assert once.variants == (variant,)
    assert variant_config(once, variant) == once


@pytest.mark.parametrize("variant", ROWS)
def test_a_row_leaves_data_net_stage_1_and_run_alone(config, variant):
    made = variant_config(config, variant)
    for section in ("data", "model", "stage1", "run"):
        assert getattr(made, section) == getattr(config, section)


def test_stage_1_alone_trains_no_stage_2(config):
    made = variant_config(config, "stage1")
    assert made.stage2.trainable == "none"
    assert made.ot == config.ot


@pytest.mark.parametrize("variant", [variant for variant in ROWS if variant != "stage1"])
def test_the_meta_images_are_in_the_loss_of_the_rows_that_say_so(config, variant):
    expected = 2.5 if variant.endswith("_meta") or variant == "meta_only" else 0
    assert variant_config(config, variant).stage2.meta_loss_factor == expected


@pytest.mark.parametrize(
    ("kind", "weights"),
    [("cross_entropy", "none"), ("class_balanced", "class_balanced"), ("oracle", "oracle"), ("ot", "semi_relaxed")],
)
def test_each_kind_of_row_has_its_weights(config, kind, weights):
    for variant in (kind, f"{kind}_meta"):
        assert variant_config(config, variant).ot.weights == weights


@pytest.mark.parametrize("variant", ["ot_noise_aware", "ot_noise_aware_meta"])
def test_noise_aware_rows_take_their_weights_from_any_setting(config, variant):
    released = {"weights": "sgd", "scope": "batch", "reference": "prototypes", "label_softening": 0.0, "label_transport": 0.0}
    for ot in (config.ot, replace(config.ot, **released)):
        made = variant_config(replace(config, ot=ot, variants=("ot",)), variant).ot
        assert (made.weights, made.scope, made.reference) == ("noise_aware", "dataset", "samples")


@pytest.mark.parametrize("weights", ["sgd", "network"])
def test_ot_rows_keep_the_way_of_learning_weights_that_is_configured(config, weights):
    changed = replace(config, ot=replace(config.ot, weights=weights))
    assert variant_config(changed, "ot_meta").ot.weights == weights
    assert variant_config(changed, "class_balanced_meta").ot.weights == "class_balanced"


@pytest.mark.parametrize("variant", ROWS[1:])
def test_only_the_row_of_transported_labels_transports_labels(config, variant):
    assert variant_config(config, variant).ot.label_transport == (0.5 if "_labels" in variant else 0)


@pytest.mark.parametrize("variant", ROWS[1:])
def test_what_looks_at_no_net_has_nothing_to_iterate(config, variant):
    stage2 = variant_config(config, variant).stage2
    expected = (3, 2) if variant.startswith(ITERATING) else (1, None)
    assert (stage2.rounds, stage2.refresh_every_epochs) == expected


def test_gold_correction_takes_its_matrix_from_stage_1_alone(config):
    """A later round's net is corrected already: what it says of labels is not how they are spoilt (arXiv 1802.05300)."""
    stage2 = variant_config(config, "gold_correction_meta").stage2
    assert (stage2.rounds, stage2.refresh_every_epochs) == (1, None)


def test_a_meta_row_and_its_partner_differ_in_the_meta_loss_alone(config):
    for kind in ("cross_entropy", "class_balanced", "oracle", "ot"):
        plain, with_meta = (variant_config(config, variant) for variant in (kind, f"{kind}_meta"))
        stage2 = replace(with_meta.stage2, meta_loss_factor=0.0)
        assert replace(with_meta, variants=plain.variants, stage2=stage2) == plain


def test_the_setting_itself_is_the_config_as_given(config):
    made = variant_config(config, "ot_labels_meta")
    assert replace(made, variants=config.variants) == config


@pytest.mark.parametrize(
    ("variant", "cost"), [("ot_noise_aware_meta", "prototypes"), ("ot_learned_meta", "probe"), ("ot_pooled_meta", "pool")]
)
def test_plans_differ_by_their_cost(config, variant, cost):
    for name in (variant, variant.replace("_meta", "_labels_meta")):
        assert (variant_config(config, name).ot.weights, variant_config(config, name).ot.plan_cost) == ("noise_aware", cost)
