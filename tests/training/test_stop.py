"""A run that is asked to end, or is killed, in the middle of an epoch goes on with the next step: the same bits as without."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from whole_runs import StopAfter, Training, assert_same_run, stopped_and_resumed

from otrw.config.command_line import parse_config
from otrw.records import ledger
from otrw.training import checkpoints
from otrw.training.phase_state import EpochSoFar, load_phase, save_phase
from otrw.training.run import run
from otrw.training.stop import StopRequest

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--data.num_meta_per_class=4",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=2",
    "--stage2.epochs=2",
    "--stage2.rounds=1",
    "--run.tensorboard=false",
    "--data.cache=",
    "--run.cpu=true",
]
BATCH = ["--ot.scope=batch", "--ot.label_softening=0", "--ot.label_transport=0"]
SGD = [*BATCH, "--ot.weights=sgd", "--stage2.trainable=classifier"]
WAYS = {
    "images": ["--variants=[ot_labels_meta]", "--stage2.rounds=2"],
    "sampling, moving weights": ["--variants=[ot]", "--stage2.apply_weights=sampling", "--stage2.refresh_every_epochs=1"],
    "batch scope, moving net": ["--variants=[ot]", *BATCH, "--stage2.trainable=all"],
    "batch scope, cached": ["--variants=[ot]", *SGD],
    "batch scope, forward": ["--variants=[ot_meta]", *SGD, "--stage2.embeddings=forward", "--stage2.meta_batch_size=16"],
    "mixup": ["--variants=[class_balanced_meta]", "--stage1.mixup_alpha=0.4", "--stage2.mixup_alpha=0.4"],
}
QUICK = ("sampling, moving weights", "batch scope, moving net")


def config_of(folder, name, *arguments):
    return parse_config([*TINY, f"--run.directory={folder}", f"--run.name={name}", *arguments])


@pytest.mark.parametrize("way", [way if way in QUICK else pytest.param(way, marks=pytest.mark.slow) for way in WAYS])
def test_every_way_of_training_goes_on_inside_an_epoch(tmp_path, way):
    run(config_of(tmp_path, "whole", *WAYS[way]))
    looks = (3, 9, 5, 7)  # there are 7 steps, and so many looks, in each epoch
    assert stopped_and_resumed(config_of(tmp_path, "cut", *WAYS[way]), looks) == 4
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def on_two_processes(folder, arguments, looks=10**9):
    """Exit codes of a run on two processes that is asked to end after so many looks."""
    training = Training(folder, arguments, 2, action=lambda words: run(parse_config(words), stop=StopAfter(looks)))
    return [training.wait(rank).code for rank in range(2)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_with_statistics_of_their_own_go_on_inside_an_epoch(tmp_path):
    """BatchNorm's statistics are each process's own until the epoch ends."""
    arguments = [*TINY, "--model.name=resnet20", "--variants=[stage1]", f"--run.directory={tmp_path}"]
    assert on_two_processes(tmp_path, [*arguments, "--run.name=whole"]) == [0, 0]
    assert on_two_processes(tmp_path, [*arguments, "--run.name=cut"], looks=4) == [128 + signal.SIGTERM] * 2
    assert list((tmp_path / "cut").rglob("*-step-0000004"))
    assert on_two_processes(tmp_path, [f"--run.resume={tmp_path / 'cut'}"]) == [0, 0]
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def launched(num_processes, arguments, **options):
    """A training command in a process group of its own, with the launcher that the number of processes needs."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [*(launcher if num_processes > 1 else [sys.executable]), "launch/train.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        **options,
    )


def wait_for_epochs(folder, num_lines, seconds=200):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if folder.is_file() and len(folder.read_text().splitlines()) >= num_lines:
            return
        time.sleep(0.02)
    raise TimeoutError(folder)


LONG = [*TINY, "--stage1.epochs=400", "--variants=[stage1]", "--run.name=r"]


def is_whole_resume_command(text, folder, num_processes):
    (command,) = re.findall(r"go on with: (.*)", text)
    words = shlex.split(command)
    assert words[-2:] == ["--run.resume", str(folder)]
    assert words[0] == ("python" if num_processes == 1 else "torchrun")
    return words


