"""Images in folders: which samples, parts and classes they are, and what becomes of everything else that lies there."""

import os

import numpy as np
import pytest
import torch
from made_own import NAMES, images_of, labels_of, write_cifar, write_classes, write_folder, write_image
from PIL import Image

from otrw.config import DataConfig
from otrw.data.datasets import make_datasets
from otrw.data.folder import load_folder
from otrw.data.images import MOST_PIXELS_OF_A_FILE, open_image
from otrw.data.own import load_own
from otrw.errors import UserError

CPU = torch.device("cpu")
PARTS = ("train", "meta", "validation", "test")


def settings(root, source="folder", **others):
    return DataConfig(source=source, root=str(root), cache="", **others)


def error_of(root, **others):
    with pytest.raises(UserError) as error:
        make_datasets(settings(root, **others), 0, CPU)
    assert "\n" not in str(error.value)
    return str(error.value)


def reasons(raw):
    return {one.identity: one.reason for one in raw.skipped}


def assert_same_sets(found, expected, with_rows=True):
    for part in PARTS:
        one, other = getattr(found, part), getattr(expected, part)
        for field in ("inputs", "labels", "true_labels", *(["source_index"] if with_rows else [])):
            assert torch.equal(getattr(one, field), getattr(other, field)), (part, field)
    for field in ("mean", "std", "given_sizes", "true_sizes"):
        assert torch.equal(getattr(found, field), getattr(expected, field)), field
    assert found.class_names == expected.class_names


def test_a_folder_with_all_of_cifar_is_split_and_spoilt_as_cifar_is(tmp_path):
    wanted = {"imbalance_factor": 4, "num_meta_per_class": 3, "num_validation_per_class": 2}
    wanted |= {"label_noise": "symmetric", "label_noise_rate": 0.3}
    expected = make_datasets(settings(write_cifar(tmp_path), "cifar10", **wanted), 5, CPU)
    found = make_datasets(settings(write_folder(tmp_path / "folder"), **wanted), 5, CPU)
    assert_same_sets(found, expected)
    assert found.identities[int(found.test.source_index[2])] == f"test/{NAMES[labels_of('test')[2]]}/00002.png"


def test_a_long_tail_that_is_written_out_is_taken_as_it_is(tmp_path):
    expected = make_datasets(
        settings(write_cifar(tmp_path), "cifar10", imbalance_factor=4, num_meta_per_class=3, num_validation_per_class=2), 0, CPU
    )
    rows = {
        name: getattr(expected, part).source_index.tolist()
        for part, name in zip(PARTS[:3], ("train", "meta", "val"), strict=True)
    }
    of_train = {row: name for name, of_name in rows.items() for row in of_name}
    of_test = dict.fromkeys(range(len(labels_of("test"))), "testing")
    found = make_datasets(settings(write_folder(tmp_path / "folder", {"train": of_train, "test": of_test})), 0, CPU)
    assert_same_sets(found, expected, with_rows=False)
    assert found.meta_is_checked
    assert not found.knows_truth
    assert found.notes == ()


def test_nothing_is_made_long_tailed_and_no_label_is_spoilt_unless_asked_for(tmp_path):
    config = settings(write_folder(tmp_path), num_meta_per_class=2)
    assert config.imbalance_factor is None
    data = make_datasets(config, 0, CPU)
    assert data.given_sizes.tolist() == [12] * 4
    assert torch.equal(data.train.labels, data.train.true_labels)
    assert DataConfig().imbalance_factor == 20


