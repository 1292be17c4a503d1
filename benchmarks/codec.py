"""Measure the codec beside Opus and Griffin-Lim on the same clips in the same run; table, CSV and picture.

    python benchmarks/codec.py [--manifest TABLE] [--clips 40] [--weights voice16k ...]

Without a manifest it takes the held-out voices of the embedded corpus. Opus runs through libsndfile, which comes with
soundfile.
"""

import argparse
import csv
import io
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import judges
import numpy as np
import soundfile as sf
import torch
from report import CODEC_PAGE, line, made_by, source, write_section
from tqdm import tqdm

from wavelldm import plots, weights
from wavelldm.audio import files
from wavelldm.audio.mel import mel_to_wav
from wavelldm.codec import compress
from wavelldm.codec.look import looks_of
from wavelldm.codec.model import Codec
from wavelldm.codec.pulse import PulseDecoder
from wavelldm.codec.search import search
from wavelldm.data import corpora, voices
from wavelldm.metrics import scores as metrics
from wavelldm.nn.layers import count_parameters

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that measure
HERE = Path(__file__).parent
STEPS = 100  # of the search for better codes
SR = 16_000
GRIFFIN_LIM = "Griffin-Lim from the codec's mel, 60 iterations"
SCORES = ("pesq_wb", "stoi", "estoi", "si_sdr", "lsd", "mel_distance", "dnsmos_ovrl")


def opus_bytes(ogg: bytes) -> int:
    """Bytes of sound in an Ogg Opus file: all packets but the two headers, without the pages' own bytes."""
    packets, at, current = [], 0, 0
    while at < len(ogg):
        sizes = ogg[at + 27 : at + 27 + ogg[at + 26]]  # lacing values: 255 goes on in the next one
        for size in sizes:
            current += size
            if size < 255:
                packets.append(current)
                current = 0
        at += 27 + len(sizes) + sum(sizes)
    return sum(packets[2:])


def opus(wav: np.ndarray, kbits: float):
    """wav (N,) through Opus at about that many kbit/s -> wav (N,), true bits per second."""
    file = io.BytesIO()
    level = 1 - (kbits * 1000 - 6_000) / (
        256_000 - 6_000
    )  # libsndfile's scale: 1 is 6 kbit/s, 0 is 256 kbit/s a channel
    with sf.SoundFile(file, "w", SR, 1, "OPUS", format="OGG", compression_level=min(1.0, max(0.0, level))) as out:
        out.write(wav)
    bits = 8 * opus_bytes(file.getvalue()) / (len(wav) / SR)
    file.seek(0)
    back, _ = sf.read(file, dtype="float32")
    return files.fit(torch.from_numpy(back), len(wav)).numpy(), bits


def systems(codecs: dict) -> dict:
    """name -> function from wav (1, 1, N) to decoded (N,) and bits per second (None: not a code)."""

    def coded(codec, k, **how):
        def run(wav):
            codes = torch.cat(list(compress.encode_blocks(codec, [wav[0]], k, **how)), dim=2)
            return codec.codes_to_wav(codes, wav.shape[-1]), codec.config.bitrate(k)

        return run

    def from_latent(codec, change):
        return lambda wav: (codec.decode(change(codec.encode(wav, SR)), wav.shape[-1]), None)

    rows = {}
    for name, codec in codecs.items():
        count, looks = codec.quantiser.codebooks, looks_of(codec)
        rows |= {f"{name}, {k} of {count} codebooks": coded(codec, k, looks=looks) for k in range(1, count + 1)}
        if looks:
            rows[f"{name}, {count} of {count} codebooks, quick"] = coded(codec, count)
        if isinstance(codec.decoder, PulseDecoder):
            rows[f"{name}, {count} of {count} codebooks, searched"] = coded(codec, count, looks=looks, steps=STEPS)
        rows[f"{name}, not rounded"] = from_latent(codec, codec.quantiser.unrounded)
        rows[f"{name}, latent itself"] = from_latent(codec, lambda z: z)
    for kbits in (6, 8, 12):
        rows[f"Opus, {kbits} kbit/s asked"] = lambda wav, kbits=kbits: opus(wav[0, 0].numpy(), kbits)
    mel = next(iter(codecs.values())).mel
    rows[GRIFFIN_LIM] = lambda wav: (mel_to_wav(mel(wav, SR), mel.config, iterations=60, length=wav.shape[-1]), None)
    return {
        name: lambda wav, run=run: (lambda out, bits: (np.asarray(out).reshape(-1), bits))(*run(wav))
        for name, run in rows.items()
    }


