"""The end of a run: one screen of 80 columns, no oracle among the best, and words that follow from the numbers."""

import io
import math
import re
from pathlib import Path

import pytest
import scipy.stats
from rich.console import Console

from otrw.analysis.summary import print_result, standard_error, verdict
from otrw.config.command_line import parse_config
from otrw.config.variants import TITLES

DEFAULT = parse_config([]).variants
NEXT = [("page", "python analysis/report.py runs/a"), ("curves", "tensorboard --logdir runs/a"), ("more", "python x")]


def result(error, num_classes=10, num_test=600):
    each = num_test // num_classes
    wrong = round(each * error / 100)
    confusion = [
        [each - wrong if i == j else wrong if j == (i + 1) % num_classes else 0 for j in range(num_classes)]
        for i in range(num_classes)
    ]
    groups = dict.fromkeys(("error", "many_error", "medium_error", "few_error"), error)
    return {
        "dataset": "digits",
        "imbalance_factor": 20.0,
        "test": groups | {"few_error": None, "class_error": [error] * num_classes},
        "confusion": confusion,
        "class_names": [f"class{i}" for i in range(num_classes)],
        "true_sizes": list(range(num_classes, 0, -1)),
    }


def with_test_sizes(results, sizes):
    for one in results.values():
        one["confusion"] = [[size if i == j else 0 for j in range(len(sizes))] for i, size in enumerate(sizes)]
        one["test"] = one["test"] | {"balanced_error": 77.7}
    return results


def printed(seeds, terminal=False, **options):
    written = io.StringIO()
    console = Console(file=written, width=80, force_terminal=terminal, color_system="standard" if terminal else None)
    print_result(console, [(Path(f"runs/a-seed{i}"), results) for i, results in enumerate(seeds)], **options)
    return written.getvalue()


def results(*errors, variants=DEFAULT):
    return {variant: result(error) for variant, error in zip(variants, errors, strict=True)}


ONE = results(40.0, 24.0, 6.3, 12.0, 11.0, 8.0, 7.0, 5.0)
THREE = [results(40.0 + i, 24.0, 9.0 + i, 12.0, 11.0, 8.0 + i, 3.0 + i, 5.0) for i in range(3)]


@pytest.mark.parametrize("seeds", [[ONE], THREE])
def test_the_default_run_ends_on_one_screen_with_nothing_cut(seeds):
    lines = printed(seeds, next_commands=NEXT).splitlines()
    assert len(lines) <= 26
    for line in lines:
        assert len(line.rstrip()) <= 80, line
    text = "\n".join(lines)
    assert "\u2026" not in text
    for word in [*(TITLES[variant] for variant in DEFAULT), "all", "many", "medium", "few"]:
        assert word in text


def test_all_variants_fit_80_columns_with_three_digits_and_spreads():
    seeds = [results(*[90.0 + i] * len(TITLES), variants=TITLES) for i in range(3)]
    text = printed(seeds, next_commands=NEXT)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert "\u2026" not in text


def test_the_class_table_comes_on_request_alone_and_keeps_its_headers():
    assert "class9" not in printed([ONE])
    for variants in (DEFAULT, tuple(TITLES)):
        seeds = [results(*[float(10 * i) for i in range(len(variants))], variants=variants)]
        text = printed(seeds, show_classes=True)
        assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
        assert text.count("class9") == math.ceil(len(variants) / 6)
        assert "samples" in text
        assert "balanced" in text
        assert "\u2026" not in text


def bold_lines(text):
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines() if "\x1b[1m" in line]


def test_the_oracle_is_never_bold_and_the_best_other_is():
    (line,) = bold_lines(printed([ONE], terminal=True))
    assert line.startswith(TITLES["class_balanced_meta"])
    (line,) = bold_lines(printed(THREE, terminal=True))
    assert line.startswith(TITLES["ot_labels_meta"])
    ties = results(5.0, 5.0, variants=("oracle", "ot"))
    (line,) = bold_lines(printed([ties], terminal=True))
    assert line.startswith(TITLES["ot"])


