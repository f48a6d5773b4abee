"""Runs under faults end with the bits of an undisturbed run, or with one line; never with other numbers."""

import contextlib
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest
from whole_runs import TINY, StopAfter, Training, assert_nothing_half_written, assert_same_run

from otrw.config.command_line import parse_config
from otrw.errors import RunEndedError, UserError, UserInterrupt
from otrw.records import ledger
from otrw.training.run import run

pytestmark = pytest.mark.timeout(900)
SAME_BITS = "goes on, and ends with the same bits"
ONE_LINE = "one line, nothing half-written; goes on with the same bits"
NO_OTHER_NUMBERS = "one line, or the same bits"
NUM_KILLS = 8
"""In one run."""
TIMEOUT_SECONDS = 45
"""Also of the start, which a busy machine makes long."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """{number of processes: a run that nothing happened to}, trained when first asked for."""
    folder, runs = tmp_path_factory.mktemp("undisturbed"), {}

    def run_on(num_processes):
        if num_processes not in runs:
            arguments = [*TINY, "--data.cache=", f"--run.directory={folder}", f"--run.name=on{num_processes}"]
            training = Training(folder, arguments, num_processes)
            for rank in range(num_processes):
                ended = training.wait(rank)
                assert ended.code == 0, ended.said
            runs[num_processes] = folder / f"on{num_processes}"
        return runs[num_processes]

    return run_on


def begin(folder, num_processes=1, prepare=lambda: None, *more):
    """Begin a run called "r", or go on with it where it has begun."""
    arguments = [*TINY, f"--data.cache={folder}/cache", f"--run.directory={folder}", "--run.name=r", *more]
    if (folder / "r" / "config.yaml").exists():
        arguments = [f"--run.resume={folder / 'r'}", *more]
    elif (folder / "r").exists():
        (folder / "r").rmdir()
    return Training(folder, arguments, num_processes, prepare)


def finish(folder, num_processes=1):
    training = begin(folder, num_processes)
    for rank in range(num_processes):
        ended = training.wait(rank)
        assert ended.code == 0, ended.said


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_killed_at_random_moments(undisturbed, tmp_path, tally, num_processes):
    draw = random.Random(NUM_KILLS)
    held = [tally(f"kill -9, {num_processes} process(es)", SAME_BITS) for _ in range(NUM_KILLS)]
    for _ in range(NUM_KILLS):
        training = begin(tmp_path, num_processes)
        path = tmp_path / "r" / draw.choice(["stage1", "ot_labels_meta"]) / "metrics.jsonl"
        training.wait_for_lines(path, draw.randrange(1, 5))
        time.sleep(draw.random() * 0.2)
        for rank in range(num_processes):
            training.kill(rank)
        training.end()
    finish(tmp_path, num_processes)
    assert_same_run(tmp_path / "r", undisturbed(num_processes))
    assert_nothing_half_written(tmp_path / "r")
    for one in held:
        one()


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_at_random_moments(undisturbed, tmp_path, tally, name, num_processes):
    draw, number = random.Random(name), getattr(signal, name)
    held = tally(f"{name}, {num_processes} process(es)", SAME_BITS)
    for stage, num_lines in (("stage1", 1), ("stage1", 2), ("ot_labels_meta", 1), ("ot_labels_meta", 3)):
        training = begin(tmp_path, num_processes)
        training.wait_for_lines(tmp_path / "r" / stage / "metrics.jsonl", num_lines)
        time.sleep(draw.random() * 0.1)
        for rank in range(num_processes):
            training.kill(rank, number)
        ended = [training.wait(rank) for rank in range(num_processes)]
        assert {one.code for one in ended} <= {0, 128 + number}, ended
        said = "".join(one.said for one in ended)
        assert "Traceback" not in said
        if 0 not in {one.code for one in ended}:
            assert len(re.findall(rf"interrupted.*go on with: .* --run.resume {tmp_path / 'r'}$", said, re.MULTILINE)) == 1
    finish(tmp_path, num_processes)
    assert_same_run(tmp_path / "r", undisturbed(num_processes))
    held()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_of_two_processes_is_lost_or_hangs(undisturbed, tmp_path, tally, number, lost):
    held = tally(f"{number.name} to one of two processes", "the other ends with one line and the whole command; " + SAME_BITS)
    training = begin(tmp_path, 2, lambda: None, f"--run.timeout_seconds={TIMEOUT_SECONDS}")
    training.wait_for_lines(tmp_path / "r" / "ot_labels_meta" / "metrics.jsonl", 2)
    training.kill(lost, number)
    ended = training.wait(1 - lost)
    training.end()
    assert ended.code == 1
    assert "Traceback" not in ended.said
    (line,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert ("did not answer" if number == signal.SIGSTOP else "another process has ended") in line
    assert "go on with: torchrun --standalone --nproc_per_node=2 " in line
    assert line.endswith(f"--run.resume {tmp_path / 'r'}")
    finish(tmp_path, 2)
    assert_same_run(tmp_path / "r", undisturbed(2))
    held()


@pytest.mark.parametrize(
    "most_bytes",
    [3000, *(pytest.param(size, marks=pytest.mark.slow) for size in (0, 8000, 20_000, 50_000, 100_000))],
)
def test_files_that_cannot_grow(undisturbed, tmp_path, tally, most_bytes):
    """RLIMIT_FSIZE: on one process and wherever the tests run, unlike a small file system."""
    held = tally("no file can grow beyond a size", ONE_LINE)
    before = begin(tmp_path)
    before.wait_for_lines(tmp_path / "r" / "stage1" / "metrics.jsonl", 1)
    before.kill(0)
    before.end()
    log_size = 3000  # the log of the process is a file too

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(most_bytes, log_size), resource.RLIM_INFINITY))

    training = begin(tmp_path, 1, limit)
    ended = training.wait(0)
    if ended.code != 0:
        (line,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
        assert ended.code == 1
        assert "Traceback" not in ended.said
        assert "File too large" in line
        assert "--run.resume" in line
    assert_nothing_half_written(tmp_path / "r")
    finish(tmp_path)
    assert_same_run(tmp_path / "r", undisturbed(1))
    held()


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], timeout=20, check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], timeout=20, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "tensorboard", "num_processes"),
    [
        *((f"{k}k", "false", 1) for k in (16, 40, 64, 90, 120, 160, 200, 280)),
        *((f"{k}k", "true", 1) for k in (100, 200, 400)),
        *((f"{k}k", "false", 2) for k in (64, 120, 200)),
    ],
)
def test_full_disk(undisturbed, tmp_path, tally, size, tensorboard, num_processes):
    disk = tmp_path / "disk"
    with small_disk(disk, size):
        held = tally(f"full disk, {num_processes} process(es)", ONE_LINE)
        arguments = [*TINY, f"--data.cache={disk}/cache", f"--run.directory={disk}", "--run.name=r"]
        training = Training(tmp_path, [*arguments, f"--run.tensorboard={tensorboard}"], num_processes)
        ended = [training.wait(rank) for rank in range(num_processes)]
        if any(one.code for one in ended):
            said = "".join(one.said for one in ended)
            assert "Traceback" not in said
            assert {one.code for one in ended} <= {1, 2}
            lines = {line for line in said.splitlines() if line.startswith("error: ")}
            assert any("No space left on device" in line for line in lines), lines
            assert len(lines) <= num_processes
        assert_nothing_half_written(disk)
        remount(disk, "size=50m")
        begun = (disk / "r" / "config.yaml").exists()
        resumed = Training(tmp_path, [f"--run.resume={disk / 'r'}"] if begun else arguments, num_processes)
        for rank in range(num_processes):
            ended = resumed.wait(rank)
            assert ended.code == 0, ended.said
        assert_same_run(disk / "r", undisturbed(num_processes))
        held()


@pytest.mark.slow
def test_read_only_disk(undisturbed, tmp_path, tally):
    disk = tmp_path / "disk"
    with small_disk(disk, "50m"):
        held = tally("read-only disk", ONE_LINE)
        training = begin(disk)
        training.wait_for_lines(disk / "r" / "stage1" / "metrics.jsonl", 1)
        training.kill(0)
        training.end()
        shutil.copytree(disk / "r", tmp_path / "before")
        logs = tmp_path / "logs"
        logs.mkdir()
        remount(disk, "ro")
        for arguments in ([f"--run.resume={disk / 'r'}"], [*TINY, f"--data.cache={disk}/cache", f"--run.directory={disk}"]):
            ended = Training(logs, arguments).wait(0)
            (line,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
            assert ended.code in (1, 2)
            assert "Read-only file system" in line
            assert "Traceback" not in ended.said
        remount(disk, "rw")
        finish(disk)
        assert_same_run(disk / "r", undisturbed(1))
        held()


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A run whose stage 1 is finished, and which was stopped inside an epoch of stage 2."""
    folder = tmp_path_factory.mktemp("half")
    config = parse_config([*TINY, f"--data.cache={folder}/cache", f"--run.directory={folder}", "--run.name=r"])
    with pytest.raises(UserInterrupt):
        run(
            config,
            stop=StopAfter(2 * 7 + 7 + 3),  # 7 looks an epoch
        )
    return folder


