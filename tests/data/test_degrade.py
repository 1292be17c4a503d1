"""Every damage does what its numbers say, the same for the same seed; noisy and clean share every gain."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from wavelldm.audio.levels import active_level
from wavelldm.data.degrade import (
    RECIPES,
    RING,
    Degradation,
    band_limit,
    clip,
    degrade,
    dropouts,
    mulaw,
    reverberate,
    room_response,
    vary,
)
from wavelldm.errors import DataError

SR = 16_000
NOTHING = Degradation(noise=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sounds(batch: int = 4, seconds: float = 2.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tones that swell three times a second, and white noise: (B, 1, N) each."""
    t = torch.arange(round(seconds * SR)) / SR
    pitch = torch.linspace(200, 900, batch)[:, None, None]
    clean = 0.2 * torch.sin(2 * math.pi * pitch * t) * (0.6 + 0.4 * torch.sin(2 * math.pi * 3 * t))
    return clean, 0.1 * torch.randn(clean.shape, generator=generator(seed))


def runs(mask: torch.Tensor) -> list[int]:
    """Lengths of the stretches of True in mask (N,)."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.int().numpy(), 0]))
    return (edges[1::2] - edges[::2]).tolist()


def test_no_damage_changes_nothing():
    clean, noise = sounds()
    noisy, target = degrade(clean, noise, NOTHING, SR, generator())
    assert torch.equal(noisy, clean) and torch.equal(target, clean)


def test_the_noise_has_the_drawn_ratio():
    clean, noise = sounds(8)
    noisy, target = degrade(clean, noise, Degradation(snr=(7.5, 7.5)), SR, generator())
    assert torch.allclose(active_level(target, SR) - active_level(noisy - target, SR), torch.tensor(7.5), atol=1e-3)
    noisy, target = degrade(clean, noise, Degradation(snr=(-5, 20)), SR, generator())
    ratios = active_level(target, SR) - active_level(noisy - target, SR)
    assert ratios.min() > -5 and ratios.max() < 20 and ratios.max() - ratios.min() > 5


def test_noisy_and_target_share_one_gain():
    clean, noise = sounds(8)
    plain, _ = degrade(clean, noise, replace(NOTHING, noise=1.0, snr=None), SR, generator())
    assert torch.equal(plain, clean + noise)  # a recorded pair passes untouched
    noisy, target = degrade(clean, noise, Degradation(snr=None, level=1.0, level_db=(-40, -10)), SR, generator())
    gain = (target * clean).sum(-1, keepdim=True) / clean.square().sum(-1, keepdim=True)  # (B, 1, 1)
    assert gain.max() / gain.min() > 2
    assert torch.allclose(target, gain * clean, atol=1e-6) and torch.allclose(noisy, gain * plain, atol=1e-6)


def test_the_level_is_the_drawn_one():
    clean, noise = sounds()
    _, target = degrade(clean, noise, replace(NOTHING, level=1.0, level_db=(-33, -33)), SR, generator())
    assert torch.allclose(active_level(target, SR), torch.tensor(-33.0), atol=1e-3)


def test_too_loud_a_mixture_turns_both_down():
    clean, noise = sounds()
    noisy, target = degrade(clean, noise, Degradation(snr=(-30, -30)), SR, generator())
    assert noisy.abs().max() <= 1.0
    assert target.abs().max() < 0.5 * clean.abs().max()
    assert torch.allclose(active_level(target, SR) - active_level(noisy - target, SR), torch.tensor(-30.0), atol=0.01)


def test_an_overshoot_turns_both_down():
    square = torch.sin(2 * math.pi * 150 * torch.arange(2 * SR) / SR).sign()[None, None]
    noisy, target = degrade(square, square, replace(NOTHING, band=1.0, cutoff=(2_000, 2_000)), SR, generator())
    assert noisy.abs().max() <= 1.0 and target.abs().max() < 0.95  # the filter rings by about 9 per cent


def reverberation_time(response: torch.Tensor) -> float:
    """T30 after ISO 3382: the slope of the backward-integrated energy from -5 to -35 dB."""
    energy = response.double().square().flip(0).cumsum(0).flip(0)
    curve = 10 * np.log10((energy / energy[0]).clamp(min=1e-12).numpy())
    inside = np.flatnonzero((curve < -5) & (curve > -35))
    return -60 / np.polyfit(inside / SR, curve[inside], 1)[0]


@pytest.mark.parametrize("rt60", [0.2, 0.4, 0.8])
def test_synthetic_rooms_have_the_reverberation_time_asked_for(rt60):
    rooms = room_response(torch.full((6,), rt60), torch.zeros(6), SR, generator())
    for room in rooms:
        assert abs(reverberation_time(room[0]) / rt60 - 1) < 0.15


def test_the_direct_path_comes_first_with_its_share_of_energy():
    room = room_response(torch.full((2,), 0.5), torch.tensor([0.0, 6.0]), SR, generator())
    assert (room.abs().argmax(-1) == 0).all() and (room[..., 0] == 1).all()
    echoes = room[..., 1:].square().sum(-1)[:, 0]
    assert torch.allclose(-10 * torch.log10(echoes), torch.tensor([0.0, 6.0]), atol=1e-3)


def test_reverberation_equals_direct_convolution_and_keeps_time():
    """A late direct path: the delay is gone, the target has the first 50 ms of echoes, the reverberant all."""
    clean, _ = sounds(2, 0.5)
    response = torch.zeros(2, 1, 3_000)
    response[0, 0, [100, 500, 2_500]] = torch.tensor([1.0, 0.5, 0.25])  # echoes 25 ms and 150 ms after
    response[1, 0, [0, 20]] = torch.tensor([0.3, 1.0])  # a foot before the peak is kept
    wet, target = reverberate(clean, response, SR)

    def delayed(wav, by):
        whole = torch.nn.functional.pad(wav, (max(0, by), max(0, -by)))
        return whole[:, max(0, -by) :][:, : wav.shape[1]]

    scale = 1 / math.sqrt(1.25)
    early = clean[0] + 0.5 * delayed(clean[0], 400)
    assert torch.allclose(target[0], scale * early, atol=1e-5)
    assert torch.allclose(wet[0], scale * (early + 0.25 * delayed(clean[0], 2_400)), atol=1e-5)
    expected = (clean[1] + 0.3 * delayed(clean[1], -20)) / math.sqrt(1.09)
    assert torch.allclose(wet[1], expected, atol=1e-5) and torch.allclose(wet[1], target[1], atol=1e-6)


def test_reverberated_speech_stays_aligned_with_the_target():
    noise = 0.1 * torch.randn(6, 1, SR, generator=generator(5))
    measured = torch.randn(3, 4_000, generator=generator(6)) * 10 ** (-3 * torch.arange(4_000) / 4_000) * 0.05
    measured[:, 77] = 1.0  # the direct path
    for rirs in (None, measured):
        noisy, target = degrade(noise, noise, replace(NOTHING, reverb=1.0), SR, generator(), rirs)
        for wet, dry, clean in zip(noisy[:, 0], target[:, 0], noise[:, 0], strict=True):
            for other in (wet, dry):
                product = torch.fft.irfft(torch.fft.rfft(other) * torch.fft.rfft(clean).conj())
                assert product.argmax() == 0
        assert not torch.allclose(noisy, target, atol=1e-2)


def test_half_of_the_rooms_are_measured_ones():
    impulse = torch.zeros(200, 1, 4_000)
    impulse[..., 0] = 1.0
    measured = torch.zeros(1, 400)
    measured[0, 0] = measured[0, 399] = 1.0
    wet, _ = degrade(impulse, impulse, replace(NOTHING, reverb=1.0), SR, generator(), measured)
    two_taps = (wet.abs() > 1e-4 * wet.abs().amax(-1, keepdim=True)).sum(-1) == 2
    assert 70 <= two_taps.sum() <= 130


def test_dropouts_have_the_lengths_and_counts_promised():
    wav = torch.ones(120, 1, 8 * SR)
    lost, mask = dropouts(wav, SR, generator())
    assert torch.equal(lost, (~mask).float())
    counts, lengths = [], []
    for row in mask[:, 0]:
        found = runs(row)
        counts.append(len(found))
        lengths += found
        assert len(found) == 1 or min(runs(~row[row.nonzero()[0, 0] : row.nonzero()[-1, 0]])) >= 0.01 * SR
    assert set(counts) == set(range(1, 8))
    assert 0.05 * SR <= min(lengths) < 0.07 * SR and 0.43 * SR < max(lengths) <= 0.45 * SR
    centre = (mask.float().sum(0)[0] * torch.arange(8 * SR)).sum() / mask.sum() / SR
    assert 3.6 < centre < 4.4  # anywhere in the crop


def test_dropouts_leave_half_of_a_short_crop():
    for n in (400, 3_200, SR):
        _, mask = dropouts(torch.ones(50, 1, n), SR, generator(), count=(7, 7))
        share = mask.float().mean(-1)
        assert share.max() <= 0.5 and share.min() > 0
    _, mask = dropouts(torch.ones(20, 1, 2 * SR), SR, generator(), count=(3, 3), seconds=(0.1, 0.1))
    assert all(runs(row) == [1_600] * 3 for row in mask[:, 0])


def test_the_band_limit_cuts_above_and_keeps_below():
    impulse = torch.zeros(2, 1, 2 * SR)
    impulse[..., SR] = 1.0
    cutoff = torch.tensor([2_000.0, 4_000.0])
    out = band_limit(impulse, SR, cutoff)
    assert (out.argmax(-1) == SR).all()  # no delay
    assert torch.allclose(out[..., SR + 1 :], out[..., 1:SR].flip(-1)[..., : SR - 1], atol=1e-6)  # linear phase
    gain = 20 * torch.log10(torch.fft.rfft(out).abs().clamp(min=1e-9))[:, 0]  # (2, bins)
    hz = torch.arange(gain.shape[-1]) / 2
    for row, edge in zip(gain, cutoff, strict=True):
        assert row[hz <= 0.88 * edge].abs().max() < 0.5
        assert row[hz >= 1.02 * edge].max() < -40


def test_clipping_flattens_at_the_ceiling():
    wav, _ = sounds(2)
    out = clip(wav, torch.tensor([6.0, 12.0]), torch.tensor([True, False]))
    ceiling = wav.abs().amax(-1)[:, 0] * 10 ** (-torch.tensor([6.0, 12.0]) / 20)
    below = wav[0].abs() <= ceiling[0]
    assert torch.equal(out[0][below], wav[0][below]) and torch.allclose(out[0][~below].abs(), ceiling[0])
    assert torch.allclose(out[1], ceiling[1] * torch.tanh(wav[1] / ceiling[1]))


def test_mulaw_has_255_levels_and_38_db():
    ramp = torch.linspace(-1, 1, 10_001)[None, None]
    out = mulaw(ramp)
    assert len(out.unique()) == 255 and torch.allclose(out, -out.flip(-1)) and out[..., 5_000] == 0
    wav, _ = sounds(1)
    assert 35 < 10 * torch.log10(wav.square().mean() / (mulaw(wav) - wav).square().mean()) < 41


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_function_of_its_seed(name):
    clean, noise = sounds(12)
    kept = clean.clone(), noise.clone()
    first, again, other = (degrade(clean, noise, RECIPES[name], SR, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert torch.equal(first[0], other[0]) == (name == "recorded")
    assert first[0].shape == first[1].shape == clean.shape
    assert first[0].isfinite().all() and max(x.abs().max() for x in first) <= 1.0
    assert torch.equal(clean, kept[0]) and torch.equal(noise, kept[1])  # the inputs are left alone


def test_damage_falls_on_its_share_of_the_items():
    clean, noise = sounds(400, 0.1)
    noisy, target = degrade(clean, noise, replace(NOTHING, mulaw=0.25), SR, generator())
    hit = (noisy != target).any(-1).float().mean()
    assert 0.18 < hit < 0.32 and torch.equal(target, clean)


def test_silence_stays_finite():
    zeros = torch.zeros(8, 1, SR)
    noisy, target = degrade(zeros, zeros, RECIPES["everything"], SR, generator())
    assert (noisy == 0).all() and (target == 0).all()


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(DataError, match="batch, 1, samples"):
        degrade(torch.zeros(1, 1, 10), torch.zeros(1, 10), NOTHING, SR, generator())


@pytest.mark.parametrize("speed", [0.88, 1.0, 1.18])
def test_a_varied_voice_moves_in_pitch_and_time(speed):
    count, hz = SR, 1_000
    time = torch.arange(round(count * speed)) / SR
    found = vary(torch.sin(2 * math.pi * hz * time)[None], count, torch.zeros(4))
    assert found.shape == (1, count)
    wanted = torch.sin(2 * math.pi * hz * len(time) / count * torch.arange(count) / SR)
    inner = slice(RING, -RING)
    assert torch.allclose(found[0, inner], wanted[inner], atol=0.02)


def test_a_microphone_is_the_filter_of_its_coefficients():
    tilt = [0.3, -0.2, -0.375, 0.1]
    wav = torch.randn(1, SR, generator=torch.Generator().manual_seed(0))
    wav[:, SR // 2 :] = 0  # so that the end does not come back at the beginning
    wanted = lfilter([1, *tilt[:2]], [1, *tilt[2:]], wav[0].numpy())
    assert torch.allclose(vary(wav, SR, torch.tensor(tilt))[0], torch.from_numpy(wanted).float(), atol=1e-4)


def test_faint_noise_is_faint_and_narrow_speech_is_its_own_target():
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(16, 1, 16_000, generator=generator) * x for x in (0.1, 0.1))
    recipe = Degradation(snr=(0.0, 0.0), faint=1.0, narrow=1.0, narrow_cutoff=(4_000.0, 4_000.0))
    noisy, target = degrade(clean, noise, recipe, 16_000, generator)
    ratio = 10 * (target.square().mean(-1) / (noisy - target).square().mean(-1)).log10()
    assert (ratio > 29).all() and (ratio < 61).all()
    spectrum = torch.fft.rfft(target).abs()
    assert spectrum[..., 4_200:].mean() < 0.02 * spectrum[..., :3_000].mean()
