"""Weights, losses and gradients do not depend on the number of processes, nor on how samples are dealt out to them."""

import pytest
import torch
from processes import run_distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from otrw import distributed
from otrw.errors import UserError
from otrw.reweight import OTReweighter
from otrw.training.losses import cross_entropy, weighted_mean

NUM_SAMPLES, NUM_CLASSES, EMBEDDING_SIZE, BATCH_SIZE = 23, 3, 5, 8
FITS = {  # steps small enough to descend: longer ones jump between clusters and would magnify rounding
    "semi_relaxed": {"weights": "semi_relaxed", "label_softening": 0.3},
    "sgd": {"weights": "sgd", "num_steps": 8, "learning_rate": 0.3, "weight_decay": 1e-3},
    "sgd weights": {"weights": "sgd", "parametrization": "weights", "num_steps": 8, "learning_rate": 0.3},
    "network": {"weights": "network", "num_steps": 8, "learning_rate": 0.3, "hidden_size": 8},
    "noise_aware": {"weights": "noise_aware", "weight_power": 0.5, "confidence_power": 0.5},
    "learned cost": {"weights": "noise_aware", "plan_cost": "probe"},
    "pooled cost": {"weights": "noise_aware", "plan_cost": "pool"},
}
STEPS = {
    "semi_relaxed": {"weights": "semi_relaxed"},
    "sgd": {"weights": "sgd", "learning_rate": 2.0},
    "released": {
        "weights": "sgd",
        "gradient": "unrolled",
        "parametrization": "weights",
        "reference": "prototypes",
        "label_cost": "mean_squared",
        "max_iterations": 200,
        "tolerance": 0.1,
        "stopping": "potential",
        "learning_rate": 10.0,
        "weight_decay": 5e-4,
    },
}
NORMALIZERS = ["weights", "samples", "none"]


def problem():
    """Reference embeddings and labels; embeddings, labels, predictions and start weights of a long tail of samples."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(NUM_CLASSES, EMBEDDING_SIZE, generator=generator)
    reference_labels = torch.arange(NUM_CLASSES).repeat(2)
    labels = torch.tensor([0] * 14 + [1] * 6 + [2] * 3)
    reference = centres[reference_labels] + 0.5 * torch.randn(6, EMBEDDING_SIZE, generator=generator)
    embeddings = centres[labels] + 0.5 * torch.randn(NUM_SAMPLES, EMBEDDING_SIZE, generator=generator)
    predictions = torch.randn(NUM_SAMPLES, NUM_CLASSES, generator=generator).softmax(1)
    start = torch.tensor([0.5, 1.0, 2.5])[labels]
    return reference, reference_labels, embeddings, labels, predictions, start


def shard(deal):
    """Indices of this process's samples: dealt in turn, or all on the first process."""
    rank, size = distributed.rank(), distributed.world_size()
    order = torch.randperm(NUM_SAMPLES, generator=torch.Generator().manual_seed(1))
    if deal == "all on the first":
        return order if rank == 0 else order[:0]
    return order[rank::size]


def fit_twice(strategy, deal, settings):
    """Weights, parameters, targets and diagnostics after two fits, the second going on from the first."""
    reference, reference_labels, embeddings, labels, predictions, start = problem()
    reweighter = OTReweighter(
        NUM_SAMPLES,
        NUM_CLASSES,
        initial_weights=start,
        seed=3,
        strategy=strategy,
        label_transport=0.5,
        epsilon=0.3,
        tolerance=1e-5,
        **settings,
    )
    reweighter.set_reference(reference, reference_labels)
    mine = shard(deal)
    for _ in range(2):
        weights = reweighter.fit(embeddings[mine], labels[mine], mine, predictions[mine])
    result = {"weights": weights, "theta": reweighter.theta, "targets": reweighter.targets(labels)}
    result |= {f"net {name}": x.detach() for name, x in (reweighter.net or nn.Module()).named_parameters()}
    result["converged"] = reweighter.diagnostics.converged
    result["effective_samples"] = torch.tensor(reweighter.diagnostics.effective_samples)
    return result


def batches():
    """Global batches of an epoch; the last one is smaller."""
    return torch.randperm(NUM_SAMPLES, generator=torch.Generator().manual_seed(2)).split(BATCH_SIZE)


