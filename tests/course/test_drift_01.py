"""Notebook 01 builds by hand what wavelldm.stft, mel and griffin hold: on random inputs both must give the same."""

from dataclasses import replace

import pytest
import torch
from lift import definitions

from wavelldm.audio.mel import MELS, LogMel, fit_normalisation, griffin_lim, hz_to_mel, mel_bank
from wavelldm.audio.stft import hann, istft, stft

SHAPES = ((1024, 256), (1024, 160), (512, 64), (400, 100))  # n_fft, hop
BANKS = ((16_000, 1024, 80), (44_100, 2048, 160), (8_000, 256, 40))  # sr, n_fft, n_mels


@pytest.fixture(scope="module")
def mine():
    return definitions("01")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_fourier_matrix_and_window(mine):
    for size in (64, 100):  # the matrix is in double precision, so compare there
        x = noise(size)
        assert torch.allclose(mine["my_dft"](x), torch.fft.rfft(x.double()), atol=1e-10)
        assert torch.allclose(mine["my_hann"](size), hann(size, size), atol=1e-7)


@pytest.mark.parametrize("n_fft,hop", SHAPES)
def test_stft_and_inverse(mine, n_fft, hop):
    wav = noise(1, 9_001)
    spec = mine["my_stft"](wav, n_fft, hop)
    assert torch.allclose(spec, stft(wav, n_fft, hop, n_fft, "center")[0], atol=1e-4)
    changed = spec * (1 + 0.1j)  # no longer the spectrum of a sound: both must give the same nearest one
    ours = mine["my_istft"](changed, n_fft, hop, 9_001)
    assert torch.allclose(ours, istft(changed, n_fft, hop, n_fft, "center", 9_001)[None], atol=1e-5)


@pytest.mark.parametrize("n_fft,hop", SHAPES)
def test_stream(mine, n_fft, hop):
    wav = noise(20 * hop)
    frames = torch.stack(list(mine["my_stream"](wav.split(hop), n_fft, hop)), dim=1)
    assert torch.allclose(frames, stft(wav, n_fft, hop, n_fft, "causal"), atol=1e-4)


def test_reach(mine):
    assert mine["my_reach"]("causal", 31)[1] == 32 * 256 - 1
    assert mine["my_reach"]("center", 31)[1] == 31 * 256 + 511
    assert mine["my_reach"]("same", 31)[1] == 31 * 256 - 384 + 1023


@pytest.mark.parametrize("sr,n_fft,n_mels", BANKS)
def test_mel_bank_and_log_mel(mine, sr, n_fft, n_mels):
    hz = [0.0, 440.0, 1000.0, 3333.0, sr / 2]
    found = mine["my_hz_to_mel"](torch.tensor(hz, dtype=torch.float64))
    assert found.tolist() == pytest.approx([hz_to_mel(f) for f in hz])
    assert torch.allclose(mine["my_mel_bank"](sr, n_fft, n_mels), mel_bank(sr, n_fft, n_mels, 0, sr / 2), atol=1e-7)
    config = replace(MELS["base16k"], sr=sr, n_fft=n_fft, win=n_fft, n_mels=n_mels, fmax=sr / 2, padding="center")
    wav = 0.1 * noise(1, 9_001)
    wav[:, 4_000:] = 0  # so that some of it lies below the floor
    ours = mine["my_log_mel"](wav, sr, n_fft, config.hop, n_mels)
    assert torch.allclose(ours, LogMel(config)(wav[None], sr)[0], atol=1e-4)


def test_griffin_lim(mine):
    config = replace(MELS["base16k"], n_fft=256, win=256, hop=64, padding="center")
    wanted = mine["my_stft"](noise(1, 4_000), 256, 64).abs()
    ours = mine["my_griffin_lim"](wanted, 256, 64, 4, 4_000, seed=3)
    assert torch.allclose(ours, griffin_lim(wanted[None], config, 4, 0, seed=3, length=4_000)[0], atol=1e-3)


@pytest.mark.parametrize("kind", ("log", "db", "zscore", "percentile", "tanh"))
def test_normalisations(mine, kind):
    x = 2 * noise(80, 50, seed=1) - 5
    theirs, fitted = fit_normalisation(kind, x), mine["my_fit"](kind, x)
    assert fitted == pytest.approx((theirs.shift, theirs.scale))
    y = mine["my_forward"](kind, x, *fitted)
    assert torch.allclose(y, theirs.forward(x), atol=1e-5)
    assert torch.allclose(mine["my_inverse"](kind, y, *fitted), theirs.inverse(y), atol=1e-4)
    assert set(mine["KINDS"]) >= {kind}


def test_snr_of_a_correlation(mine):
    s, other = noise(2, 50_000, seed=2).double()
    s = s / s.norm()
    other = other - (other @ s) * s
    other = other / other.norm()
    for rho, gain in ((0.0, 1.0), (0.6, 0.7), (0.9, 0.9)):
        y = gain * (rho * s + (1 - rho**2) ** 0.5 * other)
        snr = -20 * torch.log10((s - y).norm()).item()
        assert mine["my_snr"](rho, gain) == pytest.approx(snr, abs=1e-9)
        assert mine["my_best_snr"](rho) >= snr - 1e-9
    assert mine["my_best_snr"](0.9) == pytest.approx(mine["my_snr"](0.9, 0.9))
