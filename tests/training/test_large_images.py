"""Runs on images that stay in their files end as if nothing had been special: for any workers, stops and processes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_distributed
from safetensors.torch import load_file
from whole_runs import assert_same_run, stopped_and_resumed

from otrw.config.command_line import parse_config
from otrw.data.datasets import make_datasets
from otrw.data.files import ImageFiles
from otrw.data.loader import Loader
from otrw.errors import UserError
from otrw.training.run import run

SIZES = {"train": (18, 12, 7), "trusted": (2, 2, 2), "validation": (2, 2, 2), "test": (4, 4, 4)}
SHORT = [
    "--data.source=folder",
    "--data.memory_limit_gib=0",
    "--data.image_size=16",
    "--model.name=small",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=2",
    "--stage1.batch_size=8",
    "--stage1.mixup_alpha=0.3",
    "--stage1.optimizer.learning_rate=0.02",
    "--stage2.trainable=all",
    "--stage2.epochs=2",
    "--stage2.batch_size=8",
    "--stage2.rounds=1",
    "--stage2.optimizer.learning_rate=0.02",
    "--data.workers=0",
    "--data.cache=",
    "--run.tensorboard=false",
    "--run.cpu=true",
    "--variants=[ot_labels_meta]",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """JPEGs of three classes, each image of a size of its own."""
    folder = tmp_path_factory.mktemp("own")
    generator = np.random.default_rng(0)
    for part, sizes in SIZES.items():
        for label, number in enumerate(sizes):
            for row in range(number):
                path = folder / part / f"class {label}" / f"{row}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = generator.integers(0, 120, (5, 5, 3), dtype=np.uint8)
                noise[..., label] += 100
                Image.fromarray(noise).resize((30 + row, 44 - row), Image.Resampling.BICUBIC).save(path)
    return folder


def config_of(root, folder, name, *arguments):
    return parse_config([*SHORT, f"--data.root={root}", f"--run.directory={folder}", f"--run.name={name}", *arguments])


def test_a_run_that_is_stopped_inside_epochs_and_decodes_in_workers_is_the_whole_run(root, tmp_path):
    run(config_of(root, tmp_path, "whole"))
    assert stopped_and_resumed(config_of(root, tmp_path, "cut", "--data.workers=1"), (3, 8)) == 2
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_head_prototypes_and_pictures_come_from_files_and_embeddings_from_a_cache(root, tmp_path):
    options = [
        "--stage2.trainable=classifier",
        "--ot.reference=prototypes",
        "--ot.prototype=mean_image",
        "--run.tensorboard=true",
        f"--data.cache={tmp_path / 'cache'}",
    ]
    for name in ("cold", "warm"):
        run(config_of(root, tmp_path, name, *options))
    assert_same_run(tmp_path / "warm", tmp_path / "cold")
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) >= 4
    assert list((tmp_path / "cold" / "ot_labels_meta" / "tensorboard").glob("**/sprite.png"))


def test_the_key_of_files_is_that_of_their_choice_and_content(root):
    config = config_of(root, "runs", "key").data
    data = make_datasets(config, 0, torch.device("cpu"))
    files = data.train.inputs
    assert isinstance(files, ImageFiles)
    assert files.key() == make_datasets(config, 0, torch.device("cpu")).train.inputs.key()
    assert len({files.key(), data.test.inputs.key(), files[np.arange(5)].key(), files[np.arange(5)[::-1]].key()}) == 4
    os.utime(files.paths[0], ns=(1, 1))
    assert make_datasets(config, 0, torch.device("cpu")).train.inputs.key() != files.key()


def test_a_net_without_a_size_of_its_own_needs_one_for_images_in_files(root):
    config = config_of(root, "runs", "none").data
    with pytest.raises(UserError, match=r"data\.image_size must be given for these images, got null") as caught:
        make_datasets(
            parse_config([*SHORT, f"--data.root={config.root}", "--data.image_size=null"]).data, 0, torch.device("cpu")
        )
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_net_with_dropout_goes_on_inside_an_epoch(root, tmp_path):
    net = ["--model.name=torchvision/mobilenet_v3_small", "--model.width_multiplier=1", "--data.image_size=32"]
    run(config_of(root, tmp_path, "whole", *net))
    assert stopped_and_resumed(config_of(root, tmp_path, "cut", *net), (3, 8)) == 2
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def run_one(root, folder, name):
    run(config_of(root, folder, name))


@pytest.mark.slow
def test_two_processes_end_where_one_ends(root, tmp_path):
    run(config_of(root, tmp_path, "one"))
    run_distributed(run_one, 2, root, tmp_path, "two", timeout_seconds=280.0)
    ours, theirs = (load_file(tmp_path / name / "ot_labels_meta" / "model.safetensors") for name in ("two", "one"))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-3)


def message_of_damage(root, rank_of_damage):
    """Cut a training image short after the start, which only one process meets; its name, and what this process then says."""
    data = make_datasets(config_of(root, "runs", "damage").data, 0, torch.device("cpu"))
    rank = torch.distributed.get_rank()
    loader = Loader(data.train, 8, seed=0, rank=rank, world_size=2, transform=data.transform(train=True), shuffle=False)
    row = 4 * rank_of_damage  # of the first batch of 8, half for each
    victim, identity = Path(data.train.inputs.paths[row]), str(data.train.inputs.identities[row])
    torch.distributed.barrier()
    if rank == 0:
        victim.write_bytes(victim.read_bytes()[:300])
    torch.distributed.barrier()
    try:
        for _ in loader.epoch():
            torch.distributed.barrier()  # as a step's exchange
    except UserError as error:
        return identity, str(error)
    return identity, ""


@pytest.mark.slow
def test_damage_that_one_process_meets_ends_all_with_the_same_line(root, tmp_path):
    for path in root.rglob("*.jpg"):
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    first, second = run_distributed(message_of_damage, 2, tmp_path, 1, timeout_seconds=280.0)
    assert first == second
    identity, message = first
    assert message.startswith(f"{identity} cannot be decoded")
    assert "\n" not in message
