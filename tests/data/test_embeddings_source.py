"""Embeddings in files of every kind, label files beside CIFAR, and samples that somebody checked."""

from unicodedata import normalize

import numpy as np
import pytest
import torch
from made_own import labels_of, write_cifar, write_classes, write_verdicts
from made_parquet import write_table
from safetensors.numpy import save_file

from otrw.config import ColumnsConfig, DataConfig
from otrw.data.datasets import make_datasets
from otrw.data.embeddings import load_embeddings, read_features
from otrw.data.verdicts import read_verdicts
from otrw.data.view import feature_statistics
from otrw.errors import UserError

CPU = torch.device("cpu")
SIZE = 30
FEATURES = np.random.default_rng(0).normal(3, 2, (SIZE, 5)).astype(np.float32)
LABELS = np.arange(SIZE) % 3
NAMES = np.array(["r\u00f6d", "gul", "bl\u00e5"])[LABELS]
SPLIT = np.array(["train", "test"])[(np.arange(SIZE) % 5 == 0).astype(int)]


def datasets(root, source="embeddings", **settings):
    return make_datasets(DataConfig(source=source, root=str(root), cache="", **settings), 0, CPU)


def write(root, kind):
    match kind:
        case "parquet":
            write_table(root / "x.parquet", {"embedding": FEATURES.tolist(), "label": NAMES.tolist(), "split": SPLIT.tolist()})
        case "npz":
            np.savez(root / "x.npz", X=FEATURES.astype(np.float64), y=NAMES, split=SPLIT)
        case "npy":
            np.save(root / "x.npy", FEATURES)
            lines = ["label,split", *(f"{name},{part}" for name, part in zip(NAMES, SPLIT, strict=True))]
            (root / "x.csv").write_text("\n".join(lines), encoding="utf-8")
        case "npy by part":
            for part in ("train", "test"):
                np.save(root / f"{part}.npy", FEATURES[part == SPLIT])
                np.save(root / f"{part}_labels.npy", NAMES[part == SPLIT])
        case "safetensors":
            for part in ("train", "test"):
                arrays = {"features": FEATURES[part == SPLIT], "label": LABELS[part == SPLIT]}
                save_file(arrays, root / f"{part}.safetensors")


@pytest.mark.parametrize("kind", ["parquet", "npz", "npy", "npy by part", "safetensors"])
def test_embeddings_are_the_same_from_every_kind_of_file(tmp_path, kind):
    write(tmp_path, kind)
    raw = load_embeddings(tmp_path, None, ColumnsConfig())
    for part in ("train", "test"):
        inputs, labels = raw.of_part(part)
        np.testing.assert_array_equal(inputs, FEATURES[part == SPLIT])
        expected = LABELS if kind == "safetensors" else NAMES
        assert [raw.class_names[label] for label in labels] == [str(label) for label in expected[part == SPLIT]]
    assert raw.inputs.dtype == np.float32
    data = datasets(tmp_path, num_meta_per_class=2)
    assert data.in_channels == 5
    batch = data.transform(train=True)(data.train.inputs, torch.arange(len(data.train)), 0)
    torch.testing.assert_close(batch.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.std(0, correction=0), torch.ones(5), atol=1e-5, rtol=0)


