"""Runs on data of one's own: the numbers of CIFAR where the samples are the same, and records that say what they are."""

import json
import re

import numpy as np
import pyarrow.parquet
import pytest
import torch
from made_own import labels_of, write_cifar, write_classes, write_folder
from made_parquet import image_cells, random_images, write_table
from safetensors.numpy import load_file

from otrw.commands.audit import main as write_audit
from otrw.commands.report import main as write_report
from otrw.commands.train import main
from otrw.config.command_line import parse_config
from otrw.data.datasets import make_datasets
from otrw.errors import UserError
from otrw.records.experiments import load_experiments
from otrw.training.run import run

CIFAR = (
    "--config=cifar10_lt",
    "--data.imbalance_factor=4",
    "--data.num_meta_per_class=3",
    "--data.augment.crop_padding=1",
    "--model.name=resnet20",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=2",
    "--stage1.batch_size=8",
    "--stage2.epochs=2",
    "--stage2.batch_size=8",
    "--variants=stage1,ot_meta",
)
QUIET = ("--run.cpu=true", "--run.tensorboard=false")
CLOCK = ("seconds", "images_per_second")


def train(folder, *arguments):
    config = parse_config([*arguments, *QUIET, f"--run.directory={folder / 'runs'}", f"--data.cache={folder / 'cache'}"])
    return run(config).folder


def numbers_of(folder):
    """All that a run computed, without the time that it took."""
    found = {}
    for variant in ("stage1", "ot_meta"):
        lines = [json.loads(line) for line in (folder / variant / "metrics.jsonl").read_text().splitlines()]
        found[variant] = [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]
        found[variant] += [json.loads((folder / variant / "result.json").read_text())["test"]]
    found["weights"] = pyarrow.parquet.read_table(folder / "ot_meta" / "weights.parquet")["weight"].to_pylist()
    return found


def assert_same_run(found, expected):
    assert numbers_of(found) == numbers_of(expected)
    for variant in ("stage1", "ot_meta"):
        one, other = (load_file(folder / variant / "model.safetensors") for folder in (found, expected))
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.timeout(600)
def test_cifar_as_a_folder_and_as_a_table_trains_to_the_same_bits(tmp_path):
    expected = train(tmp_path / "a", *CIFAR, f"--data.root={write_cifar(tmp_path / 'cifar')}")
    config = parse_config([*CIFAR, f"--data.root={tmp_path / 'cifar'}", "--data.cache="])
    data = make_datasets(config.data, 0, torch.device("cpu"))
    parts = dict.fromkeys(data.train.source_index.tolist(), "train") | dict.fromkeys(data.meta.source_index.tolist(), "trusted")
    rest = dict.fromkeys(range(len(labels_of("test"))), "test")
    folder = write_folder(tmp_path / "folder", {"train": parts, "test": rest})
    own = [*CIFAR, "--data.imbalance_factor=null"]
    assert_same_run(train(tmp_path / "b", *own, "--data.source=folder", f"--data.root={folder}"), expected)
    rows = sorted(parts)
    images = random_images(len(labels_of("train")), seed=len("train"))[rows]
    table = {
        "img": image_cells(images) + image_cells(random_images(len(rest), seed=len("test"))),
        "label": [labels_of("train")[row] for row in rows] + labels_of("test"),
        "split": [parts[row] for row in rows] + ["test"] * len(rest),
    }
    write_table(tmp_path / "table" / "all.parquet", table)
    found = train(tmp_path / "c", *own, "--data.source=table", f"--data.root={tmp_path / 'table'}")
    assert_same_run(found, expected)
    result = json.loads((found / "ot_meta" / "result.json").read_text())
    assert result["imbalance_factor"] == 11 / 2  # of what is there: 11 (1/4)^1 is rounded down to 2
    assert result["data"]["num_samples"] == {"train": 23, "meta": 12, "test": 12, "validation": 0}
    assert result["data"]["meta_is_checked"]
    assert len(result["data"]["files_hash"]) == 16


