"""Variants on a command line: every way of writing a list means the same."""

import pytest

from otrw.config.command_line import parse_config
from otrw.config.variant_list import with_variant_list
from otrw.errors import UserError


@pytest.mark.parametrize(
    "written",
    [
        ["--variants", "ot_meta,class_balanced_meta"],
        ["--variants=ot_meta,class_balanced_meta"],
        ["--variants", "ot_meta, class_balanced_meta"],
        ["--variants", "ot_meta", "class_balanced_meta"],
        ["--variants", "[ot_meta, class_balanced_meta]"],
        ["--variants", "[ot_meta,", "class_balanced_meta]"],
        ["--variants", '["ot_meta", "class_balanced_meta"]'],
        ["--rows", "ot_meta,class_balanced_meta"],
    ],
    ids=" ".join,
)
def test_every_way_of_writing_a_list(written):
    config = parse_config([*written, "--run.seed", "3"])
    assert config.variants == ("ot_meta", "class_balanced_meta")
    assert config.run.seed == 3


def test_a_single_variant_needs_no_list():
    assert parse_config(["--run.seed=3", "--variants", "ot_meta"]).variants == ("ot_meta",)


@pytest.mark.parametrize(("name", "nearest"), [("ot_mata", "ot_meta"), ("class_balance", "class_balanced"), ("foo", "as --v")])
def test_an_unknown_name_is_told_in_two_lines_of_a_terminal_with_the_nearest_and_where_all_stand(name, nearest):
    with pytest.raises(UserError) as error:
        parse_config(["--variants", f"ot,{name}"])
    message = str(error.value)
    assert message.endswith("--help variants lists all")
    assert len(message) <= 2 * 80
    assert f"got {name!r}" in message
    assert nearest in message
    assert "\n" not in message


@pytest.mark.parametrize("written", [["--variants"], ["--variants", "[]"], ["--variants", "ot,ot"]])
def test_no_variant_and_one_twice_are_refused(written):
    with pytest.raises(UserError, match="variants must name"):
        parse_config(written)


def test_other_arguments_stay_as_they_are():
    arguments = ["--config", "a,b", "--run.name=variants", "--ot.epsilon", "-1", "--print_config"]
    assert with_variant_list(arguments) == arguments
