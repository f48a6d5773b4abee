"""What people use instead of transport: each against its formula, and what each must leave and drop."""

import numpy as np
import pytest
import torch

from otrw.config.command_line import parse_config
from otrw.errors import UserError
from otrw.ot.weights import effective_number_weights
from otrw.training import competitors
from otrw.training.competitors import Seen, confidence_weights, judge, transition_matrix

BETA = 0.9999


def seen_clusters(sizes=(60, 30, 12), wrong_share=0.3, seed=0):
    """Clusters with wrong labels, a net's opinions that follow the truth, five trusted samples a class; and what is wrong."""
    generator = np.random.default_rng(seed)
    num_classes = len(sizes)
    truth = np.repeat(np.arange(num_classes), sizes)
    wrong = generator.random(len(truth)) < wrong_share
    labels = np.where(wrong, (truth + 1) % num_classes, truth)

    def embed(classes):
        return np.eye(num_classes)[classes] + 0.15 * generator.normal(size=(len(classes), num_classes))

    trusted = np.repeat(np.arange(num_classes), 5)
    embeddings = embed(truth)
    scores = np.exp(4 * embeddings)
    probabilities = scores / scores.sum(1, keepdims=True)
    return Seen(embeddings, probabilities, labels, embed(trusted), trusted, num_classes), wrong


@pytest.mark.parametrize("sizes", [[50, 7, 1], [10, 0, 3]])
def test_full_confidence_is_class_balanced_and_that_of_an_oracle_is_the_oracle(sizes):
    sizes = torch.tensor(sizes)
    labels = torch.repeat_interleave(torch.arange(3), sizes)
    ones = torch.ones(len(labels))
    expected = effective_number_weights(sizes, BETA)[labels]
    torch.testing.assert_close(confidence_weights(ones, labels, 3, BETA), expected)
    right = torch.arange(len(labels)) % 3 != 1
    left = effective_number_weights(torch.bincount(labels[right], minlength=3), BETA)[labels] * right
    torch.testing.assert_close(confidence_weights(right.float(), labels, 3, BETA), left)


@pytest.mark.parametrize("kind", ["trusted_probe", "small_loss", "out_of_fold", "cleanlab"])
def test_every_competitor_tells_wrong_labels_of_separable_classes(kind):
    if kind == "cleanlab":
        pytest.importorskip("cleanlab", reason="cleanlab is installed by hand for the experiments")
    seen, wrong = seen_clusters()
    judgement = judge(kind, seen, dropped_share=0.3, seed=0)
    assert judgement.confidence.min() >= 0
    assert judgement.confidence.max() <= 1
    assert judgement.confidence[~wrong].mean() > 0.8
    assert judgement.confidence[wrong].mean() < 0.3
    order = judgement.quality[:, None] > judgement.quality[None, :]
    assert order[np.ix_(~wrong, wrong)].mean() > 0.95  # AUROC


@pytest.mark.parametrize("share", [0.0, 0.25, 0.99])
def test_small_loss_drops_its_share_of_every_class_where_the_loss_is_largest(share):
    seen, _ = seen_clusters()
    judgement = judge("small_loss", seen, dropped_share=share, seed=0)
    for label in range(3):
        members = seen.labels == label
        kept = judgement.confidence[members] == 1
        assert kept.sum() == max(1, round((1 - share) * members.sum()))
        if not kept.all():
            given = seen.probabilities[members, label]
            assert given[kept].min() >= given[~kept].max()


def test_cleanlab_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setattr(competitors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^variants with cleanlab must find that package, got none; pip install cleanlab"):
        competitors.check_installed()


def test_the_transition_matrix_is_the_mean_opinion_of_each_trusted_class():
    transition = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.3, 0.3, 0.4]])
    labels = torch.tensor([0, 0, 2, 2, 2])
    noise = torch.tensor([[0.1, -0.1, 0.0], [-0.1, 0.1, 0.0], [0.0, 0.0, 0.0], [0.2, -0.1, -0.1], [-0.2, 0.1, 0.1]])
    found = transition_matrix(transition[labels] + noise, labels, 3)
    torch.testing.assert_close(found[[0, 2]], transition[[0, 2]])
    torch.testing.assert_close(found[1], torch.tensor([0.0, 1.0, 0.0]))  # no trusted sample: labels as given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage1.loss.name=gold_correction"], "stage1.loss.name must be none of gold_correction, early_learning"),
        (
            ["--variants=early_learning_meta", "--stage2.mixup_alpha=0.2"],
            "stage2.mixup_alpha must be 0.0 for variant early_learning_meta, got 0.2",
        ),
        (
            ["--variants=meta_weight_net_meta", "--model.head=cosine"],
            "model.head must be 'linear' for variant meta_weight_net_meta, got 'cosine'",
        ),
        (["--variants=meta_only", "--stage2.meta_loss_factor=0"], "stage2.meta_loss_factor must be > 0 for variant meta_only"),
        (["--variants=trusted_probe_labels_meta", "--ot.label_transport=0"], "ot.label_transport must be > 0 for variant tr"),
    ],
)
def test_settings_that_a_competitor_cannot_have_are_refused(arguments, message):
    with pytest.raises(UserError) as error:
        parse_config(arguments)
    assert str(error.value).startswith(message)
