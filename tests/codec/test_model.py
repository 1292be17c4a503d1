import contextlib
import math
from dataclasses import replace

import pytest
import torch

from wavelldm import weights
from wavelldm.audio.mel import MELS, LogMel, MelConfig, griffin_lim
from wavelldm.audio.stft import istft, stft
from wavelldm.codec.decoders import HiFiGAN, ISTFTHead
from wavelldm.codec.model import Codec, CodecConfig
from wavelldm.errors import WavelldmError
from wavelldm.nn.layers import count_parameters
from wavelldm.training.presets import PRESETS, preset

torch.set_num_threads(1)


def variant(name="tiny", **codec):
    return replace(preset(name).codec, **codec)


HIFIGAN = {"decoder": "hifigan", "decoder_dim": 32, "upsample": (8, 8, 2, 2)}
PULSE = {"decoder": "pulse", "pitch_input": True}
KINDS = {
    "light": variant(),
    "light, strides": variant(strides=(2, 2)),
    "light, polished": variant(polish=3),
    "light, causal": variant(causal=True),
    "light, causal, strides": variant(causal=True, strides=(2, 3)),
    "hifigan": variant(**HIFIGAN),
    "pulse": variant(**PULSE),
    "pulse, causal": variant(causal=True, **PULSE),
    "pulse, causal, strides": variant(causal=True, strides=(2,), **PULSE),
    "pulse, causal, ahead": variant(causal=True, ahead=1, **PULSE),
    "pulse, corrected": variant(correction=8, **PULSE),
    "pulse, causal, corrected": variant(causal=True, ahead=1, correction=8, **PULSE),
    "light, causal, strides, ahead": variant(causal=True, strides=(2,), ahead=2),
    "hifigan, causal, strides": variant(causal=True, strides=(2,), **HIFIGAN),
}
CAUSAL = [kind for kind in KINDS if "causal" in kind]


def build(kind):
    torch.manual_seed(0)
    codec = Codec(KINDS[kind]).eval()
    for p in codec.decoder.parameters():  # an untrained HiFi-GAN hardly reacts to its input
        if p.ndim > 1:
            p.data *= 1.5
    if "corrected" in kind:
        torch.nn.init.normal_(codec.decoder.correction.out.weight, std=0.1)
    return codec


