"""Recordings of any length with gaps: found, filled, and everything else left alone."""

import math

import pytest
import soundfile
import torch

from wavelldm.audio import files
from wavelldm.denoise import denoiser
from wavelldm.denoise.chain import DEFAULTS, Settings
from wavelldm.denoise.denoiser import Look, Untouched, look_at, look_at_file
from wavelldm.errors import AudioError, WavelldmError
from wavelldm.restore.bend import Curve
from wavelldm.restore.filler import Filler, FillerConfig
from wavelldm.restore.find import Damage, read_gaps
from wavelldm.restore.restorer import BLOCK, CHUNK, HOP, LONGEST, Restorer, as_mask, at_rate
from wavelldm.restore.restorer import networks as shipped

SR = 16_000
RESTORE = Settings(restore=True)


def speech(seconds: float = 4.0, sr: int = SR, seed: int = 0) -> torch.Tensor:
    """A vowel that glides and swells, and a little hiss (1, N)."""
    n = round(seconds * sr)
    t = torch.arange(n, dtype=torch.float64) / sr
    hz = 130 + 40 * torch.sin(2 * math.pi * 0.9 * t + seed)
    phase = 2 * math.pi * torch.cumsum(hz, 0) / sr
    wav = sum(torch.sin(k * phase) / k for k in range(1, 20)) * 0.05 * (1.2 + torch.sin(2 * math.pi * 1.5 * t))
    hiss = 0.001 * torch.randn(n, generator=torch.Generator().manual_seed(seed))
    return (wav.float() + hiss)[None]


def with_gaps(wav: torch.Tensor, *gaps: tuple[int, int]) -> torch.Tensor:
    out = wav.clone()
    for a, b in gaps:
        out[:, a:b] = 0
    return out


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
def test_a_whole_recording_comes_out_as_it_went_in(sr):
    wav = speech(3.0, sr)
    assert torch.equal(Untouched().enhance(wav, sr, RESTORE), wav)


@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_gaps_alone_are_filled_and_as_loud_as_what_is_around(sr, steps):
    wav = speech(4.0, sr)
    gap = (round(1.5 * sr), round(1.58 * sr))
    broken = with_gaps(wav, gap)
    out = Untouched().enhance(broken, sr, Settings(steps, restore=True))
    inside = as_mask([gap], 0, wav.shape[1])
    assert torch.equal(out[:, ~inside], broken[:, ~inside])
    filled, true = out[:, inside], wav[:, inside]
    bound = 9 if steps < 2 else 15  # dB: what is drawn is one of many things, and may be softer
    assert abs(10 * math.log10(filled.square().mean() / true.square().mean())) < bound


def test_what_is_filled_does_not_depend_on_blocks_nor_on_windows():
    wav = speech(24.0)
    seconds = BLOCK * HOP / SR
    places = [3.0, seconds - 0.05, seconds + CHUNK * HOP / SR - 0.03, 2 * seconds - 0.3, 2 * seconds + 0.02, 20.0]
    gaps = tuple((round(t * SR), round((t + 0.15) * SR)) for t in places)
    broken = with_gaps(wav, *gaps)
    whole = Untouched().enhance(broken, SR, Settings(4, restore=True), damages=[Damage(gaps)])

    def in_blocks(size: int) -> torch.Tensor:
        restorer = Restorer([Damage(gaps)], 4)
        tracks = torch.stack([broken, torch.ones_like(broken), broken])
        parts = [restorer.push(part) for part in tracks.split(size, dim=-1)]
        return torch.cat([*parts, restorer.push(tracks[..., :0], last=True)], dim=-1)[0]

    joined = in_blocks(7_001)
    assert torch.equal(joined, in_blocks(wav.shape[1]))
    far = (joined - whole).square().sum() / (whole - broken).square().sum()
    assert far < 1e-3, "another level, which is computed with rounding"
    for a, b in gaps:
        assert (joined[:, a:b].abs() > 0).float().mean() > 0.99


def test_each_channel_is_repaired_as_if_it_were_alone():
    one, two = speech(4.0), speech(4.0, seed=1)
    broken = with_gaps(one, (20_000, 22_000))
    both = Untouched().enhance(torch.cat([broken, two]), SR, RESTORE)
    assert torch.equal(both[1:], two)
    assert torch.allclose(both[:1], Untouched().enhance(broken, SR, RESTORE), atol=1e-5)


def test_the_seed_decides_what_is_drawn():
    latent, _ = shipped(torch.device("cpu"))
    torch.manual_seed(0)
    net = Filler(FillerConfig(width=24, dilations=(1, 0), heads=2)).eval()
    for layer in (net.start, net.out):
        torch.nn.init.normal_(layer.weight, std=0.1)
    broken = with_gaps(speech(4.0), (20_000, 24_000))

    def restored(seed: int) -> torch.Tensor:
        restorer = Restorer([Damage(((20_000, 24_000),))], 4, seed, networks=lambda device: (latent, net))
        return restorer.push(torch.stack([broken, torch.ones_like(broken), broken]), last=True)[0]

    assert torch.equal(restored(1), restored(1))
    far = (restored(1) - restored(2))[:, 20_000:24_000].square().mean() / restored(1)[:, 20_000:24_000].square().mean()
    assert far > 1e-3


