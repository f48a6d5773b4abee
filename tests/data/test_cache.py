"""The cache gives back the arrays that were decoded, or has them decoded again: never others, and never an error."""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import files_of_at_most

from otrw import atomic
from otrw.data.cache import cached_arrays, read_arrays, write_arrays

ARRAYS = {
    "images": np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8),
    "labels": np.arange(6, dtype=np.int64),
    "hashes": np.array([2**64 - 1, 0], dtype=np.uint64),
    "none": np.zeros((0, 3), dtype=np.float32),
}


def assert_same(found, expected=ARRAYS):
    assert list(found) == list(expected)
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.parquet"
    path.write_bytes(b"content")
    return path


def fill(source, cache, calls):
    return cached_arrays("set", [source], str(cache), lambda: calls.append(1) or ARRAYS)


def test_arrays_are_read_back_as_they_were(tmp_path, source):
    calls = []
    for _ in range(2):
        assert_same(fill(source, tmp_path / "cache", calls))
    assert len(calls) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_file_that_changed_has_another_key(tmp_path, source):
    calls = []
    fill(source, tmp_path / "cache", calls)
    os.utime(source, ns=(0, 0))
    fill(source, tmp_path / "cache", calls)
    source.write_bytes(b"longer content")
    os.utime(source, ns=(0, 0))
    fill(source, tmp_path / "cache", calls)
    assert len(calls) == 3


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_is_never_believed(tmp_path, seed):
    path = tmp_path / "set.arrays"
    write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    draw = random.Random(seed)
    for _ in range(100):
        damaged = bytearray(whole)
        place = draw.randrange(len(whole))
        match draw.choice(["flip", "zero", "cut"]):
            case "flip":
                damaged[place] ^= 1 << draw.randrange(8)
            case "zero":
                stretch = damaged[place : place + draw.randrange(1, 200)]
                damaged[place : place + len(stretch)] = bytes(len(stretch))
            case "cut":
                del damaged[place:]
        path.write_bytes(damaged)
        found = read_arrays(path)
        if bytes(damaged) == whole:
            assert_same(found)
        else:
            assert found is None


@pytest.mark.parametrize("content", [b"", b"\n", b"PK\x03\x04", bytes(100), b"x" * 200_000])
def test_another_file_is_never_believed(tmp_path, content):
    (tmp_path / "set.arrays").write_bytes(content)
    assert read_arrays(tmp_path / "set.arrays") is None


def test_zeroed_bytes_in_the_cache_are_decoded_again_and_mended(tmp_path, source):
    calls = []
    fill(source, tmp_path / "cache", calls)
    (path,) = (tmp_path / "cache").iterdir()
    content = bytearray(path.read_bytes())
    content[-60:-20] = bytes(40)
    path.write_bytes(content)
    assert_same(fill(source, tmp_path / "cache", calls))
    assert_same(fill(source, tmp_path / "cache", calls))
    assert len(calls) == 2


def test_a_cache_that_is_a_file_a_link_into_nothing_or_a_folder_of_that_name_is_passed_over(tmp_path, source):
    calls = []
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing" / "at" / "all")
    fill(source, tmp_path / "cache", calls)
    (path,) = (tmp_path / "cache").iterdir()
    path.unlink()
    path.mkdir()
    for cache in ("file", "file/below", "link", "cache"):
        assert_same(fill(source, tmp_path / cache, calls))


def test_a_full_disk_is_passed_over_and_leaves_nothing(tmp_path, source):
    with files_of_at_most(400):
        assert_same(fill(source, tmp_path / "cache", []))
    assert list((tmp_path / "cache").iterdir()) == []
    calls = []
    for _ in range(2):
        assert_same(fill(source, tmp_path / "cache", calls))
    assert len(calls) == 1


def test_what_a_killed_write_left_goes_with_the_next_write(tmp_path, source):
    left = tmp_path / "cache" / f"{atomic.PARTIAL}0123"
    left.parent.mkdir()
    left.write_bytes(bytes(100))
    hours_ago = time.time() - 7200
    os.utime(left, (hours_ago, hours_ago))
    fill(source, tmp_path / "cache", [])
    assert not left.exists()


def test_two_that_fill_it_at_once_leave_one_whole_file(tmp_path, source):
    arrays = {"a": np.arange(30_000)}
    start = threading.Barrier(2)

    def fill_all(_):
        for turn in range(5):
            start.wait(timeout=60)
            found = cached_arrays(f"set{turn}", [source], str(tmp_path / "cache"), lambda: arrays)
            assert_same(found, arrays)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill_all, range(2)))
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 5
    for path in files:
        assert_same(read_arrays(path), arrays)
