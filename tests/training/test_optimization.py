"""The optimiser's parameter groups, sharpness-aware steps, averages of weights and the schedule."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run_distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from otrw.config import OptimizerConfig
from otrw.models.build import build_model
from otrw.models.heads import FrozenBackbone
from otrw.training.losses import cross_entropy, weighted_mean
from otrw.training.optimization import (
    at_the_worst_near,
    average_of,
    is_sharpness_aware,
    learning_rate_factor,
    make_optimizer,
    parameter_groups,
)

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def small_net(name="small"):
    torch.manual_seed(0)
    return build_model(name, 10, in_channels=1 if name == "small" else 3, width_multiplier=0.25)


def linear_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def data(number=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, 5, generator=generator), torch.randint(0, 3, (number,), generator=generator)


def names_of(module, groups):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [{names[id(parameter)] for parameter in group["params"]} for group in groups]


def test_without_further_settings_all_parameters_are_one_group_as_they_come():
    net = small_net()
    (group,) = parameter_groups(net, OptimizerConfig())
    assert group == {"params": list(net.parameters())}


@pytest.mark.parametrize(("radius", "start", "first"), [(0.1, 0.0, 0), (0.1, 0.85, 170), (0.1, 0.999, 200), (0.0, 0.0, 200)])
def test_the_last_share_of_the_steps_is_sharpness_aware(radius, start, first):
    options = OptimizerConfig(sam_radius=radius, sam_start=start)
    assert [is_sharpness_aware(options, step, 200) for step in range(200)] == [step >= first for step in range(200)]


@pytest.mark.parametrize("name", ["small", "resnet20"])
def test_groups_hold_every_parameter_once_with_its_rate_and_decay(name):
    net = small_net(name)
    options = OptimizerConfig(
        learning_rate=0.2, backbone_learning_rate_factor=0.1, weight_decay=0.01, weight_decay_on="matrices"
    )
    optimizer, schedule = make_optimizer(net, options, steps_per_epoch=10, epochs=2)
    assert optimizer.param_groups[0]["lr"] == 0.2  # the head's: what the log calls the learning rate
    seen = set()
    for group, names in zip(optimizer.param_groups, names_of(net, optimizer.param_groups), strict=True):
        assert not names & seen
        seen |= names
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.01 if parameter.dim() > 1 else 0)
        assert len({one.startswith("backbone.") for one in names}) == 1
        assert group["lr"] == pytest.approx(0.02 if next(iter(names)).startswith("backbone.") else 0.2)
    assert seen == {one for one, _ in net.named_parameters()}
    for _ in range(5):
        optimizer.step()
        schedule.step()
    rates = {group["initial_lr"]: group["lr"] for group in optimizer.param_groups}
    factor = learning_rate_factor(options, 5, 10, 2)
    assert rates == pytest.approx({0.2: 0.2 * factor, 0.2 * 0.1: 0.02 * factor})


def test_frozen_parameters_are_in_no_group():
    net = FrozenBackbone(small_net())
    groups = parameter_groups(net, OptimizerConfig(backbone_learning_rate_factor=0.5, weight_decay_on="matrices"))
    assert set().union(*names_of(net, groups)) == {"net.head.weight", "net.head.bias"}


def test_adamw_decays_apart_from_the_gradient():
    net = linear_net()
    before = copy.deepcopy(net)
    options = OptimizerConfig(
        name="adamw", learning_rate=0.1, weight_decay=0.5, weight_decay_on="matrices", schedule="constant"
    )
    optimizer, _ = make_optimizer(net, options, steps_per_epoch=1, epochs=1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new in zip(before.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(new, old * (0.95 if old.dim() > 1 else 1))
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before = copy.deepcopy(net)
    optimizer, _ = make_optimizer(net, options, steps_per_epoch=1, epochs=1)
    optimizer.step()  # the first step of Adam goes by the learning rate, whatever the gradient's size
    for old, new in zip(before.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(new, old * (0.95 if old.dim() > 1 else 1) - 0.1)


def loss_of(net, inputs, labels):
    return nn.functional.cross_entropy(net(inputs), labels)


def test_the_worst_point_lies_uphill_at_the_radius_and_is_left_without_a_trace():
    net, (inputs, labels) = linear_net(), data()
    before = copy.deepcopy(net)
    loss_of(net, inputs, labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
    with at_the_worst_near(net, 0.3):
        assert all(parameter.grad is None for parameter in net.parameters())
        moved = torch.cat([(p - q).detach().flatten() for p, q in zip(net.parameters(), before.parameters(), strict=True)])
        torch.testing.assert_close(moved, 0.3 * gradient / gradient.norm(), rtol=1e-3, atol=1e-6)
        loss_of(net, inputs, labels).backward()
        expected = torch.cat([p.grad.flatten() for p in net.parameters()])
    for old, new in zip(before.parameters(), net.parameters(), strict=True):
        assert torch.equal(old, new)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in net.parameters()]), expected)
    assert not torch.allclose(expected, gradient)


def test_to_first_order_no_point_within_the_radius_is_worse():
    net, (inputs, labels) = linear_net(), data()
    loss_of(net, inputs, labels).backward()
    with torch.no_grad(), at_the_worst_near(net, 1e-2):
        worst = loss_of(net, inputs, labels)
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        other = linear_net()
        steps = [torch.randn(p.shape, generator=generator) for p in other.parameters()]
        length = torch.cat([step.flatten() for step in steps]).norm()
        with torch.no_grad():
            for parameter, step in zip(other.parameters(), steps, strict=True):
                parameter += 1e-2 * step / length
        assert loss_of(other, inputs, labels) <= worst + 1e-5


def test_weights_and_statistics_are_put_back_even_where_the_gradient_is_not_finite():
    net = small_net("resnet20")
    net.train()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net(images).logits.sum().backward()
    next(net.parameters()).grad[0] = torch.inf
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with at_the_worst_near(net, 0.1):
        assert net(images).logits.isnan().any()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_gradient_of_zero_moves_nothing():
    net = linear_net()
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with at_the_worst_near(net, 0.1):
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), linear_net().parameters(), strict=True))


def sharpness_aware_gradient(num_samples):
    """The gradient at the worst point near, of a weighted global loss, each process holding its share of the samples."""
    import torch.distributed as dist

    from otrw import distributed

    world_size, rank = distributed.world_size(), distributed.rank()
    inputs, labels = data(num_samples)
    weights = torch.arange(1.0, num_samples + 1)
    share = slice(rank * num_samples // world_size, (rank + 1) * num_samples // world_size)
    net = linear_net()
    module = DistributedDataParallel(net) if dist.is_initialized() else net

    def backward():
        losses = cross_entropy(module(inputs[share]), labels[share])
        mask = torch.ones(len(losses), dtype=torch.bool)
        reduce = distributed.all_reduce_sum
        weighted_mean(losses, weights[share], mask, all_reduce_sum=reduce, num_ranks=world_size).backward()

    backward()
    with at_the_worst_near(net, 0.5):
        backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


@pytest.mark.slow
def test_two_processes_look_for_the_worst_point_of_the_global_loss():
    (one,) = run_distributed(sharpness_aware_gradient, 1, 11)
    for several in run_distributed(sharpness_aware_gradient, 2, 11):
        torch.testing.assert_close(several, one, rtol=1e-4, atol=1e-6)


@PROPERTY
@given(decay=st.floats(0.01, 0.999), num_updates=st.integers(1, 30))
def test_the_average_is_the_weighted_sum_of_all_steps(decay, num_updates):
    net = nn.BatchNorm1d(2)
    average = average_of(net, decay)
    expected = None
    for t in range(num_updates):
        with torch.no_grad():
            net.weight.fill_(math.sin(t))
            net.running_mean.fill_(t)
            net.num_batches_tracked.fill_(t)
        average.update_parameters(net)
        share = min(decay, (1 + t) / (10 + t))
        now = (math.sin(t), float(t))
        expected = now if expected is None else tuple(share * x + (1 - share) * y for x, y in zip(expected, now, strict=True))
    assert average.module.weight[0].item() == pytest.approx(expected[0], abs=1e-5)
    assert average.module.running_mean[0].item() == pytest.approx(expected[1], rel=1e-4, abs=1e-5)
    assert average.module.num_batches_tracked.item() == num_updates - 1


def test_warm_up_rises_to_the_peak_and_the_cosine_falls_to_zero():
    options = OptimizerConfig(warmup_epochs=2, schedule="cosine")
    factors = [learning_rate_factor(options, step, 10, 10) for step in range(101)]
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert factors[20] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
    assert all(left >= right for left, right in pairwise(factors[20:]))
