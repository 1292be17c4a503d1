"""Every rung of the reconstruction ladder on the same held-out clips, as `wavelldm ladder` measures them; table, CSV
and picture.

    python benchmarks/ladder.py [--manifest TABLE] [--clips 12]

Without a manifest it takes the held-out voices of the embedded corpus.
"""

import argparse
import csv
import shutil
import tempfile
from pathlib import Path
from statistics import mean

import judges
import torch
from report import line, made_by, source, write_section

from wavelldm.ladder import report
from wavelldm.metrics.scores import METRICS

HERE = Path(__file__).parent


def cells(rows: list[dict]) -> list[str]:
    """A line of the table from the rows of one rung, as its CSV file has them."""

    def numbers(key: str) -> list[float | None]:
        return [float(r[key]) if r[key] else None for r in rows]

    bits, floats = (numbers(f"{unit}_per_second") for unit in ("bits", "floats"))
    size = f"{mean(floats):,.0f} floats/s" if None in bits else f"{mean(bits) / 1000:.2f} kbit/s"
    scores = [judges.cell(numbers(score), score) for score in report.SCORES]
    cost = [f"{mean(numbers('parameters')) / 1e6:.2f} M", f"{mean(numbers('real_time_factor')):.3f}"]
    return [rows[0]["family"], rows[0]["rung"], size, *scores, *cost]


def table(rows: list[dict]) -> str:
    head = ["family", "rung", "kept", *(METRICS[s].label for s in report.SCORES), "parameters", "RTF"]
    names = dict.fromkeys((r["family"], r["rung"]) for r in rows)
    lines = [cells([r for r in rows if (r["family"], r["rung"]) == name]) for name in names]
    return "\n".join(map(line, [head, ["---", "---", *["---:"] * (len(head) - 2)], *lines]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        facts = report.run(manifest=args.manifest, out=folder, number=args.clips)
        shutil.copyfile(Path(folder) / "ladder.csv", HERE / "ladder.csv")
        shutil.copyfile(Path(folder) / "quality.png", HERE / "ladder.png")
    with open(HERE / "ladder.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for role, why in facts["skipped"].items():
        print(f"skipped, {role}: {why}")
    p = facts["phase"]
    text = f"""## The reconstruction ladder

{facts["clips"]} held-out clips of {source(args.manifest)}, every rung on all of them, in one run. RTF: CPU seconds for
a second of sound, one thread. Phase: the first clip's own magnitudes under random phases have an SNR of
{p["snr"]:.2f} dB, at the best gain
{p["at_best_gain"]:.2f} dB; at a correlation rho no gain gives more than -10 log10(1 - rho^2). Everything
here that is made from a mel has a correlation near zero, so it is far from the waveform, however good it sounds.
{judges.REACH}

{table(rows)}

![Quality against bits](ladder.png)

{made_by("ladder.py", args.manifest, f"--clips {args.clips}")}; rows of all clips in `ladder.csv`."""
    write_section("ladder", text)
    print(text)


if __name__ == "__main__":
    main()
