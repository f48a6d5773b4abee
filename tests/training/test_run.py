"""Whole runs on digits: complete records, bit-equal resumption after a kill, and failures that leave nothing half done."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from whole_runs import assert_same_net, assert_same_variant

from otrw.commands.exit import exit_with_message
from otrw.config.command_line import parse_config
from otrw.data.datasets import make_datasets
from otrw.errors import NonFiniteError, UserError
from otrw.models.build import build_model, num_parameters
from otrw.ot.weights import effective_number_weights
from otrw.records import ledger
from otrw.training import checkpoints, folder
from otrw.training.folder import open_folder
from otrw.training.run import run

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("stage1", "class_balanced_meta", "ot_labels_meta")
STAGE1_EPOCHS, STAGE2_EPOCHS, ROUNDS, NUM_TEST = 2, 3, 2, 602
TINY = [
    "--config=digits_lt",
    "--data.imbalance_factor=10",
    "--data.num_meta_per_class=4",
    "--data.num_validation_per_class=3",
    "--data.label_noise=symmetric",
    "--data.label_noise_rate=0.3",
    "--model.width_multiplier=0.25",
    f"--stage1.epochs={STAGE1_EPOCHS}",
    "--stage1.batch_size=64",
    f"--stage2.epochs={STAGE2_EPOCHS}",
    "--stage2.batch_size=64",
    f"--stage2.rounds={ROUNDS}",
    "--ot.weights=semi_relaxed",
    "--ot.scope=dataset",
    "--ot.epsilon=0.1",
    "--ot.label_softening=0.5",
    "--ot.label_transport=0.5",
    "--stage2.trainable=scratch",
    "--stage2.meta_loss_factor=1",
    "--run.cpu=true",
    "--run.tensorboard=false",
]
KILLED_RUN = """
import os, signal, sys
from otrw.config.command_line import parse_config
from otrw.training.run import run

def report(line):
    if (line["stage"], line["round"], line["epoch"]) == ("stage2", 2, 3):  # written down, not yet in a checkpoint
        os.kill(os.getpid(), signal.SIGKILL)

run(parse_config(sys.argv[1:]), report=report)
"""


class Interruption(Exception):
    pass


def tiny_config(folder, name, *arguments, variants=ROWS):
    return parse_config(
        [*TINY, f"--run.directory={folder}", f"--run.name={name}", f"--variants=[{','.join(variants)}]", *arguments]
    )


def no_epoch(line):
    raise AssertionError(f"an epoch was trained: {line}")


def interrupt_at(stage, round_number, epoch):
    def report(line):
        if (line["stage"], line["round"], line["epoch"]) == (stage, round_number, epoch):
            raise Interruption

    return report


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run of three variants: its config, its result and the lines it reported."""
    lines = []
    config = tiny_config(tmp_path_factory.mktemp("runs"), "whole")
    result = run(config, report=lambda line: lines.append(json.loads(json.dumps(line))))
    return config, result, lines


@pytest.fixture(scope="module")
def data(finished):
    config, _, _ = finished
    return make_datasets(config.data, config.data_seed, torch.device("cpu"))


def test_a_run_leaves_a_complete_record_of_every_row_and_nothing_else(finished):
    config, result, _ = finished
    folder = Path(config.run.directory) / "whole"
    assert result.folder == folder
    assert sorted(experiment.name for experiment in folder.iterdir()) == sorted(["config.yaml", *ROWS])
    files = {"config.yaml", "environment.json", "metrics.jsonl", "model.safetensors", "predictions.parquet", "result.json"}
    for variant in ROWS:
        expected = files if variant == "stage1" else files | {"weights.parquet"}
        assert {experiment.name for experiment in (folder / variant).iterdir()} == expected


def test_every_row_is_found_as_a_record_and_equals_what_the_run_returned(finished):
    _, result, _ = finished
    records = list(ledger.find_records([result.folder]))
    assert {record.path.name: record.result for record in records} == result.variants
    assert tuple(result.variants) == ROWS
    for record in records:
        assert record.config["variants"] == [record.path.name]
        assert record.environment["world_size"] == 1
        assert record.environment["device"] == "cpu"


