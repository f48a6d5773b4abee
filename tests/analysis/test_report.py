"""The report: a page that parses, needs nothing else, and shows what the records hold."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_records import write_record

from otrw.analysis.report.page import make_page
from otrw.analysis.report.svg import histogram, ticks
from otrw.records.experiments import load_experiments
from otrw.records.ledger import write_columns

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "img", "br", "line", "rect", "polyline"}


class Page(HTMLParser):
    """Checks that tags close in order; collects texts, images and section names."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.images, self.sections, self.wrong = [], [], [], [], 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag == "section" and "id" in attributes:
            self.sections.append(attributes["id"])
        if tag == "figure" and attributes.get("class") == "wrong":
            self.wrong += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def run(tmp_path):
    """A local run on digits: stage 1, and an OT variant with three classes' weights; image 0 is wrongly labelled."""
    names = {"class_names": ["zero", "<one>", "t&o"], "given_sizes": [8, 8, 4], "true_sizes": [8, 8, 4]}
    confusion = {"confusion": [[9, 1, 0], [2, 8, 0], [0, 0, 10]]}
    for variant, error in (("stage1", 30.0), ("ot_meta", 12.5)):
        path = write_record(tmp_path / "run", variant=variant, error=error, **names, **confusion)
        result = json.loads((path / "result.json").read_text())
        result["test"]["class_error"] = [error, 5.0, None]
        (path / "result.json").write_text(json.dumps(result))
        lines = [{"epoch": n, "train": {"loss": 2 / n}, "test": {"error": 50 / n}} for n in range(1, 6)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = np.repeat([0, 1, 2], [8, 8, 4])
    true = given.copy()
    true[0] = 1
    weights = np.ones(20)
    weights[0], weights[1] = 0.05, 3.0
    columns = {"index": np.arange(20), "given_label": given, "true_label": true, "weight": weights}
    write_columns(path / "weights.parquet", columns)
    return tmp_path / "run"


def page_of(*folders):
    experiments, problems, _ = load_experiments(folders, unique=False)
    assert problems == []
    return make_page(experiments)


def test_the_page_shows_everything_and_needs_nothing(run):
    text, problems = page_of(run)
    assert problems == []
    page = Page(text)
    assert page.sections == ["summary", "gallery", "curves", "classes", "confusion", "settings"]
    assert not re.search(r"https?:|<script|<link|@import|url\(|src=\"(?!data:image/png;base64,)", text)
    words = " ".join(page.texts)
    for expected in ("Digits-LT, 40 % wrong labels (symmetric), imbalance factor 20", "stage 1 alone", "12.5", "<one>", "t&o"):
        assert expected in words
    assert "ot.epsilon" in words
    assert text.count("<svg") == 5  # error and loss of two stages, and the histogram of weights


def test_the_gallery_ranks_images_and_marks_wrong_labels(run):
    page = Page(page_of(run)[0])
    captions = [image["alt"] for image in page.images]
    assert len(captions) == 8 + 8 + 4  # classes of fewer than 12 images are shown whole, no image twice
    mean = (18 + 0.05 + 3.0) / 20
    assert captions[0] == f"labelled zero, weight {3 / mean:.2f}"
    assert f"labelled zero, really <one>, weight {0.05 / mean:.2f}" in captions[6:8]
    assert page.wrong == 1
    assert "wrong labels (1)" in page.texts


def test_where_nobody_knows_the_truth_no_label_is_called_right(run):
    path = run / "ot_meta" / "result.json"
    result = json.loads(path.read_text()) | {"data": {"knows_truth": False}}
    path.write_text(json.dumps(result))
    texts = " ".join(Page(page_of(run)[0]).texts)
    assert "all samples (20)" in texts
    assert "right labels" not in texts


def test_committed_records_give_a_page_without_images(run):
    (run / "ot_meta" / "weights.parquet").unlink()
    text, problems = page_of(run)
    page = Page(text)
    assert page.images == []
    assert "No images" in " ".join(page.texts)
    assert len(problems) == 1
    assert "no weights.parquet" in problems[0]


def test_missing_data_costs_the_images_only(run):
    config = run / "ot_meta" / "config.yaml"
    config.write_text(config.read_text().replace("source: digits", "source: cifar10").replace("root: data", "root: /nowhere"))
    text, problems = page_of(run / "ot_meta")
    Page(text)
    assert len(problems) == 1
    assert "data.root must hold cifar10" in problems[0]


def test_several_runs_are_named_apart(run, tmp_path):
    write_record(tmp_path / "other", variant="ot", error=40.0, seed=1)
    words = " ".join(Page(page_of(run, tmp_path / "other")[0]).texts)
    assert "run: OT + meta" in words
    assert "other: OT" in words


def test_ticks_are_round_and_reach_the_top():
    assert ticks(100) == [0, 20, 40, 60, 80, 100]
    assert ticks(2.3) == [0, 0.5, 1, 1.5, 2, 2.5]
    assert ticks(0) == [0, 1]
    assert ticks(5) == [0, 1, 2, 3, 4, 5]


def script(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "analysis/report.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_writes_into_the_run(run):
    done = script(run / "stage1", run / "stage1", "--output", run / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{run / 'page.html'}\n"
    Page((run / "page.html").read_text())


def test_the_page_of_several_runs_leaves_those_of_each_alone(run, tmp_path):
    write_record(tmp_path / "other", variant="ot", error=40.0, seed=1)
    done = script(tmp_path / "other", run)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'other' / 'comparison.html'}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: runs must be folders of runs, got 'nowhere'"),
        (["analysis/checkpoints"], "error: runs must hold finished variants, got 'analysis/checkpoints' with none"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, message):
    done = script(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_epochs_are_marked_by_whole_numbers():
    assert ticks(2.0, whole=True) == [0.0, 1.0, 2.0]
    assert all(tick == int(tick) for highest in range(1, 300) for tick in ticks(float(highest), whole=True))
    assert 0.5 in ticks(2.0)


@pytest.mark.parametrize(("low", "high"), [(0.74, 1.22), (0.999, 1.001), (0.5, 2.9), (1e-5, 1e3), (1.0, 1.0)])
def test_a_histogram_has_numbers_enough_to_be_read(low, high):
    chart = histogram([("weights", np.geomspace(low, high, 100), "red")], "weight")
    numbers = [float(text) for text in re.findall(r'text-anchor="middle"[^>]*>([0-9.e+-]+)<', chart)]
    assert 3 <= len(numbers) <= 9
    assert numbers == sorted(numbers)


def test_labels_of_a_wide_histogram_do_not_overlap():
    chart = histogram([("weights", np.logspace(-5, 3, 500), "red")], "weight")
    places = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="236.0" text-anchor="middle"', chart)]
    assert len(places) >= 2
    assert min(np.diff(places)) > 35