def clips(manifest, count: int) -> list:
    """`count` held-out files of 2 to 12 s, spread evenly over the sources."""
    (items,) = corpora.read_manifest(manifest or voices.build_corpus(), "valid", ("speech",))
    items = [item for item in items if 2 <= files.info(item.path).seconds <= 12]
    groups = defaultdict(list)
    for item in items:
        groups[item.path.parent.name].append(item)
    turn = [group[i] for i in range(max(map(len, groups.values()))) for group in groups.values() if i < len(group)]
    return turn[:count]


def usage(codec, items) -> list:
    """Per codebook: share of its entries used, and perplexity, over all clips."""
    seen = [codec.quantise(codec.encode(files.load(i.path, SR, mono=True)[0][None], SR))[1][0] for i in items]
    codes = torch.cat(seen, dim=1)  # (Q, T)
    rows = []
    for book in codes:
        counts = torch.bincount(book, minlength=codec.quantiser.entries).float()
        p = counts[counts > 0] / counts.sum()
        rows.append(((counts > 0).float().mean().item(), (-(p * p.log()).sum()).exp().item(), len(book)))
    return rows


def stored(codec, items) -> float:
    """Bits per second of .wll files, header and all, of the clips as one file each."""
    with tempfile.TemporaryDirectory() as folder:
        headers = [
            compress.compress_file(i.path, Path(folder) / f"{k}.wll", codec, progress=False).header
            for k, i in enumerate(items)
        ]
    return 8 * sum(h.size for h in headers) / sum(h.seconds for h in headers)


def speed(codec, seconds: float = 10.0, repeats: int = 9) -> tuple:
    """Seconds of sound per second of CPU time (median) for encoding, decoding and both, one thread."""
    wav = 0.1 * torch.randn(1, 1, int(seconds * SR))
    z = codec.quantise(codec.encode(wav, SR))[0]
    times = []
    for _ in range(repeats):
        a = time.process_time()
        codec.quantise(codec.encode(wav, SR))
        b = time.process_time()
        codec.decode(z)
        times.append((b - a, time.process_time() - b))
    encode, decode = np.median(times, axis=0)
    return seconds / encode, seconds / decode, seconds / (encode + decode)


def search_cost(codec, seconds: float = 5.0) -> tuple:
    """CPU seconds of the looks, and of the search, per second of sound."""
    wav = 0.1 * torch.randn(1, 1, int(seconds * SR), generator=torch.Generator().manual_seed(0))
    began, looks = time.process_time(), looks_of(codec)
    if looks:
        looks.numbers(codec, wav)
    between = time.process_time()
    search(codec, wav, STEPS)
    return (between - began) / seconds, (time.process_time() - between) / seconds


def hour(name: str) -> tuple:
    """Peak memory in MB of a process that compresses and decompresses a one-hour file, and the CPU seconds of both.

    Linux counts the peak of the process that starts another one into the other's `ru_maxrss`; VmHWM is its own alone.
    """
    code = f"""
import re, resource, sys, time
from pathlib import Path
import torch
from wavelldm import weights
from wavelldm.codec import Codec, compress_file, decompress_file
torch.set_num_threads(1)
codec = weights.load({name!r}, Codec)
began = time.process_time()
compress_file("hour.flac", "hour.wll", codec, progress=False, quick=True)
decompress_file("hour.wll", "hour.wav", codec, progress=False)
took, status = time.process_time() - began, Path("/proc/self/status")
if status.exists():
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) / 1000
else:  # macOS counts bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
print(peak, took)
"""
    with tempfile.TemporaryDirectory() as folder:
        block = (0.1 * torch.randn(1, 60 * SR)).clamp(-1, 1)
        files.save_blocks(Path(folder) / "hour.flac", [block] * 60, SR)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return tuple(map(float, done.stdout.split()))


