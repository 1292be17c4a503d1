"""What limits the denoiser: what each of its parts would give if the network in it knew the clean speech.

    python benchmarks/oracles.py [--manifest TABLE] [--clips 6]

`--clips` is per signal-to-noise ratio, from the same held-out voices and noises as in denoise.py.
"""

import argparse

import torch
from denoise import SECONDS, SNRS, average, clips, enhancer, line, measure, of, through_codec
from report import made_by, source, write_section

from wavelldm import weights
from wavelldm.codec.model import Codec
from wavelldm.denoise.mask import MaskConfig, MaskNet
from wavelldm.metrics import scores

SHOWN = {"pesq_wb": 2, "estoi": 1, "si_sdr": 1, "dnsmos_ovrl": 2}  # and how many decimals


def masked(net: MaskNet, find):
    """`find` (noisy, clean spectra, complex (B, T, bins)) -> spectrum, in the network's own frames."""

    def run(noisy, clean):
        y, s = (net.spectrum(wav[None]) for wav in (noisy, clean))
        return net.wave(find(y, s), noisy.shape[-1])[0]

    return run


def systems() -> dict:
    net = MaskNet(MaskConfig(blocks=0))  # for its frames and bands alone
    member = (net.back > 0).float()  # (bands, bins)

    def banded(real: bool):
        """The mask of each band that fits best: least squares over the band's bins."""

        def find(y, s):
            product, power = (y.conj() * s) @ member.T.to(y.dtype), y.abs().square() @ member.T
            gain = product.real.clamp_min(0) if real else product
            return y * ((gain / power.clamp_min(1e-12)) @ member.to(gain.dtype))

        return lambda: masked(net, find)

    return {
        "noisy": lambda: lambda noisy, clean: noisy,
        "the clean latent, decoded": lambda: through_codec(weights.load("voice16k", Codec), "clean"),
        "clean magnitudes, noisy phases": lambda: masked(net, lambda y, s: s.abs() * torch.sgn(y)),
        "the best gain of each band": banded(True),
        "the best complex number for each band": banded(False),
        "base16k": lambda: enhancer("base16k"),
        "studio16k": lambda: enhancer("studio16k"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=6, help="clips for each signal-to-noise ratio (default: 6)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    levels = [f"{s:g} dB" for s in SNRS]
    found = [clip for clip in clips(args.manifest, args.clips) if clip[0] in levels]
    rows, costs = measure(systems(), found)
    columns = {"0 to 17.5 dB": [f"{s:g} dB" for s in SNRS if s >= 0], "-5 and 0 dB": ["-5 dB", "0 dB"]}
    lines = [line(["known", *columns]), "| --- |" + " ---: |" * len(columns)]
    for name in costs:
        cells = [
            " / ".join(f"{average(of(rows, name, damages), s):.{n}f}" for s, n in SHOWN.items())
            for damages in columns.values()
        ]
        lines.append(line([name, *cells]))
    text = f"""## What limits the denoiser

{args.clips} clips of {SECONDS:.0f} s for each of {", ".join(levels)}: held-out voices with held-out
noises of {source(args.manifest)}. All rows but the first and the last two take a part of the clean speech itself.
{" / ".join(scores.METRICS[s].label for s in SHOWN)}:

{chr(10).join(lines)}

{made_by("oracles.py", args.manifest, f"--clips {args.clips}")}."""
    print(text)
    write_section("oracles", text)


if __name__ == "__main__":
    main()
