"""launch/reproduce.py as a user runs it."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otrw.commands import experiment
from otrw.commands.reproduce import main
from otrw.errors import UserError, UserInterrupt
from otrw.grid.runner import Grid

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--presets", "digits_lt", "--datasets", "digits", "--factors", "20", "--seeds", "0", "1"]
SHORT = ["--stage1.epochs", "2", "--stage2.epochs", "2", "--run.tensorboard", "false", "--variants", "[class_balanced, ot]"]


def command(*arguments):
    return [sys.executable, str(ROOT / "launch" / "reproduce.py"), *map(str, arguments)]


def call(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment, timeout=280)


def called(capsys, *arguments):
    """What the command prints, without a process of its own."""
    main([*map(str, arguments)])
    return capsys.readouterr().out


def results(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}


def test_a_grid_is_planned_trained_and_then_left_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    small = [*SMALL, *SHORT, "--model.width_multiplier", "0.25", "--data.num_meta_per_class", "4"]
    runs = tmp_path / "runs"
    plan = called(capsys, *small, "--directory", runs, "--dry-run")
    assert "2 runs, 0 of 6 variants done" in plan
    assert "images a second" in " ".join(plan.split())
    assert not runs.exists()
    assert all(len(line) <= 80 for line in plan.splitlines())

    trained = call(*small, "--directory", runs)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "2 of 2 runs done" in trained.stdout
    first = results(runs)
    assert len(first) == 6

    again = called(capsys, *small, "--directory", runs)
    assert "6 of 6 variants done" in again
    assert "starts" not in again
    assert f"make_table.py {runs}" in again or f"table {runs}" in again
    assert results(runs) == first


def test_ctrl_c_says_the_command_that_goes_on(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Grid, "train", interrupted)
    with pytest.raises(UserInterrupt) as interrupt:
        main([*SMALL, *SHORT, "--directory", str(tmp_path)])
    assert interrupt.value.command.endswith(shlex.join([*SMALL, *SHORT, "--directory", str(tmp_path)]))


@pytest.mark.slow
def test_two_grids_at_once_share_the_work_and_both_tell_the_truth(tmp_path):
    options = [*SMALL, *SHORT, "--directory", tmp_path, "--concurrent", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command(*options), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=280) for process in both]
    for process, (out, err) in zip(both, outputs, strict=True):
        assert process.returncode == 0, out + err
        assert "2 of 2 runs done" in out
        assert "failed" not in out
    assert sum(out.count(": starts") for out, _ in outputs) == 2  # no run twice
    assert len(results(tmp_path)) == 6


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_trains_nothing_twice(tmp_path):
    long = [*SMALL, "--stage1.epochs", "40", "--stage2.epochs", "10", "--run.tensorboard", "false", "--directory", tmp_path]
    process = subprocess.Popen(command(*long), env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not results(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    before = results(tmp_path)
    assert 0 < len(before) < 12
    done = call(*long)
    assert done.returncode == 0, done.stdout + done.stderr
    after = results(tmp_path)
    assert len(after) == 12
    assert before.items() <= after.items()


@pytest.mark.slow
def test_a_budget_stops_it_and_the_next_call_goes_on(tmp_path):
    long = [*SMALL, "--stage1.epochs", "60", "--stage2.epochs", "10", "--run.tensorboard", "false", "--directory", tmp_path]
    first = call(*long, "--budget-minutes", "0.4")
    assert first.returncode == 0, first.stderr
    assert "stopped" in first.stdout
    assert "the same command goes on" in first.stdout
    assert "2 of 2 runs done" in call(*long).stdout


def test_a_failing_run_is_named_with_its_reason_and_the_exit_code_tells(tmp_path):
    done = call(*SMALL, "--seeds", "0", "--data.num_meta_per_class", "1000", "--directory", tmp_path)
    assert done.returncode == 1
    assert "failed with exit code 2: error: " in done.stdout
    assert "0 of 1 runs done; 1 failed" in done.stdout


def test_data_that_are_not_there_are_one_line_for_all_runs(tmp_path):
    done = call("--presets", "official", "--datasets", "cifar10", "--factors", "20", "50", "--seeds", "0", "1",
                "--directory", tmp_path / "runs", "--data.root", tmp_path / "nothing", "--data.cache", "")  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: data.root must hold cifar10/*.parquet")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--presets", "nothing"], "--presets must name some of"),
        (["--concurrent", "0"], "--concurrent must be >= 1, got 0"),
        (["--budget-minutes", "-1"], "--budget-minutes must be > 0"),
        (["--seeds", "x"], "argument --seeds: invalid int value: 'x'"),
        (["--run.seed", "3"], "--run.seed is set by the grid"),
        (["--no.such", "1"], "no.such"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(UserError) as error:
        main(["--directory", str(tmp_path / "runs"), *arguments])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_bad_input_ends_the_script_with_code_2(tmp_path):
    done = call("--directory", tmp_path / "runs", "--concurrent", "0")
    assert (done.returncode, done.stderr) == (2, "error: --concurrent must be >= 1, got 0\n")


def test_a_study_counts_the_conditions_that_were_chosen(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Grid, "train", lambda *_: [])
    chosen = ["--datasets", "digits", "--seeds", "0", "--cells", "symmetric40", "--directory", str(tmp_path)]
    experiment.main("noise_tail", chosen)
    out = capsys.readouterr().out
    assert out.startswith("Wrong labels and a long tail: 1 of 7 conditions")
    assert "1 run, " in out
