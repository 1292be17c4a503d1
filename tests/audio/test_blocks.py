import math
import random

import numpy as np
import pytest
import torch

from wavelldm import audio
from wavelldm.audio.blocks import (
    CrossFade,
    Resampler,
    Windows,
    cross_faded,
    resample_blocks,
    window_count,
    windows,
)
from wavelldm.errors import AudioError
from wavelldm.light.resample import phases

RATES = [
    (48_000, 16_000),
    (16_000, 48_000),
    (44_100, 16_000),
    (16_000, 44_100),
    (8_000, 16_000),
    (44_101, 16_000),  # more phases than are kept
    (16_000, 44_101),
    (384_000, 4_000),
    (4_000, 384_000),
]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tone(hertz, sr, seconds=0.5):
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * sr), dtype=torch.float64) / sr).float()[None]


def resampled(wav, sr_in, sr_out, size=1 << 40):
    return torch.cat(list(resample_blocks(wav.split(min(size, wav.shape[1]), dim=1), sr_in, sr_out)), dim=1)


# --- Resampler


@pytest.mark.parametrize("sr_in, sr_out", RATES)
def test_every_length_is_exact_and_blocks_of_any_size_give_the_same(sr_in, sr_out):
    draw = random.Random(sr_in + sr_out)
    for _ in range(4):
        wav = noise(2, draw.randint(1, 9_000), seed=draw.randint(0, 99))
        whole, size = resampled(wav, sr_in, sr_out), draw.choice([7, 160, 777])
        assert whole.shape == (2, math.ceil(wav.shape[1] * sr_out / sr_in))
        joined = resampled(wav, sr_in, sr_out, size)
        assert joined.shape == whole.shape and (joined - whole).abs().max() < 1e-5, size


@pytest.mark.parametrize("sr_in, sr_out", RATES[:6])
def test_blocks_of_one_sample(sr_in, sr_out):
    wav = noise(1, 700)
    assert (resampled(wav, sr_in, sr_out, 1) - resampled(wav, sr_in, sr_out)).abs().max() < 1e-5


@pytest.mark.parametrize("sr_in, sr_out", RATES)
def test_tones_keep_their_size_and_place(sr_in, sr_out):
    for share in (0.05, 0.5, 0.9):  # of the lower Nyquist frequency
        hertz = share * min(sr_in, sr_out) / 2
        out, want = resampled(tone(hertz, sr_in), sr_in, sr_out), tone(hertz, sr_out)
        quarter = want.shape[1] // 4  # ends see zeros outside
        assert (out[:, : want.shape[1]] - want)[:, quarter:-quarter].abs().max() < 1e-4, share


@pytest.mark.parametrize("sr_in, sr_out", [rates for rates in RATES if rates[0] > rates[1]])
def test_what_would_alias_is_over_70_db_down(sr_in, sr_out):
    for share in (1.0, 1.03, 1.3, 2.1):  # of the output's Nyquist frequency
        out = resampled(tone(share * sr_out / 2 + 1, sr_in), sr_in, sr_out)
        quarter = out.shape[1] // 4
        assert out[:, quarter:-quarter].abs().max() < 10 ** (-70 / 20), share


@pytest.mark.parametrize("sr", [16_000, 44_100, 48_000])
def test_lookahead_is_four_milliseconds_and_what_an_impulse_shows(sr):
    """Sample j must not wait longer: as soon as the look-ahead behind it is there, it comes out."""
    down, up = Resampler(sr, 16_000), Resampler(16_000, sr)
    assert down.lookahead / sr < 0.0041 and up.lookahead / 16_000 < 0.0041
    arrived = made = 0
    while made * sr <= 1_000 * 16_000:  # up to the moment of input sample 1000
        arrived += 1
        made += down.push(torch.zeros(1, 1)).shape[1]
    assert arrived <= 1_000 + down.lookahead + sr // 16_000 + 1


def test_there_and_back_loses_no_sample_and_little_sound():
    wav = audio.resample(noise(1, 20_000), 12_000, 48_000)  # up to 6 kHz
    back = resampled(resampled(wav, 48_000, 16_000), 16_000, 48_000)
    assert back.shape[1] >= wav.shape[1]
    assert (back[:, 1_000 : wav.shape[1] - 1_000] - wav[:, 1_000:-1_000]).abs().max() < 1e-3


def test_as_soxr_where_both_pass_everything():
    wav = audio.resample(noise(2, 4_000), 8_000, 44_100)
    ours, theirs = resampled(wav, 44_100, 16_000), audio.resample(wav, 44_100, 16_000)
    assert ours.shape == theirs.shape and (ours - theirs)[:, 200:-200].abs().max() < 1e-3


def test_equal_rates_pass_and_odd_ones_are_refused():
    wav = noise(1, 10)
    assert torch.equal(resampled(wav, 16_000, 16_000), wav)
    for rates in [(1, 16_000), (16_000, 400_000), (16_000.5, 16_000)]:
        with pytest.raises(AudioError, match="sample rate"):
            Resampler(*rates)
    with pytest.raises(AudioError, match="channels"):
        Resampler(16_000, 8_000, channels=2).push(wav)
    assert Resampler(16_000, 8_000, 2).finish().shape == (2, 0)


