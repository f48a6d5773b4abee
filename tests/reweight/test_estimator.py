"""`OTSampleWeights`: scikit-learn's own checks, any type of label, and weights and scores that find wrong labels."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from otrw import OTReweighter, OTSampleWeights
from otrw.errors import UserError


@pytest.mark.filterwarnings("ignore:no trusted samples were given")
@parametrize_with_checks([OTSampleWeights(random_state=0)])
def test_scikit_learns_estimator_checks(estimator, check):
    check(estimator)


def spoilt_digits(seed=0, rate=0.3):
    features, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(seed)
    members = [random.permutation(np.flatnonzero(labels == c)) for c in range(10)]
    trusted = np.concatenate([rows[:5] for rows in members])
    train = np.concatenate([rows[5 : 125 - 12 * c] for c, rows in enumerate(members)])
    given = labels[train].copy()
    wrong = random.random(len(train)) < rate
    given[wrong] = (given[wrong] + random.integers(1, 10, int(wrong.sum()))) % 10
    return features[train], given, features[trusted], labels[trusted], labels[train]


@pytest.fixture(scope="module")
def digits():
    return spoilt_digits()


def test_scores_and_weights_are_low_for_wrong_labels_and_suggestions_right_more_often_than_what_was_given(digits):
    features, given, trusted, trusted_labels, truth = digits
    ot = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    assert roc_auc_score(given == truth, ot.label_score_) > 0.93
    assert ot.sample_weight_[given != truth].mean() < 0.4 * ot.sample_weight_[given == truth].mean()
    assert ot.sample_weight_.mean() == pytest.approx(1)
    assert (ot.suggested_label_ == truth).mean() > (given == truth).mean()
    assert ot.label_probability_.sum(1) == pytest.approx(np.ones(len(given)))


def test_where_predictions_rule_out_all_that_the_plan_holds_possible_the_plans_word_stays(digits):
    features, given, trusted, trusted_labels, *_ = digits
    never = np.eye(10)[(given + 5) % 10]  # sure, and hardly ever right
    plain = OTSampleWeights(epsilon=0.002).fit(features, given, trusted, trusted_labels)
    ot = OTSampleWeights(epsilon=0.002).fit(features, given, trusted, trusted_labels, predictions=never)
    np.testing.assert_allclose(ot.label_probability_.sum(1), 1)
    is_out = (plain.label_probability_ * never).sum(1) == 0
    assert is_out.any()
    np.testing.assert_array_equal(ot.suggested_label_[is_out], plain.suggested_label_[is_out])


def test_out_of_fold_predictions_sharpen_the_scores_and_leave_the_weights(digits):
    features, given, trusted, trusted_labels, truth = digits
    alone = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    truly = 0.9 * np.eye(10)[truth] + 0.01
    helped = OTSampleWeights().fit(features, given, trusted, trusted_labels, predictions=truly)
    assert (helped.sample_weight_ == alone.sample_weight_).all()
    assert roc_auc_score(given == truth, helped.label_score_) > roc_auc_score(given == truth, alone.label_score_)
    nothing_new = OTSampleWeights().fit(features, given, trusted, trusted_labels, predictions=np.full((len(given), 10), 0.1))
    assert nothing_new.label_score_ == pytest.approx(alone.label_score_)


def test_without_standardizing_weights_are_those_of_the_reweighter(digits):
    features, given, trusted, trusted_labels, _ = digits
    reweighter = OTReweighter(len(given), 10, epsilon=0.2, mixing=0.3)
    reweighter.set_reference(trusted, trusted_labels)
    expected = reweighter.fit(features, given)
    ot = OTSampleWeights(epsilon=0.2, mixing=0.3, standardize=False).fit(features, given, trusted, trusted_labels)
    assert ot.sample_weight_ == pytest.approx(expected.numpy())


def test_standardized_columns_may_come_in_any_unit(digits):
    features, given, trusted, trusted_labels, _ = digits
    factor, shift = np.linspace(0.1, 900, 64), np.linspace(-5, 5, 64)
    plain = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    other = OTSampleWeights().fit(features * factor + shift, given, trusted * factor + shift, trusted_labels)
    assert other.sample_weight_ == pytest.approx(plain.sample_weight_, rel=1e-3)


NAMES = np.array(["zero", "one", "zwei", "trois", "vier", "cinq", "sechs", "sept", "acht", "neuf"])


@pytest.mark.parametrize(
    "convert",
    [
        lambda y: NAMES[y],
        lambda y: NAMES[y].astype(object),
        lambda y: y.astype(np.int8) - 3,
        lambda y: y.astype(float),
        lambda y: pd.Series(pd.Categorical(NAMES[y])),
        lambda y: pd.Series(NAMES[y], dtype="string"),
        lambda y: pd.Series(y, dtype="Int64"),
        lambda y: list(NAMES[y]),
    ],
)
def test_labels_of_any_type_give_the_same_and_suggestions_are_of_that_type(digits, convert):
    features, given, trusted, trusted_labels, truth = digits
    number = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    ot = OTSampleWeights().fit(features, convert(given), trusted, convert(trusted_labels))
    assert ot.sample_weight_ == pytest.approx(number.sample_weight_, rel=1e-4)
    expected = np.asarray(convert(number.suggested_label_)) == np.asarray(convert(truth))
    assert (np.asarray(ot.suggested_label_) == np.asarray(convert(truth))).mean() == pytest.approx(expected.mean())
    assert set(np.asarray(ot.suggested_label_)) <= set(np.asarray(convert(given)))
    assert {type(label) for label in ot.suggested_label_.tolist()} == {
        type(label) for label in np.asarray(convert(given)).tolist()
    }


@pytest.mark.parametrize("unit", [1e-14, 1e19, 1e25])
def test_columns_of_any_unit_give_the_same_in_single_precision(digits, unit):
    features, given, trusted, trusted_labels, _ = digits
    plain = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    scaled = OTSampleWeights().fit(
        (features * unit).astype(np.float32), given, (trusted * unit).astype(np.float32), trusted_labels
    )
    assert scaled.sample_weight_ == pytest.approx(plain.sample_weight_, rel=1e-3)


def test_booleans_are_labels_too(digits):
    features, given, trusted, trusted_labels, truth = digits
    ot = OTSampleWeights().fit(features, given == 0, trusted, trusted_labels == 0)
    assert ot.suggested_label_.dtype == bool
    assert roc_auc_score((given == 0) == (truth == 0), ot.label_score_) > 0.8


def test_a_data_frame_is_taken_and_its_column_names_are_compared(digits):
    features, given, trusted, trusted_labels, _ = digits
    columns = [f"pixel {n}" for n in range(64)]
    frame, trusted_frame = (pd.DataFrame(x, columns=columns) for x in (features, trusted))
    ot = OTSampleWeights().fit(frame, pd.Series(given), trusted_frame, pd.Series(trusted_labels))
    assert ot.feature_names_in_.tolist() == columns
    plain = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    assert ot.sample_weight_ == pytest.approx(plain.sample_weight_, rel=1e-4)
    with pytest.raises(ValueError, match="feature names"):
        clone(ot).fit(frame, given, trusted_frame[columns[::-1]], trusted_labels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y, tx, ty: (x, y, tx, None), "must come together, got no y_trusted"),
        (lambda x, y, tx, ty: (x, y, tx[ty != 3], ty[ty != 3]), r"a sample of every class of y, got none of \[3\]"),
        (lambda x, y, tx, ty: (x, NAMES[y], tx, ty), "labels of one type"),
        (lambda x, y, tx, ty: (x, y, tx[:, :5], ty), "5 features"),
        (lambda x, y, tx, ty: (x, np.where(y == 1, None, y.astype(object)), tx, ty), "a label for every sample"),
        (
            lambda x, y, tx, ty: (x, pd.Series(NAMES[y], dtype="string").where(y != 1), tx, NAMES[ty]),
            "^y must have a label for",
        ),
        (lambda x, y, tx, ty: (x, y, tx, pd.Series(ty, dtype="Int64").where(ty != 1)), "^y_trusted must have a label for"),
        (lambda x, y, tx, ty: (x, np.where(y == 1, np.nan, y), tx, ty), "^y must have a label for"),
        (lambda x, y, tx, ty: (np.where(x == 3, np.nan, x), y, tx, ty), "NaN"),
        (lambda x, y, tx, ty: (x, y, tx, ty, np.ones((len(y), 3))), "predictions must have shape"),
        (lambda x, y, tx, ty: (x, y, tx, ty, -np.ones((len(y), 10))), "predictions must be probabilities"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line(digits, spoil, message):
    with pytest.raises(ValueError, match=message):
        OTSampleWeights().fit(*spoil(*digits[:4]))


@pytest.mark.filterwarnings("ignore:no trusted samples were given")
@pytest.mark.parametrize(("setting", "value"), [("epsilon", 0), ("mixing", 2), ("num_trusted_per_class", 0)])
def test_settings_are_checked(digits, setting, value):
    features, given, *_ = digits
    with pytest.raises(UserError, match=setting):
        OTSampleWeights(**{setting: value}).fit(features, given)


def test_trusted_rows_that_are_in_x_too_are_warned_of(digits):
    features, given, trusted, trusted_labels, _ = digits
    with pytest.warns(UserWarning, match=r"50 rows of X_trusted are in X too.*leave them out of X"):
        OTSampleWeights().fit(np.r_[features, trusted], np.r_[given, trusted_labels], trusted, trusted_labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OTSampleWeights().fit(np.r_[features, trusted[:3]], np.r_[given, trusted_labels[:3]], trusted, trusted_labels)
        few = (
            np.random.default_rng(0).integers(2, size=(200, 3)).astype(float)
        )  # eight different rows: they repeat by themselves
        OTSampleWeights().fit(few, few[:, 0].astype(int), few[:20], few[:20, 0].astype(int))


def test_without_a_trusted_set_some_are_drawn_and_it_says_so(digits):
    features, given, *_ = digits
    with pytest.warns(UserWarning, match="labels taken on trust"):
        ot = OTSampleWeights(num_trusted_per_class=7, random_state=1).fit(features, given)
    sizes = np.bincount(given)
    assert np.bincount(given[ot.trusted_index_]).tolist() == np.minimum(7, sizes // 2).tolist()
    is_drawn = np.isin(np.arange(len(given)), ot.trusted_index_)
    assert (ot.sample_weight_[is_drawn] == 1).all()
    assert np.isnan(ot.label_score_).tolist() == is_drawn.tolist()
    assert (ot.suggested_label_[is_drawn] == given[is_drawn]).all()
    assert ot.sample_weight_.mean() == pytest.approx(1)
    scaled = StandardScaler().fit_transform(features)
    standing = OTSampleWeights(standardize=False).fit(scaled[~is_drawn], given[~is_drawn], scaled[is_drawn], given[is_drawn])
    assert ot.sample_weight_[~is_drawn] == pytest.approx(standing.sample_weight_, rel=1e-4)
    assert roc_auc_score((given == digits[4])[~is_drawn], ot.label_score_[~is_drawn]) > 0.85


def test_weights_go_into_an_estimators_sample_weight_and_into_a_sampler(digits):
    features, given, trusted, trusted_labels, truth = digits
    ot = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    all_features, all_labels = load_digits(return_X_y=True)
    is_used = (all_features[:, None, ::7] == np.concatenate([features, trusted])[None, :, ::7]).all(2).any(1)
    scaler = StandardScaler().fit(features)
    x, y = scaler.transform(np.concatenate([features, trusted])), np.concatenate([given, trusted_labels])

    def error(weights):
        weights = np.concatenate([weights, np.ones(len(trusted))])
        model = LogisticRegression(max_iter=1000).fit(x, y, sample_weight=weights)
        return 1 - balanced_accuracy_score(all_labels[~is_used], model.predict(scaler.transform(all_features[~is_used])))

    assert error(ot.sample_weight_) < 0.8 * error(np.ones(len(given)))
    sampler = torch.utils.data.WeightedRandomSampler(
        ot.sample_weight_, len(features), generator=torch.Generator().manual_seed(0)
    )
    drawn = torch.tensor(list(sampler)).numpy()
    assert (given != truth)[drawn].mean() < 0.5 * (given != truth).mean()


def test_the_recipe_for_lightning(digits):
    lightning = pytest.importorskip("lightning", reason="the recipe for Lightning needs the package lightning")
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    features, given, trusted, trusted_labels, _ = digits
    ot = OTSampleWeights().fit(features, given, trusted, trusted_labels)
    x, y = torch.tensor(features / 16).float(), torch.tensor(given)

    class Weighted(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(64, 10)

        def training_step(self, batch, _):
            x, y, weight = batch
            return (weight * cross_entropy(self.net(x), y, reduction="none")).sum() / weight.sum()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.05)

    module = Weighted()
    loader = DataLoader(TensorDataset(x, y, torch.as_tensor(ot.sample_weight_).float()), batch_size=64)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.Trainer(max_epochs=3, accelerator="cpu", devices=1, **quiet).fit(module, loader)
    assert (module.net(torch.tensor(trusted / 16).float()).argmax(1).numpy() == trusted_labels).mean() > 0.7


def test_the_recipe_for_the_hubs_trainer(digits, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the recipe for Trainer needs the package transformers")
    from torch.nn.functional import cross_entropy
    from transformers.modeling_outputs import SequenceClassifierOutput

    features, given, trusted, trusted_labels, _ = digits
    ot = OTSampleWeights().fit(features, given, trusted, trusted_labels)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(64, 10)

        def forward(self, x):
            return SequenceClassifierOutput(logits=self.net(x))

    class Weighted(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **_):
            weight, labels = inputs.pop("weight"), inputs.pop("labels")
            outputs = model(**inputs)
            loss = (weight * cross_entropy(outputs.logits, labels, reduction="none")).sum() / weight.sum()
            return (loss, outputs) if return_outputs else loss

    x = torch.tensor(features / 16).float()
    rows = [{"x": a, "labels": int(b), "weight": float(w)} for a, b, w in zip(x, given, ot.sample_weight_, strict=True)]
    settings = {"num_train_epochs": 3, "learning_rate": 0.05, "per_device_train_batch_size": 64, "report_to": "none"}
    arguments = transformers.TrainingArguments(
        str(tmp_path), remove_unused_columns=False, use_cpu=True, save_strategy="no", disable_tqdm=True, **settings
    )
    model = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Weighted(model, arguments, train_dataset=rows).train()
    assert (model.net(torch.tensor(trusted / 16).float()).argmax(1).numpy() == trusted_labels).mean() > 0.7
