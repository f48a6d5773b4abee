"""Statistics over seeds, against values computed by hand and by scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from otrw.analysis.statistics import mean_std, paired_difference, sign_flip_p, t_cdf, t_quantile


def test_mean_and_sample_standard_deviation():
    assert mean_std([1.0, 2.0, 4.0, 5.0]) == (3.0, math.sqrt(10 / 3))  # squares 4 + 1 + 1 + 4 over n - 1
    assert mean_std([7.0]) == (7.0, None)
    assert mean_std([2.0, 2.0, 2.0]) == (2.0, 0.0)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 7, 8, 29, 30, 99])
def test_students_t_agrees_with_scipy(degrees):
    for t in (0.0, 0.3, 1.0, 2.5, 10.0):
        assert t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-12)
    for probability in (0.9, 0.975, 0.995):
        assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


def test_sign_flips_by_hand():
    assert sign_flip_p([1, 2, 3]) == 2 / 8  # |sum| 6 is reached by all plus and all minus
    assert sign_flip_p([1, 2, -3]) == 1.0  # the sum is 0: every pattern is as far from it
    assert sign_flip_p([1, 1, 1, -1]) == (2 + 8) / 16  # |sum| >= 2: 2 with |4|, 4 + 4 with |2|
    assert sign_flip_p([0.1, 0.2, 0.3]) == 2 / 8  # rounding of equal sums does not count against
    assert sign_flip_p([0.0, 0.0]) == 1.0


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_sign_flips_agree_with_scipys_permutation_test(values):
    values = [round(8 * value) / 8 for value in values]  # sums are exact: SciPy tells apart what rounding alone does
    expected = stats.permutation_test(
        (np.array(values),), lambda x, axis: np.abs(x.sum(axis)), permutation_type="samples", alternative="greater"
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(expected)


def test_many_pairs_are_sampled_the_same_way_every_time():
    values = list(np.random.default_rng(1).normal(0.5, 1, 30))
    assert sign_flip_p(values) == sign_flip_p(values)
    assert sign_flip_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)
    assert sign_flip_p([1.0] * 20) == 1 / 100_001


def test_a_paired_difference_by_hand():
    left = {0: 5.0, 1: 6.0, 2: 7.0, 9: 100.0}
    right = {0: 6.0, 1: 8.0, 2: 10.0, 8: -100.0}
    difference = paired_difference(left, right)
    assert difference is not None
    assert difference.mean == -2.0  # of -1, -2, -3
    assert difference.num_pairs == 3
    assert difference.standard_error == pytest.approx(1 / math.sqrt(3))
    half = 4.30265272991 / math.sqrt(3)  # t with 2 degrees of freedom
    assert (difference.low, difference.high) == pytest.approx((-2 - half, -2 + half))
    assert difference.p is None  # three pairs cannot reach any usual level


def test_too_little_to_compare():
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    single = paired_difference({0: 1.0}, {0: 3.0})
    assert single is not None
    assert (single.mean, single.standard_error, single.low, single.p) == (-2.0, None, None, None)


def test_six_pairs_are_enough_for_a_test():
    difference = paired_difference(dict.fromkeys(range(6), 0.0), {seed: 1.0 + seed for seed in range(6)})
    assert difference is not None
    assert difference.p == 2 / 2**6