def test_configs_on_disk_are_what_was_run(finished):
    config, result, _ = finished
    assert parse_config(["--config", str(result.folder / "config.yaml")]) == config
    stored = parse_config(["--config", str(result.folder / "class_balanced_meta" / "config.yaml")])
    assert stored.ot.weights == "class_balanced"
    assert stored.data == config.data


def test_results_hold_what_the_table_needs(finished, data):
    config, result, _ = finished
    for variant, figures in result.variants.items():
        assert (figures["row"], figures["dataset"], figures["seed"]) == (variant, "digits", 0)
        assert figures["imbalance_factor"] == 10
        assert figures["class_names"] == list("0123456789")
        assert figures["given_sizes"] == data.given_sizes.tolist()
        assert figures["true_sizes"] == data.true_sizes.tolist()
        assert figures["split_hash"] == data.split_hash
        net = build_model("small", 10, in_channels=1, width_multiplier=config.model.width_multiplier)
        assert figures["model"] == {"name": "small", "width_multiplier": 0.25, "num_parameters": num_parameters(net)}
        confusion = np.array(figures["confusion"])
        assert confusion.sum() == NUM_TEST
        assert figures["test"]["error"] == pytest.approx(100 * (1 - confusion.trace() / NUM_TEST))
        assert figures["validation"].keys() == figures["test"].keys()
        assert figures["best_epoch_test_error"] <= figures["test"]["error"] + 1e-9
        assert ("weights" in figures) == (variant != "stage1")
        json.dumps(figures, allow_nan=False)
    transport = result.variants["ot_labels_meta"]["weights"]
    assert 1 < transport["effective_samples"] <= len(data.train)
    assert 0 < transport["wrong_label_auroc"] <= 1
    assert sum(transport["class_mass"]) == pytest.approx(1)
    assert transport["converged"] is True


def test_metrics_have_a_line_an_epoch_and_are_what_was_reported(finished):
    _, result, reported = finished
    written = {variant: ledger.read_lines(result.folder / variant / "metrics.jsonl") for variant in ROWS}
    places = {variant: [(line["stage"], line["round"], line["epoch"]) for line in lines] for variant, lines in written.items()}
    stage2 = [("stage2", r + 1, e + 1) for r in range(ROUNDS) for e in range(STAGE2_EPOCHS)]
    assert places["stage1"] == [("stage1", 1, e + 1) for e in range(STAGE1_EPOCHS)]
    assert places["class_balanced_meta"] == stage2[:STAGE2_EPOCHS]
    assert places["ot_labels_meta"] == stage2
    assert [line for variant in ROWS for line in written[variant]] == reported
    for variant, lines in written.items():
        assert lines[-1]["test"]["error"] == pytest.approx(result.variants[variant]["test"]["error"])
        for line in lines:
            assert math.isfinite(line["train"]["loss"])
            assert ("meta_loss" in line["train"]) == (variant != "stage1")


def test_weights_have_a_line_a_training_sample(finished, data):
    _, result, _ = finished
    for variant in ROWS[1:]:
        table = pyarrow.parquet.read_table(result.folder / variant / "weights.parquet")
        assert table["index"].to_pylist() == data.train.source_index.tolist()
        assert table["given_label"].to_pylist() == data.train.labels.tolist()
        assert table["true_label"].to_pylist() == data.train.true_labels.tolist()
        weights = torch.tensor(table["weight"].to_pylist())
        if variant == "class_balanced_meta":
            expected = effective_number_weights(data.given_sizes, 0.9999)[data.train.labels]
            torch.testing.assert_close(weights, expected)
        else:
            assert weights.min() >= 0
            assert weights.mean().item() == pytest.approx(1, abs=1e-4)
            wrong = data.train.labels != data.train.true_labels
            mass = (weights[wrong].sum() / weights.sum()).item()
            assert mass == pytest.approx(result.variants[variant]["weights"]["wrong_label_mass"], abs=1e-5)
            assert set(table["target_label"].to_pylist()) <= set(range(10))


