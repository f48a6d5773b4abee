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
    plain = datasets(root, num_validation_per_class=2)
    parts = ("train", "meta", "validation", "test")
    before = {part: labels_of(plain, getattr(plain, part)) for part in parts}
    of_a = {part: sorted(name for name, label in before[part].items() if label == "a") for part in parts}
    right = sorted(name for name, label in before["train"].items() if label == "b")[0]
    rows = [(of_a[part][0], "b", "wrong") for part in parts]
    rows += [
        (of_a["train"][1], "", "wrong"),
        (of_a["test"][1], "", "wrong"),
        (right, "b", "right"),
        (of_a["train"][2], "a", ""),
    ]
    data = datasets(root, write_verdicts(tmp_path / "audit.csv", rows), num_validation_per_class=2)
    changed = {name: label for name, label, verdict in rows if verdict == "wrong"}
    for part in parts:
        expected = {name: changed.get(name, label) for name, label in before[part].items()}
        assert labels_of(data, getattr(data, part)) == {name: label for name, label in expected.items() if label}
    assert torch.equal(data.train.labels, data.train.true_labels)
    assert data.given_sizes.sum() == len(data.train)
    assert data.facts["corrected"] == {"samples": 7, "wrong": 6}
    assert data.facts["skipped"] == {"found to be of no class": 2}
    assert "7 labels were judged after an audit, 6 of them wrong, 2 in the test set" in " ".join(data.notes)
    settled = {data.identities[row] for row in np.flatnonzero(data.is_settled)}
    assert settled == {name for name, _, verdict in rows if verdict}
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


def test_trusted_samples_and_corrections_are_judged_by_the_labels_as_given_and_must_agree(root, tmp_path):
    first, second, third = (f"train/a/a000{n}.png" for n in (2, 3, 4))
    verdicts = [(first, "b", "wrong"), (second, "", "right"), (third, "", "wrong")]
    trusted = str(write_verdicts(tmp_path / "trusted.csv", verdicts))
    data = datasets(root, write_verdicts(tmp_path / "same.csv", verdicts), trusted=trusted)
    found = labels_of(data, data.meta)
    assert (found[first], found[second]) == ("b", "a")
    assert third not in data.identities
    for other in ([(first, "c", "wrong")], [(second, "c", "wrong")], [(third, "a", "right")]):
        with pytest.raises(UserError, match=r"data\.trusted: .* must have one verdict, but data\.corrections has another"):
            datasets(root, write_verdicts(tmp_path / "other.csv", other), trusted=trusted)


def test_a_class_may_not_lose_all_that_it_has(root, tmp_path):
    of_c = [(f"train/c/c000{n}.png", "b", "wrong") for n in range(6)]
    with pytest.raises(UserError, match=r"data\.corrections must leave every class a sample to train on, got none of 'c'"):
        datasets(root, write_verdicts(tmp_path / "train.csv", of_c))
    plain = datasets(root)
    in_test = [(name, "", "wrong") for name in labels_of(plain, plain.test)]
    with pytest.raises(UserError, match=r"data\.corrections must leave a sample to test on, got none"):
        datasets(root, write_verdicts(tmp_path / "test.csv", in_test))


def test_names_that_tables_take_for_formulas_come_back(tmp_path):
    root = write_classes(tmp_path / "root", {"-1": 8, "=b": 8})
    path = tmp_path / "audit.csv"
    path.write_text("identity,label,verdict\n'-1/-10000.png,'=b,wrong\n'=b/=b0000.png,'=b,right\n")
    data = datasets(root, path)
    found = labels_of(data, data.train) | labels_of(data, data.meta) | labels_of(data, data.test)
    assert found["-1/-10000.png"] == "=b"
    assert data.facts["corrected"] == {"samples": 2, "wrong": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("train/a/none.png", "a", "right")], r"data\.corrections: .* must be a sample of data\.root"),
        ([("train/a/a0000.png", "z", "wrong")], r"data\.corrections: the label .* must be a class of the data, got 'z'"),
        ([("train/a/a0000.png", "B ", "wrong")], r"must be a class of the data, got 'B '; did you mean 'b'\?"),
        ([("train/a/a0000.png", "a", "wrong")], r"data\.corrections: .* must be right, or wrong with another label"),
        ([("train/a/a0000.png", "a", "right")] * 2, r"data\.corrections: .* is checked twice"),
        ([("train/a/a0000.png", "a", "")], r"data\.corrections must hold checked samples"),
        (
            [("train/a/a0000.png", "b", ""), ("train/a/a0001.png", "a", "right")],
            r"data\.corrections: 'train/a/a0000\.png' must have a verdict, got the label b without one",
        ),
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
    with pytest.raises(UserError, match=r"data\.corrections must name a file, got ' , '"):
        DataConfig(source="folder", corrections=" , ")
    with pytest.raises(UserError, match=r"data\.label_noise must be 'none' with data\.corrections"):
        DataConfig(source="folder", corrections="audit.csv", label_noise="symmetric", label_noise_rate=0.1)


def test_a_file_with_a_comma_in_its_name_is_one_file(root, tmp_path):
    path = write_verdicts(tmp_path / "mine, and yours.csv", [("train/a/a0000.png", "", "right")])
    assert datasets(root, path).facts["corrected"] == {"samples": 1, "wrong": 0}
