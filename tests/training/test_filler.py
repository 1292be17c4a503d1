"""Training of the latent for generating, and of the network that fills gaps in it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wavelldm.audio import files
from wavelldm.data.clips import Clips
from wavelldm.data.corpora import Item
from wavelldm.restore.gaps import HALF, HOP, SR, known_share
from wavelldm.restore.latent import SpeechLatent, heard_pitch, level, seen
from wavelldm.training.filler import FillerOptions, FillerTask, SpeechFrames, told_of
from wavelldm.training.loop import Plan, fit
from wavelldm.training.presets import preset
from wavelldm.training.speech_latent import SpeechLatentOptions, SpeechLatentTask

SIZES = preset("tiny")


def voice(seconds: float, seed: int) -> torch.Tensor:
    """A vowel that glides and swells (1, N)."""
    rng, n = np.random.default_rng(seed), round(seconds * SR)
    t = np.arange(n) / SR
    hz = 120 + 80 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(hz) / SR
    wav = sum(np.sin(k * phase) / k ** (1 + 0.5 * np.sin(2 * np.pi * t + k)) for k in range(1, 15))
    return torch.from_numpy(0.1 * wav * (1.1 + np.sin(2 * np.pi * 2 * t + seed))).float()[None]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for i, seconds in enumerate((3.0, 1.1, 5.03)):
        files.save(folder / f"{i}.wav", voice(seconds, i), SR)
    clips = Clips([Item(folder / f"{i}.wav") for i in range(3)], SR, folder)
    torch.manual_seed(0)
    latent = SpeechLatent(SIZES.latent)
    wav = torch.cat([voice(2.0, i) for i in range(4)])
    latent.begin(seen(wav * level(wav)))
    return latent.eval(), clips, folder


def frames_of(made, **more) -> SpeechFrames:
    latent, clips, folder = made
    return SpeechFrames(latent, clips, folder / "cache", progress=False, **more)


def test_what_is_kept_is_what_the_encoder_says_and_the_tracker(made):
    latent, clips, _ = made
    kept = frames_of(made)
    for i in range(3):
        wav = torch.from_numpy(clips.rows(i).astype(np.float32) / 32768)
        loud = wav * level(wav)
        at = slice(kept.starts[i], kept.starts[i + 1])
        with torch.no_grad():
            z = latent.encode(seen(loud))[0][0].T[: kept.counts[i]]
        assert len(z) == wav.shape[1] // HOP
        assert np.allclose(kept.z[at], z, atol=5e-3)
        inner = slice(4, kept.counts[i] - 4)  # at the end, others of the group go on
        assert np.allclose(kept.pitch[at][inner], heard_pitch(loud)[0].T[: kept.counts[i]][inner], atol=2e-2)


def test_the_cache_is_found_again_and_another_encoder_makes_another(made):
    latent, clips, folder = made
    before = {p: p.stat().st_mtime_ns for p in (folder / "cache").rglob("*.npy")}
    frames_of(made)
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "cache").rglob("*.npy")}
    other = SpeechLatent(SIZES.latent)
    SpeechFrames(other, clips, folder / "cache", progress=False)
    assert len(list((folder / "cache").iterdir())) == 2


def test_a_batch_depends_on_seed_and_step_alone(made):
    kept = frames_of(made)
    one, same, other = kept.batch(7, 5, 100), kept.batch(7, 5, 100), kept.batch(8, 5, 100)
    assert all(torch.equal(a, b) for a, b in zip(one, same)) and not torch.equal(one[0], other[0])
    z, pitch, gaps = one
    assert z.shape == (5, 16, 100) and pitch.shape == (5, 2, 100) and known_share(gaps).shape == (5, 100)
    assert (gaps.sum(1) > 0).all()


def test_what_is_told_shows_nothing_of_what_is_lost(made):
    latent, _, _ = made
    z, pitch, gaps = frames_of(made).batch(0, 4, 120)
    blur = torch.zeros(4, 96, 120)
    told = told_of(latent, z, pitch, gaps, blur)
    hidden = (told.share < HALF)[:, None]
    beside = torch.nn.functional.max_pool1d((told.share >= HALF).float()[:, None], 3, 1, 1) > 0
    junk = torch.where(hidden & ~beside, 9.0, z)
    again = told_of(latent, junk, torch.where(hidden, 1.5, pitch), gaps, blur)
    assert torch.equal(told.z, again.z)
    assert torch.equal(told.line, again.line)
    amid = ((told.share <= 0.1)[:, None]).expand_as(told.context[:, 6:])
    assert torch.equal(told.context[:, 6:][amid], again.context[:, 6:][amid])


def test_one_batch_is_learnt_by_heart(made, tmp_path):
    latent, _, _ = made
    kept = frames_of(made)
    batch = kept.batch(0, 3, 64)
    task = FillerTask(SIZES.filler, latent, FillerOptions(batch_size=3, half=False, drawn=0.0))
    task.with_data(lambda first: iter(lambda: batch, None), [batch])
    begun = task.validate(task.networks["model"])
    fit(task, Plan(steps=250, lr=3e-3, warmup=10, valid_every=250, save_every=250, ema=0.9), tmp_path, progress=False)
    ended = task.validate(task.networks["model"])
    assert begun["coarse_1"] == pytest.approx(begun["coarse_lines"], abs=1e-6), "it begins with the straight lines"
    assert ended["coarse_1"] < 0.6 * begun["coarse_1"] and ended["near_1"] < 0.6 * begun["near_1"]


def test_those_that_draw_and_those_that_expect_both_learn(made, tmp_path):
    latent, _, _ = made
    kept = frames_of(made)
    task = FillerTask(SIZES.filler, latent, FillerOptions(batch_size=6, seconds=1.0)).with_frames(kept, kept)
    begun = task.validate(task.networks["model"])
    result = fit(task, Plan(steps=60, lr=3e-3, warmup=10, valid_every=30, save_every=60), tmp_path, progress=False)
    assert result["best"] < begun["score"]


def test_the_latent_learns_and_keeps_its_rate(made, tmp_path):
    wav = torch.stack([voice(1.0, i) for i in range(6)])
    task = SpeechLatentTask(SIZES.latent, SpeechLatentOptions(batch_size=6, seconds=1.0, half=False)).begin([wav])
    task.with_data(lambda first: iter(lambda: (wav,), None), [(wav,)])
    begun = task.validate(task.networks["model"])
    fit(task, Plan(steps=60, lr=3e-3, warmup=5, valid_every=60, save_every=60, ema=0.9), tmp_path, progress=False)
    ended = task.validate(task.networks["model"])
    assert ended["score"] < 0.8 * begun["score"] and ended["kbits"] < 1.5 * begun["kbits"]


def test_a_frozen_encoder_stays_as_it_is(made, tmp_path):
    wav = torch.stack([voice(1.0, i) for i in range(4)])
    options = SpeechLatentOptions(batch_size=4, seconds=1.0, half=False, frozen=True)
    task = SpeechLatentTask(SIZES.latent, options).begin([wav])
    task.with_data(lambda first: iter(lambda: (wav,), None), [(wav,)])
    model = task.networks["model"]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit(task, Plan(steps=5, lr=3e-3, warmup=1, valid_every=5, save_every=5), tmp_path, progress=False)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(k.startswith("decoder.") and not k.startswith("decoder.read") for k in changed)


def test_the_weight_of_the_rate_turns_towards_what_was_asked_for():
    task = SpeechLatentTask(replace(SIZES.latent, kbits=5.0))
    first = task.turned(5.0)
    assert task.turned(10.0) > first and task.turned(1.0) < task.turned(50.0)
