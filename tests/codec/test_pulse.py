import math

import pytest
import torch

from wavelldm.audio import pitch
from wavelldm.codec import compress
from wavelldm.codec.losses import PULSE_WEIGHTS, MelLoss, pulse_distances
from wavelldm.codec.model import Codec
from wavelldm.codec.pulse import BANDS, PulseDecoder, mel_interpolation, pulses
from wavelldm.codec.search import search
from wavelldm.config import override
from wavelldm.errors import WavelldmError
from wavelldm.training.codec import CodecOptions, CodecTask, spread_loss
from wavelldm.training.presets import preset

SR, HOP = 16_000, 256
TINY = override(preset("tiny"), ["codec.decoder=pulse", "codec.pitch_input=true"])


def head(seed=0, **changes):
    torch.manual_seed(seed)
    made = PulseDecoder(**({"dim": 8, "width": 16, "depth": 1} | changes)).eval()
    if made.correction is not None:  # as if it had learnt something
        torch.nn.init.normal_(made.correction.out.weight, std=0.1)
    return made


def silent(*shape):
    return torch.full(shape, -30.0)


def test_pulses_are_the_sum_of_their_harmonics_with_power_one():
    f0, turns = torch.tensor([[100.0, 433.3]]), torch.tensor([[0.2, 0.9]])
    got = pulses(f0, turns, SR, 512)
    n = torch.arange(512) - 256
    for i in range(2):
        count = int(SR / 2 / f0[0, i])
        want = sum(
            torch.cos(2 * math.pi * k * (turns[0, i] + f0[0, i] * n / SR)) for k in range(1, count + 1)
        ) * math.sqrt(2 / count)
        assert torch.allclose(got[0, i], want, atol=5e-3)
    long = pulses(torch.tensor([[128.0]]), torch.tensor([[0.3]]), SR, 1250)  # ten whole periods
    assert float(long.square().mean()) == pytest.approx(1.0, abs=0.01)


def test_a_steady_pitch_gives_one_steady_tone():
    """Neighbouring frames agree in phase: with only the lowest band open what comes out is a sine of constant size."""
    h, t = head(), 40
    f0 = torch.full((1, t), 137.0)
    gains = silent(1, 2 * BANDS, t)
    gains[:, :7] = 0.0  # up to 148 Hz
    wav = h.join(h.frames(f0, h.turns(f0), gains, torch.arange(t)))[0, 0, 1000:-1000]
    size = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs()
    assert abs(float(size.argmax()) * SR / len(wav) - 137.0) < 2
    loud = wav.unfold(0, 512, 128).square().mean(-1)
    assert loud.min() > 0.8 * loud.max()


def test_a_gliding_pitch_keeps_its_phases_in_step():
    h, t = head(), 60
    f0 = torch.linspace(120, 160, t)[None]
    turns = h.turns(f0)[0]
    want = torch.cat([torch.zeros(1), ((f0[0, 1:] + f0[0, :-1]) / 2 * HOP / SR).cumsum(0)]).double() % 1
    assert ((turns - want + 0.5) % 1 - 0.5).abs().max() < 1e-4
    middle = (turns[:-1] + f0[0, :-1] * HOP / 2 / SR) - (turns[1:] - f0[0, 1:] * HOP / 2 / SR)  # seen from either frame
    assert ((middle + 0.5) % 1 - 0.5).abs().max() < 1e-6


def test_pulses_that_stand_out_do_not_run_at_the_lowest_pitch():
    """Frames 0 to 9 are a vowel by the envelopes, 10 to 19 a hiss, 20 to 29 silence: the same logits, the lowest first
    and then 140 Hz."""
    h, logits, gains = head(), torch.zeros(1, pitch.COUNT, 30), silent(1, 2 * BANDS, 30)
    at = int((pitch.candidates() - 140).abs().argmin())
    logits[:, 0], logits[:, at] = 12.0, 6.0
    gains[:, :BANDS, :10], gains[:, BANDS:, :10] = -2.0, -5.0
    gains[:, :BANDS, 10:20], gains[:, BANDS:, 10:20] = -5.0, -2.0
    f0 = h.f0(logits, gains)[0]
    assert ((f0[:10] - 140).abs() < 3).all() and (f0[10:] < 62).all()
    logits[:, at] = 0.0
    logits[:, 0] = 30.0  # beyond doubt: as low as 60 Hz, a creaking voice
    assert (h.f0(logits, gains)[0, :10] < 62).all()