def picture(table: dict, names: list, path: Path) -> None:
    plt = plots.pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    colours = [plots.ACCENT, plots.SOFT, "#e3a72f", "#7a4fa3"]
    for ax, score, label in zip(axes, ("pesq_wb", "stoi"), ("WB-PESQ", "STOI, %")):
        for family, colour in (*zip(names, colours), ("Opus", plots.INK)):
            points = sorted(
                (r["bits"] / 1000, r[score])
                for n, r in table.items()
                if n.startswith(family + ",") and r["bits"] and not n.endswith(("searched", "quick"))
            )
            ax.plot(*zip(*points), "o-", color=colour, label=family)
            for how, mark in (("quick", "s"), ("searched", "*")):
                mine = [r for n, r in table.items() if n.startswith(family + ",") and n.endswith(how)]
                for found in mine:
                    ax.plot(found["bits"] / 1000, found[score], mark, ms=9, color=colour, label=f"{family}, {how}")
        for name, style in ((f"{names[0]}, latent itself", ":"), (GRIFFIN_LIM, "--")):
            ax.axhline(table[name][score], ls=style, color=plots.SOFT, label=name)
        ax.set(xlabel="kbit/s", ylabel=label, xlim=(0, None))
    axes[1].legend(fontsize=7, frameon=False)
    figure.savefig(path)
    plt.close(figure)


RUNS = {}  # of a process that measures


def prepare(names) -> None:
    torch.set_num_threads(1)
    RUNS.update(systems({name: weights.load(name, Codec) for name in names}))


@torch.no_grad()
def measure_clip(item) -> list[dict]:
    rows, wav = [], files.load(item.path, SR, mono=True)[0]  # (1, N)
    for name, run in RUNS.items():
        decoded, bits = run(wav[None])
        scores = {score: metrics.METRICS[score].function(wav[0].numpy(), decoded, SR) for score in SCORES}
        rows.append(
            {"system": name, "source": item.path.parent.name, "clip": item.path.stem, "bits": bits or 0, **scores}
        )
    return rows


def measure(names, items) -> list[dict]:
    """A row for every system and clip."""
    with ProcessPoolExecutor(os.cpu_count(), initializer=prepare, initargs=(names,)) as pool:
        found = list(tqdm(pool.map(measure_clip, items), "measuring", len(items), unit="clip"))
    order = [row["system"] for row in found[0]]
    return sorted(sum(found, []), key=lambda row: order.index(row["system"]))


@torch.no_grad()
def facts(name: str, codec, items, everything) -> tuple[list, int]:
    """The second table's column of one codec, frames that its usage was counted on."""
    books = usage(codec, everything)
    encode, decode, both = speed(codec)
    memory, took = hour(name)
    return [
        f"{count_parameters(codec) / 1e6:.2f} M",
        f"{weights.locate(name).stat().st_size / 1e6:.1f} MB",
        f"{weights.about(name).get('steps', '?')}",
        ", ".join(f"{100 * used:.0f} %" for used, _, _ in books),
        ", ".join(f"{perplexity:,.0f}" for _, perplexity, _ in books),
        f"{stored(codec, items) / 1000:.2f} of {codec.config.bitrate() / 1000:.2f}",
        f"{encode:.0f}, {decode:.0f}, {both:.0f}",
        "{:.2f}, {:.1f}".format(*search_cost(codec)) if isinstance(codec.decoder, PulseDecoder) else "",
        f"{3600 / took:.0f}",
        f"{memory:.0f} MB",
    ], books[0][2]


FACTS = (
    "parameters",
    "file",
    "training steps",
    "codebook entries used",
    "perplexity of the codebooks",
    "kbit/s in .wll files, entropy-coded, header and all",
    "× real time, one CPU thread: encoding, decoding, both",
    f"CPU s per s of sound, one thread: looks, `--search {STEPS}`",
    "× real time, one hour from file to file and back, `--quick`",
    "most memory for that hour",
)


