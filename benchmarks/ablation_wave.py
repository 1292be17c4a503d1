"""What each recommended improvement of the waveform denoiser is worth: every switch trained alike, from the same seed;
into README.md.

python benchmarks/ablation_wave.py [--manifest TABLE] [--steps 2000] [--set widths=32,64,96,160] [--out
runs/ablation_wave]

Without a manifest it takes the embedded corpus. Ctrl-C and the same command go on where it stopped; what is trained is
not trained again.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from report import made_by, source, write_section

from wavelldm import weights
from wavelldm.config import override
from wavelldm.data import corpora
from wavelldm.denoise.waveform import WaveConfig, WaveDenoiser
from wavelldm.nn.layers import count_parameters
from wavelldm.training import waveform
from wavelldm.training.loop import fast_half, fit, write_weights
from wavelldm.training.mixtures import mixtures
from wavelldm.training.presets import preset

PLAIN = {"skips": False, "leveled": False, "spectral": False, "resolutions": 1, "ema": 0.0, "half": False}
GOOD = {"skips": True, "leveled": True, "spectral": False, "resolutions": 3, "ema": 0.999, "half": True}
ROWS = {
    "as the seed has it": PLAIN,
    "multi-resolution STFT loss": PLAIN | {"resolutions": 3},
    "U-Net skips": PLAIN | {"skips": True},
    "t is the noise level": PLAIN | {"leveled": True},
    "EMA": PLAIN | {"ema": 0.999},
    "mixed precision (bfloat16)": PLAIN | {"half": True},
    "spectral normalisation": PLAIN | {"spectral": True},
    "all but spectral normalisation": GOOD,
    "all": GOOD | {"spectral": True},
}
COLUMNS = {
    "valid_loss": ("valid loss", 3),
    "valid_pesq_wb": ("WB-PESQ", 2),
    "valid_stoi": ("STOI", 1),
    "valid_si_sdr": ("SI-SDR", 2),
}


def configured(base: WaveConfig, choices: dict) -> WaveConfig:
    """The sizes with these switches; one resolution is the middle one."""
    windows = base.resolutions if choices["resolutions"] == 3 else base.resolutions[1:2]
    return replace(base, resolutions=windows, **{k: choices[k] for k in ("skips", "leveled", "spectral")})


def trained(name: str, choices: dict, base, heard, args) -> WaveDenoiser:
    """The network that validated best."""
    folder, options = (
        args.out / name.replace(" ", "_"),
        waveform.WaveOptions(args.batch, args.seconds, half=choices["half"]),
    )
    task = waveform.WaveTask(configured(base, choices), options)
    task.read(heard)
    plan = task.plan(args.steps, lr=args.lr, ema=choices["ema"], valid_every=max(1, args.steps // 4))
    fit(task, plan, folder)
    return weights.load(write_weights(task, plan, folder, "waveform"), WaveDenoiser)


def cost(net: WaveDenoiser) -> float:
    """CPU seconds per second of sound."""
    wav = 0.1 * torch.randn(1, 10 * net.sr, generator=torch.Generator().manual_seed(0))
    began = time.process_time()
    net.clean_long(wav[None])
    return (time.process_time() - began) / 10


def step_cost(choices: dict, base, pair, args) -> float:
    """CPU seconds of one training step."""
    task = waveform.WaveTask(configured(base, choices), waveform.WaveOptions(half=choices["half"]))
    crops = [x.repeat(args.batch, 1, 1)[: args.batch, :, : round(args.seconds * task.sr)] for x in pair]
    began = 0.0
    for i in range(6):
        began = time.process_time() if i < 2 else began  # the first one is slower and does not count
        for _, loss, _ in task.losses(crops):
            loss.backward()
    return (time.process_time() - began) / 5


def row(name: str, figures: dict, *more: str) -> str:
    cells = [f"{figures[key]:.{digits}f}" if key in figures else "" for key, (_, digits) in COLUMNS.items()]
    return "| " + " | ".join([name, *cells, *more]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = waveform.WaveTask.plan(1).lr
    parser.add_argument("--manifest", help="a manifest.tsv with speech and noise (default: the embedded corpus)")
    parser.add_argument("--preset", default="base16k", help="whose waveform denoiser (default: base16k)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change some of its numbers")
    parser.add_argument("--steps", type=int, default=2_000, help="of each training (default: 2000)")
    parser.add_argument("--batch", type=int, default=8, help="crops per step (default: 8)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a crop (default: 1)")
    parser.add_argument("--lr", type=float, default=usual, help=f"peak of the learning rate (default: {usual:g})")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablation_wave"), help="folder of the runs (default: runs/ablation_wave)"
    )
    parser.add_argument(
        "--only", nargs="+", help="rows whose names hold one of these words; prints, and writes nothing"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, heard = override(preset(args.preset).waveform, args.set), corpora.gather(manifest=args.manifest)
    held = mixtures(heard, base.sr, args.seconds, args.batch)[1]
    judge = waveform.WaveTask(base).with_data(None, held)  # one loss for all rows: that of all resolutions
    lines = [
        "| | "
        + " | ".join(label for label, _ in COLUMNS.values())
        + " | CPU s per s | CPU s per training step | parameters |",
        "| --- |" + " ---: |" * (len(COLUMNS) + 3),
        row("noisy", judge.validate(WaveDenoiser(base).eval()), "", "", ""),  # untrained it changes nothing
    ]
    for name, choices in ROWS.items():
        if args.only and not any(word in name for word in args.only):
            continue
        net = trained(name, choices, base, heard, args)
        costs = f"{cost(net):.3f}", f"{step_cost(choices, base, held[0], args):.2f}"
        lines.append(row(name, judge.validate(net), *costs, f"{count_parameters(net) / 1e6:.2f} M"))
        print(lines[-1], flush=True)
    clips = sum(len(clean) for _, clean in held)
    no_half = "" if fast_half(torch.device("cpu")) else "; this processor has none, so its row repeats the first"
    options = [f"--steps {args.steps}", f"--lr {args.lr:g}", *(["--set", *args.set] if args.set else [])]
    text = f"""## Waveform denoiser: what each improvement is worth

{args.steps} steps of {args.batch} × {args.seconds:g} s with each option alone, then with all of them, from one seed, on
{source(args.manifest)}; measured on {clips} held-out mixtures of 4 s at 0 to 17.5 dB, in overlapping segments of one
second. Valid loss: STFT magnitude, phase and L1, at all resolutions
for every row. Only mixed precision aims at speed in training{no_half}. {" ".join([args.preset, *args.set])},
peak learning rate {args.lr:g}, one seed:
differences in the last digit are not significant.

{chr(10).join(lines)}

{made_by("ablation_wave.py", args.manifest, *options)}."""
    print(text)
    if not args.only:
        write_section("ablation_wave", text)


if __name__ == "__main__":
    main()