def damages(draw, content):
    """A way to damage a file, and what it then holds; None is a file that is gone."""
    place = draw.randrange(max(1, len(content)))
    flipped = bytearray(content)
    if content:
        flipped[place] ^= 1 << draw.randrange(8)
    end = min(len(content), place + 64)
    return draw.choice(
        [
            ("flipped bit", bytes(flipped)),
            ("flipped bit", bytes(flipped)),
            ("truncated", content[:place]),
            ("zeroed bytes", content[:place] + bytes(end - place) + content[end:]),
            ("emptied", b""),
            ("deleted", None),
        ]
    )


def resumed(folder):
    """Go on with the run of a folder; what it, or a reader of its columns, says where it refuses, None where all went well."""
    try:
        run(parse_config([f"--run.resume={folder / 'r'}", f"--data.cache={folder}/cache"]))
        for path in folder.glob("r/*/*.parquet"):
            ledger.read_columns(path)
    except (UserError, RunEndedError) as error:
        return str(error)
    return None


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("seed", "num_trials"), [(0, 3), *(pytest.param(k, 60, marks=pytest.mark.slow) for k in range(1, 6))])
def test_damage_to_any_file_of_a_run(undisturbed, half_done, tmp_path, tally, seed, num_trials):
    draw = random.Random(seed)
    names = files_of(half_done)
    assert len(names) >= 12
    expected = undisturbed(1)
    for number in range(num_trials):
        name = names[number % len(names)] if num_trials > len(names) else draw.choice(names)
        folder = tmp_path / str(number)
        shutil.copytree(half_done, folder)
        fault, content = damages(draw, (folder / name).read_bytes())
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        kind = "cache" if name.startswith("cache") else re.sub(r"round-.*/", "", name)
        held = tally(f"{fault}: {kind}", NO_OTHER_NUMBERS)
        message = resumed(folder)
        if content is None and name.endswith("predictions.parquet") and not (folder / name).exists():
            assert message is None  # nothing of a finished variant that going on needs: a reader sees that it is gone
        elif message is None:
            assert_same_run(folder / "r", expected)
        else:
            assert 0 < len(message) < 1000
            assert "\n" not in message, (fault, name)
        held()
        shutil.rmtree(folder)
