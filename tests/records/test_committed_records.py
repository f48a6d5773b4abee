"""Records that are published say nothing of the machine they were made on but what they mean to."""

import json
from pathlib import Path

import pytest

ANALYSIS = Path(__file__).resolve().parents[2] / "analysis"


def folders_named(path):
    """Absolute paths among the words of the command that made a record."""
    content = json.loads(path.read_text(encoding="utf-8"))
    environment = content.get("environment", content)
    words = [word for argument in environment.get("command", []) for word in argument.split("=")]
    return [word for word in words if len(word) > 1 and word.startswith(("/", "~"))]


@pytest.mark.parametrize("folder", ["results", "experiments/results"])
def test_no_record_names_a_folder_of_the_machine_it_was_made_on(folder):
    paths = [*(ANALYSIS / folder).rglob("environment.json"), *(ANALYSIS / folder).rglob("benchmarks/*.json")]
    assert paths
    assert {str(path.relative_to(ANALYSIS)): found for path in paths if (found := folders_named(path))} == {}


def test_a_folder_would_be_seen(tmp_path):
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({"command": ["train.py", "--data.root=/mnt/data", "--run.name", "a/b"]}))
    assert folders_named(path) == ["/mnt/data"]
