"""Denoisers, by name or by the path of their weights, against the first of them: the same clips, clip by clip.

python compare.py FIRST [OTHER ...] [--manifest TABLE] [--clips 5] [--damaged 10]

A quick look while weights are chosen, some 40 s for each; the benchmark is `../denoise.py`. Three tables: speech in
noise (`--clips` for each signal-to-noise ratio), clean speech (as many), and WB-PESQ of damaged speech (`--damaged` for
each damage).
"""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the other benchmarks

import damaged
import denoise
import judges
from report import line

SCORES = ("pesq_wb", "estoi", "si_sdr", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")
DAMAGES = ("nothing", "band", "overload", "gaps", "clipping, 10 %")


def heard(name: str, found: list, scores: tuple) -> list[dict]:
    """All scores of what a denoiser makes of the clips (kind, noisy, clean); 'as it is' leaves them alone."""
    run = (lambda noisy, clean: noisy) if name == "as it is" else denoise.enhancer(name)
    with torch.inference_mode():
        return [
            {"kind": kind} | judges.score((clean[0].numpy(), run(noisy, clean)[0].numpy(), denoise.SR, scores, None))
            for kind, noisy, clean in tqdm(found, name, unit="clip")
        ]


def table(rows: dict, first: str, kinds: list, scores: tuple, across: bool) -> str:
    """A line for each denoiser and one for its differences from the first; a column for each score, or, with `across`,
    for each kind."""
    columns = [([kind], scores[0]) for kind in kinds] if across else [(kinds, score) for score in scores]
    heads = kinds if across else [judges.LABELS[score] for score in scores]
    lines = [line(["", *heads]), "| --- |" + " ---: |" * len(heads)]
    for name, mine in rows.items():
        pairs = [[[r[s] for r in each if r["kind"] in of] for each in (mine, rows[first])] for of, s in columns]
        lines.append(line([name, *(judges.cell(own, s) for (own, _), (_, s) in zip(pairs, columns))]))
        if name not in (first, "as it is"):
            apart = [judges.cell(judges.differences(*pair), s, True) for pair, (_, s) in zip(pairs, columns)]
            lines.append(line([f"less {first}", *apart]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", help="names or paths; the others are compared with the first")
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=5, help="clips for each signal-to-noise ratio (default: 5)")
    parser.add_argument("--damaged", type=int, default=10, help="clips for each damage, or 0 (default: 10)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    noises = [f"{snr:g} dB" for snr in denoise.SNRS]
    found = [clip for clip in denoise.clips(args.manifest, args.clips) if clip[0] in (*noises, "clean")]
    names, first = ["as it is", *args.weights], args.weights[0]
    rows = {name: heard(name, found, SCORES) for name in names}
    print(f"\n{noises[0]} to {noises[-1]}:\n\n{table(rows, first, noises, SCORES, False)}")
    print(f"\nClean speech:\n\n{table(rows, first, ['clean'], SCORES, False)}")
    if args.damaged:
        found = [(c.task, c.damaged, c.clean) for c in damaged.clips(args.manifest, args.damaged, list(DAMAGES))]
        rows = {name: heard(name, found, SCORES[:1]) for name in names}
        print(f"\nWB-PESQ of damaged speech:\n\n{table(rows, first, list(DAMAGES), SCORES[:1], True)}")


if __name__ == "__main__":
    main()
