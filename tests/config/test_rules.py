"""Every number of the tree has a range, and what lies outside is refused in one line."""

import dataclasses
from typing import get_args

import pytest

from otrw.config import Config, RunConfig
from otrw.config.command_line import parse_config
from otrw.config.rules import RANGES, Range, check_ranges
from otrw.config.settings import leaves
from otrw.errors import UserError

NUMBERS = {path for path, kind in leaves().items() if {int, float} & {kind, *get_args(kind)}}


def error_of(*arguments):
    with pytest.raises(UserError) as error:
        parse_config(arguments)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_every_number_has_a_range_and_nothing_else_has():
    assert set(RANGES) == NUMBERS


@pytest.mark.parametrize("path", sorted(NUMBERS))
@pytest.mark.parametrize(
    "text", ["1e300", "-1", "nan", ".nan", "inf", ".inf", "-.inf", "9" * 60, "9" * 400, "9" * 5000, "true"]
)
def test_no_number_takes_what_makes_no_sense(path, text):
    value = f"[{text}]" if path.endswith("milestones") else text
    assert path in error_of(f"--{path}={value}")


@pytest.mark.parametrize("path", sorted(NUMBERS))
def test_both_ends_of_every_range_are_held(path):
    allowed = RANGES[path]
    is_whole = int in (leaves()[path], *get_args(leaves()[path]))
    step = 1 if is_whole else 1e-3
    assert allowed.low - step not in allowed
    assert allowed.high * (1 + 1e-9) + step not in allowed
    assert (allowed.low in allowed) is not allowed.is_open_low
    assert (allowed.high in allowed) is not allowed.is_open_high


def test_ranges_are_written_as_in_mathematics():
    assert str(Range(0, 1, is_open_high=True)) == "[0, 1)"
    assert str(Range(0, 1e6, is_open_low=True)) == "(0, 1000000]"
    assert 10**400 not in Range(0, 1e6)
    assert True not in Range(0, 1)


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--stage1.optimizer.milestones=[0.9, 0.5]", "must rise from one to the next"),
        ("--stage1.optimizer.milestones=[0.5, 0.5]", "must rise from one to the next"),
        ("--stage2.optimizer.milestones=[0.5, 1.5]", "must each be in (0, 1), got (0.5, 1.5)"),
        ("--ot.hidden_size=1000000000000", "ot.hidden_size must be in [1, 65536]"),
        ("--run.timeout_seconds=1e300", "run.timeout_seconds must be in (0, 31536000], got 1e+300"),
        ("--data.seed=-1", "data.seed must be in"),
        ("--stage2.optimizer.decay_factor=-0.1", "stage2.optimizer.decay_factor must be in (0, 1], got -0.1"),
        ("--run.name=a\nb", "run.name must have no line ends"),
        ("--run.name=" + "x" * 201, "run.name must have at most 200 bytes"),
    ],
)
def test_what_is_refused(argument, part):
    assert part in error_of(argument)


def test_a_config_made_in_python_is_judged_alike():
    config = dataclasses.replace(Config(), run=RunConfig(timeout_seconds=float("inf")))
    with pytest.raises(UserError, match=r"run\.timeout_seconds must be in \(0, 31536000\], got inf"):
        check_ranges(config)
