"""What is damaged is found, what is whole is left alone, and blocks do not matter."""

import numpy as np
import pytest
import torch
from signals import noisy, speechlike

from wavelldm.restore.find import Damage, Finder, find

SR = 16_000


def rounded(wav: np.ndarray, bits: int = 16) -> torch.Tensor:
    """(N,) -> (1, N), as a file of so many bits holds it."""
    return torch.from_numpy(np.round(np.asarray(wav) * 2 ** (bits - 1)).astype(np.float32) / 2 ** (bits - 1))[None]


def with_gaps(wav: torch.Tensor, *gaps: tuple[int, int]) -> torch.Tensor:
    out = wav.clone()
    for a, b in gaps:
        out[:, a:b] = 0
    return out


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000, 192_000])
def test_nothing_is_found_where_nothing_is_damaged(sr):
    assert find(rounded(speechlike(3.0, sr)), sr) == (Damage(),)
    assert find(rounded(noisy(speechlike(3.0, sr, seed=1), 10)), sr) == (Damage(),)


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000, 192_000])
def test_dropouts_are_found_to_the_sample(sr):
    gaps = tuple((round(a * sr), round(b * sr)) for a, b in ((0.33, 0.345), (1.31, 1.37), (2.1, 2.55)))
    (found,) = find(with_gaps(rounded(noisy(speechlike(3.0, sr), 10)), *gaps), sr)
    assert len(found.gaps) == 3
    assert max(abs(a - b) for pair in zip(found.gaps, gaps) for a, b in zip(*pair)) <= 2


@pytest.mark.parametrize("cutoff", [1_700.0, 3_400.0, 5_000.0, 7_000.0])
def test_a_missing_band_is_found(cutoff):
    wav = np.fft.rfft(noisy(speechlike(3.0), 10))
    wav[round(cutoff * 3) :] = 0
    (found,) = find(rounded(np.fft.irfft(wav)), SR)
    assert abs(found.cutoff - cutoff) < 150


@pytest.mark.parametrize("low, high", [(-0.1, 0.1), (-0.12, None), (-0.2, 0.15)])
@pytest.mark.parametrize("bits", [8, 16])
def test_ceilings_are_found_after_scaling_and_rounding(low, high, bits):
    wav = rounded(1.3 * speechlike(3.0).clip(low, high), bits)
    (found,) = find(wav, SR)
    for mine, true in zip(found.ceiling, (low, high)):
        assert np.isinf(mine) if true is None else abs(mine / (1.3 * true) - 1) < (0.05 if bits == 8 else 0.01)


def test_how_a_recording_is_cut_into_blocks_does_not_matter():
    wav = rounded(noisy(speechlike(20.0), 10))
    wav = with_gaps(torch.cat([wav, 0.5 * wav.roll(5_000, 1)]), (7 * SR, 7 * SR + 800), (8 * SR - 50, 8 * SR + 3_000))
    whole = find(wav, SR)
    assert len(whole[0].gaps) == 2
    for size in (1_001, 50_000):
        finder = Finder(SR)
        for block in wav.split(size, dim=1):
            finder.push(block)
        assert finder.finish() == whole


def test_faded_silence_is_found_and_a_cutoff_beside_many_gaps():
    wav = np.fft.rfft(noisy(speechlike(3.0), 10))
    wav[round(4_000 * 3) :] = 0
    wav, gaps = np.fft.irfft(wav), [(a, a + 800) for a in range(3_000, 45_000, 3_000)]
    for a, b in gaps:
        ramp = np.linspace(0, 1, 80)
        wav[a:b] *= np.concatenate([ramp[::-1], np.zeros(640), ramp])
    (found,) = find(rounded(wav), SR)
    assert len(found.gaps) == len(gaps)
    assert abs(found.cutoff - 4_000) < 150


def test_silence_in_the_steps_of_the_samples_is_no_gap():
    wav = speechlike(3.0)
    wav[20_000:24_000] = np.random.default_rng(0).integers(-1, 2, 4_000) / 2**15
    wav[21_000:21_300] = 0
    assert find(rounded(wav), SR)[0].gaps == ()


def bursts(seconds: float = 5.0) -> np.ndarray:
    """Noise (N,) that is loud for half a second of each, then dies away by 46 dB within 0.3 s, and stays there."""
    t = np.arange(round(seconds * SR)) / SR % 1.0
    return 0.2 * np.random.default_rng(0).standard_normal(len(t)) * 10 ** (-46 / 20 * ((t - 0.5) / 0.3).clip(0, 1))


def test_gaps_that_end_in_quiet_sound_are_not_taken_for_a_gate():
    wav = bursts()
    gaps = tuple((round((k + 0.45) * SR), round((k + 0.82) * SR)) for k in range(4))
    for a, b in gaps:
        wav[a:b] = 0.0
    assert find(torch.from_numpy(wav)[None].float(), SR)[0].gaps == gaps


def test_the_silences_of_a_gate_are_no_gaps():
    """It closes where the sound is quiet, so hardly anything quieter is left."""
    wav = bursts()
    t = np.arange(len(wav)) / SR % 1.0
    wav[(t > 0.72) & (t < 0.97)] = 0.0
    assert find(torch.from_numpy(wav)[None].float(), SR)[0].gaps == ()
