"""Train the weights that ship as they were trained: same numbers, same seeds, one CPU thread (or a GPU); Ctrl-C and the same command go on.

    python benchmarks/recipes.py codec|denoiser|diffusion|ladder|refining [--manifest TABLE] [--out runs]

On the same recordings this gives weights much like those that ship; what differs is said at each recipe.
"""

import argparse
from pathlib import Path

import torch

from wavelldm import weights
from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.data import corpora
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.training import codec as train_codec
from wavelldm.training import diffusion as train_diffusion
from wavelldm.training import ladder as train_ladder
from wavelldm.training import mask, prior, segan, waveform
from wavelldm.training.loop import Plan
from wavelldm.training.presets import preset


def codec(heard, out: Path):
    """Three legs, each from where the one before stopped: some 2.5 hours on one CPU thread. The first was stopped at 18,000 of 30,000 steps,
    so its cosine ends early here. The weights that ship had an older pitch tracker in the first leg, and what `perceptual.py` hears only in the third."""
    legs = {
        "voice1": Plan(18_000, 1e-3, 300, final=0.4, valid_every=1000),
        "voice2": Plan(15_000, 7e-4, 300, seed=1, valid_every=1000),
        "voice3": Plan(19_500, 8e-4, 300, seed=2, valid_every=1000),
    }
    start = None
    for name, plan in legs.items():
        train_codec.run(preset("voice16k"), heard, plan, out / name, batch=8, seconds=0.512, start=start)
        start = out / name / "voice16k.safetensors"
    return start


def denoiser(heard, out: Path):
    """Seven legs, each from where the one before stopped: three blocks more in the fourth, twice the channels in the fifth, the filter over earlier
    frames in the sixth, a frame ahead in the last; some 18 hours on one CPU thread. The weights that ship heard what `perceptual.py` hears only from
    the fourth leg on, had products in bfloat16 in the last three, and 400 steps more at 5e-4 after the fifth."""
    legs = {  # blocks, channels, taps, frames ahead, crops a step
        "mask1": (3, 48, 0, 0, 4, Plan(steps=6_000, lr=1e-3, warmup=200, final=0.3, ema=0.998)),
        "mask2": (3, 48, 0, 0, 4, Plan(steps=2_200, lr=6e-4, warmup=100, ema=0.998, valid_every=550, seed=1)),
        "mask3": (3, 48, 0, 0, 4, Plan(steps=18_000, lr=1e-3, warmup=300, seed=2, valid_every=1000)),
        "mask4": (6, 48, 0, 0, 4, Plan(steps=7_800, lr=1e-3, warmup=300, seed=4)),
        "mask5": (6, 96, 0, 0, 8, Plan(steps=5_000, lr=1e-3, warmup=200, final=0.1, seed=5)),
        "mask6": (6, 96, 4, 0, 8, Plan(steps=2_900, lr=8e-4, warmup=100, final=0.01, seed=8, valid_every=400)),
        "mask7": (6, 96, 4, 1, 8, Plan(steps=8_000, lr=8e-4, warmup=100, final=0.01, seed=11, valid_every=500)),
    }
    start = None
    for name, (blocks, width, taps, ahead, batch, plan) in legs.items():
        settings = {"blocks": blocks, "width": width, "taps": taps, "ahead": ahead}
        p = override(preset("base16k"), [f"mask.{key}={value}" for key, value in settings.items()])
        mask.run(p, heard, plan, out / name, batch=batch, start=start)
        start = out / name / "base16k-mask.safetensors"
    return start


def diffusion(heard, out: Path):
    """On the latents of the codec that ships; about 40 minutes on one CPU thread. It ships in bytes."""
    plan = Plan(steps=8_000, lr=1e-3, warmup=300, final=0.02, valid_every=1000, save_every=500)
    train_diffusion.run(
        preset("voice16k"),
        weights.load("voice16k", Codec),
        heard,
        plan,
        out / "diffusion",
        seconds=1.5,
        hours=12,
        decoded=1.0,
    )
    trained = weights.load(out / "diffusion" / "voice16k-diffusion", LatentDiffusion)
    facts = {
        k: v
        for k, v in weights.about(out / "diffusion" / "voice16k-diffusion").items()
        if k in ("steps", "score", "plan")
    }
    return weights.save(out / "voice16k-diffusion", trained, trained.preset, facts, force=True, eight_bits=True)


def ladder(heard, out: Path):
    """Six small networks, about 1.5 hours on one CPU thread; the refinement repairs the VAE's mels."""
    roles = {  # kind, preset, steps, seconds of a crop
        "vocoder": ("vocoder", "ladder", 9_000, 1.0),
        "vae": ("vae", "ladder", 1_500, 1.28),
        "wide": ("vae", "ladder-wide", 1_200, 1.28),
        "words": ("vae", "ladder-words", 1_200, 1.28),
        "refinement": ("refinement", "ladder", 2_500, 1.28),
        "autoencoder": ("autoencoder", "ladder", 4_500, 2.0),
    }
    for role, (kind, name, steps, seconds) in roles.items():
        plan = Plan(steps=steps, lr=1e-3, warmup=200, valid_every=500, save_every=250)
        vae = out / "ladder-vae" / "ladder-vae.safetensors" if kind == "refinement" else None
        train_ladder.run(kind, preset(name), heard, plan, out / f"ladder-{role}", 8, seconds, vae=vae)
    return ", ".join(str(out / f"ladder-{role}") for role in roles)


def refining(heard, out: Path):
    """The speech prior, SEGAN and the waveform denoiser, the last two narrower than their presets; about 1.5 hours on one CPU thread."""
    p = override(preset("base16k"), ["segan.widths=8,16,16,32,32,64,64,128", "waveform.widths=32,64,96,160"])
    prior.run(p, heard, Plan(6_000, 1e-3, 500, final=0.02, ema=0.9995, valid_every=1000), out / "prior", 8, 1.024)
    segan.run(p, heard, segan.schedule(Plan(5_000, 4e-4, 200, final=0.05, valid_every=500)), out / "segan", 8, 1.024)
    waveform.run(p, heard, waveform.schedule(Plan(6_000, 1e-3, valid_every=500)), out / "waveform", 8, 1.0)
    return ", ".join(str(out / name) for name in ("prior", "segan", "waveform"))


RECIPES = {"codec": codec, "denoiser": denoiser, "diffusion": diffusion, "ladder": ladder, "refining": refining}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(RECIPES))
    parser.add_argument("--manifest", help="a manifest.tsv of speech and noise (default: the embedded corpus)")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(RECIPES[args.what](corpora.gather(manifest=args.manifest), args.out))


if __name__ == "__main__":
    main()
