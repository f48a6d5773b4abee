"""Whole runs with every piece of a strong recipe: resumed bit for bit, in parts as at once, on two processes as on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from otrw.config.command_line import parse_config
from otrw.errors import UserError
from otrw.training.run import run

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "--config=digits_lt",
    "--data.imbalance_factor=10",
    "--data.num_meta_per_class=4",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=3",
    "--stage2.epochs=2",
    "--stage2.rounds=1",
    "--run.cpu=true",
    "--run.tensorboard=false",
]
PIECES = [
    "--data.augment.policy=randaugment",
    "--data.augment.cutout_size=2",
    "--stage1.mixup_alpha=0.3",
    "--stage1.cutmix_alpha=1",
    "--stage1.loss.name=balanced_softmax",
    "--stage1.loss.label_smoothing=0.2",
    "--stage1.loss.label_smoothing_tail=0.05",
    "--stage1.optimizer.warmup_epochs=1",
    "--stage1.optimizer.weight_decay_on=matrices",
    "--stage1.optimizer.backbone_learning_rate_factor=0.5",
    "--stage1.optimizer.clip_norm=1.5",
    "--stage1.optimizer.sam_radius=0.05",
    "--stage1.optimizer.sam_start=0.5",
    "--stage1.optimizer.ema_decay=0.95",
    "--stage2.optimizer.name=adamw",
    "--stage2.optimizer.learning_rate=0.002",
    "--stage2.optimizer.ema_decay=0.9",
]


class Interruption(Exception):
    pass


def train(folder, name, *arguments, variants="class_balanced_meta", stop_at=None):
    def report(line):
        if (line["stage"], line["epoch"]) == stop_at:
            raise Interruption

    options = [*SHORT, *arguments, f"--run.directory={folder}", f"--run.name={name}", f"--variants=[{variants}]"]
    run(parse_config(options), report=report)
    return Path(folder) / name


def assert_close(left, right, **tolerance):
    left, right = load_file(left / "model.safetensors"), load_file(right / "model.safetensors")
    for name in left:
        torch.testing.assert_close(right[name], left[name], **tolerance)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs"), "whole", *PIECES)


@pytest.mark.parametrize(("stop_at", "every"), [(("stage1", 2), 0), (("stage1", 2), 3), (("stage2", 2), 3)])
def test_a_run_with_every_piece_resumes_to_the_same_bits(whole, tmp_path, stop_at, every):
    """every 3 steps: what is found is a checkpoint inside the epoch."""
    with pytest.raises(Interruption):
        train(tmp_path, "cut", *PIECES, *([f"--run.checkpoint_every_steps={every}"] if every else []), stop_at=stop_at)
    states = [path.name for path in (tmp_path / "cut").glob("*/checkpoints/*")]
    assert any("step" in name for name in states) == bool(every)
    run(parse_config([f"--run.resume={tmp_path / 'cut'}"]))
    for variant in ("stage1", "class_balanced_meta"):
        assert_close(whole / variant, tmp_path / "cut" / variant, rtol=0, atol=0)
        assert lines_of(tmp_path / "cut" / variant) == lines_of(whole / variant)


def test_what_is_saved_is_what_was_evaluated_and_is_not_the_last_step(whole, tmp_path):
    for variant in ("stage1", "class_balanced_meta"):
        result = json.loads((whole / variant / "result.json").read_text())
        assert result["test"]["error"] == lines_of(whole / variant)[-1]["test"]["error"]
    last = train(tmp_path, "last", *PIECES, "--stage1.optimizer.ema_decay=0", variants="stage1")
    assert [line["train"] for line in lines_of(last / "stage1")] == [line["train"] for line in lines_of(whole / "stage1")]
    ours, theirs = (load_file(folder / "stage1" / "model.safetensors") for folder in (whole, last))
    assert all(not torch.equal(ours[name], theirs[name]) for name in ours if name.endswith("weight"))


def test_sharpness_aware_steps_begin_where_they_are_asked_to(whole, tmp_path):
    """Half of three epochs: the first is one without such steps, to the bit, the second is not."""
    plain = train(tmp_path, "plain", *PIECES, "--stage1.optimizer.sam_radius=0", variants="stage1")
    late, never = (lines_of(folder / "stage1") for folder in (whole, plain))
    assert late[0] == never[0]
    assert all(ours["train"]["loss"] != theirs["train"]["loss"] for ours, theirs in zip(late[1:], never[1:], strict=True))


def test_a_step_in_parts_is_the_step_of_the_whole_batch(whole, tmp_path):
    in_parts = train(tmp_path, "parts", *PIECES, "--run.accumulation_steps=3")
    for variant in ("stage1", "class_balanced_meta"):
        assert_close(whole / variant, in_parts / variant, rtol=1e-3, atol=1e-3)
        for ours, theirs in zip(lines_of(in_parts / variant), lines_of(whole / variant), strict=True):
            assert ours["train"] == pytest.approx(theirs["train"], rel=1e-3)


@pytest.mark.slow
def test_two_processes_end_where_one_ends(whole, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "launch/train.py"]
    command += [*SHORT, *PIECES, "--run.accumulation_steps=2", f"--run.directory={tmp_path}", "--run.name=two"]
    command += ["--variants=[class_balanced_meta]"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for variant in ("stage1", "class_balanced_meta"):
        assert_close(whole / variant, tmp_path / "two" / variant, rtol=2e-3, atol=2e-3)
        for ours, theirs in zip(lines_of(tmp_path / "two" / variant), lines_of(whole / variant), strict=True):
            assert ours["train"] == pytest.approx(theirs["train"], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage2.cutmix_alpha=1", "--stage2.trainable=classifier"], "stage2.cutmix_alpha must be 0 on cached embeddings"),
        (["--stage1.optimizer.sam_radius=-1"], "stage1.optimizer.sam_radius must be >= 0, got -1.0"),
        (["--stage1.optimizer.sam_start=1"], "stage1.optimizer.sam_start must be in [0, 1), got 1.0"),
        (["--stage1.optimizer.ema_decay=1"], "stage1.optimizer.ema_decay must be in [0, 1), got 1.0"),
        (["--stage2.optimizer.clip_norm=0"], "stage2.optimizer.clip_norm must be > 0 or null, got 0.0"),
        (["--data.augment.magnitude=31"], "data.augment.magnitude must be in [0, 30], got 31"),
        (["--stage1.loss.label_smoothing=1"], "stage1.loss.label_smoothing must be in [0, 1), got 1.0"),
        (["--run.accumulation_steps=0"], "run.accumulation_steps must be >= 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(arguments, message):
    with pytest.raises(UserError) as refused:
        parse_config([*SHORT, *arguments])
    assert str(refused.value).startswith(message)
