"""Whole runs on digits, in forked processes that can be killed, and what two of them must have in common."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from otrw.commands.exit import exit_with_message
from otrw.commands.train import main
from otrw.config.command_line import parse_config
from otrw.errors import UserInterrupt
from otrw.records import ledger
from otrw.training.run import run
from otrw.training.stop import StopRequest

TINY = [
    "--data.num_meta_per_class=4",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=2",
    "--stage2.epochs=2",
    "--stage2.rounds=2",
    "--variants=[ot_labels_meta]",
    "--run.tensorboard=false",
    "--run.cpu=true",
    "--run.checkpoint_every_steps=2",
]


class StopAfter(StopRequest):
    """As if a signal came before the given look."""

    def __init__(self, num_looks):
        super().__init__()
        self.looks_left = num_looks

    def is_asked(self, num_steps, device):
        self.looks_left -= 1
        if self.looks_left == 0:
            self.signal = signal.SIGTERM
        return super().is_asked(num_steps, device)


def stopped_and_resumed(config, looks):
    """Run, as if signals came after so many looks each, and go on each time; returns how often it was stopped."""
    folder = Path(config.run.directory) / config.run.name
    num_parts = 0
    for num_looks in (*looks, 10**9):
        try:
            run(config, stop=StopAfter(num_looks))
            break
        except UserInterrupt as interrupt:
            num_parts += interrupt.signal == signal.SIGTERM
            config = parse_config([f"--run.resume={folder}"])
    return num_parts


def without_time(result):
    """A result without what knows the time and the folder."""
    return {key: value for key, value in result.items() if key not in ("seconds", "files", "checksum")}


def assert_same_run(left, right):
    """The same variants, and each the same."""
    variants = sorted(path.parent.name for path in Path(right).glob("*/result.json"))
    assert variants == sorted(path.parent.name for path in Path(left).glob("*/result.json"))
    assert variants
    for variant in variants:
        assert_same_variant(Path(left) / variant, Path(right) / variant)


def assert_same_variant(left, right):
    """The same bits of the net, the same lines, the same result, the same weights and predictions."""
    assert_same_net(left, right)
    assert ledger.read_lines(left / "metrics.jsonl") == ledger.read_lines(right / "metrics.jsonl")
    results = [without_time(ledger.read_record(folder).result) for folder in (left, right)]
    assert results[0] == results[1]
    for name in ("weights.parquet", "predictions.parquet"):
        columns, expected = (ledger.read_columns(folder / name) for folder in (left, right))
        assert (columns is None) == (expected is None), (right, name)
        if columns is not None and expected is not None:
            assert columns.keys() == expected.keys()
            assert all((columns[key] == expected[key]).all() for key in expected), (right, name)


def assert_same_net(left, right):
    """The same bits of the nets in two variants' folders."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (left, right))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), (right, name)


def assert_nothing_half_written(folder):
    """No file that was being written is left, and what is there can be read."""
    assert not [path for path in Path(folder).rglob("*") if path.name.startswith(".partial-")]
    for path in Path(folder).rglob("*.json"):
        json.loads(path.read_text())
    for path in Path(folder).rglob("metrics.jsonl"):
        assert path.read_text() == "" or path.read_text().endswith("\n")


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """Exit code; minus the signal where one killed it; None while it runs."""
    said: str
    """Standard error."""


class Training:
    """A training command on one or several forked processes, as a launcher starts them."""

    def __init__(self, folder, arguments, num_processes=1, prepare=lambda: None, action=main):
        """folder: for the logs. prepare: called in each process before the command, to set a limit, say."""
        self.action = action
        self.logs = [Path(folder) / f"log-{time.time_ns()}-{rank}" for rank in range(num_processes)]
        port = _free_port()
        self.pids = [self._fork(rank, num_processes, port, arguments, prepare) for rank in range(num_processes)]
        self.codes = [None] * num_processes

    def _fork(self, rank, num_processes, port, arguments, prepare):
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            log = os.open(self.logs[rank], os.O_CREAT | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115  pytest has its own
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
            if num_processes > 1:
                world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
                os.environ |= {key: str(value) for key, value in world.items()}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                shared = self.logs[0].with_name(f"{self.logs[0].name}-said")
                (shared / str(rank)).mkdir(parents=True, exist_ok=True)
                os.environ["TORCHELASTIC_ERROR_FILE"] = str(shared / str(rank) / "error.json")
            prepare()
            exit_with_message(lambda: self.action(arguments))
            code = 0
        except SystemExit as leaving:
            code = leaving.code or 0
        finally:
            os._exit(code)

    def kill(self, rank, number=signal.SIGKILL):
        """Send a signal to one process, if it still runs."""
        if self.poll(rank) is None:
            os.kill(self.pids[rank], number)

    def poll(self, rank):
        """Exit code of a process, or None."""
        if self.codes[rank] is None:
            pid, status = os.waitpid(self.pids[rank], os.WNOHANG)
            if pid:
                self.codes[rank] = os.waitstatus_to_exitcode(status)
        return self.codes[rank]

    def wait(self, rank, seconds=200.0):
        """How a process ended; TimeoutError, and its end, where it did not."""
        end = time.monotonic() + seconds
        while self.poll(rank) is None:
            if time.monotonic() > end:
                os.kill(self.pids[rank], signal.SIGKILL)
                raise TimeoutError(f"process {rank} still ran after {seconds} s; it said {self.said(rank)!r}")
            time.sleep(0.01)
        return Ended(self.codes[rank], self.said(rank))

    def said(self, rank):
        """What a process printed."""
        return self.logs[rank].read_text(errors="replace")

    def wait_for_lines(self, path, num_lines, seconds=200.0):
        """Wait until metrics.jsonl has so many lines, or a process has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and all(self.poll(rank) is None for rank in range(len(self.pids))):
            if path.is_file() and path.read_bytes().count(b"\n") >= num_lines:
                return
            time.sleep(0.005)

    def end(self):
        """Kill whatever is left."""
        for rank, pid in enumerate(self.pids):
            if self.poll(rank) is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
