from dataclasses import replace

import librosa
import pytest
import torch
from reference import torchaudio
from signals import voice

from wavelldm.audio.mel import LogMel, MelConfig, bank_of, griffin_lim, mel_to_magnitude, mel_to_wav
from wavelldm.audio.stft import magnitude, stft

CENTER = MelConfig(n_mels=80, padding="center")


def spectrum(wav, c):
    spec = stft(wav, c.n_fft, c.hop, c.win, c.padding)
    return magnitude(spec.real, spec.imag)


def convergence(wav, wanted, c):
    """Spectral convergence in dB: how far the magnitudes are off, relative to what they should be."""
    return (20 * torch.log10(torch.linalg.norm(spectrum(wav, c) - wanted) / torch.linalg.norm(wanted))).item()


@pytest.mark.parametrize("padding", ("center", "same", "causal"))
def test_more_iterations_and_momentum_come_nearer(padding):
    c = replace(CENTER, padding=padding)
    wanted = spectrum(voice(c.sr), c)
    slow = [convergence(griffin_lim(wanted, c, n, momentum=0, length=16_000), wanted, c) for n in (0, 1, 8, 32, 100)]
    assert slow == sorted(slow, reverse=True), "the plain method never gets worse"
    fast = convergence(griffin_lim(wanted, c, 32, momentum=0.99, length=16_000), wanted, c)
    assert fast < slow[3] - 2 and fast < -15


def test_as_near_as_librosa_and_torchaudio():
    c, wav = CENTER, voice(16_000)
    wanted = spectrum(wav, c)
    ours = convergence(griffin_lim(wanted, c, 32, length=16_000), wanted, c)
    theirs = librosa.griffinlim(
        wanted[0].numpy(), n_iter=32, hop_length=256, random_state=0, length=16_000, pad_mode="reflect"
    )
    assert ours < convergence(torch.from_numpy(theirs)[None, None], wanted, c) + 1
    torch.manual_seed(0)
    theirs = torchaudio.transforms.GriffinLim(1024, 32, 1024, 256, power=1, momentum=0.99, length=16_000)(wanted)
    assert ours < convergence(theirs[:, None], wanted, c) + 1


@pytest.mark.parametrize("momentum", (0, 0.99))
def test_three_iterations_from_equal_phases_are_those_of_torchaudio(momentum, monkeypatch):
    c, wanted = CENTER, spectrum(voice(16_000), CENTER)
    monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.zeros(shape))  # phase 0, as rand_init=False
    ours = griffin_lim(wanted, c, 3, momentum, length=16_000)
    transform = torchaudio.transforms.GriffinLim(
        1024, 3, 1024, 256, power=1, momentum=momentum, length=16_000, rand_init=False
    )
    assert torch.allclose(ours[:, 0], transform(wanted), atol=1e-5)


def test_batches_and_seeds():
    c = CENTER
    wanted = spectrum(torch.cat([voice(c.sr, 0.4), voice(c.sr, 0.4, seed=1)]), c)
    wav = griffin_lim(wanted, c, 4, seed=3)
    assert wav.shape == (2, 1, 25 * 256)
    assert torch.equal(wav, griffin_lim(wanted, c, 4, seed=3))
    assert not torch.allclose(wav, griffin_lim(wanted, c, 4, seed=4), atol=1e-2)
    assert griffin_lim(wanted, c, 1, length=6_400 + 37).shape[-1] == 6_437


def test_gradients_reach_the_magnitudes_even_of_silence():
    c = MelConfig(n_fft=64, win=64, hop=16, n_mels=10)
    wanted = torch.rand(1, 33, 12, generator=torch.Generator().manual_seed(0))
    wanted[..., 4:8] = 0
    wanted.requires_grad_()
    griffin_lim(wanted, c, 3).square().sum().backward()
    assert wanted.grad.isfinite().all() and wanted.grad[..., :4].abs().sum() > 0


@pytest.mark.parametrize("power", (1.0, 2.0))
def test_mel_inversion_finds_magnitudes_with_that_mel(power):
    c = replace(CENTER, power=power)
    mel = LogMel(c)(voice(c.sr), c.sr)
    found = mel_to_magnitude(mel, c)
    assert found.shape == (1, 513, 63) and (found >= 0).all()
    error = torch.linalg.norm(bank_of(c) @ found**power - mel.exp()) / torch.linalg.norm(mel.exp())
    start = mel_to_magnitude(mel, c, iterations=0)
    before = torch.linalg.norm(bank_of(c) @ start**power - mel.exp()) / torch.linalg.norm(mel.exp())
    assert error < 0.03 and error < before / 3


def test_mel_to_wav_has_nearly_that_mel():
    c = CENTER
    mel = LogMel(c)(voice(c.sr), c.sr)
    wav = mel_to_wav(mel, c, 32, length=16_000)
    assert wav.shape == (1, 1, 16_000)
    again = LogMel(c)(wav, c.sr)
    assert (again - mel).abs().mean() < 0.25
    noise = 0.05 * torch.randn(1, 1, 16_000, generator=torch.Generator().manual_seed(0))
    assert (again - mel).abs().mean() < 0.1 * (LogMel(c)(noise, c.sr) - mel).abs().mean()


def test_works_on_other_devices():
    assert mel_to_wav(torch.zeros(1, 80, 9, device="meta"), CENTER, 2).device.type == "meta"


def test_silence_stays_silent():
    wav = mel_to_wav(LogMel(CENTER)(torch.zeros(1, 1, 8_000), 16_000), CENTER, 4)
    assert wav.isfinite().all() and wav.abs().max() < 1e-3
