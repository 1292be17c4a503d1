import itertools
import math

import numpy as np
import pytest

from wavelldm.metrics.intervals import compare, differences, interval, sign_flip


def test_the_interval_of_the_bootstrap_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        _, low, high = interval(rng.gamma(2.0, 1.0, 40))  # mean 2, skewed
        hits += low <= 2.0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_the_interval_of_the_bootstrap_is_that_of_the_normal_distribution_where_that_holds():
    x = np.random.default_rng(1).standard_normal(400)
    mean, low, high = interval(x)
    assert mean == pytest.approx(x.mean())
    assert high - low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.08)
    assert interval(x) == (mean, low, high)


def test_missing_values_are_left_out():
    assert interval([1.0, None, 1.0]) == (1.0, 1.0, 1.0)
    assert all(map(math.isnan, interval([None])))
    assert differences([1.0, None, 3.0], [0.5, 1.0, None]) == [0.5]


def test_sign_flip_by_hand():
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8  # only all plus and all minus reach 6
    assert sign_flip([1.0, -1.0]) == 1.0
    x = np.random.default_rng(0).standard_normal(9) + 0.5
    sums = [abs(np.dot(signs, x)) for signs in itertools.product((1, -1), repeat=9)]
    assert sign_flip(x) == pytest.approx(np.mean(np.array(sums) >= abs(x.sum()) - 1e-12))
    assert math.isnan(sign_flip([1.0]))


def test_drawn_signs_agree_with_all_signs_and_p_is_uniform_without_a_difference():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(14) + 0.4
    signs = np.array(list(itertools.product((1, -1), repeat=14)))
    exact = (np.abs(signs @ x) >= abs(x.sum()) - 1e-12).mean()
    assert sign_flip(x) == pytest.approx(exact, abs=0.01)
    found = [sign_flip(rng.standard_normal(12)) for _ in range(300)]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09


def test_pairing_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(3)
    hard = 5 * rng.standard_normal(60)  # how hard a clip is, the same for both systems
    a, b = hard + 0.5 + 0.5 * rng.standard_normal(60), hard + 0.5 * rng.standard_normal(60)
    found = compare(a, b)
    assert interval(a)[1] < interval(b)[0] < interval(a)[2]  # the separate intervals overlap
    assert found.sure and found.low > 0 and found.clips == 60 and found.higher > 0.5
    assert found.mean == pytest.approx((a - b).mean())
    back = compare(b, a)
    assert back.mean == -found.mean and back.p == found.p and back.higher == pytest.approx(1 - found.higher)
    assert not compare(a, rng.permutation(a)).sure
    assert compare([None], [1.0]).clips == 0 and compare([1.0], [2.0]).p is None
