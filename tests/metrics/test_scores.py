import math
import warnings

import numpy as np
import pytest
import torch
from signals import noisy, speechlike

from wavelldm.audio.files import resample
from wavelldm.errors import WavelldmError
from wavelldm.metrics import scores as m
from wavelldm.metrics.alignment import align, undelay

SR = 16_000


@pytest.fixture(scope="module")
def pair():
    clean = speechlike(3.0)
    return clean, noisy(clean, 10)


def test_values_by_hand():
    s, y = np.array([1.0, 1, -1, -1]), np.array([1.0, 0, -1, 0])
    assert m.snr(s, y, SR) == pytest.approx(10 * math.log10(2))  # |s|^2 = 4, |s - y|^2 = 2
    # projection 0.5 s: |0.5 s|^2 = 1, |y - 0.5 s|^2 = 1
    assert m.si_sdr(s, y, SR) == pytest.approx(0, abs=1e-12)
    assert m.correlation(s, y, SR) == pytest.approx(2 / math.sqrt(8))
    assert m.snr(s, s, SR) == math.inf


def test_snr_and_si_sdr_equal_torchmetrics(pair):
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

    s, y = map(torch.from_numpy, pair)
    assert m.snr(s, y, SR) == pytest.approx(signal_noise_ratio(y, s).item(), abs=1e-9) == pytest.approx(10)
    assert m.si_sdr(s, y, SR) == pytest.approx(scale_invariant_signal_distortion_ratio(y, s).item(), abs=1e-9)


def test_si_sdr_and_correlation_ignore_gain_and_snr_does_not(pair):
    s, y = pair
    assert m.si_sdr(s, 0.3 * y, SR) == pytest.approx(m.si_sdr(s, y, SR), abs=1e-9)
    assert m.correlation(s, 0.3 * y + 0.1, SR) == pytest.approx(m.correlation(s, y, SR), abs=1e-12)
    assert m.snr(s, 0.3 * y, SR) < 5


def test_the_best_gain_reaches_the_snr_that_the_correlation_allows(pair):
    s, y = (x - x.mean() for x in pair)
    rho = m.correlation(s, y, SR)
    best = m.snr(s, y * (s @ y) / (y @ y), SR)
    assert best == pytest.approx(-10 * math.log10(1 - rho**2), abs=1e-9)


def test_spectral_distances_of_a_scaled_clip_by_hand():
    loud = 0.1 * np.random.default_rng(0).standard_normal(SR)  # no bin near the floor
    assert m.spectral_convergence(loud, 0.9 * loud, SR) == pytest.approx(0.1)
    assert m.lsd(loud, 0.1 * loud, SR) == pytest.approx(2)  # -20 dB everywhere is 2 bel
    assert m.mel_distance(loud, 0.5 * loud, SR) == pytest.approx(math.log(2), abs=1e-6)


def test_lsd_of_a_missing_band_looks_at_that_band_alone():
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(SR))
    full = np.fft.irfft(spectrum)
    spectrum[4_000:] *= 0.1  # bins of 1 Hz
    assert m.lsd(full, np.fft.irfft(spectrum), SR, above=4_100.0) == pytest.approx(2, abs=0.01)


def test_lsd_floors_digital_silence_at_minus_120_db():
    sine = np.sin(2 * np.pi * 1000 / SR * np.arange(SR))  # on bin 64 of 512: a Hann window reaches three bins
    expected = math.sqrt((12.0**2 + 2 * (12 - math.log10(4)) ** 2) / 513)
    assert m.lsd(sine, 1e-9 * np.ones(SR), SR) == pytest.approx(expected, rel=1e-3)


def test_pesq_equals_torchmetrics(pair):
    from torchmetrics.functional.audio import perceptual_evaluation_speech_quality as reference

    s, y = (torch.from_numpy(x).float() for x in pair)
    assert m.pesq_wb(s, y, SR) == pytest.approx(reference(y, s, SR, "wb").item(), abs=1e-6)
    assert m.pesq_nb(s, y, SR) == pytest.approx(reference(y, s, SR, "nb").item(), abs=1e-6)
    s8, y8 = (resample(x, SR, 8000) for x in (s, y))
    assert m.pesq_nb(s8, y8, 8000) == pytest.approx(reference(y8, s8, 8000, "nb").item(), abs=1e-6)


