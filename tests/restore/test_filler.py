"""The latent for generating, and the network that fills it."""

from dataclasses import replace

import pytest
import torch

from wavelldm.diffusion.samplers import FrameNoise
from wavelldm.errors import WavelldmError
from wavelldm.restore import filler, latent
from wavelldm.restore.filler import Filler, FillerConfig, distances, fill, on_lines, tell
from wavelldm.restore.gaps import HOP, SR, known_share
from wavelldm.restore.latent import SpeechLatent, SpeechLatentConfig, comb, heard_pitch, level, seen

SMALL = SpeechLatentConfig(size=12, encoder_width=16, encoder_depth=1, width=24, depth=1)
NET = FillerConfig(size=12, width=24, dilations=(1, 2, 0), heads=2)


def vowel(n: int, hz: float = 150.0) -> torch.Tensor:
    t = torch.arange(n) / SR
    return sum(torch.sin(2 * torch.pi * hz * k * t) / k for k in range(1, 20))[None] * 0.1


@pytest.fixture(scope="module")
def nets() -> tuple[SpeechLatent, Filler]:
    torch.manual_seed(0)
    speech, net = SpeechLatent(SMALL), Filler(NET)
    wav = vowel(32_000) * torch.linspace(0.01, 1, 32_000) + 0.01 * torch.randn(1, 32_000)
    speech.begin(seen(wav * level(wav)))
    return speech.eval(), net.eval()


def hole(n: int, *places: tuple[int, int]) -> torch.Tensor:
    out = torch.zeros(1, n, dtype=torch.bool)
    for a, b in places:
        out[:, a:b] = True
    return out


def test_the_level_counts_known_samples_alone():
    wav = torch.cat([torch.full((1, 100), 0.2), torch.zeros(1, 100)], 1)
    known = torch.arange(200)[None] < 100
    assert torch.allclose(wav[:, :100] * level(wav, known), torch.full((1, 100), latent.RMS))


@pytest.mark.parametrize("hz", [80.0, 150.0, 333.0])
def test_the_pitch_of_a_vowel_and_the_comb_that_belongs_to_it(hz):
    wav = vowel(16_000, hz)
    pitch = heard_pitch(wav)
    assert pitch.shape == (1, 2, 1 + 16_000 // HOP)
    inner = pitch[0, 0, 5:-5]
    assert ((latent.LOWEST * 2**inner / hz - 1).abs() < 0.01).all()
    size, drawn = seen(wav)[0, :, 30], comb(pitch[:, 0])[0, :, 30]
    at = torch.arange(1, 9) * hz * 1024 / SR
    on, off = at.round().long(), (at + hz * 512 / SR).round().long()
    assert drawn[on].min() > drawn[off].max()
    assert (size[on] > 3 * size[off]).all()


def test_noise_has_no_pitch():
    torch.manual_seed(0)
    pitch = heard_pitch(0.1 * torch.randn(1, 16_000))
    assert (pitch[0, 0] < 0).float().mean() > 0.8 and (comb(pitch[:, 0]) <= 0).all()


def test_as_many_principal_components_as_bands_read_back_the_log_mel():
    speech = SpeechLatent(replace(SMALL, size=80))
    wav = vowel(48_000, 170.0) * torch.linspace(0.05, 1, 48_000) + 0.01 * torch.randn(1, 48_000)
    size = seen(wav * level(wav))
    speech.begin(size)
    z, spread = speech.encode(size)
    assert z.shape == spread.shape == (1, 80, size.shape[-1])
    assert torch.allclose(speech.read(z), speech.mel(size), atol=0.02)
    drawn = speech.decode(z, heard_pitch(wav))
    assert drawn.shape == size.shape and torch.isfinite(drawn).all()


def test_distances_and_pitch_on_lines():
    share = torch.tensor([[1.0, 0.2, 0.0, 1.0, 1.0]])
    assert torch.allclose(distances(share)[0, 0].mul(2).exp() - 1, torch.tensor([0.0, 1.0, 2.0, 0.0, 0.0]), atol=1e-5)
    assert torch.allclose(distances(share)[0, 1].mul(2).exp() - 1, torch.tensor([0.0, 2.0, 1.0, 0.0, 0.0]), atol=1e-5)
    pitch = torch.tensor([[[1.0, 3.0, 3.0, 2.5, -1.0], [0.9] * 5]])
    line = on_lines(pitch, share)
    assert torch.allclose(line[0, 0], torch.tensor([1.0, 1.5, 2.0, 2.5, 2.5]))
    assert torch.allclose(line[0, 1], torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))


