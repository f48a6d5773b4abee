"""`OTReweighter` on one process: its weights are those of the maths, whatever the solver, order or interruption."""

import statistics

import pytest
import torch

from otrw.config import OTConfig
from otrw.errors import UserError
from otrw.ot.cost import combined_cost, cosine_cost, label_cost, label_vectors
from otrw.ot.noise_aware import noise_aware_plan, noise_aware_weights, wrong_label_scores
from otrw.ot.semi_relaxed import semi_relaxed, semi_relaxed_weights
from otrw.ot.sinkhorn import transport_plan
from otrw.ot.solve import Solver
from otrw.reweight import OTReweighter

NUM_SAMPLES, NUM_CLASSES, EMBEDDING_SIZE = 30, 3, 5
FOUR_SAMPLES = 4 * 9 * 4 * 4 / 2**20
"""Memory in which the cost of four samples against the nine atoms fits."""
SETTINGS = {
    "semi_relaxed": {"weights": "semi_relaxed", "label_transport": 0.5},
    "sgd": {"weights": "sgd", "num_steps": 5, "learning_rate": 0.3, "epsilon": 0.3},
    "unrolled": {"weights": "sgd", "gradient": "unrolled", "num_steps": 3, "max_iterations": 20, "epsilon": 0.3},
    "raw": {"weights": "sgd", "parametrization": "weights", "num_steps": 3, "learning_rate": 0.3, "epsilon": 0.3},
    "network": {"weights": "network", "num_steps": 5, "learning_rate": 0.3, "epsilon": 0.3, "hidden_size": 6},
    "noise_aware": {"weights": "noise_aware", "label_transport": 0.5},
}