def share_of(batch):
    """(index, mask) of this process's share of a global batch, padded with sample 0 to the same size everywhere."""
    rank, size = distributed.rank(), distributed.world_size()
    per_process = -(-len(batch) // size)
    mine = batch[rank * per_process : (rank + 1) * per_process]
    index = torch.zeros(per_process + (size > 1), dtype=torch.long)  # where there are several, one row more than needed
    index[: len(mine)] = mine
    return index, torch.arange(len(index)) < len(mine)


def step_through_an_epoch(settings):
    """All weights after one step a batch; and whether what `step` returned is this process's part of them."""
    reference, reference_labels, embeddings, labels, _, start = problem()
    reweighter = OTReweighter(NUM_SAMPLES, NUM_CLASSES, initial_weights=start, scope="batch", **settings)
    reweighter.set_reference(reference, reference_labels)
    agrees = True
    for batch in batches():
        index, mask = share_of(batch)
        padded_embeddings = torch.where(mask[:, None], embeddings[index], 1e6)  # padding must not be looked at
        local = reweighter.step(index, padded_embeddings, labels[index], mask)
        agrees &= torch.equal(local, reweighter.weights[index])
    return {"weights": reweighter.weights, "theta": reweighter.theta, "agrees": agrees}


def model():
    torch.manual_seed(0)
    return nn.Linear(EMBEDDING_SIZE, NUM_CLASSES)


def weighted_loss(normalizer):
    """Mean over processes of the loss, and the gradients that DistributedDataParallel leaves, of two batches."""
    _, _, embeddings, labels, _, start = problem()
    net = model() if distributed.world_size() == 1 else DistributedDataParallel(model())
    losses = []
    for batch in batches()[-2:]:
        index, mask = share_of(batch)
        # padding counts for nothing, whatever its weight and however wrong it is
        inputs = torch.where(mask[:, None], embeddings[index], 50.0)
        weights = torch.where(mask, start[index], 1000.0)
        loss = weighted_mean(
            cross_entropy(net(inputs), labels[index]),
            weights,
            mask,
            normalizer=normalizer,
            all_reduce_sum=distributed.all_reduce_sum,
            num_ranks=distributed.world_size(),
        )
        loss.backward()
        losses.append(distributed.all_reduce_sum(loss) / distributed.world_size())
    return {"losses": torch.stack(losses)} | {
        name.removeprefix("module."): parameter.grad for name, parameter in net.named_parameters()
    }


def refuses_to_unroll_over_shards():
    """Whether unrolled gradients and a sharded strategy are refused together (one process has nothing to shard)."""
    try:
        fit_twice("sharded", "in turn", {"weights": "sgd", "gradient": "unrolled", "num_steps": 1})
    except UserError as error:
        return "ot.strategy" in str(error)
    return distributed.world_size() == 1


def run_everything():
    results = {}
    for name, settings in FITS.items():
        for strategy in ("gathered", "sharded"):
            for deal in ("in turn", "all on the first"):
                results[f"fit {name}/{strategy}/{deal}"] = fit_twice(strategy, deal, settings)
    unrolled = {"weights": "sgd", "gradient": "unrolled", "num_steps": 3, "learning_rate": 0.3}
    results["fit unrolled"] = fit_twice("auto", "in turn", unrolled)
    three_samples = 3 * 6 * 4 * 4 / 2**20  # memory for the cost of three samples, against six atoms
    for name in ("semi_relaxed", "sgd", "network"):
        results[f"fit {name}/chunked"] = fit_twice("sharded", "in turn", FITS[name] | {"memory_mebibytes": three_samples})
    results |= {f"step {name}": step_through_an_epoch(settings) for name, settings in STEPS.items()}
    results |= {f"loss {normalizer}": weighted_loss(normalizer) for normalizer in NORMALIZERS}
    results["refuses"] = refuses_to_unroll_over_shards()
    return results


@pytest.fixture(scope="module")
def one_process():
    (result,) = run_distributed(run_everything, 1)
    return result


@pytest.fixture(scope="module", params=[2, 3])
def processes(request):
    return run_distributed(run_everything, request.param)


def assert_all_close(actual, expected, *, rtol, atol):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            explain = f"{name}: {{}}".format
            torch.testing.assert_close(actual[name], value, rtol=rtol, atol=atol, msg=explain)
        else:
            assert actual[name] == value, name


def assert_equal_bits(results):
    for result in results[1:]:
        assert_all_close(result, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("deal", ["in turn", "all on the first"])
@pytest.mark.parametrize("strategy", ["gathered", "sharded"])
@pytest.mark.parametrize("name", FITS)
def test_a_fit_gives_every_process_the_weights_of_one_process(one_process, processes, name, strategy, deal):
    expected = one_process[f"fit {name}/gathered/in turn"]
    assert expected["converged"]
    assert expected["weights"].std() > 0.1
    results = [result[f"fit {name}/{strategy}/{deal}"] for result in processes]
    for result in results:
        assert_all_close(result, expected, rtol=1e-4, atol=2e-5)
    assert_equal_bits(results)


def test_an_unrolled_fit_gives_every_process_the_weights_of_one_process(one_process, processes):
    results = [result["fit unrolled"] for result in processes]
    for result in results:
        assert_all_close(result, one_process["fit unrolled"], rtol=1e-4, atol=1e-5)
    assert_equal_bits(results)
    assert all(result["refuses"] for result in processes)


@pytest.mark.parametrize("name", ["semi_relaxed", "sgd", "network"])
def test_a_chunked_cost_gives_the_same_weights_on_any_number_of_processes(one_process, processes, name):
    expected = one_process[f"fit {name}/gathered/in turn"]
    for result in (one_process, *processes):
        assert_all_close(result[f"fit {name}/chunked"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_steps_on_padded_shares_of_a_batch_are_those_of_one_process(one_process, processes, name):
    expected = one_process[f"step {name}"]
    assert not torch.equal(expected["weights"], problem()[-1])
    results = [result[f"step {name}"] for result in processes]
    for result in results:
        assert result["agrees"]
        assert_all_close(result, expected, rtol=1e-5, atol=1e-6)
    assert_equal_bits(results)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_the_weighted_loss_and_its_gradients_are_those_of_one_process(one_process, processes, normalizer):
    _, _, embeddings, labels, _, start = problem()
    net = model()
    losses = []
    for batch in batches()[-2:]:
        loss = (start[batch] * cross_entropy(net(embeddings[batch]), labels[batch])).sum()
        losses.append(loss / {"weights": start[batch].sum(), "samples": len(batch), "none": 1}[normalizer])
    torch.stack(losses).sum().backward()
    expected = {"losses": torch.stack(losses).detach()} | {name: p.grad for name, p in net.named_parameters()}
    results = [result[f"loss {normalizer}"] for result in processes]
    for result in (one_process[f"loss {normalizer}"], *results):
        assert_all_close(result, expected, rtol=1e-5, atol=1e-6)
    assert_equal_bits(results)
