"""Nets of torchvision and timm: image -> (embedding, logits), what images they expect, and weights from files."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from otrw.config import ModelConfig
from otrw.errors import UserError
from otrw.models.build import build_model, couples_samples
from otrw.models.library_nets import net_input, synchronized

SMALL = "torchvision/shufflenet_v2_x0_5"


def images(number, side=32, channels=3):
    return torch.randn(number, channels, side, side, generator=torch.Generator().manual_seed(0))


def seeded(name, *arguments, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(name, *arguments, **options)


@pytest.mark.parametrize(
    ("name", "side", "size"),
    [
        (SMALL, 32, 1024),
        ("torchvision/mobilenet_v3_small", 32, 1024),
        ("torchvision/vit_b_32", 32, 768),
        ("timm/test_vit", 32, 64),
        ("timm/test_efficientnet", 32, 256),
    ],
)
def test_a_net_gives_the_input_of_its_head_and_trains_every_parameter(name, side, size):
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="timm is an extra")
    net = seeded(name, 5, image_size=side).eval()
    output = net(images(2, side))
    assert output.embedding.shape == (2, size)
    assert output.logits.shape == (2, 5)
    torch.testing.assert_close(net.head(output.embedding), output.logits)
    net.train()(images(2, side)).logits.square().sum().backward()
    # DistributedDataParallel waits for the gradient of each parameter
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_grey_images_are_seen_as_three_equal_channels():
    net = seeded(SMALL, 5, in_channels=1, image_size=32).eval()
    grey = images(2, channels=1)
    assert torch.equal(net(grey).logits, net(grey.expand(-1, 3, -1, -1)).logits)


def test_what_images_a_net_expects_is_what_its_library_says():
    from torchvision.models import Swin_T_Weights

    found, preset = net_input("torchvision/swin_t"), Swin_T_Weights.DEFAULT.transforms()
    assert [found.image_size] == preset.crop_size
    assert [found.resize_size] == preset.resize_size
    assert list(found.mean) == preset.mean
    assert list(found.std) == preset.std
    assert found.interpolation == preset.interpolation.value == "bicubic"


def test_what_images_a_net_of_timm_expects_is_what_timm_says():
    timm = pytest.importorskip("timm", reason="timm is an extra")
    from timm.data import resolve_data_config

    said = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("vit_tiny_patch16_224").to_dict())
    found = net_input("timm/vit_tiny_patch16_224")
    assert (found.image_size, found.mean, found.std) == (said["input_size"][1], said["mean"], said["std"])
    assert found.resize_size == int(224 / said["crop_pct"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvison/resnet18", "did you mean torchvision/resnet18?"),
        ("resnet33", "did you mean resnet32?"),
        ("torchvision/", "there are small"),
        ("vgg", "there are small, resnet20"),
        ("timm/a/b", "there are small"),
    ],
)
def test_an_impossible_name_is_refused_by_the_settings(name, message):
    with pytest.raises(UserError, match=r"model\.name must be a net") as caught:
        ModelConfig(name=name)
    assert message in str(caught.value)


def test_a_name_that_its_library_does_not_have_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"did you mean torchvision/resnet50\?"):
        build_model("torchvision/resnet5", 3)
    with pytest.raises(UserError, match="must be a net of torchvision"):
        build_model("torchvision/squeezenet1_0", 3)
    pytest.importorskip("timm", reason="timm is an extra")
    with pytest.raises(UserError, match=r"did you mean timm/resnet18\?"):
        build_model("timm/resnt18", 3)
    with pytest.raises(UserError, match="did you mean timm/test_vit"):
        build_model("timm/test_vit.no_such_tag", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "torchvision/resnet18", "width_multiplier": 2.0}, "model.width_multiplier must be 1"),
        ({"name": "resnet20", "pretrained": True}, "model.pretrained must be false for resnet20"),
        ({"name": "timm/resnet18", "pretrained": True, "weights": "x.pth"}, "must be false with model.weights"),
    ],
)
def test_settings_of_the_net_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**options)


def test_a_size_that_does_not_suit_a_net_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"data\.image_size must suit torchvision/vit_b_32, got 50 .*; try 224"):
        build_model("torchvision/vit_b_32", 3, image_size=50)
    with pytest.raises(UserError, match=r"data\.image_size must suit torchvision/alexnet, got 32 .*; try 224") as caught:
        build_model("torchvision/alexnet", 3, image_size=32)
    assert "\n" not in str(caught.value)


def library_net(name):
    """A plain net of the library with its own 1,000 classes, and what our net of it should be named."""
    torch.manual_seed(7)
    library, _, rest = name.partition("/")
    if library == "timm":
        return pytest.importorskip("timm", reason="timm is an extra").create_model(rest, img_size=32)
    from torchvision.models import get_model

    return get_model(rest)


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "checkpoint", "wrapped"])
def test_the_librarys_own_file_gives_its_embeddings_and_its_head_is_left_out(tmp_path, suffix):
    plain = library_net(SMALL).eval()
    state = plain.state_dict()
    path = tmp_path / f"net.{'safetensors' if suffix == 'safetensors' else 'pth'}"
    match suffix:
        case "safetensors":
            save_file(state, path)
        case "checkpoint":
            torch.save({"epoch": 3, "model": state, "optimizer": {}}, path)
        case "wrapped":
            torch.save({f"module.{name}": value for name, value in state.items()}, path)
        case _:
            torch.save(state, path)
    net = build_model(SMALL, 5, image_size=32, weights=str(path)).eval()
    assert net.origin == f"net from {path}, its head of 1000 classes left out, a new one has 5"
    plain.fc = nn.Identity()
    with torch.no_grad():
        assert torch.equal(net(images(2)).embedding, plain(images(2)))


def test_a_head_of_the_same_size_is_taken_too(tmp_path):
    plain = library_net(SMALL).eval()
    torch.save(plain.state_dict(), tmp_path / "net.pth")
    net = build_model(SMALL, 1000, image_size=32, weights=str(tmp_path / "net.pth")).eval()
    assert net.origin.endswith("with its head of 1000 classes")
    with torch.no_grad():
        torch.testing.assert_close(net(images(2)).logits, plain(images(2)))


def test_timms_own_file_is_converted_by_timm(tmp_path):
    plain = library_net("timm/test_vit").eval()
    torch.save(plain.state_dict(), tmp_path / "net.pth")
    net = build_model("timm/test_vit", 5, image_size=32, weights=str(tmp_path / "net.pth")).eval()
    assert net.origin.endswith("its head of 1000 classes left out, a new one has 5")
    plain.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(net(images(2)).embedding, plain(images(2)))
    # positions of 32 pixels, 2 x 2 patches, are made those of 64 pixels
    larger = build_model("timm/test_vit", 5, image_size=64, weights=str(tmp_path / "net.pth"))
    assert larger(images(1, 64)).embedding.shape == (1, 64)


@pytest.mark.parametrize("name", [SMALL, "timm/test_efficientnet", "resnet20"])
def test_a_model_file_of_a_run_starts_another_net_of_its_kind(tmp_path, name):
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="timm is an extra")
    path = tmp_path / "model.safetensors"
    old = seeded(name, 5, image_size=32).eval()
    save_file(old.state_dict(), path)
    for num_classes, words in ((5, "with its head of 5 classes"), (4, "its head of 5 classes left out, a new one has 4")):
        net = build_model(name, num_classes, image_size=32, weights=str(path)).eval()
        assert net.origin == f"net from {path}, {words}"
        with torch.no_grad():
            assert torch.equal(net(images(2)).embedding, old(images(2)).embedding)
            if num_classes == 5:
                assert torch.equal(net(images(2)).logits, old(images(2)).logits)


def test_weights_of_another_net_are_refused_by_name(tmp_path):
    state = library_net(SMALL).state_dict()
    first = next(iter(state))
    changed = {"missing": dict(state), "unknown": dict(state) | {"extra.weight": torch.zeros(1)}, "shape": dict(state)}
    del changed["missing"][first]
    changed["shape"][first] = torch.zeros(2, 2)
    for kind, words in (("missing", "lacks "), ("unknown", "has extra.weight, unknown there"), ("shape", r"of \(2, 2\) for ")):
        torch.save(changed[kind], tmp_path / "net.pth")
        with pytest.raises(UserError, match=rf"model\.weights must fit {SMALL}, but .*{words}") as caught:
            build_model(SMALL, 5, image_size=32, weights=str(tmp_path / "net.pth"))
        assert (first if kind != "unknown" else "extra.weight") in str(caught.value)
    pytest.importorskip("timm", reason="timm is an extra")
    with pytest.raises(UserError, match=r"model\.weights must fit timm/test_efficientnet, but .* does not") as caught:
        build_model("timm/test_efficientnet", 5, image_size=32, weights=str(tmp_path / "net.pth"))
    assert "\n" not in str(caught.value)
    assert "Missing key" in str(caught.value)


class Command:
    def __reduce__(self):
        return (print, ("code from a file was run",))


def test_a_file_that_is_no_weights_file_is_refused_and_never_run(tmp_path, capsys):
    path = tmp_path / "net.pth"
    contents = {
        "no such file": None,
        "weights_only": Command(),
        "must hold a state_dict": [1, 2],
        "finite numbers": {name: value / 0 for name, value in library_net(SMALL).state_dict().items()},
    }
    for words, content in contents.items():
        if content is not None:
            torch.save(content, path)
        with pytest.raises(UserError, match=r"model\.weights must") as caught:
            build_model(SMALL, 5, image_size=32, weights=str(path))
        assert "\n" not in str(caught.value)
        if words != "weights_only":
            assert words in str(caught.value)
    path.write_bytes(b"not a file of torch")
    with pytest.raises(UserError, match=r"model\.weights must be a file of tensors"):
        build_model(SMALL, 5, image_size=32, weights=str(path))
    assert "code from a file" not in capsys.readouterr().out


def test_batch_normalisation_is_found_and_synchronised_without_losing_timms_activations():
    assert couples_samples(seeded(SMALL, 5, image_size=32))
    assert not couples_samples(seeded("small", 5))
    pytest.importorskip("timm", reason="timm is an extra")
    assert not couples_samples(seeded("timm/test_vit", 5, image_size=32))
    net = seeded("timm/test_efficientnet", 5, image_size=32).eval()
    with torch.no_grad():
        before = net(images(2)).logits
        after = synchronized(net, "timm/test_efficientnet").eval()(images(2)).logits
    torch.testing.assert_close(after, before)  # in evaluation SyncBatchNorm runs on a CPU too


def test_parameters_of_a_librarys_net_depend_on_the_seed_alone():
    first, second = (seeded(SMALL, 5, image_size=32).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_librarys_weights_are_taken_where_they_are_asked_for_and_their_absence_is_one_line(monkeypatch):
    plain = library_net(SMALL).eval()
    state = plain.state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **options: state)
    net = build_model(SMALL, 5, image_size=32, pretrained=True).eval()
    assert net.origin == "net from the weights of torchvision, its head of 1000 classes left out, a new one has 5"
    plain.fc = nn.Identity()
    with torch.no_grad():
        assert torch.equal(net(images(2)).embedding, plain(images(2)))

    def refuse(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match=rf"model\.pretrained must find the weights of {SMALL}.*no route to host") as caught:
        build_model(SMALL, 5, image_size=32, pretrained=True)
    assert "\n" not in str(caught.value)
