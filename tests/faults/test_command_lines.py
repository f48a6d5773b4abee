"""Generated command lines and files of settings: a right config, or one line. Never anything else.

The config that is understood is compared with what was said, so that nothing is dropped or read as something else.
"""

import json
from dataclasses import replace
from functools import reduce
from typing import Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otrw.config.command_line import PRESETS, parse_config
from otrw.config.rules import RANGES
from otrw.config.settings import leaves, sections
from otrw.config.tree import to_dict
from otrw.errors import UserError

pytestmark = pytest.mark.timeout(120)
QUICK = settings(
    max_examples=100, deadline=30_000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PRESET_NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
PATHS = sorted(leaves())

any_text = st.text(st.characters(), max_size=12)  # with NUL, line ends and lone surrogates
numbers = st.one_of(
    st.integers(-(10**3), 10**3).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["1e300", "-0.0", "1e-300", "9" * 400, "9" * 5000, "0x10", "1_0", "1e400", ".inf", "010", "1:30", "+1"]),
)
YAML_LIKE = """null ~ true no [ ] {} [] &a *a [&a_[1],*a] !!int_3 # -_1 a:_b [0.2,0.7] << = ' " %YAML_3 --- ... @ ` | >"""
yaml_like = st.sampled_from([*YAML_LIKE.replace("_", " ").split(" "), "[" * 250, "- 1", "a: b", "", " ", "\t", "\ufeff"])
choices = st.sampled_from(sorted({str(word) for kind in leaves().values() for word in get_args(kind) if isinstance(word, str)}))
values = st.one_of(numbers, yaml_like, any_text, choices)
names = st.one_of(
    st.sampled_from(PATHS),
    st.sampled_from(PATHS),
    st.sampled_from(PATHS).flatmap(lambda path: st.integers(1, len(path)).map(lambda end: path[:end])),
    st.sampled_from(sorted(sections())),
    st.sampled_from(["config", "print_confi", "rows", "help.x", "", "-"]),
    any_text,
)


def value_at(config, path):
    return reduce(getattr, path.split("."), config)


def parsed(arguments):
    """The config, or None where the command line is refused in one line."""
    try:
        return parse_config(arguments)
    except UserError as error:
        message = str(error)
        assert message
        assert "\n" not in message
        assert len(message) < 1000
        message.encode("utf-8")  # can be printed
        return None


def assert_read_back(config, folder):
    """What is written to a file gives the same config."""
    path = folder / "written.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(config)))), encoding="utf-8")
    assert replace(parse_config(["--config", str(path)])) == config


pieces = st.one_of(
    st.tuples(names, values).map(lambda pair: [f"--{pair[0]}={pair[1]}"]),
    st.tuples(names, values).map(lambda pair: [f"--{pair[0]}", pair[1]]),
    st.tuples(st.just("config"), st.sampled_from(PRESET_NAMES)).map(lambda pair: [f"--{pair[0]}", pair[1]]),
    values.map(lambda value: [value]),
)


@QUICK
@given(arguments=st.lists(pieces, max_size=3).map(lambda parts: [piece for part in parts for piece in part]))
def test_any_command_line_is_a_config_that_reads_back_or_one_line(arguments, tmp_path):
    if any(piece in ("-h", "--help") or piece.startswith("--print_config") for piece in arguments):
        return
    config = parsed(arguments)
    if config is not None and config.run.resume is None:
        assert_read_back(config, tmp_path)


def meant(kind, text):
    """The value of a plain number or word; None where only the parser knows."""
    try:
        return float(text) if kind is float else int(text)
    except (ValueError, OverflowError):
        return None


@QUICK
@given(path=st.sampled_from(sorted(RANGES)), text=numbers)
def test_a_number_is_taken_as_it_is_written_or_refused(path, text):
    kind = next((kind for kind in (int, float) if kind in (leaves()[path], *get_args(leaves()[path]))), float)
    config = parsed([f"--{path}={text}"])
    if config is None:
        return
    found = value_at(config, path)
    assert found == meant(kind, text) or text in ("0x10", "1_0")
    assert isinstance(found, kind)
    assert found in RANGES[path]


@QUICK
@given(name=any_text)
def test_a_name_is_taken_as_it_is_written_or_refused(name, tmp_path):
    config = parsed([f"--run.name={name}"])
    if config is not None:
        assert config.run.name == (None if name in ("null", "Null", "NULL", "~") else name)
        assert_read_back(config, tmp_path)


trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text, choices),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(any_text, st.integers(0, 3)), inner, max_size=3)
    ),
    max_leaves=6,
)
valid_values = {
    path: st.floats(max(kind.low, 1e-9), min(kind.high, 1e6), exclude_min=True, exclude_max=True)
    if float in (leaves()[path], *get_args(leaves()[path]))
    else st.integers(int(kind.low), int(min(kind.high, 10**6)))
    for path, kind in RANGES.items()
    if not path.endswith("milestones")
}
for path, kind in leaves().items():
    if get_origin(kind) is Literal:
        valid_values[path] = st.sampled_from(get_args(kind))
    elif kind is bool:
        valid_values[path] = st.booleans()


@st.composite
def nested_settings(draw):
    """Nested settings of which most names are right and some values are not."""
    result = {}
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=5, unique=True)):
        good = valid_values.get(path, choices)
        *outer, last = path.split(".")
        section = result
        for key in outer:
            section = section.setdefault(key, {})
        section[last] = draw(st.one_of(*[good] * 9, trees))
    if draw(st.integers(0, 9)) == 0:
        result[draw(st.one_of(st.sampled_from(["ot", "stage1", "data"]), any_text))] = draw(trees)
    return result


def flat(tree, prefix=""):
    found = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


@QUICK
@given(tree=nested_settings())
def test_a_file_of_settings_is_read_whole_or_refused(tree, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    config = parsed(["--config", str(path)])
    if config is None:
        return
    for key, value in flat(tree).items():
        found = value_at(config, key)
        expected = tuple(value) if isinstance(value, list) else value
        if leaves()[key] is bool and isinstance(value, str):
            expected = value.lower() in ("true", "yes", "on")
        assert found == expected, key
    assert_read_back(config, tmp_path)


@QUICK
@given(content=st.one_of(st.binary(max_size=200), st.text("ot: {}[]&*!#-'\"|>\n\t,?0.1eax", max_size=60).map(str.encode)))
def test_any_bytes_as_a_file_are_a_config_or_one_line(content, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    parsed(["--config", str(path)])


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_with_one_byte_changed_is_a_config_or_one_line(name, tmp_path):
    content = (PRESETS / f"{name}.yaml").read_bytes()
    path = tmp_path / "own.yaml"
    for place in range(0, len(content), 47):
        for byte in (0, 10, 0x3A, 0xFF):
            path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            parsed(["--config", str(path)])


@settings(QUICK, max_examples=10)
@given(parts=st.lists(st.tuples(st.sampled_from(sorted(RANGES)), st.data()), max_size=3))
def test_what_is_printed_gives_the_same_config(parts, tmp_path, capsys):
    arguments = [f"--{path}={data.draw(valid_values.get(path, st.just([0.5])))!r}" for path, data in parts]
    config = parsed(arguments)
    if config is None:
        return
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        parse_config([*arguments, "--print_config"])
    assert leaving.value.code in (0, None)
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    read = parse_config(["--config", str(path)])
    assert replace(read, run=replace(read.run, preset=config.run.preset)) == config
