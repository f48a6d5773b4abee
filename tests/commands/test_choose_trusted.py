"""Samples to check: the command's page and CSV, and what is checked as the trusted set of the run that it prints."""

import csv
import json
import re
import shlex

import numpy as np
import pytest
from made_own import write_classes
from PIL import Image

from otrw.commands import choose_trusted, train
from otrw.errors import UserError

COLORS = {"ant": (200, 30, 30), "bee": (30, 200, 30), "cow": (30, 30, 200)}


@pytest.fixture
def root(tmp_path):
    """A class a colour; two of the ants are bees, and one of the cows is of no class."""
    root = write_classes(tmp_path / "photos", {"ant": 24, "bee": 12, "cow": 8})
    random = np.random.default_rng(0)
    for path in sorted(root.glob("*/*.png")):
        color = COLORS["bee" if path.stem in ("ant0000", "ant0001") else path.parent.name]
        pixels = (np.array(color) + random.integers(-25, 26, size=(8, 8, 3))).clip(0, 255).astype(np.uint8)
        if path.stem == "cow0000":
            pixels = np.full((8, 8, 3), 255, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def choose(root, output, *arguments):
    choose_trusted.main(["--data.source=folder", f"--data.root={root}", f"--output={output}", *arguments])


def read(table):
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill_in(table):
    """Check labels as somebody would who sees the pictures; returns {identity: class found, or nothing}."""
    rows = read(table)
    found = {}
    for row in rows:
        name = row["identity"].rpartition("/")[2].removesuffix(".png")
        really = {"ant0000": "bee", "ant0001": "bee", "cow0000": ""}.get(name, row["given_label"])
        row["label"], row["verdict"] = really, "right" if really == row["given_label"] else "wrong"
        found[row["identity"]] = really
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return found


def test_what_is_checked_becomes_the_trusted_set_of_the_run_that_the_command_prints(root, tmp_path, capsys, monkeypatch):
    output = tmp_path / "to check"
    choose(root, output, "--per-class=6")
    shown = capsys.readouterr().out
    rows = read(output / "trusted.csv")
    page = (output / "trusted.html").read_text(encoding="utf-8")
    facts = json.loads(re.search(r"const sheet = (.*);\n", page)[1])
    assert [[row["identity"], row["given_label"]] for row in rows] == [
        [identity, facts["classes"][given]] for identity, given, _ in facts["cards"]
    ]
    assert [row["given_label"] for row in rows] == ["ant"] * 6 + ["bee"] * 5 + ["cow"] * 3  # half of a class at most
    assert page.count("<img") == 14
    names = {row["identity"].rpartition("/")[2] for row in rows}
    assert {"cow0000.png"} | names & {"ant0000.png", "ant0001.png"} <= names  # what differs most is among what to check
    assert names & {"ant0000.png", "ant0001.png"}

    command = shlex.split(re.search(r"then +(.*)", shown)[1])
    arguments = command[command.index("--data.source=folder") :]
    assert arguments[-2:] == ["--data.trusted", str(output / "trusted.csv")]
    with pytest.raises(UserError, match="without any verdict; save the page's CSV in its place"):
        train.main(arguments)
    found = fill_in(output / "trusted.csv")
    monkeypatch.chdir(tmp_path)
    small = ["--model.name=small", "--stage1.epochs=1", "--variants=stage1", "--run.tensorboard=false", "--run.cpu=true"]
    train.main([*arguments, *small, "--run.name=r"])
    result = json.loads((tmp_path / "runs" / "r" / "stage1" / "result.json").read_text())
    kept = [name for name in found.values() if name]
    assert result["data"]["meta_is_checked"]
    assert result["data"]["num_samples"]["meta"] == len(kept) == 13
    assert result["data"]["skipped"] == {"found to be of no class": 1}
    assert sum(result["data"]["num_samples"].values()) == 43
    assert "on trust" not in " ".join(capsys.readouterr().out.split())


def test_checked_labels_are_not_written_over(root, tmp_path):
    choose(root, tmp_path, "--per-class=2")
    choose(root, tmp_path, "--per-class=3")  # nothing was checked yet
    before = fill_in(tmp_path / "trusted.csv")
    (tmp_path / "other").mkdir()
    semicolons = (tmp_path / "trusted.csv").read_text(encoding="utf-8").replace(",", ";")  # as spreadsheets write it
    (tmp_path / "other" / "trusted.csv").write_text(semicolons, encoding="utf-8")
    with pytest.raises(UserError, match=r"must not hold checked labels, got .* with 9; choose another folder"):
        choose(root, tmp_path / "other", "--per-class=2")
    (tmp_path / "other" / "trusted.csv").write_text("identity,label\na,b\n")
    with pytest.raises(UserError, match="must not hold a table without verdicts"):
        choose(root, tmp_path / "other", "--per-class=2")
    with pytest.raises(UserError, match=r"must not hold checked labels, got .* with 9; choose another folder"):
        choose(root, tmp_path, "--per-class=3")
    assert [row["identity"] for row in read(tmp_path / "trusted.csv")] == list(before)


def test_classes_with_fewer_samples_are_named_and_embeddings_have_a_page_without_pictures(tmp_path, capsys):
    labels = np.repeat(["a", "b"], [20, 4])
    np.savez(tmp_path / "x.npz", X=np.random.default_rng(0).normal(size=(24, 5)), y=labels)
    arguments = ["--data.source=embeddings", f"--data.root={tmp_path / 'x.npz'}", f"--output={tmp_path}"]
    choose_trusted.main([*arguments, "--per-class=5"])
    assert "fewer of small classes: b (1)" in capsys.readouterr().out  # of four one is cut out for the test, half of the rest
    page = (tmp_path / "trusted.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("<article") == 6


def test_labels_of_benchmarks_are_not_to_be_checked(tmp_path):
    with pytest.raises(UserError, match=r"data\.source must be folder, table or embeddings"):
        choose_trusted.main(["--data.source=digits", f"--output={tmp_path}"])
    assert not list(tmp_path.iterdir())
