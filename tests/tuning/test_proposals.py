"""Which trial comes next: every one once, the same after an interruption."""

import math

import pytest

from otrw.tuning.proposals import Proposals
from otrw.tuning.space import parse_space

SPACE = parse_space({"ot.mixing": {"grid": [0.0, 0.5, 1.0]}, "ot.weights": {"choice": ["semi_relaxed", "sgd"]}})
RANGES = parse_space({"ot.epsilon": {"loguniform": [0.01, 1.0]}, "ot.weights": {"choice": ["semi_relaxed", "sgd"]}})


def proposals(algorithm, space=SPACE, num_settings=6, seeds=(0,), proposed=(), outcomes=None):
    return Proposals(
        algorithm,
        space,
        num_settings=num_settings,
        seeds=list(seeds),
        search_seed=3,
        proposed=list(proposed),
        outcomes=outcomes or {},
    )


def drain(source):
    return list(iter(source.next, None))


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_every_setting_comes_once_with_every_seed(algorithm):
    given = drain(proposals(algorithm, seeds=(5, 6)))
    assert len({proposal.trial for proposal in given}) == len(given) == 12
    for setting in range(6):
        pair = [proposal for proposal in given if proposal.setting == setting]
        assert [proposal.seed for proposal in pair] == [5, 6]
        assert pair[0].settings == pair[1].settings
        assert pair[0].trial == f"{setting:04d}-seed5"
    if algorithm == "grid":
        assert len({str(proposal.settings) for proposal in given}) == 6


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_after_an_interruption_what_is_over_stays_and_what_was_running_comes_first(algorithm):
    whole = drain(proposals(algorithm, seeds=(0, 1)))
    over = {whole[0].trial: 10.0, whole[1].trial: 20.0, whole[3].trial: None}
    resumed = drain(proposals(algorithm, seeds=(0, 1), proposed=whole[:5], outcomes=over))
    assert resumed[:3] == [whole[2], whole[4], whole[5]]
    assert {p.trial for p in resumed} | set(over) == {p.trial for p in whole}
    assert len(resumed) + len(over) == len(whole)
    if algorithm != "optuna":
        assert resumed == [p for p in whole if p.trial not in over]


def test_a_random_search_can_be_made_longer():
    assert drain(proposals("random", num_settings=9))[:6] == drain(proposals("random", num_settings=6))


def distance(proposal):
    return abs(proposal.settings["ot.epsilon"] - 0.2) + (proposal.settings["ot.weights"] == "sgd")


def test_optuna_learns_from_outcomes_and_goes_on_learning_after_an_interruption():
    source = proposals("optuna", RANGES, num_settings=40)
    given = []
    while (proposal := source.next()) is not None and len(given) < 20:
        source.tell(proposal, distance(proposal) if len(given) != 4 else None)
        given.append(proposal)
    outcomes = {p.trial: distance(p) for p in given}
    later = proposals("optuna", RANGES, num_settings=40, proposed=given, outcomes=outcomes)
    found = []
    while (proposal := later.next()) is not None:
        later.tell(proposal, distance(proposal))
        found.append(proposal)
    assert len(found) == 20
    assert sum(map(distance, found)) / 20 < sum(map(distance, drain(proposals("random", RANGES, num_settings=20)))) / 20


def test_optuna_hears_of_a_setting_when_all_its_seeds_are_over():
    source = proposals("optuna", RANGES, num_settings=1, seeds=(0, 1))
    first, second = drain(source)
    source.tell(first, 1.0)
    assert source._tpe._study.trials[0].state.name == "RUNNING"
    source.tell(second, 3.0)
    assert source._tpe._study.trials[0].value == 2.0


def test_the_values_of_a_drawn_setting_lie_in_the_space():
    for proposal in drain(proposals("optuna", RANGES, num_settings=30)):
        assert 0.01 <= proposal.settings["ot.epsilon"] <= 1.0
        assert proposal.settings["ot.weights"] in ("semi_relaxed", "sgd")


@pytest.mark.parametrize(("last", "expected"), [(math.nan, 2.0), (4.0, 3.0), (None, None)])
def test_a_seed_that_was_not_begun_takes_nothing_from_what_the_others_tell(last, expected, monkeypatch):
    source = proposals("optuna", RANGES, num_settings=1, seeds=(0, 1))
    told = []
    monkeypatch.setattr(source._tpe, "tell", lambda number, value: told.append(value))
    first, second = drain(source)
    source.tell(first, 2.0)
    source.tell(second, last)
    assert told == [expected]
