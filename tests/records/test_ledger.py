"""Records: files that are whole or absent, lines that survive a crash, and broken records that are named."""

import json
import shutil
import threading

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from processes import files_of_at_most

from otrw.errors import UserError
from otrw.records import ledger
from otrw.records.ledger import Record


def write_record(folder, **changes):
    folder.mkdir(parents=True)
    files = {
        "config.yaml": "rows: [ot]\n",
        "environment.json": '{"commit": null}',
        "result.json": '{"row": "ot", "seed": 0}',
    }
    for name, text in (files | {key.replace("_", "."): value for key, value in changes.items()}).items():
        if text is not None:
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"epoch": epoch, "test": {"error": epoch / 3, "few_error": None}} for epoch in range(5)]
    for line in lines:
        ledger.append_line(path, line)
    assert ledger.read_lines(path) == lines
    assert len(path.read_text().splitlines()) == 5


def test_no_file_is_no_lines(tmp_path):
    assert ledger.read_lines(tmp_path / "metrics.jsonl") == []
    ledger.keep_lines(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_off_at_any_byte_loses_only_itself(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"epoch": 1}, {"epoch": 2, "test": {"error": 12.5, "names": ["a", "\u00e9"]}}]
    for line in lines:
        ledger.append_line(path, line)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert ledger.read_lines(path) == lines[:1]
    path.write_bytes(whole[:-1])
    assert ledger.read_lines(path) == lines


def test_after_a_crash_kept_lines_can_be_appended_to(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in range(4):
        ledger.append_line(path, {"epoch": epoch})
    path.write_bytes(path.read_bytes()[:-5])
    ledger.keep_lines(path, 2)
    ledger.append_line(path, {"epoch": 2})
    assert ledger.read_lines(path) == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_keeping_no_lines_empties_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    ledger.append_line(path, {"epoch": 0})
    ledger.keep_lines(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("old", [None, "what was there"])
def test_a_failed_write_leaves_the_old_file_as_it_was(tmp_path, monkeypatch, old):
    path = tmp_path / "result.json"
    if old is not None:
        path.write_text(old)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger.os, "replace", crash)
    for write in (ledger.write_json, ledger.write_yaml):
        with pytest.raises(KeyboardInterrupt):
            write(path, {"new": 1})
    with pytest.raises(KeyboardInterrupt):
        ledger.write_columns(path, {"x": np.arange(3)})
    assert (path.read_text() if path.exists() else None) == old


def test_written_files_are_read_back_equal_and_leave_nothing_beside_them(tmp_path):
    value = {"a": [1, 2.5, None], "b": {"c": "text", "d": True}, "e": 1e-7}
    ledger.write_json(tmp_path / "x.json", value)
    ledger.write_yaml(tmp_path / "x.yaml", value)
    ledger.write_columns(tmp_path / "x.parquet", {"index": np.arange(4), "weight": np.linspace(0, 1, 4)})
    assert json.loads((tmp_path / "x.json").read_text()) == value
    assert yaml.safe_load((tmp_path / "x.yaml").read_text()) == value
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["index", "weight"]
    assert table["weight"].to_pylist() == np.linspace(0, 1, 4).tolist()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.json", "x.parquet", "x.yaml"]


def test_yaml_keeps_the_order_and_takes_tuples(tmp_path):
    ledger.write_yaml(tmp_path / "x.yaml", {"z": (1, 2), "a": {"y": ("b",)}})
    assert (tmp_path / "x.yaml").read_text().index("z:") == 0
    assert yaml.safe_load((tmp_path / "x.yaml").read_text()) == {"z": [1, 2], "a": {"y": ["b"]}}


def test_a_whole_record_is_read(tmp_path):
    folder = write_record(tmp_path / "run" / "ot")
    record = ledger.read_record(folder)
    assert record == Record(folder, {"variants": ["ot"]}, {"commit": None}, {"row": "ot", "seed": 0})


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"result_json": '{"row": "o'}, "result.json", "not valid"),
        ({"result_json": b"\xff\xfe\x00"}, "result.json", "not valid"),
        ({"result_json": ""}, "result.json", "not valid"),
        ({"result_json": "[1, 2]"}, "result.json", "not a mapping"),
        ({"environment_json": None}, "environment.json", "No such file"),
        ({"config_yaml": "rows: [ot\n"}, "config.yaml", "not valid"),
        ({"config_yaml": ""}, "config.yaml", "not a mapping"),
        ({"config_yaml": None}, "config.yaml", "No such file"),
    ],
)
def test_a_broken_record_is_named_with_the_reason(tmp_path, changes, name, reason):
    folder = write_record(tmp_path / "ot", **changes)
    with pytest.raises(UserError) as error:
        ledger.read_record(folder)
    message = str(error.value)
    assert message.startswith(f"{folder / name}: {reason}")
    assert "\n" not in message


