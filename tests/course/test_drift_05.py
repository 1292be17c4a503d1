"""What notebook 05 builds by hand is what the module has."""

import pytest
import torch
from lift import definitions
from torch import nn

from wavelldm.audio import pitch, stft
from wavelldm.audio.mel import MelConfig, griffin_lim
from wavelldm.codec import pulse
from wavelldm.codec.decoders import HiFiGAN, ISTFTHead
from wavelldm.nn import layers

torch.set_num_threads(1)
HAND = definitions("05")


@pytest.fixture(autouse=True)
def seeded():
    """Weights are drawn where they are built: the same ones whatever ran before."""
    torch.manual_seed(0)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def same(mine, theirs, atol=1e-4):
    assert mine.shape == theirs.shape
    assert torch.allclose(mine, theirs, atol=atol), f"differ by {(mine - theirs).abs().max():.2g}"
    assert mine.std() > 0


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("kernel, stride", [(16, 8), (4, 2), (4, 4), (5, 2)])
def test_the_transposed_convolution(kernel, stride, causal):
    mine, theirs = HAND["UpConv"](6, 4, kernel, stride, causal), layers.ConvTranspose1d(6, 4, kernel, stride, causal)
    theirs.load_state_dict(mine.state_dict())
    same(mine(noise(2, 6, 20)), theirs(noise(2, 6, 20)), 1e-5)


def shaken(network):
    """Weights that are still 1, 0 or 0.1 would hide a mistake."""
    for i, p in enumerate(network.parameters()):
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return network


@pytest.mark.parametrize("causal", (True, False))
def test_the_two_decoders(causal):
    mine, theirs = HAND["my_hifigan"](48, 16, (4, 2), causal=causal), HiFiGAN(48, 16, (4, 2), causal=causal)
    for p in mine.parameters():
        p.data *= 2  # an untrained HiFi-GAN hardly reacts to its input
    HAND["copy_weights"](mine, theirs)
    same(mine(noise(2, 48, 15)), theirs(noise(2, 48, 15)), 1e-5)
    mine, theirs = shaken(HAND["Head"](48, 24, 2, 3, 64, 16, causal)), ISTFTHead(48, 24, 2, 3, 64, 16, causal)
    theirs.load_state_dict(mine.state_dict())
    same(mine(noise(2, 48, 15)), theirs(noise(2, 48, 15)))


@pytest.mark.parametrize("polish", (1, 5))
def test_the_head_that_leaves_its_phases_to_griffin_lim(polish):
    mine = shaken(HAND["Head"](48, 24, 2, 3, 64, 16, causal=False, polish=polish))
    theirs, alone = (ISTFTHead(48, 24, 2, 3, 64, 16, polish=p) for p in (polish, 0))
    for head in (theirs, alone):
        head.load_state_dict(mine.state_dict())
    x = noise(2, 48, 30)
    same(mine(x), theirs(x))
    assert (mine(x) - alone(x)).abs().max() > 0.01


@pytest.mark.parametrize("momentum", (0, 0.99))
def test_griffin_lim(momentum):
    wav = noise(2, 1, 40 * 16)
    size = stft.stft(wav, 64, 16, 64, "same").abs()
    start = torch.polar(size, 6 * noise(*size.shape))
    config = MelConfig(n_fft=64, win=64, hop=16, n_mels=10)
    theirs = griffin_lim(size, config, 6, momentum, start=start / size)
    same(HAND["polished"](start, 64, 16, 6, momentum)[:, None], theirs)


@pytest.mark.parametrize("n", (4_000, 4_096, 1))
def test_the_scores_of_the_pitch(n):
    for name in ("LOW", "HIGH", "COUNT"):
        assert HAND[name] == getattr(pitch, name)
    same(HAND["my_candidates"](), pitch.candidates(), 1e-3)
    wav = 0.1 * noise(n + 16_000)[16_000:]
    frames = HAND["pitch_frames"](wav, 16_000, 256)
    mine = torch.stack([HAND["my_score"](frame, 16_000) for frame in frames], dim=-1)
    same(mine[None], pitch.scores(wav[None, None], 16_000, 256), 1e-5)


def test_the_pulses_and_their_phases():
    f0 = 60 * 8 ** torch.rand(2, 40, generator=torch.Generator().manual_seed(1))
    turns = HAND["my_turns"](f0, 16_000, 256)
    same(turns, pulse.PulseDecoder(48, 24, 1).turns(f0), 1e-9)
    same(HAND["my_pulses"](f0, turns, 16_000, 512), pulse.pulses(f0, turns, 16_000, 512))
    on_top = HAND["my_pulses"](f0, 0 * turns, 16_000, 512)[..., 256]  # where all cosines are 1
    same(on_top, (2 * (8_000 / f0).floor()).sqrt(), 1e-3)


