"""What Parquet files of unknown origin can hold: one line that names file and row, and never other labels or pixels."""

import io
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from made_parquet import (
    COARSE_OF_FINE,
    FINE_NAMES,
    LABELS,
    image_cells,
    load,
    random_images,
    write_cifar10,
    write_cifar100,
    write_table,
)
from PIL import Image

from otrw.data import parquet
from otrw.data.images import MOST_PIXELS
from otrw.errors import UserError

TEST_FILE = "test-00000-of-00001.parquet"


def error_of(root, source="cifar10"):
    with pytest.raises(UserError) as error:
        load(root, source)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def encoded(mode="RGB", size=(4, 4), kind="PNG", **options):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format=kind, **options)
    return buffer.getvalue()


def with_image(root, data):
    """The data set with one image, in row 3 of test, replaced."""
    write_cifar10(root)
    cells = image_cells(random_images(6, 1))
    cells[3]["bytes"] = data
    write_table(root / "cifar10" / TEST_FILE, {"img": cells, "label": LABELS["test"]}, {"label": FINE_NAMES})


@pytest.mark.parametrize("names", [FINE_NAMES, None], ids=["with names", "without"])
@pytest.mark.parametrize("label", [-1, 6, 2**40, -(2**62), 2**63 - 1])
@pytest.mark.parametrize("file", ["train-00001-of-00002.parquet", TEST_FILE])
def test_a_label_outside_the_classes_is_named_by_file_and_row(tmp_path, file, label, names):
    write_cifar10(tmp_path, names)
    path = tmp_path / "cifar10" / file
    table = pyarrow.parquet.read_table(path)
    labels = [*table["label"].to_pylist()[:-1], label]
    table = table.set_column(1, "label", pyarrow.array(labels))
    pyarrow.parquet.write_table(table, path)
    message = error_of(tmp_path)
    if names is None and file != TEST_FILE:  # train tells the number of classes, here one more than test has
        assert "every label must be a whole number from 0 to 6" in message or "none of class 6" in message
    else:
        row = len(labels) - 1
        assert message == f"{path}: every label must be a whole number from 0 to 5, got {label} in row {row}"


@pytest.mark.parametrize("coarse", [-1, 2, 2**40])
def test_a_coarse_label_outside_the_superclasses_is_refused(tmp_path, coarse):
    write_cifar100(tmp_path)
    path = tmp_path / "cifar100" / TEST_FILE
    table = pyarrow.parquet.read_table(path)
    values = [*table["coarse_label"].to_pylist()[:-1], coarse]
    pyarrow.parquet.write_table(table.set_column(2, "coarse_label", pyarrow.array(values)), path)
    assert f"every coarse label must be a whole number from 0 to 1, got {coarse} in row 5" in error_of(tmp_path, "cifar100")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_fine_class_in_two_superclasses_is_refused(tmp_path, part):
    write_cifar100(tmp_path)
    path = tmp_path / "cifar100" / f"{part}-00000-of-00001.parquet"
    table = pyarrow.parquet.read_table(path)
    values = [1 - COARSE_OF_FINE[LABELS[part][0]], *table["coarse_label"].to_pylist()[1:]]
    pyarrow.parquet.write_table(table.set_column(2, "coarse_label", pyarrow.array(values)), path)
    assert f"one coarse label, the same in every row of {part}" in error_of(tmp_path, "cifar100")


def test_a_class_without_images_is_refused(tmp_path):
    write_cifar10(tmp_path)
    write_table(
        tmp_path / "cifar10" / TEST_FILE,
        {"img": image_cells(random_images(5, 1)), "label": [0, 1, 2, 3, 5]},
        {"label": FINE_NAMES},
    )
    assert "test (labels) must hold images of all 6 classes, got none of class 4" in error_of(tmp_path)


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"\xff\xfe", b"[]", b"5", b'{"info": 3}', b'{"info": {"features": [1]}}', b'{"info": {"features": {"label": 3}}}']
    + [b'{"info": {"features": {"label": {"names": %s}}}}' % names for names in (b"5", b"[1, 2]", b'["a", "a"]', b'["a\\nb"]')]
    + [b"[" * 100_000],
    ids=lambda value: repr(value)[:40],
)
def test_broken_metadata_of_the_hub_is_named(tmp_path, metadata):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / "train-00000-of-00002.parquet"
    table = pyarrow.parquet.read_table(path).replace_schema_metadata({b"huggingface": metadata})
    pyarrow.parquet.write_table(table, path)
    assert str(path) in error_of(tmp_path)


