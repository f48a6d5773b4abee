"""Sources: digits as they are, CIFAR in small Parquet files of the hub's layout, and every way such files can be bad."""

import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from made_parquet import (
    COARSE_NAMES,
    COARSE_OF_FINE,
    FINE_NAMES,
    LABELS,
    cifar_folder,
    image_cells,
    load,
    random_images,
    write_cifar10,
    write_cifar100,
    write_table,
)

from otrw.config import DataConfig
from otrw.data import images as image_files
from otrw.data import parquet
from otrw.data.datasets import make_datasets
from otrw.data.sources import load_digits
from otrw.errors import UserError


@pytest.fixture
def count_decoded(monkeypatch):
    decoded = []
    original = parquet.decode_image
    monkeypatch.setattr(parquet, "decode_image", lambda *cell: decoded.append(cell[2]) or original(*cell))
    return decoded


def test_digits_are_split_by_thirds_of_each_class():
    raw = load_digits()
    assert raw.of_part("train")[0].shape == (1195, 8, 8, 1)
    assert raw.of_part("test")[0].shape == (602, 8, 8, 1)
    assert raw.of_part("train")[0].dtype == np.uint8
    assert raw.of_part("train")[0].max() == 240
    train, test = np.bincount(raw.of_part("train")[1]), np.bincount(raw.of_part("test")[1])
    np.testing.assert_array_equal(test, -(-(train + test) // 3))
    assert raw.class_names == tuple("0123456789")
    assert raw.groups is None


def test_digits_are_the_same_every_time():
    first, second = load_digits(), load_digits()
    np.testing.assert_array_equal(first.of_part("train")[0], second.of_part("train")[0])
    np.testing.assert_array_equal(first.of_part("test")[1], second.of_part("test")[1])


def test_cifar10_layout_gives_the_pixels_in_file_order(tmp_path):
    images = write_cifar10(tmp_path)
    raw = load(tmp_path)
    for part in ("train", "test"):
        pixels, labels = raw.of_part(part)
        np.testing.assert_array_equal(pixels, images[part])
        assert labels.tolist() == LABELS[part]
        assert pixels.dtype == np.uint8
        assert labels.dtype == np.int64
    assert raw.class_names == FINE_NAMES
    assert raw.groups is None


def test_class_names_are_numbers_without_the_metadata_of_the_hub(tmp_path):
    write_cifar10(tmp_path, names=None)
    assert load(tmp_path).class_names == tuple("012345")


def test_cifar100_layout_gives_coarse_labels_as_groups_of_classes(tmp_path):
    images = write_cifar100(tmp_path)
    raw = load(tmp_path, "cifar100")
    np.testing.assert_array_equal(raw.of_part("train")[0], images["train"])
    assert raw.of_part("train")[1].tolist() == LABELS["train"]
    assert raw.groups.tolist() == list(COARSE_OF_FINE)
    assert raw.class_names == FINE_NAMES
    assert raw.group_names == COARSE_NAMES


def test_columns_named_image_and_label_are_read_too(tmp_path):
    images = {"train": random_images(6, 0), "test": random_images(6, 1)}
    for part, cells in images.items():
        write_table(tmp_path / "cifar10" / f"{part}-0.parquet", {"image": image_cells(cells), "label": list(range(6))})
    np.testing.assert_array_equal(load(tmp_path).of_part("train")[0], images["train"])


def test_the_second_start_decodes_nothing(tmp_path, count_decoded):
    images = write_cifar10(tmp_path)
    first = load(tmp_path, cache=tmp_path / "cache")
    num_images = len(images["train"]) + len(images["test"])
    assert len(count_decoded) == num_images
    second = load(tmp_path, cache=tmp_path / "cache")
    assert len(count_decoded) == num_images
    for part in ("train", "test"):
        for of_first, of_second in zip(first.of_part(part), second.of_part(part), strict=True):
            np.testing.assert_array_equal(of_first, of_second)
    assert second.class_names == FINE_NAMES


def test_an_empty_cache_folder_name_keeps_nothing(tmp_path, count_decoded):
    write_cifar10(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    load(tmp_path, cache="")
    num_decoded = len(count_decoded)
    load(tmp_path, cache="")
    assert len(count_decoded) == 2 * num_decoded
    assert sorted(tmp_path.rglob("*")) == before


def test_a_changed_file_is_decoded_again(tmp_path):
    write_cifar10(tmp_path)
    load(tmp_path, cache=tmp_path / "cache")
    other = random_images(6, 99)
    path = tmp_path / "cifar10" / "test-00000-of-00001.parquet"
    write_table(path, {"img": image_cells(other), "label": LABELS["test"]})
    os.utime(path, ns=(0, 0))
    np.testing.assert_array_equal(load(tmp_path, cache=tmp_path / "cache").of_part("test")[0], other)


def test_a_cache_folder_that_cannot_be_written_is_passed_over(tmp_path):
    images = write_cifar10(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    raw = load(tmp_path, cache=tmp_path / "file" / "cache")
    np.testing.assert_array_equal(raw.of_part("train")[0], images["train"])


def test_missing_data_names_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"data\.root must hold cifar10/\*\.parquet .*--data\.download true") as error:
        load(tmp_path)
    assert repr(str(tmp_path)) in str(error.value)


def test_missing_test_file_is_named(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"cifar10 must hold test-\*\.parquet, got none"):
        load(tmp_path)


def test_a_missing_part_of_a_data_set_in_several_files_is_refused(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar10" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(UserError, match="all 2 files of train, got 1"):
        load(tmp_path)


def test_missing_parquet_files_are_named_where_parquet_is_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"cifar10 must hold train-\*\.parquet, got none"):
        load(tmp_path, layout="parquet")


def test_missing_torchvision_files_are_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"data\.root: cifar10 in .* cannot be read"):
        load(tmp_path, layout="torchvision")


@pytest.mark.parametrize("name", ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, name, share):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="is not a whole Parquet file") as error:
        load(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "none"])
