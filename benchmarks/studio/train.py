"""Train `studio16k`, a denoiser for recordings: `base16k` with time heard both ways, and the filter over all bands.

python train.py FOLDER [--manifest TABLE] [--hissy SHARE] [--steps N] [--lr RATE]

The same command goes on with a run that was stopped. Weights (8 bits) come to FOLDER/studio16k.safetensors.
"""

import argparse
from pathlib import Path

import recurrence
import torch

from wavelldm.data.corpora import gather
from wavelldm.denoise.mask import MaskConfig
from wavelldm.training.loop import fit, write_weights
from wavelldm.training.mask import MaskOptions, MaskTask

CONFIG = MaskConfig(both_ways=True, full=True, ahead=4)
OPTIONS = {"batch_size": 4, "seconds": 2.0, "half": True, "harmless": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--hissy", type=float, default=0.33, help="share of the speech to leave out (default: 0.33)")
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--lr", type=float, default=5e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recurrence.install()
    task = MaskTask(CONFIG, MaskOptions(**OPTIONS, hissy=args.hissy), seed=21)
    task.start_from("base16k-mask")
    task.read(gather(manifest=args.manifest))
    plan = task.plan(args.steps, lr=args.lr, warmup=50, valid_every=200, save_every=20, ema=0.998)
    if not (args.folder / "last.pt").exists():
        print("at the start:", task.validate(task.networks["model"]), flush=True)
    print(fit(task, plan, args.folder, progress=False))
    write_weights(task, plan, args.folder, "studio16k", eight_bits=True)


if __name__ == "__main__":
    main()