def test_a_feature_that_does_not_vary_is_left_at_zero():
    mean, std = feature_statistics(torch.tensor([[1e6, 1.0], [1e6, 3.0]]))
    assert mean.tolist() == [1e6, 2.0]
    assert std.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": FEATURES}, r"data\.columns\.label must be an array of .*it has \['X'\]"),
        ({"y": LABELS}, r"data\.columns\.embedding must be an array"),
        ({"X": FEATURES, "y": LABELS[:-1]}, "one label an embedding, got 30 embeddings"),
        ({"X": FEATURES[0], "y": LABELS}, r"shape \(N, D\)"),
        ({"X": np.where(FEATURES > 5, np.inf, FEATURES), "y": LABELS}, "must be finite"),
        ({"X": FEATURES, "y": FEATURES}, "label must be one number or text a row"),
        ({"X": FEATURES.astype(object), "y": LABELS}, "Python objects are not read"),
        ({"X": FEATURES[:0], "y": LABELS[:0]}, r"shape \(N, D\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message):
        datasets(tmp_path)


def test_embeddings_of_several_lengths_and_arrays_without_labels_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", FEATURES)
    with pytest.raises(UserError, match=r"in x_labels\.npy or x\.csv; got neither"):
        datasets(tmp_path)
    np.save(tmp_path / "x_labels.npy", LABELS)
    np.save(tmp_path / "y.npy", FEATURES[:, :3])
    np.save(tmp_path / "y_labels.npy", LABELS)
    with pytest.raises(UserError, match=r"all embeddings must have one length, got \[3, 5\]"):
        datasets(tmp_path)
    (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"x\.npy cannot be read"):
        datasets(tmp_path)
    rows = FEATURES.tolist()
    rows[4] = rows[4][:-1]
    write_table(tmp_path / "z.parquet", {"embedding": rows, "label": LABELS})
    with pytest.raises(UserError, match="embedding of row 4 must be a list of 5 numbers"):
        datasets(tmp_path, files="z.parquet")


def human_labels(share=0.3):
    clean = np.array(labels_of("train"))
    is_wrong = np.random.default_rng(3).random(len(clean)) < share
    return clean, np.where(is_wrong, (clean + 1) % 4, clean)


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "pt", "tensors.pt"])
def test_labels_beside_cifar_become_the_given_ones(tmp_path, kind):
    clean, given = human_labels()
    path = tmp_path / f"human.{kind}"
    if kind == "npy":
        np.save(path, given)
    elif kind == "npz":
        np.savez(path, clean_label=clean, worse_label=given, other=clean)
    elif kind == "csv":
        path.write_text("\n".join(["clean_label,worse_label", *(f"{a},{b}" for a, b in zip(clean, given, strict=True))]))
    elif kind == "pt":
        torch.save({"clean_label": clean, "worse_label": given}, path)
    else:
        torch.save({"clean_label": torch.tensor(clean), "worse_label": torch.tensor(given)}, path)
    settings = {"source": "cifar10", "imbalance_factor": 4, "num_meta_per_class": 3}
    plain = datasets(write_cifar(tmp_path), **settings)
    data = datasets(tmp_path, labels_file=str(path) + (":worse_label" if kind == "npz" else ""), **settings)
    rows = data.train.source_index
    assert torch.equal(rows, plain.train.source_index)
    assert torch.equal(data.train.labels, torch.tensor(given)[rows])
    assert torch.equal(data.train.true_labels, plain.train.labels)
    assert torch.equal(data.meta.labels, plain.meta.labels)
    assert torch.equal(data.test.labels, plain.test.labels)


@pytest.mark.parametrize(
    ("arrays", "name", "message"),
    [
        ({"a": [0], "b": [1]}, "", "must name one of a, b"),
        ({"a": [0]}, ":c", "must name one of a, got 'c'"),
        ({"a": [0] * 5}, "", "must hold 56 labels, one a training sample, got 5"),
        ({"a": [4] * 56}, "", "labels from 0 to 3, got 4 to 4"),
        ({"a": [0.5] * 56}, "", "must hold whole numbers"),
        ({"a": "own", "clean_label": "turned"}, ":a", "its clean labels agree with"),
        ({"a": "turned"}, "", "its labels agree with"),
    ],
)
def test_a_label_file_of_other_data_is_refused(tmp_path, arrays, name, message):
    own = np.array(labels_of("train"))
    known = {"own": own, "turned": (own + 1) % 4}
    np.savez(
        tmp_path / "x.npz",
        **{key: known[value] if isinstance(value, str) else np.array(value) for key, value in arrays.items()},
    )
    with pytest.raises(UserError, match=message):
        datasets(write_cifar(tmp_path), source="cifar10", labels_file=f"{tmp_path / 'x.npz'}{name}", imbalance_factor=4)


def test_a_label_file_that_would_run_code_is_not_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"a": Evil()}, tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    write_cifar(tmp_path)
    for name in ("x.pt", "x.npy", "none.npy"):
        with pytest.raises(UserError, match=r"Python objects are not read|which is not there"):
            datasets(tmp_path, source="cifar10", labels_file=str(tmp_path / name))