def test_a_stream_finds_gaps_as_they_come():
    wav = speech(20.0)
    gap = (100_000, 102_000)
    broken = with_gaps(wav, gap)
    session = Untouched().stream(SR, 1, RESTORE)
    parts = [session.push(part) for part in broken.split(4_000, dim=1)]
    out = torch.cat([*parts, session.finish()], dim=1)
    assert out.shape == broken.shape and torch.equal(out[:, : gap[0]], broken[:, : gap[0]])
    assert torch.equal(out[:, gap[1] :], broken[:, gap[1] :])
    assert (out[:, gap[0] : gap[1]].abs() > 0).float().mean() > 0.99
    assert 11 * SR < session.latency < 13 * SR


@pytest.mark.parametrize("name", ["best", "live"])
def test_cleaning_and_restoring_together(name):
    """Lines across the gap come before cleaning, so that the denoiser does not stumble over a hole."""
    model = denoiser.load(name)
    wav = speech(4.0)
    assert torch.equal(model.enhance(wav, SR, RESTORE), model.enhance(wav, SR))
    gap = (30_000, 33_000)
    broken = with_gaps(wav, gap)
    out, plain, whole = model.enhance(broken, SR, RESTORE), model.enhance(broken, SR), model.enhance(wav, SR)
    assert (out[:, gap[0] : gap[1]].abs() > 1e-7).float().mean() > 0.99
    if name == "live":  # the other one hears a gap before it comes
        assert torch.equal(out[:, : gap[0] - 1_024], plain[:, : gap[0] - 1_024])
    after = slice(gap[1], gap[1] + 4_000)
    assert (out - whole)[:, after].square().mean() < 0.5 * (plain - whole)[:, after].square().mean()


def test_below_seven_decibels_nothing_is_drawn_unless_asked_for():
    wav = with_gaps(speech(4.0), (30_000, 33_000))
    loud = wav + 3.0 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    gaps = [Damage(((30_000, 33_000),))]

    def through(**more):
        restorer = Restorer(gaps, **more)
        return restorer.push(torch.stack([wav, torch.ones_like(wav), loud]), last=True)[0]

    assert torch.equal(through(steps=4), through(steps=0))
    assert not torch.equal(through(steps=4, bold=True), through(steps=0))


def test_who_cannot_restore_says_so():
    with pytest.raises(WavelldmError, match="logmmse cannot restore what is missing; choose another --model"):
        denoiser.load("logmmse").enhance(speech(), SR, RESTORE)
    with pytest.raises(WavelldmError, match="cannot draw without --restore"):
        denoiser.load().enhance(speech(), SR, Settings(bold=True))
    with pytest.raises(WavelldmError, match="no kind of damage called 'gasp'; choose of gaps, clip"):
        Settings(restore=True, kinds=("gasp",))
    with pytest.raises(WavelldmError, match="longer than the 1 s that can be filled"):
        Untouched().enhance(speech(), SR, RESTORE, damages=[Damage(((0, 20_000),))])
    with pytest.raises(WavelldmError, match="has 1 channels; name the damage of each, not of 2"):
        Untouched().enhance(speech(), SR, RESTORE, damages=[Damage(), Damage()])
    assert LONGEST == 1.0 and DEFAULTS.steps == 1


def test_another_rate_covers_the_gap():
    (a, b), *_ = at_rate(Damage(((44_099, 48_511),)), 44_100, SR).gaps
    assert a <= 44_099 * SR / 44_100 and b >= 48_511 * SR / 44_100 and b - a < 1_603


def test_a_file_is_restored_in_its_own_format(tmp_path):
    sr = 44_100
    wav = with_gaps(speech(3.0, sr), (60_000, 64_000)).repeat(2, 1)
    files.save(tmp_path / "broken.flac", wav, sr)
    Untouched().enhance_file(tmp_path / "broken.flac", tmp_path / "out.flac", progress=False, settings=RESTORE)
    before, _ = files.load(tmp_path / "broken.flac")
    after, _ = files.load(tmp_path / "out.flac")
    inside = as_mask([(60_000, 64_000)], 0, wav.shape[1])
    assert torch.equal(after[:, ~inside], before[:, ~inside]) and (after[:, inside].abs() > 1e-4).float().mean() > 0.5


