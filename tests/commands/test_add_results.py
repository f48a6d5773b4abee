"""analysis/add_results.py copies what a table needs, and nothing that is not finished."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def add(*arguments):
    command = [sys.executable, str(ROOT / "analysis" / "add_results.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_finished_rows_and_searches_are_copied_without_their_large_files(tmp_path):
    run, search, to = tmp_path / "a-run", tmp_path / "a-search", tmp_path / "results"
    for variant in ("stage1", "ot"):
        (run / variant).mkdir(parents=True)
        for name in ("config.yaml", "environment.json", "metrics.jsonl", "weights.parquet", "model.safetensors"):
            (run / variant / name).write_text(variant)
    (run / "stage1" / "result.json").write_text("{}")
    (search / "trials" / "0").mkdir(parents=True)
    for name in ("search.yaml", "trials.jsonl", "best.yaml", "proposed.jsonl", "trials/0/config.yaml"):
        (search / name).write_text(name)
    done = add(run, search, "--to", to)
    assert done.returncode == 0, done.stderr
    assert "ot: not finished, left out" in done.stdout
    assert files_below(to) == {
        *(f"a-run/stage1/{name}" for name in ("config.yaml", "environment.json", "metrics.jsonl", "result.json")),
        *(f"searches/a-search/{name}" for name in ("search.yaml", "trials.jsonl", "best.yaml")),
    }


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path):
    done = add(tmp_path, "--to", tmp_path / "results")
    assert done.returncode == 2
    assert "must be a run's folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nothing_is_copied_where_one_of_several_is_no_run(tmp_path):
    run, to = tmp_path / "a-run", tmp_path / "results"
    (run / "stage1").mkdir(parents=True)
    for name in ("config.yaml", "result.json"):
        (run / "stage1" / name).write_text("{}")
    notes = tmp_path / "notes.txt"
    notes.write_text("no run")
    done = add(run, notes, "--to", to)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(notes) in done.stderr
    assert not to.exists()


def test_a_grids_logs_beside_its_runs_are_passed_over(tmp_path):
    run, log, to = tmp_path / "a-run", tmp_path / "a-run.log", tmp_path / "results"
    (run / "stage1").mkdir(parents=True)
    for name in ("config.yaml", "result.json"):
        (run / "stage1" / name).write_text("{}")
    log.write_text("of the grid")
    done = add(run, log, "--to", to)
    assert done.returncode == 0, done.stderr
    assert files_below(to) == {"a-run/stage1/config.yaml", "a-run/stage1/result.json"}
    assert add(log, "--to", to).returncode == 2


def test_a_folder_keeps_its_name_however_it_is_given_and_nothing_of_an_earlier_run(tmp_path):
    run, to = tmp_path / "a-run", tmp_path / "results"
    (run / "stage1").mkdir(parents=True)
    for name in ("config.yaml", "result.json"):
        (run / "stage1" / name).write_text("{}")
    (to / "a-run" / "stage1").mkdir(parents=True)
    (to / "a-run" / "stage1" / "audit.json").write_text("of an earlier run")
    command = [sys.executable, str(ROOT / "analysis" / "add_results.py"), ".", "--to", str(to)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=run, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert files_below(to) == {"a-run/stage1/config.yaml", "a-run/stage1/result.json"}


def test_two_runs_of_one_name_are_refused(tmp_path):
    for parent in "ab":
        (tmp_path / parent / "run" / "stage1").mkdir(parents=True)
        (tmp_path / parent / "run" / "stage1" / "config.yaml").write_text("{}")
    done = add(tmp_path / "a" / "run", tmp_path / "b" / "run", "--to", tmp_path / "results")
    assert done.returncode == 2
    assert "runs must have names of their own" in done.stderr
    assert not (tmp_path / "results").exists()
