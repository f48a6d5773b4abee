"""Tables and figures of studies: means, paired differences, and what may be the best."""

import json

import pytest

from otrw.analysis.study import brief_text, metric_of, study_tables, study_text
from otrw.config.variants import variant_config
from otrw.errors import UserError
from otrw.grid.studies import STUDIES
from otrw.grid.study_jobs import study_jobs
from otrw.records import ledger
from otrw.records.experiments import load_experiments

STUDY = STUDIES["noise_tail"]
ERRORS = {
    "clean": {"class_balanced_meta": 5.0, "ot_labels_meta": 5.0},
    "symmetric20": {"class_balanced_meta": 8.0, "ot_labels_meta": 6.0, "oracle_meta": 5.0},
    "symmetric40": {"class_balanced_meta": 10.0, "ot_labels_meta": 7.0, "oracle_meta": 5.5},
}


def write_records(folder, cell, variant, error, seed, **result):
    (job,) = study_jobs(STUDY, ["digits"], [seed], [cell])
    config = json.loads(json.dumps(ledger_config(job.config, variant)))
    where = folder / job.name / variant
    where.mkdir(parents=True)
    ledger.write_yaml(where / "config.yaml", config)
    ledger.write_json(where / "environment.json", {})
    quality = {"label_quality_auroc": error / 100}
    content = {"row": variant, "imbalance_factor": 20.0, "seed": seed, "test": {"error": error}, "weights": quality}
    ledger.write_json(where / "result.json", content | result)


def ledger_config(config, variant):
    from otrw.config import to_dict

    return to_dict(variant_config(config, variant))


@pytest.fixture
def records(tmp_path):
    for cell, errors in ERRORS.items():
        for variant, error in errors.items():
            for seed, more in enumerate((0.0, 1.0, 3.0)):
                extra = 0.5 * seed if variant == "class_balanced_meta" else 0.0
                write_records(tmp_path, cell, variant, error + more + extra, seed)
    return tmp_path


def tables_of(folder, study=STUDY, **options):
    return study_tables(study, load_experiments([folder]).experiments, **options)


def test_a_table_has_means_over_seeds_and_differences_pair_by_pair(records):
    (table,) = tables_of(records)
    assert [cell.name for cell in table.cells] == list(ERRORS)
    assert table.reference == "ot_labels_meta"
    value = table.rows["class_balanced_meta"]["symmetric40"]
    assert value.mean == pytest.approx(10 + 4 / 3 + 0.5)
    assert value.num_seeds == 3
    assert value.against.mean == pytest.approx(3.5)
    assert value.against.low < 3.5 < value.against.high
    assert table.rows["ot_labels_meta"]["symmetric40"].against is None
    best = {name for name, row in table.rows.items() if row.get("symmetric40") and row["symmetric40"].is_best}
    assert best == {"ot_labels_meta"}  # the oracle does not compete


def test_the_text_says_everything_that_the_table_holds(records):
    text = study_text(tables_of(records))
    assert "Wrong labels and a long tail: Digits-LT, factor 20" in text
    assert "**8.3 (1.5)**" in text
    assert "+3.5 (" in text
    assert "Difference to OT, OT labels + meta, paired over seeds" in text
    assert text.count("\n| class-balanced + meta") == 2


def test_the_brief_table_has_a_line_a_condition_and_the_methods_in_the_order_asked_for(records):
    tables = tables_of(records)
    text = brief_text(tables, ["symmetric40", "clean"], ["oracle_meta", "ot_labels_meta", "class_balanced_meta"])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["test error in %", "oracle", "OT, OT labels", "class-balanced", "seeds"]
    assert lines[2:] == [  # in the study's order; an oracle is never the best
        ["Digits-LT, clean", "-", "**6.3**", "6.8", "3"],
        ["Digits-LT, symmetric 40", "6.8", "**8.3**", "11.8", "3"],
    ]
    assert len(brief_text(tables).splitlines()) == 2 + 3
    assert "oracle" in brief_text(tables)
    assert "oracle" not in brief_text(tables, ["clean"])  # a method without records there has no column
    with pytest.raises(UserError, match=r"^--cells must be among those with records: clean, .*got 'x'"):
        brief_text(tables, ["x"])
    with pytest.raises(UserError, match=r"^--variants must be among those with records: .*got 'ot'"):
        brief_text(tables, variants=["ot"])


