"""Every rung of the reconstruction ladder on the same held-out clips, as `wavelldm ladder` measures them; table, CSV
and picture.

    python benchmarks/ladder.py [--manifest TABLE] [--clips 12]

Without a manifest it takes the held-out voices of the embedded corpus.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from report import made_by, source, write_section

from wavelldm.ladder import report
from wavelldm.metrics.scores import METRICS

HERE = Path(__file__).parent


def cells(line: dict) -> list[str]:
    size = f"{line['bits'] / 1000:.2f} kbit/s" if line["bits"] is not None else f"{line['floats']:,.0f} floats/s"
    scores = ["" if line[s] is None else f"{line[s]:.2f}" for s in report.SCORES]
    return [line["family"], line["rung"], size, *scores, f"{line['parameters'] / 1e6:.2f} M", f"{line['rtf']:.3f}"]


def table(lines: list[dict]) -> str:
    head = ["family", "rung", "kept", *(METRICS[s].label for s in report.SCORES), "parameters", "RTF"]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)], *map(cells, lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


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
    for role, why in facts["skipped"].items():
        print(f"skipped, {role}: {why}")
    p = facts["phase"]
    text = f"""## The reconstruction ladder

{facts["clips"]} held-out clips of {source(args.manifest)}, every rung on all of them, in one run. RTF: CPU seconds for
a second of sound, one thread. Phase: the first clip's own magnitudes under random phases have an SNR of
{p["snr"]:.2f} dB, at the best gain
{p["at_best_gain"]:.2f} dB; at a correlation rho no gain gives more than -10 log10(1 - rho^2). Everything
here that is made from a mel has a correlation near zero, so it is far from the waveform, however good it sounds.

{table(facts["rungs"])}

![Quality against bits](ladder.png)

{made_by("ladder.py", args.manifest, f"--clips {args.clips}")}; rows of all clips in `ladder.csv`."""
    write_section("ladder", text)
    print(text)


if __name__ == "__main__":
    main()
