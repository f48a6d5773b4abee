"""Nets: exact parameter counts, shapes, shortcuts without parameters, and samples that do not see each other."""

import pytest
import torch
import torch.nn.functional as F

from otrw.models.build import build_model, num_parameters
from otrw.models.heads import CosineHead, FrozenBackbone, HeadOnly
from otrw.models.resnet import BLOCKS_PER_STAGE, BasicBlock

WIDTHS = (16, 32, 64)


def images(num_images, channels=3, size=32, seed=0):
    return torch.randn(num_images, channels, size, size, generator=torch.Generator().manual_seed(seed))


def resnet_parameters(blocks_per_stage, num_classes, widths=WIDTHS, in_channels=3):
    """Convolutions of 9 weights a pair of channels, two numbers a channel of each BatchNorm, one linear layer."""

    def layer(channels_in, channels_out):
        return 9 * channels_in * channels_out + 2 * channels_out

    total, channels = layer(in_channels, widths[0]), widths[0]
    for width in widths:
        for _ in range(blocks_per_stage):
            total += layer(channels, width) + layer(width, width)
            channels = width
    return total + channels * num_classes + num_classes


def test_resnet32_has_464154_parameters_for_10_classes():
    net = build_model("resnet32", 10)
    assert num_parameters(net) == 464_154
    assert resnet_parameters(5, 10) == 464_154
    assert num_parameters(build_model("resnet32", 100)) == 464_154 + 90 * 65


@pytest.mark.parametrize("name", sorted(BLOCKS_PER_STAGE))
def test_every_resnet_has_the_parameters_of_the_formula_and_the_depth_of_its_name(name):
    net = build_model(name, 7)
    assert num_parameters(net) == resnet_parameters(BLOCKS_PER_STAGE[name], 7)
    weighted = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == int(name.removeprefix("resnet"))


def test_resnet_widths_are_16_32_64_and_the_multiplier_scales_them():
    for multiplier, widths in ((1.0, WIDTHS), (0.5, (8, 16, 32)), (2.0, (32, 64, 128))):
        net = build_model("resnet20", 10, width_multiplier=multiplier)
        channels = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
        assert sorted(set(channels)) == list(widths)
        assert num_parameters(net) == resnet_parameters(3, 10, widths)


def test_shortcuts_have_no_parameters():
    block = BasicBlock(16, 32, stride=2)
    assert num_parameters(block) == 9 * 16 * 32 + 9 * 32 * 32 + 4 * 32
    kinds = {type(module).__name__ for module in block.modules()}
    assert kinds == {"BasicBlock", "Conv2d", "BatchNorm2d"}


def test_a_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros():
    block = BasicBlock(4, 8, stride=2).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = images(2, 4, 6)
    expected = torch.zeros(2, 8, 3, 3)
    expected[:, 2:6] = F.relu(x[:, :, ::2, ::2])
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)


def test_convolutions_have_no_bias_and_the_first_keeps_the_image_size():
    net = build_model("resnet20", 10)
    assert all(m.bias is None for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    assert net.backbone.conv(images(1)).shape == (1, 16, 32, 32)
    assert net.backbone.blocks(net.backbone.conv(images(1))).shape == (1, 64, 8, 8)


@pytest.mark.parametrize(("name", "channels", "size"), [("resnet20", 3, 32), ("small", 1, 8), ("small", 3, 32)])
def test_a_net_gives_embedding_and_logits_of_the_embedding(name, channels, size):
    net = build_model(name, 7, in_channels=channels).eval()
    with torch.no_grad():
        output = net(images(5, channels, size))
        torch.testing.assert_close(net.head(output.embedding), output.logits)
    assert output.embedding.shape == (5, 64)
    assert output.logits.shape == (5, 7)


def test_the_small_net_gives_a_sample_the_same_output_in_any_batch_even_in_training():
    net = build_model("small", 10, in_channels=1).train()
    batch = images(12, 1, 8)
    with torch.no_grad():
        whole = net(batch)
        for part in (slice(0, 1), slice(3, 8)):
            alone = net(batch[part])
            torch.testing.assert_close(alone.embedding, whole.embedding[part], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(alone.logits, whole.logits[part], rtol=1e-5, atol=1e-6)
    assert not list(net.buffers())


def test_a_resnet_couples_the_samples_of_a_batch_in_training_alone():
    net = build_model("resnet20", 10)
    batch = images(6)
    with torch.no_grad():
        net.eval()
        torch.testing.assert_close(net(batch[:2]).logits, net(batch).logits[:2], rtol=1e-4, atol=1e-4)
        net.train()
        assert not torch.allclose(net(batch[:2]).logits, net(batch).logits[:2], atol=1e-2)


def test_parameters_depend_on_the_seed_alone():
    def parameters(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.cat([p.detach().flatten() for p in build_model("small", 10, in_channels=1).parameters()])

    assert torch.equal(parameters(0), parameters(0))
    assert not torch.equal(parameters(0), parameters(1))


def test_the_cosine_head_sees_directions_alone():
    head = CosineHead(6, 4)
    embedding = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = 16 * F.cosine_similarity(embedding[:, None], head.weight[None], dim=2)
        torch.testing.assert_close(head(embedding), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head(100 * embedding), head(embedding), rtol=1e-4, atol=1e-4)
    assert num_parameters(head) == 4 * 6 + 1
    assert isinstance(build_model("small", 4, head="cosine").head, CosineHead)


def test_head_only_is_the_net_on_embeddings():
    net = build_model("small", 10, in_channels=1).eval()
    with torch.no_grad():
        output = net(images(3, 1, 8))
        again = HeadOnly(net.head)(output.embedding)
    assert torch.equal(again.logits, output.logits)
    assert torch.equal(again.embedding, output.embedding)


def test_a_frozen_backbone_gets_no_gradient_while_its_statistics_move():
    net = build_model("resnet20", 10)
    frozen = FrozenBackbone(net).train()
    before = net.backbone.norm.running_mean.clone()
    frozen(images(4)).logits.sum().backward()
    assert all(parameter.grad is None for parameter in net.backbone.parameters())
    assert all(parameter.grad is not None for parameter in net.head.parameters())
    assert not torch.equal(net.backbone.norm.running_mean, before)
    assert {id(p) for p in frozen.parameters() if p.requires_grad} == {id(p) for p in net.head.parameters()}


@pytest.mark.parametrize(("name", "head", "match"), [("vgg", "linear", "unknown model"), ("small", "mlp", "unknown head")])
def test_unknown_names_are_refused(name, head, match):
    with pytest.raises(ValueError, match=match):
        build_model(name, 10, head=head)