def test_what_is_told_ignores_what_lies_in_the_gap(nets):
    speech, _ = nets
    wav, lost = vowel(16_000), hole(16_000, (6_000, 9_000))
    pitch = heard_pitch(wav)
    told = tell(speech, wav.masked_fill(lost, 0.0), lost, pitch)
    assert told.context.shape == (1, filler.TOLD, told.z.shape[-1])
    assert torch.equal(told.share, known_share(lost))
    amid = (told.share[0] <= 0.1).nonzero()[:, 0]
    assert (told.context[0, 6:, amid] == 0).all() and (told.context[0, 3, amid] == 1).all()


def test_an_untrained_network_answers_with_the_lines_at_any_time(nets):
    speech, net = nets
    wav, lost = vowel(12_000), hole(12_000, (5_000, 7_000))
    told = tell(speech, wav.masked_fill(lost, 0.0), lost, heard_pitch(wav))
    for t in (0.0, 0.4, 0.99):
        z, answer = net(told, torch.randn_like(told.z), torch.full((1,), t))
        assert torch.allclose(z, told.z, atol=1e-6) and answer.shape == (1, 2, z.shape[-1])


class Oracle(Filler):
    """Knows the clean latent."""

    clean: torch.Tensor

    def forward(self, told, x, t):
        return self.clean.expand_as(told.z), told.line


@pytest.mark.parametrize("sampler", ["bridge", "ddim", "ddpm", "dpmpp_2m"])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_with_an_oracle_every_sampler_ends_at_the_clean_latent(nets, sampler, steps):
    speech, _ = nets
    wav, lost = vowel(12_000), hole(12_000, (5_000, 7_000))
    told = tell(speech, wav.masked_fill(lost, 0.0), lost, heard_pitch(wav))
    net = Oracle(NET)
    net.clean = torch.randn_like(told.z)
    z, _ = net.sample(told, steps, sampler, FrameNoise(3))
    assert torch.allclose(z, net.clean, atol=1e-4)


@pytest.mark.parametrize("sampler", ["bridge", "ddim", "dpmpp_2m"])
def test_samplers_visit_the_same_places_on_the_way(nets, sampler):
    """With a network that answers x_t itself, what it is shown lies between the noisy line and the line."""
    speech, _ = nets
    wav, lost = vowel(12_000), hole(12_000, (5_000, 7_000))
    told = tell(speech, wav.masked_fill(lost, 0.0), lost, heard_pitch(wav))
    shown = []

    class Watching(Filler):
        def forward(self, told, x, t):
            shown.append((float(t[0]), float((x - told.z).std())))
            return told.z, told.line

    Watching(NET).sample(told, 8, sampler, FrameNoise(3))
    for t, size in shown:  # the rest is zero, so that x_t - line = (1 - t) spread eps
        assert size == pytest.approx((1 - t) * NET.spread, rel=0.1, abs=1e-3)
    assert sorted({round(t, 2) for t, _ in shown})[0] == 0 and max(t for t, _ in shown) > 0.6


def test_unknown_samplers_are_refused(nets):
    speech, net = nets
    wav = vowel(8_000)
    told = tell(speech, wav, hole(8_000), heard_pitch(wav))
    with pytest.raises(WavelldmError, match="there is no sampler 'euler'; choose one of ddpm"):
        net.sample(told, sampler="euler")


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("n", [8_000, 12_345])
def test_filling_changes_gaps_alone_and_follows_the_level(nets, steps, n):
    speech, net = nets
    wav, lost = vowel(n), hole(n, (4_000, 5_500))
    out = fill(speech, net, wav, lost, steps, noise=FrameNoise(1))
    assert torch.equal(out[~lost], wav[~lost]) and torch.isfinite(out).all()
    assert out[lost].square().mean() > 0.01 * wav[lost].square().mean()
    quiet = fill(speech, net, wav * 0.01, lost, steps, noise=FrameNoise(1))
    assert (quiet * 100 - out)[lost].square().mean() < 0.02 * out[lost].square().mean()


def test_filling_is_told_by_the_seed_alone(nets):
    speech, _ = nets
    torch.manual_seed(5)
    net = Filler(replace(NET, spread=0.7)).eval()
    for layer in (net.start, net.out):
        torch.nn.init.normal_(layer.weight, std=0.05)
    wav, lost = vowel(12_000), hole(12_000, (4_000, 7_000))
    one, same, other = (fill(speech, net, wav, lost, 4, noise=FrameNoise(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and (one - other)[lost].abs().max() > 1e-4
