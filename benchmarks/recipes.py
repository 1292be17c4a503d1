"""Train the weights that ship as they were trained: same numbers, same seeds, one CPU thread (or a GPU); Ctrl-C and the same command go on.

    python benchmarks/recipes.py codec|denoiser [--manifest TABLE] [--out runs]

On the same recordings this gives the denoiser that ships, to the rounding of another processor, and a codec much like the one that ships.
"""

import argparse
from pathlib import Path

import torch

from wavelldm import material, train_codec, train_mask
from wavelldm.config import preset
from wavelldm.train import Plan


def codec(heard, out: Path):
    """Two legs, some 85 minutes on one CPU thread. The first was stopped at 18,000 of 30,000 steps, so its cosine ends early here;
    and it was made with an older pitch tracker."""
    train_codec.run(preset("voice16k"), heard, Plan(18_000, 1e-3, 300, final=0.4, valid_every=1000), out / "voice1", batch=8, seconds=0.512)
    start = out / "voice1" / "voice16k.safetensors"
    train_codec.run(preset("voice16k"), heard, Plan(15_000, 7e-4, 300, seed=1, valid_every=1000), out / "voice2", batch=8, seconds=0.512, start=start)
    return out / "voice2" / "voice16k.safetensors"


def denoiser(heard, out: Path):
    """Three legs, each from where the one before stopped: some 3 hours on one CPU thread."""
    legs = {
        "mask1": Plan(steps=6_000, lr=1e-3, warmup=200, final=0.3, ema=0.998),
        "mask2": Plan(steps=2_200, lr=6e-4, warmup=100, ema=0.998, valid_every=550, seed=1),
        "mask3": Plan(steps=18_000, lr=1e-3, warmup=300, seed=2, valid_every=1000),
    }
    start = None
    for name, plan in legs.items():
        train_mask.run(preset("base16k"), heard, plan, out / name, start=start)
        start = out / name / "base16k-mask.safetensors"
    return start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["codec", "denoiser"])
    parser.add_argument("--manifest", help="a manifest.tsv of speech and noise (default: the embedded corpus)")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print({"codec": codec, "denoiser": denoiser}[args.what](material.gather(manifest=args.manifest), args.out))


if __name__ == "__main__":
    main()
