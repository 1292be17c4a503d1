"""Active level and SNR, against a sample-by-sample ITU-T P.56 written here, and numbers known by hand."""

import math

import numpy as np
import torch
from scipy.signal import butter, lfilter, sosfilt

from wavelldm.audio.levels import active_level, active_mask, limit_together, mix_at_snr

SR = 16_000


def p56(x: np.ndarray, sr: int) -> float:
    """ITU-T P.56, method B, sample by sample: two-stage envelope, 16 thresholds, 200 ms hangover, interpolation."""
    decay = math.exp(-1 / (sr * 0.03))
    envelope = np.abs(x)
    for _ in range(2):
        envelope = lfilter([1 - decay], [1, -decay], envelope)
    energy, position = float(np.sum(x.astype(np.float64) ** 2)), np.arange(len(x))
    levels, excess = [], []
    for j in range(-15, 1):
        last = np.maximum.accumulate(np.where(envelope >= 2.0**j, position, -(10**9)))
        active = int((position - last <= 0.2 * sr).sum())
        if active == 0:
            break
        levels.append(10 * math.log10(energy / active))
        excess.append(levels[-1] - 20 * j * math.log10(2) - 15.9)
        if excess[-1] <= 0:
            share = excess[-2] / (excess[-2] - excess[-1])
            return levels[-2] + share * (levels[-1] - levels[-2])
    raise AssertionError("no threshold lies 15.9 dB under its level")


