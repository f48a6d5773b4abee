"""Early stops of whole settings, at shares of their own epochs; simulated searches in which the best is known."""

import numpy as np

from otrw.tuning.halving import SettingHalving

FACTOR = 3
RUNGS = (1 / 9, 1 / 3)


def test_trials_of_different_lengths_are_judged_at_the_same_share():
    halving = SettingHalving(0.5, FACTOR)
    lengths = {0: 4, 1: 12, 2: 4, 3: 12}
    curves = {0: 10.0, 1: 9.0, 2: 50.0, 3: 8.0}  # at any epoch
    judged = {}
    for setting, epochs in lengths.items():
        for epoch in range(1, epochs + 1):
            if not halving.report(setting, 0, epoch / epochs, curves[setting]):
                judged[setting] = epoch / epochs
                break
    assert judged == {2: 0.5}


def test_a_long_trial_is_not_stopped_for_being_where_short_ones_end():
    """Epoch 4 is the end of a trial of one round, and a third of one of three: no place to compare the two."""
    halving = SettingHalving(0.5, FACTOR)
    for setting in range(3):
        assert all(halving.report(setting, 0, epoch / 4, 20.0 - epoch) for epoch in range(1, 5))
    assert all(halving.report(3, 0, epoch / 12, 30.0 - 2.4 * epoch) for epoch in range(1, 6))
    assert halving.report(3, 0, 0.5, 15.0)  # better than the others were at half of theirs


def test_what_is_stopped_is_the_setting_with_all_its_seeds():
    halving = SettingHalving(0.5, FACTOR)
    for setting, value in enumerate((10.0, 11.0, 12.0)):
        halving.report(setting, 0, 0.5, value)
    assert not halving.report(3, 0, 0.5, 40.0)
    assert halving.is_stopped(3)
    assert not halving.report(3, 1, 0.1, 1.0)
    assert not halving.is_stopped(0)


def test_one_bad_seed_does_not_end_a_setting_that_is_best_on_the_others():
    halving = SettingHalving(0.5, FACTOR)
    for seed in (0, 1):
        for setting in range(4):
            halving.report(setting, seed, 0.5, 10.0 if setting == 0 else 20.0 + setting)
    for setting in (1, 2, 3):
        halving.report(setting, 2, 0.5, 20.0 + setting)
    assert halving.report(0, 2, 0.5, 23.0)


def _searches(stop_settings, num_searches=200, num_settings=16, num_seeds=3):
    """How many searches do not rank their best setting: the one with the lowest true value."""
    lost = 0
    for number in range(num_searches):
        generator = np.random.default_rng(number)
        true = generator.normal(0, 3, num_settings)
        split = generator.normal(0, 4, num_seeds)
        noise = generator.normal(0, 1.5, (len(RUNGS), num_settings, num_seeds))
        halvings = (
            [SettingHalving(RUNGS[0], FACTOR)] * num_seeds
            if stop_settings
            else [SettingHalving(RUNGS[0], FACTOR) for _ in range(num_seeds)]  # each seed by itself, as it was
        )
        alive = {(setting, seed) for setting in range(num_settings) for seed in range(num_seeds)}
        for rung, share in enumerate(RUNGS):
            for setting in range(num_settings):
                for seed in range(num_seeds):
                    if (setting, seed) not in alive:
                        continue
                    value = 30 + true[setting] + split[seed] + noise[rung, setting, seed]
                    if not halvings[seed].report(setting, seed, share, value):
                        alive -= {(setting, s) for s in range(num_seeds)} if stop_settings else {(setting, seed)}
        ranked = [s for s in range(num_settings) if all((s, seed) in alive for seed in range(num_seeds))]
        assert ranked  # some setting is always seen through
        lost += int(np.argmin(true)) not in ranked
    return lost


def test_searches_over_seeds_lose_the_best_setting_less_often_than_seeds_judged_one_by_one():
    whole, single = _searches(stop_settings=True), _searches(stop_settings=False)
    assert single >= 50  # of 200: the best had to win the draw of every seed
    assert whole < 0.5 * single
    assert whole <= _searches(stop_settings=True, num_seeds=1)  # more seeds cost no setting its place