@pytest.mark.parametrize(
    ("name", "num_processes"),
    [
        pytest.param("SIGTERM", 1, marks=pytest.mark.slow),
        pytest.param("SIGINT", 1, marks=pytest.mark.slow),
        pytest.param("SIGHUP", 1, marks=pytest.mark.slow),
        pytest.param("SIGUSR1", 1, marks=pytest.mark.slow),
        ("SIGTERM", 2),
        pytest.param("SIGINT", 2, marks=pytest.mark.slow),
        pytest.param("SIGHUP", 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_between_two_steps_and_says_the_whole_command(tmp_path, name, num_processes):
    number = getattr(signal, name)
    process = launched(num_processes, [*LONG, f"--run.directory={tmp_path}"])
    folder = tmp_path / "r"
    wait_for_epochs(folder / "stage1" / "metrics.jsonl", 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert f"interrupted{'' if name == 'SIGINT' else f' by {name}'}; go on with: " in errors
    is_whole_resume_command(errors, folder, num_processes)
    if num_processes == 1:
        assert process.returncode == 128 + number
        assert errors.count("\n") == 1
    else:
        assert errors.count("interrupted") == 1  # once, not once a process; the launcher's own report is below it
    num_lines = len(ledger.read_lines(folder / "stage1" / "metrics.jsonl"))
    (checkpoint,) = (folder / "stage1" / "checkpoints").iterdir()
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    assert (state["epoch"], state["num_lines"]) == (num_lines, num_lines)  # nothing of what was done is done again


@pytest.mark.slow
def test_processes_notice_that_their_launcher_was_killed(tmp_path):
    process = launched(2, [*LONG, f"--run.directory={tmp_path}"], start_new_session=True)
    path = tmp_path / "r" / "stage1" / "metrics.jsonl"
    wait_for_epochs(path, 2)
    process.kill()
    _, errors = process.communicate(timeout=200)  # ends when the last process has closed its side
    assert "interrupted by SIGTERM; go on with: torchrun" in errors
    num_lines = len(ledger.read_lines(path))
    time.sleep(1)
    assert len(ledger.read_lines(path)) == num_lines < 400
    assert not ledger.is_locked(tmp_path / "r")


def test_the_loss_scale_of_half_precision_is_part_of_a_checkpoint(tmp_path):
    def session(scale):
        accelerator = SimpleNamespace(scaler=torch.amp.GradScaler("cpu", init_scale=scale), device=torch.device("cpu"))
        journal = SimpleNamespace(folder=tmp_path, num_lines=0, lines=str, seconds=float)
        config = SimpleNamespace(run=SimpleNamespace(keep_checkpoints=1))
        return SimpleNamespace(accelerator=accelerator, journal=journal, config=config)

    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    phase = SimpleNamespace(stage="stage1", round=1, module=module, sample_by_weighting=False)
    phase.weighting = SimpleNamespace(state_dict=dict)
    training = SimpleNamespace(optimizer=optimizer, schedule=schedule, loader=[None] * 5, average=None)
    so_far = EpochSoFar(0, 3, 0.1, torch.tensor([4.0, 2.0]), torch.tensor(-1))
    first, second = session(256.0), session(65536.0)
    first.accelerator.scaler.scale(torch.tensor(1.0))  # it begins with its first use
    save_phase(first, phase, training, so_far)
    begun = load_phase(second, phase, training, checkpoints.load_latest(tmp_path / "checkpoints"))
    assert second.accelerator.scaler.get_scale() == 256.0
    assert (begun.epoch, begun.num_steps, begun.summed.tolist()) == (0, 3, [4.0, 2.0])


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    others = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with StopRequest().listening():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, others)


def test_a_second_interrupt_does_not_wait_for_the_step():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with StopRequest().listening() as stop, stop.while_training():
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


KILLED_AT_A_STEP = """
import os, signal, sys
from otrw.config.command_line import parse_config
from otrw.training.run import run
from otrw.training.stop import StopRequest

class KilledAfter(StopRequest):
    looks = 0
    def is_asked(self, num_steps, device):
        self.looks += 1
        if self.looks == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().is_asked(num_steps, device)

run(parse_config(sys.argv[2:]), stop=KilledAfter())
"""


def test_a_killed_run_repeats_at_most_the_steps_since_its_last_checkpoint(tmp_path):
    arguments = [
        "--variants=[stage1]",
        "--stage1.epochs=3",
        "--run.checkpoint_every_steps=2",
        "--run.checkpoint_every_epochs=3",
    ]
    run(config_of(tmp_path, "whole", *arguments))
    config = [*TINY, *arguments, f"--run.directory={tmp_path}", "--run.name=cut"]
    done = subprocess.run([sys.executable, "-c", KILLED_AT_A_STEP, "13", *config], timeout=250, check=False)
    assert done.returncode == -signal.SIGKILL
    (checkpoint,) = (tmp_path / "cut" / "stage1" / "checkpoints").iterdir()
    assert checkpoint.name == "round-001-epoch-00001-step-0000004"
    run(parse_config([f"--run.resume={tmp_path / 'cut'}"]))
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
