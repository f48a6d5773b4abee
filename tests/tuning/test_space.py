"""Search spaces: what is refused, and that drawn settings are reproducible and make configs."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from otrw.errors import UserError
from otrw.tuning.space import (
    SPACES,
    check_values,
    grid_setting,
    grid_size,
    load_space,
    parse_space,
    sample_settings,
    settings_config,
    to_plain,
    without_effect,
)

BASE = ["--config", "digits_lt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"ot.epsilom": {"uniform": [0.1, 1]}},
            "space path must be a setting to search, got 'ot.epsilom'; did you mean ot.epsilon?",
        ),
        ({"ot": {"uniform": [0.1, 1]}}, "got 'ot'"),
        ({"run.seed": {"randint": [0, 9]}}, "got 'run.seed'"),
        ({"ot.epsilon": {"normal": [0, 1]}}, "space ot.epsilon must be one of uniform, loguniform, randint, choice, grid"),
        ({"ot.epsilon": 0.1}, "space ot.epsilon must be one of"),
        ({"ot.epsilon": {"choice": []}}, "space ot.epsilon must list values"),
        ({"ot.epsilon": {"choice": [0.1, 0.1]}}, "list each value once"),
        ({"ot.epsilon": {"uniform": [1, 0.1]}}, "space ot.epsilon must be [low, high] with low < high, got [1, 0.1]"),
        ({"ot.epsilon": {"uniform": [0.1, 0.1]}}, "low < high"),
        ({"ot.epsilon": {"uniform": [0.1]}}, "must be [low, high] of numbers for uniform"),
        ({"ot.epsilon": {"uniform": [0.1, "much"]}}, "must be [low, high] of numbers for uniform"),
        ({"ot.epsilon": {"uniform": [0.1, math.inf]}}, "must be [low, high] of numbers for uniform"),
        ({"ot.epsilon": {"loguniform": [0, 1]}}, "must start above 0 for loguniform"),
        ({"ot.num_steps": {"randint": [1.5, 3]}}, "must be [low, high] of whole numbers for randint"),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(content, message):
    with pytest.raises(UserError) as caught:
        parse_space(content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ot.epsilon": {"uniform": [-0.1, 1]}}, "space ot.epsilon: ot.epsilon must be > 0, got -0.1"),
        ({"ot.mixing": {"uniform": [0.5, 1.5]}}, "space ot.mixing: ot.mixing must be in [0, 1], got 1.5"),
        ({"ot.weights": {"choice": ["semi_relaxed", "magic"]}}, "'magic'"),
        ({"ot.num_steps": {"uniform": [1.5, 3.5]}}, "ot.num_steps must be a whole number"),
        ({"stage2.rounds": {"randint": [0, 3]}}, "stage2.rounds must be >= 1, got 0"),
    ],
)
def test_values_that_no_config_takes_are_refused(content, message):
    with pytest.raises(UserError) as caught:
        check_values(parse_space(content), BASE)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("ot_meta", []),
        ("class_balanced_meta", ["ot.mixing", "ot.epsilon", "ot.weights"]),
        ("ot_pooled_meta", ["ot.mixing", "ot.epsilon", "ot.weights"]),  # the variant sets the weights, of which the rest hangs
    ],
)
def test_settings_that_a_variant_does_not_look_at_are_found(variant, expected):
    assert without_effect(load_space("default"), [*BASE, f"--variants=[{variant}]"], variant) == expected


def test_a_setting_that_only_one_value_of_another_looks_at_has_an_effect():
    space = parse_space({"ot.num_steps": {"randint": [1, 9]}, "ot.weights": {"choice": ["semi_relaxed", "sgd"]}})
    assert without_effect(space, [*BASE, "--variants=[ot_meta]"], "ot_meta") == []
    alone = parse_space({"ot.num_steps": {"randint": [1, 9]}})
    assert without_effect(alone, [*BASE, "--variants=[ot_meta]", "--ot.weights=semi_relaxed"], "ot_meta") == ["ot.num_steps"]


@pytest.mark.parametrize("name", ["nowhere", "tests"])
def test_a_space_that_is_no_file(name):
    with pytest.raises(UserError, match="--space must name a file or one of default, mixing_epsilon"):
        load_space(name)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "3"])
def test_a_file_that_is_no_space(text, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"--space .* must"):
        load_space(str(path))


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        (path.stem, preset)
        for path in sorted(SPACES.glob("*.yaml"))
        for preset in ("digits_lt", "cifar10_lt", "official")
        if (path.stem, preset) != ("weight_step", "official")  # the weight net needs ot.scope=dataset
    ],
)
def test_every_space_fits_every_preset(name, preset):
    space = load_space(name)
    check_values(space, ["--config", preset])
    assert parse_space(yaml.safe_load(yaml.safe_dump(to_plain(space)))) == space


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("ot.tolerance: {loguniform: [1e-5, 1e-3]}\n")
    assert load_space(str(path))["ot.tolerance"].values == (1e-5, 1e-3)


@given(low=st.floats(1e-4, 1), factor=st.floats(1.01, 1e3), seed=st.integers(0, 2**31), number=st.integers(0, 1000))
def test_drawn_values_lie_in_their_range_and_depend_on_nothing_else(low, factor, seed, number):
    high = low * factor
    space = parse_space({"ot.epsilon": {"loguniform": [low, high]}, "ot.learning_rate": {"uniform": [low, high]}})
    settings = sample_settings(space, number, seed)
    assert settings == sample_settings(space, number, seed)
    assert all(low <= value <= high for value in settings.values())


def test_a_random_search_covers_its_ranges():
    space = parse_space({"ot.epsilon": {"loguniform": [0.01, 1]}, "stage2.rounds": {"randint": [1, 3]}})
    drawn = [sample_settings(space, number, 0) for number in range(400)]
    assert sum(settings["ot.epsilon"] < 0.1 for settings in drawn) == pytest.approx(200, abs=40)
    assert {settings["stage2.rounds"] for settings in drawn} == {1, 2, 3}


def test_a_grid_is_all_combinations_and_refuses_ranges():
    space = parse_space({"ot.mixing": {"grid": [0, 1]}, "ot.weights": {"choice": ["semi_relaxed", "sgd"]}})
    assert [grid_setting(space, number) for number in range(grid_size(space))] == [
        {"ot.mixing": mixing, "ot.weights": weights} for mixing in (0, 1) for weights in ("semi_relaxed", "sgd")
    ]
    with pytest.raises(UserError, match=r"space ot\.epsilon must be grid or choice with --algorithm grid, got 'uniform'"):
        grid_size(parse_space({"ot.epsilon": {"uniform": [0.1, 1]}}))


def test_settings_become_a_config():
    config = settings_config(
        BASE, {"ot.epsilon": 1e-05, "ot.weights": "sgd", "stage2.rounds": 3, "stage2.meta_batch_size": None}
    )
    assert (config.ot.epsilon, config.ot.weights, config.stage2.rounds) == (1e-5, "sgd", 3)
    assert config.stage2.meta_batch_size is None


def test_a_grid_of_millions_is_lazy_and_its_end_is_its_end():
    values = list(range(1, 301))
    space = parse_space({path: {"grid": values} for path in ("stage2.batch_size", "stage2.epochs", "ot.num_steps")})
    assert grid_size(space) == 27_000_000
    assert grid_setting(space, 26_999_999) == dict.fromkeys(space, 300)
    assert grid_setting(space, 1) == {"stage2.batch_size": 1, "stage2.epochs": 1, "ot.num_steps": 2}


BOMB = "a: &a [1, 1]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24))


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "[" * 100_000,
        "ot.epsilon: {uniform: [0.1, .nan]}",
        "ot.epsilon: {uniform: [0.1, .inf]}",
        "ot.epsilon: {grid: [0.1, .nan]}",
        "ot.epsilon: {choice: [.inf]}",
        f"stage2.epochs: {{randint: [1, {10**400}]}}",
        f"stage2.epochs: {{randint: [1, {10**30}]}}",
        "ot.epsilon: {uniform: [0.1, 1e308]}",
        f"stage2.epochs: {{grid: {list(range(1, 2000))}}}",
        "ot.epsilon: {uniform: [a, b]}",
        "\x00",
        "- 1",
        "1: 2",
    ],
)
def test_a_bad_space_is_one_line(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="space") as error:
        load_space(str(path))
    assert "\n" not in str(error.value)
