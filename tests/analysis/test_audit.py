"""The list of suspected labels: its order, its figures against scikit-learn's, and what it takes from records of any age."""

import json

import numpy as np
import pytest
from made_records import write_record
from sklearn.metrics import average_precision_score, roc_auc_score

from otrw.analysis.audit import as_columns, auroc, average_precision, few_shot, found, headline, make_audit
from otrw.analysis.report.audit_page import audit_page
from otrw.commands.audit import main
from otrw.errors import UserError
from otrw.records import ledger


def write_weights(folder, **columns):
    """A record of two classes, the last two of six labels wrong; columns replace or, as None, drop those given here."""
    facts = {"data": {"knows_truth": False}} if columns.pop("own", 0) else {}
    variant = columns.pop("variant", "ot_noise_aware_meta")
    record = write_record(folder, "--config=digits_lt", variant=variant, **facts)
    own = {
        "index": np.arange(6),
        "given_label": np.array([0, 0, 0, 1, 1, 0]),
        "true_label": np.array([0, 0, 0, 1, 0, 1]),
        "weight": np.array([1.5, 1.0, 0.4, 2.0, 0.9, 0.2]),
        "wrong_label_score": np.array([0.1, 0.2, 0.6, 0.0, 0.9, 0.8]),
        "target_label": np.array([0, 0, 1, 1, 0, 0]),
        "prediction": np.array([0, 0, 0, 1, 1, 1]),
    }
    kept = {name: values for name, values in {**own, **columns}.items() if values is not None}
    ledger.write_columns(record / "weights.parquet", kept)
    return ledger.read_record(record)


def test_the_most_suspicious_comes_first_with_the_plans_suggestion_or_else_the_nets(tmp_path):
    audit = make_audit(write_weights(tmp_path))
    assert audit.row.tolist() == [4, 5, 2, 1, 0, 3]
    assert audit.score.tolist() == [0.9, 0.8, 0.6, 0.2, 0.1, 0.0]
    assert audit.suggested.tolist() == [0, 1, 1, 0, 0, 1]
    assert audit.identity.tolist() == ["4", "5", "2", "1", "0", "3"]
    assert audit.flagged.tolist() == [True, True, True, False, False, False]
    assert audit.estimated_num_wrong == pytest.approx(2.6)  # the sum of probabilities, which need not be the number flagged
    assert headline(audit) == "3 of 6 training labels are probably wrong; the plan's probabilities add up to 3."
    unsure = audit._replace(score=np.full(6, 0.4))
    assert (
        headline(unsure) == "0 of 6 training labels are probably wrong; the plan's probabilities add up to 2: look beyond them."
    )
    assert "wrong_label_score" in as_columns(audit)


def test_a_label_that_nothing_else_is_more_probable_than_gets_no_suggestion_and_weights_are_those_within_a_class(tmp_path):
    scores, same = np.array([0.1, 0.2, 0.6, 0.0, 0.9, 0.8]), np.array([0, 0, 0, 1, 1, 0])
    audit = make_audit(write_weights(tmp_path, wrong_label_score=scores, target_label=same, prediction=same))
    columns = as_columns(audit)
    assert columns["suggested_label"].tolist() == ["", "", "", *columns["given_label"][3:]]
    place = audit.row.tolist().index(4)
    assert audit.relative[place] == pytest.approx(0.9 / 1.45)  # of 0.9 and 2.0, given the same label


def test_precision_and_recall_are_those_of_the_flagged_over_all_and_over_rare_classes(tmp_path):
    record = write_weights(tmp_path)
    audit = make_audit(record)
    figures = found(audit)
    assert (figures.num_samples, figures.num_wrong) == (6, 2)
    assert (figures.precision, figures.recall) == (pytest.approx(2 / 3), 1)
    assert (figures.average_precision, figures.auroc) == (1, 1)
    members, meaning = few_shot(audit, record)  # class 1 has 10 right images, fewer than the preset's data.few_below
    assert meaning == "classes of fewer than 15"
    assert audit.given[members].tolist() == [1, 1]
    assert found(audit, members)[:4] == (2, 1, 1, 1)


@pytest.mark.parametrize("columns", [{"wrong_label_score": None}, {"variant": "ot_meta"}])
def test_where_no_noise_aware_plan_scores_the_weight_within_the_class_orders(tmp_path, columns):
    audit = make_audit(write_weights(tmp_path, **columns, target_label=None, prediction=None))
    assert not audit.by_plan
    relative = np.array([1.5, 1.0, 0.4, 2.0, 0.9, 0.2]) / np.array([0.775, 0.775, 0.775, 1.45, 1.45, 0.775])
    assert audit.row.tolist() == np.argsort(relative).tolist()
    assert audit.score == pytest.approx(np.sort(1 / (1 + relative))[::-1])
    assert (audit.suggested == audit.given).all()
    assert audit.estimated_num_wrong is None
    assert "weigh less than a quarter" in headline(audit)
    assert as_columns(audit).keys() & {"wrong_label_score", "low_weight_score"} == {"low_weight_score"}


