"""Train networks on made-up batches: `python together.py FOLDER [NETWORK[:STEPS[:PRESET]] ...]`, alone or under
torchrun; by default each for two steps, tiny."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from wavelldm.training import NETWORKS, loop, parallel, task_of
from wavelldm.training.codec import CodecTask
from wavelldm.training.ladder import VAETask
from wavelldm.training.presets import preset
from wavelldm.training.speech_latent import SpeechLatentTask

BATCH, SECONDS = 4, 0.5
EXTRA = {"codec": {"critics": 2}, "diffusion": {"decoded": 0.5}}


def wavs(step: int, sr: int, number: int = BATCH) -> torch.Tensor:
    """Buzzes with noise, each with another pitch, loud enough to count as voices (B, 1, N)."""
    generator = torch.Generator().manual_seed(step)
    t = torch.arange(round(SECONDS * sr)) / sr
    f0 = 100 + 100 * torch.rand(number, 1, 1, generator=generator)
    tones = sum(torch.sin(2 * torch.pi * k * f0 * t) / k for k in range(1, 9))
    return 0.1 * tones + 0.01 * torch.randn(number, 1, len(t), generator=generator)


def batch(name: str, task: loop.Task, step: int) -> tuple:
    generator = torch.Generator().manual_seed(1000 + step)
    if name == "diffusion":
        z = torch.randn(2, BATCH, task.networks["model"].config.latent_dim, 24, generator=generator)
        return z[0], z[0] + 0.3 * z[1]
    if name == "filler":
        z = torch.randn(BATCH, 16, 64, generator=generator)
        pitch = torch.rand(BATCH, 2, 64, generator=generator)
        gaps = torch.zeros(BATCH, 63 * 256, dtype=torch.bool)
        for i in range(BATCH):  # every item with another number of samples lost
            gaps[i, 2000 : 3000 + 2000 * i] = True
        return z, pitch, gaps
    clean = wavs(step, task.sr)
    if name in ("vocoder", "vae", "refinement", "autoencoder"):
        return clean, torch.arange(BATCH)
    return clean + 0.05 * torch.randn(clean.shape, generator=generator), clean


def made(name: str, size: str = "tiny", **options) -> loop.Task:
    """The task of a network with data at hand."""
    sizes, kind = preset(size), task_of(name)
    large = size != "tiny"
    chosen = {"batch_size": BATCH, "seconds": SECONDS, **({} if large else EXTRA.get(name, {})), **options}
    if "half" in {f for f in kind.Options.__dataclass_fields__}:
        chosen.setdefault("half", False)
    chosen = kind.Options(**chosen)
    if name == "diffusion":
        codec = CodecTask(sizes.codec).networks["model"]
        task = kind(replace(sizes.diffusion, latent_dim=codec.config.latent_dim), codec, chosen)
    elif name == "looks":
        pulses = replace(sizes.codec, decoder="pulse", pitch_input=True)
        task = kind(replace(sizes.looks, latent_dim=pulses.latent_dim), CodecTask(pulses).networks["model"], chosen)
    elif name == "filler":
        latent = SpeechLatentTask(sizes.latent).begin([wavs(0, 16_000)]).networks["model"]
        task = kind(sizes.filler, latent, chosen)
    elif name == "refinement":
        task = kind(sizes.refinement, VAETask(sizes.vae).networks["model"], chosen)
    else:
        task = kind(getattr(sizes, name), chosen)
    if name == "latent":
        task.begin([wavs(0, 16_000)])

    def batches(first: int) -> Iterator[tuple]:
        for step in count(first):
            if step == 3:
                os.write(1, b"third\n")
            if step == 5 and os.environ.get("FAILS") == str(parallel.rank()):
                raise OSError("the disk is gone")
            yield batch(name, task, step)

    task.with_data(batches, [])
    task.validate, task.samples = lambda model: {"score": 0.0}, lambda model: {}
    return task


def train(name: str, folder: Path, steps: int = 2, size: str = "tiny", **options) -> loop.Task:
    task = made(name, size, **options)
    loop.fit(task, task.plan(steps, warmup=0, final=1.0, rise=0.0), folder / name, progress=False)
    return task


if __name__ == "__main__":
    torch.set_num_threads(1)
    parallel.LEAVE, parallel.SILENT = 1.0, 2.0
    with parallel.joined("cpu"):
        os.write(1, f"process {parallel.rank()} {os.getpid()}\n".encode())  # at once: two processes share the pipe
        for words in sys.argv[2:] or NETWORKS:
            network, steps, size = [*words.split(":"), *("2", "tiny")[words.count(":") :]]
            train(network, Path(sys.argv[1]), int(steps), size)
