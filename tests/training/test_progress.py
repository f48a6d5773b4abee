"""Progress by a clock of the test's own: speed, time left, and how often a log file hears of it."""

import io
import re
from itertools import pairwise

import pytest
from rich.console import Console

from otrw.training.progress import Progress, duration


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def train(progress, clock, *, epochs, steps, seconds_a_step, evaluate_every=1, start=0, evaluation_seconds=0.0, samples=64):
    """(time, line) of everything that a log file is told."""
    heard, begun = [], clock.now
    progress.say = lambda text: heard.append((clock.now - begun, text))
    progress.variant = "class_balanced_meta"
    progress.phase("stage2", 1, start, epochs)
    for epoch in range(start, epochs):
        for step in range(steps):
            clock.now += seconds_a_step
            progress.step(step + 1, steps, samples)
        line = {"epoch": epoch + 1, "train": {"loss": 1.25}}
        if (epoch + 1) % evaluate_every == 0 or epoch + 1 == epochs:
            clock.now += evaluation_seconds
            line["test"] = {"error": 43.21}
        progress.epoch(line)
    return heard


@pytest.fixture
def log():
    clock = Clock()
    return Progress(Console(file=io.StringIO(), force_terminal=False, width=80), clock), clock


def test_a_short_phase_is_one_line_at_its_end(log):
    heard = train(*log, epochs=40, steps=12, seconds_a_step=0.01)
    assert [text for _, text in heard] == ["class_balanced_meta         epoch 40/40  6,400 images/s  error 43.2 %  in 0:05"]


@pytest.mark.parametrize(("epochs", "steps", "seconds_a_step"), [(3, 700, 0.3), (60, 97, 0.4), (90, 620, 0.15), (1, 50, 30)])
def test_a_long_phase_is_never_silent_for_long_nor_talkative(log, epochs, steps, seconds_a_step):
    heard = train(*log, epochs=epochs, steps=steps, seconds_a_step=seconds_a_step)
    times = [moment for moment, _ in heard]
    total = epochs * steps * seconds_a_step
    assert times[0] <= 10 + seconds_a_step
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= 120 + seconds_a_step
    assert min(gaps[:-1]) >= 30  # the last line of a phase comes when the phase ends
    assert len(heard) <= 3 + max(20, total / 120)
    assert times[-1] == pytest.approx(total)


def test_lines_hold_speed_and_time_left_and_no_blank_where_an_error_would_stand(log):
    heard = train(*log, epochs=10, steps=100, seconds_a_step=0.5, evaluate_every=4, samples=128)
    before_any_epoch = [text for moment, text in heard if moment < 50]
    assert before_any_epoch[0] == "class_balanced_meta         epoch 1/10  256 images/s  8:10 left"
    assert any("loss 1.250" in text for moment, text in heard if 50 < moment < 200)
    assert all("error 43.2 %" in text for moment, text in heard if moment > 200)
    for _, text in heard:
        assert len(text) <= 80
        assert re.fullmatch(r"\S+ {9}epoch \d+/10  256 images/s(  (error|loss) [\d.]+( %)?)?  (in )?[\d:]+( left)?", text), text


def test_evaluation_does_not_count_as_slow_training_but_as_time_left(log):
    heard = train(*log, epochs=4, steps=100, seconds_a_step=0.1, evaluation_seconds=10, samples=50)
    assert all("500 images/s" in text for _, text in heard)
    _, middle = next((moment, text) for moment, text in heard if moment > 20)
    assert re.search(r"  0:(3\d|4\d|5\d) left", middle)  # 80 s in all, not 40


def test_a_resumed_phase_counts_only_its_own_time(log):
    heard = train(*log, epochs=10, start=8, steps=100, seconds_a_step=0.5)
    assert heard[0][1].endswith("1:30 left")
    assert heard[-1][1].endswith("in 1:40")


def test_the_other_processes_are_silent_and_do_not_read_the_clock():
    def no_clock():
        raise AssertionError("the clock was read")

    progress = Progress(None)
    progress.phase("stage1", 1, 0, 3)
    progress._clock = no_clock
    progress.step(1, 2, 64)
    progress.epoch({"epoch": 1, "train": {"loss": 1.0}})


def test_bars_fit_80_columns():
    clock, written = Clock(), io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, color_system=None)
    with Progress(console, clock) as progress:
        progress.variant = "class_balanced_meta"
        progress.phase("stage2", 2, 0, 160)
        for step in range(3):
            clock.now += 0.5
            progress.step(step + 1, 50, 12_345)
        progress.epoch({"epoch": 1, "train": {"loss": 1.0}, "test": {"error": 61.5}})
        progress.epoch({"epoch": 12, "train": {"loss": 1.0}, "test": {"error": 61.5}})
    lines = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", written.getvalue()).splitlines() if "round" in line]
    shown = lines[-1].rstrip()
    assert len(shown) <= 80
    for part in ("class_balanced_meta ro", "12/160", "24,690 images/s", "error 61.5 %", "left"):
        assert part in shown, shown


@pytest.mark.parametrize(("seconds", "text"), [(7.2, "0:07"), (727, "12:07"), (11_527, "3:12:07"), (59.9, "1:00")])
def test_durations(seconds, text):
    assert duration(seconds) == text
