"""Figures: the files they should be, not blank, and a line where the data are not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_records import write_record
from PIL import Image

from otrw.analysis.figures.comparison import class_errors, class_weights, comparisons, curve
from otrw.analysis.figures.make import make_figures
from otrw.analysis.figures.search import read_trials
from otrw.analysis.statistics import best_so_far, reliability
from otrw.commands.figures import main
from otrw.errors import UserError
from otrw.records.experiments import load_experiments
from otrw.records.ledger import write_columns

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ("error", "class_error", "class_weight", "curves")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs of three variants; the first with the files of a local run."""
    folder = tmp_path_factory.mktemp("figures")
    weights = {"class_mass": [0.5, 0.5], "effective_samples": 50.0}
    for seed in (0, 1):
        for variant, extra in (
            ("stage1", {}),
            ("class_balanced_meta", {"weights": weights}),
            ("ot_meta", {"weights": weights}),
        ):
            path = write_record(folder / f"run{seed}", variant=variant, error=20.0 + seed, seed=seed, **extra)
            lines = [{"epoch": n, "train": {"loss": 2 / n}, "test": {"error": 50 / n}} for n in range(1, 6)]
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            if seed == 0:
                write_parquet(path)
    return folder


def write_parquet(path):
    generator = np.random.default_rng(0)
    given = np.repeat([0, 1], [80, 20])
    true = np.where(generator.random(100) < 0.2, 1 - given, given)
    weights = {"index": np.arange(100), "given_label": given, "true_label": true, "weight": generator.random(100) + 0.1}
    predictions = {"index": np.arange(100), "label": given, "prediction": true, "confidence": generator.random(100)}
    write_columns(path / "predictions.parquet", predictions)
    if path.name != "stage1":
        write_columns(path / "weights.parquet", weights)


def entries_of(root):
    experiments, problems, _ = load_experiments([root], unique=False)
    assert problems == []
    return experiments


def check_files(paths):
    for path in paths:
        assert isinstance(path, Path), path
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
        else:
            with Image.open(path) as image:
                assert min(image.size) > 300
                assert len(np.unique(np.asarray(image.convert("L")))) > 20  # something is drawn


def test_all_figures_of_runs_are_made(root, tmp_path):
    kinds = (*RECORDS, "weights", "reliability")
    paths = list(make_figures(entries_of(root), kinds, folder=tmp_path, formats=("png",)))
    check_files(paths)
    names = {path.name.partition("-")[0] for path in paths}
    assert names == set(kinds)
    assert all(path.stat().st_size < 300_000 for path in paths)


def test_a_figure_is_the_same_file_every_time(root, tmp_path):
    files = [
        [
            path.read_bytes()
            for path in make_figures(entries_of(root), ["error"], folder=tmp_path / name, formats=("pdf", "png"))
        ]
        for name in "ab"
    ]
    assert files[0] == files[1]


def test_committed_records_have_no_samples_and_that_is_said(tmp_path):
    write_record(tmp_path / "records" / "run", variant="ot_meta")
    experiments = entries_of(tmp_path / "records")
    lines = list(make_figures(experiments, ["weights", "reliability", "curves"], folder=tmp_path / "out", formats=("png",)))
    assert [str(line).split(":")[0] for line in lines] == ["figure weights", "figure reliability", "figure curves"]
    assert all("not made: none of 1 records has" in str(line) for line in lines)
    assert not (tmp_path / "out").exists()


def test_weights_of_a_noise_aware_variant_are_drawn_too(tmp_path):
    write_parquet(write_record(tmp_path / "records" / "run", variant="ot_pooled_meta"))
    made = make_figures(entries_of(tmp_path / "records"), ["weights"], folder=tmp_path / "out", formats=("png",))
    assert [path.name for path in made] == ["weights-digits-if20-seed0-ot_pooled_meta.png"]