def speech_like(seed: int, seconds: float = 8.0, hiss: float = 1e-4) -> torch.Tensor:
    """Syllables of coloured noise in phrases with pauses of half a second and more, over a hiss: (1, N)."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SR)
    voice = sosfilt(butter(2, (150, 3_000), "band", fs=SR, output="sos"), rng.standard_normal(n))
    gate, at = np.zeros(n), 0
    while at < n:
        for _ in range(rng.integers(3, 8)):
            size = int(rng.uniform(0.1, 0.3) * SR)
            syllable = np.hanning(size)[: max(0, n - at)] * rng.uniform(0.3, 1.0)
            gate[at : at + len(syllable)] = syllable
            at += size
        at += int(rng.uniform(0.5, 1.2) * SR)
    return torch.tensor(0.3 * voice * gate + hiss * rng.standard_normal(n), dtype=torch.float32)[None]


def test_the_active_level_is_that_of_p56():
    for seed in range(6):
        wav = speech_like(seed, hiss=(1e-4, 0.006)[seed % 2])  # the louder one lies about 20 dB under the speech
        assert abs(active_level(wav, SR).item() - p56(wav[0].numpy(), SR)) < 0.3


def test_pauses_do_not_lower_the_level():
    tone = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(4 * SR) / SR)
    alone = 10 * math.log10(0.5**2 / 2)  # -9.03 dB
    assert abs(active_level(tone, SR).item() - alone) < 0.01
    paused = torch.cat([tone, torch.zeros(12 * SR)])
    assert abs(active_level(paused, SR).item() - alone) < 0.3  # 200 ms of hangover after 4 s: 0.21 dB
    assert 10 * torch.log10(paused.square().mean()) < alone - 6  # what a plain mean would have said
    mask = active_mask(paused, SR)
    assert mask[: 4 * SR].all() and not mask[int(4.3 * SR) :].any()


def test_silence_has_no_active_part():
    for wav in (torch.zeros(2, 1, SR), 1e-6 * torch.randn(2, 1, SR, generator=torch.Generator().manual_seed(0))):
        assert not active_mask(wav, SR).any()
        assert (active_level(wav, SR) == -math.inf).all()


def test_items_of_a_batch_do_not_touch_each_other():
    batch = torch.stack([speech_like(0), 0.01 * speech_like(1), torch.zeros(1, 8 * SR)])  # (3, 1, N)
    assert active_mask(batch, SR).shape == batch.shape
    for i in range(3):
        assert torch.equal(active_mask(batch, SR)[i], active_mask(batch[i], SR))


def test_a_louder_copy_is_active_in_the_same_places():
    wav = speech_like(2)
    assert torch.equal(active_mask(wav, SR), active_mask(2 * wav, SR))


def test_15_db_is_15_db():
    """Measured with P.56 on the speech alone and the plain power of the steady noise that was added."""
    noise = torch.randn(1, 8 * SR, generator=torch.Generator().manual_seed(1))
    for seed, snr in ((0, 15.0), (1, 0.0), (2, -5.0)):
        clean = speech_like(seed)
        added = mix_at_snr(clean, noise, snr, SR) - clean
        measured = p56(clean[0].numpy(), SR) - 10 * math.log10(float(added.square().mean()))
        assert abs(measured - snr) < 0.3
        plain = 10 * math.log10(float(clean.square().mean() / added.square().mean()))
        assert plain < snr - 1  # the ratio of plain powers is another number: the pauses pull it down


def test_the_ratio_is_exact_for_known_powers():
    clean = 0.1 * torch.sin(2 * math.pi * 500 * torch.arange(2 * SR) / SR)[None]  # power 0.005
    noise = torch.ones(1, 2 * SR)
    noise[:, ::2] = -1  # power 1
    added = mix_at_snr(clean, noise, 15.0, SR) - clean
    assert abs(added.abs().mean().item() - math.sqrt(0.005 / 10**1.5)) < 1e-6


def test_sparse_noise_is_set_on_its_own_active_part():
    clean = 0.1 * torch.sin(2 * math.pi * 500 * torch.arange(10 * SR) / SR)[None]
    noise = torch.zeros(1, 10 * SR)
    noise[:, 3 * SR : 4 * SR] = torch.randn(SR, generator=torch.Generator().manual_seed(2))
    added = (mix_at_snr(clean, noise, 5.0, SR) - clean)[:, 3 * SR : 4 * SR]
    measured = 10 * math.log10(0.005 / float(added.square().mean()))
    assert 5.0 - 1.0 < measured < 5.0  # within the 200 ms of hangover; on all ten seconds it would be -5


def test_one_ratio_per_item_and_silence_left_alone():
    clean = torch.stack([speech_like(0), speech_like(1), torch.zeros(1, 8 * SR), speech_like(3)])
    noise = torch.randn(4, 1, 8 * SR, generator=torch.Generator().manual_seed(3))
    noise[3] = 0
    noisy = mix_at_snr(clean, noise, torch.tensor([0.0, 20.0, 5.0, 5.0]), SR)
    ratios = active_level(clean, SR) - active_level(noisy - clean, SR)
    assert torch.allclose(ratios[:2, 0], torch.tensor([0.0, 20.0]), atol=1e-3)
    assert torch.equal(noisy[2], noise[2]) and torch.equal(noisy[3], clean[3])
    assert noisy.isfinite().all()


def test_loud_twins_are_turned_down_alike():
    clean, noisy = torch.tensor([[[0.5, -0.1]], [[0.2, 0.1]]]), torch.tensor([[[2.0, -1.0]], [[0.3, 0.4]]])
    low_clean, low_noisy = limit_together(clean, noisy, peak=1.0)
    assert torch.allclose(low_clean[0], clean[0] / 2) and torch.allclose(low_noisy[0], noisy[0] / 2)
    assert torch.equal(low_clean[1], clean[1]) and torch.equal(low_noisy[1], noisy[1])


def test_sixteen_bit_samples_have_the_level_of_their_floats():
    wav = 0.3 * torch.randn(2, SR, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    whole = (wav * 2**15).round().to(torch.int16)
    assert torch.allclose(active_level(whole, SR), active_level(wav, SR), atol=1e-3)
    assert torch.allclose(mix_at_snr(whole, whole, 0.0, SR), mix_at_snr(wav, wav, 0.0, SR), atol=1e-3)
    assert torch.allclose(limit_together(whole, peak=0.5)[0], limit_together(wav, peak=0.5)[0], atol=1e-3)
