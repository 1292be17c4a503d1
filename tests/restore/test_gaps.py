"""Lost stretches without a network: shares, straight lines, and phases between known samples."""

import math

import pytest
import torch

from wavelldm.restore import gaps
from wavelldm.restore.gaps import HOP, N_FFT, SR, assemble, interpolate, known_share, spectrum, straight


def lost(n: int, *places: tuple[int, int], batch: int = 1) -> torch.Tensor:
    out = torch.zeros(batch, n, dtype=torch.bool)
    for a, b in places:
        out[:, a:b] = True
    return out


def tone(n: int, hz: float = 440.0) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hz / SR * torch.arange(n))[None]


@pytest.mark.parametrize("n", [1_000, 16_000, 16_001, 20_479])
def test_shares_count_the_frames_of_a_spectrum(n):
    share = known_share(lost(n, (400, 700)))
    assert share.shape[1] == spectrum(torch.zeros(1, n)).shape[-1]
    assert share.max() <= 1 and share.min() >= 0


def test_a_frame_amid_a_long_gap_knows_nothing_and_one_beside_it_half():
    edge = 20 * HOP
    share = known_share(lost(16_000, (edge, edge + 4 * N_FFT)))[0]
    assert share[24] < 1e-6 and abs(share[20] - 0.5) < 0.01 and share[10] > 1 - 1e-6


def test_lines_join_what_is_known_and_are_held_beyond_the_ends():
    x = torch.tensor([[[9.0, 1.0, 9.0, 9.0, 4.0, 9.0]]])
    share = torch.tensor([[0.0, 1.0, 0.5, 0.0, 0.6, 0.1]])
    assert torch.allclose(interpolate(x, share), torch.tensor([[[1.0, 1.0, 2.0, 3.0, 4.0, 4.0]]]))
    assert torch.equal(interpolate(x, torch.zeros_like(share)), x), "nothing is known: it stays as it is"


def test_what_is_known_stays_to_the_bit_whatever_is_wanted():
    torch.manual_seed(0)
    wav, hole = torch.randn(2, 9_000), lost(9_000, (2_000, 3_500), (5_000, 5_100), batch=2)
    out = assemble(wav, hole, torch.rand(2, 513, 1 + 9_000 // HOP) * 30, rounds=3)
    assert torch.equal(out[~hole], wav[~hole]) and (out != wav)[hole].float().mean() > 0.99


def test_what_lay_in_a_gap_before_does_not_count():
    wav, hole = tone(12_000), lost(12_000, (6_000, 7_000))
    junk = torch.where(hole, 5.0, wav)
    size = straight(wav.masked_fill(hole, 0.0), hole)
    assert torch.equal(assemble(junk, hole, size)[hole], assemble(wav.masked_fill(hole, 0.0), hole, size)[hole])


@pytest.mark.parametrize("milliseconds", [30, 60])
def test_a_steady_tone_is_found_again(milliseconds):
    wav = tone(16_000)
    hole = lost(16_000, (8_000, 8_000 + 16 * milliseconds))
    broken = wav.masked_fill(hole, 0.0)
    out = assemble(broken, hole, straight(broken, hole))
    left = (out - wav)[hole].square().mean() / wav[hole].square().mean()
    assert left < 0.25, f"{10 * math.log10(left):.1f} dB"


def test_true_magnitudes_bring_noise_nearer_than_lines_do():
    torch.manual_seed(1)
    wav = torch.cumsum(torch.randn(1, 16_000), 1) * 0.01 * (1 + torch.sin(torch.arange(16_000) / 900.0))
    hole = lost(16_000, (7_000, 10_000))
    broken = wav.masked_fill(hole, 0.0)
    far = [
        (spectrum(assemble(broken, hole, size)) + 1e-3).log().sub((spectrum(wav) + 1e-3).log()).abs().mean()
        for size in (spectrum(wav), straight(broken, hole))
    ]
    assert far[0] < 0.6 * far[1]


def test_half_seen_frames_are_brought_to_length():
    torch.manual_seed(2)
    wav = torch.randn(1, 64_000)
    hole = lost(64_000, *((a, a + 300) for a in range(2_000, 62_000, 2_048)))
    share = known_share(hole)
    part = share < 0.95
    size = gaps.brought_to_length(spectrum(wav.masked_fill(hole, 0.0)), share)
    ratio = size.square().mean(1)[part].mean() / spectrum(wav).square().mean(1)[part].mean()
    assert abs(ratio - 1) < 0.05
