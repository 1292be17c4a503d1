"""Ways of filling gaps with what was trained, for bench.py, and the ceiling of a latent by itself.

python ways.py FILE_OF_LATENT ... [--clips 12]     whole clips through the latent (sampled at its rate), phases
from Griffin-Lim
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from assembly import assemble
from flow import Filler, FlowConfig, as_pitch, sample, told
from latent import Latent, LatentConfig, griffin_lim, level, spectrum
from loop import restored
from material import SR, track


def load_latent(path: Path) -> Latent:
    return restored(path, lambda c: Latent(LatentConfig(**c)))


def load_filler(path: Path) -> Filler:
    return restored(path, lambda c: Filler(FlowConfig(**{**c, "dilations": tuple(c["dilations"])})))


def heard_pitch(wav: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(track([wav[0].numpy()])[0].astype(np.float32))[None]


def match(size: torch.Tensor, t: dict, gain: torch.Tensor) -> torch.Tensor:
    """Decoded magnitudes (at RMS), brought to the level of the known frames beside the gap: here the level alone."""
    return size / gain[..., None]


def of(latent_path: Path, predictor_path: Path | None, flow_path: Path | None, steps=(1, 4, 8)) -> dict:
    latent = load_latent(latent_path)
    rows = {}

    def filled(damaged, gaps, z, pitch, gain, rounds=32):
        return assemble(damaged, gaps, latent.decoder(z, pitch).exp() / gain[..., None], rounds)

    def ceiling(damaged, gaps, clean, first):
        gain = level(clean)
        z = latent.encode(spectrum(clean * gain))[0]
        return filled(damaged, gaps, z, heard_pitch(clean), gain)

    rows["the clean latent, decoded"] = ceiling

    def begin(damaged, gaps):
        gain = level(damaged, (~gaps).float())
        return gain, told(latent, damaged * gain, gaps, heard_pitch(damaged))

    def interpolated(damaged, gaps, clean, first):
        gain, t = begin(damaged, gaps)
        line = t["line"]
        pitch = torch.cat([torch.where(line[:, 1:] > 0.5, line[:, :1], -1.0), line[:, 1:]], 1)
        return filled(damaged, gaps, t["z"], pitch, gain)

    rows["interpolated latent, decoded"] = interpolated
    if predictor_path:
        predictor = load_filler(predictor_path)

        def predicted(damaged, gaps, clean, first):
            gain, t = begin(damaged, gaps)
            z, answer = predictor(t)
            return filled(damaged, gaps, z, as_pitch(answer), gain)

        rows["predictor"] = predicted
    if flow_path:
        flow = load_filler(flow_path)

        def flowed(n):
            def run(damaged, gaps, clean, first):
                gain, t = begin(damaged, gaps)
                guess, answer = predictor(t)
                z = sample(flow, t, guess, n)
                return filled(damaged, gaps, z, as_pitch(answer), gain)

            return run

        for n in steps:
            rows[f"flow, {n} step{'s' * (n > 1)}"] = flowed(n)
    return rows


def main() -> None:
    from bench import clips
    from pesq import pesq
    from pystoi import stoi

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("latents", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = [c[2] for c in clips(24, "clean")[: args.clips]]
    rows = {"true magnitudes": lambda wav: spectrum(wav)}
    for path in args.latents:
        latent = load_latent(path)
        g = torch.Generator().manual_seed(0)

        def run(wav, latent=latent, noise=1.0, voice=True, g=g):
            mean, spread = latent.encode(spectrum(wav))
            pitch = heard_pitch(wav)
            if not voice:
                pitch[:, 0] = -1
            return latent.decoder(
                mean + noise * torch.randn(mean.shape, generator=g) * (0.5 * spread).exp(), pitch
            ).exp()

        rows[f"{path.parent.name}, sampled"] = run
        rows[f"{path.parent.name}, mean"] = lambda wav, run=run: run(wav, noise=0.0)
        rows[f"{path.parent.name}, mean, no pitch"] = lambda wav, run=run: run(wav, noise=0.0, voice=False)
    for name, make in rows.items():
        scores = []
        with torch.inference_mode():
            for wav in found:
                out = griffin_lim(make(wav), wav.shape[-1], 60)
                a, b = wav[0].numpy(), out[0].numpy()
                scores.append((pesq(SR, a, b, "wb"), 100 * stoi(a, b, SR), 100 * stoi(a, b, SR, extended=True)))
        print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in np.mean(scores, 0)) + " |", flush=True)


if __name__ == "__main__":
    main()