def test_a_correction_turns_and_scales_each_bin():
    """Told by its bias alone to turn all bins by 90 degrees and to double them; nothing else is corrected."""
    plain, h, t = head(), head(correction=12), 30
    f0, gains = torch.full((1, t), 137.0), torch.full((1, 2 * BANDS + 12, t), -3.0)
    whole = torch.fft.rfft(h.frames(f0, h.turns(f0), gains, torch.arange(t)))
    torch.nn.init.zeros_(h.correction.out.weight)
    before = plain.frames(f0, h.turns(f0), gains[:, : 2 * BANDS], torch.arange(t))
    assert torch.equal(h.frames(f0, h.turns(f0), gains, torch.arange(t)), before)
    bins = HOP + 1
    with torch.no_grad():
        h.correction.out.bias[:bins], h.correction.out.bias[bins:] = -1.0, 2.0  # 1 - 1 + 2i
    window = h.window.clamp_min(1e-3)
    turned, straight = (torch.fft.rfft(x / window) for x in (h.frames(f0, h.turns(f0), gains, torch.arange(t)), before))
    assert torch.allclose(turned[..., 2:-2], 2j * straight[..., 2:-2], rtol=1e-2, atol=1e-2)
    assert not torch.allclose(whole, torch.fft.rfft(before), atol=1e-2), "weights do something, too"


def test_noise_has_the_level_that_its_envelope_says():
    h, t = head(), 200
    gains = silent(1, 2 * BANDS, t)
    gains[:, BANDS:] = math.log(0.05)
    wav = h.join(h.frames(torch.full((1, t), 100.0), torch.zeros(1, t), gains, torch.arange(t)))
    assert float(wav.std()) == pytest.approx(0.05, rel=0.05)


def test_the_envelope_lies_on_lines_between_its_points():
    bank = mel_interpolation(BANDS, 257, SR)
    assert torch.allclose(bank.sum(0), torch.ones(257), atol=1e-5) and (bank >= 0).all()
    assert ((bank > 0).sum(0) <= 2).all() and bank[0, 0] == 1 and bank[-1, -1] == pytest.approx(1.0, abs=1e-5)


def joined(h, x, cuts, margin=12):
    """What windows that overlap by `margin` on either side make of a latent (B, D, T), new frames as in `cuts`."""
    pieces, state, done = [], h.initial_window_state(len(x)), 0
    for count in (*cuts, x.shape[-1] - sum(cuts)):
        first, last = max(0, done - margin), min(x.shape[-1], done + count + margin)
        wav, state = h.window_step(x[..., first:last], done - first, count, state)
        pieces.append(wav[..., (done - first) * HOP : (done - first + count) * HOP])
        done += count
    return torch.cat(pieces, -1)