def test_what_is_not_known_to_be_right_is_not_evaluated_nor_written(tmp_path):
    audit = make_audit(write_weights(tmp_path, own=1, identity=np.array(list("abcdef"), dtype=object)))
    assert audit.true is None
    assert found(audit) is None
    columns = as_columns(audit)
    assert "true_label" not in columns
    assert columns["identity"].tolist() == list("efcbad")
    assert columns["given_label"].tolist() == ["dog", "cat", "cat", "cat", "cat", "dog"]


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_scikit_learns_ties_too(seed):
    random = np.random.default_rng(seed)
    positive = random.random(200) < 0.3
    score = np.round(random.random(200) + 0.3 * positive, 1)
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    assert average_precision(score, positive) == pytest.approx(average_precision_score(positive, score))


def test_without_wrong_labels_or_without_right_ones_there_is_no_figure(tmp_path):
    assert found(make_audit(write_weights(tmp_path, true_label=np.array([0, 0, 0, 1, 1, 0])))) is None
    assert auroc(np.arange(3.0), np.ones(3, dtype=bool)) is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"weight": None}, "must have the columns .* got none named weight"),
        ({"given_label": np.array([0, 0, 0, 1, 1, 7])}, "labels of the 2 classes"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_in_one_line(tmp_path, columns, message):
    record = write_weights(tmp_path, **columns)
    with pytest.raises(UserError, match=message):
        make_audit(record)


def test_weights_of_whole_classes_order_nothing_and_are_refused(tmp_path):
    record = write_weights(tmp_path, variant="class_balanced", weight=np.array([0.8, 0.8, 0.8, 1.4, 1.4, 0.8]))
    with pytest.raises(UserError, match=r"must weigh samples of one class differently, .* take a variant with transport"):
        make_audit(record)


def test_a_variant_without_weights_says_so(tmp_path):
    with pytest.raises(UserError, match=r"weights\.parquet must be there"):
        make_audit(ledger.read_record(write_record(tmp_path, "--config=digits_lt")))


@pytest.mark.parametrize(("num_wrong", "is_doubted"), [(5, False), (8, True)])
def test_a_list_that_says_far_less_than_the_checked_samples_is_doubted(tmp_path, capsys, num_wrong, is_doubted):
    scores = np.array([0.0, 0.1, 0.1, 0.0, 0.6, 0.1])  # 15 %
    record = write_weights(tmp_path, wrong_label_score=scores)
    result = json.loads((record.path / "result.json").read_text())
    sizes = {"train": 6, "meta": 20, "validation": 0, "test": 4}
    data = {"knows_truth": False, "checked": {"samples": 20, "wrong": num_wrong}, "num_samples": sizes}
    ledger.write_json(record.path / "result.json", result | {"data": data})
    main([str(record.path), "--no-pictures", "--output", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert f"{num_wrong} of the 20 checked samples had a wrong label ({5 * num_wrong} %)" in out
    assert ("far more than the list says" in out) == is_doubted
    assert "not listed: 20 trusted samples, 4 test samples" in out


def test_the_page_shows_the_worst_of_each_class_and_takes_no_name_for_markup(tmp_path):
    record = write_weights(tmp_path, identity=np.array([f"<i>{n}</i>" for n in range(6)], dtype=object))
    page = audit_page(make_audit(record), record, lambda row: f"data:image/png;base64,{row}", 1, "audit.csv")
    assert page.count("<figure") == 2
    assert page.index("base64,5") < page.index("base64,4")  # class 0, then class 1
    assert "<i>" not in page
    assert "2 of 4 probably wrong" in page
    assert '<td class="number">66.7</td>' in page


def test_only_labels_of_ones_own_data_are_judged(tmp_path):
    record = write_weights(tmp_path)
    with pytest.raises(UserError, match="--check must come with data of your own, not digits"):
        main([str(record.path), "--check", "3"])
    with pytest.raises(UserError, match="--check must be >= 1, got 0"):
        main([str(record.path), "--check", "0"])
    assert not (record.path / "audit.csv").exists()


def test_what_was_looked_at_before_is_not_listed_again(tmp_path):
    settled = np.array([False, True, False, False, True, False])
    audit = make_audit(write_weights(tmp_path / "some", is_settled=settled))
    assert audit.row.tolist() == [5, 2, 0, 3]
    with pytest.raises(UserError, match="must have a label that nobody has looked at, got none among 6"):
        make_audit(write_weights(tmp_path / "all", is_settled=np.ones(6, dtype=bool)))