def test_pesq_resamples_other_rates(pair):
    s, y = (torch.from_numpy(x) for x in pair)
    up = [resample(x, SR, 44_100) for x in (s, y)]
    assert m.pesq_wb(*up, 44_100) == pytest.approx(m.pesq_wb(s, y, SR), abs=0.02)


def test_long_clips_are_scored_in_pieces_that_pesq_survives():
    s = np.concatenate([speechlike(4.0, seed=i) for i in range(12)])  # 48 s: three pieces
    y = noisy(s, 15)
    pieces = [m.pesq_wb(a, b, SR) for a, b in zip(np.split(s, 3), np.split(y, 3))]
    assert m.pesq_wb(s, y, SR) == pytest.approx(np.mean(pieces))
    assert len(set(pieces)) == 3
    bursts = np.tile(np.r_[np.ones(4000), np.zeros(4000)], 70) * np.random.default_rng(0).standard_normal(70 * 8000)
    assert 1 < m.pesq_wb(bursts, noisy(bursts, 10), SR) < 4.65  # 70 utterances: too many for the reference code at once


def test_stoi_equals_torchmetrics(pair):
    from torchmetrics.functional.audio import short_time_objective_intelligibility as reference

    s, y = map(torch.from_numpy, pair)
    assert m.stoi(s, y, SR) == pytest.approx(100 * reference(y, s, SR).item(), abs=1e-4)
    assert m.estoi(s, y, SR) == pytest.approx(100 * reference(y, s, SR, extended=True).item(), abs=1e-4)


def test_estoi_is_reproducible_and_leaves_the_global_generator_alone(pair):
    s, y = pair[0], pair[1].copy()
    y[16000:40000] = 0  # digital silence: there the package's own noise decides
    np.random.seed(5)
    first = m.estoi(s, y, SR)
    drawn = np.random.rand()
    np.random.seed(5)
    assert np.random.rand() == drawn
    assert m.estoi(s, y, SR) == first


def test_composite_uses_wb_pesq_at_16_khz(pair):
    from wavelldm.metrics.composite import composite

    s, y = pair
    parts = composite(np.float32(s), np.float32(y), SR, m.pesq_wb(s, y, SR))
    assert {"csig": m.csig(s, y, SR), "cbak": m.cbak(s, y, SR), "covl": m.covl(s, y, SR)} == pytest.approx(parts)


def test_dnsmos_equals_speechmos_and_hears_noise(pair):
    from speechmos import dnsmos as package

    s, y = (np.float32(x) for x in pair)
    mine, theirs = m.dnsmos(y, SR), package.run(y, SR)
    assert set(mine) == {"OVRL", "SIG", "BAK", "P808"}
    for name, value in mine.items():
        assert value == pytest.approx(theirs[f"{name.lower()}_mos"], abs=1e-4)
        assert m.METRICS[f"dnsmos_{name.lower()}"].function(s, y, SR) == value
    assert m.dnsmos(s, SR)["BAK"] > mine["BAK"]
    assert m.dnsmos(4 * y, SR) == m.dnsmos(np.clip(4 * y, -1, 1), SR)  # speechmos alone would refuse it


def test_plcmos_hears_dropouts_and_says_the_same_twice(pair):
    s = np.float32(pair[0])
    lost = s.copy()
    for start in range(4000, len(s), 8000):
        lost[start : start + 1600] = 0
    before = np.random.get_state()[1].copy()
    whole, holes = m.plcmos(s, s, SR), m.plcmos(s, lost, SR)
    assert 1 <= holes < whole <= 5 and m.plcmos(s, lost, SR) == holes
    assert (np.random.get_state()[1] == before).all()  # other people's random numbers stay as they are
    with pytest.raises(m.MetricError, match=r"shorter than 0\.125 s"):
        m.plcmos(s[:1999], s[:1999], SR)
    assert 1 <= m.plcmos(s[:2000], s[:2000], SR) <= 5


def test_every_metric_is_in_its_range_takes_tensors_and_ranks_noise():
    s = speechlike(2.0)
    better, worse = noisy(s, 20), noisy(s, 0)
    for name, metric in m.METRICS.items():
        if name.startswith(("dnsmos", "plcmos")):  # the networks need not rank a buzz
            continue
        good, bad = (metric.function(torch.from_numpy(s)[None], torch.from_numpy(y)[None], SR) for y in (better, worse))
        assert isinstance(good, float)
        assert all(metric.range[0] <= v <= metric.range[1] for v in (good, bad)), name
        assert (good > bad) == metric.higher_is_better, name


