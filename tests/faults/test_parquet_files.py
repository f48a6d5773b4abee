"""Parquet files with generated damage and generated content: the images and labels that were written, or one line."""

import os
import random

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_parquet import image_cells, random_images, write_cifar10

from otrw.data.raw import RawData
from otrw.data.sources import load_source
from otrw.errors import UserError

pytestmark = pytest.mark.timeout(250)


def loaded(root, cache=""):
    """The data set, or None where it is refused in one line that names its folder."""
    try:
        return load_source("cifar10", root=str(root), layout="auto", download=False, cache=str(cache))
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 1000
    assert "cifar10" in message
    return None


def assert_same(found: RawData, expected: RawData):
    for name in ("inputs", "labels", "hashes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(found.parts, part), getattr(expected.parts, part))
    assert found.class_names == expected.class_names


def damaged(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    place = draw.randrange(len(data))
    match draw.choice(["flip", "zero", "cut out", "insert", "end"]):
        case "flip":
            data[place] ^= 1 << draw.randrange(8)
        case "zero":
            end = min(len(data), place + draw.randrange(1, 40))
            data[place:end] = bytes(end - place)
        case "cut out":
            del data[place : place + draw.randrange(1, 50)]
        case "insert":
            data[place:place] = draw.randbytes(draw.randrange(1, 20))
        case "end":
            del data[place:]
    return bytes(data)


@pytest.mark.parametrize("num_cases", [500, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_files_with_page_checksums_give_the_same_data_or_one_line(tmp_path, num_cases):
    write_cifar10(tmp_path)
    whole = {}
    for path in sorted((tmp_path / "cifar10").iterdir()):
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path, write_page_checksum=True)
        whole[path] = path.read_bytes()
    expected = loaded(tmp_path)
    draw = random.Random(num_cases)
    num_refused = 0
    for _ in range(num_cases):
        path = draw.choice(list(whole))
        path.write_bytes(damaged(whole[path], draw))
        found = loaded(tmp_path)
        num_refused += found is None
        if found is not None:
            assert_same(found, expected)
        path.write_bytes(whole[path])
    assert num_refused > num_cases / 2


BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", b"%!PS")
image_data = st.one_of(
    st.none(), st.binary(max_size=40), st.tuples(st.sampled_from(BEGINNINGS), st.binary(max_size=60)).map(b"".join)
)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**63 - 1)), min_size=6, max_size=6)
    | st.permutations([0, 1, 2, 3, 4, 5]),
    kind=st.sampled_from(["int64", "int64", "int8", "uint64", "float64", "string", "bool"]),
    bad=st.dictionaries(st.integers(0, 5), image_data, max_size=1),
    size=st.sampled_from([4, 4, 4, 5, 1]),
)
def test_generated_content_is_read_as_it_was_written_or_refused(tmp_path, labels, kind, bad, size):
    images = write_cifar10(tmp_path, names=None)
    pixels = random_images(6, 7, size)
    cells = image_cells(pixels)
    for row, data in bad.items():
        cells[row]["bytes"] = data
    try:
        column = pyarrow.array(labels, pyarrow.int64()).cast(kind)
    except pyarrow.ArrowInvalid:
        return  # no such file can be written
    path = tmp_path / "cifar10" / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"img": cells, "label": column}), path)
    found = loaded(tmp_path)
    right = sorted(labels) == [0, 1, 2, 3, 4, 5] and not bad and size == 4 and "int" in kind
    assert (found is not None) == right
    if found is not None:
        assert found.of_part("test")[1].tolist() == labels
        np.testing.assert_array_equal(found.of_part("test")[0], pixels)
        np.testing.assert_array_equal(found.of_part("train")[0], images["train"])


def test_damage_to_the_cache_never_changes_the_data(tmp_path):
    write_cifar10(tmp_path)
    expected = loaded(tmp_path, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        path.write_bytes(damaged(whole, draw))
        assert_same(loaded(tmp_path, tmp_path / "cache"), expected)
        assert path.read_bytes() == whole  # made anew
    os.chmod(path, 0)
    assert_same(loaded(tmp_path, tmp_path / "cache"), expected)
