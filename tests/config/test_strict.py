"""Nothing on the command line or in a file is dropped, guessed or read as something else."""

import json

import pytest

from otrw.config.command_line import parse_config
from otrw.config.settings import leaves, sections
from otrw.config.tree import to_dict
from otrw.errors import UserError
from otrw.records import ledger


def error_of(*arguments):
    with pytest.raises(UserError) as error:
        parse_config(arguments)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def file_with(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("value", ["5", "[1, 2]", "text", "", "null", "true"])
@pytest.mark.parametrize("section", sorted(sections()))
def test_a_section_that_is_none_is_refused_with_file_and_key(section, value, tmp_path):
    *outer, last = section.split(".")
    text = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(outer)) + f"{'  ' * len(outer)}{last}: {value}\n"
    message = error_of("--config", file_with(tmp_path, text))
    assert message.startswith(f"{tmp_path}/own.yaml: {section} must be a section of settings such as {section}.")


def test_a_repeated_section_is_refused_with_file_and_key(tmp_path):
    path = file_with(tmp_path, "ot: {epsilon: 0.3}\nstage1: {epochs: 2}\not: {mixing: 0.1}\n")
    assert error_of("--config", path) == f"{path}, line 3: 'ot' is given twice; keep one"


def test_a_setting_under_both_of_its_names_is_refused(tmp_path):
    path = file_with(tmp_path, "rows: [ot]\nvariants: [ot_meta]\n")
    assert "rows is the earlier name of variants" in error_of("--config", path)


def test_a_dotted_name_in_a_file_is_refused(tmp_path):
    assert "'ot.epsilon' is no setting" in error_of("--config", file_with(tmp_path, "ot.epsilon: 0.3\n"))


@pytest.mark.parametrize("path", sorted(leaves()))
def test_a_shortened_name_is_refused_with_the_whole_one(path):
    message = error_of(f"--{path[:-1]}=1")
    assert f"--{path[:-1]} is no setting; did you mean {path}?" in message or f"--{path[:-1]} is a section" in message


@pytest.mark.parametrize(
    ("piece", "meant"),
    [("--conf", "config"), ("--ot.eps", "ot.epsilon"), ("--stage1.learning_rate", "learning_rate"), ("--seed", "run.seed")],
)
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(piece, meant):
    assert meant in error_of(piece, "1").partition("did you mean")[2]


@pytest.mark.parametrize("arguments", [["--ot", "{epsilon: 0.3}"], ["--ot={epsilon: 0.3}"], ["--stage1.optimizer", "x.yaml"]])
def test_a_section_on_the_command_line_is_refused(arguments):
    assert "is a section; give its settings one by one, such as --" in error_of(*arguments)


@pytest.mark.parametrize(
    "name", ["#x", "&a", "*a", "!x", "{a", "- x", "a: b", "'q'", "None", "caf\u00e9", "\U0001f600", "@", "%"]
)
def test_a_name_is_taken_as_it_is_typed(name):
    assert parse_config([f"--run.name={name}"]).run.name == name


def test_the_root_of_files_without_a_data_set_that_has_files_is_refused(tmp_path):
    for given in (["--data.root", "x"], ["--data.root", "data"], ["--config", "digits_lt", "--data.root=x"]):
        message = error_of(*given)
        assert message.startswith("data.root must come with a data set that has files, not with digits, got ")
        assert "--data.source cifar10 or --config cifar10_lt" in message
    assert error_of("--config", file_with(tmp_path, "data: {root: x}\n")).startswith("data.root must come")


def test_the_root_is_taken_where_the_data_set_is_named(tmp_path):
    assert parse_config(["--config", "cifar10_lt", "--data.root", "x"]).data.root == "x"
    assert parse_config(["--data.root", "x", "--data.source", "digits"]).data.root == "x"  # a grid of several data sets
    config = parse_config([])
    ledger.write_yaml(tmp_path / "config.yaml", to_dict(config))
    assert parse_config(["--config", str(tmp_path / "config.yaml")]) == config
    assert parse_config(["--run.resume", str(tmp_path)]).data == config.data
    ledger.write_yaml(tmp_path / "config.yaml", to_dict(parse_config(["--config", "cifar10_lt"])))
    assert parse_config(["--run.resume", str(tmp_path), "--data.root", "elsewhere"]).data.root == "elsewhere"


@pytest.mark.parametrize("bad", ["a\0b", "\udcff"])
def test_nul_and_bytes_that_are_no_utf_8_are_refused(bad, tmp_path):
    for arguments in ([f"--run.name={bad}"], ["--run.name", bad], ["--config", bad], [bad], ["--run.resume", bad]):
        assert "UTF-8 without NUL" in error_of(*arguments)
    assert error_of("--config", file_with(tmp_path, f"run: {{name: {json.dumps(bad)}}}\n"))


@pytest.mark.timeout(30)
def test_a_bomb_on_the_command_line_is_refused():
    bomb = "[&a [x, x], &b [*a, *a], &c [*b, *b]]"
    assert "variants must be known ones" in error_of(f"--variants={bomb}")
    assert "aliases" in error_of(f"--stage1.optimizer.milestones={bomb}")
    assert "nested deeper" in error_of("--stage1.optimizer.milestones", "[" * 50_000)


@pytest.mark.parametrize("arguments", [["--config"], ["--run.seed"], ["--run.seed", "--run.cpu=true"], ["--"], ["-x"], [""]])
def test_a_command_line_that_says_half_is_refused(arguments):
    assert error_of(*arguments)