def test_without_parts_all_missing_sets_are_cut_from_the_classes_and_said_to_be(tmp_path):
    config = settings(write_classes(tmp_path, {"a": 40, "b": 10, "c": 4}), num_validation_per_class=4, num_meta_per_class=5)
    data, other = (make_datasets(config, seed, CPU) for seed in (0, 1))
    assert torch.equal(data.test.source_index, other.test.source_index)  # the same for every seed
    assert not torch.equal(data.meta.source_index, other.meta.source_index)
    assert data.test.labels.bincount().tolist() == [8, 2, 1]
    assert data.meta.labels.bincount().tolist() == [5, 4, 1]
    assert data.validation.labels.bincount(minlength=3).tolist() == [4, 2, 1]
    assert data.train.labels.bincount().tolist() == [23, 2, 1]
    rows = torch.cat([getattr(data, part).source_index for part in PARTS])
    assert sorted(rows.tolist()) == list(range(54))
    assert not data.meta_is_checked
    said = " ".join(data.notes)
    assert "no test set in the data: 11 of 54 samples cut out" in said
    assert "taken on trust" in said
    assert data.split_hash != other.split_hash


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "validation", "val"), r"one folder for validation, got \['val', 'validation'\]"),
        (("cats", "test"), r"must hold train/ beside test/"),
    ],
)
def test_folders_that_contradict_each_other_are_refused(tmp_path, names, message):
    for name in names:
        write_classes(tmp_path / name, {"a": 3, "b": 3})
    with pytest.raises(UserError, match=message):
        load_folder(tmp_path)


def test_what_is_no_image_of_a_class_is_passed_over_and_recorded(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3, "empty": 0})
    write_classes(tmp_path / "extra", {"a": 1})
    for name in ("train/a/notes.txt", "train/stray.png", "train/a/.hidden.png"):
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "train" / ".git").mkdir()
    (tmp_path / "train" / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    raw = load_folder(tmp_path)
    assert raw.class_names == ("a", "b")
    assert len(raw.labels) == 6
    assert reasons(raw) == {
        "extra": "a folder beside train that names no part",
        "train/a/notes.txt": "no image by its name",
        "train/stray.png": "not inside the folder of a class",
        "train/b/gone.png": "a link to nothing",
        "train/empty": "a class without an image",
    }


def test_a_folder_one_level_too_far_up_is_remarked_on(tmp_path):
    write_classes(tmp_path / "photos", {"cat": 12, "dog": 12})
    assert load_folder(tmp_path / "photos").notes == ()
    (note,) = load_folder(tmp_path).notes
    assert "one level too far up" in note
    assert "photos" in note
    for name in ("cat", "dog"):
        (tmp_path / "deeper" / name).mkdir(parents=True)
        (tmp_path / "photos" / name).rename(tmp_path / "deeper" / name / "raw")
    assert load_folder(tmp_path / "deeper").notes == ()  # one sub-folder of each class is how some keep them


def test_links_are_followed_and_a_link_to_a_folder_above_ends(tmp_path):
    write_classes(tmp_path / "elsewhere", {"a": 3})
    write_classes(tmp_path / "root", {"b": 3})
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "root" / "b" / "deeper").mkdir()
    (tmp_path / "root" / "b" / "deeper" / "loop").symlink_to(tmp_path / "root" / "b")
    write_image(tmp_path / "root" / "b" / "deeper" / "x.png", np.zeros((4, 4, 3), np.uint8))
    raw = load_folder(tmp_path / "root")
    assert np.bincount(raw.labels).tolist() == [3, 4]


def test_an_image_that_is_linked_from_two_parts_leaves_training_or_is_counted(tmp_path):
    write_classes(tmp_path / "train", {"a": 5, "b": 5}, seed=1)
    write_classes(tmp_path / "trusted", {"a": 2, "b": 2}, seed=2)
    write_classes(tmp_path / "test", {"a": 2, "b": 2}, seed=3)
    for part in ("trusted", "test"):
        (tmp_path / "train" / "a" / f"of_{part}.png").symlink_to(tmp_path / part / "a" / "a0000.png")
    data = make_datasets(settings(tmp_path), 0, CPU)
    assert (data.copies.left_out, data.copies.test_seen) == (1, 1)
    assert data.given_sizes.tolist() == [6, 5]


