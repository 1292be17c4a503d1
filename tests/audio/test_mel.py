import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from reference import torchaudio
from signals import voice

from wavelldm.audio.mel import (
    MELS,
    LogMel,
    MelConfig,
    Normalisation,
    bank_of,
    fit_normalisation,
    hz_to_mel,
    mel_bank,
    mel_to_hz,
    smooth,
)
from wavelldm.audio.stft import layout
from wavelldm.errors import AudioError, WavelldmError

BANKS = (
    (16_000, 1024, 64, 0, 8_000),
    (16_000, 1024, 100, 0, 8_000),
    (44_100, 2048, 160, 0, 22_050),
    (22_050, 1024, 80, 55, 7_600),
)
KINDS = ("log", "db", "zscore", "percentile", "tanh")


@pytest.mark.parametrize("sr,n_fft,n_mels,fmin,fmax", BANKS)
@pytest.mark.parametrize("scale", ("slaney", "htk"))
@pytest.mark.parametrize("norm", ("slaney", "none"))
def test_bank_is_that_of_librosa_and_torchaudio(sr, n_fft, n_mels, fmin, fmax, scale, norm):
    ours = mel_bank(sr, n_fft, n_mels, fmin, fmax, scale, norm)
    other, htk = (None if norm == "none" else norm), scale == "htk"
    theirs = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=other)
    assert ours.shape == (n_mels, n_fft // 2 + 1) and (ours > 0).any(dim=1).all()
    assert np.abs(ours.numpy() - theirs).max() < 1e-6
    theirs = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, fmin, fmax, n_mels, sr, other, scale).T
    # torchaudio computes the triangles in float32, whose corners are good to 1e-3 Hz or so
    assert (ours - theirs).abs().max() < 2e-6 * (1 if norm == "slaney" else 100)


def test_scales_by_hand():
    assert [hz_to_mel(hz) for hz in (500, 1000, 6400)] == pytest.approx([7.5, 15, 42])
    assert hz_to_mel(700, "htk") == pytest.approx(2595 * math.log10(2))
    hz = torch.tensor([0.0, 200, 1000, 4000, 22_050], dtype=torch.float64)
    for scale in ("slaney", "htk"):
        mel = torch.tensor([hz_to_mel(f, scale) for f in hz], dtype=torch.float64)
        assert torch.allclose(mel_to_hz(mel, scale), hz)


def test_bank_refuses_what_does_not_fit():
    for wrong in ((16_000, 512, 40, 0, 9_000), (16_000, 512, 40, 500, 400), (16_000, 512, 40, 0, 8_000, "bark")):
        with pytest.raises(WavelldmError):
            mel_bank(*wrong)


