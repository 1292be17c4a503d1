import numpy as np
import pytest
from scipy.linalg import solve_toeplitz, toeplitz
from signals import noisy, speechlike

from wavelldm.metrics import composite as c

SR = 16_000


def test_identity_is_the_best_there_is():
    x = speechlike()
    assert c.llr(x, x, SR) == 0
    assert c.wss(x, x, SR) == 0
    assert c.segmental_snr(x, x, SR) == pytest.approx(35)
    assert c.composite(x, x, SR, pesq=4.64) == {"csig": 5.0, "cbak": 5.0, "covl": 5.0}


def test_regressions_by_hand():
    # CSIG 3.093 - 1.029 + 1.206 - 0.36, CBAK 1.634 + 0.956 - 0.28 + 0.315, COVL 1.594 + 1.61 - 0.512 - 0.28
    expected = {"csig": 2.91, "cbak": 2.625, "covl": 2.412}
    assert c.regress(pesq=2.0, llr=1.0, wss=40.0, segmental=5.0) == pytest.approx(expected)
    assert set(c.regress(1.0, 4.0, 150.0, -10.0).values()) == {1.0}


def test_levinson_solves_the_normal_equations():
    r = c.autocorrelation(c.frames(noisy(speechlike(0.5), 20), 480, 120), 16)  # (F, 17)
    for row, a in zip(r, c.levinson(r)):
        np.testing.assert_allclose(a, [1, *-solve_toeplitz(row[:-1], row[1:])], rtol=1e-6, atol=1e-9)


def test_levinson_finds_the_pole_of_a_decaying_autocorrelation():
    np.testing.assert_allclose(c.levinson(np.array([[1.0, 0.5, 0.25, 0.125]])), [[1, -0.5, 0, 0]], atol=1e-15)


def windowed(x, size=480, hop=120):
    """All frames but the last whole one, the long way."""
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, size + 1) / (size + 1)))
    return [x[i : i + size] * window for i in range(0, (len(x) - size) // hop * hop, hop)]


def lowest(values):
    return np.mean(np.sort(values)[: round(0.95 * len(values))])


def test_llr_equals_its_matrix_form_frame_by_frame():
    x = speechlike(1.0)
    y = noisy(x, 5)
    ratios = []
    for s, e in zip(windowed(x), windowed(y)):
        r_s, r_e = ([f[: 480 - k] @ f[k:] for k in range(17)] for f in (s, e))
        a_s, a_e = (np.r_[1, -solve_toeplitz(r[:-1], r[1:])] for r in (r_s, r_e))
        ratios.append(np.log((a_e @ toeplitz(r_s) @ a_e) / (a_s @ toeplitz(r_s) @ a_s)))
    assert c.llr(x, y, SR) == pytest.approx(lowest(ratios), rel=1e-6)


def test_llr_is_blind_to_gain_and_wss_too():
    x = speechlike()
    y = noisy(x, 10)
    assert c.llr(x, 0.1 * y, SR) == pytest.approx(c.llr(x, y, SR), rel=1e-6)
    assert c.wss(x, 0.1 * x, SR) == pytest.approx(0, abs=1e-6)


def test_wss_equals_the_measure_written_out_band_by_band():
    x = speechlike(1.0)
    y = noisy(x, 5)
    bank = c.critical_bands(SR, 1024)
    values = []
    for pair in zip(windowed(x + c.EPS), windowed(y + c.EPS)):
        slopes, weights = [], []
        for frame in pair:
            level = 10 * np.log10(np.maximum(bank @ np.abs(np.fft.fft(frame, 1024)[:512]) ** 2, 1e-10))
            slope, weight = level[1:] - level[:-1], []
            for band in range(24):
                at = band
                if slope[band] > 0:
                    while at < 24 and slope[at] > 0:
                        at += 1
                    peak = level[at - 1]
                else:
                    while at >= 0 and slope[at] <= 0:
                        at -= 1
                    peak = level[at + 1]
                weight.append(20 / (20 + level.max() - level[band]) / (1 + peak - level[band]))
            slopes.append(slope)
            weights.append(weight)
        w = np.mean(weights, axis=0)
        values.append(w @ (slopes[0] - slopes[1]) ** 2 / w.sum())
    assert c.wss(x, y, SR) == pytest.approx(lowest(values), rel=1e-9)


def test_weights_of_one_hill_by_hand():
    level = np.array([[0.0, 10, 20, 30, 20, 10] + [10.0] * 19])  # the top is band 3
    slope = np.diff(level, axis=1)
    weight = c.slope_weights(level, slope)[0]
    # uphill the peak is band 2 (20 dB), the last before the top; from the top on it is the top itself
    np.testing.assert_allclose(weight[:5], [20 / 50 / 21, 20 / 40 / 11, 20 / 30 / 1, 1, 20 / 30 / 11])
    np.testing.assert_allclose(weight[5:], 20 / 40 / 21)  # flat counts as falling: the peak is still band 3


def test_critical_bands_have_equal_areas_and_peak_at_their_centres():
    bank = c.critical_bands(SR, 1024)
    assert bank.shape == (25, 512)
    np.testing.assert_allclose(bank.argmax(axis=1), np.floor(c.CENTRES * 1024 / SR))
    # cut at -30 dB and sampled at 15.6 Hz: the areas agree to a few per cent, except that the lowest band meets 0 Hz
    np.testing.assert_allclose(bank.sum(axis=1)[1:], bank.sum(axis=1)[1:].mean(), rtol=0.05)
    assert np.all(bank[(bank > 0)] > np.exp(-30 / 4.606))


def test_segmental_snr_of_scaled_noise_by_hand():
    x = np.random.default_rng(0).standard_normal(SR)
    assert c.segmental_snr(x, 1.1 * x, SR) == pytest.approx(20)  # the error is a tenth of the signal
    assert c.segmental_snr(x, 21 * x, SR) == -10  # -26 dB, clamped
    half = np.concatenate([x, np.zeros(SR)])
    # 262 frames, of which 134 begin before the silence; a silent one counts as -10
    assert c.segmental_snr(half, 1.1 * half, SR) == pytest.approx((134 * 20 - 128 * 10) / 262)


def test_more_noise_is_worse():
    x = speechlike()
    versions = [noisy(x, snr) for snr in (0, 10, 20)]
    scores = [(-c.llr(x, y, SR), -c.wss(x, y, SR), c.segmental_snr(x, y, SR)) for y in versions]
    assert np.all(np.diff(scores, axis=0) > 0)


def test_digital_silence_gives_numbers():
    x = speechlike()
    y = noisy(x, 10)
    x[8000:20000], y[14000:26000] = 0, 0
    assert all(np.isfinite(f(x, y, SR)) for f in (c.llr, c.wss, c.segmental_snr))


@pytest.mark.parametrize(
    "clean, enhanced, says",
    [
        (np.ones(1000), np.ones(999), "1000 samples and the enhanced one 999"),
        (np.ones(599), np.ones(599), "too short: 37.4 ms"),
        (np.zeros(1000), np.ones(1000), "silent"),
        (np.ones((2, 1000)), np.ones(1000), "one channel"),
        (np.ones(1000), np.full(1000, np.nan), "enhanced clip holds NaN"),
        (np.ones(0), np.ones(0), "no samples"),
    ],
)
def test_what_cannot_be_scored_is_refused(clean, enhanced, says):
    with pytest.raises(c.MetricError, match=says):
        c.segmental_snr(clean, enhanced, SR)


def test_one_hop_more_than_a_frame_is_enough():
    assert c.segmental_snr(np.ones(600), np.ones(600), SR) == 35
