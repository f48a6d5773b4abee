"""Commands to type next are written as this one was called."""

import shlex
import sys
from pathlib import Path

import pytest

from otrw.commands.invocation import SCRIPTS, command_line, resume_command

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_scripts_exist():
    assert all((ROOT / script).is_file() for script in SCRIPTS.values())


@pytest.mark.parametrize(
    ("folder", "called", "train", "report"),
    [
        (ROOT, "launch/train.py", "python launch/train.py", "python analysis/report.py"),
        (ROOT, "./launch/train.py", "python launch/train.py", "python analysis/report.py"),
        (ROOT / "launch", "train.py", f"python {ROOT}/launch/train.py", f"python {ROOT}/analysis/report.py"),
        (ROOT / "tests", "../launch/train.py", f"python {ROOT}/launch/train.py", f"python {ROOT}/analysis/report.py"),
        (ROOT.parent, f"{ROOT.name}/launch/train.py", None, f"python {ROOT.name}/analysis/report.py"),
        (ROOT, str(ROOT / "otrw" / "__main__.py"), "python -m otrw train", "python -m otrw report"),
        (ROOT, "-c", "python -m otrw train", "python -m otrw report"),
        (ROOT, "tools/mytrain.py", "python -m otrw train", "python -m otrw report"),
    ],
)
def test_from_the_checkout_and_as_a_module(folder, called, train, report, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [called])
    assert command_line("train") == (train or f"python {ROOT.name}/launch/train.py")
    assert command_line("report") == report


def test_resuming_quotes_the_folder_and_keeps_the_processes(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["launch/train.py"])
    folder = Path("my runs/a$b")
    assert resume_command(folder) == "python launch/train.py --run.resume 'my runs/a$b'"
    assert shlex.split(resume_command(folder))[-1] == str(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resume_command(Path("runs/a")) == "torchrun --standalone --nproc_per_node=2 launch/train.py --run.resume runs/a"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resume_command(Path("runs/a")) == "YOUR_LAUNCHER launch/train.py --run.resume runs/a"