@pytest.mark.parametrize("sr_in, sr_out", [(383_999, 4_001), (4_001, 383_999), (44_101, 16_000), (352_800, 384_000)])
def test_filters_of_any_rates_fit_into_16_mb(sr_in, sr_out):
    divisor = math.gcd(sr_in, sr_out)
    assert phases(sr_out // divisor, sr_in // divisor)[0].size <= 1 << 22


def test_a_long_stream_keeps_little():
    stage = Resampler(44_100, 16_000)
    for _ in range(200):
        stage.push(torch.zeros(1, 44_100))
    assert stage._held.shape[1] < 2_000


# --- Windows


@pytest.mark.parametrize("size", [1, 5, 64, 1_000])
def test_windows_hold_every_new_frame_once_with_its_margins(size):
    wav, hop, margin = torch.arange(1_003.0)[None], 10, 3
    new, start = [], 0
    for frames, before, count in windows(wav.split(size, dim=1), hop, margin, 7):
        first = start - before  # frame in which the window begins
        assert torch.equal(frames[0], wav[0, first * hop : first * hop + frames.shape[1]])
        assert before >= min(margin, start) and frames.shape[1] >= min(
            (before + count + margin) * hop, 1_003 - first * hop
        )
        new.append(frames[:, before * hop : (before + count) * hop])
        start += count
    assert torch.equal(torch.cat(new, dim=1), wav)


def test_windows_of_a_network_without_a_state_equal_the_whole():
    x, kernel = noise(2, 3, 400), noise(3, 3, 9)

    def see(x):
        return torch.conv1d(x, kernel, padding=4)

    parts = [see(w)[..., b : b + n] for w, b, n in windows(x.split(17, dim=-1), 1, 4, 50)]
    assert (torch.cat(parts, dim=-1) - see(x)).abs().max() < 1e-5


def test_windows_give_out_as_soon_as_they_can():
    stage = Windows(hop=4, margin=1, size=2)
    assert stage.push(torch.zeros(1, 11)) == [] and len(stage.push(torch.zeros(1, 1))) == 1
    assert [w.count for w in stage.finish()] == [1]
    assert Windows(4, 1).finish() == []


# --- CrossFade


def faded(blocks, process, size, overlap, pad=False):
    return torch.cat(list(cross_faded(blocks, process, size, overlap, pad)), dim=-1)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("n", [1, 99, 100, 101, 175, 176, 1_000, 1_037])
@pytest.mark.parametrize("overlap", [0, 25, 50])
def test_what_changes_nothing_gives_the_sound_back(n, overlap, pad):
    wav = noise(2, n, seed=n)
    assert (faded([wav], lambda x: x, 100, overlap, pad) - wav).abs().max() < 1e-6


@pytest.mark.parametrize("size", [1, 33, 100, 260])
def test_cross_fades_do_not_depend_on_the_blocks(size):
    wav = noise(2, 777)

    def process(x):  # looks at the whole window
        return x.cumsum(1) * x.abs().mean()

    joined, one = faded(wav.split(size, dim=1), process, 100, 25), faded([wav], process, 100, 25)
    assert joined.shape == one.shape and (joined - one).abs().max() < 1e-5


def test_no_seam_where_windows_disagree():
    """Each window gives another constant: hard joins would jump by 1, the fade's largest step is its steepest slope."""
    said = iter([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    out = faded([torch.zeros(1, 600)], lambda x: torch.full_like(x, next(said)), 100, 40)
    assert out.max() == 1 and out.min() == 0  # in the middles nothing is mixed
    assert out.diff(dim=1).abs().max() <= torch.pi / 2 / 41 + 1e-4


def test_windows_are_no_more_than_needed_and_the_last_is_filled_up_if_asked_for():
    seen = []

    def process(x):
        seen.append(x.clone())
        return x

    faded([torch.ones(1, 160)], process, 100, 40, pad=True)  # 0 to 100, 60 to 160: the second ends where the sound does
    assert len(seen) == 2 and all(x.shape == (1, 100) for x in seen) and seen[1].sum() == 100
    seen.clear()
    faded([torch.ones(1, 161)], process, 100, 40, pad=True)
    assert len(seen) == 3 and seen[2].shape == (1, 100) and seen[2].sum() == 41
    seen.clear()
    faded([torch.ones(1, 161)], process, 100, 40)
    assert [x.shape[1] for x in seen] == [100, 100, 41]
    for n in (1, 100, 101, 160, 161, 1_000):
        seen.clear()
        faded([torch.ones(1, n)], process, 100, 40)
        assert window_count(n, 100, 40) == len(seen)


def test_cross_fade_refuses_more_than_half_and_knows_empty_streams():
    with pytest.raises(AudioError, match="half"):
        CrossFade(torch.clone, 10, 6)
    assert CrossFade(torch.clone, 10, 5).finish().shape[-1] == 0


def test_everything_stays_on_its_device():
    """`meta` tensors have no values, so any step that leaves their device fails."""
    wav = torch.zeros(2, 5_000, device="meta")
    for rates in [(48_000, 16_000), (16_000, 48_000), (44_101, 16_000)]:
        assert all(out.device.type == "meta" for out in resample_blocks(wav.split(1_000, dim=1), *rates))
    assert all(out.device.type == "meta" for out in cross_faded([wav], torch.clone, 1_000, 100))


@pytest.mark.parametrize("size", [1, 7, 300])
def test_how_many_samples_are_ready_is_known_beforehand(size):
    stages = [Resampler(*rates) for rates in RATES[:4]] + [Resampler(16_000, 16_000)]
    stages += [Windows(10, 3, 4), Windows(10, 0, 1), CrossFade(torch.clone, 100, 30)]
    counts = np.arange(size, 2_000, size)
    for stage in stages:
        out = 0
        for count, expected in zip(counts, stage.ready(counts)):
            part = stage.push(torch.zeros(1, size))
            out += sum(w.count * 10 for w in part) if isinstance(stage, Windows) else part.shape[-1]
            assert out == expected, (stage, count)