def test_gaps_named_by_hand(tmp_path):
    assert read_gaps("0.5-0.75, 1-1.5", SR, 4 * SR, 2) == (((8_000, 12_000), (16_000, 24_000)),) * 2
    assert read_gaps("1-1.5,1.5-2", SR, 4 * SR, 1) == (((16_000, 32_000),),)
    table = tmp_path / "gaps.json"
    table.write_text('{"gaps": [[1.0, 1.5]]}')
    assert read_gaps(str(table), SR, 4 * SR, 1) == (((16_000, 24_000),),)
    table.write_text('{"channels": [[[1.0, 1.5]], []]}')
    assert read_gaps(str(table), SR, 4 * SR, 2) == (((16_000, 24_000),), ())


@pytest.mark.parametrize(
    "text, content, message",
    [
        ("1.5-1", None, "no gap from 1.5 to 1 s"),
        ("3-5", None, "in a recording of 4.00 s"),
        ("later", None, "does not name gaps; write them in seconds"),
        ("no.json", None, "name a JSON file that exists"),
        ("bad.json", "[[1, 2", "is not JSON"),
        ("wide.json", '{"channels": [[], [], []]}', "the gaps of 3 channels, and the recording has 1"),
        ("odd.json", '[["a", 2]]', "does not name gaps"),
    ],
)
def test_gaps_that_make_no_sense_get_a_sentence(tmp_path, monkeypatch, text, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / text).write_text(content)
    with pytest.raises(AudioError, match=message):
        read_gaps(text, SR, 4 * SR, 1)


def test_a_look_tells_of_damage_only_when_it_is_asked_to():
    broken = with_gaps(speech(3.0), (20_000, 21_600))
    assert look_at([broken], SR).damages == (Damage(),)
    assert look_at([broken], SR, damage=True).damages[0].gaps == ((20_000, 21_600),)


def test_peaks_come_back_before_anything_else():
    wav = speech(10.0)
    ceiling = float(wav.abs().quantile(0.97))
    broken = with_gaps(wav.clamp(-ceiling, ceiling), (50_000, 51_000))
    damages = [Damage(((50_000, 51_000),), None, (-ceiling, ceiling))]
    out = Untouched().enhance(broken, SR, RESTORE, damages=damages)
    at, inside = wav.abs() > ceiling, as_mask(damages[0].gaps, 0, wav.shape[1])[None]
    assert torch.equal(out[~at & ~inside], broken[~at & ~inside])
    at = at & ~inside
    assert (out[at].abs() >= ceiling).all()
    assert (out - wav)[at].square().mean() < 0.3 * (broken - wav)[at].square().mean()
    cleaned = denoiser.load().enhance(broken, SR, RESTORE, damages=damages)
    assert cleaned[at].square().mean() > denoiser.load().enhance(broken, SR)[at].square().mean()


def test_a_soft_overload_is_straightened():
    wav = speech(4.0)
    bent = 0.2 * torch.tanh(wav / 0.2)
    out = Untouched().enhance(bent, SR, RESTORE, damages=[Damage(curve=Curve("tanh", 0.2, 1.0))])
    assert torch.allclose(out, wav, atol=1e-4)
    session = Untouched()._session(SR, RESTORE, Look((-26.0,), (Damage(curve=Curve("tanh", 0.2, 1.0)),)), 8)
    assert session.latency == 0


def test_latency_tells_of_peaks_too():
    look = Look((-26.0,), (Damage(ceiling=(-0.1, 0.1)),))
    session = Untouched()._session(SR, RESTORE, look, 8)
    assert 8 * SR < session.latency < 10 * SR
    wav = speech(22.0).clamp(-0.1, 0.1)
    parts = [session.push(part) for part in wav.split(5_000, dim=1)]
    joined = torch.cat([*parts, session.finish()], dim=1)
    assert torch.equal(joined, Untouched().enhance(wav, SR, RESTORE, damages=look.damages))


@pytest.mark.parametrize(
    "suffix, subtype, fits",
    [(".wav", "PCM_16", False), (".flac", "PCM_16", False), (".wav", "FLOAT", True)],
)
def test_peaks_put_back_fit_into_the_file(tmp_path, suffix, subtype, fits):
    """A recording that was cut at full scale, the most usual case."""
    wav = speech(4.0)
    wav = 1.25 * wav / wav.abs().max()
    source, target = tmp_path / f"hot{suffix}", tmp_path / f"out{suffix}"
    soundfile.write(source, wav.clamp(-1, 1)[0].numpy(), SR, subtype=subtype)
    look = look_at_file(source, target, RESTORE)
    assert look.damages[0].ceiling is not None and (look.gain == 1.0) == fits
    Untouched().enhance_file(source, target, progress=False, settings=RESTORE)
    out, _ = files.load(target)
    before, _ = files.load(source)
    at = before.abs() >= look.damages[0].ceiling[1]
    assert (out.abs().max() <= 1) == (not fits)
    assert torch.allclose(out[~at], look.gain * before[~at], atol=2e-4)
    far = (out / look.gain - wav)[at].square().mean() / (before - wav)[at].square().mean()
    assert far < 0.3, "what is put back is not cut off again"