@pytest.mark.parametrize("name", [n for n in m.METRICS if not n.startswith(("dnsmos", "plcmos"))])
def test_silence_and_snippets_give_a_number_or_a_clear_refusal(name, pair):
    s = pair[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(m.MetricError, match="silent"):
            m.METRICS[name].function(0 * s, s, SR)
        for clean, enhanced in ((s, 0 * s), (s[:100], s[100:200]), (s[:1], 0.5 * s[:1]), (s[3000:6000], s[3000:6000])):
            try:
                assert not math.isnan(m.METRICS[name].function(clean, enhanced, SR))
            except m.MetricError as error:
                reasons = ("silent", "short", "constant", "speech", "second")
                assert any(word in str(error) for word in reasons), str(error)


def test_a_silent_result_is_refused_where_no_value_is_defined(pair):
    for name in ("si_sdr", "correlation", "pesq_wb", "stoi", "estoi", "csig"):
        with pytest.raises(m.MetricError, match="silent|constant"):
            m.METRICS[name].function(pair[0], 0 * pair[0], SR)
    assert m.snr(pair[0], 0 * pair[0], SR) == 0
    assert m.spectral_convergence(pair[0], 0 * pair[0], SR) == 1


def test_sixteen_bit_clips_have_the_scores_of_their_floats(pair):
    whole = [(x / 8 * 2**15).round().astype(np.int16) for x in pair]
    floats = [x / 2**15 for x in whole]
    for name in ("snr", "lsd", "mel_distance", "cbak"):
        assert m.METRICS[name].function(*whole, SR) == pytest.approx(m.METRICS[name].function(*floats, SR), rel=1e-4)
    assert m.lsd(torch.from_numpy(whole[0]), floats[1], SR) == pytest.approx(m.lsd(*floats, SR))
    for wrong in (np.arange(10), np.array(["a"])):
        with pytest.raises(m.MetricError, match="cannot be scored"):
            m.snr(wrong, wrong, SR)


def test_choose_expands_groups_in_order_and_refuses_strangers():
    assert m.choose(None) == list(m.METRICS)
    assert m.choose(["covl", "pesq", "snr"]) == ["snr", "pesq_wb", "pesq_nb", "covl"]
    assert len(m.choose(["dnsmos"])) == 4
    for wrong in (["loudness"], []):
        with pytest.raises(WavelldmError, match="choose among"):
            m.choose(wrong)


# --- delay


@pytest.mark.parametrize("delay", [-300, -1, 0, 7, 800])
def test_a_whole_delay_is_found_and_taken_out_exactly(delay):
    long = speechlike(1.0)
    s, y = long[1000:-1000], long[1000 - delay : len(long) - 1000 - delay]  # y lags by `delay`
    assert align(s, y, 800) == delay
    a, b = undelay(s, y, delay)
    np.testing.assert_array_equal(a, b)
    assert len(a) == len(s) - abs(delay)


def test_a_fraction_of_a_sample_is_found_and_taken_out():
    rng = np.random.default_rng(0)
    freqs, phases = rng.uniform(50, 6000, 200), rng.uniform(0, 6, 200)  # sines, so the shifted signal is known exactly
    t = np.arange(SR)[:, None] / SR
    s, y = (np.sin(2 * np.pi * freqs * (t - d / SR) + phases).sum(axis=1) * np.hanning(SR) for d in (0, 12.37))
    found = align(s, y, 100, subsample=True)
    assert found == pytest.approx(12.37, abs=0.01)
    assert align(s, y, 100) == 12
    a, b = undelay(s, y, found)
    assert m.si_sdr(a, b, SR) > 40 > 20 > m.si_sdr(s[:-12], y[12:], SR)


def test_the_search_stays_within_its_range():
    s = np.random.default_rng(0).standard_normal(4000)
    y = np.roll(s, 50)
    assert abs(align(s, y, 20)) <= 20 and abs(align(s, y, 20, subsample=True)) <= 20
    assert align(s, y, 0, subsample=True) == 0
    with pytest.raises(m.MetricError, match="silent"):
        align(s, 0 * s, 20)
