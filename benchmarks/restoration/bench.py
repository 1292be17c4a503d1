"""Gaps of 50 to 450 ms on held-out speech, without and with noise: every way of filling them on the same damaged
clips, with the same assembly.

    PYTHONPATH=.. python bench.py [--latent FILE] [--predictor FILE] [--flow FILE] [--clips 24] [--out NAME.csv]
"""

import argparse
import csv
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from assembly import assemble, interpolate, known_share
from judges import plcmos
from latent import griffin_lim, level, spectrum
from material import CACHE, SR, Sounds
from pesq import pesq
from pystoi import stoi

from wavelldm.audio.levels import mix_at_snr
from wavelldm.data.degrade import dropouts

SECONDS = 5.0


def clips(count: int, kind: str) -> list:
    """(damaged (1, N) as the restorer gets it, gaps (1, N), clean (1, N)), made once. With noise: 17.5 dB, cleaned by
    base16k afterwards, the gaps cut again; the noisy one is kept as a fourth."""
    keep = CACHE / f"bench-{kind}-{count}.pkl"
    if keep.exists():
        return pickle.loads(keep.read_bytes())
    speech, noise, found = Sounds("speech-valid"), Sounds("noise-valid"), []
    rng, g = np.random.default_rng(5), torch.Generator().manual_seed(5)
    chosen = [i for i, r in enumerate(speech.table) if "librispeech" in r["path"] and r["n"] >= SECONDS * SR]
    clean_first = sorted(rng.permutation(chosen), key=lambda i: "other" in speech.table[i]["path"])
    for i in clean_first[:count]:
        wav, _ = speech.item(i)
        start = int(rng.integers(0, len(wav) - int(SECONDS * SR) + 1))
        clean = torch.from_numpy(wav[start : start + int(SECONDS * SR)])[None]
        clean = clean * level(clean)
        noisy = clean
        if kind == "noise":
            n, _ = noise.crop(clean.shape[-1], rng)
            noisy = mix_at_snr(clean[None], torch.from_numpy(n)[None, None], torch.tensor([17.5]), SR)[0]
        seconds, times = ((0.02, 0.06), (12, 12)) if kind == "packets" else ((0.05, 0.45), (1, 7))
        damaged, gaps = dropouts(noisy[None], SR, g, times, seconds)
        damaged, gaps = damaged[0], gaps[0]
        first = damaged
        if kind == "noise":
            from wavelldm.denoise.denoiser import load

            damaged = load("base16k").enhance(first, SR).masked_fill(gaps, 0.0)
        found.append((damaged, gaps, clean, first))
    keep.write_bytes(pickle.dumps(found))
    return found


def score(clean: np.ndarray, out: np.ndarray, judge) -> dict:
    return {
        "pesq": pesq(SR, clean, out, "wb"),
        "estoi": 100 * stoi(clean, out, SR, extended=True),
        "stoi": 100 * stoi(clean, out, SR),
        "plcmos": judge(out) if judge else float("nan"),
    }


def untrained() -> dict:
    """name -> function (damaged, gaps, clean, first) -> (1, N)"""

    def interpolation(damaged, gaps, clean, first, rounds=32):
        share = known_share(gaps)
        size = (spectrum(damaged) / share.clamp_min(0.1).sqrt()[:, None]).clamp_min(1e-5)
        return assemble(damaged, gaps, interpolate(size.log(), share, 0.6).exp(), rounds)

    def patched(damaged, gaps, clean, first):
        from wavelldm.denoise.restore import patch

        size = spectrum(damaged).clamp_min(1e-5)
        full = interpolate(size.log(), known_share(gaps)).exp()
        wav = griffin_lim(full, damaged.shape[-1], 32)
        return patch(damaged, wav, gaps, None, SR)

    return {
        "as it is": lambda damaged, gaps, clean, first: damaged,
        "interpolation + Griffin-Lim 32, old patch": patched,
        "interpolation + Griffin-Lim 32": interpolation,
        "true magnitudes (of the clean)": lambda damaged, gaps, clean, first: assemble(
            damaged, gaps, spectrum(clean), 32
        ),
    }


def report(rows: list, systems: list, kinds: list) -> str:
    lines = [
        "| system | " + " | ".join(f"{k}: WB-PESQ / ESTOI / PLCMOS" for k in kinds) + " | s per s |",
        "| --- |" + " ---: |" * (len(kinds) + 1),
    ]
    for name in systems:
        cells = []
        for kind in kinds:
            mine = [r for r in rows if r["system"] == name and r["kind"] == kind]
            pesq, estoi, plcmos = (np.mean([r[k] for r in mine]) for k in ("pesq", "estoi", "plcmos"))
            cells.append(f"{pesq:.3f} / {estoi:.1f} / {plcmos:.2f}")
        cost = np.median([r["cost"] for r in rows if r["system"] == name])
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {cost:.3f} |")
    return "\n".join(lines)


def run(systems: dict, kinds: list, count: int, judge) -> list:
    rows = []
    for kind in kinds:
        for i, clip in enumerate(clips(count, kind)):
            for name, fill in systems.items():
                began = time.process_time()
                with torch.inference_mode():
                    out = fill(*clip)
                cost = (time.process_time() - began) / SECONDS
                rows.append(
                    {
                        "system": name,
                        "kind": kind,
                        "clip": i,
                        "cost": cost,
                        **score(clip[2][0].numpy(), out[0].numpy(), judge),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--kinds", nargs="+", default=["clean", "noise", "packets"])
    parser.add_argument("--trained", action="store_true")
    parser.add_argument("--latent", type=Path)
    parser.add_argument("--predictor", type=Path)
    parser.add_argument("--flow", type=Path)
    parser.add_argument("--only", nargs="+", help="systems whose names hold one of these")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    systems = {} if args.trained else untrained()
    if args.latent:
        import ways

        systems |= ways.of(args.latent, args.predictor, args.flow)
    if args.only:
        systems = {k: v for k, v in systems.items() if any(o in k for o in args.only)}
    rows = run(systems, args.kinds, args.clips, plcmos)
    print(report(rows, list(systems), args.kinds))
    if args.out:
        with open(args.out, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
