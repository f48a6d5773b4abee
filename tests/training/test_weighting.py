"""Weights and targets of a batch: mixed labels count by their own weights, and drawn samples follow the present weights."""

from types import SimpleNamespace

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from otrw.config.command_line import parse_config
from otrw.data.loader import Batch
from otrw.models.heads import HeadOnly, classify
from otrw.records.ledger import read_record
from otrw.records.result_check import check_result
from otrw.training.losses import cross_entropy, weighted_mean
from otrw.training.run import run
from otrw.training.weighting import Weighting


def mixed_batch(share):
    index, partner = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    return Batch(index, torch.zeros(3, 2), index, torch.ones(3, dtype=torch.bool), partner, share)


def weighting_of(weights, labels):
    made = Weighting.__new__(Weighting)
    made.weights, made.targets = torch.tensor(weights), torch.tensor(labels)
    made.data, made.reweighter, made.config = SimpleNamespace(num_classes=3), None, None
    return made


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_the_mixed_loss_is_the_sum_of_both_labels_losses_by_their_own_weights(share):
    weighting, batch = weighting_of([2.0, 0.0, 1.0], [0, 1, 2]), mixed_batch(share)
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    losses = cross_entropy(logits, weighting.targets_of_batch(batch, True))
    got = weighted_mean(losses, weighting.of_batch(batch, None), batch.mask, normalizer="none")
    own = (1 - share) * weighting.weights[batch.index] * cross_entropy(logits, batch.index)
    other = share * weighting.weights[batch.partner] * cross_entropy(logits, batch.partner)
    assert torch.allclose(got, (own + other).sum())


def test_no_mass_lands_on_a_label_of_weight_zero():
    weighting, batch = weighting_of([2.0, 0.0, 1.0], [0, 1, 2]), mixed_batch(0.4)
    mass = (weighting.of_batch(batch, None)[:, None] * weighting.targets_of_batch(batch, True)).sum(0)
    assert mass[1] == 0
    assert weighting.targets_of_batch(batch, False)[0, 1] == pytest.approx(0.4)  # where weights do not count, plain mixup


def test_samples_are_drawn_by_the_weights_of_the_last_refresh(tmp_path):
    """With and without a refresh the second half of training must see other samples."""
    curves = []
    for name, refresh in (("with", "1"), ("without", "null")):
        config = parse_config(
            [
                *("--stage1.epochs=2", "--stage2.epochs=3", "--stage2.rounds=1", "--run.tensorboard=false", "--data.cache="),
                *("--stage2.apply_weights=sampling", "--stage2.trainable=all", f"--stage2.refresh_every_epochs={refresh}"),
                *(f"--run.directory={tmp_path}", f"--run.name={name}", "--variants=[ot]", "--ot.label_transport=0"),
            ]
        )
        losses = []
        run(config, report=lambda line, losses=losses: losses.append(line["train"]["loss"]))
        curves.append(losses[-3:])
    assert curves[0][0] == curves[1][0]
    assert curves[0][1] != curves[1][1]


def test_the_confidence_is_that_of_a_probe_that_has_not_seen_the_sample(tmp_path):
    """The net's own predictions, and those of out-of-fold probes, give other weights; class masses are the same."""
    masses, weights = [], []
    for predictions in ("net", "out_of_fold", "out_of_fold_balanced"):
        config = parse_config(
            [
                *("--stage1.epochs=2", "--stage2.epochs=1", "--stage2.rounds=1", "--run.tensorboard=false", "--data.cache="),
                *(f"--run.directory={tmp_path}", f"--run.name={predictions}", "--variants=[ot_noise_aware]"),
                *("--ot.confidence_power=1", f"--ot.predictions={predictions}", "--stage2.trainable=classifier"),
            ]
        )
        made = run(config)
        masses.append(torch.tensor(made.variants["ot_noise_aware"]["weights"]["class_mass"]))
        columns = pyarrow.parquet.read_table(made.folder / "ot_noise_aware" / "weights.parquet")
        assert {"target_label", "wrong_label_score"} <= set(columns.column_names)
        weights.append(torch.tensor(columns["weight"].to_numpy()))
    for mass in masses:
        torch.testing.assert_close(mass, torch.full((10,), 0.1), atol=1e-5, rtol=0)
    assert not torch.allclose(weights[0], weights[1], rtol=0.1)
    assert not torch.allclose(weights[1], weights[2], rtol=0.1)


def test_logits_are_float32_under_autocast():
    head = torch.nn.Linear(64, 100)
    embedding = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = HeadOnly(head)(embedding).logits
        assert head(embedding).dtype == torch.bfloat16  # what it would be
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(embedding))
    assert torch.equal(classify(head, embedding.bfloat16()), head(embedding.bfloat16().float()))


def test_meta_images_alone_learn_nothing_from_the_given_labels(tmp_path):
    """Whatever labels the training samples are given: the same net; and each step does without their forward pass."""
    nets = []
    for rate in ("0.2", "0.6"):
        config = parse_config(
            [
                *(
                    "--stage1.epochs=1",
                    "--stage2.epochs=2",
                    "--run.tensorboard=false",
                    "--data.cache=",
                    "--variants=[meta_only]",
                ),
                *(f"--data.label_noise_rate={rate}", f"--run.directory={tmp_path}", f"--run.name=rate{rate}"),
            ]
        )
        done = run(config)
        nets.append(load_file(done.folder / "meta_only" / "model.safetensors"))
        assert done.variants["meta_only"]["weights"] == {"effective_samples": 0.0}
        check_result(read_record(done.folder / "meta_only").result)
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


def test_the_small_loss_filter_is_told_how_many_labels_are_wrong_and_not_how_many_might_have_been(tmp_path):
    """Labels are confused between some classes alone, so that fewer are wrong than data.label_noise_rate says."""
    settings = ("--data.label_noise=similar", "--data.label_noise_rate=0.4", "--stage1.epochs=1", "--stage2.epochs=1")
    places = (f"--run.directory={tmp_path}", "--run.tensorboard=false", "--data.cache=")
    folder = run(parse_config([*settings, *places, "--variants=[small_loss_meta]"])).folder
    table = pyarrow.parquet.read_table(folder / "small_loss_meta" / "weights.parquet").to_pydict()
    given, true, weights = (torch.tensor(table[name]) for name in ("given_label", "true_label", "weight"))
    share = float((given != true).float().mean())
    assert 0 < share < 0.3
    for label in range(10):
        is_of = given == label
        num_kept = max(1, round((1 - share) * int(is_of.sum())))
        assert int((weights[is_of] > 0).sum()) == num_kept
