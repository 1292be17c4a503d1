import pytest
import torch

from wavelldm.audio import files
from wavelldm.cli import main

SR = 16_000


@pytest.fixture
def cli(capsys):
    """cli("denoise", path, ...) -> exit code, standard output, standard error, as from a shell."""

    def call(*argv):
        try:
            code = main.main([str(a) for a in argv])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def noise():
    def make(seconds=1.0, sr=SR, channels=1):
        return 0.1 * torch.randn(channels, int(seconds * sr), generator=torch.Generator().manual_seed(0))

    return make


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two small folders, of speech-like and of noise files."""
    root = tmp_path_factory.mktemp("sounds")
    t = torch.arange(2 * SR) / SR
    gate = torch.sin(6 * t) > -0.5
    for i in range(3):
        voice = sum(torch.sin(2 * torch.pi * (120 + 20 * i) * k * t) / k for k in range(1, 20)) * gate
        files.save(root / "speech" / f"s{i}.wav", 0.1 * voice[None], SR)
        hiss = torch.randn(1, SR, generator=torch.Generator().manual_seed(i))
        files.save(root / "noise" / f"n{i}.wav", 0.1 * hiss, SR)
    return root
