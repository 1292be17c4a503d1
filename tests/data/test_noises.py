"""Noises: their spectra have the slopes they are named after, their level is exact, their seed is a recording."""

import time

import numpy as np
import pytest
from scipy.signal import welch

from wavelldm.data.noises import NOISES, babble, hum, keyboard
from wavelldm.errors import AudioError

SR = 16_000
every_noise = pytest.mark.parametrize("kind", NOISES)


def make(kind, seed=0, n=5 * SR, sr=SR):
    return NOISES[kind](n, sr, np.random.default_rng(seed))


def power(x, low, high, sr=SR):
    f, p = welch(x, sr, nperseg=8192)
    return p[(f >= low) & (f < high)].sum()


@every_noise
def test_level_type_and_length(kind):
    for n in (1, 2, 1001, SR):
        x = make(kind, n=n)
        assert x.shape == (n,) and x.dtype == np.float32
        assert np.sqrt(np.mean(np.square(x, dtype=np.float64))) == pytest.approx(1, abs=1e-5)


@every_noise
def test_the_seed_decides_every_sample(kind):
    assert np.array_equal(make(kind, seed=1), make(kind, seed=1))
    assert not np.array_equal(make(kind, seed=1), make(kind, seed=2))


@every_noise
def test_other_rates(kind):
    x = make(kind, n=44_100, sr=44_100)
    assert np.isfinite(x).all() and np.mean(np.square(x)) == pytest.approx(1, abs=1e-4)
    assert np.isfinite(make(kind, n=8_000, sr=8_000)).all()


@every_noise
def test_no_offset(kind):
    assert abs(make(kind, n=30 * SR).mean()) < 0.05


@pytest.mark.parametrize("kind, slope", [("white", 0.0), ("pink", -3.0103), ("brown", -6.0206)])
def test_slope_in_db_per_octave(kind, slope):
    f, p = welch(make(kind, n=60 * SR), SR, nperseg=4096)
    band = (f > 100) & (f < 7800)
    octaves, weight = np.log2(f[band]), 1 / np.sqrt(f[band])  # every octave has its say
    fitted = np.polyfit(octaves, 10 * np.log10(p[band]), 1, w=weight)[0]
    assert fitted == pytest.approx(slope, abs=0.1)


def test_white_noise_is_normal():
    x = make("white", n=60 * SR).astype(np.float64)
    assert np.mean(x**4) == pytest.approx(3, abs=0.03)  # kurtosis of the normal distribution


def test_hum_is_harmonics_of_50_or_60_hz():
    found = set()
    for seed in range(8):
        x = hum(10 * SR, SR, np.random.default_rng(seed))
        lines = {mains: sum(power(x, k * mains - 4, k * mains + 4) for k in (1, 3, 7)) for mains in (50, 60)}
        total = power(x, 0, SR / 2)
        mains = max(lines, key=lines.get)
        assert lines[mains] > 0.5 * total and power(x, 2000, 8000) < 0.01 * total
        found.add(mains)
    assert found == {50, 60}


def test_babble_is_made_of_the_voices():
    t = np.arange(SR) / SR
    voices = [np.sin(2 * np.pi * f * t) for f in (440, 1000)] + [np.zeros(SR)]  # a silent voice is left out
    x = babble(5 * SR, SR, np.random.default_rng(0), voices)
    heard = power(x, 420, 460) + power(x, 980, 1020)
    assert heard > 0.95 * power(x, 0, SR / 2)


def test_babble_without_voices_comes_in_syllables():
    def sway(x):  # how much the level of 50 ms differs from the average level
        levels = np.sqrt(np.mean(x[: len(x) // 800 * 800].reshape(-1, 800) ** 2, axis=1))
        return levels.std() / levels.mean()

    assert sway(make("babble")) > 4 * sway(make("white"))
    assert power(make("babble"), 100, 1000) > 3 * power(make("babble"), 2000, 8000)


def test_keys_are_clicks_with_a_quiet_room_between():
    x = keyboard(10 * SR, SR, np.random.default_rng(0))
    levels = np.sort(np.mean(x.reshape(-1, 160) ** 2, axis=1))  # of 10 ms
    assert levels[-1] > 1000 * np.median(levels) and levels[0] > 0
    peaks = np.flatnonzero(np.abs(x) > 0.25 * np.abs(x).max())
    clicks = 1 + np.sum(np.diff(peaks) > 0.02 * SR)
    assert 10 <= clicks <= 150  # in ten seconds


def test_wind_gusts_and_rain_does_not():
    def range_db(x):
        levels = 10 * np.log10(np.mean(x.reshape(-1, SR // 2) ** 2, axis=1))
        return levels.max() - levels.min()

    winds, rains = ([range_db(make(kind, seed, 20 * SR)) for seed in range(3)] for kind in ("wind", "rain"))
    assert min(winds) > 6 > max(rains)


def test_engine_is_periodic():
    x = make("engine", n=4 * SR).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
    f = np.fft.rfftfreq(len(x), 1 / SR)
    low = spectrum[(f > 30) & (f < 300)]
    assert low.max() > 20 * np.median(low)  # lines stand out of the floor


@every_noise
def test_fast(kind):
    make(kind)
    times = []
    for seed in range(3):
        start = time.thread_time()
        make(kind, seed)
        times.append(time.thread_time() - start)
    assert 5 / min(times) > 200  # times real time; about 600 to 3000 on an idle core


def test_no_samples_is_an_error():
    for kind in NOISES:
        with pytest.raises(AudioError, match="at least one sample"):
            make(kind, n=0)
