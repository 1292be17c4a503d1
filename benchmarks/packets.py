"""Measure the codec for talking, voice16k-live, beside Opus while packets get lost; table, CSV and picture.

    python benchmarks/packets.py [--manifest TABLE] [--clips 24] [--weights voice16k-live]

Opus runs through libopus itself (Debian: libopus0), packet by packet, with its own concealment of lost ones.
"""

import argparse
import csv
import ctypes
import ctypes.util
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import judges
import numpy as np
import torch
from codec import SR, clips
from report import CODEC_PAGE, line, made_by, source, write_section
from tqdm import tqdm

from wavelldm import plots, weights
from wavelldm.audio import files
from wavelldm.codec.model import Codec
from wavelldm.codec.talk import coder
from wavelldm.light import talk
from wavelldm.light.packets import Coder, Receiver, Sender, with_gaps
from wavelldm.metrics.scores import METRICS

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that measure
HERE = Path(__file__).parent
SHARES = (0.0, 0.05, 0.1, 0.2)  # of packets lost
SCORES = ("pesq_wb", "stoi", "plcmos")
SPOKEN, BITRATE, COMPLEXITY, REPEATED, EXPECTED, AHEAD = 2048, 4002, 4010, 4012, 4014, 4027  # libopus's numbers
FRAME = SR // 50  # samples of an Opus packet


def library() -> ctypes.CDLL:
    found = ctypes.util.find_library("opus")
    if found is None:
        raise SystemExit("this compares with Opus: install libopus (Debian: apt-get install libopus0)")
    opus = ctypes.CDLL(found)
    opus.opus_encoder_create.restype = opus.opus_decoder_create.restype = ctypes.c_void_p
    return opus


class Opus:
    """libopus for speech at 16 kHz, in packets of 20 ms. `repeat`: packets repeat the one before at a lower quality."""

    def __init__(self, kbits: float, repeat: bool = False):
        self.kbits, self.repeat, self.opus = kbits, repeat, library()

    def encode(self, wav: np.ndarray, share: float) -> tuple[list[bytes], int]:
        """wav (N,) -> packets, and samples that the decoder is late; `share`: of packets that may get lost."""
        error, ahead = ctypes.c_int(), ctypes.c_int()
        maker = ctypes.c_void_p(self.opus.opus_encoder_create(SR, 1, SPOKEN, ctypes.byref(error)))
        asked = {BITRATE: round(1000 * self.kbits), COMPLEXITY: 10}
        asked |= {REPEATED: 1, EXPECTED: round(100 * share)} if self.repeat else {}
        for what, value in asked.items():
            self.opus.opus_encoder_ctl(maker, what, ctypes.c_int(value))
        self.opus.opus_encoder_ctl(maker, AHEAD, ctypes.byref(ahead))
        wav = np.pad(wav, (0, -(len(wav) + ahead.value) % FRAME + ahead.value)).astype(np.float32)
        packets, room = [], ctypes.create_string_buffer(4000)
        for frame in wav.reshape(-1, FRAME):
            size = self.opus.opus_encode_float(maker, frame.copy().ctypes.data_as(ctypes.c_void_p), FRAME, room, 4000)
            packets.append(room.raw[:size])
        self.opus.opus_encoder_destroy(maker)
        return packets, ahead.value

    def decode(self, packets: list) -> np.ndarray:
        """Packets, None where one is lost -> wav."""
        error, out = ctypes.c_int(), np.zeros((len(packets), FRAME), np.float32)
        maker = ctypes.c_void_p(self.opus.opus_decoder_create(SR, 1, ctypes.byref(error)))
        for i, packet in enumerate(packets):
            following = packets[i + 1] if self.repeat and packet is None and i + 1 < len(packets) else None
            data = packet or following
            place = ctypes.c_void_p(out[i].ctypes.data)
            self.opus.opus_decode_float(maker, data, len(data or b""), place, FRAME, int(packet is None and bool(data)))
        self.opus.opus_decoder_destroy(maker)
        return out.reshape(-1)

    def __call__(self, wav: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, float]:
        packets, late = self.encode(wav, share)
        arriving = set(with_gaps(range(len(packets)), share, seed))
        heard = self.decode([p if i in arriving else None for i, p in enumerate(packets)])
        return heard[late:][: len(wav)], 8 * sum(map(len, packets)) * SR / len(wav)


def ours(made: Coder, repeat: int = 0, blank: bool = False):
    """Through packets; `blank`: silence where one is lost, instead of what the decoder makes of it."""

    def run(wav: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, float]:
        sender, receiver = Sender(made, repeat=repeat), Receiver(made)
        packets = sender.push(wav) + sender.finish()
        arriving = set(with_gaps(range(len(packets)), share, seed))
        receiver.next, parts = 0, []
        for i in range(-repeat, len(packets)):  # played `repeat` frames later
            if i + repeat in arriving:
                receiver.put(packets[i + repeat])
            if i >= 0:
                part = receiver.take()
                parts.append(part * (i in arriving) if blank else part)
        bits = 8 * sum(len(p) - 7 for p in packets) * SR / len(wav)  # without the packets' heads, as for Opus
        return np.concatenate([*parts, receiver.finish()])[: len(wav)], bits

    return run


def systems(name: str) -> dict:
    live = talk.load() if name == talk.NAME and talk.ready() else coder(weights.load(name, Codec))
    rows = {
        live.name: ours(live),
        f"{live.name}, silence where a packet is lost": ours(live, blank=True),
        f"{live.name}, the one before repeated": ours(live, repeat=1),
    }
    for kbits in (6, 8, 12):
        rows[f"Opus, {kbits} kbit/s"] = Opus(kbits)
    rows["Opus, 16 kbit/s, the one before repeated"] = Opus(16, repeat=True)
    return rows