@pytest.mark.parametrize("frames", (1, 20, 300))
def test_frames_of_pulses_and_noise_and_their_sum(frames):
    assert HAND["BANDS"] == pulse.BANDS and HAND["TABLE"] == pulse.TABLE
    same(HAND["my_interpolation"](257, 16_000), pulse.mel_interpolation(80, 257, 16_000), 1e-6)
    head = pulse.PulseDecoder(48, 24, 1)
    f0 = 60 * 8 ** torch.rand(2, frames, generator=torch.Generator().manual_seed(1))
    turns, gains = head.turns(f0), noise(2, 160, frames)
    mine = HAND["shaped"](f0, turns, HAND["my_noise"](frames, 256).expand(2, -1, -1), gains, 16_000, 256)
    theirs = head.frames(f0, turns, gains, torch.arange(frames))
    same(mine, theirs, 1e-3)
    same(HAND["joined"](mine, 256)[:, None], head.join(theirs), 1e-2)


def test_the_correction_of_spectra():
    mine, theirs = shaken(HAND["MyCorrection"](12, 129)), pulse.Correction(12, 129)
    theirs.load_state_dict(mine.state_dict())
    spectrum, told = torch.complex(noise(2, 9, 129), 0.3 * noise(2, 9, 129).flip(1)), noise(2, 12, 9)
    spectrum[:, 3] = 0.0  # silence
    theirs = torch.complex(*theirs(spectrum.real, spectrum.imag, told))
    mine = mine(spectrum, told)
    same(torch.view_as_real(mine), torch.view_as_real(theirs))
    assert not theirs[:, 3].abs().any() and not torch.allclose(theirs, spectrum, atol=0.1)


def test_the_pitch_that_is_read():
    logits = 3 * noise(2, 160, 30)
    logits[:, 0, 3] = logits[:, -1, 4] = 50  # also at both ends
    same(HAND["likeliest"](logits), pitch.hertz(logits), 1e-3)
    for name in ("TONELESS", "CLEAR", "WEIGHT"):
        assert HAND[name] == getattr(pulse, name)
    logits[:, 0] = 12.0  # no pitch, says the network
    gains = noise(2, 160, 30)
    gains[:, :80, :15] += 3.0  # but the pulses stand out
    mine = HAND["pitch_heard"](logits, gains, 16_000)
    assert (mine[:, 5:15] > 66).all() and (mine[:, 15:] < 62).all()
    same(mine, pulse.PulseDecoder(48, 24, 1).f0(logits, gains), 1e-3)


@pytest.mark.parametrize("causal", (True, False))
def test_the_head_of_pulses_and_noise(causal):
    mine, theirs = (
        shaken(HAND["VoiceHead"](48, 24, 2, 3, causal=causal)),
        pulse.PulseDecoder(48, 24, 2, 3, causal=causal),
    )
    theirs.load_state_dict(mine.state_dict())
    a, b = mine(noise(2, 48, 15)), theirs(noise(2, 48, 15))
    assert a.shape == b.shape and (a - b).norm() < 0.01 * b.norm() and b.std() > 0


def test_gains_that_are_read_bring_a_sound_back():
    """Of a source that is shaped already: what comes back has the same spectrum, near enough."""
    frames, f0 = HAND["my_noise"](60, 256)[None], torch.full((1, 60), 120.0)
    turns, voiced = HAND["my_turns"](f0, 16_000, 256), torch.arange(60)[None] < 30
    gains = torch.linspace(-1, -5, 80).repeat(2)[None, :, None].repeat(1, 1, 60)
    gains[:, :80, 30:] = gains[:, 80:, :30] = HAND["NOTHING"]
    wav = HAND["joined"](HAND["shaped"](f0, turns, frames, gains, 16_000, 256), 256)[:, None]
    read = HAND["read_gains"](wav, f0, turns, frames, voiced, 16_000, 256)
    inside = torch.zeros(60, dtype=torch.bool)
    inside[3:27] = inside[33:57] = True
    assert (read - gains)[..., inside].abs().mean() < 0.1


@pytest.mark.parametrize("n_fft, hop", [(1024, 256), (64, 16), (64, 32)])
def test_the_inverse_transform(n_fft, hop):
    wav = noise(2, 20 * hop)
    spectrum = stft.stft(wav, n_fft, hop, n_fft, "same")
    mine = HAND["inverse_stft"](spectrum, n_fft, hop)
    same(mine, stft.istft(spectrum, n_fft, hop, n_fft, "same"), 1e-5)
    same(mine, wav)


def test_the_count_of_multiplications():
    network = nn.Sequential(nn.Conv1d(3, 5, 4, stride=2), nn.ConvTranspose1d(5, 2, 6, 3))
    found = HAND["count_macs"](network, noise(2, 3, 20))  # 9 steps of 3 * 5 * 4, and of 5 * 2 * 6, for both items
    assert found == {9: 2 * 9 * (60 + 60)}
    assert HAND["count_macs"](nn.Linear(4, 7), noise(3, 10, 4)) == {10: 3 * 10 * 28}