def test_find_records_yields_whole_records_and_a_line_for_each_broken_one(tmp_path):
    write_record(tmp_path / "runs" / "a" / "ot")
    write_record(tmp_path / "runs" / "a" / "oracle", result_json="{")
    write_record(tmp_path / "runs" / "b" / "unfinished", result_json=None)
    write_record(tmp_path / "runs" / "b" / "stage1")
    write_record(tmp_path / "more" / "c" / "ot", config_yaml=None)
    found = list(ledger.find_records([tmp_path / "runs", tmp_path / "more", tmp_path / "none"]))
    assert [isinstance(entry, Record) for entry in found] == [False, True, True, False]
    assert [entry.path.relative_to(tmp_path / "runs").as_posix() for entry in found[1:3]] == ["a/ot", "b/stage1"]
    assert str(tmp_path / "runs" / "a" / "oracle" / "result.json") in found[0]
    assert str(tmp_path / "more" / "c" / "ot" / "config.yaml") in found[3]


def test_the_environment_names_versions_command_and_the_facts_given():
    facts = ledger.environment(device="cpu", world_size=2)
    assert facts["device"] == "cpu"
    assert facts["world_size"] == 2
    assert facts["versions"]["torch"]
    assert set(facts) >= {"commit", "dirty", "python", "platform", "command"}
    json.dumps(facts)


def test_folders_that_vanish_while_results_are_looked_for_are_no_matter(tmp_path):
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            (tmp_path / "a" / "gone" / "deep").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(tmp_path / "a" / "gone", ignore_errors=True)

    (tmp_path / "run" / "ot").mkdir(parents=True)
    (tmp_path / "run" / "ot" / "result.json").write_text("{}")
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(300):
            assert ledger.result_files(tmp_path) == [tmp_path / "run" / "ot" / "result.json"]
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("called", "recorded"),
    [
        ("/home/me/otrw/launch/train.py", "launch/train.py"),
        ("launch/train.py", "launch/train.py"),
        ("/x/otrw/__main__.py", "-m otrw"),
    ],
)
def test_a_record_says_how_it_was_called_without_folders_of_the_machine(monkeypatch, called, recorded):
    monkeypatch.setattr("sys.argv", [called, "--run.seed", "1"])
    assert ledger.environment()["command"] == [recorded, "--run.seed", "1"]


def test_a_line_that_does_not_fit_on_the_disk_is_not_there_in_part(tmp_path):
    path = tmp_path / "metrics.jsonl"
    ledger.append_line(path, {"epoch": 1})
    before = path.read_bytes()
    with files_of_at_most(len(before) + 20), pytest.raises(OSError, match="File too large") as caught:
        ledger.append_line(path, {"epoch": 2, "text": "x" * 100})
    assert path.read_bytes() == before
    assert caught.value.filename == str(path)


@pytest.mark.parametrize(("name", "old", "new"), [("result.json", "12.5", "12.4"), ("config.yaml", "seed: 3", "seed: 4"),
                                                 ("metrics.jsonl", "1.25", "1.26")])  # fmt: skip
def test_a_record_with_a_changed_figure_is_left_out(tmp_path, name, old, new):
    ledger.write_yaml(tmp_path / "config.yaml", {"run": {"seed": 3}})
    ledger.write_json(tmp_path / "environment.json", {})
    ledger.append_line(tmp_path / "metrics.jsonl", {"loss": 1.25})
    ledger.write_result(tmp_path, {"test": {"error": 12.5}, "sizes": {1: 2}})
    assert ledger.read_record(tmp_path).result["test"]["error"] == 12.5
    path = tmp_path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=r"checksum differs.*left out"):
        ledger.read_record(tmp_path)


def test_a_table_of_another_run_is_refused_and_one_of_an_earlier_version_is_read(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        ledger.write_yaml(folder / "config.yaml", {"run": {"seed": seed}})
        ledger.write_json(folder / "environment.json", {})
        ledger.write_columns(folder / "weights.parquet", {"weight": np.arange(5) + seed})
        ledger.write_result(folder, {"seed": seed})
    record = ledger.read_record(tmp_path / "0")
    columns = ledger.read_table(record, "weights.parquet")
    assert columns is not None
    assert columns["weight"].tolist() == [0, 1, 2, 3, 4]
    assert ledger.read_table(record, "predictions.parquet") is None
    shutil.copy(tmp_path / "1" / "weights.parquet", tmp_path / "0")
    with pytest.raises(UserError, match=r"weights.parquet is not the file of the result.json beside it"):
        ledger.read_table(record, "weights.parquet")
    ledger.write_json(tmp_path / "0" / "result.json", {"seed": 0})
    columns = ledger.read_table(ledger.read_record(tmp_path / "0"), "weights.parquet")
    assert columns is not None
    assert columns["weight"].tolist() == [1, 2, 3, 4, 5]


def test_a_flipped_bit_in_a_column_is_noticed(tmp_path):
    path = tmp_path / "weights.parquet"
    ledger.write_columns(path, {"weight": np.linspace(0, 1, 500)})
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1  # inside the data
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a whole Parquet file"):
        ledger.read_columns(path)
