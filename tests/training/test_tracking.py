"""What TensorBoard gets, read back from its event files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from otrw.config.command_line import parse_config
from otrw.config.variants import TITLES, variant_config
from otrw.training.pictures import COLUMNS, TILE, confusion_picture, suspects_picture
from otrw.training.run_text import run_text
from otrw.training.tracking import NUM_PROJECTED, NUM_SUSPECTS, Journal, in_words

NAMES = ("cat", "dog", "toad")
N = 40
RESULT = {
    "dataset": "digits",
    "imbalance_factor": 4.0,
    "true_sizes": [20, 10, 5],
    "given_sizes": [18, 11, 6],
    "confusion": [[9, 1, 0], [0, 10, 0], [2, 0, 8]],
    "split_hash": "abc123",
    "model": {"name": "small", "width_multiplier": 1.0, "num_parameters": 12345},
    "seconds": 12.3,
    "test": {"error": 10.0, "balanced_error": 11.25, "few_error": None},
    "weights": {"wrong_label_mass": 0.125},
}


def journal(folder, variant="ot_meta", run="a-seed0", **options):
    return Journal(folder / run / variant, is_main=True, tensorboard=True, **options)


def finish(written, metrics=None, seed=0):
    labels = torch.arange(N) % 3
    written.finish(
        {"row": "ot_meta", "epsilon": 0.1, "seed": seed},
        metrics or {"error": 10.0, "few_error": None},
        np.array(RESULT["confusion"]),
        NAMES,
        torch.eye(3)[labels],
        labels,
        torch.randn(N, 5, generator=torch.Generator().manual_seed(0)),
        torch.zeros(N, 8, 8, 1, dtype=torch.uint8),
    )


def events(written):
    accumulator = EventAccumulator(str(written.folder / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def train(written, epochs=3):
    for epoch in range(epochs):
        test = {"error": 40.0 - 10 * epoch}
        written.epoch(
            {"stage": "stage2", "round": 1, "epoch": epoch + 1, "learning_rate": 0.1, "train": {"loss": 1.0}, "test": test}
        )


def test_the_first_tags_are_curves_of_the_error_and_no_tag_is_a_single_dot(tmp_path):
    written = journal(tmp_path)
    train(written)
    finish(written)
    read = events(written)
    tags = sorted(read.Tags()["scalars"])
    assert tags == ["test/error", "train/learning_rate", "train/loss"]
    for tag in tags:
        assert [event.step for event in read.Scalars(tag)] == [1, 2, 3]


def test_a_stage_1_from_a_file_has_its_error_in_hparams_though_it_has_no_curve(tmp_path):
    written = journal(tmp_path)
    finish(written)
    assert [(event.step, event.value) for event in events(written).Scalars("test/error")] == [(0, 10.0)]


def session_start(written):
    plugins = events(written).SummaryMetadata("_hparams_/session_start_info").plugin_data
    return HParamsPluginData.FromString(plugins.content).session_start_info


def test_rows_of_hparams_have_names_and_facts_of_their_own(tmp_path):
    names = set()
    for run in ("a-seed0", "a-seed1"):
        for variant in ("ot_meta", "class_balanced_meta"):
            written = journal(tmp_path, variant, run)
            train(written)
            finish(written, seed=int(run[-1]))
            start = session_start(written)
            assert start.hparams["Variant"].string_value == variant
            assert start.hparams["Run"].string_value == run
            assert start.hparams["Seed"].number_value == int(run[-1])
            assert sorted(start.hparams)[:3] == ["Run", "Seed", "Variant"]  # the first five in this order are shown
            assert "row" not in start.hparams
            names.add(start.group_name)
    assert names == {f"{variant} a-seed{seed}" for variant in ("ot_meta", "class_balanced_meta") for seed in (0, 1)}


def test_every_metric_of_hparams_is_a_tag_that_is_there(tmp_path):
    written = journal(tmp_path)
    train(written)
    finish(written)
    read = events(written)
    content = read.SummaryMetadata("_hparams_/experiment").plugin_data.content
    metrics = {info.name.tag for info in HParamsPluginData.FromString(content).experiment.metric_infos}
    assert metrics == {"test/error"}
    assert metrics <= set(read.Tags()["scalars"])


def test_suspects_are_the_samples_of_lowest_weight_in_order(tmp_path, monkeypatch):
    shown = {}

    def picture(images, given, suggested, weights, class_names):
        shown.update(pixels=images[:, 0, 0, 0].tolist(), given=given, suggested=suggested, weights=weights)
        return suspects_picture(images, given, suggested, weights, class_names)

    monkeypatch.setattr("otrw.training.tracking.suspects_picture", picture)
    images = torch.arange(N, dtype=torch.uint8)[:, None, None, None].expand(N, 8, 8, 1)
    weights = torch.linspace(2, 0, N)
    given, suggested = torch.arange(N) % 3, (torch.arange(N) + 1) % 3
    written = journal(tmp_path)
    written.suspects(images, given, suggested, weights, NAMES)
    written.close()
    lowest = list(range(N - 1, N - 1 - NUM_SUSPECTS, -1))
    assert shown["pixels"] == lowest
    assert shown["given"] == [i % 3 for i in lowest]
    assert shown["suggested"] == [(i + 1) % 3 for i in lowest]
    assert shown["weights"] == sorted(shown["weights"])
    assert "weights/lowest" in events(written).Tags()["images"]


@pytest.mark.parametrize(("n", "channels"), [(1, 1), (5, 3), (COLUMNS + 1, 3)])
def test_a_picture_shows_every_sample_in_its_own_colours(n, channels):
    levels = torch.arange(1, n + 1) * 20
    images = levels.to(torch.uint8)[:, None, None, None].expand(n, 4, 4, channels)
    picture = suspects_picture(images, [0] * n, [1] * n, [0.1] * n, NAMES)
    assert picture.shape[0] == 3
    assert picture.min() >= 0
    assert picture.max() <= 1
    values, counts = (picture * 255).round().int().flatten().unique(return_counts=True)
    counted = dict(zip(values.tolist(), counts.tolist(), strict=True))
    for level in levels.tolist():
        assert counted[level] >= 3 * TILE * TILE


def test_a_suggested_label_that_differs_is_marked_in_red():
    images = torch.zeros(2, 4, 4, 1, dtype=torch.uint8)
    same, other = (suspects_picture(images, [0, 0], [k, k], [0.5, 0.5], NAMES) for k in (0, 1))
    assert not ((same[0] - same[1]).abs() > 0.3).any()
    assert ((other[0] - other[1]) > 0.3).any()


def test_long_class_names_widen_the_picture_and_are_not_cut():
    images = torch.zeros(3, 4, 4, 1, dtype=torch.uint8)
    narrow = suspects_picture(images, [0] * 3, [1] * 3, [1.0] * 3, ("a", "b"))
    wide = suspects_picture(images, [0] * 3, [1] * 3, [1.0] * 3, ("a", "a very long name of a class"))
    assert wide.shape[2] > narrow.shape[2] + 3 * 60


def test_the_projector_has_facts_to_colour_by_and_no_more_samples_than_it_can_show(tmp_path):
    n = NUM_PROJECTED + 500
    written = journal(tmp_path)
    columns = {"class": [NAMES[i % 3] for i in range(n)], "weight": [i / n for i in range(n)]}
    written.project("train", torch.rand(n, 4), torch.zeros(n, 8, 8, 1, dtype=torch.uint8), columns)
    finish(written)
    folder = written.folder / "tensorboard"
    (metadata,) = folder.glob("*/train/metadata.tsv")
    lines = metadata.read_text().splitlines()
    assert lines[0] == "class\tweight"
    assert len(lines) == NUM_PROJECTED + 1
    assert lines[1] == "cat\t0.0"
    assert lines[-1].split("\t") == [NAMES[(n - 1) % 3], str((n - 1) / n)]
    assert len((metadata.parent / "tensors.tsv").read_text().splitlines()) == NUM_PROJECTED
    config = (folder / "projector_config.pbtxt").read_text()
    names = re.findall(r'tensor_name: "([^"]+)"', config)
    assert min(names).startswith("train")  # it opens on the first by name
    (test,) = folder.glob("*/unseen_test/metadata.tsv")
    assert test.read_text().splitlines()[:2] == ["class\tpredicted\tis_right", "cat\tcat\tright"]


def test_classes_that_are_numbers_become_words():
    assert [in_words(name) for name in ("7", "cat", "class 7")] == ["class 7", "cat", "class 7"]


def test_the_text_of_a_run_says_what_was_trained_on_what_and_how_it_ended(tmp_path):
    config = variant_config(parse_config(["--run.seed=3"]), "ot_meta")
    text = run_text(config, RESULT, Path("runs/mine/ot_meta"))
    for words in (
        TITLES["ot_meta"],
        "seed 3",
        "`mine`",
        "35 training samples in 3 classes of 20 down to 5",
        "symmetric label noise 40 %",
        "30 test samples",
        "`abc123`",
        "12,345 parameters",
        "2 x 40 epochs",
        "epsilon 0.2",
        "wrong labels hold 12.5 % of the weight",
        "| error | 10.0 |",
        "| balanced error | 11.2 |",
    ):
        assert words in text, words
    assert "few-shot" not in text  # there is no figure for it
    stage1 = run_text(variant_config(parse_config([]), "stage1"), RESULT | {"weights": {}}, Path("runs/mine/stage1"))
    assert "stage 2" not in stage1
    control = run_text(variant_config(parse_config([]), "class_balanced_meta"), RESULT, Path("runs/mine/class_balanced_meta"))
    assert "weights: class_balanced\n" in control  # without settings of a transport that there is not
    written = journal(tmp_path)
    written.describe(config, RESULT)
    written.close()
    (tensor,) = events(written).Tensors("run/text_summary")
    assert TITLES["ot_meta"].encode() in tensor.tensor_proto.string_val[0]


def test_curves_that_belong_together_are_laid_out(tmp_path):
    written = journal(tmp_path)
    written.close()
    assert "custom_scalars__config__" in events(written).Tags()["tensors"]


def test_the_other_processes_write_nothing(tmp_path):
    silent = Journal(tmp_path / "x", is_main=False, tensorboard=True)
    train(silent)
    silent.suspects(torch.zeros(1, 4, 4, 1, dtype=torch.uint8), *[torch.zeros(1, dtype=torch.long)] * 2, torch.ones(1), NAMES)
    silent.project("train", torch.zeros(1, 2), torch.zeros(1, 4, 4, 1, dtype=torch.uint8), {"class": ["cat"]})
    finish(silent)
    assert list(tmp_path.iterdir()) == []
    assert silent.num_lines == 3


def test_the_ledger_keeps_its_own_names(tmp_path):
    written = journal(tmp_path)
    train(written, 1)
    (line,) = (written.folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["learning_rate"] == 0.1


def test_a_confusion_picture_is_darker_where_more_are():
    picture = confusion_picture(np.array([[10, 0], [5, 5]]), ("a", "b"), cell=46)
    top, left = 44, 96
    corner = [[picture[:, top + 46 * i + 3, left + 46 * j + 3].mean() for j in range(2)] for i in range(2)]
    assert corner[0][0] < corner[1][0] == corner[1][1] < corner[0][1]
