"""Images that are there twice: counted, kept out of training where they are trusted, refused in numbers."""

import numpy as np
import pytest
import torch
from made_parquet import cifar_folder, image_cells, load, write_table

from otrw.config import DataConfig
from otrw.data.datasets import make_datasets
from otrw.data.duplicates import Copies, image_hashes, num_copies, refuse_copies, refuse_equal_files
from otrw.data.sources import load_digits, load_source
from otrw.errors import UserError


def different_images(number):
    """Images (number, 2, 2, 3), no two the same."""
    return np.arange(number, dtype="<u4").view(np.uint8).reshape(number, 4)[:, [0, 1, 2, 3] * 3].reshape(number, 2, 2, 3)


def test_hashes_are_equal_for_equal_images_alone():
    images = different_images(5000)
    hashes = image_hashes(images)
    assert num_copies(hashes) == 0
    assert hashes.dtype == np.uint64
    assert num_copies(image_hashes(np.concatenate([images, images[:7]]))) == 7
    np.testing.assert_array_equal(image_hashes(images[::2]), hashes[::2])


def test_digits_hold_no_copies():
    raw = load_digits()
    train, test = image_hashes(raw.of_part("train")[0]), image_hashes(raw.of_part("test")[0])
    assert (num_copies(train), num_copies(test), np.isin(test, train).sum()) == (0, 0, 0)


def test_files_are_compared_by_content(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path, content in zip(paths, (b"one", b"two", b"three"), strict=True):
        path.write_bytes(content)
    refuse_equal_files(paths)
    paths[2].write_bytes(b"one")
    with pytest.raises(UserError, match="c must differ from a, but it is the same file"):
        refuse_equal_files(paths)


@pytest.mark.parametrize(
    ("train", "test", "part"),
    [
        (np.r_[np.arange(980), np.arange(20)], np.arange(2000, 2100), "20 of 1000 training samples come more than once"),
        (np.arange(1000), np.r_[np.arange(2000, 2090), [2000] * 10], "10 of 100 test samples come more than once"),
        (np.arange(1000), np.r_[np.arange(2000, 2095), np.arange(5)], "5 of 100 test samples are training samples too"),
    ],
)
def test_many_copies_are_refused(train, test, part):
    with pytest.raises(UserError, match=part):
        refuse_copies("cifar10", train, test)


def test_few_copies_are_let_through():
    refuse_copies("cifar10", np.r_[np.arange(995), np.arange(5)], np.r_[np.arange(2000, 2099), [0]])


def make(root, images, labels, test_images, test_labels, **settings):
    for part, cells, values in (("train", images, labels), ("test", test_images, test_labels)):
        write_table(
            root / "cifar10" / f"{part}-00000-of-00001.parquet", {"img": image_cells(cells), "label": [int(v) for v in values]}
        )
    config = DataConfig(source="cifar10", root=str(root), cache="", **settings)
    return make_datasets(config, 0, torch.device("cpu"))


def test_a_training_image_that_is_a_meta_image_too_is_left_out_and_counted(tmp_path):
    images, labels = different_images(1000), np.arange(1000) % 4
    settings = {"imbalance_factor": 1, "num_meta_per_class": 5, "num_validation_per_class": 5}
    test_images, test_labels = different_images(1100)[1000:], np.arange(100) % 4
    plain = make(tmp_path, images, labels, test_images, test_labels, **settings)
    assert plain.copies == Copies()
    assert str(plain.copies) == ""
    assert len(plain.train) == 960
    meta, validation, train = (part.source_index.numpy() for part in (plain.meta, plain.validation, plain.train))
    images = images.copy()
    images[train[0]] = images[meta[0]]  # perhaps with another label
    images[train[1]] = images[validation[0]]
    images[train[2]] = images[train[3]]
    test_images = test_images.copy()
    test_images[0] = images[train[5]]
    data = make(tmp_path, images, labels, test_images, test_labels, **settings)
    assert data.copies == Copies(left_out=2, within_train=1, test_seen=1)
    assert data.train.source_index.tolist() == train[2:].tolist()
    np.testing.assert_array_equal(data.meta.source_index, meta)
    assert data.split_hash != plain.split_hash
    assert str(data.copies) == (
        "2 left out of training because meta or validation images are the same, 1 in training twice, "
        "1 in test and in training or meta"
    )


def test_a_class_of_which_nothing_would_be_left_is_refused(tmp_path):
    images, labels = different_images(500), np.arange(500) % 4
    settings = {"imbalance_factor": 100, "num_meta_per_class": 5}
    test_images, test_labels = different_images(600)[500:], np.arange(100) % 4
    plain = make(tmp_path, images, labels, test_images, test_labels, **settings)
    rarest = plain.train.source_index[plain.train.labels == 3]
    images = images.copy()
    images[rarest] = images[plain.meta.source_index[:1]]
    with pytest.raises(UserError, match=r"^class .*3 must have a training image that is no copy of"):
        make(tmp_path, images, labels, test_images, test_labels, **settings)


def test_the_cache_keeps_the_hashes(tmp_path):
    images, labels = different_images(40), np.arange(40) % 4
    for part, rows in (("train", slice(0, 20)), ("test", slice(20, 40))):
        write_table(
            tmp_path / "cifar10" / f"{part}-0.parquet", {"img": image_cells(images[rows]), "label": labels[rows].tolist()}
        )
    first, second = (load(tmp_path, cache=tmp_path / "cache") for _ in range(2))
    np.testing.assert_array_equal(first.hashes[first.parts.train], image_hashes(images[:20]))
    np.testing.assert_array_equal(second.hashes[second.parts.train], first.hashes[first.parts.train])
    np.testing.assert_array_equal(second.hashes[second.parts.test], first.hashes[first.parts.test])


@pytest.mark.slow
@pytest.mark.parametrize(("source", "expected"), [("cifar10", (0, 0, 0)), ("cifar100", (14, 2, 10))])
def test_real_cifar_holds_as_many_copies_as_is_known(source, expected):
    folder = cifar_folder()
    if folder is None:
        pytest.skip("no CIFAR: set OTRW_DATA to a folder that holds cifar10 and cifar100/*.parquet")
    raw = load_source(source, root=str(folder), layout="parquet", download=False, cache="")
    across = int(np.isin(raw.hashes[raw.parts.test], raw.hashes[raw.parts.train]).sum())
    assert (num_copies(raw.hashes[raw.parts.train]), num_copies(raw.hashes[raw.parts.test]), across) == expected
