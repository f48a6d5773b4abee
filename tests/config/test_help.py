"""--help: every setting with its value and its docstring, by section, in 80 columns."""

import re
from typing import get_args

import pytest

from otrw.config import Config, OTConfig, to_dict
from otrw.config.command_line import parse_config
from otrw.config.help import overview, section_in_full, sections, shown
from otrw.errors import UserError
from otrw.records.fingerprint import flatten

VALUES = flatten(to_dict(parse_config([])))
SETTINGS = [setting for section in sections() for setting in section.settings]


def test_every_setting_of_the_tree_is_there_once_and_described():
    paths = [setting.path for setting in SETTINGS]
    assert sorted(paths) == sorted(flatten(to_dict(Config())))
    assert [setting.path for setting in SETTINGS if not setting.description] == []


def test_the_sections_come_in_the_order_of_the_tree():
    assert [section.name for section in sections()] == ["data", "model", "stage1", "ot", "stage2", "run", "variants"]


def test_the_overview_has_a_line_a_setting_with_its_value_in_80_columns():
    text = overview(VALUES)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^  epsilon 0\.2 +Entropic regulariser, in units of the cost$", text, re.MULTILINE)
    assert re.search(r"^  optimizer\.schedule cosine +cosine \| step \| constant$", text, re.MULTILINE)
    for section in sections():
        for setting in section.settings:
            name = setting.path.removeprefix(f"{section.name}.")
            assert re.search(rf"^ +{re.escape(name)} ", text, re.MULTILINE), setting.path
    words = " ".join(text.split())
    for setting in SETTINGS:
        assert all(choice in words for choice in setting.choices)


@pytest.mark.parametrize("section", [section.name for section in sections()])
def test_a_section_in_full_has_every_word_of_its_docstrings(section):
    text = section_in_full(section, VALUES)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for setting in next(one for one in sections() if one.name == section).settings:
        assert f"--{setting.path} " in words
        assert setting.description in words


def test_a_group_and_a_single_setting_can_be_asked_for():
    assert "--stage2.optimizer.momentum" in section_in_full("stage2.optimizer", VALUES)
    assert "stage2.rounds" not in section_in_full("stage2.optimizer", VALUES)
    single = section_in_full("--ot.weights", VALUES)
    assert single.count("--") == 1
    for choice in get_args(OTConfig.__annotations__["weights"]):
        assert choice in single


def test_an_unknown_section_is_told_the_sections_and_the_nearest():
    with pytest.raises(UserError, match=r"one of data, model, stage1, ot, stage2, run, variants .*did you mean 'ot.epsilon'"):
        section_in_full("ot.epsilom", VALUES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("", "''"),
        (0.0005, "0.0005"),
        (20.0, "20"),
        (("a", "b"), "a,b"),
        ((0.8, 0.9), "[0.8,0.9]"),
    ],
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert shown(value) == text