def test_files_that_name_classes_in_another_order_are_refused(tmp_path):
    write_cifar10(tmp_path)
    cells = image_cells(random_images(6, 1))
    write_table(tmp_path / "cifar10" / TEST_FILE, {"img": cells, "label": LABELS["test"]}, {"label": FINE_NAMES[::-1]})
    assert "must name the same classes" in error_of(tmp_path)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
NO_WIDTH = encoded(kind="BMP")[:18] + bytes(4) + encoded(kind="BMP")[22:]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (NO_WIDTH, ""),
        (encoded(size=(MOST_PIXELS // 4 + 1, 4)), f"1 to {MOST_PIXELS}"),
        (encoded(mode="1", size=(30_000, 30_000)), ""),  # 900 million pixels in 110 kB
        (encoded(mode="F", kind="TIFF"), "mode F"),
        (EPS, "is no image that Pillow can read"),
        (encoded(size=(64, 64))[:-20], ""),
        (encoded(kind="JPEG", size=(64, 64))[:-30], ""),
        (b"RIFF\x00\x00\x00\x00WEBP", ""),
        (b"", ""),
        (None, ""),
    ],
    ids=[
        "no pixels",
        "too many",
        "bomb",
        "floats",
        "eps",
        "cut png",
        "cut jpeg",
        "webp",
        "empty",
        "none",
    ],
)
def test_an_image_that_is_none_is_named_by_file_and_row(tmp_path, data, part):
    with_image(tmp_path, data)
    message = error_of(tmp_path)
    assert message.startswith(f"{tmp_path}/cifar10/{TEST_FILE}: the image in row 3 ")
    assert part in message


def test_pillow_starts_no_program_for_an_image(tmp_path, monkeypatch):
    def started(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    with_image(tmp_path, EPS)
    assert "row 3 is no image that Pillow can read" in error_of(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG", "PPM", "TGA"])
def test_usual_formats_are_read(tmp_path, kind):
    with_image(tmp_path, encoded(kind=kind))
    assert load(tmp_path).of_part("test")[0][3].tolist() == np.zeros((4, 4, 3), dtype=int).tolist()


def test_one_size_holds_for_train_and_test_together(tmp_path):
    write_cifar10(tmp_path)
    cells = image_cells(random_images(6, 1, size=5))
    write_table(tmp_path / "cifar10" / TEST_FILE, {"img": cells, "label": LABELS["test"]}, {"label": FINE_NAMES})
    assert f"{TEST_FILE}: all images must have one size" in error_of(tmp_path)


def test_bounds_on_rows_and_bytes_are_held(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    monkeypatch.setattr(parquet, "MOST_BYTES", 100)
    assert "must fit into" in error_of(tmp_path)
    monkeypatch.setattr(parquet, "MOST_ROWS", 4)
    assert "must have at most 4 rows, got 5" in error_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"label,img\n1,2\n", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content):
    write_cifar10(tmp_path)
    (tmp_path / "cifar10" / TEST_FILE).write_bytes(content)
    message = error_of(tmp_path)
    assert f"{TEST_FILE} is not a whole Parquet file" in message


def test_a_folder_named_like_a_file_is_a_user_error(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar10" / TEST_FILE).unlink()
    (tmp_path / "cifar10" / TEST_FILE).mkdir()
    assert f"{TEST_FILE} is not a whole Parquet file" in error_of(tmp_path)


def test_a_file_of_another_data_set_beside_the_others_is_refused(tmp_path):
    write_cifar10(tmp_path)
    folder = tmp_path / "cifar10"
    (folder / "train-00001-of-00002.parquet").rename(folder / "train-extra-00001-of-00002.parquet")
    assert "train-extra-00001-of-00002.parquet is no file of a data set in 2 files" in error_of(tmp_path)


@pytest.mark.parametrize("copy", ["train-00001-of-00002.parquet", TEST_FILE])
def test_a_file_that_is_there_twice_is_refused(tmp_path, copy):
    write_cifar10(tmp_path)
    folder = tmp_path / "cifar10"
    shutil.copy(folder / "train-00000-of-00002.parquet", folder / copy)
    message = error_of(tmp_path)
    assert f"{copy} must differ from train-00000-of-00002.parquet" in message
