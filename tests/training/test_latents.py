import json

import numpy as np
import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.cli import main
from wavelldm.codec.model import Codec
from wavelldm.data.clips import Clips
from wavelldm.data.corpora import Item
from wavelldm.data.degrade import Degradation
from wavelldm.data.loader import batches
from wavelldm.denoise.mask import MaskNet
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.errors import DataError
from wavelldm.training import latents
from wavelldm.training.presets import preset

SR = 16_000
RECIPE = Degradation(snr=(0.0, 5.0))


@pytest.fixture
def made(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("speech", "noise"):
        for i in range(3):
            files.save(
                tmp_path / kind / f"{i}.wav", torch.from_numpy(0.1 * rng.standard_normal((1, 2 * SR))).float(), SR
            )
    speech, noise = (
        Clips([Item(p) for p in sorted((tmp_path / kind).iterdir())], SR, tmp_path) for kind in ("speech", "noise")
    )
    torch.manual_seed(0)
    return Codec(preset("tiny").codec).eval(), speech, noise, tmp_path


def build(made, **more):
    codec, speech, noise, folder = made
    return latents.build(
        codec, speech, noise, RECIPE, **{"count": 20, "seconds": 0.5, "cache": folder / "l", "progress": False, **more}
    )


def test_what_is_kept_is_what_the_encoder_says(made):
    codec, speech, noise, _ = made
    kept = build(made)
    assert kept.clean.shape == kept.noisy.shape == (20, 48, 32)
    pair = next(iter(batches(speech, noise, RECIPE, SR, 0.5, latents.BATCH)))
    for array, wav in zip((kept.noisy, kept.clean), pair):
        with torch.no_grad():
            z = codec.encode(wav, SR)
        assert torch.allclose(torch.from_numpy(array[:16].astype("float32")), z, atol=2e-3)
    assert not np.allclose(kept.noisy, kept.clean, atol=0.1)
    flat = torch.from_numpy(kept.clean.astype("float32")).transpose(0, 1).flatten(1)
    assert torch.allclose(kept.mean, flat.mean(1), atol=1e-3) and torch.allclose(kept.deviation, flat.std(1), rtol=1e-2)


def test_the_cache_is_used_again_and_made_anew_when_anything_changes(made):
    codec, *_, folder = made
    build(made)
    count = lambda: len(list((folder / "l").iterdir()))
    before = {p: p.stat().st_mtime_ns for p in (folder / "l").rglob("*.npy")}
    build(made)
    assert count() == 1 and {p: p.stat().st_mtime_ns for p in (folder / "l").rglob("*.npy")} == before
    build(made, seed=1)
    assert count() == 2
    with torch.no_grad():
        next(codec.encoder.parameters()).add_(1)
    build(made)
    assert count() == 3
    half = next((folder / "l").glob("*/facts.json"))
    half.unlink()  # as if it had been interrupted
    assert build(made, seed=1).clean.shape[0] == build(made).clean.shape[0] == 20
    assert len(list((folder / "l").glob("*/facts.json"))) >= 2


def test_a_disk_too_small_is_named_before_anything_is_written(made):
    with pytest.raises(DataError, match="make room or ask for fewer"):
        build(made, count=10**9)


def test_from_folders_to_a_denoiser_on_the_command_line(tmp_path, capsys, monkeypatch):
    """Codec, diffusion over its latents, mask network guided by it: the seed's flags, and weights that load."""
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "data"))
    t = torch.arange(24_000) / SR
    for i in range(12):
        clean = 0.1 * sum(torch.sin(2 * torch.pi * k * (100 + 9 * i) * t) / k for k in range(1, 8))[None]
        files.save(tmp_path / "clean" / f"{i}.wav", clean, SR)
        files.save(tmp_path / "noisy" / f"{i}.wav", clean + 0.02 * torch.randn(clean.shape), SR)
    monkeypatch.chdir(tmp_path)
    common = "--preset tiny --clean_data_path clean --noisy_data_path noisy --add_random_cutting --batch_size 4 --lr 2e-5 --use_scheduler --num_workers 0 --json"
    for network, more in (
        ("codec", "--steps 2 --seconds 0.5"),
        ("diffusion", "--steps 2 --codec runs/codec/tiny.safetensors --hours 0.01"),
        (
            "mask",
            "--steps 2 --seconds 0.5 --codec runs/codec/tiny.safetensors --diffusion runs/diffusion/tiny-diffusion.safetensors",
        ),
    ):
        assert main.main(["train", network, *common.split(), *more.split()]) == 0, network
        assert json.loads(capsys.readouterr().out)["step"] == 2
    assert weights.load("runs/diffusion/tiny-diffusion.safetensors", LatentDiffusion).deviation.min() > 0
    mask = weights.load("runs/mask/tiny-mask.safetensors", MaskNet)
    assert mask.config.latent_dim == preset("tiny").codec.latent_dim
    wrong = [
        "train",
        "mask",
        *common.split(),
        "--steps",
        "1",
        "--start",
        "runs/mask/tiny-mask.safetensors",
        "--output",
        "runs/other",
    ]
    assert main.main(wrong) == 1 and "guided by a latent" in capsys.readouterr().err
