"""The training script as it is called: bad input is one line on standard error, exit code 2, and nothing left behind."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from otrw.commands.exit import exit_with_message
from otrw.config import RunConfig
from otrw.errors import UserError, UserInterrupt
from otrw.training.process_group import start_accelerator

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "launch" / "train.py")
LAUNCHER_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION")


def clean_environment(**variables):
    inherited = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    return inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables


def call(folder, *arguments, launcher=(), **variables):
    command = [sys.executable, *launcher, SCRIPT, *arguments, f"--run.directory={folder / 'runs'}", "--run.cpu=true"]
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment(**variables), capture_output=True, text=True, timeout=240, check=False
    )


def call_here(monkeypatch, capfd, *arguments, **variables):
    """The script run in this process as Python runs it: (exit code, lines on standard error)."""
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(SCRIPT, run_name="__main__")
    return leaving.value.code, capfd.readouterr().err.splitlines()


def assert_one_error(lines, *parts):
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def assert_nothing_left(folder):
    assert [path for path in folder.rglob("*") if path.name != "runs"] == []


def test_an_unknown_preset_by_a_process_of_its_own(tmp_path):
    done = call(tmp_path, "--config", "cifar11")
    assert done.returncode == 2
    assert done.stdout == ""
    assert_one_error(done.stderr.splitlines(), "'cifar11'", "digits_lt", "cifar10_lt")
    assert_nothing_left(tmp_path)


def test_two_processes_print_an_error_once(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = call(tmp_path, "--ot.epsilon", "-1", launcher=launcher)
    assert done.returncode != 0
    errors = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("error: ")]
    assert_one_error(errors, "ot.epsilon must be > 0, got -1.0")
    assert "Traceback (most recent call last)" not in done.stdout
    cause = done.stderr[done.stderr.index("Root Cause") :]
    assert "traceback : error: ot.epsilon must be > 0, got -1.0" in cause  # where a launcher's report ends, too
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--ot.epsilon", "0"], ["ot.epsilon must be > 0, got 0"]),
        (["--ot.epsilom", "0.1"], ["--ot.epsilom"]),
        (["--ot.epsilon", "small"], ["ot.epsilon", "'small'"]),
        (["--variants", "[ot_meta, magic]"], ["variants", "'magic'", "ot_meta,class_balanced_meta", "--help variants"]),
        (["--run.precision", "fp16", "--run.cpu", "true"], ["run.precision", "'fp16'"]),
        (
            ["--config", "cifar10_lt", "--data.root", "nowhere", "--run.cpu", "true"],
            ["data.root", "'nowhere'", "--data.download"],
        ),
        (["--data.num_meta_per_class", "500", "--run.cpu", "true"], ["data.num_meta_per_class", "got 500", "images of class"]),
        (["--data.imbalance_factor", "5000", "--run.cpu", "true"], ["data.imbalance_factor", "5000"]),
        (["--stage1.checkpoint", "nowhere", "--run.cpu", "true"], ["stage1.checkpoint nowhere cannot be read"]),
        (["--run.resume", "nowhere"], ["run.resume", "'nowhere'"]),
        (["--ot.eps", "0.1"], ["--ot.eps is no setting; did you mean ot.epsilon?"]),
        (["--run.seed", "9" * 400], ["run.seed", "at most 100 digits"]),
        (["--run.timeout_seconds", "1e300"], ["run.timeout_seconds must be in (0, 31536000]"]),
        (["--data.root", "x"], ["data.root", "--data.source cifar10"]),
        (["--run.name", "a\0b"], ["UTF-8 without NUL"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_bad_input(arguments, parts, tmp_path, monkeypatch, capfd):
    code, lines = call_here(monkeypatch, capfd, *arguments, "--run.directory", str(tmp_path / "runs"))
    assert code == 2
    assert_one_error(lines, *parts)
    assert_nothing_left(tmp_path)


def test_a_launcher_that_started_one_process_where_several_were_asked_for(tmp_path, monkeypatch, capfd):
    code, lines = call_here(monkeypatch, capfd, "--run.directory", str(tmp_path / "runs"), MASTER_ADDR="127.0.0.1")
    assert code == 2
    assert_one_error(lines, "WORLD_SIZE", "MASTER_ADDR", "launch/accelerate/cpu_2.yaml", "torchrun")
    assert_nothing_left(tmp_path)


def test_a_run_directory_that_cannot_be_made(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("not a folder")
    directory = str(tmp_path / "file" / "runs")
    code, lines = call_here(monkeypatch, capfd, "--run.cpu", "true", "--run.directory", directory)
    assert code == 2
    assert_one_error(lines, "run.directory must be writable", repr(directory), "choose another")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_a_run_name_that_is_not_the_name_of_a_folder(name, tmp_path, monkeypatch, capfd):
    arguments = ["--run.cpu", "true", "--run.directory", str(tmp_path / "runs"), "--run.name", name]
    code, lines = call_here(monkeypatch, capfd, *arguments)
    assert code == 2
    assert_one_error(lines, "run.name")
    assert_nothing_left(tmp_path)


def test_help_and_printed_settings_leave_with_0(monkeypatch, capfd):
    for argument in ("--help", "--print_config"):
        monkeypatch.setattr(sys, "argv", [SCRIPT, argument])
        code: object = 0
        try:
            runpy.run_path(SCRIPT, run_name="__main__")
        except SystemExit as leaving:
            code = leaving.code or 0
        assert code == 0
        printed = capfd.readouterr()
        assert "epsilon" in printed.out
        assert printed.err == ""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("ot.epsilon must be > 0"), 2, "error: ot.epsilon must be > 0"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (UserInterrupt(), 130, "interrupted"),
        (UserInterrupt(command="python x"), 130, "interrupted; go on with: python x"),
        (
            UserInterrupt(Path("my runs/a")),
            130,
            "interrupted; go on with: python -m otrw train --run.resume 'my runs/a'",
        ),
    ],
)
def test_errors_become_a_line_and_an_exit_code(error, code, message, monkeypatch, capfd):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["otrw/__main__.py"])

    def action():
        raise error

    with pytest.raises(SystemExit) as leaving:
        exit_with_message(action)
    assert leaving.value.code == code
    assert capfd.readouterr() == ("", f"{message}\n")


def test_another_process_than_the_first_says_nothing_and_leaves_with_the_same_code(monkeypatch, capfd):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("otrw.commands.exit.time.sleep", lambda _: None)

    def action():
        raise UserError("bad")

    with pytest.raises(SystemExit) as leaving:
        exit_with_message(action)
    assert leaving.value.code == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), KeyError("a bug")])
def test_bugs_keep_their_traceback(error):
    def action():
        raise error

    with pytest.raises(type(error)):
        exit_with_message(action)


def test_the_launcher_trap_is_an_error_to_python_callers_too(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match="MASTER_ADDR without it"):
        start_accelerator(RunConfig(cpu=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_half_precision_is_refused_where_there_is_no_gpu(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match=r"run\.precision must be 'no' or 'bf16' on a CPU, got 'fp16'"):
        start_accelerator(RunConfig(precision="fp16"))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UserError, match=r"run\.precision must be 'no' or 'bf16' on a CPU, got 'fp16'"):
        start_accelerator(RunConfig())


@pytest.mark.parametrize("option", ["--data.source=folder --data.root", "--stage1.checkpoint", "--run.directory"])
def test_a_home_of_nobody_is_one_line(monkeypatch, capfd, option):
    code, lines = call_here(monkeypatch, capfd, "--run.tensorboard=false", *f"{option}=~nobody-of-this-name/x".split())
    assert code == 2
    assert_one_error(lines, "~NAME of a user", "~nobody-of-this-name/x", "write it out")
