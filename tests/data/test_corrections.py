"""Labels that somebody looked at after an audit: corrected where they are, in any part, and nothing else changed."""

import numpy as np
import pytest
import torch
from made_own import write_classes, write_verdicts

from otrw.config import DataConfig
from otrw.data.datasets import make_datasets
from otrw.errors import UserError


@pytest.fixture
def root(tmp_path):
    for part, seed in (("train", 0), ("test", 1)):
        write_classes(tmp_path / "root" / part, {"a": 12, "b": 8, "c": 6}, seed)
    return tmp_path / "root"


def datasets(root, *files, **settings):
    corrections = ",".join(map(str, files)) or None
    config = DataConfig(source="folder", root=str(root), cache="", num_meta_per_class=2, corrections=corrections, **settings)
    return make_datasets(config, 0, torch.device("cpu"))


def labels_of(data, samples):
    pairs = zip(samples.source_index.tolist(), samples.labels.tolist(), strict=True)
    return {data.identities[row]: data.class_names[label] for row, label in pairs}


def test_labels_are_corrected_in_every_part_and_no_sample_changes_its_part(root, tmp_path):
    plain = datasets(root)
    before = labels_of(plain, plain.train) | labels_of(plain, plain.meta)
    rows = [
        ("train/a/a0000.png", "b", "wrong"),
        ("train/a/a0001.png", "", "wrong"),
        ("train/b/b0000.png", "b", "right"),
        ("train/c/c0000.png", "c", ""),
        ("test/a/a0001.png", "c", "wrong"),
    ]
    path = write_verdicts(tmp_path / "audit.csv", rows)
    data = datasets(root, path)
    after = labels_of(data, data.train) | labels_of(data, data.meta)
    changed = {"train/a/a0000.png": "b"}
    assert after == {name: changed.get(name, label) for name, label in before.items() if name != "train/a/a0001.png"}
    assert labels_of(data, data.test) == labels_of(plain, plain.test) | {"test/a/a0001.png": "c"}
    assert data.facts["corrected"] == {"samples": 4, "wrong": 3}
    assert data.facts["skipped"] == {"found to be of no class": 1}
    assert not data.meta_is_checked
    settled = {data.identities[row] for row in np.flatnonzero(data.is_settled)}
    assert settled == {"train/a/a0000.png", "train/b/b0000.png", "test/a/a0001.png"}
    assert data.facts["files_hash"] != plain.facts["files_hash"]
    assert data.split_hash != plain.split_hash  # a run on other labels is another run


def test_several_files_are_one_and_their_order_does_not_matter(root, tmp_path):
    first = write_verdicts(tmp_path / "1.csv", [("train/a/a0000.png", "b", "wrong"), ("train/c/c0003.png", "", "wrong")])
    second = write_verdicts(tmp_path / "2.csv", [("train/b/b0002.png", "b", "right")])
    one, other = datasets(root, first, second), datasets(root, second, first)
    assert one.split_hash == other.split_hash != datasets(root, first).split_hash
    assert one.facts == other.facts
    assert labels_of(one, one.train) == labels_of(other, other.train)
    with pytest.raises(UserError, match=r"data\.corrections: 'train/a/a0000\.png' must have one verdict, but is in two files"):
        datasets(root, first, first)


def test_a_trusted_sample_may_be_confirmed_later_and_stays_trusted(root, tmp_path):
    first, second = "train/a/a0002.png", "train/a/a0003.png"
    trusted = write_verdicts(tmp_path / "trusted.csv", [(first, "b", "wrong"), (second, "", "right")])
    later = write_verdicts(tmp_path / "audit.csv", [(first, "b", "right"), (second, "c", "wrong")])
    data = datasets(root, later, trusted=str(trusted))
    found = labels_of(data, data.meta)
    assert (found[first], found[second]) == ("b", "c")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("train/a/none.png", "a", "right")], r"data\.corrections: .* must be a sample of data\.root"),
        ([("train/a/a0000.png", "z", "wrong")], r"data\.corrections: the label .* must be a class of the data, got 'z'"),
        ([("train/a/a0000.png", "a", "wrong")], r"data\.corrections: .* must be right, or wrong with another label"),
        ([("train/a/a0000.png", "a", "right")] * 2, r"data\.corrections: .* is checked twice"),
        ([("train/a/a0000.png", "a", "")], r"data\.corrections must hold checked samples"),
    ],
)
def test_what_cannot_be_right_is_refused(root, tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        datasets(root, write_verdicts(tmp_path / "audit.csv", rows))


def test_a_missing_file_is_refused_and_benchmarks_have_no_corrections(root, tmp_path):
    with pytest.raises(UserError, match=r"data\.corrections must be a file of checked samples, got .*2\.csv"):
        datasets(root, write_verdicts(tmp_path / "1.csv", [("train/a/a0000.png", "", "right")]), tmp_path / "2.csv")
    with pytest.raises(UserError, match=r"data\.corrections must come with data\.source folder"):
        DataConfig(source="digits", corrections="audit.csv")
