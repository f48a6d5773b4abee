"""A run gives the same nets, weights and errors on one process and on several."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "--stage1.epochs",
    "4",
    "--stage2.epochs",
    "3",
    "--stage1.optimizer.learning_rate",
    "0.02",
    "--stage2.optimizer.learning_rate",
    "0.02",
    "--stage2.rounds",
    "2",
    "--run.tensorboard",
    "false",
    "--variants",
    "[class_balanced_meta,ot_labels_meta]",
]


def train(folder: Path, num_processes: int, *settings: str) -> Path:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [*(launcher if num_processes > 1 else [sys.executable]), "launch/train.py", *SHORT, *settings]
    command += ["--run.directory", str(folder), "--run.name", f"on_{num_processes}"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / f"on_{num_processes}"


@pytest.fixture(scope="module")
def on_one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs"), 1)


@pytest.mark.parametrize("num_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_end_where_one_ends(on_one_process: Path, num_processes: int, tmp_path: Path):
    several = train(tmp_path, num_processes)
    for variant in ("stage1", "class_balanced_meta", "ot_labels_meta"):
        ours, theirs = on_one_process / variant, several / variant
        nets = [load_file(folder / "model.safetensors") for folder in (ours, theirs)]
        for name in nets[0]:
            torch.testing.assert_close(nets[1][name], nets[0][name], rtol=1e-3, atol=1e-3)
        if variant != "stage1":
            weights = [
                torch.tensor(pyarrow.parquet.read_table(folder / "weights.parquet")["weight"].to_numpy())
                for folder in (ours, theirs)
            ]
            torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-3)
        losses = [
            [json.loads(line)["train"]["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for folder in (ours, theirs)
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
        assert json.loads((theirs / "environment.json").read_text())["world_size"] == num_processes


@pytest.mark.slow
def test_competitors_give_the_same_nets_and_weights_on_two_processes(tmp_path: Path):
    variants = ("trusted_probe_labels_meta", "early_learning_meta", "meta_weight_net_meta", "gold_correction_meta", "meta_only")
    settings = ["--variants", ",".join(variants), "--stage2.rounds", "1"]  # a second round multiplies the rounding of the first
    runs = [train(tmp_path, number, *settings) for number in (1, 2)]
    for variant in variants:
        nets = [load_file(run / variant / "model.safetensors") for run in runs]
        for name in nets[0]:
            torch.testing.assert_close(nets[1][name], nets[0][name], rtol=1e-3, atol=1e-3)
        columns = [pyarrow.parquet.read_table(run / variant / "weights.parquet")["weight"].to_numpy() for run in runs]
        torch.testing.assert_close(torch.tensor(columns[1]), torch.tensor(columns[0]), rtol=1e-3, atol=1e-3)
