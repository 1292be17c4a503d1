"""What notebook 18 builds by hand is what the module has."""

import numpy as np
import pytest
import torch
from lift import definitions
from signals import noisy, speechlike

from wavelldm import course
from wavelldm.app import listen_report
from wavelldm.course.steps_late import bootstrap
from wavelldm.metrics import intervals, scores

HAND = definitions("18")
HAND["bootstrap"] = bootstrap  # what the reader writes
SR = 16_000


@pytest.fixture(scope="module", params=[0, 1])
def pair(request):
    s = speechlike(2.0, seed=request.param)
    return [torch.from_numpy(x)[None] for x in (s, noisy(s, 5))]


def test_the_definitions_are_the_notebooks_own():
    for name in "my_si_sdr my_segmental_snr my_stoi my_interval my_sign_flip my_two_way blind_test power".split():
        assert HAND[name].__module__ == "18_evaluation_and_listening_tests"


def test_metrics_by_hand(pair):
    assert HAND["my_si_sdr"](*pair) == pytest.approx(scores.si_sdr(*pair, SR), abs=1e-9)
    assert HAND["my_segmental_snr"](*pair, SR)[0] == pytest.approx(scores.segmental_snr(*pair, SR), abs=1e-6)
    assert HAND["my_stoi"](*pair, 10_000) == pytest.approx(scores.stoi(*pair, 10_000), abs=1e-6)
    assert HAND["my_stoi"](*pair, SR) == pytest.approx(scores.stoi(*pair, SR), abs=0.2)


def test_intervals_by_hand():
    x = np.random.default_rng(0).gamma(2.0, 1.0, 30)
    assert HAND["my_interval"](x) == pytest.approx(intervals.interval(x))
    small = x[:12] - 1.6
    assert HAND["my_sign_flip"](small) == pytest.approx(intervals.sign_flip(small), abs=0.02)
    ratings = HAND["simulated"](10, 8, 0.2, np.random.default_rng(1))[0]
    assert ratings.shape == (10, 8) and set(np.unique(ratings)) <= {1, 2, 3, 4, 5}
    assert HAND["my_two_way"](ratings) == pytest.approx(listen_report.two_way(ratings), abs=0.04)


def test_power_grows_with_listeners_and_is_five_per_cent_without_a_difference():
    assert HAND["power"](20, 6, 0.0, 60) <= 0.15
    assert HAND["power"](8, 6, 0.4, 40) < HAND["power"](30, 6, 0.4, 40) and HAND["power"](30, 6, 0.4, 40) > 0.85


def test_the_constructed_cases_are_what_they_are_called(pair):
    HAND["sr"] = SR
    clean = pair[0].float()
    low = torch.fft.rfft(HAND["low_passed"](clean, 3000))[0].abs()
    assert low[int(3010 * clean.shape[-1] / SR) :].max() < 1e-3 * low.max()
    lost = HAND["with_dropouts"](clean)
    assert not lost[:, SR // 4 : SR // 4 + 960].any() and torch.equal(lost[:, : SR // 4], clean[:, : SR // 4])
    turned = HAND["with_random_phases"](clean)
    assert turned.shape == clean.shape and abs(scores.correlation(clean, turned, SR)) < 0.2
    assert scores.lsd(clean, turned, SR) < scores.lsd(clean, HAND["low_passed"](clean, 3000), SR)
    flat = HAND["equalised"](clean, np.zeros(8))
    torch.testing.assert_close(flat, clean, atol=1e-5, rtol=0)


def test_the_blind_test_counts_right_answers_and_changes_places():
    HAND["course"] = course
    clean = torch.from_numpy(speechlike(0.5)).float()[None]
    test = HAND["blind_test"](clean, 0.1 * clean.flip(-1), SR, trials=5, seed=0)
    places = set()
    for right in (True, True, False, True, True):
        x = test["state"]["x"]
        places.add((tuple(test["state"]["order"]), x))
        test["buttons"]["AB"[x if right else 1 - x]].click()
    assert test["answers"] == [True, True, False, True, True] and len(places) > 1
    assert "4 of 5 right" in test["said"].value and f"{6 / 32:.3f}" in test["said"].value
    test["buttons"]["A"].click()  # the test is over
    assert len(test["answers"]) == 5


def test_intervals_of_the_slider_shrink_with_more_clips():
    HAND["apart"] = np.tile(np.random.default_rng(0).standard_normal(8), 4)
    import matplotlib.pyplot as plt

    before = len(plt.get_fignums())
    widths = []
    for count in (8, 32):
        ax = HAND["how_many"](count, 1.0).axes[0]
        title = "".join(ax.get_title(loc=place) for place in ("left", "center"))
        assert f"{count} clips" in title
        low, high = ax.lines[1].get_xdata()
        widths.append(high - low)
    assert len(plt.get_fignums()) == before and widths[1] < widths[0]