def test_checked_samples_leave_training_and_are_the_meta_set(tmp_path):
    root = write_classes(tmp_path / "root", {"a": 20, "b": 20, "c": 9})
    plain = datasets(root, source="folder", num_meta_per_class=3)
    train = sorted(plain.identities[row] for row in [*plain.train.source_index, *plain.meta.source_index])
    of_a, of_b = ([one for one in train if one.startswith(name)] for name in "ab")
    rows = [
        (of_a[0], "a", "right"),
        (of_a[1], "b", "wrong"),
        (of_b[0], "", "Right"),
        (of_b[1], "", "wrong"),
        (of_b[2], "b", ""),
    ]
    path = write_verdicts(tmp_path / "checked.csv", rows)
    data = datasets(root, source="folder", num_meta_per_class=3, trusted=path)
    assert sorted(data.identities[row] for row in data.test.source_index) == sorted(
        plain.identities[row] for row in plain.test.source_index
    )
    meta = {
        data.identities[row]: data.class_names[label]
        for row, label in zip(data.meta.source_index, data.meta.labels, strict=True)
    }
    assert {one: meta[one] for one in (of_a[0], of_a[1], of_b[0])} == {of_a[0]: "a", of_a[1]: "b", of_b[0]: "b"}
    assert len(meta) == 3 + 3  # class c has none that was checked
    assert not data.meta_is_checked
    assert "no trusted sample of 1 class: 3 samples drawn" in " ".join(data.notes)
    trained = {data.identities[row] for row in data.train.source_index}
    assert of_b[2] in trained
    assert not trained & {of_a[0], of_a[1], of_b[0], of_b[1]}
    assert data.facts["skipped"] == {"found to be of no class": 1}
    assert data.facts["checked"] == {"samples": 4, "wrong": 2}
    assert read_verdicts(tmp_path / "checked.csv")[1] == (of_a[1], "b", "wrong")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a/none.png", "a", "right")], "must be a sample of data.root"),
        ([("a/a0000.png", "z", "right")], "must be a class of the data, got 'z'"),
        ([("/photos/a/a0000.png", "a", "right")], "must be a sample of data.root, but is not; give paths below data.root"),
        ([("a/a0000.png", "a", "wrong")], "must be right, or wrong with another label than a .*got wrong with a"),
        ([("a/a0000.png", "a", "maybe")], "verdict in line 2 must be right, wrong or empty, got 'maybe'"),
        ([("a/a0000.png", "b", "right")], "must be wrong, or right with label a, got right with b"),
        ([("a/a0000.png", "a", "right"), ("a/a0000.png", "b", "wrong")], "is checked twice"),
        ([("a/a0000.png", "a", "")], "without any verdict"),
    ],
)
def test_verdicts_that_mean_nothing_are_refused(tmp_path, rows, message):
    root = write_classes(tmp_path / "root", {"a": 5, "b": 5})
    with pytest.raises(UserError, match=message):
        datasets(root, source="folder", trusted=write_verdicts(tmp_path / "checked.csv", rows))


def test_a_sample_of_the_test_set_cannot_be_trusted(tmp_path):
    for part, seed in (("train", 0), ("test", 1)):
        write_classes(tmp_path / "root" / part, {"a": 5, "b": 5}, seed)
    path = write_verdicts(tmp_path / "checked.csv", [("test/a/a0001.png", "a", "right")])
    with pytest.raises(UserError, match="must be a training sample, but is of another part"):
        datasets(tmp_path / "root", source="folder", trusted=path)


def test_a_name_with_an_accent_is_found_in_either_spelling(tmp_path):
    composed, decomposed = (normalize(form, "\u00e9toile") for form in ("NFC", "NFD"))
    assert composed != decomposed
    root = write_classes(tmp_path / "root", {composed: 6, "b": 6})
    plain = datasets(root, source="folder")
    rows = [plain.identities[row] for row in plain.train.source_index]
    mine, other = (next(one for one in rows if one.startswith(name)) for name in (composed, "b/"))
    path = write_verdicts(
        tmp_path / "checked.csv", [(normalize("NFD", mine), decomposed, "right"), (other, decomposed, "wrong")]
    )
    data = datasets(root, source="folder", trusted=path)
    pairs = zip(data.meta.source_index, data.meta.labels, strict=True)
    trusted = {data.identities[row]: data.class_names[label] for row, label in pairs}
    assert {trusted[mine], trusted[other]} == {composed}


def test_the_page_in_place_of_its_table_is_refused(tmp_path):
    (tmp_path / "trusted.html").write_text("<html></html>")
    with pytest.raises(UserError, match="must be the CSV that the page saves"):
        read_verdicts(tmp_path / "trusted.html")


@pytest.mark.parametrize("kind", ["parquet", "npz", "npy", "safetensors"])
def test_features_alone_are_read_from_every_kind_of_file(tmp_path, kind):
    path = tmp_path / f"new.{kind}"
    match kind:
        case "parquet":
            write_table(path, {"embedding": FEATURES.tolist()})
        case "npz":
            np.savez(path, X=FEATURES, y=NAMES)
        case "npy":
            np.save(path, FEATURES)
        case "safetensors":
            save_file({"features": FEATURES}, path)
    np.testing.assert_array_equal(read_features(path), FEATURES)


def test_features_that_are_none_are_refused_by_file(tmp_path):
    np.savez(tmp_path / "a.npz", pixels=FEATURES)
    np.save(tmp_path / "b.npy", np.array(["x"]))
    np.save(tmp_path / "c.npy", np.array([[1.0, np.nan]]))
    for name, message in (("a.npz", "must be an array of"), ("b.npy", "must hold numbers"), ("c.npy", "must be finite")):
        with pytest.raises(UserError, match=message) as error:
            read_features(tmp_path / name)
        assert name in str(error.value)
