"""What `OTReweighter` is handed is checked: one sentence for a bad array, on every process; any sane array type is taken."""

import numpy as np
import pytest
import torch
from processes import run_distributed

from otrw.errors import UserError
from otrw.reweight import OTReweighter

NUM, CLASSES = 12, 3
EMBEDDINGS = torch.randn(NUM, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(NUM) % CLASSES
REFERENCE = torch.randn(CLASSES, 4, generator=torch.Generator().manual_seed(1)), torch.arange(CLASSES)


def reweighter(**settings):
    made = OTReweighter(NUM, CLASSES, **settings)
    made.set_reference(*REFERENCE)
    return made


def with_nan(x):
    x = x.clone()
    x[5, 1] = torch.nan
    return x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((with_nan(EMBEDDINGS), LABELS), r"embeddings must be finite, got nan or inf in 1 of 12 rows, first in row 5"),
        ((EMBEDDINGS.flatten(), LABELS), r"embeddings must have shape \(n, D\)"),
        ((EMBEDDINGS[:, :3], LABELS), r"embeddings must have the reference's 4 columns"),
        ((EMBEDDINGS, LABELS + 0.5), r"labels must be whole numbers"),
        ((EMBEDDINGS, LABELS - 1), r"labels must be in 0 to 2, got -1"),
        ((EMBEDDINGS, LABELS + 1), r"labels must be in 0 to 2, got 3"),
        ((EMBEDDINGS, LABELS[:-1]), r"labels must have shape \(12,\)"),
        ((EMBEDDINGS[:6], LABELS[:6]), r"fit needs the sample index"),
        ((EMBEDDINGS[:6], LABELS[:6], torch.arange(6)), r"index must name each of 12 samples once, got 6 missing and 0"),
        ((EMBEDDINGS, LABELS, torch.arange(NUM).clamp_max(10)), r"got 1 missing and 1 repeated"),
        ((EMBEDDINGS, LABELS, torch.arange(NUM) + 1), r"index must be in 0 to 11, got 1 to 12"),
        ((EMBEDDINGS, LABELS, torch.arange(NUM).float()), r"index must be \(12,\) whole numbers"),
    ],
)
def test_a_bad_array_gives_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        reweighter().fit(*arguments)
    assert "\n" not in str(error.value)


def test_a_reference_without_a_class_is_refused_unless_allowed():
    made = OTReweighter(NUM, CLASSES)
    with pytest.raises(UserError, match="none of class 2"):
        made.set_reference(REFERENCE[0][:2], REFERENCE[1][:2])
    made.set_reference(REFERENCE[0][:2], REFERENCE[1][:2], allow_missing=True)
    assert made.fit(EMBEDDINGS, LABELS).isfinite().all()


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, np.float32])
def test_arrays_and_labels_of_any_whole_number_type_are_taken(kind):
    weights = reweighter().fit(EMBEDDINGS.numpy(), LABELS.numpy().astype(kind))
    assert torch.equal(weights, reweighter().fit(EMBEDDINGS, LABELS))


def test_returned_weights_are_the_callers_own():
    made = reweighter()
    weights = made.fit(EMBEDDINGS, LABELS)
    weights.zero_()
    assert made.weights.mean() == pytest.approx(1)


def test_it_says_what_it_is():
    made = reweighter(epsilon=0.25)
    assert "12 samples, 3 classes, semi_relaxed, epsilon=0.25" in repr(made)
    made.fit(EMBEDDINGS, LABELS)
    assert "worth" in repr(made)


def fit_with_nan_on_rank_1():
    import torch.distributed as dist

    rank = dist.get_rank()
    part = slice(0, 6) if rank == 0 else slice(6, NUM)
    embeddings = EMBEDDINGS[part].clone()
    if rank == 1:
        embeddings[0, 0] = torch.nan
    try:
        reweighter().fit(embeddings, LABELS[part], torch.arange(NUM)[part])
    except UserError as error:
        return str(error)
    return "no error"


def test_a_bad_array_on_one_process_is_an_error_on_all():
    messages = run_distributed(fit_with_nan_on_rank_1, 2)
    assert messages[0] == messages[1]
    assert messages[0].startswith("embeddings must be finite")


def test_unconverged_solves_are_counted_not_only_the_last():
    made = reweighter(weights="sgd", num_steps=4, max_iterations=1, tolerance=1e-12)
    made.fit(EMBEDDINGS, LABELS)
    assert made.diagnostics.num_unconverged == 4
    assert not made.diagnostics.converged


@pytest.mark.parametrize("weights", ["sgd", "network"])
def test_the_objective_gap_tells_a_descent_that_stopped_early(weights):
    few, many = (reweighter(weights=weights, num_steps=steps, learning_rate=0.05, tolerance=1e-6) for steps in (2, 400))
    for made in (few, many):
        made.fit(EMBEDDINGS, LABELS)
        assert made.diagnostics.objective_gap > -1e-5  # the closed form is the minimum
    assert many.diagnostics.objective_gap < few.diagnostics.objective_gap
    assert reweighter().diagnostics is None


def test_states_of_earlier_versions_load():
    made = reweighter()
    made.fit(EMBEDDINGS, LABELS)
    state = made.state_dict()
    state["diagnostics"] = state["diagnostics"][:4]
    other = reweighter()
    other.load_state_dict(state)
    assert other.diagnostics.num_unconverged == 0