RUNS = {}  # of a process that measures


def prepare(name: str) -> None:
    torch.set_num_threads(1)
    RUNS.update(systems(name))


def measure_clip(job: tuple) -> list[dict]:
    (seed, item), found = job, []
    wav = files.load(item.path, SR, mono=True)[0][0].numpy()
    for name, run in RUNS.items():
        for share in SHARES:
            heard, bits = run(wav, share, seed)
            scores = {score: METRICS[score].function(wav, heard, SR) for score in SCORES}
            found.append({"system": name, "lost": share, "clip": item.path.stem, "bits": bits, **scores})
    return found


def load_of(live: Coder, seconds: float = 10.0) -> str:
    """CPU ms of a frame: sending and receiving; medians."""
    sender, receiver, times = Sender(live), Receiver(live), []
    for block in np.random.default_rng(0).normal(0, 0.1, (round(seconds * SR / live.hop), live.hop)):
        a = time.process_time()
        packets = sender.push(block.astype(np.float32))
        b = time.process_time()
        for packet in packets:
            receiver.put(packet)
            receiver.take()
        times.append((b - a, time.process_time() - b))
    return "{:.1f} and {:.1f} ms".format(*(1000 * np.median(times, axis=0)))


def picture(rows: list, path: Path) -> None:
    plt = plots.pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4))
    names = list(dict.fromkeys(r["system"] for r in rows))
    colours = [plots.ACCENT, plots.SOFT, "#e3a72f", "#7a4fa3", plots.INK, "#4c9f70", "#2a7fb8"]
    for ax, score in zip(axes, ("pesq_wb", "plcmos")):
        for name, colour in zip(names, colours):
            means = [np.mean([r[score] for r in rows if (r["system"], r["lost"]) == (name, s)]) for s in SHARES]
            style = ":" if "silence" in name else "-"
            ax.plot([100 * s for s in SHARES], means, "o" + style, color=colour, label=name)
        ax.set(xlabel="% of packets lost", ylabel=judges.LABELS[score])
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, frameon=False, ncols=3, loc="outside upper center")
    figure.savefig(path)
    plt.close(figure)


def report(args, rows: list) -> str:
    picture(rows, HERE / "packets.png")
    names, tables = list(dict.fromkeys(r["system"] for r in rows)), []
    codec = weights.load(args.weights, Codec)
    for score in SCORES:
        head = [judges.LABELS[score], "kbit/s", *(f"{100 * s:.0f} % lost" for s in SHARES)]
        lines = [line(head), "| --- |" + " ---: |" * (len(head) - 1)]
        for name in names:
            mine = [r for r in rows if r["system"] == name]
            cells = [judges.cell([r[score] for r in mine if r["lost"] == s], score) for s in SHARES]
            lines.append(line([name, f"{np.mean([r['bits'] for r in mine]) / 1000:.2f}", *cells]))
        tables.append("\n".join(lines))
    loads = f"{load_of(coder(codec))} of one CPU thread to send and to receive with PyTorch"
    if talk.ready():
        loads += f", {load_of(talk.load())} with onnxruntime"
    return f"""## Codes in packets

{args.clips} held-out clips of {source(args.manifest)}, the same for every system, in one run. Packets get lost in gaps
of two in the mean. One of ours is {1000 * codec.hop / codec.sr:.0f} ms long and is heard
{1000 * codec.latency / codec.sr:.0f} ms after it was said, with repeats 16 ms later; one of Opus is 20 ms long, heard
after 26.5 ms, with repeats 20 ms later.
kbit/s: what packets hold, without our heads of 7 bytes and without those of a network.
{judges.REACH}

{(chr(10) * 2).join(tables)}

![Quality while packets get lost](packets.png)

One frame of {1000 * codec.hop / codec.sr:.0f} ms takes {loads}.

{made_by("packets.py", args.manifest, f"--clips {args.clips}")}; rows of all clips in `packets.csv`."""


def front(rows: list) -> str:
    """A few figures for the codec's page."""
    head = ["WB-PESQ / PLCMOS", "kbit/s", *(f"{100 * s:.0f} % lost" for s in SHARES)]
    lines = [line(head), "| --- |" + " ---: |" * (len(head) - 1)]
    for name in dict.fromkeys(r["system"] for r in rows):
        mine = [r for r in rows if r["system"] == name]
        pairs = [
            " / ".join(f"{np.mean([r[score] for r in mine if r['lost'] == s]):.2f}" for score in ("pesq_wb", "plcmos"))
            for s in SHARES
        ]
        lines.append(line([name, f"{np.mean([r['bits'] for r in mine]) / 1000:.2f}", *pairs]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--weights", default="voice16k-live", help="name or .safetensors file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = list(enumerate(clips(args.manifest, args.clips)))
    with ProcessPoolExecutor(os.cpu_count(), initializer=prepare, initargs=(args.weights,)) as pool:
        found = list(tqdm(pool.map(measure_clip, jobs), "measuring", len(jobs), unit="clip"))
    order = [row["system"] for row in found[0]]
    rows = sorted(sum(found, []), key=lambda row: (order.index(row["system"]), row["lost"]))
    with open(HERE / "packets.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    text = report(args, rows)
    write_section("packets", text)
    write_section("packets", front(rows), CODEC_PAGE)
    print(text)


if __name__ == "__main__":
    main()