@pytest.mark.parametrize("power", (1.0, 2.0))
@pytest.mark.parametrize("name", MELS)
def test_log_mel_is_that_of_librosa_and_torchaudio(name, power):
    c = replace(MELS[name], power=power)
    wav = voice(c.sr)
    ours = LogMel(c)(wav, c.sr)
    left, right, frames = layout(wav.shape[-1], c.n_fft, c.hop, c.padding)
    assert ours.shape == (1, c.n_mels, frames)
    padded = torch.nn.functional.pad(wav, (left, right), mode="reflect")[0, 0]
    theirs = librosa.feature.melspectrogram(
        y=padded.numpy(), sr=c.sr, n_fft=c.n_fft, hop_length=c.hop, win_length=c.win, center=False,
        power=power, n_mels=c.n_mels, fmin=c.fmin, fmax=c.fmax, htk=False, norm="slaney",
    )  # fmt: skip
    assert np.abs(ours[0].numpy() - np.log(np.maximum(theirs, c.floor))).max() < 1e-4
    transform = torchaudio.transforms.MelSpectrogram(
        c.sr, c.n_fft, c.win, c.hop, c.fmin, c.fmax,
        n_mels=c.n_mels, power=power, center=False, norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    # squared, torchaudio's float32 window and bank are themselves 2e-4 away from double precision in the softest bands
    assert (ours[0] - transform(padded).clamp_min(c.floor).log()).abs().max() < (1e-4 if power == 1 else 3e-4)
    if c.padding == "center" and power == 1:  # and without any help with the padding
        theirs = librosa.feature.melspectrogram(
            y=wav[0, 0].numpy(), sr=c.sr, n_fft=c.n_fft, hop_length=c.hop, pad_mode="reflect",
            power=1, n_mels=c.n_mels, fmin=c.fmin, fmax=c.fmax,
        )  # fmt: skip
        assert np.abs(ours[0].numpy() - np.log(np.maximum(theirs, c.floor))).max() < 1e-4


@pytest.mark.parametrize("name", MELS)
def test_convolution_form_gives_the_same_mel(name):
    c = MELS[name]
    wav = voice(c.sr, 0.5)
    difference = (LogMel(c, conv=True)(wav, c.sr) - LogMel(c)(wav, c.sr)).abs()
    # float32 sums of 2048 products, seen through a logarithm
    assert difference.max() < 3e-4 and difference.mean() < 1e-5


def test_convolution_form_exports_and_runs_at_other_lengths():
    c = MelConfig(n_fft=256, win=256, hop=64, n_mels=20)
    front, hops = LogMel(c, conv=True), torch.export.Dim("hops", min=8, max=10_000)
    graph = torch.export.export(front, (voice(c.sr, 0.4), c.sr), dynamic_shapes=({2: 64 * hops}, None)).module()
    wav = voice(c.sr, 0.2)
    assert torch.allclose(graph(wav, c.sr), front(wav, c.sr), atol=1e-5)


def test_a_batch_is_its_clips():
    c = MELS["base16k"]
    clips = [voice(c.sr, seed=seed) for seed in range(3)]
    front = LogMel(c)
    assert torch.allclose(front(torch.cat(clips), c.sr), torch.cat([front(clip, c.sr) for clip in clips]), atol=1e-5)


@pytest.mark.parametrize("conv", (False, True))
@pytest.mark.parametrize("power", (1.0, 2.0))
def test_silence_gives_the_floor_and_finite_gradients(conv, power):
    c = MelConfig(n_fft=256, win=256, hop=64, n_mels=20, power=power)
    wav = voice(c.sr, 0.2)
    wav[..., 800:2400] = 0
    wav.requires_grad_()
    mel = LogMel(c, conv)(wav, c.sr)
    assert (mel[..., 18:30] == math.log(c.floor)).all()
    mel.sum().backward()
    assert wav.grad.isfinite().all()
    assert (wav.grad[..., 1200:2000] == 0).all() and wav.grad[..., :700].abs().sum() > 0


def test_gradients_are_right_in_double_precision():
    c = MelConfig(n_fft=32, win=32, hop=8, n_mels=6)
    wav = voice(c.sr, 0.005)[..., :64].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LogMel(c).double()(x, c.sr), wav, atol=1e-4)


def test_front_end_refuses_another_rate_and_stereo():
    front = LogMel(MELS["base16k"])
    with pytest.raises(AudioError, match="16000.*44100.*resample"):
        front(voice(44_100), 44_100)
    with pytest.raises(AudioError, match="batch"):
        front(torch.zeros(1, 2, 16_000), 16_000)


@pytest.mark.parametrize("conv", (False, True))
def test_front_end_adds_nothing_to_a_checkpoint_and_follows_its_network(conv):
    front = LogMel(MelConfig(), conv).to("meta")  # a device on which any tensor left on the CPU is an error
    assert not front.state_dict() and not list(front.parameters())
    mel = front(torch.zeros(2, 1, 5_000, device="meta"), 16_000)
    assert mel.device.type == "meta" and mel.shape == (2, 100, 20)


