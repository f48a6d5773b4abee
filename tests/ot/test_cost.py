"""Costs against scipy's distances, their invariances, and the chunked matrix against the dense one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from otrw.ot.cost import ChunkedCost, blocks, combined_cost, cosine_cost, label_cost, label_vectors, mixed_cost

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def random_matrix(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_distributions(*shape, seed=0):
    return (3 * random_matrix(*shape, seed=seed)).softmax(-1)


@PROPERTY
@given(num_atoms=st.integers(1, 6), num_samples=st.integers(1, 9), size=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_cosine_cost_is_scipy_cosine_distance(num_atoms, num_samples, size, seed):
    reference, embeddings = random_matrix(num_atoms, size, seed=seed), random_matrix(num_samples, size, seed=seed + 1)
    cost = cosine_cost(reference, embeddings)
    np.testing.assert_allclose(cost.numpy(), cdist(reference, embeddings, "cosine"), atol=1e-12)
    assert cost.min() >= -1e-12
    assert cost.max() <= 2 + 1e-12


def test_cosine_cost_does_not_see_the_length_of_embeddings():
    reference, embeddings = random_matrix(3, 4), random_matrix(5, 4, seed=1)
    lengths = torch.tensor([1e-3, 0.5, 1.0, 20.0, 1e4], dtype=torch.float64)
    stretched = cosine_cost(7 * reference, lengths[:, None] * embeddings)
    torch.testing.assert_close(stretched, cosine_cost(reference, embeddings))


def test_cosine_cost_of_equal_orthogonal_and_opposite_vectors_is_zero_one_and_two():
    axis, other = [1.0, 0.0], [0.0, 1.0]
    cost = cosine_cost(torch.tensor([axis]), torch.tensor([axis, other, [-1.0, 0.0]]))
    assert cost.tolist() == [[0.0, 1.0, 2.0]]


def test_an_embedding_of_zeros_is_as_far_from_everything_as_an_orthogonal_one():
    assert cosine_cost(random_matrix(3, 4), torch.zeros(1, 4, dtype=torch.float64)).tolist() == [[1.0]] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_costs_are_computed_in_float32_at_least(dtype):
    reference, embeddings = random_matrix(3, 4).to(dtype), random_matrix(5, 4, seed=1).to(dtype)
    cost = cosine_cost(reference, embeddings)
    assert cost.dtype == torch.float32
    exact = cdist(reference.double(), embeddings.double(), "cosine")
    np.testing.assert_allclose(cost.numpy(), exact, atol=1e-6)
    left, right = random_distributions(3, 4).to(dtype), random_distributions(5, 4, seed=1).to(dtype)
    squared = label_cost(left, right, 4, "mean_squared")
    assert squared.dtype == torch.float32
    np.testing.assert_allclose(squared.numpy(), cdist(left.double(), right.double(), "sqeuclidean") / 4, atol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_label_cost_of_different_one_hot_labels_is_root_two_or_two_over_the_number_of_classes(num_classes):
    labels = torch.arange(num_classes)
    differs = 1 - torch.eye(num_classes)
    torch.testing.assert_close(label_cost(labels, labels, num_classes), 2**0.5 * differs)
    torch.testing.assert_close(label_cost(labels, labels, num_classes, "euclidean"), 2**0.5 * differs)
    torch.testing.assert_close(label_cost(labels, labels, num_classes, "mean_squared"), 2 / num_classes * differs)


@PROPERTY
@given(num_classes=st.integers(2, 6), num_samples=st.integers(1, 9), seed=st.integers(0, 10_000))
def test_label_cost_between_soft_labels_is_scipy_distance(num_classes, num_samples, seed):
    left, right = (
        random_distributions(4, num_classes, seed=seed),
        random_distributions(num_samples, num_classes, seed=9),
    )
    np.testing.assert_allclose(label_cost(left, right, num_classes).numpy(), cdist(left, right), atol=1e-7)
    np.testing.assert_allclose(
        label_cost(left, right, num_classes, "mean_squared").numpy(),
        ((left[:, None] - right[None]) ** 2).mean(-1).numpy(),
        atol=1e-12,
    )


def test_label_cost_takes_integer_labels_on_one_side_and_vectors_on_the_other():
    labels, vectors = torch.tensor([0, 2, 1]), random_distributions(5, 3).float()
    assert torch.equal(label_cost(labels, vectors, 3), label_cost(label_vectors(labels, 3), vectors, 3))


def test_label_cost_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="mean_squared"):
        label_cost(torch.tensor([0]), torch.tensor([1]), 2, kind="manhattan")


def test_softened_label_vectors_are_distributions_between_the_label_and_the_prediction():
    labels, predictions = torch.tensor([0, 2, 1, 1]), random_distributions(4, 3).float()
    one_hot = torch.eye(3)[labels]
    assert torch.equal(label_vectors(labels, 3), one_hot)
    assert torch.equal(label_vectors(labels, 3, predictions, 0.0), one_hot)
    torch.testing.assert_close(label_vectors(labels, 3, predictions, 1.0), predictions)
    blend = label_vectors(labels, 3, predictions, 0.25)
    torch.testing.assert_close(blend, 0.75 * one_hot + 0.25 * predictions)
    torch.testing.assert_close(blend.sum(1), torch.ones(4))


def test_combined_cost_is_the_convex_combination():
    feature, label = random_matrix(3, 5).abs(), random_matrix(3, 5, seed=1).abs()
    assert torch.equal(combined_cost(feature, label, 1.0), feature)
    assert torch.equal(combined_cost(feature, label, 0.0), label)
    torch.testing.assert_close(combined_cost(feature, label, 0.3), 0.3 * feature + 0.7 * label)


@PROPERTY
@given(num_samples=st.integers(1, 12), chunk_size=st.integers(1, 15))
def test_chunks_cover_every_sample_once_and_in_order(num_samples, chunk_size):
    dense = random_matrix(3, num_samples)
    parts, pieces = zip(*blocks(ChunkedCost(lambda part: dense[:, part], num_samples, chunk_size)), strict=True)
    assert torch.equal(torch.cat(pieces, dim=1), dense)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(num_samples))
    assert all(piece.shape[1] <= chunk_size for piece in pieces)


def test_a_dense_cost_is_one_block():
    dense = random_matrix(3, 7)
    ((part, block),) = blocks(dense)
    assert block is dense
    assert part == slice(0, 7)


@pytest.mark.parametrize("kind", ["mean_squared", "euclidean"])
@pytest.mark.parametrize("mixing", [0.0, 0.3, 1.0])
def test_the_mixed_cost_is_the_mix_of_both(kind, mixing):
    generator = torch.Generator().manual_seed(0)
    reference, embeddings = torch.randn(6, 5, generator=generator), torch.randn(40, 5, generator=generator)
    reference_labels, labels = torch.arange(6) % 4, torch.randint(4, (40,), generator=generator)
    unit = torch.nn.functional.normalize(reference, dim=1)
    one_hot = label_cost(label_vectors(reference_labels, 4), label_vectors(labels, 4), 4, kind)
    torch.testing.assert_close(label_cost(reference_labels, labels, 4, kind), one_hot, rtol=0, atol=0)
    expected = combined_cost(cosine_cost(reference, embeddings), one_hot, mixing)
    torch.testing.assert_close(
        mixed_cost(unit, reference_labels, embeddings, labels, 4, kind, mixing), expected, rtol=0, atol=1e-6
    )
