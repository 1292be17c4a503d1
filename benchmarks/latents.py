"""What cached latents save: the seconds before a training step of the latent diffusion may begin, with and without the
cache.

python benchmarks/latents.py [--manifest TABLE] [--codec voice16k]

Without a manifest it takes the embedded corpus.
"""

import argparse
import tempfile
import time

import numpy as np
import torch
from report import made_by, write_section

from wavelldm import weights
from wavelldm.codec.model import Codec
from wavelldm.data import corpora
from wavelldm.data.clips import Clips
from wavelldm.data.loader import batches
from wavelldm.training.diffusion import RECIPE, DiffusionTask
from wavelldm.training.latents import build
from wavelldm.training.presets import preset

BATCH, SECONDS, REPEATS = 16, 1.5, 15


def median(make) -> float:
    """CPU seconds of make(), the median of several."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        make()
        times.append(time.process_time() - began)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--codec", default="voice16k", help="weights of the codec")
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec, heard = weights.load(args.codec, Codec), corpora.gather(manifest=args.manifest)
    speech, noise = Clips(heard.speech, codec.sr), Clips(heard.noise, codec.sr)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        held = build(codec, speech, noise, RECIPE, 64, 4.0, cache=folder, progress=False)
        build_seconds = (time.process_time() - began) / (64 * 4.0)
        task = DiffusionTask(preset(codec.name).diffusion, codec).with_latents(held, held)
        model, frames, step = task.networks["model"], codec.frames(round(SECONDS * codec.sr)), iter(range(10**9))
        pairs = iter(batches(speech, noise, RECIPE, codec.sr, SECONDS, BATCH))

        @torch.no_grad()
        def encode():
            return [codec.encode(wav, codec.sr) for wav in next(pairs)]

        def train():
            for _, loss, _ in task.losses(held.batch(next(step), BATCH, frames)):
                model.zero_grad()
                loss.backward()

        fresh, cached, itself = median(encode), median(lambda: held.batch(next(step), BATCH, frames)), median(train)
    text = f"""## Cached latents

CPU seconds on one thread for one training step of the diffusion over `{args.codec}`, {BATCH} pairs of {SECONDS} s,
the median of {REPEATS}.

| | seconds |
| --- | ---: |
| mix, damage and encode the pairs | {fresh:.3f} |
| read them from the cache | {cached:.3f} |
| forward and backward pass, reading included | {itself:.3f} |

So a step takes {itself:.2f} s instead of {itself - cached + fresh:.2f} s:
{(itself - cached + fresh) / itself:.1f} times as fast. Filling the cache costs {build_seconds:.3f} s for each second of
pairs, once; an hour of pairs takes {2 * 3600 * codec.config.latent_rate * codec.config.latent_dim * 2 / 1e6:.0f} MB.

{made_by("latents.py", args.manifest)}."""
    write_section("latents", text)
    print(text)


if __name__ == "__main__":
    main()