def test_names_are_any_text_and_two_spellings_of_one_accent_are_one_class(tmp_path):
    composed, decomposed = "caf\u00e9 1", "cafe\u0301 1"
    write_classes(tmp_path / "train", {composed: 3, "\u732b": 3})
    write_classes(tmp_path / "test", {decomposed: 2, "\u732b": 2}, seed=1)
    raw = load_folder(tmp_path)
    assert raw.class_names == (composed, "\u732b")
    assert np.bincount(raw.labels).tolist() == [5, 5]


def test_bytes_that_are_no_text_in_a_name_are_passed_over(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    try:
        os.rename(tmp_path / "a" / "a0000.png", os.fsencode(tmp_path / "a") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    raw = load_folder(tmp_path)
    assert np.bincount(raw.labels).tolist() == [2, 3]
    assert reasons(raw) == {"a/\\xff.png": "a name that is no printable text"}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": 9, "b": 1}, r"every class must have a sample in the trusted set, got none of 'b'; .*--data\.smallest_class"),
        ({"a": 9}, "two classes or more"),
        ({}, "must hold images"),
    ],
)
def test_classes_that_cannot_be_divided_are_refused_with_a_remedy(tmp_path, sizes, message):
    write_classes(tmp_path, sizes)
    with pytest.raises(UserError, match=message):
        make_datasets(settings(tmp_path), 0, CPU)


def test_small_classes_are_left_out_where_asked_for(tmp_path):
    write_classes(tmp_path, {"a": 9, "b": 1, "c": 6})
    data = make_datasets(settings(tmp_path, smallest_class=2), 0, CPU)
    assert data.class_names == ("a", "c")
    assert data.facts["skipped"] == {"of a class with fewer than 2 training samples": 1}


def encoded(tmp_path, mode, suffix, **options):
    """The same grey ramp, 8 x 6, in some mode."""
    ramp = (np.arange(48, dtype=np.uint16) * 5).reshape(6, 8)
    image = Image.fromarray(ramp * 257) if mode == "I;16" else Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    path = tmp_path / f"x{suffix}"
    image.save(path, **options)
    return ramp.astype(np.uint8), path.read_bytes()


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", ".png"),
        ("I;16", ".png"),
        ("I;16", ".tif"),
        ("RGBA", ".png"),
        ("LA", ".png"),
        ("P", ".gif"),
        ("CMYK", ".tif"),
        ("RGB", ".bmp"),
    ],
)
def test_every_kind_of_image_becomes_8_bit_rgb(tmp_path, mode, suffix):
    ramp, data = encoded(tmp_path, mode, suffix)
    image = open_image(data, "x")
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(int)
    assert np.abs(pixels - ramp[..., None]).max() <= (1 if mode != "CMYK" else 3)


def test_images_are_turned_as_their_exif_says_and_animations_give_the_first_frame(tmp_path):
    image = np.zeros((6, 8, 3), np.uint8)
    image[:, :4] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    write_image(tmp_path / "turned.png", image, exif=exif)
    turned = np.asarray(open_image((tmp_path / "turned.png").read_bytes(), "x"))
    np.testing.assert_array_equal(turned, np.rot90(image, -1))
    frames = [Image.fromarray(np.full((6, 8), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(open_image((tmp_path / "moving.gif").read_bytes(), "x")).max() <= 12


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "32 bits"])
def test_an_image_that_cannot_be_decoded_is_named_or_left_out(tmp_path, damage):
    write_classes(tmp_path, {"a": 8, "b": 8}, size=16)
    path = tmp_path / "a" / "a0003.png"
    whole = path.read_bytes()
    if damage == "32 bits":
        Image.fromarray(np.zeros((16, 16), np.float32)).save(tmp_path / "a" / "a9.tiff")
        path = tmp_path / "a" / "a9.tiff"
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no picture"}[damage])
    message = error_of(tmp_path)
    assert message.startswith(f"a/{path.name} ")
    assert message.endswith("--data.unreadable skip")
    data = make_datasets(settings(tmp_path, unreadable="skip"), 0, CPU)
    assert data.facts["skipped"] == {"cannot be decoded": 1}
    assert f"a/{path.name}" not in data.identities
    assert len(data.train) + len(data.meta) + len(data.test) == 15 + (damage == "32 bits")


def test_an_image_of_too_many_pixels_is_refused(tmp_path):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=f"must be 1 to {MOST_PIXELS_OF_A_FILE}|decompression bomb"):
        open_image((tmp_path / "x.png").read_bytes(), "x")


