"""YAML is read as it is meant, or refused in one line that names file and line: never a bomb, never code, never a guess."""

import pytest
import yaml

from otrw.config.yaml_files import MOST_BYTES, load_yaml, parse_yaml
from otrw.errors import UserError


def error_of(content, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as error:
        load_yaml(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("'1e5'", "1e5"),
        ("12", 12),
        ("0x1f", 31),
        ("1_000", 1000),
        ("1_e5", "1_e5"),
        ("010", "010"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("~", None),
        ("", None),
        ("-.inf", -float("inf")),
        ("<<", "<<"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
    ],
)
def test_values(text, value):
    found = parse_yaml(f"a: {text}", "x")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_a_mapping_comes_back_from_what_pyyaml_writes():
    value = {"a": {"b": [1, 2.5, None, True], "c": "1.5"}, "d": "no", "e": "2024-01-01", "f": "0x10", "g": "a: b # c"}
    assert parse_yaml(yaml.safe_dump(value), "x") == value


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is given twice"),
        ("a: {b: 1, b: 2}", "'b' is given twice"),
        ("a: &x [1]\nb: *x\n", "line 2: aliases such as *x are not read"),
        ("a: &a\n  b: *a\n", "aliases"),
        ("1: 2", "a name must be text, got 1"),
        ("? [1]\n: 2", "a name must be text"),
        ("? {a: 1}\n: 2", "a name must be text"),
        ("a: !!python/object/apply:os.system [ls]", "tags such as"),
        ("a: !!binary aGk=", "tags such as"),
        ("a: !!map 3", "tags such as"),
        ('a: "\\0"', "line 1: text must be without NUL"),
        ('"\\0": 1', "text must be without NUL"),
        ('a: "\\ud800"', "half characters"),
        ("a: " + "9" * 400, "at most 100 digits, got 400"),
        ("a: " + "9" * 10_000, "at most 100 digits"),
        ("a: 1\n---\nb: 2", "another document"),
        (b"\xff", "in UTF-8, got byte 0xff at 0"),
        (b"\0", "must be YAML"),
        ("a: \x07", "must be YAML"),
        (b"", "got nothing"),
        ("- 1", "got a list"),
        ("5", "got a int"),
        ("a: [1", "line 1"),
        ("[" * 100_000, "nested deeper than 20"),
        ("{a: " * 30_000, "nested deeper than 20"),
        ("- " * 50_000, "nested deeper than 20"),
        ("? " * 50_000, "nested deeper than 20"),
        ("x" * (MOST_BYTES + 1), "at most 128 KiB"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_refused(content, part, tmp_path):
    assert part in error_of(content, tmp_path)


@pytest.mark.timeout(30)
def test_a_billion_laughs_are_refused_before_they_are_counted(tmp_path):
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "aliases" in error_of("\n".join(lines), tmp_path)


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.yaml", tmp_path / "a\0b"):
        with pytest.raises(UserError, match="cannot be read"):
            load_yaml(path)
