"""What notebook 11 builds by hand is what the module has."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lift import definitions

from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.course.steps_late import example
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.diffusion.schedule import KINDS
from wavelldm.restore.gaps import HOP
from wavelldm.restore.latent import SpeechLatent
from wavelldm.training.diffusion import DiffusionOptions, DiffusionTask
from wavelldm.training.filler import FillerOptions, FillerTask
from wavelldm.training.latents import Latents
from wavelldm.training.presets import preset

torch.set_num_threads(1)
HAND = definitions("11")
HAND["example"] = example  # what the reader writes
NAMES = "my_statistics my_error my_between learn outline my_lively".split()
TINY = preset("tiny")
D = TINY.codec.latent_dim


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_latents(count=6, frames=20):
    clean = 2 * noise(count, D, frames) + noise(1, D, 1, seed=2)
    noisy = clean + noise(count, D, frames, seed=3)
    z = clean.double()
    return Latents(
        noisy.numpy(), clean.numpy(), z.mean((0, 2)).float(), z.transpose(0, 1).flatten(1).std(1, correction=0).float()
    )


def task_of(*settings, **more):
    torch.manual_seed(0)
    p = override(TINY, list(settings))
    task = DiffusionTask(p.diffusion, Codec(p.codec), DiffusionOptions(half=False, **more))
    task.with_latents(some_latents(), some_latents())
    for i, weight in enumerate(task.networks["model"].unet.parameters()):
        weight.data += 0.1 * noise(*weight.shape, seed=i)
    return task


def test_the_definitions_are_the_notebooks_own():
    for name in NAMES:
        assert HAND[name].__module__ == "11_latent_diffusion_training"


def test_the_statistics():
    kept = some_latents()
    mean, deviation = HAND["my_statistics"](kept.clean)
    assert torch.allclose(mean.float(), kept.mean, atol=1e-5)
    assert torch.allclose(deviation.float(), kept.deviation, atol=1e-5)
    mean, deviation = HAND["my_statistics"](np.array([[[0.0, 2.0], [3.0, 3.0]]]))
    assert mean.tolist() == [1.0, 3.0] and deviation.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_error(kind):
    task = task_of(f"diffusion.predicts={kind}")
    model = task.networks["model"]
    noisy, clean = (torch.from_numpy(x[:4]) for x in (task_train().noisy, task_train().clean))
    t, eps, drop = torch.tensor([0, 10, 500, 998]), noise(4, D, 20, seed=5), torch.tensor([False, True, False, False])
    with torch.no_grad():
        for dropped in (None, drop):
            mine, theirs = (
                HAND["my_error"](model, noisy, clean, t, eps, dropped),
                task.error(model, noisy, clean, t, eps, dropped)[0],
            )
            assert mine.shape == (4,) and mine.std() > 0
            assert torch.allclose(mine, theirs, rtol=1e-4)


def task_train():
    return some_latents()


@pytest.mark.parametrize("path", ("noise", "bridge", "none"))
def test_the_paths(path):
    model = LatentDiffusion(override(TINY.diffusion, [f"path={path}", "bridge_noise=0.3"]))
    z0, cond, eps, t = (
        noise(5, D, 9),
        noise(5, D, 9, seed=2),
        noise(5, D, 9, seed=3),
        torch.tensor([0, 1, 400, 998, 999]),
    )
    mine = HAND["my_between"](path, model.schedule.alpha_bar, z0, cond, t, eps, spread=0.3)
    assert torch.allclose(mine, model.between(z0, cond, t, eps), atol=1e-6)


def test_what_is_heard(monkeypatch):
    task = task_of(decoded=1.0)
    monkeypatch.setitem(HAND, "codec", task.codec)
    z = noise(2, D, 15)
    assert torch.allclose(HAND["outline"](z), task.outline(z), atol=1e-5)


@pytest.mark.parametrize("weighed", (False, True))
def test_plain_training_learns_one_batch(monkeypatch, weighed):
    monkeypatch.setitem(
        HAND, "session", SimpleNamespace(device=torch.device("cpu"), pick=lambda **choices: choices["quick"])
    )
    kept = some_latents()
    model = LatentDiffusion(TINY.diffusion)
    model.measure(kept.mean, kept.deviation)
    batch = kept.batch(0, 2, 8)
    weigh = (lambda t: torch.full((len(t),), 2.0)) if weighed else None
    losses = HAND["learn"](model, 40, lambda step: batch, 4e-3, weigh)
    assert len(losses) == 40
    assert losses[0] == pytest.approx(2.0 if weighed else 1.0, rel=0.3)  # it says 0, and latents have deviation 1
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_share_of_each_process(monkeypatch):
    """The mean of the gradients of two halves is that of the whole batch."""
    task = task_of("diffusion.predicts=v")
    kept = task_train()
    batch = [torch.from_numpy(x[:4]) for x in (kept.noisy, kept.clean)]
    monkeypatch.setitem(HAND, "batch", batch)
    monkeypatch.setitem(HAND, "t", torch.tensor([3, 300, 600, 999]))
    monkeypatch.setitem(HAND, "eps", noise(4, D, 20, seed=5))
    model = task.networks["model"]
    whole = HAND["gradient"](model, slice(None))
    shares = [HAND["gradient"](model, slice(rank, None, 2)) for rank in range(2)]
    assert torch.allclose(sum(shares) / 2, whole, atol=1e-5 * whole.abs().max())
    assert not torch.allclose(shares[0], whole, atol=0.1 * whole.abs().max())


def test_how_lively_a_filled_gap_is():
    torch.manual_seed(0)
    latent = SpeechLatent(TINY.latent)
    task = FillerTask(TINY.filler, latent, FillerOptions(half=False))
    z, pitch = noise(3, TINY.filler.size, 60), noise(3, 2, 60, seed=2)
    gaps = torch.zeros(3, 59 * HOP, dtype=torch.bool)
    gaps[:, 4_000:9_000] = True
    task.with_data(lambda first: iter(()), [(z, pitch, gaps)])
    blur = torch.randn(3, TINY.filler.size + 80, 60, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        told, true, _ = task.prepared((z, pitch, gaps), torch.zeros(3), blur)
        theirs = task.validate(task.networks["model"])["lively_1"]  # a new network answers with straight lines
        assert HAND["my_lively"](latent, told.z, true, told.share) == pytest.approx(theirs, rel=1e-4)
        assert HAND["my_lively"](latent, true, true, told.share) == 1 and theirs < 0.5
