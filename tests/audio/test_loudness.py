import math

import numpy as np
import pytest
import torch

from wavelldm.audio.loudness import at_loudness, loudness, weighting


def sine(hz, level, sr, seconds=2.0):
    t = torch.arange(round(seconds * sr), dtype=torch.float64) / sr
    return 10 ** (level / 20) * torch.sin(2 * math.pi * hz * t)


def test_the_filters_are_those_of_the_standard_at_48_khz():
    (b, a), (b2, a2) = weighting(48_000)
    np.testing.assert_allclose(b, [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-9)
    np.testing.assert_allclose(a, [1.0, -1.69065929318241, 0.73248077421585], atol=1e-9)
    np.testing.assert_allclose(b2, [1.0, -2.0, 1.0])
    np.testing.assert_allclose(a2, [1.0, -1.99004745483398, 0.99007225036621], atol=1e-9)


@pytest.mark.parametrize("sr", [16_000, 22_050, 44_100, 48_000])
def test_a_sine_at_full_scale_has_minus_3_01(sr):
    assert loudness(sine(997, 0, sr), sr) == pytest.approx(-3.01, abs=0.05)
    assert loudness(sine(997, -20, sr), sr) == pytest.approx(-23.01, abs=0.05)


def test_pauses_do_not_count_and_low_tones_count_less():
    sr = 48_000
    tone = sine(997, -20, sr, 4.0)
    paused = torch.cat([tone, torch.zeros(8 * sr, dtype=tone.dtype)])
    assert loudness(paused, sr) == pytest.approx(loudness(tone, sr), abs=0.3)
    quiet = torch.cat([tone, sine(997, -60, sr, 8.0)])  # the relative gate leaves it out
    assert loudness(quiet, sr) == pytest.approx(loudness(tone, sr), abs=0.3)
    assert loudness(sine(40, -20, sr), sr) < loudness(tone, sr) - 4
    assert loudness(torch.stack([tone, tone]), sr) == pytest.approx(loudness(tone, sr) + 3.01, abs=0.01)


def test_silence_and_snippets():
    assert loudness(torch.zeros(16_000), 16_000) == -math.inf
    assert loudness(torch.zeros(0), 16_000) == -math.inf
    assert loudness(sine(997, -20, 16_000, 0.1), 16_000) == pytest.approx(-23, abs=0.5)
    assert torch.equal(at_loudness(torch.zeros(100), 16_000, -23.0), torch.zeros(100))


def test_aligned_sounds_are_equally_loud():
    noise = torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    for wav in (0.01 * noise, sine(300, -3, 16_000)):
        assert loudness(at_loudness(wav, 16_000, -26.0), 16_000) == pytest.approx(-26, abs=0.05)
