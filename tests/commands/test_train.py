"""The train command: its help, its seeds, how it goes on, and what it says to type next."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from otrw.commands import train
from otrw.errors import UserError, UserInterrupt
from otrw.records import ledger
from otrw.training.run import RunResult

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    "--data.imbalance_factor=10",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=1",
    "--stage2.epochs=1",
    "--stage2.rounds=1",
    "--run.cpu=true",
    "--run.tensorboard=false",
    "--variants=class_balanced_meta,ot_meta",
]


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "launch" / "train.py")])
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def call(arguments, capsys):
    train.main(arguments)
    return capsys.readouterr().out


def seeds_trained(monkeypatch, arguments):
    """(seed, name) of each run that a command line asks for."""
    asked = []

    def run(config, console=None, stop=None):
        asked.append((config.run.seed, config.run.name))
        return RunResult(Path("runs") / str(config.run.name), {})

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(train, "print_result", lambda *_, **__: None)
    train.main(arguments)
    return asked


def test_nothing_given_trains_three_seeds_and_anything_given_one(here, monkeypatch):
    assert [seed for seed, _ in seeds_trained(monkeypatch, [])] == [0, 1, 2]
    assert seeds_trained(monkeypatch, ["--ot.epsilon=0.1"]) == [(0, None)]
    assert seeds_trained(monkeypatch, ["--seeds", "1"]) == [(0, None)]
    assert seeds_trained(monkeypatch, ["--seeds=2", "--run.seed=5", "--run.name=x"]) == [(5, "x-seed5"), (6, "x-seed6")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds must be >= 1, got 0"),
        (["--seeds", "many"], "invalid int value: 'many'"),
        (["--seeds"], "expected one argument"),
        (["--help", "otter"], "--help must be followed by one of data, model"),
    ],
)
def test_bad_options_are_one_line(arguments, message, here):
    with pytest.raises(UserError) as error:
        train.main(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds trained by the script as it is typed: (folder, what it printed)."""
    folder = tmp_path_factory.mktemp("seeds")
    command = [sys.executable, str(ROOT / "launch/train.py"), *QUICK, "--seeds=2", "--run.name=few", "--show-classes"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def test_seeds_are_runs_of_their_own_and_a_mean(trained):
    folder, printed = trained
    runs = [folder / "runs" / f"few-seed{seed}" for seed in (0, 1)]
    records = {run.name: {record.path.name: record for record in ledger.find_records([run])} for run in runs}
    assert [record["ot_meta"].config["run"]["seed"] for record in records.values()] == [0, 1]
    errors = [record["ot_meta"].result["test"]["error"] for record in records.values()]
    assert errors[0] != errors[1]
    assert re.search(rf"OT weights \+ meta images +{sum(errors) / 2:.1f} \(", printed)
    assert printed.startswith("2 seeds (0, 1)")
    assert f"python {ROOT}/launch/train.py --seeds 2 --run.name few --data.imbalance_factor=10" in printed
    assert "Test error by class" in printed
    assert "(paired, 2 seeds" in printed


def test_the_command_again_trains_nothing_and_ends_the_same(trained, monkeypatch, capsys):
    folder, printed = trained
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "launch" / "train.py")])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json*")}
    again = call([*QUICK, "--seeds=2", "--run.name=few", "--show-classes"], capsys)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json*")} == before
    ends = [text[text.index("Test error in %") :].split("\n\n")[0].split() for text in (printed, again)]
    assert ends[0] == ends[1]


def test_another_setting_does_not_go_on_with_the_same_name(trained, monkeypatch):
    folder, _ = trained
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"ot\.epsilon must be 0\.2, as runs/few-seed0 was begun with, got 0\.7"):
        train.main([*QUICK, "--seeds=2", "--run.name=few", "--ot.epsilon=0.7"])


def test_seeds_and_resume_exclude_each_other(trained, monkeypatch):
    folder, _ = trained
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"--seeds must not come with --run\.resume"):
        train.main(["--seeds=2", "--run.resume=runs/few-seed0"])