def test_jpegs_of_several_sizes_need_a_size_and_get_it(tmp_path):
    for label in ("a", "b"):
        for row, side in enumerate((10, 20, 30, 40)):
            image = np.full((side, 2 * side, 3), 50, np.uint8)
            image[:, side // 2 : side // 2 + side] = 200  # the centre square
            write_image(tmp_path / label / f"{label}{row}.jpg", image + (label == "b"), quality=100)
    assert "images of several sizes, such as 20 x 10 and 40 x 20" in error_of(tmp_path)
    data = make_datasets(settings(tmp_path, image_size=8), 0, CPU)
    assert data.train.inputs.shape[1:] == (8, 8, 3)
    assert int(data.train.inputs[:, 2:6, 2:6].min()) > 180


def test_images_beyond_the_memory_limit_stay_in_their_files(tmp_path):
    raw = load_own(settings(write_classes(tmp_path, {"a": 4, "b": 4}), memory_limit_gib=1e-9))
    assert "GiB of pixels" in raw.notes[0]
    row = int(np.flatnonzero(raw.labels == 1)[2])
    with Image.open(tmp_path / raw.identities[row]) as image:
        np.testing.assert_array_equal(np.asarray(raw.inputs.read(row)), np.asarray(image))
    chosen = raw.inputs[np.array([row, 0])]
    assert list(chosen.identities) == [raw.identities[row], raw.identities[0]]


def test_the_second_start_decodes_nothing_until_a_file_changes(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "root", {"a": 5, "b": 5})
    config = DataConfig(source="folder", root=str(root), cache=str(tmp_path / "cache"))
    first = make_datasets(config, 0, CPU)
    with monkeypatch.context() as patch:
        patch.setattr("otrw.data.decode._decode", lambda *_: pytest.fail("decoded again"))
        second = make_datasets(config, 0, CPU)
    assert torch.equal(first.train.inputs, second.train.inputs)
    write_image(root / "a" / "a0000.png", np.full((4, 4, 3), 7, np.uint8))
    os.utime(root / "a" / "a0000.png", ns=(1, 1))
    third = make_datasets(config, 0, CPU)
    everything = torch.cat([third.train.inputs, third.meta.inputs, third.test.inputs])
    assert (everything == 7).all((1, 2, 3)).sum() == 1


def test_the_hash_of_the_split_changes_with_the_files(tmp_path):
    root = write_folder(tmp_path)
    config = settings(root, num_meta_per_class=2)
    first = make_datasets(config, 0, CPU).split_hash
    assert make_datasets(config, 0, CPU).split_hash == first
    image = images_of("train")[0]
    write_image(root / "train" / NAMES[0] / "99999.png", image)
    assert make_datasets(config, 0, CPU).split_hash != first


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_small_files(tmp_path):
    root, number = tmp_path / "root", 100_000
    images = np.random.default_rng(0).integers(0, 256, (number, 2, 2, 3), dtype=np.uint8)
    for row, image in enumerate(images):
        folder = root / f"class{row % 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row:06d}.bmp")
    config = DataConfig(source="folder", root=str(root), cache=str(tmp_path / "cache"))
    first, second = (make_datasets(config, 0, CPU) for _ in range(2))
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert len(first.train) + len(first.meta) + len(first.test) + first.copies.left_out == number
    for position in (0, 17, len(first.train) - 1):
        identity = first.identities[int(first.train.source_index[position])]
        np.testing.assert_array_equal(first.train.inputs[position].numpy(), images[int(identity[-10:-4])])