@pytest.mark.parametrize("correction", [0, 12])
@pytest.mark.parametrize("cuts", [(50, 60), (33, 100)])
def test_windows_that_overlap_join_to_the_whole(cuts, correction):
    """In double precision. In single precision the last digit of each pitch depends on how the processor's convolutions
    add up; phases collect that, frame by frame, and the highest harmonics multiply it by a hundred."""
    h = head(correction=correction).double()
    x = torch.randn(2, 8, 150, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        whole = h(x)
        assert whole.dtype == torch.float64
        assert (joined(h, x, cuts) - whole).abs().max() < 1e-8 * whole.abs().max()


@pytest.mark.parametrize("cuts", [(50, 60), (33, 100)])
def test_in_single_precision_the_phases_of_windows_agree_to_rounding(cuts):
    """Each frame adds f0 * hop / sr turns, with a relative error of some 2^-22 on any processor."""
    h, x = head(), torch.randn(2, 8, 150, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        f0 = h.f0(*h.parts(x))
        whole, state, done = h.turns(f0), h.initial_window_state(2), 0
        bound = 2**-22 * (f0 * HOP / SR).sum(1).max()
        for count in cuts:
            first = max(0, done - 12)
            _, state = h.window_step(x[..., first : done + count + 12], done - first, count, state)
            done += count
            apart = (state[1] - whole[:, done] + 0.5) % 1.0 - 0.5
            assert state[0] == done and apart.abs().max() < bound


def test_codes_that_use_everything_evenly_have_no_spread_loss():
    g = torch.Generator().manual_seed(0)
    even = torch.randn(1, 20_000, 20, generator=g)
    assert spread_loss(even) < 1e-3
    assert spread_loss(even * 0.3) > 0.02 and spread_loss(even + 1) > 0.5
    assert spread_loss(even[..., :1].expand(-1, -1, 20)) > 0.5


def test_the_pulse_decoder_learns_the_pitch_it_is_shown():
    torch.manual_seed(0)
    t = torch.arange(8192) / SR
    wav = torch.stack([sum(torch.cos(2 * math.pi * k * f * t) for k in range(1, 12)) * 0.05 for f in (110.0, 205.0)])[
        :, None
    ]
    task = CodecTask(TINY.codec, CodecOptions(half=False))
    task.valid = [(wav, wav)]
    model, before = task.networks["model"], task.validate(task.networks["model"])
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(60):
        for _, loss, _ in task.losses((wav, wav)):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    after = task.validate(model)
    assert after["score"] < 0.6 * before["score"] and after["valid_pitch"] < 0.5 * before["valid_pitch"]
    found = model.decoder.f0(*model.decoder.parts(model.upsampler(model(wav).z_q)))[:, 5:-5].median(1).values
    assert torch.allclose(found, torch.tensor([110.0, 205.0]), rtol=0.03)


@pytest.mark.parametrize("codebooks", [None, 2])
def test_a_search_finds_better_codes(codebooks):
    torch.manual_seed(0)
    codec, t = Codec(TINY.codec).eval(), torch.arange(6000) / SR
    wav = 0.05 * sum(torch.cos(2 * math.pi * k * 150 * t) for k in range(1, 12))[None, None]

    def worth(codes):
        with torch.no_grad():
            parts = pulse_distances(
                codec, codec.quantiser.decode_codes(codes), wav, MelLoss(SR).mels, torch.arange(codes.shape[2])
            )
            return float(sum(w * parts[k] for k, w in PULSE_WEIGHTS.items()))

    with torch.no_grad():
        before = codec.quantise(codec.encode(wav, SR))[1][:, :codebooks]
        found = search(codec, wav, 40, codebooks)
    assert (
        found.shape == before.shape
        and found.dtype == before.dtype
        and 0 <= int(found.min()) <= int(found.max()) < codec.quantiser.entries
    )
    assert worth(found) < worth(before) - 0.02
    assert torch.equal(search(codec, wav, 0, codebooks), before), "without steps it is the encoder's guess"
    assert all(p.grad is None for p in codec.parameters())


def test_a_search_goes_through_files_of_any_length(monkeypatch):
    monkeypatch.setattr(compress, "BLOCK_FRAMES", 32)
    torch.manual_seed(0)
    codec = Codec(TINY.codec).eval()
    wav = 0.1 * torch.randn(2, 90 * HOP + 5, generator=torch.Generator().manual_seed(1))
    codes = torch.cat(list(compress.encode_blocks(codec, wav.split(5_000, dim=1), 3, steps=1)), dim=2)
    assert codes.shape == (2, 3, 91)
    with pytest.raises(WavelldmError, match="pulse decoder"):
        search(Codec(preset("tiny").codec), wav[:1, None], 1)
