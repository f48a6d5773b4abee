"""The config tree: documented, reloadable, and strict with messages that name the dotted path and the value."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from otrw.config import Config, DataConfig, OTConfig, RunConfig, Stage2Config, to_dict
from otrw.config.command_line import PRESETS, parse_config
from otrw.errors import UserError
from otrw.records import ledger

ROOT = Path(__file__).resolve().parents[2]
PRESET_NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def dataclass_nodes():
    modules = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "otrw" / "config").glob("*.py"))]
    return [
        node
        for module in modules
        for node in module.body
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)
    ]


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def error_of(arguments):
    with pytest.raises(UserError) as error:
        parse_config(arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("node", dataclass_nodes(), ids=lambda node: node.name)
def test_every_field_has_a_docstring_under_it(node):
    assert ast.get_docstring(node)
    missing = [
        statement.target.id
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True)
        if isinstance(statement, ast.AnnAssign) and not is_docstring(following)
    ]
    assert missing == []


@pytest.mark.parametrize("node", dataclass_nodes(), ids=lambda node: node.name)
def test_every_class_is_frozen_and_takes_keywords_alone(node):
    (decorator,) = node.decorator_list
    assert ast.unparse(decorator) == "dataclass(frozen=True, kw_only=True)"


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.seed = 1


def test_defaults_are_valid_and_the_command_line_alone_gives_the_digits_preset():
    assert Config().data.source == "digits"
    assert parse_config([]) == parse_config(["--config", "digits_lt"])


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_parses_by_name_and_by_file(name):
    config = parse_config(["--config", name])
    assert config == parse_config([f"--config={PRESETS / name}.yaml"])
    assert config.variants[0] == "stage1"


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_recorded_config_is_read_back_equal(name, tmp_path):
    config = parse_config(["--config", name, "--run.seed", "3", "--run.name", "x"])
    ledger.write_yaml(tmp_path / "config.yaml", to_dict(config))
    assert parse_config(["--config", str(tmp_path / "config.yaml")]) == config


@pytest.mark.parametrize("name", ["12", "1e5", "3e10", "1_000", "0x1f", "true", "on", "2024-01-01", "12:30:00"])
def test_a_name_that_looks_like_something_else_stays_a_name(name, tmp_path):
    config = parse_config([f"--run.name={name}"])
    assert config.run.name == name
    ledger.write_yaml(tmp_path / "config.yaml", to_dict(config))
    assert parse_config(["--config", str(tmp_path / "config.yaml")]) == config


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_printed_config_is_read_back_equal(name, tmp_path, capsys):
    overrides = ["--config", name, "--ot.epsilon", "0.07", "--run.name", "x", "--stage1.optimizer.milestones", "[0.5]"]
    with pytest.raises(SystemExit) as leaving:
        parse_config([*overrides, "--print_config"])
    assert leaving.value.code in (0, None)
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    read, meant = parse_config(["--config", str(path)]), parse_config(overrides)
    assert meant.run.preset == name  # known from the command line alone
    assert dataclasses.replace(read, run=dataclasses.replace(read.run, preset=name)) == meant


def test_overrides_change_what_they_name_and_nothing_else():
    plain = parse_config([])
    changed = parse_config(["--ot.epsilon", "0.3", "--data.augment.crop_padding=2", "--variants", "[stage1, ot]"])
    assert (changed.ot.epsilon, changed.data.augment.crop_padding, changed.variants) == (0.3, 2, ("stage1", "ot"))
    restored = dataclasses.replace(changed, ot=plain.ot, data=plain.data, variants=plain.variants)
    assert restored == plain
    assert dataclasses.replace(changed.ot, epsilon=plain.ot.epsilon) == plain.ot


def test_the_command_line_wins_over_the_file_and_a_later_file_over_an_earlier_one(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("ot: {epsilon: 0.2, mixing: 0.1}\n")
    second.write_text("ot: {epsilon: 0.4}\n")
    config = parse_config(["--config", str(first), "--config", str(second), "--run.seed", "5"])
    assert (config.ot.epsilon, config.ot.mixing, config.run.seed) == (0.4, 0.1, 5)
    config = parse_config(["--config", str(first), "--ot.epsilon", "0.9"])
    assert config.ot.epsilon == 0.9


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001"])
def test_numbers_with_an_exponent_are_floats(text, tmp_path):
    assert parse_config(["--stage1.optimizer.learning_rate", text]).stage1.optimizer.learning_rate == 0.001
    path = tmp_path / "config.yaml"
    path.write_text(f"stage2:\n  optimizer: {{learning_rate: {text}}}\n")
    assert parse_config(["--config", str(path)]).stage2.optimizer.learning_rate == 0.001


def test_null_takes_an_option_back():
    config = parse_config(["--data.seed", "4", "--data.seed", "null", "--run.name", "null"])
    assert config.data.seed is None
    assert config.run.name is None


@pytest.mark.parametrize("key", ["ot.nokey", "nokey", "stage1.optimizer.lr", "data.augment.rotate"])
def test_an_unknown_key_is_refused_by_name_on_the_command_line_and_in_a_file(key, tmp_path):
    assert key.rsplit(".", 1)[-1] in error_of([f"--{key}", "1"])
    *sections, name = key.split(".")
    text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    path = tmp_path / "config.yaml"
    path.write_text(f"{text}{'  ' * len(sections)}{name}: 1\n")
    assert name in error_of(["--config", str(path)])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ot.epsilon", "0"),
        ("ot.epsilon", "-0.1"),
        ("ot.epsilon", "abc"),
        ("ot.mixing", "1.5"),
        ("ot.label_softening", "-0.2"),
        ("ot.label_transport", "2.0"),
        ("ot.max_iterations", "0"),
        ("ot.tolerance", "0.0"),
        ("ot.num_steps", "0"),
        ("ot.learning_rate", "0.0"),
        ("ot.weight_decay", "-1.0"),
        ("ot.hidden_size", "0"),
        ("ot.class_balanced_beta", "1.0"),
        ("ot.weights", "magic"),
        ("data.imbalance_factor", "0.5"),
        ("data.source", "imagenet"),
        ("data.num_meta_per_class", "0"),
        ("data.num_validation_per_class", "-1"),
        ("data.label_noise_rate", "1.0"),
        ("data.label_noise", "none"),
        ("data.labels", "coarse"),
        ("data.few_below", "5000"),
        ("data.seed", "x"),
        ("data.augment.crop_padding", "-1"),
        ("data.augment.cutout_size", "-2"),
        ("data.augment.padding_mode", "wrap"),
        ("model.name", "vgg"),
        ("model.width_multiplier", "0.0"),
        ("stage1.epochs", "0"),
        ("stage1.epochs", "1.5"),
        ("stage1.batch_size", "0"),
        ("stage1.mixup_alpha", "-0.1"),
        ("stage1.optimizer.learning_rate", "0.0"),
        ("stage1.optimizer.momentum", "1.0"),
        ("stage1.optimizer.schedule", "linear"),
        ("stage1.optimizer.milestones", "abc"),
        ("stage2.optimizer.weight_decay", "-1.0"),
        ("stage2.optimizer.warmup_epochs", "-1.0"),
        ("stage1.loss.ldam_scale", "0.0"),
        ("stage2.loss.ldam_max_margin", "0.0"),
        ("stage2.epochs", "0"),
        ("stage2.batch_size", "0"),
        ("stage2.rounds", "0"),
        ("stage2.refresh_every_epochs", "0"),
        ("stage2.meta_loss_factor", "-1.0"),
        ("stage2.meta_batch_size", "0"),
        ("stage2.mixup_alpha", "-1.0"),
        ("run.seed", "-1"),
        ("run.evaluate_every_epochs", "0"),
        ("run.checkpoint_every_epochs", "0"),
        ("run.keep_checkpoints", "0"),
        ("run.timeout_seconds", "0.0"),
        ("run.precision", "fp8"),
        ("run.compile", "perhaps"),
        ("variants", "[]"),
        ("variants", "[ot_meta, magic]"),
        ("variants", "ot_mata"),
    ],
)
def test_a_bad_value_gives_one_line_with_its_path_and_the_value(path, value):
    message = error_of([f"--{path}={value}"])
    assert re.search(rf"(^|[ =]){re.escape(path)}\b", message), message
    assert value in message or repr(value) in message or value.strip("[]").split(", ")[-1] in message, message


def test_a_value_that_is_not_a_number_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("ot: {epsilon: .nan}\n")
    assert error_of(["--config", str(path)]).endswith("ot.epsilon must be a finite number, got nan")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--variants", "[ot, ot]"], "variants must name each variant once, got ['ot', 'ot']"),
        (
            ["--variants", "[ot]", "--ot.weights", "class_balanced"],
            "ot.weights must be semi_relaxed, sgd, network or noise_aware for variant ot",
        ),
        (
            ["--variants", "[ot_meta]", "--stage2.meta_loss_factor", "0"],
            "stage2.meta_loss_factor must be > 0 for variant ot_meta",
        ),
        (
            ["--variants", "[ot_labels_meta]", "--ot.label_transport", "0"],
            "ot.label_transport must be > 0 for variant ot_labels_meta",
        ),
        (["--config", "cifar10_lt", "--variants", "[oracle]"], "variants must come with data.label_noise, data.labels_file"),
        (["--variants", "[ot]", "--stage2.trainable", "none"], "variants must be stage1 with stage2.trainable=none, got 'ot'"),
        (["--ot.scope", "batch", "--ot.label_transport", "0.5"], "ot.label_transport must be 0 with ot.scope=batch, got 0.5"),
        (
            ["--config", "cifar10_lt", "--ot.scope", "batch", "--ot.label_softening", "0.5"],
            "ot.label_softening must be 0 with ot.scope=batch, got 0.5",
        ),
        (
            ["--config", "cifar10_lt", "--ot.scope", "batch", "--ot.weights", "network"],
            "ot.weights must not be 'network' with ot.scope=batch",
        ),
        (
            ["--config", "cifar10_lt", "--stage2.refresh_every_epochs", "2"],
            "stage2.refresh_every_epochs must be null with stage2.trainable=classifier, got 2",
        ),
        (
            ["--config", "cifar10_lt", "--ot.scope", "batch", "--stage2.apply_weights", "sampling"],
            "stage2.apply_weights must be 'loss' with ot.scope=batch, got 'sampling'",
        ),
        (["--config", "cifar10_lt", "--model.name", "small"], "model.name must be a resnet for cifar10, got 'small'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(arguments, expected):
    assert error_of(arguments).startswith(expected)


@pytest.mark.parametrize("arguments", [["--config", "nope"], ["--config=nope"], ["--config", "nope", "--print_config"]])
def test_an_unknown_preset_is_refused_with_the_known_ones(arguments):
    message = error_of(arguments)
    assert "got 'nope'" in message
    for name in PRESET_NAMES:
        assert name in message


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"ot: [1\n", "broken"), (b"- 1\n- 2\n", "list"), (b"", "empty"), (b"\x89PNG\xff", "binary")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_config_is_a_user_error_that_names_it(content, name, tmp_path):
    path = tmp_path / f"{name}.yaml"
    path.write_bytes(content)
    assert f"{name}.yaml" in error_of(["--config", str(path)])


@pytest.mark.parametrize("arguments", [["--ot.epsilon"], ["stray"], ["--ot", "3"]])
def test_a_command_line_that_cannot_be_read_is_a_user_error(arguments):
    assert arguments[0].removeprefix("--") in error_of(arguments)


def test_resume_reads_everything_from_the_folder(tmp_path):
    stored = parse_config(["--ot.epsilon", "0.31", "--run.seed", "9"])
    ledger.write_yaml(tmp_path / "config.yaml", to_dict(stored))
    config = parse_config(["--run.resume", str(tmp_path)])
    assert config == dataclasses.replace(stored, run=dataclasses.replace(stored.run, resume=str(tmp_path)))


def test_resume_of_a_folder_without_a_run_is_refused(tmp_path):
    message = error_of(["--run.resume", str(tmp_path)])
    assert message == f"run.resume must be a run's folder, got {str(tmp_path)!r}, which has no config.yaml"


def test_data_seed_is_the_seed_of_the_run_unless_it_has_one():
    assert Config(run=RunConfig(seed=7)).data_seed == 7
    assert Config(run=RunConfig(seed=7), data=DataConfig(seed=0)).data_seed == 0


def test_python_callers_get_the_same_checks():
    with pytest.raises(UserError, match=r"^ot\.epsilon must be > 0, got 0; try 0\.05 to 0\.5$"):
        OTConfig(epsilon=0)
    with pytest.raises(UserError, match=r"^stage2\.rounds must be >= 1, got 0$"):
        Stage2Config(rounds=0)
    with pytest.raises(TypeError):
        OTConfig(0.1)
