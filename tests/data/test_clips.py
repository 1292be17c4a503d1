"""Files are decoded once, rightly; crops fall on sound, and short files are joined without clicks."""

import os

import numpy as np
import pytest
import torch

from wavelldm.audio import files
from wavelldm.data import corpora
from wavelldm.data.clips import Clips
from wavelldm.errors import AudioError, DataError

SR = 16_000


@pytest.fixture
def speech(tmp_path):
    for i in range(5):
        wav = 0.1 * torch.randn(1, SR // 2 * (i + 1), generator=torch.Generator().manual_seed(i))
        files.save(tmp_path / "speech" / f"{i}.wav", wav, SR)
    return corpora.folder(tmp_path / "speech")


def test_the_cache_is_built_once_and_anew_when_a_file_changes(speech, tmp_path):
    first = Clips(speech, SR, tmp_path / "cache")
    built = first.path.stat().st_mtime_ns
    again = Clips(speech, SR, tmp_path / "cache")
    assert again.path == first.path and again.path.stat().st_mtime_ns == built
    for i, item in enumerate(speech):
        assert np.array_equal(again.rows(i)[0] / 32768, files.load(item.path)[0][0].numpy())
    os.utime(speech[0].path, (1, 1))
    assert Clips(speech, SR, tmp_path / "cache").path != first.path


def test_a_corrupt_file_is_named_and_leaves_no_cache(speech, tmp_path):
    speech[3].path.write_bytes(b"RIFF but not really")
    with pytest.raises(AudioError, match=speech[3].path.name):
        Clips(speech, SR, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_pairs_of_different_length_are_named(tmp_path):
    files.save(tmp_path / "clean" / "a.wav", torch.zeros(1, SR), SR)
    files.save(tmp_path / "noisy" / "a.wav", torch.zeros(1, SR + 200), SR)
    with pytest.raises(DataError, match="a.wav differ in length"):
        Clips(corpora.paired(tmp_path / "clean", tmp_path / "noisy"), SR, tmp_path / "cache")


def test_peaks_past_full_scale_turn_both_of_a_pair_down(tmp_path):
    clean = torch.full((1, SR), 0.5)
    noisy = torch.full((1, SR), 2.0)
    for side, wav in (("clean", clean), ("noisy", noisy)):
        part = files.AudioInfo(SR, 1, SR, "WAV", "FLOAT")
        files.save(tmp_path / side / "a.wav", wav, SR, like=part)
    rows = Clips(corpora.paired(tmp_path / "clean", tmp_path / "noisy"), SR, tmp_path / "cache").rows(0)
    assert (rows[0] == 8_192).all() and (rows[1] == 32_767).all()


def test_crops_avoid_pauses_and_silent_files(tmp_path):
    wav = torch.zeros(1, 20 * SR)
    wav[:, 12 * SR : 17 * SR] = 0.1
    files.save(tmp_path / "long.wav", wav, SR)
    files.save(tmp_path / "empty.wav", torch.zeros(1, 20 * SR), SR)
    clips = Clips(corpora.folder(tmp_path), SR, tmp_path / "cache")
    crops = [clips.crop(SR, np.random.default_rng(seed)) for seed in range(60)]
    assert sum(bool((crop != 0).any()) for crop in crops) >= 55  # without the search it would be 18
    (tmp_path / "long.wav").unlink()
    with pytest.raises(DataError, match="silent"):
        Clips(corpora.folder(tmp_path), SR, tmp_path / "cache")


def test_short_files_are_joined_and_noise_is_repeated(tmp_path):
    for i in range(2):
        files.save(tmp_path / f"{i}.wav", torch.full((1, SR // 4), 0.1 * (i + 1)), SR)
    clips = Clips(corpora.folder(tmp_path), SR, tmp_path / "cache")
    joined = [clips.crop(2 * SR, np.random.default_rng(seed)) for seed in range(10)]
    looped = [clips.crop(2 * SR, np.random.default_rng(seed), loop=True) for seed in range(10)]
    assert all(crop.shape == (1, 2 * SR) for crop in joined + looped)
    assert all((crop.abs() > 0.09).float().mean() > 0.9 for crop in joined + looped)
    assert sum(bool(crop.max() > 0.19 and (crop - 0.1).abs().min() < 1e-4) for crop in joined) >= 8
    assert all(crop.max() < 0.11 or not ((crop - 0.1).abs() < 1e-4).any() for crop in looped)
    assert max(crop.diff().abs().max() for crop in joined) < 0.01  # no click at the seams
