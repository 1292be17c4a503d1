"""Small corpora of noise, made for each test."""

import pytest
import torch

from wavelldm.audio import files
from wavelldm.data import corpora

SR = 16_000


def _write(path, seconds: float = 1.0, sr: int = SR, seed: int = 0, gain: float = 0.1):
    wav = gain * torch.randn(1, round(seconds * sr), generator=torch.Generator().manual_seed(seed))
    return files.save(path, wav.clamp(-1, 1), sr)


@pytest.fixture
def write():
    return _write


@pytest.fixture
def corpus(tmp_path):
    """Six files of speech in two folders and three of noise, of different lengths -> speech items, noise items."""
    for i in range(6):
        _write(tmp_path / "speech" / f"reader{i % 2}" / f"{i}.wav", 0.4 + 0.5 * i, seed=i)
    for i in range(3):
        _write(tmp_path / "noise" / f"{i}.flac", 0.3 + i, seed=10 + i)
    return corpora.folders(tmp_path / "speech", tmp_path / "noise")


@pytest.fixture
def voicebank(tmp_path):
    parts = {"trainset_28spk": ("p226_001", "p228_001", "p287_003", "p250_010"), "testset": ("p232_001", "p257_001")}
    for part, names in parts.items():
        for i, name in enumerate(names):
            for side in ("clean", "noisy"):
                _write(tmp_path / f"{side}_{part}_wav" / f"{name}.wav", 0.3, 48_000, seed=2 * i + (side == "noisy"))
    return tmp_path