def test_one_seed_says_which_variants_the_test_set_does_not_tell_apart():
    text = "\n".join(verdict([ONE]))
    own = standard_error(6.3, 600)
    assert "One seed, 600 test samples" in text
    assert f"within {1.96 * math.sqrt(2) * own:.1f} points" in text
    assert f"standard error of {own:.1f}" in text
    equal = text.split("not told apart from:")[1]
    assert TITLES["ot_meta"] in equal
    assert TITLES["ot_labels_meta"] in equal
    assert TITLES["class_balanced"] not in [line.strip() for line in equal.splitlines()]
    assert "oracle" not in text


def test_one_seed_with_a_clear_winner_names_no_equals():
    text = "\n".join(verdict([results(40.0, 3.0, variants=("class_balanced_meta", "ot_meta"))]))
    assert "points of each other are equal" in text
    assert "not told apart" not in text


def test_several_seeds_are_paired_with_the_control():
    lines = {line.strip().split("   ")[0]: line for line in verdict(THREE)}
    text = "\n".join(verdict(THREE))
    assert "Difference to class-balanced + meta images (paired, 3 seeds" in text
    assert "-1.0 (-1.0 to -1.0)" in lines[TITLES["ot_meta"]]  # always 1 less, whatever the seed
    assert lines[TITLES["ot_meta"]].endswith("better")
    assert lines[TITLES["meta_only"]].endswith("not told apart")  # 12 against 9, 10 and 11
    assert TITLES["stage1"] not in lines  # has no trusted images
    assert "oracle" not in text
    noisy = [results(9.0, 9.0 + change, variants=("class_balanced_meta", "ot_meta")) for change in (-3.0, 2.0, -1.0)]
    assert verdict(noisy)[-1].endswith("not told apart")


def test_mean_and_spread_stand_in_the_table():
    assert re.search(r"class-balanced \+ meta images +10\.0 \(1\.0\)", printed(THREE))


@pytest.mark.parametrize("variants", [("ot_meta",), ("ot_meta", "oracle_meta"), ("oracle_meta",)])
def test_nothing_to_compare_says_nothing_of_differences(variants):
    seeds = [results(*[5.0] * len(variants), variants=variants)]
    assert verdict(seeds) == []
    assert TITLES[variants[0]] in printed(seeds)


def test_without_a_pair_to_compare_there_is_no_heading():
    seeds = [results(5.0, 6.0 + seed, variants=("class_balanced_meta", "stage1")) for seed in range(3)]
    assert verdict(seeds) == []


def test_standard_error_is_the_binomials_and_a_few_samples_without_error_prove_little():
    assert standard_error(50, 100) == pytest.approx(5, rel=0.02)
    assert standard_error(6.3, 600) == pytest.approx(100 * math.sqrt(0.063 * 0.937 / 600), rel=0.02)
    low, high = scipy.stats.binomtest(0, 20).proportion_ci(method="wilson")
    half = 100 * (high - low) / 2
    assert half < 1.96 * standard_error(0, 20) < 1.5 * half  # a little wider than Wilson's interval, around the same middle


def test_where_it_is_and_what_next():
    text = printed(THREE, next_commands=NEXT)
    assert "  runs/a-seed0, and beside it seed1, seed2\n" in text
    for label, command in NEXT:
        assert f"  {label:<7} {command}\n" in text


@pytest.mark.parametrize(("sizes", "is_shown"), [([60] * 9 + [50], False), ([60] * 9 + [30], True), ([60] * 9 + [0], False)])
def test_where_classes_of_the_test_set_are_unequal_the_balanced_error_is_there_too(sizes, is_shown):
    text = printed([with_test_sizes(results(40.0, 24.0, 6.3, 12.0, 11.0, 8.0, 7.0, 5.0), sizes)])
    assert ("77.7" in text) == ("mean over the classes" in text) == is_shown
    assert max(map(len, text.splitlines())) <= 80