def speechlike(n, batch=1, sr=16_000):
    """A gliding harmonic tone that comes and goes: (B, 1, n)."""
    t = torch.arange(n) / sr
    rows = [
        sum(torch.sin(2 * math.pi * k * (110 + 30 * b) * (t + 0.05 * t.square())) / k for k in range(1, 12))
        * (0.55 + 0.45 * torch.sin(2 * math.pi * 4 * t + b))
        for b in range(batch)
    ]
    return 0.1 * torch.stack(rows)[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_out_is_as_long_as_what_went_in(kind):
    codec = build(kind)
    random = torch.randint(1, 9000, (6,), generator=torch.Generator().manual_seed(1))
    for n in (1, 2, 255, 256, 257, 1023, *random.tolist()):
        with torch.no_grad():
            out = codec(speechlike(n, batch=2))
        t = math.ceil(n / codec.hop)
        assert out.wav.shape == (2, 1, n), f"{n} samples became {out.wav.shape[-1]}"
        assert out.z.shape == out.z_q.shape == (2, 48, t) and out.codes.shape == (2, 4, t)
        assert out.wav.isfinite().all()


@pytest.mark.parametrize("kind", ["light, strides", "light, polished", "hifigan", "pulse"])
def test_the_steps_one_by_one_equal_forward(kind):
    codec, wav = build(kind), speechlike(5000)
    with torch.no_grad():
        out = codec(wav)
        z = codec.encode(wav, 16_000)
        z_q, codes = codec.quantise(z)
        assert torch.equal(z, out.z) and torch.equal(z_q, out.z_q) and torch.equal(codes, out.codes)
        assert torch.equal(codec.decode(z_q, 5000), out.wav)
        assert torch.equal(codec.codes_to_wav(codes, 5000), out.wav)
        few = codec(wav, keep=torch.tensor([2]))
        assert torch.equal(codec.codes_to_wav(codes[:, :2], 5000), few.wav) and not torch.equal(few.wav, out.wav)


def test_the_encoder_sees_silence_as_smallest_and_louder_as_larger():
    codec = build("light")
    assert torch.allclose(codec._features(torch.zeros(1, 1, 2560)), torch.tensor(-2.5), atol=1e-5)
    wav = speechlike(2560)
    features = codec._features(wav)
    want = 2.5 + 5 * LogMel(MELS["base16k"])(wav, 16_000) / math.log(1e5)
    assert torch.allclose(features, want, atol=1e-5) and (features >= -2.5 - 1e-5).all()


def pieces(total, size, generator):
    while total > 0:
        n = size if size else int(torch.randint(0, 1500, (), generator=generator))
        yield min(n, total)
        total -= n


@pytest.mark.parametrize("size", [160, 256, 1000, 4096, 20_000, None], ids=lambda s: f"chunks of {s or 'any size'}")
@pytest.mark.parametrize("kind", CAUSAL)
def test_streaming_equals_the_whole_file(kind, size):
    codec, n = build(kind), 12_345
    wav, generator = speechlike(n, batch=2), torch.Generator().manual_seed(2)
    sizes = list(pieces(n, size, generator))
    zs, wavs = [], []
    encoder, decoder = codec.initial_encoder_state(2), codec.initial_decoder_state(2)
    with torch.no_grad():
        whole_z = codec.encode(wav, 16_000)
        whole = codec.decode(codec.quantise(whole_z)[0])
        for i, chunk in enumerate(wav.split(sizes, dim=-1)):
            z, encoder = codec.encode_step(chunk, encoder)
            heard, fed = sum(sizes[: i + 1]), sum(part.shape[-1] for part in zs) + z.shape[-1]
            assert fed == max(0, heard // codec.hop - codec.config.ahead), "every complete frame comes out at once"
            zs.append(z)
            y, decoder = codec.decode_step(codec.quantise(z)[0], decoder)
            wavs.append(y)
            spoken = sum(part.shape[-1] for part in wavs)
            assert spoken >= heard - codec.latency, "the latency is what it claims"
        zs.append(codec.encode_finish(encoder))
        y, decoder = codec.decode_step(codec.quantise(zs[-1])[0], decoder)
        wavs += [y, codec.decode_finish(decoder)]
    for name, joined, want in (("latent", torch.cat(zs, -1), whole_z), ("sample", torch.cat(wavs, -1), whole)):
        assert joined.shape == want.shape, f"{name}s: {tuple(joined.shape)} and {tuple(want.shape)}"
        close = 2e-3 if "pulse" in kind and name == "sample" else 1e-4  # phases add up their rounding errors
        wrong = (joined - want).abs().amax((0, 1)) > close
        first = int(wrong.int().argmax())
        assert not wrong.any(), f"{kind}: first wrong {name} {first} of {len(wrong)}, chunks {sizes[:5]}..."


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_causal_codec_sees_the_past_and_no_further_than_its_latency(kind):
    codec = build(kind)
    wav = speechlike(20 * codec.hop).requires_grad_()
    y, at = codec(wav).wav, 12 * codec.hop + 77
    (grad,) = torch.autograd.grad(y[0, 0, at], wav)
    last_frame = (at + codec.decoder.delay) // codec.config.mel.hop * codec.config.mel.hop // codec.hop
    end = (last_frame + 1 + codec.config.ahead) * codec.hop  # the first sample that no frame so far has seen
    assert (grad[..., end:] == 0).all()
    assert end - at <= codec.latency
    assert (grad[..., end - codec.hop : end] != 0).any() and (grad[..., : 10 * codec.hop] != 0).any()


@pytest.mark.parametrize("kind", ["light", "hifigan"])
def test_a_codec_that_is_not_causal_does_look_ahead(kind):
    codec, wav = build(kind), speechlike(5120).requires_grad_()
    (grad,) = torch.autograd.grad(codec(wav).wav[0, 0, 2000], wav)
    assert (grad[..., 2000 + 2 * codec.hop :] != 0).any()


@pytest.mark.parametrize("kind", ["light", "hifigan, causal, strides"])
def test_gradients_reach_every_parameter(kind):
    codec = build(kind).train()
    codec(speechlike(8000)).wav.square().sum().backward()
    without = [name for name, p in codec.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert not without


def test_one_batch_can_be_learnt():
    torch.manual_seed(3)
    codec, wav = Codec(preset("tiny").codec), speechlike(8192, batch=2)
    mel = LogMel(MELS["base16k"])
    want, optimiser = mel(wav, 16_000), torch.optim.AdamW(codec.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        loss = (mel(codec(wav).wav, 16_000) - want).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4, f"{losses[0]:.2f} fell to {losses[-1]:.2f} only"


def test_autocast_and_half_precision_stay_close():
    codec, wav = build("light"), speechlike(8000)
    with torch.no_grad():
        plain = codec(wav)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = codec(wav)
    assert mixed.wav.dtype == torch.float32
    assert (mixed.codes == plain.codes).float().mean() > 0.8
    assert (mixed.z - plain.z).abs().max() < 0.2


def test_the_light_head_inverts_the_spectrum_it_is_given():
    head, wav = ISTFTHead(8, 16, 1), speechlike(5120)
    spec = stft(wav, 1024, 256, 1024, "same")
    head.spectrum = lambda _: spec
    with torch.no_grad():
        assert torch.allclose(head(torch.zeros(1, 8, 20)), wav, atol=1e-4)


def test_with_polish_the_heads_magnitudes_stay_and_griffin_lim_finds_the_phases():
    codec, wav = build("light, polished"), speechlike(6_000)
    with torch.no_grad():
        z_q = codec.quantise(codec.encode(wav, 16_000))[0]
        spectrum = codec.spectrum(z_q)
        size = spectrum.abs()
        want = griffin_lim(size, MelConfig(), 3, start=spectrum / size)
        assert torch.allclose(codec.decode(z_q), want, atol=1e-4)
        off = [
            (stft(istft(spectrum, 1024, 256, 1024), 1024, 256, 1024).abs() - size).norm(),
            (stft(want, 1024, 256, 1024).abs() - size).norm(),
        ]
    assert off[1] < 0.8 * off[0], "the sound has these magnitudes more nearly than with the head's own phases"


@pytest.mark.parametrize("n", [1, 100, 16_000])
def test_the_codec_that_ships_makes_silence_of_silence(n):
    with torch.no_grad():
        wav = weights.load("voice16k", Codec)(torch.zeros(1, 1, n)).wav
    assert wav.shape == (1, 1, n) and wav.abs().max() < 1e-2


def test_no_bin_of_the_light_head_explodes():
    head = ISTFTHead(8, 16, 1)
    assert head.spectrum(torch.full((1, 16, 3), 1e6)).abs().max() <= 512.01


def test_hifigan_v1_has_its_published_size():
    model = HiFiGAN(80, 512, (8, 8, 2, 2))
    scales = sum(p.numel() for name, p in model.named_parameters() if name.endswith("original0"))  # of the weight norms
    assert count_parameters(model) - scales == 13_926_017  # arXiv 2010.05646, table 1: 13.92 M
    with torch.no_grad():
        assert model(torch.randn(1, 80, 3)).shape == (1, 1, 768)


@pytest.mark.parametrize(
    "name, most, kbit", [("tiny", 0.2e6, 3.477), ("base16k", 4e6, 3.477), ("paper44k", 40e6, 4.791)]
)
def test_presets_build_and_keep_their_promises(name, most, kbit):
    p = PRESETS[name].codec
    codec = Codec(p).eval()
    assert count_parameters(codec) < most
    assert p.bitrate() / 1000 == pytest.approx(kbit, abs=5e-4)
    with torch.no_grad():
        out = codec(speechlike(4 * p.hop + 1, sr=p.sr))
    assert out.wav.shape[-1] == 4 * p.hop + 1
    assert out.codes.shape == (1, 4, 5)


def test_the_seeds_low_rate_is_paper44k_with_two_strides():
    p = variant("paper44k", strides=(2, 2))
    assert p.hop == 2048 and p.latent_rate == pytest.approx(21.533, abs=1e-3)
    assert p.bitrate() == pytest.approx(1197.8, abs=0.1)
    with torch.no_grad():
        codes = Codec(p).eval()(speechlike(3000)).codes
    assert codes.shape == (1, 4, 2)


def test_the_batch_does_not_mix():
    codec, wav = build("light"), speechlike(6000, batch=3)
    with torch.no_grad():
        together, alone = codec(wav).wav, codec(wav[1:2]).wav
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_errors_say_what_to_do():
    codec, wav = build("light"), speechlike(1000)
    for bad in (wav[0], wav.expand(1, 2, -1), wav.long()):
        with pytest.raises(WavelldmError, match="float wav .batch, 1"):
            codec.encode(bad, 16_000)
    with pytest.raises(WavelldmError, match="no samples"):
        codec.encode(wav[..., :0], 16_000)
    with pytest.raises(WavelldmError, match="44100 Hz.*resample"):
        codec.encode(wav, 44_100)
    z = codec.encode(wav, 16_000)
    for bad in (z[0], z[:, :40], torch.zeros(1, 384, 4)):
        with pytest.raises(WavelldmError, match="use the codec"):
            codec.quantise(bad)
        with pytest.raises(WavelldmError, match="use the codec"):
            codec.decode(bad)
    for length in (0, -1, 1025):
        with pytest.raises(WavelldmError, match="1 to 1024 samples"):
            codec.decode(z, length)
    with pytest.raises(WavelldmError, match="causal=True"):
        codec.initial_encoder_state(1)
    with pytest.raises(WavelldmError, match="causal=True"):
        codec.initial_decoder_state(1)
    with pytest.raises(WavelldmError, match="codes are integers"):
        codec.codes_to_wav(z)
    for broken, message in (
        (CodecConfig(upsample=(8, 8, 2)), "multiply to 128"),
        (CodecConfig(decoder="vocos"), "hifigan, istft or pulse"),
        (CodecConfig(decoder="istft", causal=True, polish=1), "polish=0"),
        (CodecConfig(ahead=1), "causal=True"),
        (CodecConfig(depths=(1,)), "differ in number"),
        (CodecConfig(upsample=(8, 8, 2, 2), decoder_dim=100), "multiple of 16"),
        (CodecConfig(upsample=(8, 8, 2, 2), latent_dim=42), "groups"),
    ):
        with pytest.raises(WavelldmError, match=message):
            Codec(broken)


@pytest.mark.parametrize("decoder", ["istft", "pulse", "hifigan"])
@pytest.mark.parametrize("causal", [False, True])
def test_everything_stays_on_its_device(decoder, causal, monkeypatch):
    """`meta` tensors have no values: whatever leaves their device fails. There is no autocast for them."""
    monkeypatch.setattr(torch, "autocast", lambda *device, **settings: contextlib.nullcontext())
    c = replace(preset("tiny").codec, decoder=decoder, decoder_dim=16, upsample=(8, 8, 2, 2), causal=causal)
    codec = Codec(replace(c, polish=0)).to("meta").eval()
    wav = torch.zeros(2, 1, 4_000, device="meta")
    assert {x.device.type for x in codec(wav)} == {"meta"}
    if causal:
        z, _ = codec.encode_step(wav, codec.initial_encoder_state(2))
        y, state = codec.decode_step(z, codec.initial_decoder_state(2))
        assert {x.device.type for x in (z, y, codec.decode_finish(state))} == {"meta"}
    else:
        z = codec.encode(wav, codec.sr)
        y, _ = codec.decode_window(z, 2, 4, codec.initial_window_state(2))
        assert y.device.type == "meta" and y.shape == (2, 1, 4 * codec.hop)