@pytest.mark.slow
def test_two_processes_train_all_seeds_in_one_group(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, str(ROOT / "launch/train.py"), *QUICK, "--seeds=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = sorted((tmp_path / "runs").iterdir())
    assert [run.name.rpartition("-")[2] for run in runs] == ["seed0", "seed1"]
    for record in ledger.find_records(runs):
        assert record.environment["world_size"] == 2
    assert done.stdout.count("Test error in %") == 1
    assert "torchrun --standalone --nproc_per_node=2" in done.stdout


def test_an_interruption_of_several_seeds_carries_the_whole_command(here, monkeypatch):
    def run(config, console=None, stop=None):
        if config.run.seed == 1:
            raise KeyboardInterrupt
        return RunResult(Path("runs"), {})

    monkeypatch.setattr(train, "run", run)
    with pytest.raises(UserInterrupt) as interrupt:
        train.main(["--seeds", "3", "--run.name", "my run", "--ot.epsilon", "0.3"])
    command = interrupt.value.command
    assert command == f"python {ROOT}/launch/train.py --seeds 3 --run.name 'my run' --ot.epsilon 0.3"


def test_next_commands_name_the_folder_and_keep_the_settings(here):
    (_, report), (_, curves), (_, more) = train._next_commands([Path("runs/a b")], ["--ot.epsilon=0.3", "--run.name", "a b"])
    assert report == f"python {ROOT}/analysis/report.py 'runs/a b'"
    assert curves == "tensorboard --logdir 'runs/a b'"
    # the name stays: without it a name in a --config would put these beside the runs of another
    assert more == f"python {ROOT}/launch/train.py --seeds 3 --ot.epsilon=0.3 --run.name 'a b'"
    *_, (_, more) = train._next_commands([Path("runs/x")], ["--run.resume", "runs/x"])
    assert more.endswith("--seeds 3 --config runs/x/config.yaml")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--config", "official", "--help"]])
def test_help_begins_with_examples_and_explains_in_80_columns(arguments, here, capsys):
    lines = call(arguments, capsys).splitlines()
    assert lines[0].startswith("Train on long-tailed data")
    example = next(number for number, line in enumerate(lines) if "--config cifar10_lt" in line)
    settings = next(number for number, line in enumerate(lines) if line.startswith("--data.KEY"))
    assert example < 12 < settings < 30
    for line in lines:
        assert len(line.replace(str(ROOT) + "/", "")) <= 80, line
    trainable = next(line for line in lines if line.startswith("  trainable "))
    assert trainable.split()[1] == ("classifier" if "official" in arguments else "scratch")


def test_help_of_a_section(here, capsys):
    text = call(["--help", "ot"], capsys)
    assert text.startswith("ot: ")
    assert "Entropic regulariser" in text
    assert "--stage2" not in text


def test_the_module_and_the_script_explain_alike(here, monkeypatch, capsys):
    texts = []
    for program, name in (("otrw/__main__.py", ["train"]), ("launch/train.py", [])):
        monkeypatch.setattr(sys, "argv", [str(ROOT / program), *name, "--help"])
        with contextlib.suppress(SystemExit):
            runpy.run_path(str(ROOT / program), run_name="__main__")
        texts.append(capsys.readouterr().out.replace("-m otrw train", f"{ROOT}/launch/train.py"))
    assert "--ot.KEY" in texts[0]
    assert " ".join(texts[0].split()) == " ".join(texts[1].split())  # longer names wrap elsewhere


def test_the_table_is_printed_where_a_console_is(trained):
    folder, _ = trained
    written = io.StringIO()
    console = Console(file=written, width=80)
    results = {record.path.name: record.result for record in ledger.find_records([folder / "runs" / "few-seed0"])}
    train.print_result(console, [(folder / "runs" / "few-seed0", results)])
    assert "One seed, 602 test samples" in written.getvalue()
