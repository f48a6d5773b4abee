"""The embeddings of a frozen net are computed once, and never mistaken for those of another net or set."""

import numpy as np
import pytest
import torch

from otrw.config.command_line import parse_config
from otrw.data.cache import write_arrays
from otrw.data.loader import SampleSet
from otrw.models.build import build_model
from otrw.training.embeddings import MOST_FILES, EmbeddingCache, backbone_key
from otrw.training.run import run


def samples(seed=0, variants=None):
    images = torch.randint(0, 256, (6, 8, 8, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    labels = torch.arange(6) % 2
    return SampleSet(images, labels, labels, labels, torch.arange(6) if variants is None else variants)


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return torch.full((6, 3), float(self.calls))


def test_a_set_is_embedded_once_in_a_run_and_once_on_disk(tmp_path):
    compute = Counter()
    for _ in range(2):
        cache = EmbeddingCache(str(tmp_path), "net", "facts")
        for _ in range(2):
            assert cache.table(samples(), compute).eq(1).all()
    assert compute.calls == 1


def test_another_net_set_selection_or_setting_is_another_table(tmp_path):
    compute = Counter()
    EmbeddingCache(str(tmp_path), "net", "facts").table(samples(), compute)
    EmbeddingCache(str(tmp_path), "other net", "facts").table(samples(), compute)
    EmbeddingCache(str(tmp_path), "net", "bf16").table(samples(), compute)
    EmbeddingCache(str(tmp_path), "net", "facts").table(samples(seed=1), compute)
    EmbeddingCache(str(tmp_path), "net", "facts").table(samples(variants=torch.arange(6) + 1), compute)
    assert compute.calls == 5


def test_without_a_folder_or_with_a_damaged_file_only_time_is_lost(tmp_path):
    compute = Counter()
    for _ in range(2):
        EmbeddingCache("", "net", "facts").table(samples(), compute)
    assert compute.calls == 2
    EmbeddingCache(str(tmp_path), "net", "facts").table(samples(), compute)
    (file,) = (tmp_path / "embeddings").iterdir()
    file.write_bytes(b"damaged")
    assert EmbeddingCache(str(tmp_path), "net", "facts").table(samples(), compute).eq(4).all()


@pytest.mark.parametrize("damage", ["zeroed", "flipped", "cut", "other rows"])
def test_a_table_with_damaged_bytes_is_made_anew(tmp_path, damage):
    compute = Counter()
    EmbeddingCache(str(tmp_path), "net", "facts").table(samples(), compute)
    (file,) = (tmp_path / "embeddings").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "zeroed":
        content[-8:] = bytes(8)
    elif damage == "flipped":
        content[-1] ^= 1
    elif damage == "cut":
        del content[-3:]
    file.write_bytes(content)
    if damage == "other rows":
        write_arrays(file, {"embeddings": np.zeros((5, 3), np.float32)})
    assert EmbeddingCache(str(tmp_path), "net", "facts").table(samples(), compute).eq(2).all()


def test_old_files_are_dropped(tmp_path):
    for number in range(MOST_FILES + 3):
        EmbeddingCache(str(tmp_path), f"net {number}", "facts").table(samples(), Counter())
    assert len(list((tmp_path / "embeddings").iterdir())) == MOST_FILES


def test_the_key_of_a_backbone_is_its_parameters_and_its_statistics():
    keys = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        keys.append(backbone_key(build_model("resnet20", 3, in_channels=3, width_multiplier=0.25, head="linear").backbone))
    assert keys[0] == keys[1] != keys[2]
    torch.manual_seed(0)
    net = build_model("resnet20", 3, in_channels=3, width_multiplier=0.25, head="linear")
    net(torch.randn(4, 3, 32, 32))  # moves BatchNorm's statistics alone
    assert backbone_key(net.backbone) != keys[0]
    net.load_state_dict({name: value.clone() for name, value in net.state_dict().items()})


def test_a_run_from_the_cache_is_the_run_without_it(tmp_path):
    base = ["--stage1.epochs", "2", "--stage2.epochs", "3", "--stage2.trainable", "classifier", "--variants", "[ot_meta]",
            "--run.tensorboard", "false", "--stage2.rounds", "1", "--run.directory", str(tmp_path / "runs")]  # fmt: skip
    results = []
    for name, cache in (("none", ""), ("cold", str(tmp_path / "cache")), ("warm", str(tmp_path / "cache"))):
        results.append(run(parse_config([*base, "--run.name", name, "--data.cache", cache])).variants["ot_meta"])
        results[-1].pop("seconds")
    assert results[0] == results[1] == results[2]
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) >= 3