def test_a_corrupt_image_is_named_by_file_and_row(tmp_path, damage):
    write_cifar10(tmp_path)
    cells = image_cells(random_images(6, 0))
    whole = cells[3]["bytes"]
    cells[3]["bytes"] = {"cut": whole[: len(whole) // 2], "garbage": b"no picture", "empty": b"", "none": None}[damage]
    path = tmp_path / "cifar10" / "test-00000-of-00001.parquet"
    write_table(path, {"img": cells, "label": LABELS["test"]})
    with pytest.raises(UserError, match=r"the image in row 3 (cannot be decoded|is no image that Pillow can read)") as error:
        load(tmp_path)
    assert str(path) in str(error.value)


def test_wrong_columns_are_named(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / "test-00000-of-00001.parquet"
    write_table(path, {"picture": image_cells(random_images(6, 0)), "target": LABELS["test"]})
    with pytest.raises(UserError, match=r"must have columns img and label .*got \['picture', 'target'\]") as error:
        load(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"img": [b"bytes, not a struct"], "label": [0]},
        {"img": [{"path": "no bytes"}], "label": [0]},
        {"img": image_cells(random_images(1, 0)), "label": ["a text"]},
        {"img": image_cells(random_images(1, 0)), "label": pyarrow.array([None], pyarrow.int64())},
        {"img": pyarrow.array([], pyarrow.struct({"bytes": pyarrow.binary()})), "label": pyarrow.array([], "int64")},
        {
            "img": [*image_cells(random_images(5, 0)), *image_cells(random_images(1, 0, size=5))],
            "label": list(range(6)),
        },
    ],
    ids=["image not a struct", "no bytes", "label not a number", "label missing", "no rows", "sizes differ"],
)
def test_columns_of_the_wrong_kind_are_a_user_error_that_names_the_file(tmp_path, columns):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / "test-00000-of-00001.parquet"
    write_table(path, columns)
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert str(path) in str(error.value)


def test_parquet_that_is_not_of_the_hub_may_carry_any_metadata(tmp_path):
    images = write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / "train-00000-of-00002.parquet"
    table = pyarrow.parquet.read_table(path).replace_schema_metadata({"pandas": "{}"})
    pyarrow.parquet.write_table(table, path)
    np.testing.assert_array_equal(load(tmp_path).of_part("train")[0], images["train"])


def test_coarse_labels_give_superclasses_with_the_fine_classes_as_subclasses(tmp_path):
    labels = {"train": [c for c in range(6) for _ in range(12)], "test": list(range(6))}
    write_cifar100(tmp_path, labels)
    config = DataConfig(
        source="cifar100",
        root=str(tmp_path),
        cache="",
        labels="coarse",
        imbalance_factor=9,
        num_meta_per_class=9,
    )
    data = make_datasets(config, 0, torch.device("cpu"))
    assert data.class_names == COARSE_NAMES
    coarse = torch.tensor(COARSE_OF_FINE)
    for samples in (data.train, data.meta, data.test):
        assert torch.equal(samples.labels, coarse[samples.subclasses])
    # 12 images a fine class, 3 of them meta; each group of three fine classes falls as 9, 3, 1
    assert data.train.subclasses.bincount().tolist() == [9, 3, 9, 3, 1, 1]
    assert data.meta.subclasses.bincount().tolist() == [3] * 6
    assert data.true_sizes.tolist() == [13, 13]


def test_meta_images_a_coarse_class_must_be_shared_evenly_by_its_fine_classes(tmp_path):
    write_cifar100(tmp_path)
    config = DataConfig(
        source="cifar100", root=str(tmp_path), cache="", labels="coarse", imbalance_factor=1, num_meta_per_class=10
    )
    with pytest.raises(UserError, match=r"data\.num_meta_per_class must be a multiple of the 3 fine classes .*got 10"):
        make_datasets(config, 0, torch.device("cpu"))


def test_real_cifar100_is_balanced_and_its_coarse_classes_hold_five_fine_ones():
    folder = cifar_folder()
    if folder is None:
        pytest.skip("no CIFAR: set OTRW_DATA to a folder that holds cifar100/*.parquet")
    names = sorted((folder / "cifar100").glob("*.parquet"))
    fine, coarse = [], []
    for path in names:
        if path.name.startswith("train-"):
            table = pyarrow.parquet.read_table(path, columns=["fine_label", "coarse_label"])
            fine.append(table["fine_label"].to_numpy())
            coarse.append(table["coarse_label"].to_numpy())
    fine, coarse = np.concatenate(fine), np.concatenate(coarse)
    assert np.bincount(fine).tolist() == [500] * 100
    groups = np.zeros(100, dtype=int)
    groups[fine] = coarse
    np.testing.assert_array_equal(groups[fine], coarse)
    assert np.bincount(groups).tolist() == [5] * 20
    class_names, group_names = parquet._label_names(names[-1])
    assert (len(class_names), len(group_names)) == (100, 20)
    assert class_names[0] == "apple"
    first = pyarrow.parquet.ParquetFile(names[0]).iter_batches(batch_size=4, columns=["img"])
    for row, cell in enumerate(next(first)["img"].to_pylist()):
        assert image_files.decode_image(cell["bytes"], names[0], row).shape == (32, 32, 3)
