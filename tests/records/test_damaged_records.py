"""Damaged records: each is left out with one line that names it, or read rightly; never a traceback."""

import json
import shutil
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import write_record

from otrw.analysis import formats
from otrw.analysis.table import make_blocks
from otrw.errors import UserError
from otrw.records.experiments import load_experiments
from otrw.records.ledger import read_lines
from otrw.records.read import read_yaml

OFFICIAL = ("--config", "official", "--data.imbalance_factor", "100")
FILES = ("config.yaml", "environment.json", "result.json")
BOMB = "a: &a [1, 1]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24))
LARGE = "9" * 400


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A whole record and one to damage."""
    root = tmp_path_factory.mktemp("records")
    write_record(root / "whole", *OFFICIAL, error=10.0, seed=0)
    damaged = write_record(root / "damaged", *OFFICIAL, error=20.0, seed=1)
    return root, damaged, {name: (damaged / name).read_bytes() for name in FILES}


def table_of(root):
    """(seeds in the table, problems); all formats are made."""
    started = time.monotonic()
    loaded = load_experiments([root])
    blocks = make_blocks(loaded.experiments)
    for make in (formats.plain, formats.markdown, formats.latex, formats.html_page, formats.table_csv):
        make(blocks)
    formats.records_csv(loaded.experiments)
    assert time.monotonic() - started < 20  # seconds; a safeguard against hanging, not a claim of speed
    for problem in loaded.problems:
        assert "\n" not in problem
        assert "left out" in problem
    return sorted(experiment.seed for experiment in loaded.experiments), loaded.problems


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "[" * 100_000),
        ("result.json", "[" * 100_000),
        ("config.yaml", BOMB),
        ("config.yaml", f"data: {{source: cifar10, imbalance_factor: {LARGE}}}"),
        ("environment.json", "[]"),
        ("environment.json", '{"precision": ["bf16"]}'),
        ("result.json", b"\xff\xfe{}"),
        ("result.json", f'{{"seed": {LARGE}}}'),
    ],
)
def test_what_stopped_a_table_once(two, name, text):
    root, damaged, whole = two
    (damaged / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    seeds, (problem,) = table_of(root)
    (damaged / name).write_bytes(whole[name])
    assert seeds == [0]
    assert str(damaged) in problem
    assert name in problem
    assert len(problem) < 400


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.label_noise", ["a"]),
        ("data.label_noise", "some\nother"),
        ("data.imbalance_factor", int(LARGE)),
        ("data.imbalance_factor", 50),
        ("data", [1]),
        ("stage2.rounds", {"a": 1}),
        ("stage1", 5),
        ("run.seed", 4),
        ("variants", ["ot"]),
        ("ot.epsilon", float("nan")),
    ],
)
def test_a_setting_of_another_kind_costs_its_record_only(two, path, value):
    root, damaged, whole = two
    config = yaml.safe_load(whole["config.yaml"])
    *sections, key = path.split(".")
    section = config
    for one in sections:
        section = section[one]
    section[key] = value
    (damaged / "config.yaml").write_text(yaml.safe_dump(config))
    seeds, (problem,) = table_of(root)
    (damaged / "config.yaml").write_bytes(whole["config.yaml"])
    assert seeds == [0]
    assert len(problem) < 500


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.lists(st.integers(-9, 9), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def _paths(value, before=()):
    yield before
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _paths(one, (*before, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _paths(one, (*before, number))


def test_a_factor_that_is_gone_from_the_settings_is_a_problem_and_no_other_method(two):
    root, damaged, whole = two
    content = yaml.safe_load(whole["config.yaml"])
    content["data"]["imbalance_factor"] = None
    (damaged / "config.yaml").write_text(yaml.safe_dump(content))
    seeds, problems = table_of(root)
    (damaged / "config.yaml").write_bytes(whole["config.yaml"])
    assert set(seeds) == {0}
    assert len(problems) == 1


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_value_in_any_place(two, data):
    root, damaged, whole = two
    name = data.draw(st.sampled_from(FILES))
    content = yaml.safe_load(whole[name])
    place = data.draw(st.sampled_from([path for path in _paths(content) if path]))
    section = content
    for one in place[:-1]:
        section = section[one]
    section[place[-1]] = data.draw(JUNK)
    text = yaml.safe_dump(content) if name.endswith("yaml") else json.dumps(content)
    (damaged / name).write_text(text)
    seeds, problems = table_of(root)
    (damaged / name).write_bytes(whole[name])
    assert 0 in seeds
    assert len(seeds) + len(problems) == 2


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_in_any_place(two, data):
    root, damaged, whole = two
    name = data.draw(st.sampled_from(FILES))
    text = whole[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    (damaged / name).write_bytes(text[:start] + data.draw(st.binary(max_size=12)) + text[end:])
    seeds, problems = table_of(root)
    (damaged / name).write_bytes(whole[name])
    assert 0 in seeds
    assert len(seeds) + len(problems) == 2


@pytest.mark.parametrize("text", ["[]\n", "[]", '{"epoch": 1}\nbroken\n{"epoch": 3}\n', "[" * 100_000, "\xff", LARGE])
def test_damaged_lines_are_refused_and_not_dropped_in_silence(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"metrics\.jsonl") as error:
        read_lines(path)
    assert "\n" not in str(error.value)


def test_no_alias_is_followed(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(BOMB)
    with pytest.raises(UserError, match="alias"):
        read_yaml(path)


def test_a_record_that_cannot_be_opened(two):
    root, damaged, whole = two
    (damaged / "config.yaml").unlink()
    (damaged / "config.yaml").mkdir()
    seeds, (problem,) = table_of(root)
    shutil.rmtree(damaged / "config.yaml")
    (damaged / "config.yaml").write_bytes(whole["config.yaml"])
    assert seeds == [0]
    assert "directory" in problem