def test_a_saved_model_makes_the_saved_predictions(finished, data):
    config, result, _ = finished
    for variant in ROWS:
        net = build_model("small", 10, in_channels=1, width_multiplier=config.model.width_multiplier)
        net.load_state_dict(load_file(result.folder / variant / "model.safetensors"))
        with torch.no_grad():
            logits = net.eval()(data.transform(train=False)(data.test.inputs, torch.arange(NUM_TEST), 0)).logits
        table = pyarrow.parquet.read_table(result.folder / variant / "predictions.parquet")
        assert table["index"].to_pylist() == data.test.source_index.tolist()
        assert table["label"].to_pylist() == data.test.labels.tolist()
        agreement = torch.tensor(table["prediction"].to_pylist()) == logits.argmax(1)
        assert agreement.double().mean() > 0.99  # other batches round otherwise
        wrong = torch.tensor(table["prediction"].to_pylist()) != data.test.labels
        assert 100 * wrong.double().mean().item() == pytest.approx(result.variants[variant]["test"]["error"])
        with safe_open(result.folder / variant / "model.safetensors", framework="pt") as file:
            assert file.metadata()["split"] == data.split_hash


def test_training_learns(finished):
    _, result, _ = finished
    for variant in ROWS:
        lines = ledger.read_lines(result.folder / variant / "metrics.jsonl")
        assert lines[-1]["train"]["loss"] < lines[0]["train"]["loss"]


def test_resuming_a_finished_run_trains_nothing_and_returns_the_same(finished):
    _, result, _ = finished
    before = {path: path.stat().st_mtime_ns for path in result.folder.rglob("*") if path.is_file()}
    again = run(parse_config(["--run.resume", str(result.folder)]), report=no_epoch)
    assert again.variants == result.variants
    assert {path: path.stat().st_mtime_ns for path in result.folder.rglob("*") if path.is_file()} == before


def test_the_folder_of_a_row_is_not_taken_for_that_of_a_run(finished, tmp_path):
    _, result, _ = finished
    variant = shutil.copytree(result.folder, tmp_path / "copy") / "class_balanced_meta"
    before = sorted(variant.iterdir())
    with pytest.raises(UserError, match=r"run\.resume"):
        run(parse_config(["--run.resume", str(variant)]), report=no_epoch)
    assert sorted(variant.iterdir()) == before


def test_a_name_that_is_taken_is_refused_with_the_way_to_go_on(finished):
    config, result, _ = finished
    with pytest.raises(UserError, match=r"run\.name must be new, got .*; go on with it by --run\.resume") as error:
        run(config)
    assert str(result.folder) in str(error.value)


