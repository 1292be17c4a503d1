"""The whole chain on recordings of any length: equal to the networks run once over everything, at any rate."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from signals import noisy, speechlike

from wavelldm.codec.model import Codec
from wavelldm.denoise.chain import DEFAULTS, Settings, strengthened, top_gain
from wavelldm.denoise.denoiser import ClassicalDenoiser, LatentDenoiser, MaskDenoiser, WindowDenoiser, load, look_at
from wavelldm.denoise.mask import MaskNet
from wavelldm.denoise.segan import Segan
from wavelldm.denoise.waveform import WaveDenoiser
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.diffusion.samplers import FrameNoise
from wavelldm.errors import AudioError, WavelldmError
from wavelldm.restore.find import Damage
from wavelldm.training.presets import preset

SR = 16_000
TINY = preset("tiny")
LEVEL = -26.0  # at which the networks hear a sound as it is


def shaken(network, seed=0):
    torch.manual_seed(seed)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1) if p.ndim > 1 else None
    return network.eval()


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    pair = Codec(TINY.codec).eval(), shaken(LatentDiffusion(TINY.diffusion))
    guided = shaken(MaskNet(replace(TINY.mask, latent_dim=TINY.codec.latent_dim)))
    segan = shaken(Segan(replace(TINY.segan, latent=True)))
    return {
        "guided": MaskDenoiser(guided, lambda: pair),
        "decoded": LatentDenoiser(*pair),
        "alone": MaskDenoiser(shaken(MaskNet(TINY.mask)), lambda: pair),
        "segan": WindowDenoiser(segan),
        "waveform": WindowDenoiser(shaken(WaveDenoiser(TINY.waveform))),
        "logmmse": ClassicalDenoiser(),
    }


KINDS = ("guided", "decoded", "alone", "segan", "waveform", "logmmse")


def sound(n, channels=2, seed=0):
    return 0.1 * torch.randn(channels, n, generator=torch.Generator().manual_seed(seed))


def through(session, wav, size):
    parts = [session.push(part) for part in wav.split(size, dim=-1)]
    return torch.cat([*parts, session.finish()], dim=-1)


@torch.no_grad()
def at_once(model, wav, settings=DEFAULTS):
    latent = None
    if not isinstance(model, MaskDenoiser) or model.guided:
        codec, diffusion = model.latent() if isinstance(model, MaskDenoiser) else (model.codec, model.diffusion)
        noise = FrameNoise(settings.seed, shared=True)
        latent = diffusion.sample(codec.encode(wav[:, None], SR), settings.steps, settings.sampler, noise=noise)
        if isinstance(model, LatentDenoiser):
            return codec.decode(latent, wav.shape[-1])[:, 0]
        latent = diffusion.normalise(latent)
    return model.mask(wav[:, None], latent)[:, 0]


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["guided", "decoded", "alone"])
@pytest.mark.parametrize(
    "n, block, steps, sampler",
    [(40_000, 1_000, 1, None), (25_601, 25_601, 1, None), (30_000, 777, 3, None), (30_000, 777, 3, "ddpm")],
)
def test_block_by_block_equals_at_once(models, kind, n, block, steps, sampler):
    """Also with a sampler that draws noise in every step."""
    wav, settings = sound(n), DEFAULTS if kind == "alone" else Settings(steps, sampler, seed=4)
    joined = through(models[kind].stream(SR, 2, settings), wav, block)
    apart = (joined - at_once(models[kind], wav, settings)).abs().amax(0)
    assert joined.shape == wav.shape
    assert apart.max() < 1e-4, f"first difference at sample {int((apart > 1e-4).nonzero()[0])}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("size", [1, 160, 1_000])
def test_a_stream_in_blocks_of_any_size_equals_enhance(models, kind, sr, size):
    wav = sound(40 if size == 1 and kind != "alone" else 4_000 if size == 1 else round(1.3 * sr), seed=sr)
    whole = models[kind].enhance(wav, sr, level=-30.0)
    joined = through(models[kind].stream(sr, 2, level=-30.0), wav, size)
    assert joined.shape == wav.shape and (joined - whole).abs().max() < 1e-4


def test_a_stream_that_is_told_what_a_look_finds_equals_enhance(models):
    wav = torch.stack([sound(20_000, 1)[0], 0.02 * sound(20_000, 1, 1)[0]])
    look = look_at([wav], SR)
    assert look.levels[0] > look.levels[1] + 30
    joined = through(models["alone"].stream(SR, 2, level=look.levels), wav, 333)
    assert (joined - models["alone"].enhance(wav, SR)).abs().max() < 1e-4


def test_a_long_recording_has_no_seams(models):
    """A minute and a half, in many windows."""
    wav = sound(90 * SR, channels=1)
    joined = models["guided"].enhance(wav, SR, level=LEVEL)
    assert (joined - at_once(models["guided"], wav)).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("n", [1, 100, 7_777])
def test_as_long_as_the_input_at_any_rate(models, kind, sr, n):
    out = models[kind].enhance(sound(n), sr)
    assert out.shape == (2, n) and torch.isfinite(out).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_nothing_out(models, kind):
    session = models[kind].stream(44_100, 2)
    assert session.push(torch.zeros(2, 0)).shape == (2, 0) and session.finish().shape == (2, 0)
    session = models[kind].stream(44_100)
    parts = [session.push(torch.zeros(0)), session.push(torch.ones(3)), session.push(torch.zeros(0))]
    assert all(part.shape == (0,) for part in parts) and session.finish().shape == (3,)
    for use in (session.finish, lambda: session.push(torch.ones(3))):
        with pytest.raises(WavelldmError, match="is finished"):
            use()


def test_blocks_of_another_kind_are_refused(models):
    session = models["alone"].stream(SR, 2)
    for wrong in (torch.zeros(3, 10), torch.zeros(10), torch.zeros(1, 2, 10)):
        with pytest.raises(AudioError, match="blocks of 2 channels"):
            session.push(wrong)
    with pytest.raises(AudioError, match="NaN"):
        session.push(torch.full((2, 4), float("nan")))
    with pytest.raises(WavelldmError, match="one level"):
        models["alone"].stream(SR, 2, level=[-26.0])
    for rate in (0, 16_000.5, 1e7):
        with pytest.raises(AudioError, match="rate"):
            models["alone"].stream(rate)


# --- latency ----------------------------------------------------------------------------------------------------------


def waits(session, wav, size=1):
    """How many samples came after sample n before it was out again, for each n (N,), in blocks of so many."""
    late, pushed, out = torch.zeros(wav.shape[-1], dtype=torch.long), 0, 0
    for block in wav.split(size):
        more = session.push(block).shape[-1]
        pushed += len(block)
        late[out : out + more] = pushed - 1 - torch.arange(out, out + more)
        out += more
    return late[:out]


@pytest.mark.parametrize("kind", ["alone", "logmmse"])
@pytest.mark.parametrize("sr", [16_000, 48_000])
def test_latency_is_what_a_sample_waits_at_most(models, kind, sr):
    session = models[kind].stream(sr)
    assert int(waits(session, sound(4_500, 1)[0]).max()) == session.latency


@pytest.mark.parametrize("sr, limit", [(16_000, 0.064), (44_100, 0.072), (48_000, 0.072)])
def test_an_impulse_comes_out_in_its_place_and_in_time(sr, limit):
    """Of the default model for streams, in speech, in blocks of 1 ms."""
    model, size, wav = load("live"), sr // 1000, torch.from_numpy(speechlike(0.6, sr)).float()
    settings = Settings(background=0.5)  # half of any click, which is noise to the network, comes through
    plain = through(model.stream(sr, 1, settings), wav[None], size)[0]
    for n in (sr // 5, sr // 5 + 100 * size // 13, sr // 3):
        hit = wav.clone()
        hit[n] += 0.5
        session, out = model.stream(sr, 1, settings), []
        for i, block in enumerate(hit.split(size)):
            out.append(session.push(block))
            if sum(map(len, out)) > n:  # now it is there, and aligned
                assert (i + 1) * size - n <= min(limit * sr, session.latency) + size
                break
        change = torch.cat(out) - plain[: sum(map(len, out))]
        assert change[n] > 0.2 and change.abs().argmax() == n
    waited = int(waits(model.stream(sr), wav, size).max())
    assert session.latency <= waited < session.latency + size and session.latency <= limit * sr


def test_the_latency_of_long_windows_is_stated(models):
    hop = models["alone"].latent()[0].hop
    assert models["segan"].stream(SR).latency == models["segan"].network.window
    assert models["alone"].stream(SR, settings=Settings(restore=True)).latency > (512 + 224) * hop
    for kind in ("decoded", "guided"):
        session = models[kind].stream(SR)
        assert session.latency <= int(waits(session, sound(5 * SR, 1)[0], 32).max()) < session.latency + 32


# --- what is heard and mixed ------------------------------------------------------------------------------------------


class Nothing(MaskNet):
    """A mask of ones."""

    def step(self, spec, state, latent=None):
        (cleaned, _), new = super().step(spec, state, latent)
        noisy = torch.cat([state.spec[:, self.config.taps :], spec], dim=1)[:, : cleaned.shape[1]]
        return (noisy, torch.ones_like(noisy)), new


def test_an_idle_network_changes_nothing_at_any_rate_and_any_gain():
    """Also above its own band, which comes from the original."""
    model = MaskDenoiser(Nothing(TINY.mask))
    for sr in (16_000, 44_100):
        wav = sound(sr, seed=sr)
        for level in (LEVEL, LEVEL - 17):
            out = through(model.stream(sr, 2, level=level), wav, 4_321)
            assert (out - wav).abs().max() < 1e-5, (sr, level)


def test_level_and_loudness(models):
    """The networks hear speech at one level, and what comes out is as loud as what went in."""
    t = torch.arange(3 * SR) / SR
    wav = (0.2 * torch.sin(2 * torch.pi * 220 * t) * ((2 * t).long() % 2))[None]
    for kind in ("guided", "alone"):
        loud, quiet = models[kind].enhance(wav, SR), models[kind].enhance(0.02 * wav, SR)
        assert torch.allclose(loud * 0.02, quiet, atol=1e-5)
    silent = look_at([torch.zeros(1, SR)], SR)
    assert silent.levels == (LEVEL,) and silent.damages == (Damage(),)


@pytest.mark.parametrize("kind", KINDS)
def test_every_channel_is_cleaned_as_if_it_were_alone(models, kind):
    """So a silent left one does not spoil the right one, and equal ones stay equal."""
    wav = torch.from_numpy(speechlike(2.0)).float()
    right = 0.01 * wav + 0.0005 * sound(len(wav), 1)[0]
    settings = Settings(seed=3)
    alone = models[kind].enhance(right, SR, settings)
    for left in (torch.zeros_like(right), right, wav.flip(0)):
        both = models[kind].enhance(torch.stack([left, right]), SR, settings)
        assert (both[1] - alone).abs().max() < 1e-6, "the other channel was heard"
    left, _ = models[kind].enhance(torch.stack([right, right]), SR, settings)
    assert (left - alone).abs().max() < 1e-6


def test_equal_channels_stay_equal_whatever_is_drawn(models):
    wav = sound(9_000, 1).expand(2, -1)
    for kind, settings in (("decoded", Settings(3, "ddpm")), ("guided", Settings(3)), ("segan", DEFAULTS)):
        left, right = models[kind].enhance(wav, SR, settings)
        assert (left - right).abs().max() < 1e-6, kind


def test_strength():
    mask = torch.polar(torch.tensor([0.1, 0.5, 1.0]), torch.tensor([0.3, -0.5, 0.0]))
    spec, others = torch.tensor([1.0, 2.0j, -0.1]), torch.tensor([0.2, 0.0, 0.1j])  # others: what other frames add
    cleaned = spec * mask + others
    out, gain = strengthened(spec, cleaned, mask, 2.0)
    assert torch.allclose(gain, mask * mask.abs()) and torch.allclose(out, spec * gain + others * mask.abs())
    for strength in (0.0, 0.5):
        out, gain = strengthened(spec, cleaned, mask, strength)
        assert torch.allclose(gain, torch.polar(mask.abs() ** strength, strength * mask.angle()))
        assert torch.allclose(out, spec * gain + strength * others * gain / mask)
    for wrong in ({"steps": 0}, {"strength": 5}, {"background": -0.1}):
        with pytest.raises(WavelldmError, match="steps begin at 1"):
            Settings(**wrong)


def test_the_top_gain_follows_the_highest_quarter():
    t = torch.arange(8_192) / 16_000
    low, high = torch.sin(2 * torch.pi * 500 * t)[None], torch.sin(2 * torch.pi * 7_000 * t)[None]
    assert (top_gain(low + high, low + 0.3 * high) - 0.3).abs()[:, 1_000:-1_000].max() < 0.02
    assert (top_gain(low + high, 0.1 * low + high) - 1).abs()[:, 1_000:-1_000].max() < 0.02


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100])
def test_no_strength_changes_nothing_to_the_bit(models, sr):
    wav, idle = sound(9_000), Settings(strength=0.0)
    assert torch.equal(models["alone"].enhance(wav, sr, idle), wav)
    session = models["alone"].stream(sr, 2, idle)
    assert (
        torch.equal(session.push(wav[:, :7]), wav[:, :7]) and session.latency == 0 and session.finish().shape == (2, 0)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sr", [16_000, 48_000])
def test_all_the_background_is_the_recording(models, kind, sr):
    wav = sound(9_000)
    out, half = (models[kind].enhance(wav, sr, Settings(background=share)) for share in (1.0, 0.5))
    assert (out - wav).abs().max() < 1e-4
    assert (half - (wav + models[kind].enhance(wav, sr)) / 2).abs().max() < (1e-4 if sr == SR else 1e-2)


def test_same_seed_same_sound(models):
    wav = sound(9_000)
    first, same, other = (models["guided"].enhance(wav, SR, Settings(2, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_a_latent_may_be_rounded_before_it_is_decoded(models):
    model, wav = models["decoded"], sound(9_000)
    plain, rounded = (model.enhance(wav, SR, Settings(rounded=r), level=LEVEL) for r in (False, True))
    with torch.no_grad():
        z = model.codec.encode(wav[:, None], SR)
        z = model.diffusion.sample(z, noise=FrameNoise(shared=True))
        for got, latent in ((plain, z), (rounded, model.codec.quantise(z)[0])):
            assert torch.allclose(got, model.codec.decode(latent, 9_000)[:, 0], atol=1e-4)
    assert (plain - rounded).abs().max() > 1e-3


# --- many clips, and devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sr", [16_000, 44_100])
def test_many_clips_together_equal_one_by_one(models, kind, sr):
    clips = [sound(n, c, n)[0] if c == 0 else sound(n, c, n) for n, c in ((7_777, 1), (1, 2), (9_000, 2), (7_777, 1))]
    clips = [0.05 * clips[0][0], *clips[1:]]
    together = models[kind].enhance(clips, sr)
    for clip, out in zip(clips, together):
        assert out.shape == clip.shape
        assert (out - models[kind].enhance(clip, sr)).abs().max() < 1e-4
    assert models[kind].enhance([], sr) == []


@pytest.mark.parametrize("kind", ["alone", "guided", "decoded"])
def test_clips_with_gaps_together_equal_one_by_one(models, kind):
    clips = [torch.from_numpy(speechlike(seconds, seed=i)).float() for i, seconds in enumerate((1.5, 2.0))]
    for clip in clips:
        clip[9_000:10_500] = 0
    together = models[kind].enhance(clips, SR, Settings(restore=True))
    for clip, out in zip(clips, together):
        assert (out - models[kind].enhance(clip, SR, Settings(restore=True))).abs().max() < 1e-4


def test_a_mask_network_takes_clips_of_all_lengths_at_once(models, monkeypatch):
    sizes, step = [], MaskNet.step

    def counted(net, spec, state, latent=None):
        sizes.append(len(spec))
        return step(net, spec, state, latent)

    monkeypatch.setattr(MaskNet, "step", counted)
    models["alone"].enhance([sound(n, 1) for n in (3_000, 5_000, 4_000)], SR)
    assert set(sizes) == {3}


@pytest.mark.parametrize("sr", [16_000, 48_000])
@pytest.mark.parametrize("kind", ["guided", "decoded", "alone", "segan", "waveform"])
def test_everything_stays_on_the_networks_device(models, monkeypatch, kind, sr):
    """Tensors on the meta device have no values, and cannot be mixed with those of another device."""
    monkeypatch.setattr("wavelldm.denoise.chain.check_samples", lambda wav: wav)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # the meta device has none
    codec, diffusion = (deepcopy(network).to("meta") for network in models["alone"].latent())
    if kind == "decoded":
        model = LatentDenoiser(codec, diffusion)
    elif kind in ("guided", "alone"):
        model = MaskDenoiser(deepcopy(models[kind].mask).to("meta"), lambda: (codec, diffusion))
    else:
        model = WindowDenoiser(deepcopy(models[kind].network).to("meta"))
    session = model.stream(sr, 2)
    parts = [session.push(torch.zeros(2, 20_000, device="meta")), session.finish()]
    assert all(p.device.type == "meta" for p in parts) and sum(p.shape[1] for p in parts) == 20_000


def test_sound_comes_back_to_where_it_was(monkeypatch):
    monkeypatch.setattr("wavelldm.denoise.denoiser.check_samples", lambda wav: wav)
    model = MaskDenoiser(MaskNet(TINY.mask))
    with pytest.raises(WavelldmError, match="on meta and .* on cpu"):
        model.enhance(torch.zeros(9, device="meta"), SR)
    wav = sound(900, 1).double()
    session = model.stream(SR)
    for out in (model.enhance(wav, SR), torch.cat([session.push(wav), session.finish()], dim=1)):
        assert out.dtype == torch.float64 and out.device.type == "cpu" and out.shape == wav.shape


@pytest.mark.parametrize("n", [1, 255, 16_001, 40_000])
def test_a_network_that_hears_both_ways_gives_what_it_gives_at_once(n):
    net = shaken(MaskNet(replace(TINY.mask, both_ways=True, full=True, ahead=3)))
    wav = sound(n)
    with torch.no_grad():
        whole = net(wav[:, None])[:, 0]
    denoiser = MaskDenoiser(net)
    assert (denoiser.enhance(wav, SR, level=LEVEL) - whole).abs().max() < 1e-5
    assert (through(denoiser.stream(SR, 2, level=LEVEL), wav, 700) - whole).abs().max() < 1e-5


def test_many_channels_through_spans_are_those_alone(monkeypatch):
    monkeypatch.setattr("wavelldm.denoise.chain.SPAN", 31)
    net = shaken(MaskNet(replace(TINY.mask, both_ways=True, full=True, ahead=3)))
    denoiser, wav = MaskDenoiser(net), torch.cat([sound(40_000), 0.5 * sound(40_000).flip(1), sound(40_000)[:1]])
    together = denoiser.enhance(wav, SR, level=LEVEL)
    alone = torch.cat([denoiser.enhance(channel[None], SR, level=LEVEL) for channel in wav])
    assert len(wav) > 2 and (together - alone).abs().max() < 1e-5


def test_what_was_heard_before_goes_on_from_span_to_span(monkeypatch):
    """A network whose way back counts for nothing gives in spans of half a second what it gives at once."""
    monkeypatch.setattr("wavelldm.denoise.chain.SPAN", 31)
    monkeypatch.setattr("wavelldm.denoise.chain.AFTER", 4)
    net = shaken(MaskNet(replace(TINY.mask, both_ways=True, full=True, ahead=3)))
    wav = sound(40_000)
    with torch.no_grad():
        for block in net.blocks:
            block.out.weight[:, net.config.width :] = 0
        whole = net(wav[:, None])[:, 0]
    assert (MaskDenoiser(net).enhance(wav, SR, level=LEVEL) - whole).abs().max() < 1e-5


def test_spans_of_a_long_recording_differ_little_from_the_whole(monkeypatch):
    """Spans of 1 s with 2 s after them: what comes later than that is not heard."""
    monkeypatch.setattr("wavelldm.denoise.chain.SPAN", 62)
    torch.manual_seed(0)
    net = MaskNet(replace(TINY.mask, both_ways=True, full=True, ahead=3)).eval()
    wav = torch.from_numpy(noisy(speechlike(9.0), 5)).float()[None]
    with torch.no_grad():
        whole = net(wav[None])[0]
    denoiser = MaskDenoiser(net)
    cleaned = denoiser.enhance(wav, SR, level=LEVEL)
    session = denoiser.stream(SR, level=LEVEL)
    assert torch.equal(through(session, wav, 5_000), cleaned)
    assert session.latency < 3.2 * SR  # a span and what lies after it
    error = (cleaned - whole).square().mean() / whole.square().mean()
    assert 0 < error and 10 * error.log10() < -60