def scored(rows: list) -> str:
    """The first table: a row for each system, and WB-PESQ for each source of clips if there are several."""
    sources = sorted({r["source"] for r in rows})
    by = sources if len(sources) > 1 else []
    head = ["system", "kbit/s", *(judges.LABELS[s] for s in SCORES), *(f"WB-PESQ {s}" for s in by)]
    lines = [line(head), "| --- |" + " ---: |" * (len(head) - 1)]
    for name in dict.fromkeys(r["system"] for r in rows):
        mine = [r for r in rows if r["system"] == name]
        bits = np.mean([r["bits"] for r in mine])
        cells = [name, f"{bits / 1000:.2f}" if bits else "", *(judges.cell([r[s] for r in mine], s) for s in SCORES)]
        cells += [judges.cell([r["pesq_wb"] for r in mine if r["source"] == s], "pesq_wb") for s in by]
        lines.append(line(cells))
    return "\n".join(lines)


def report(args, codecs: dict, items, everything, rows) -> str:
    table = {}
    for name in dict.fromkeys(r["system"] for r in rows):
        mine = [r for r in rows if r["system"] == name]
        table[name] = {k: float(np.mean([r[k] for r in mine])) for k in ("bits", *SCORES)}
    picture(table, list(codecs), HERE / "codec.png")
    columns = [facts(name, codec, items, everything) for name, codec in codecs.items()]
    frames, entries = columns[0][1], next(iter(codecs.values())).quantiser.entries
    about = [line(["", *codecs]), "| --- |" + " ---: |" * len(codecs)]
    about += [line([label, *(column[i] for column, _ in columns)]) for i, label in enumerate(FACTS)]
    text = f"""## Codec

{len(items)} held-out clips of {source(args.manifest)}, the same for every system,
in one run. Opus bits are those of its packets, without Ogg's pages. "Quick": `--quick`, the encoder's first codes,
without its looks. "Searched": `--search {STEPS}`, at the same bitrate. "Not rounded": through the quantiser's
bottleneck, without rounding. "Latent itself": without the quantiser.
{judges.REACH}

{scored(rows)}

![Quality against bits](codec.png)

{chr(10).join(about)}

* Usage is counted on {frames:,} frames, all of the held-out speech; a codebook has {entries:,} entries. Even random
  codes would use {100 * (1 - (1 - 1 / entries) ** frames):.0f} % in so many frames.
* Published by their authors, on other clips and not measured here: EnCodec at 24 kHz, WB-PESQ 1.92 at 3 and 2.54 at
  6; DAC at 16 kHz 3.86 at 6; BigCodec 2.68 at 1.04.
* SI-SDR compares sample by sample. Our decoder makes new phases, so SI-SDR says nothing about how our rows sound.

{made_by("codec.py", args.manifest, f"--clips {args.clips}")}; rows of all clips in `codec.csv`."""
    return text


def front(rows: list, names: list) -> str:
    """A few rows for the codec's page."""
    chosen = [
        n
        for n in dict.fromkeys(r["system"] for r in rows)
        if n.startswith(("Opus, 6", "Opus, 8")) or any(n.startswith(f"{k}, 4 of 4") for k in names)
    ]
    lines = [line(["codec", "kbit/s", "WB-PESQ", "STOI", "DNSMOS"]), "| --- |" + " ---: |" * 4]
    for name in chosen:
        own = [r for r in rows if r["system"] == name]
        bits = f"{np.mean([r['bits'] for r in own]) / 1000:.2f}"
        lines.append(
            line([name, bits, *(judges.cell([r[s] for r in own], s) for s in ("pesq_wb", "stoi", "dnsmos_ovrl"))])
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--weights", nargs="+", default=["voice16k"], help="names or .safetensors files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    codecs = {name: weights.load(name, Codec) for name in args.weights}
    items = clips(args.manifest, args.clips)
    (everything,) = corpora.read_manifest(args.manifest or voices.build_corpus(), "valid", ("speech",))
    rows = measure(list(codecs), items)
    with open(HERE / "codec.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    text = report(args, codecs, items, everything, rows)
    write_section("codec", text)
    write_section("codec", front(rows, args.weights), CODEC_PAGE)
    print(text)


if __name__ == "__main__":
    main()