def test_runs_on_other_samples_are_not_paired(records):
    for path in records.glob("*seed1/class_balanced_meta/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"split_hash": "other"}))
    (table,) = tables_of(records)
    assert table.rows["class_balanced_meta"]["clean"].against.num_pairs == 2


def test_a_mean_over_fewer_seeds_says_so_and_is_not_the_best(records):
    write_records(records, "symmetric40", "ot_pooled_meta", 1.0, 0)
    tables = tables_of(records)
    value = tables[0].rows["ot_pooled_meta"]["symmetric40"]
    assert (value.mean, value.is_best, value.has_all_seeds) == (1.0, False, False)
    text = study_text(tables)
    assert " 1.0, 1 seed |" in text
    assert "**8.3 (1.5)**" in text


def test_of_wrong_labels_found_the_largest_share_is_the_best_and_only_who_judges_labels_is_there(records):
    for seed in range(3):
        for variant, share in (("cleanlab_meta", 90.0), ("ot_meta", 80.0 + seed)):
            write_records(records, "symmetric40", variant, share, seed)
    (table,) = tables_of(records, STUDIES["finding_wrong_labels"])
    assert set(table.rows) == {"cleanlab_meta", "ot_meta"}
    assert table.reference == "cleanlab_meta"
    assert table.rows["cleanlab_meta"]["symmetric40"].is_best
    assert table.rows["ot_meta"]["symmetric40"].against.mean == pytest.approx(-9)


def test_the_worst_subgroup_is_the_largest_of_the_list(tmp_path):
    write_records(tmp_path, "clean", "ot_meta", 5.0, 0, subclass_error=[3.0, 9.5, None])
    (experiment,) = load_experiments([tmp_path]).experiments
    assert metric_of(experiment, "subclass_error.max") == 9.5
    assert metric_of(experiment, "test.nothing") is None


def test_no_records_and_an_unknown_reference_are_one_line(records, tmp_path):
    with pytest.raises(UserError, match=r"^--study few_trusted must have records, got none; python analysis/experiments/few"):
        tables_of(records, STUDIES["few_trusted"])
    with pytest.raises(UserError, match=r"^--reference must be a variant with records, got 'ot'$"):
        tables_of(records, reference="ot")


def test_the_figure_draws_the_difference_of_every_method_in_every_condition(records):
    pytest.importorskip("matplotlib", reason="figures need the report extra")
    from otrw.analysis.figures.study import study_figure

    figure = study_figure(tables_of(records, reference="class_balanced_meta"))
    clean, _, symmetric40 = [axes for axes in figure.axes if axes.get_visible()]
    assert [text.get_text() for text in clean.get_yticklabels()] == ["OT, OT labels + meta", "oracle + meta"]
    places = {line.get_ydata()[0]: line.get_xdata()[0] for line in symmetric40.get_lines() if line.get_marker() == "o"}
    assert places == {0: pytest.approx(-3.5), 1: pytest.approx(-5.0)}


def test_a_condition_without_the_reference_has_no_panel(records):
    pytest.importorskip("matplotlib", reason="figures need the report extra")
    from otrw.analysis.figures.study import study_figure

    write_records(records, "similar20", "oracle_meta", 4.0, 0)
    figure = study_figure(tables_of(records, reference="class_balanced_meta"))
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert [title.split("\n")[0] for title in titles] == ["clean", "symmetric 20", "symmetric 40"]


def test_the_axes_of_a_data_set_without_the_reference_have_an_end(records):
    pytest.importorskip("matplotlib", reason="figures need the report extra")
    from otrw.analysis.figures.study import SHOWN, _most

    (table,) = tables_of(records, reference="class_balanced_meta")
    assert _most(table, ["class_balanced_meta"], table.cells) == SHOWN