def test_killed_in_stage_2_and_resumed_ends_with_the_same_bits(finished, tmp_path):
    _, result, _ = finished
    arguments = [*TINY, f"--run.directory={tmp_path}", "--run.name=killed", f"--variants=[{','.join(ROWS)}]"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, *arguments, "--run.checkpoint_every_epochs=2"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    variant = tmp_path / "killed" / "ot_labels_meta"
    assert (tmp_path / "killed" / "class_balanced_meta" / "result.json").exists()
    assert not (variant / "result.json").exists()
    (variant / "checkpoints" / ".partial-round-002-epoch-00002").mkdir()
    with (variant / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "stage2", "rou')
    resumed = run(parse_config(["--run.resume", str(tmp_path / "killed")]))
    assert tuple(resumed.variants) == ROWS
    for name in ROWS:
        assert_same_variant(resumed.folder / name, result.folder / name)
    assert not list(resumed.folder.rglob(".*"))


@pytest.mark.parametrize("place", [("stage1", 1, 1), ("stage1", 1, STAGE1_EPOCHS), ("stage2", 2, 1)])
def test_interrupted_at_any_stage_and_resumed_ends_with_the_same_bits(finished, tmp_path, place):
    _, result, _ = finished
    variants = ("stage1", "ot_labels_meta")
    with pytest.raises(Interruption):
        run(tiny_config(tmp_path, "cut", variants=variants), report=interrupt_at(*place))
    resumed = run(parse_config(["--run.resume", str(tmp_path / "cut")]))
    for name in variants:
        assert_same_variant(resumed.folder / name, result.folder / name)


@pytest.mark.parametrize(
    "settings",
    [
        ["--stage2.trainable=all", "--stage2.refresh_every_epochs=2"],
        ["--stage2.trainable=classifier", "--stage2.embeddings=forward", "--ot.scope=batch", "--ot.weights=sgd"],
        ["--stage2.trainable=all", "--ot.scope=batch"],
    ],
    ids=["refreshed weights", "batch scope, frozen backbone", "batch scope, whole net"],
)
def test_every_way_of_weighting_resumes_with_the_same_bits(finished, tmp_path, settings):
    _, result, _ = finished
    common = [f"--stage1.checkpoint={result.folder}/stage1/model.safetensors", "--stage2.epochs=2"]
    plain = ["--ot.label_transport=0", "--ot.label_softening=0"]
    whole, cut = (tiny_config(tmp_path, name, *common, *plain, *settings, variants=("ot_meta",)) for name in ("whole", "cut"))
    run(whole)
    with pytest.raises(Interruption):
        run(cut, report=interrupt_at("stage2", 2, 2))
    run(parse_config(["--run.resume", str(tmp_path / "cut")]))
    assert_same_variant(tmp_path / "cut" / "ot_meta", tmp_path / "whole" / "ot_meta")


@pytest.mark.parametrize("variant", ["early_learning_meta", "meta_weight_net_meta", "trusted_probe_labels_meta"])
def test_competitors_that_keep_a_state_resume_with_the_same_bits(finished, tmp_path, variant):
    _, result, _ = finished
    common = [f"--stage1.checkpoint={result.folder}/stage1/model.safetensors", "--stage2.epochs=3"]
    whole, cut = (tiny_config(tmp_path, name, *common, variants=(variant,)) for name in ("whole", "cut"))
    run(whole)
    with pytest.raises(Interruption):
        run(cut, report=interrupt_at("stage2", 1, 2))
    run(parse_config(["--run.resume", str(tmp_path / "cut")]))
    assert_same_variant(tmp_path / "cut" / variant, tmp_path / "whole" / variant)


def test_a_finished_stage_1_can_be_started_from(finished, tmp_path):
    _, result, _ = finished
    path = result.folder / "stage1" / "model.safetensors"
    variants = ("stage1", "class_balanced_meta")
    reused = run(tiny_config(tmp_path, "reused", f"--stage1.checkpoint={path}", "--ot.epsilon=0.4", variants=variants))
    assert reused.variants["stage1"]["test"] == result.variants["stage1"]["test"]
    for name in variants:
        assert_same_net(reused.folder / name, result.folder / name)
    assert ledger.read_lines(reused.folder / "stage1" / "metrics.jsonl") == []
    assert reused.variants["stage1"]["best_epoch_test_error"] is None


@pytest.mark.parametrize(
    ("changes", "fact"),
    [(["--run.seed=1"], "split"), (["--model.width_multiplier=0.5"], "model"), (["--model.head=cosine"], "model")],
)
def test_a_stage_1_of_other_data_or_another_net_is_refused_and_leaves_nothing(finished, tmp_path, changes, fact):
    _, result, _ = finished
    path = result.folder / "stage1" / "model.safetensors"
    with pytest.raises(UserError, match=rf"stage1\.checkpoint .* must fit this run, but its {fact} is"):
        run(tiny_config(tmp_path, "x", f"--stage1.checkpoint={path}", *changes))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_with_exit_code_1_and_names_the_step(tmp_path, capsys):
    config = tiny_config(tmp_path, "diverged", "--stage1.optimizer.learning_rate=1e30")
    with pytest.raises(SystemExit) as leaving:
        exit_with_message(lambda: run(config))
    assert leaving.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the loss of stage1 is not finite at epoch 1, step 2")
    assert not list(tmp_path.rglob("result.json"))


def test_a_net_that_diverges_in_the_very_last_step_is_not_recorded_as_a_result(tmp_path):
    settings = ["--stage1.optimizer.learning_rate=1e30", "--stage1.batch_size=10000", "--stage1.epochs=1"]
    with pytest.raises(NonFiniteError):
        run(tiny_config(tmp_path, "diverged", *settings, variants=("stage1",)))
    assert not list(tmp_path.rglob("result.json"))


def test_divergence_leaves_a_checkpoint_from_which_the_loss_is_finite(tmp_path):
    settings = ["--stage1.optimizer.learning_rate=1e30", "--stage1.batch_size=10000", "--stage1.epochs=3"]
    config = tiny_config(tmp_path, "diverged", *settings, variants=("stage1",))
    with pytest.raises(NonFiniteError):
        run(config)
    state = checkpoints.load_latest(tmp_path / "diverged" / "stage1" / "checkpoints")
    if state is not None:
        net = build_model("small", 10, in_channels=1, width_multiplier=config.model.width_multiplier)
        net.load_state_dict(state["module"])
        data = make_datasets(config.data, config.data_seed, torch.device("cpu"))
        with torch.no_grad():
            logits = net(data.transform(train=False)(data.train.inputs, torch.arange(len(data.train)), 0)).logits
        assert logits.isfinite().all()


def test_bad_data_leaves_no_folder(tmp_path):
    config = tiny_config(tmp_path, "x")
    with pytest.raises(UserError, match=r"data\.num_meta_per_class"):
        run(replace(config, data=replace(config.data, num_meta_per_class=500)))
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_name_gets_one_from_its_data(tmp_path):
    config = parse_config([*TINY, f"--run.directory={tmp_path}", "--variants=[stage1]", "--stage1.epochs=1"])
    result = run(config)
    assert result.folder.parent == tmp_path
    assert result.folder.name.startswith("digits_lt-if10-noise30-seed0-")
    with ExitStack() as held:  # three at the same second
        folders = [folder._made_anew(tmp_path / "digits-20261124-120000") for _ in range(3)]
        assert [path.name[-17:] for path in folders] == ["s-20261124-120000", "20261124-120000+2", "20261124-120000+3"]
        assert open_folder(replace(config, run=replace(config.run, name="own")), held).name == "own"
    assert tuple(result.variants) == ("stage1",)


def test_the_record_says_how_far_learned_weights_moved(tmp_path):
    arguments = [
        "--ot.weights",
        "sgd",
        "--ot.num_steps",
        "20",
        "--variants",
        "[ot,class_balanced]",
        "--stage1.epochs",
        "2",
        "--stage2.epochs",
        "2",
    ]
    arguments += ["--stage2.rounds", "1", "--run.tensorboard", "false", "--run.directory", str(tmp_path)]
    variants = run(parse_config(arguments)).variants
    assert "movement" not in variants["class_balanced"]["weights"]
    moved = variants["ot"]["weights"]["movement"]
    assert 0 < moved["mean_change"] < moved["largest_change"] == max(moved["class_largest_change"])
    low, high = moved["start_range"]
    assert moved["class_mean_start"][0] == pytest.approx(low)
    assert moved["class_mean_start"][-1] == pytest.approx(high)
    assert moved["class_mean_end"] != moved["class_mean_start"]


def test_seconds_are_those_of_all_parts(tmp_path):
    with pytest.raises(Interruption):
        run(tiny_config(tmp_path, "cut", variants=("stage1",)), report=interrupt_at("stage1", 1, 2))
    folder = tmp_path / "cut" / "stage1" / "checkpoints"
    state = checkpoints.load_latest(folder)
    assert state["seconds"] > 0
    checkpoints.save_state(folder, next(folder.iterdir()).name, state | {"seconds": 5000.0}, keep=1)
    resumed = run(parse_config([f"--run.resume={tmp_path / 'cut'}"]))
    assert 5000 < resumed.variants["stage1"]["seconds"] < 10_000