def problem(num_samples=NUM_SAMPLES, seed=0, noise=0.5):
    """Reference embeddings and labels, and those of a long tail of clustered samples."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(NUM_CLASSES, EMBEDDING_SIZE, generator=generator)
    reference_labels = torch.arange(NUM_CLASSES).repeat(3)
    labels = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), num_samples, replacement=True, generator=generator)
    reference = centres[reference_labels] + noise * torch.randn(9, EMBEDDING_SIZE, generator=generator)
    embeddings = centres[labels] + noise * torch.randn(num_samples, EMBEDDING_SIZE, generator=generator)
    return reference, reference_labels, embeddings, labels


def make(num_samples=NUM_SAMPLES, initial_weights=None, seed=0, **settings):
    """A reweighter that has its reference."""
    reweighter = OTReweighter(num_samples, NUM_CLASSES, initial_weights=initial_weights, seed=seed, **settings)
    reference, reference_labels, _, _ = problem(num_samples)
    reweighter.set_reference(reference, reference_labels)
    return reweighter


def uniform_log(num_atoms):
    return torch.full((num_atoms,), 1 / num_atoms).log()


@pytest.mark.parametrize("mixing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["euclidean", "mean_squared"])
def test_a_fit_is_the_closed_form_times_the_number_of_samples(mixing, kind):
    reference, reference_labels, embeddings, labels = problem()
    labels_apart = label_cost(reference_labels, labels, NUM_CLASSES, kind)
    cost = combined_cost(cosine_cost(reference, embeddings), labels_apart, mixing)
    expected = NUM_SAMPLES * semi_relaxed_weights(cost, uniform_log(9), epsilon=0.2)
    reweighter = make(mixing=mixing, label_cost=kind, epsilon=0.2)
    weights = reweighter.fit(embeddings, labels)
    torch.testing.assert_close(weights, expected)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(reweighter.weights, weights)
    assert reweighter.diagnostics.converged
    # Kish's effective sample size is N / (1 + squared coefficient of variation)
    variation = weights.std(correction=0) / weights.mean()
    assert reweighter.diagnostics.effective_samples == pytest.approx(float(NUM_SAMPLES / (1 + variation**2)), rel=1e-4)


def test_prototypes_are_the_class_means_of_the_reference():
    reference, reference_labels, embeddings, labels = problem()
    by_prototypes = make(reference="prototypes")
    by_means = OTReweighter(NUM_SAMPLES, NUM_CLASSES)
    means = torch.stack([reference[reference_labels == c].mean(0) for c in range(NUM_CLASSES)])
    by_means.set_reference(means, torch.arange(NUM_CLASSES))
    torch.testing.assert_close(by_prototypes.fit(embeddings, labels), by_means.fit(embeddings, labels))


def test_a_label_cost_that_decides_gives_every_class_the_same_mass():
    _, _, embeddings, labels = problem()
    weights = make(mixing=0.0, epsilon=0.02).fit(embeddings, labels)
    mass = torch.zeros(NUM_CLASSES).index_add(0, labels, weights)
    torch.testing.assert_close(mass, torch.full((NUM_CLASSES,), NUM_SAMPLES / NUM_CLASSES))


def test_wrong_labels_get_less_mass_than_right_ones_of_the_same_class():
    reference, reference_labels, embeddings, true_labels = problem(num_samples=300, noise=0.3)
    wrong = torch.rand(300, generator=torch.Generator().manual_seed(1)) < 0.3
    labels = torch.where(wrong, (true_labels + 1) % NUM_CLASSES, true_labels)
    reweighter = OTReweighter(300, NUM_CLASSES, label_transport=1.0)
    reweighter.set_reference(reference, reference_labels)
    weights = reweighter.fit(embeddings, labels)
    for c in range(NUM_CLASSES):
        right, false = weights[(labels == c) & ~wrong], weights[(labels == c) & wrong]
        assert (right[:, None] > false[None, :]).float().mean() > 0.95  # AUROC


def test_the_order_of_samples_does_not_matter():
    _, _, embeddings, labels = problem()
    order = torch.randperm(NUM_SAMPLES, generator=torch.Generator().manual_seed(3))
    for settings in SETTINGS.values():
        expected = make(**settings).fit(embeddings, labels)
        torch.testing.assert_close(make(**settings).fit(embeddings[order], labels[order], order), expected)


def test_gradient_descent_to_the_end_reaches_the_closed_form():
    _, _, embeddings, labels = problem()
    expected = make(epsilon=0.3).fit(embeddings, labels)
    settings = {"weights": "sgd", "gradient": "envelope", "epsilon": 0.3, "learning_rate": 0.2, "tolerance": 1e-6}
    reweighter = make(num_steps=250, **settings)
    weights = reweighter.fit(embeddings, labels)
    assert reweighter.diagnostics.converged
    assert (expected - 1).abs().max() > 0.5  # far from the start
    torch.testing.assert_close(weights, expected, rtol=0, atol=5e-3)
    # two fits of half as many steps go the same way
    halves = make(num_steps=125, **settings)
    halves.fit(embeddings, labels)
    torch.testing.assert_close(halves.fit(embeddings, labels), weights, rtol=0, atol=1e-3)


def test_each_solve_of_a_fit_starts_from_the_one_before():
    _, _, embeddings, labels = problem()
    settings = {"weights": "sgd", "epsilon": 0.3, "learning_rate": 0.2, "tolerance": 1e-5}
    warm = make(num_steps=11, **settings)
    weights = warm.fit(embeddings, labels)
    ten, cold = make(num_steps=10, **settings), make(num_steps=1, **settings)
    ten.fit(embeddings, labels)
    cold.load_state_dict(ten.state_dict())
    torch.testing.assert_close(cold.fit(embeddings, labels), weights, rtol=1e-3, atol=1e-3)
    assert warm.diagnostics.num_iterations < cold.diagnostics.num_iterations


def test_the_weight_net_lowers_the_transport_objective_and_scores_by_the_embedding_alone():
    _, _, embeddings, labels = problem()
    embeddings = torch.cat([embeddings[:-1], embeddings[:1]])  # the last sample looks like the first
    labels = torch.cat([labels[:-1], labels[:1]])
    closed = make(epsilon=0.3).fit(embeddings, labels)
    reweighter = make(weights="network", epsilon=0.3, num_steps=5, learning_rate=0.3)
    first = reweighter.fit(embeddings, labels)
    for _ in range(10):
        last = reweighter.fit(embeddings, labels)
    assert float(last.mean()) == pytest.approx(1, abs=1e-5)
    assert (last - closed).abs().mean() < 0.6 * (first - closed).abs().mean()
    torch.testing.assert_close(last[0], last[-1])


@pytest.mark.parametrize("solver", ["newton", "newton_cg", "sinkhorn"])
@pytest.mark.parametrize("name", ["sgd", "raw", "network"])
def test_every_solver_gives_the_same_weights_and_is_named(name, solver):
    _, _, embeddings, labels = problem()
    settings = SETTINGS[name] | {"tolerance": 1e-6}
    expected, other = make(**settings), make(solver=solver, **settings)
    torch.testing.assert_close(other.fit(embeddings, labels), expected.fit(embeddings, labels), rtol=1e-4, atol=1e-4)
    assert expected.diagnostics.solver == "newton"  # nine atoms
    assert other.diagnostics.solver == solver


@pytest.mark.parametrize("weights", ["sgd", "network"])
@pytest.mark.parametrize("memory", [1024.0, FOUR_SAMPLES])
def test_a_step_after_the_first_takes_one_to_three_passes(weights, memory, monkeypatch):
    passes = []

    class Counted(Solver):
        def solve(self, *args, **settings):
            result = super().solve(*args, **settings)
            passes.append(result.num_iterations)
            return result

    monkeypatch.setattr("otrw.reweight.solvers.Solver", Counted)
    reference, reference_labels, embeddings, labels = problem(num_samples=400, seed=1)
    for epsilon in (0.3, 0.1, 0.03):
        passes.clear()
        reweighter = OTReweighter(
            400,
            NUM_CLASSES,
            weights=weights,
            epsilon=epsilon,
            num_steps=20,
            memory_mebibytes=memory,
            learning_rate=0.1 * epsilon,
        )
        reweighter.set_reference(reference, reference_labels)
        reweighter.fit(embeddings, labels)
        assert reweighter.diagnostics.converged
        assert len(passes) == 20
        assert statistics.median(passes[1:]) <= 3
        if weights == "sgd":  # the net's first steps move its weights far more than the later ones
            assert max(passes[1:]) <= 3
        assert passes[0] > 3


@pytest.mark.parametrize("name", ["semi_relaxed", "sgd"])
def test_pot_as_the_solver_gives_the_same_weights(name):
    _, _, embeddings, labels = problem()
    settings = SETTINGS[name] | {"tolerance": 1e-5}
    ours, theirs = make(**settings), make(solver="pot", **settings)
    torch.testing.assert_close(theirs.fit(embeddings, labels), ours.fit(embeddings, labels), rtol=1e-3, atol=1e-3)
    assert theirs.diagnostics.converged
    torch.testing.assert_close(theirs.targets(labels), ours.targets(labels), rtol=1e-3, atol=1e-3)


def test_a_cost_in_chunks_gives_the_same_fit():
    _, _, embeddings, labels = problem()
    for name in ("semi_relaxed", "sgd", "network"):
        whole, chunked = make(**SETTINGS[name]), make(memory_mebibytes=FOUR_SAMPLES, **SETTINGS[name])
        expected = whole.fit(embeddings, labels)
        torch.testing.assert_close(chunked.fit(embeddings, labels), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(chunked.targets(labels), whole.targets(labels))


@pytest.mark.parametrize("settings", [{"solver": "pot"}, {"weights": "sgd", "gradient": "unrolled"}])
def test_what_needs_the_whole_cost_says_so_when_it_does_not_fit(settings):
    _, _, embeddings, labels = problem()
    with pytest.raises(UserError, match="whole cost matrix"):
        make(memory_mebibytes=FOUR_SAMPLES, **settings).fit(embeddings, labels)


def test_targets_blend_the_given_label_with_the_barycentric_projection_of_the_plan():
    reference, reference_labels, embeddings, labels = problem()
    assert torch.equal(make().targets(labels), labels)
    reweighter = make(label_transport=0.25, epsilon=0.2, mixing=0.8)
    reweighter.fit(embeddings, labels)
    cost = combined_cost(cosine_cost(reference, embeddings), label_cost(reference_labels, labels, NUM_CLASSES), 0.8)
    plan = transport_plan(cost, semi_relaxed(cost, uniform_log(9), epsilon=0.2), 0.2)
    transported = (plan / plan.sum(0)).T @ torch.eye(NUM_CLASSES)[reference_labels]
    one_hot = torch.eye(NUM_CLASSES)[labels]
    targets = reweighter.targets(labels)
    torch.testing.assert_close(targets, 0.75 * one_hot + 0.25 * transported)
    torch.testing.assert_close(targets.sum(1), torch.ones(NUM_SAMPLES))


def test_a_noise_aware_fit_trains_on_the_mass_of_given_and_transported_labels():
    """Weights times targets is the mass of sample n with label k: half with the given label, half by the balanced plan."""
    reference, reference_labels, embeddings, labels = problem()
    reweighter = make(weights="noise_aware", label_transport=0.5)
    weights = reweighter.fit(embeddings, labels)
    plan = noise_aware_plan(embeddings, labels, reference, reference_labels, NUM_CLASSES)
    q = plan.log_posterior.exp()
    by_plan = NUM_SAMPLES / NUM_CLASSES * q / q.sum(0)
    by_label = noise_aware_weights(plan, labels)[:, None] * torch.eye(NUM_CLASSES)[labels]
    torch.testing.assert_close(weights[:, None] * reweighter.targets(labels), (by_plan + by_label) / 2)
    torch.testing.assert_close((weights[:, None] * reweighter.targets(labels)).sum(0), torch.full((3,), NUM_SAMPLES / 3))
    torch.testing.assert_close(reweighter.label_targets, q)
    torch.testing.assert_close(reweighter.wrong_label_scores(labels), wrong_label_scores(plan, labels), atol=1e-6, rtol=0)
    assert reweighter.noise_rate == pytest.approx(float((plan.class_share * (1 - plan.transition.diagonal())).sum()))


def test_without_label_transport_noise_aware_targets_are_the_given_labels():
    _, _, embeddings, labels = problem()
    reweighter = make(weights="noise_aware")
    weights = reweighter.fit(embeddings, labels)
    assert torch.equal(reweighter.targets(labels), labels)
    mass = torch.zeros(NUM_CLASSES).index_add_(0, labels, weights)
    torch.testing.assert_close(mass, torch.full((NUM_CLASSES,), NUM_SAMPLES / NUM_CLASSES))
    assert make().wrong_label_scores(labels) is None


@pytest.mark.parametrize("kind", ["semi_relaxed", "noise_aware"])
def test_weights_times_the_confidence_of_another_model_keep_the_mass_of_every_class(kind):
    _, _, embeddings, labels = problem()
    predictions = torch.randn(NUM_SAMPLES, NUM_CLASSES, generator=torch.Generator().manual_seed(4)).softmax(1)
    plain = make(weights=kind).fit(embeddings, labels)
    product = make(weights=kind, weight_power=0.5, confidence_power=2.0).fit(embeddings, labels, predictions=predictions)
    expected = plain.sqrt() * predictions[torch.arange(NUM_SAMPLES), labels] ** 2
    for label in range(NUM_CLASSES):
        members = labels == label
        share = expected[members] / expected[members].sum()
        torch.testing.assert_close(product[members], plain[members].sum() * share)
    with pytest.raises(UserError, match="confidence_power > 0"):
        make(weights=kind, confidence_power=1.0).fit(embeddings, labels)


@pytest.mark.parametrize(("key", "value"), [("scope", "batch"), ("reference", "prototypes")])
def test_noise_aware_weights_need_all_samples_and_all_trusted_ones(key, value):
    with pytest.raises(UserError, match="noise_aware"):
        make(weights="noise_aware", **{key: value})


def test_softened_labels_enter_the_cost():
    reference, reference_labels, embeddings, labels = problem()
    predictions = torch.randn(NUM_SAMPLES, NUM_CLASSES, generator=torch.Generator().manual_seed(4)).softmax(1)
    vectors = label_vectors(labels, NUM_CLASSES, predictions, 0.5)
    cost = combined_cost(cosine_cost(reference, embeddings), label_cost(reference_labels, vectors, NUM_CLASSES), 0.5)
    expected = NUM_SAMPLES * semi_relaxed_weights(cost, uniform_log(9), epsilon=0.1)
    weights = make(label_softening=0.5).fit(embeddings, labels, predictions=predictions)
    torch.testing.assert_close(weights, expected)
    assert not torch.allclose(weights, make().fit(embeddings, labels), atol=0.01)


def test_a_step_weighs_its_batch_alone():
    _, _, embeddings, labels = problem()
    batch = torch.tensor([3, 17, 4, 29, 8])
    others = torch.tensor([i for i in range(NUM_SAMPLES) if i not in batch.tolist()])
    alone = make(num_samples=NUM_SAMPLES, scope="batch")
    weights = alone.step(batch, embeddings[batch], labels[batch])
    small = OTReweighter(5, NUM_CLASSES)
    small.set_reference(*problem()[:2])
    torch.testing.assert_close(weights, small.fit(embeddings[batch], labels[batch]))
    assert torch.equal(alone.weights[batch], weights)
    assert torch.equal(alone.weights[others], torch.ones(25))


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": "noise_aware"},
        {"weights": "network"},
        {"label_transport": 0.5},
        {"weight_power": 2.0},
        {"label_softening": 0.5},
    ],
)
def test_a_step_does_not_pass_over_settings_that_it_cannot_follow(settings):
    _, _, embeddings, labels = problem()
    with pytest.raises(UserError, match=r"ot\.scope=batch"):
        make(**settings).step(torch.arange(4), embeddings[:4], labels[:4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": torch.full((4, EMBEDDING_SIZE), float("nan"))}, "embedding must be finite"),
        ({"embedding": torch.ones(4, EMBEDDING_SIZE + 1)}, "embedding must have the reference's"),
        ({"embedding": torch.ones(3, EMBEDDING_SIZE)}, "embedding must have 4 rows"),
        ({"label": torch.tensor([0, 1, 99, 0])}, "label must be in 0 to"),
        ({"label": torch.tensor([0, 1, -1, 0])}, "label must be in 0 to"),
        ({"index": torch.tensor([0, 1, 2, -1])}, "index must be in 0 to"),
        ({"index": torch.tensor([0, 1, 2, NUM_SAMPLES])}, "index must be in 0 to"),
        ({"index": torch.tensor([0, 1, 2, 2])}, "index must name a sample once"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, "mask must have shape"),
    ],
)
@pytest.mark.parametrize("weights", ["semi_relaxed", "sgd"])
def test_a_batch_that_cannot_be_right_is_refused_and_leaves_the_state_as_it_was(weights, change, message):
    _, _, embeddings, labels = problem()
    reweighter = make(weights=weights, scope="batch")
    before = {key: value.clone() for key, value in reweighter.state_dict().items()}
    given = {"index": torch.arange(4), "embedding": embeddings[:4], "label": labels[:4]}
    with pytest.raises(UserError, match=message):
        reweighter.step(**(given | change))
    assert all(torch.equal(value, before[key]) for key, value in reweighter.state_dict().items())
    arrays = {key: value.numpy() for key, value in given.items()}
    assert torch.equal(reweighter.step(**arrays), make(weights=weights, scope="batch").step(**given))


@pytest.mark.parametrize("name", ["sgd", "raw", "unrolled"])
def test_a_step_with_padding_is_the_step_without(name):
    _, _, embeddings, labels = problem()
    batch = torch.tensor([3, 17, 4])
    settings = SETTINGS[name] | {"scope": "batch", "initial_weights": torch.linspace(0.5, 2, NUM_SAMPLES)}
    plain, padded = make(**settings), make(**settings)
    expected = plain.step(batch, embeddings[batch], labels[batch])
    assert not torch.equal(plain.theta, make(**settings).theta)
    index = torch.tensor([3, 0, 17, 4, 0])
    mask = torch.tensor([True, False, True, True, False])
    rows = torch.where(mask[:, None], embeddings[index], -5.0)
    weights = padded.step(index, rows, labels[index], mask)
    assert torch.equal(weights[mask], expected)
    assert torch.equal(padded.weights, plain.weights)
    assert torch.equal(padded.theta, plain.theta)


def test_one_step_over_everything_is_one_step_of_a_fit_with_the_scaled_rate():
    _, _, embeddings, labels = problem()
    everything = torch.arange(NUM_SAMPLES)
    for gradient in ("envelope", "unrolled"):
        settings = {"weights": "sgd", "gradient": gradient, "weight_decay": 0.01, "epsilon": 0.3}
        fit = make(num_steps=1, learning_rate=0.2, **settings)
        step = make(scope="batch", learning_rate=0.2 * NUM_SAMPLES, **(settings | {"weight_decay": 0.01 / NUM_SAMPLES}))
        fit.theta += torch.linspace(-1, 1, NUM_SAMPLES)
        step.theta += torch.linspace(-1, 1, NUM_SAMPLES)
        stepped = step.step(everything, embeddings, labels)
        torch.testing.assert_close(stepped, fit.fit(embeddings, labels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", ["envelope", "unrolled"])
def test_a_sample_that_starts_without_mass_stays_without(gradient):
    _, _, embeddings, labels = problem()
    kept = torch.arange(1, NUM_SAMPLES)
    start = torch.ones(NUM_SAMPLES)
    start[0] = 0
    settings = {"weights": "sgd", "gradient": gradient, "num_steps": 3, "epsilon": 0.3, "weight_decay": 0.01}
    weights = make(initial_weights=start, learning_rate=0.2, **settings).fit(embeddings, labels)
    assert weights[0] == 0
    without = OTReweighter(
        NUM_SAMPLES - 1,
        NUM_CLASSES,
        learning_rate=0.2 * NUM_SAMPLES / (NUM_SAMPLES - 1),
        **(settings | {"weight_decay": 0.01 * (NUM_SAMPLES - 1) / NUM_SAMPLES}),
    )
    without.set_reference(*problem()[:2])
    expected = without.fit(embeddings[kept], labels[kept]) * NUM_SAMPLES / (NUM_SAMPLES - 1)
    torch.testing.assert_close(weights[kept], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [SETTINGS["sgd"], SETTINGS["raw"] | {"scope": "batch"}])
def test_what_the_caller_gives_is_not_written_into(settings):
    _, _, embeddings, labels = problem()
    start = torch.linspace(0.5, 2, NUM_SAMPLES)
    copies = [x.clone() for x in (start, embeddings, labels)]
    reweighter = make(initial_weights=start, **settings)
    if reweighter.config.scope == "batch":
        reweighter.step(torch.arange(4), embeddings[:4], labels[:4])
    else:
        reweighter.fit(embeddings, labels)
    assert not torch.equal(reweighter.weights, start)
    assert all(torch.equal(x, copy) for x, copy in zip((start, embeddings, labels), copies, strict=True))


@pytest.mark.parametrize("name", SETTINGS)
def test_after_a_round_trip_of_its_state_it_goes_on_with_the_same_bits(name, tmp_path):
    _, _, embeddings, labels = problem()
    settings = SETTINGS[name] | {"initial_weights": torch.linspace(0.5, 2, NUM_SAMPLES)}
    whole = make(**settings)
    whole.fit(embeddings, labels)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    resumed = make(**(settings | {"initial_weights": None}), seed=99)  # all that matters is in the state
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(resumed.weights, whole.weights)
    assert torch.equal(resumed.targets(labels), whole.targets(labels))
    assert resumed.diagnostics == whole.diagnostics
    for reweighter in (whole, resumed):
        reweighter.fit(embeddings + 0.1, labels)
        if name not in ("network", "noise_aware", "semi_relaxed"):  # the last has settings of dataset scope
            reweighter.step(torch.arange(5), embeddings[:5], labels[:5])
    assert torch.equal(resumed.weights, whole.weights)
    assert resumed.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in resumed.state_dict().items())


@pytest.mark.parametrize("name", SETTINGS)
def test_taking_over_the_state_of_a_fresh_one_undoes_every_fit(name):
    _, _, embeddings, labels = problem()
    used = make(**SETTINGS[name])
    fresh = make(**SETTINGS[name])
    used.fit(embeddings, labels)
    used.load_state_dict(fresh.state_dict())
    assert used.state_dict().keys() == fresh.state_dict().keys()
    assert torch.equal(used.fit(embeddings, labels), fresh.fit(embeddings, labels))


def test_a_solve_that_does_not_converge_is_reported():
    _, _, embeddings, labels = problem()
    settings = {"weights": "sgd", "num_steps": 1, "tolerance": 1e-6, "epsilon": 0.01}
    for solver in ("auto", "sinkhorn", "pot"):
        reweighter = make(max_iterations=3, solver=solver, **settings)
        reweighter.fit(embeddings, labels)
        assert not reweighter.diagnostics.converged
        assert reweighter.diagnostics.num_iterations in ((3, 4) if solver == "auto" else (3,))
        assert reweighter.diagnostics.marginal_error > 1e-6


def test_fits_differ_in_the_seed_of_the_weight_net_alone():
    _, _, embeddings, labels = problem()
    by_default = make(**SETTINGS["sgd"]).fit(embeddings, labels)
    torch.manual_seed(0)
    first = make(seed=1, **SETTINGS["network"]).fit(embeddings, labels)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(make(seed=1, **SETTINGS["network"]).fit(embeddings, labels), first)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers are left alone
    assert not torch.equal(make(seed=2, **SETTINGS["network"]).fit(embeddings, labels), first)
    assert torch.equal(make(seed=2, **SETTINGS["sgd"]).fit(embeddings, labels), by_default)


@pytest.mark.parametrize("epsilon", [0.0, -0.1])
def test_epsilon_that_is_not_positive_is_refused_by_its_path(epsilon):
    with pytest.raises(UserError, match=rf"ot\.epsilon must be > 0, got {epsilon}"):
        OTConfig(epsilon=epsilon)
    with pytest.raises(UserError, match=r"ot\.epsilon"):
        OTReweighter(10, 2, epsilon=epsilon)


@pytest.mark.parametrize("control", ["none", "class_balanced", "oracle"])
def test_controls_need_no_reweighter(control):
    with pytest.raises(UserError, match=rf"ot\.weights must be .*, got '{control}'"):
        OTReweighter(10, 2, weights=control)


def test_a_config_and_keywords_together_are_refused():
    with pytest.raises(ValueError, match="epsilon"):
        OTReweighter(10, 2, OTConfig(), epsilon=0.5)
    _, _, embeddings, labels = problem()
    by_config = OTReweighter(NUM_SAMPLES, NUM_CLASSES, OTConfig(epsilon=0.5))
    by_config.set_reference(*problem()[:2])
    assert torch.equal(by_config.fit(embeddings, labels), make(epsilon=0.5).fit(embeddings, labels))


def test_bad_calls_say_what_is_missing():
    _, _, embeddings, labels = problem()
    without_reference = OTReweighter(NUM_SAMPLES, NUM_CLASSES)
    with pytest.raises(ValueError, match="set_reference"):
        without_reference.fit(embeddings, labels)
    with pytest.raises(ValueError, match="set_reference"):
        without_reference.step(torch.arange(3), embeddings[:3], labels[:3])
    with pytest.raises(ValueError, match="index"):
        make().fit(embeddings[:7], labels[:7])
    with pytest.raises(ValueError, match="predictions"):
        make(label_softening=0.5).fit(embeddings, labels)
    with pytest.raises(UserError, match="30"):
        make().load_state_dict(OTReweighter(7, NUM_CLASSES).state_dict())


@pytest.mark.parametrize("parametrization", ["weights", "logits"])
@pytest.mark.parametrize(("stopping", "tolerance"), [("potential", 0.1), ("marginal", 1e-3)])
def test_all_batches_of_an_epoch_at_once_are_the_same_as_one_after_the_other(parametrization, stopping, tolerance):
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(43, 5, generator=generator), torch.randint(3, (43,), generator=generator)
    start = torch.rand(43, generator=generator) + 0.5
    settings = {
        "weights": "sgd",
        "scope": "batch",
        "gradient": "unrolled",
        "reference": "prototypes",
        "parametrization": parametrization,
        "stopping": stopping,
        "tolerance": tolerance,
        "learning_rate": 0.05,
        "weight_decay": 5e-4,
    }
    one, other = (OTReweighter(43, 3, initial_weights=start, **settings) for _ in range(2))
    order = torch.randperm(43, generator=generator)
    iterations = set()
    for reweighter in (one, other):
        reweighter.set_reference(embeddings[:9], torch.arange(9) % 3)
    for members in order.split(8):
        one.step(members, embeddings[members], labels[members])
        iterations.add(one.diagnostics.num_iterations)
    other.steps(torch.cat([order, torch.full((5,), -1)]).view(6, 8), embeddings, labels)
    assert len(iterations) > 1  # batches stop at iterations of their own
    assert (one.theta - start).abs().max() > 1e-4
    torch.testing.assert_close(other.theta, one.theta)
    torch.testing.assert_close(other.weights, one.weights)
