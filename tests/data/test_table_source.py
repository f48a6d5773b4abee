"""Images and labels in tables of every kind: the same samples, and one clear line for what cannot be one."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_own import NAMES, NUM_PER_CLASS, images_of, labels_of, write_cifar, write_classes, write_image
from made_parquet import image_cells, random_images, write_table

from otrw.config import ColumnsConfig, DataConfig
from otrw.data.datasets import make_datasets
from otrw.data.part_names import part_of_file
from otrw.data.table import load_table
from otrw.errors import UserError

CPU = torch.device("cpu")
WANTED = {"imbalance_factor": 4, "num_meta_per_class": 3, "num_validation_per_class": 2}


def datasets(root, cache="", source="table", **settings):
    return make_datasets(DataConfig(source=source, root=str(root), cache=str(cache), **settings), 0, CPU)


def error_of(root, **settings):
    with pytest.raises(UserError) as error:
        datasets(root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_images(root):
    """The images of both parts as PNG, and their paths below the root."""
    paths = {}
    for part in NUM_PER_CLASS:
        paths[part] = [f"images of {part}/\u00e9 {row:03d}.png" for row in range(len(labels_of(part)))]
        for path, image in zip(paths[part], images_of(part), strict=True):
            write_image(root / path, image)
    return paths


def manifest(root, kind):
    """A table of this kind; returns the settings that read it."""
    paths = write_images(root)
    rows = [
        {"file_name": path, "label": NAMES[label], "split": part}
        for part in paths
        for path, label in zip(paths[part], labels_of(part), strict=True)
    ]
    if kind == "csv":
        lines = ["file_name,label,split", *(f'"{row["file_name"]}",{row["label"]},{row["split"]}' for row in rows)]
        (root / "all.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    elif kind == "semicolons":
        lines = [";".join(rows[0]), *(";".join(row.values()) for row in rows)]
        (root / "all.csv").write_text("\r\n".join(lines), encoding="utf-8")
    elif kind == "jsonl":
        (root / "all.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif kind == "text lists":
        for part in paths:
            lines = [f"{path} {label}" for path, label in zip(paths[part], labels_of(part), strict=True)]
            (root / f"Own_LT_{part}.txt").write_text("\n".join(lines), encoding="utf-8")
    elif kind == "parquet with paths":
        write_table(root / "all.parquet", {key: [row[key] for row in rows] for key in rows[0]})
    elif kind in ("the hub's", "bytes"):
        for part in paths:
            cells = image_cells(images_of(part))
            cells = cells if kind == "the hub's" else [cell["bytes"] for cell in cells]
            half = len(cells) // 2
            for file, some in enumerate((slice(0, half), slice(half, None))):
                name = root / "data" / f"{part}-{file:05d}-of-00002.parquet"
                write_table(name, {"picture": cells[some], "kind": labels_of(part)[some]}, {"kind": NAMES})
        return {"columns": ColumnsConfig(image="picture", label="kind")}
    return {}


@pytest.mark.parametrize("kind", ["csv", "semicolons", "jsonl", "text lists", "parquet with paths", "the hub's", "bytes"])
def test_cifar_in_any_table_is_split_as_cifar_is(tmp_path, kind):
    expected = datasets(write_cifar(tmp_path), source="cifar10", **WANTED)
    root = tmp_path / "own \u732b"
    root.mkdir()
    found = datasets(root, tmp_path / "cache", **manifest(root, kind), **WANTED)
    for part in ("train", "meta", "validation", "test"):
        one, other = getattr(found, part), getattr(expected, part)
        for field in ("inputs", "labels", "true_labels", "source_index"):
            assert torch.equal(getattr(one, field), getattr(other, field)), (part, field)
    assert torch.equal(found.mean, expected.mean)
    names = tuple(map(str, range(4))) if kind == "text lists" else NAMES
    assert found.class_names == names
    row = int(found.train.source_index[3])
    if kind in ("the hub's", "bytes"):
        half = len(labels_of("train")) // 2
        file, place = divmod(row, half)
        assert found.identities[row] == f"data/train-{file:05d}-of-00002.parquet:{place}"
    else:
        assert found.identities[row] == f"images of train/\u00e9 {row:03d}.png"


def test_columns_say_split_trust_and_truth(tmp_path):
    write_classes(tmp_path, {"a": 12, "b": 12})
    rows = ["image,label,split,trusted,true_label"]
    for name in ("a", "b"):
        for number in range(12):
            split = "val" if number < 2 else "test" if number < 4 else "train"
            given = name if number < 10 else "ab".replace(name, "")
            rows.append(f"{name}/{name}{number:04d}.png,{given},{split},{'yes' if number in (4, 5) else ''},{name}")
    (tmp_path / "all.csv").write_text("\n".join(rows))
    data = datasets(tmp_path)
    assert [len(part) for part in (data.train, data.meta, data.validation, data.test)] == [12, 4, 4, 4]
    assert (data.train.labels != data.train.true_labels).sum() == 4
    assert data.meta_is_checked
    assert data.knows_truth
    assert data.notes == ()
    assert data.true_sizes.tolist() == [6, 6]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,label", "a/a0000.png,a", "a/a0001.png"], "row 1 must have 2 values"),
        (["image,label", "a/a0000.png,a", "a/a0001.png,"], "row 1 must have a label"),
        (["image,label", ",a"], "image of row 0 must be a path"),
        (["picture,label", "a/a0000.png,a"], r"data\.columns\.image must be named for .*but \['picture', 'label'\]"),
        (["image,label,label", "a/a0000.png,a,b"], "must have one column 'label', got 2"),
        (["image,label,split", "a/a0000.png,a,here"], "split of row 0 must be train, trusted, validation or test, got 'here'"),
        (["image,label,split", "a/a0000.png,a,test"], "must have training rows"),
        (["image,label,trusted", "a/a0000.png,a,perhaps"], "trusted must be true or false in row 0"),
        (
            ["image,label,true_label", "a/a0000.png,a,a", "b/b0000.png,b,"],
            "filled in for every training row or for none, got 1",
        ),
        (["image,label", "a/a0000.png,a", "a/none.png,a"], r"a/none.png must be an image, but is not there \(1 of 2"),
        (["image,label", "a/a0000.png,a", "a/a0000.png,b"], "must be listed once, got train, a and train, b"),
        (["image,label,split", "a/a0000.png,a,train", "a/a0000.png,a,test"], "listed once, got train, a and test, a"),
        (["image,label"], "must have rows"),
        (["image,label", '"a/a0000.png,a'], "no whole CSV file"),
    ],
)
def test_rows_that_mean_nothing_are_named(tmp_path, lines, message):
    write_classes(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "all.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        datasets(tmp_path)


def test_what_is_listed_twice_counts_once_and_what_is_not_there_can_be_left_out(tmp_path):
    write_classes(tmp_path, {"a": 9, "b": 9})
    rows = [f"{name}/{name}{number:04d}.png,{name}" for name in "ab" for number in range(9)]
    rows += ["a/a0000.png,a", "./b/../a/a0001.png,a", "a/gone.png,a"]
    (tmp_path / "all.csv").write_text("\n".join(["image,label", *rows]))
    data = datasets(tmp_path, unreadable="skip")
    assert data.facts["skipped"] == {"listed twice": 2, "not there": 1}
    assert len(set(data.identities)) == len(data.identities) == 18


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("*.parquet", r"'\*\.parquet', which none in"),
        ("all.csv, more.txt", "'more.txt', which none"),
        ("a", "'a', which none"),
        ("a/*.png", r"must be \*\.parquet"),
    ],
)
def test_files_that_are_not_there_are_named(tmp_path, files, message):
    write_classes(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "all.csv").write_text("image,label\na/a0000.png,a")
    with pytest.raises(UserError, match=message):
        datasets(tmp_path, files=files)


def test_tables_of_several_kinds_need_to_be_chosen(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    for name in ("all.csv", "README.txt"):
        (tmp_path / name).write_text("image,label\na/a0000.png,a\n")
    assert "data.files must say which files are the table" in error_of(tmp_path)


def test_paths_start_at_the_root_or_else_beside_the_table(tmp_path):
    write_classes(tmp_path / "set", {"a": 4, "b": 4})
    lines = "\n".join(["image,label", *(f"{name}/{name}{number:04d}.png,{name}" for name in "ab" for number in range(4))])
    (tmp_path / "set" / "beside.csv").write_text(lines)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "away.csv").write_text(lines)
    beside = load_table(tmp_path, "set/beside.csv", ColumnsConfig(), "", "refuse")
    away = load_table(tmp_path / "set", str(tmp_path / "lists" / "*.csv"), ColumnsConfig(), "", "refuse")
    assert beside.identities[0] == "set/a/a0000.png"
    assert away.identities[0] == "a/a0000.png"
    assert beside.inputs.paths[0] == away.inputs.paths[0]


def test_images_inside_a_table_are_read_one_by_one(tmp_path):
    images = random_images(8, 0, size=6)
    write_table(tmp_path / "x.parquet", {"img": image_cells(images), "label": [0, 1] * 4})
    raw = load_table(tmp_path, None, ColumnsConfig(), str(tmp_path / "cache"), "refuse")
    order = np.array([5, 0, 7])
    for row, image in enumerate(images[order]):
        np.testing.assert_array_equal(np.asarray(raw.inputs[order].read(row)), image)
    assert "data.cache must be a folder" in error_of(tmp_path)


def test_a_struct_without_bytes_is_a_path(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    cells = [{"bytes": None, "path": f"{name}/{name}{number:04d}.png"} for name in "ab" for number in range(4)]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    write_table(tmp_path / "x.parquet", {"image": pyarrow.array(cells, kind), "label": ["a"] * 4 + ["b"] * 4})
    assert load_table(tmp_path, None, ColumnsConfig(), "", "refuse").identities[7] == "b/b0003.png"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "2"], ("2", "9", "10")),
        ([10, 9, -2], ("-2", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        ([1.0, 2.0, 30.0], ("1", "2", "30")),
        ([True, False, True], ("False", "True")),
    ],
)
def test_labels_that_are_numbers_keep_their_order(tmp_path, labels, names):
    write_table(tmp_path / "x.parquet", {"img": image_cells(random_images(3, 0)), "label": labels})
    assert load_table(tmp_path, None, ColumnsConfig(), str(tmp_path / "c"), "refuse").class_names == names


def test_labels_of_the_hub_keep_the_order_of_their_names_and_must_have_one(tmp_path):
    cells = image_cells(random_images(4, 0))
    write_table(tmp_path / "x.parquet", {"img": cells, "label": [0, 2, 2, 0]}, {"label": ("zebra", "unused", "ant")})
    raw = load_table(tmp_path, None, ColumnsConfig(), str(tmp_path / "c"), "refuse")
    assert raw.class_names == ("zebra", "ant")
    assert raw.labels.tolist() == [0, 1, 1, 0]
    write_table(tmp_path / "x.parquet", {"img": cells, "label": [0, 2, 3, 0]}, {"label": ("zebra", "unused", "ant")})
    assert "label of row 2 must be from 0 to 2, got 3" in error_of(tmp_path)


@pytest.mark.parametrize("labels", [[1.5, 2, 3], [[1], [2], [3]], ["a\nb", "c", "d"], [float("nan"), 1.0, 2.0]])
def test_labels_that_are_none_are_refused(tmp_path, labels):
    write_table(tmp_path / "x.parquet", {"img": image_cells(random_images(3, 0)), "label": labels})
    assert "label of row 0 must be a whole number or a name" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-00000-of-00002", "train"),
        ("ImageNet_LT_val", "validation"),
        ("Own_LT_test", "test"),
        ("TRUSTED", "trusted"),
        ("contest", None),
        ("data", None),
    ],
)
def test_a_file_name_says_its_part_as_a_word(name, part):
    assert part_of_file(name) == part


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), st.text(max_size=8)), min_size=1, max_size=5))
def test_no_text_in_a_csv_file_crashes(rows):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.csv").write_text("image,label\n" + "\n".join(map(",".join, rows)), encoding="utf-8", newline="")
        with pytest.raises(UserError) as error:
            load_table(Path(folder), None, ColumnsConfig(), "", "refuse")
    assert "\n" not in str(error.value)


def test_a_table_that_is_no_text_or_cut_off_is_named(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"image,label\n\xff\xfe,a")
    assert "must be UTF-8 text, got another byte at 12" in error_of(tmp_path)
    (tmp_path / "x.csv").unlink()
    (tmp_path / "x.jsonl").write_text('{"image": "a"')
    assert "line 1 must be a JSON object" in error_of(tmp_path)
    (tmp_path / "x.jsonl").unlink()
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"image": ["a"] * 50, "label": ["b"] * 50}), buffer)
    (tmp_path / "x.parquet").write_bytes(buffer.getvalue()[:-20])
    assert "is not a whole Parquet file" in error_of(tmp_path)