def write_embeddings(root, num=90):
    generator = np.random.default_rng(0)
    labels = np.sort(generator.choice(3, num, p=[0.6, 0.3, 0.1]))
    centres = 3 * generator.normal(size=(3, 6))
    root.mkdir()
    np.savez(root / "x.npz", X=centres[labels] + generator.normal(size=(num, 6)), y=np.array(["a", "b", "c"])[labels])
    return root


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_embeddings_are_trained_through_both_stages_and_read_back(tmp_path, model, capsys):
    root = write_embeddings(tmp_path / "own data")
    arguments = ["--data.source=embeddings", f"--data.root={root}", "--stage1.epochs=8", "--stage2.epochs=8"]
    arguments += ["--stage1.batch_size=8", "--stage2.batch_size=8"]
    arguments += [f"--model.name={model}", f"--run.directory={tmp_path / 'runs'}", "--run.cpu=true"]
    main([*arguments, "--run.tensorboard=true"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "training samples in 3 classes" in printed
    assert "unchecked meta samples" in printed
    assert "no test set in the data: 18 of 90 samples cut out" in printed
    assert re.search(r"labels python .*audit", printed)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("own_data-seed0-")
    result = json.loads((folder / "ot_meta" / "result.json").read_text())
    assert result["test"]["error"] < 20
    assert not result["data"]["meta_is_checked"]
    assert not result["data"]["knows_truth"]
    assert "true_label" not in pyarrow.parquet.read_schema(folder / "ot_meta" / "weights.parquet").names
    for command in (write_report, write_audit):
        command([str(folder)])
    assert (folder / "report.html").is_file()
    assert "samples had a wrong label" not in capsys.readouterr().out
    loaded = load_experiments([tmp_path / "runs"])
    assert {experiment.setting.dataset for experiment in loaded.experiments} == {f"own data {result['data']['files_hash'][:6]}"}
    assert {experiment.preset for experiment in loaded.experiments} == {"own_embeddings"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.source=folder", "--data.root=nowhere"], "data.root must be there, got 'nowhere'"),
        (["--data.source=folder", "--model.name=mlp"], "model.name must be no linear or mlp for folder"),
        (["--data.source=embeddings", "--model.name=resnet20"], "model.name must be linear or mlp for embeddings"),
        (["--data.source=folder", "--data.files=x"], "data.files must come with data.source table or embeddings"),
        (["--data.source=folder", "--data.columns.label=x"], "data.columns must come with data.source table or embeddings"),
        (["--data.trusted=x.csv"], "data.trusted must come with data.source folder, table or embeddings"),
        (["--data.labels_file=x.npy"], "data.labels_file must come with data.source cifar10"),
        (["--data.root=x"], "data.root must come with a data set that has files"),
        (
            ["--data.source=table", "--data.label_noise=similar", "--data.label_noise_rate=0.2"],
            "it is made of digits or CIFAR",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_line(arguments, message):
    with pytest.raises(UserError) as error:
        make_datasets(parse_config(arguments).data, 0, "cpu")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_spoilt_on_request_are_known_to_be_wrong_and_the_trusted_ones_are_right(tmp_path):
    write_classes(tmp_path, {"a": 30, "b": 30})
    noise = ["--data.label_noise=symmetric", "--data.label_noise_rate=0.4"]
    config = parse_config(["--data.source=folder", f"--data.root={tmp_path}", "--data.cache=", *noise])
    data = make_datasets(config.data, 0, torch.device("cpu"))
    assert data.knows_truth
    assert (data.train.labels != data.train.true_labels).any()
    assert torch.equal(data.meta.labels, data.meta.true_labels)


def test_a_run_does_not_go_on_with_other_files(tmp_path):
    root = write_classes(tmp_path / "own", {"a": 12, "b": 12})
    arguments = ("--data.source=folder", f"--data.root={root}", "--model.name=small", "--stage1.epochs=1", "--variants=stage1")
    folder = train(tmp_path, *arguments)
    assert json.loads((folder / "stage1" / "environment.json").read_text())["split_hash"]
    write_classes(tmp_path / "own", {"c": 9}, seed=1)
    with pytest.raises(UserError, match=r"data\.root must hold the samples and labels that .* was begun with"):
        train(tmp_path, f"--run.resume={folder}")


@pytest.mark.parametrize(
    ("variant", "message"),
    [("oracle_meta", "variants must not have 'oracle_meta'"), ("small_loss_meta", "ot.dropped_share must be")],
)
def test_nobody_is_told_which_labels_are_wrong_or_how_many_where_nobody_knows(tmp_path, variant, message):
    np.savez(tmp_path / "own.npz", embeddings=np.random.default_rng(0).normal(size=(60, 4)), labels=np.arange(60) % 2)
    arguments = ("--data.source=embeddings", f"--data.root={tmp_path}", f"--variants={variant}", "--stage1.epochs=1")
    with pytest.raises(UserError, match=message):
        train(tmp_path, *arguments)
    assert not (tmp_path / "runs").exists()
