"""How clean the training speech is: how far its pauses lie under it, and DNSMOS BAK of a sample.

python floors.py [--manifest TABLE] [--share 0.33] [--sample 60]
"""

import argparse
import os
from collections import defaultdict

import numpy as np
from scipy.stats import spearmanr

from wavelldm.data.clips import Clips
from wavelldm.data.corpora import gather
from wavelldm.metrics import scores

SR, LEVEL = 16_000, 0.05  # root mean square at which DNSMOS hears a clip


def quality(wav: np.ndarray) -> list[float]:
    """DNSMOS BAK and OVRL of up to ten seconds."""
    wav = wav[: 10 * SR].astype(np.float32) / 32768
    wav = np.clip(wav * LEVEL / np.sqrt(np.mean(wav**2) + 1e-9), -1, 1)
    return [scores.METRICS[name].function(wav, wav, SR) for name in ("dnsmos_bak", "dnsmos_ovrl")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--share", type=float, default=0.33, help="the share to leave out (default: 0.33)")
    parser.add_argument("--sample", type=int, default=60, help="files that DNSMOS hears (default: 60)")
    args = parser.parse_args()
    clips = Clips(gather(manifest=args.manifest).speech, SR)
    floors = clips.floors()
    cut, folders = np.quantile(floors, args.share), defaultdict(list)
    root = os.path.commonpath([item.path.parent for item in clips.items])
    for i, item in enumerate(clips.items):
        folders[item.path.relative_to(root).parts[0]].append(i)
    print("folder, files, hours, median floor in dB, share left out")
    for name, chosen in sorted(folders.items(), key=lambda pair: -clips.lengths[pair[1]].sum()):
        hours, below = clips.lengths[chosen].sum() / SR / 3600, np.mean(floors[chosen] <= cut)
        print(f"{name:32} {len(chosen):5} {hours:6.2f} {np.median(floors[chosen]):6.1f} {below:6.2f}")
    print(f"limit {cut:.1f} dB; hours that stay: {clips.lengths[floors > cut].sum() / SR / 3600:.2f}")
    sample = np.random.default_rng(0).permutation(np.flatnonzero(clips.lengths > 2 * SR))[: args.sample]
    heard = np.array([quality(clips.rows(i)[0]) for i in sample])  # (files, 2)
    stay = floors[sample] > cut
    print(f"rank correlation of floor and BAK: {spearmanr(floors[sample], heard[:, 0])[0]:.2f}")
    print(
        "BAK, OVRL of those that stay", heard[stay].mean(0).round(2), "and of the others", heard[~stay].mean(0).round(2)
    )


if __name__ == "__main__":
    main()
