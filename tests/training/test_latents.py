from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wavelldm.audio import files
from wavelldm.codec.model import Codec
from wavelldm.data.clips import Clips
from wavelldm.data.corpora import Item
from wavelldm.data.degrade import Degradation
from wavelldm.data.loader import batches
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

    def count():
        return len(list((folder / "l").iterdir()))

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
    with pytest.raises(DataError, match="make room, or ask for fewer hours"):
        build(made, count=10**9)


def written(folder, seed):
    """Two files at the same relative paths in every project, with other sounds in them."""
    rng = np.random.default_rng(seed)
    for kind in ("speech", "noise"):
        files.save(
            folder / kind / "a.wav", torch.from_numpy(0.1 * rng.standard_normal((1, SR))).float(), SR, force=True
        )
    return [Clips([Item(Path(kind) / "a.wav")], SR, folder) for kind in ("speech", "noise")]


def test_two_projects_with_the_same_relative_paths_do_not_share_a_cache(made, tmp_path, monkeypatch):
    codec, names = made[0], []
    for seed, project in enumerate(("first", "second")):
        (tmp_path / project).mkdir()
        monkeypatch.chdir(tmp_path / project)
        names.append(latents.fingerprint(codec, *written(tmp_path / project, seed), RECIPE, None, 20, 0.5))
    names.append(latents.fingerprint(codec, *written(tmp_path / "second", 7), RECIPE, None, 20, 0.5))  # re-recorded
    assert len(set(names)) == 3


def test_every_setting_names_another_cache(made):
    codec, speech, noise, _ = made
    rooms = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    names = [
        latents.fingerprint(codec, speech, noise, RECIPE, None, 20, 0.5),
        latents.fingerprint(codec, speech, noise, RECIPE, None, 20, 0.25),
        latents.fingerprint(codec, speech, None, RECIPE, None, 20, 0.5),
        latents.fingerprint(codec, speech, noise, replace(RECIPE, reverb=0.1), None, 20, 0.5),
        latents.fingerprint(codec, speech, noise, RECIPE, rooms, 20, 0.5),
        latents.fingerprint(codec, speech, noise, RECIPE, rooms.flip(0), 20, 0.5),
        latents.fingerprint(codec, Clips(speech.items[:2], SR, made[3]), noise, RECIPE, None, 20, 0.5),
    ]
    assert len(set(names)) == len(names)
    with torch.no_grad():
        next(codec.encoder.parameters()).add_(1e-5)  # less than 16 bits tell apart
    assert latents.fingerprint(codec, speech, noise, RECIPE, None, 20, 0.5) not in names


def test_workers_change_nothing(made):
    alone, helped = build(made, cache=made[3] / "a"), build(made, cache=made[3] / "b", workers=1)
    assert np.array_equal(alone.noisy, helped.noisy) and np.array_equal(alone.clean, helped.clean)


def test_what_was_interrupted_leaves_nothing_behind(made, monkeypatch):
    def cut(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(latents, "encode", cut)
        with pytest.raises(OSError):
            build(made)
    assert list((made[3] / "l").iterdir()) == []