def test_long_sound_is_worked_off_in_blocks_without_seams(monkeypatch):
    c, wav = MELS["base16k"], torch.cat([voice(16_000, 2.0), voice(16_000, 2.0, seed=1)])
    whole = LogMel(c)(wav, c.sr)
    for frames in (1, 7):
        monkeypatch.setattr("wavelldm.audio.mel.SAMPLES_AT_ONCE", 2 * frames * c.n_fft)
        assert torch.allclose(LogMel(c)(wav, c.sr), whole, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_normalisations_are_undone_exactly(kind):
    mel = LogMel(MELS["base16k"])(voice(16_000), 16_000)
    norm = fit_normalisation(kind, mel)
    assert (norm.inverse(norm.forward(mel)) - mel).abs().max() < (1e-4 if kind == "tanh" else 1e-5)
    outside = torch.tensor([mel.min() - 2, mel.max() + 2])  # another clip, softer and louder: nothing is clipped
    assert (norm.inverse(norm.forward(outside)) - outside).abs().max() < 1e-3


def test_normalisations_do_what_they_are_called():
    mel = LogMel(MELS["base16k"])(voice(16_000), 16_000)
    done = {kind: fit_normalisation(kind, mel).forward(mel) for kind in KINDS}
    assert torch.equal(done["log"], mel)
    assert torch.allclose(done["db"], 20 * mel.exp().log10(), atol=1e-4)
    assert torch.allclose(fit_normalisation("db", mel, power=2.0).forward(mel), 10 * mel.exp().log10(), atol=1e-4)
    assert done["zscore"].mean().abs() < 1e-4 and abs(done["zscore"].std() - 1) < 1e-4
    assert torch.quantile(done["percentile"], 0.01) == pytest.approx(-1, abs=1e-2)
    assert (done["percentile"].abs() > 1).float().mean() == pytest.approx(0.02, abs=0.011)
    assert done["tanh"].abs().max() == pytest.approx(math.tanh(2.5), abs=1e-4)
    with pytest.raises(WavelldmError):
        fit_normalisation("minmax", mel)


def test_tanh_inverse_survives_a_network_that_answers_one():
    norm = Normalisation(-4.0, 2.0, squash=True)
    edge = norm.inverse(torch.tensor([-1.0, 1.0, 3.0]))
    assert edge.isfinite().all() and edge[1] == edge[2] > norm.shift + 5 * norm.scale


@pytest.mark.parametrize("kind", KINDS)
def test_silence_can_be_normalised(kind):
    mel = torch.full((1, 20, 30), math.log(1e-5))
    norm = fit_normalisation(kind, mel)
    assert norm.forward(mel).isfinite().all() and torch.allclose(norm.inverse(norm.forward(mel)), mel)


def test_smoothing_keeps_constants_and_mass_and_removes_roughness():
    flat = torch.full((2, 20, 30), -3.0)
    assert torch.allclose(smooth(flat, 2.0, 1.0), flat, atol=1e-5)
    point = torch.zeros(1, 21, 31)
    point[0, 10, 15] = 1
    blurred = smooth(point, time=1.0, frequency=0.5)
    assert blurred.shape == point.shape and blurred.sum() == pytest.approx(1, abs=1e-5)
    beside, below = blurred[0, 10, 14] / blurred[0, 10, 15], blurred[0, 9, 15] / blurred[0, 10, 15]
    assert beside == pytest.approx(math.exp(-0.5), rel=1e-4)  # one standard deviation away in time
    assert below == pytest.approx(math.exp(-2), rel=1e-4)  # two in frequency
    assert torch.equal(smooth(point, 0, 0), point)
    rough = torch.randn(1, 20, 200, generator=torch.Generator().manual_seed(0))
    assert smooth(rough, 2.0, 0).diff(dim=2).std() < 0.2 * rough.diff(dim=2).std()


def test_bank_of_a_preset():
    c = MELS["audioldm2"]
    assert torch.equal(bank_of(c), mel_bank(16_000, 1024, 64, 0.0, 8_000.0))