def test_nothing_made_is_an_error_that_names_the_figure(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^figure error: not made: none of 0 records has an error"):
        main([str(tmp_path / "empty"), "--figure", "error", "--output", str(tmp_path / "out")])


def test_a_damaged_curve_costs_its_record_only(tmp_path):
    write_record(tmp_path / "whole", error=10.0)
    damaged = write_record(tmp_path / "damaged", error=10.0, seed=1)
    (damaged / "metrics.jsonl").write_text("[]\n")
    loaded = load_experiments([tmp_path], unique=False)
    assert [experiment.seed for experiment in loaded.experiments] == [0]
    (problem,) = loaded.problems
    assert "metrics.jsonl: line 1 is damaged" in problem


def test_searches_and_benchmarks(tmp_path):
    for name, mixings in (("grid", (0.0, 0.5, 1.0)), ("random", (0.1, 0.33, 0.78))):
        (tmp_path / name).mkdir()
        epsilons = (0.05, 0.1, 0.2)
        pairs = [(m, e) for m in mixings for e in epsilons] if name == "grid" else list(zip(mixings, epsilons, strict=True))
        lines = [
            {"state": "finished", "settings": {"ot.mixing": m, "ot.epsilon": e}, "metric": "validation/balanced_error"}
            | {"value": 10 + m + e, "started": float(number)}
            for number, (m, e) in enumerate(pairs)
        ]
        lines.append(lines[0] | {"trial": "last", "state": "stopped", "value": 1.0})
        (tmp_path / name / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert read_trials(tmp_path / name)[-1]["value"] is None  # of fewer epochs, so not compared
    experiment = {"name": "fast", "baseline": "slow", "ratio": 1.7, "low": 1.6, "high": 1.8, "unit": "images per second"}
    (tmp_path / "bench.json").write_text(
        json.dumps({"benchmark": "training", "entries": [experiment, experiment | {"ratio": 0.5}]})
    )
    paths = list(
        make_figures(
            [],
            [],
            searches=[tmp_path / "grid", tmp_path / "random"],
            benchmarks=[tmp_path / "bench.json"],
            folder=tmp_path / "out",
            formats=("png",),
        )
    )
    assert len(paths) == 7
    check_files(paths)


@pytest.mark.parametrize("text", ["", "{", '{"entries": [{"name": "x", "ratio": 0}]}', '{"benchmark": "x"}'])
def test_a_broken_benchmark_is_named(tmp_path, text):
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(UserError, match=r"bench\.json must be a benchmark's record"):
        list(make_figures([], [], benchmarks=[tmp_path / "bench.json"], folder=tmp_path, formats=("png",)))


def test_runs_are_compared_with_those_of_other_seeds_only(root, tmp_path):
    (group,) = comparisons(entries_of(root))
    assert {variant: [experiment.seed for experiment in found] for variant, found in group.variants.items()} == {
        "stage1": [0, 1],
        "class_balanced_meta": [0, 1],
        "ot_meta": [0, 1],
    }
    assert class_errors(group.variants["ot_meta"]).tolist() == [[20, 22], [21, 23]]
    write_record(tmp_path / "other", "--stage1.epochs", "3", variant="ot_meta")
    short = comparisons([*entries_of(root), *entries_of(tmp_path)])[1]
    assert "SHORT RUN" in short.title
    assert short.name == "digits-if20-noise40-digits_lt-short"


def test_class_weights_by_hand():
    sizes, weights = class_weights({"weights": {"class_mass": [0.5, 0.5]}, "given_sizes": [80, 20]})
    assert sizes.tolist() == [80, 20]
    assert weights.tolist() == [0.5 * 100 / 80, 0.5 * 100 / 20]
    assert class_weights({"given_sizes": [1]}) is None


def test_curves_skip_epochs_without_the_figure():
    epochs, values = curve([{"test": {"error": 3}}, {"train": {"loss": 1}}, {"test": {"error": 2}}], "test", "error")
    assert (epochs.tolist(), values.tolist()) == ([1, 3], [3.0, 2.0])


def test_reliability_by_hand():
    counts, confidence, accuracy = reliability(np.array([0.1, 0.3, 0.9, 1.0]), np.array([True, False, True, True]), 2)
    assert counts.tolist() == [2, 2]
    assert confidence.tolist() == pytest.approx([0.2, 0.95])
    assert accuracy.tolist() == [0.5, 1.0]
    assert np.isnan(reliability(np.array([0.9]), np.array([True]), 2)[1][0])


def test_best_so_far_by_hand():
    best = best_so_far([None, 3.0, 5.0, None, 2.0])
    assert np.isnan(best[0])
    assert best[1:] == [3.0, 3.0, 3.0, 2.0]


def script(*arguments, **environment):
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_writes_both_formats_and_loads_no_torch(root, tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['make_figures.py', *sys.argv[1:]]; runpy.run_path('analysis/make_figures.py', "
        "run_name='__main__'); print(sorted({'torch', 'scipy', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = script("-c", code, str(root), "--figure", "error", "--output", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"
    check_files([Path(line) for line in done.stdout.splitlines()[:-1]])
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png"}


def test_without_matplotlib_one_line_says_what_to_install(root, tmp_path):
    code = (
        "import sys, runpy, importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest); "
        "sys.argv = ['make_figures.py']; runpy.run_path('analysis/make_figures.py', run_name='__main__')"
    )
    done = script("-c", code)
    assert done.returncode == 2
    assert done.stderr == "error: matplotlib must be installed for figures, got none; pip install -e '.[report]'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "pie"], "error: --figure must be one of error"),
        (["nowhere"], "error: records must be in a folder, got 'nowhere'"),
        (["analysis/checkpoints", "--figure", "none", "--search", "analysis"], "error: --search must name a folder"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, message, tmp_path):
    done = script("analysis/make_figures.py", *arguments, "--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_the_readmes_figures_are_small_and_there():
    paths = sorted((ROOT / "analysis" / "figures").glob("*.png"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = "".join((ROOT / "analysis" / page).read_text(encoding="utf-8") for page in ("RESULTS.md", "TRANSPORT.md"))
    assert len(paths) >= 2
    check_files(paths)
    for path in paths:
        assert path.stat().st_size < 300_000
        assert f"](analysis/figures/{path.name})" in readme or f"](figures/{path.name})" in pages
