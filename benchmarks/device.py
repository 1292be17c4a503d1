"""The denoisers as graphs: the same sound, the same quality in bytes, faster? Beside PyTorch and other programs.

python benchmarks/device.py [--manifest TABLE] [--clips 8] [--minutes 10]

`--clips` held-out mixtures for each of four levels; `--minutes` of a stream, block by block, each block timed. Peers
run if their packages are installed, see `cleaners.py`.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cleaners
import denoise
import judges
import numpy as np
import torch
from report import line, made_by, source, write_section
from tqdm import tqdm

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.denoise.denoiser import load
from wavelldm.export.write import export
from wavelldm.light import denoiser as light

SR, HOP = 16_000, 256
SNRS = ("2.5 dB", "7.5 dB", "12.5 dB", "17.5 dB")
SHOWN = ("pesq_wb", "estoi", "dnsmos_ovrl")
PERCENTILES = (50, 99, 99.9)


def graphs(folder: Path) -> dict[str, light.Denoiser]:
    """The graphs that ship, and the same in bytes."""
    found = {}
    for name in ("base16k", "studio16k"):
        found[f"{name}, onnxruntime"] = light.load(name)
        for kind, words in (("dynamic", "bytes"), ("static", "calibrated bytes")):
            report = export(name, folder / f"{name}, onnxruntime, {words}.onnx", streaming=True, int8=kind)
            found[f"{name}, onnxruntime, {words}"] = light.load(str(report.path))
    return found


def systems(ready: dict[str, light.Denoiser]) -> dict:
    """name -> function (noisy (1, N), clean (1, N)) -> (1, N)."""
    rows = {"noisy": lambda noisy, clean: noisy}
    for name in ("base16k", "studio16k"):
        rows[f"{name}, PyTorch"] = lambda noisy, clean, name=name: load(name).enhance(noisy, SR)
        for key, model in ready.items():
            if key.startswith(name):
                rows[key] = lambda noisy, clean, model=model: torch.from_numpy(model.enhance(noisy.numpy(), SR))
    peers, lacking = cleaners.there({})
    if lacking:
        print(f"not measured, because the package is not installed or the file not given: {', '.join(lacking)}")
    return rows | {name: make() for name, make in peers.items() if name in ("RNNoise", "DeepFilterNet3")}


def measure(rows: dict, found: list) -> tuple[dict, dict]:
    """Mean scores, and CPU seconds per second of sound (the median over clips), clip by clip in turn."""
    took, jobs = {name: [] for name in rows}, {name: [] for name in rows}
    with torch.inference_mode():
        for run in rows.values():  # what is loaded or compiled only once
            run(*found[0][1:])
        for _, noisy, clean in tqdm(found, "cleaning", unit="clip"):
            for name, run in rows.items():
                began = time.process_time()
                out = run(noisy, clean)
                took[name].append((time.process_time() - began) / (noisy.shape[-1] / SR))
                jobs[name].append((clean[0].numpy(), out[0].numpy()))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        scores = {}
        for name, pairs in tqdm(jobs.items(), "judging", unit="system"):
            each = list(pool.map(denoise.score, pairs, chunksize=4))
            scores[name] = {s: denoise.average(each, s) for s in SHOWN}
    return scores, {name: float(np.median(seconds)) for name, seconds in took.items()}


def pushes(model: light.Denoiser, minutes: float) -> tuple[np.ndarray, float]:
    """Milliseconds that each block of one hop takes, and by how many MB the process grew after the first minute."""
    rng, session, took, early = np.random.default_rng(0), model.stream(SR), [], None
    blocks = 0.05 * rng.standard_normal((600, 1, HOP)).astype(np.float32)
    for i in tqdm(range(round(60 * minutes * SR / HOP)), "streaming", unit="block"):
        began = time.perf_counter()
        session.push(blocks[i % len(blocks)])
        took.append(1_000 * (time.perf_counter() - began))
        if i == round(60 * SR / HOP):
            early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return np.array(took), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - (early or 0)) / 1e3


def start_up(backend: str, clip: torch.Tensor, times: int = 5) -> float:
    """Wall seconds from the shell for one second of sound (the median)."""
    with tempfile.TemporaryDirectory() as folder:
        files.save(Path(folder) / "a.wav", clip[:, :SR], SR)
        command = [sys.executable, "-m", "wavelldm", "denoise", "a.wav", "--force", "--backend", backend]
        took = []
        for _ in range(times):
            began = time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            took.append(time.perf_counter() - began)
    return float(np.median(took))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=8, help="per level")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the stream")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = [clip for clip in denoise.clips(args.manifest, args.clips) if clip[0] in SNRS]
    with tempfile.TemporaryDirectory() as folder:
        ready = graphs(Path(folder))
        rows = systems(ready)
        scores, costs = measure(rows, found)
        sizes = {name: (Path(folder) / f"{name}.onnx").stat().st_size for name in ready if "bytes" in name}
        times = {name: pushes(model, args.minutes) for name, model in ready.items() if name.startswith("base16k")}
    for name in ("base16k", "studio16k"):
        parts = (f"{name}.onnx", *ready[f"{name}, onnxruntime"].graph.facts.weights)
        sizes[f"{name}, onnxruntime"] = sum((light.SHIPPED / part).stat().st_size for part in parts)
        sizes[f"{name}, PyTorch"] = weights.locate({"base16k": "base16k-mask"}.get(name, name)).stat().st_size
    head = ["system", "MB", *(judges.LABELS[s] for s in SHOWN), "CPU s per s"]
    lines = [line(head), "| --- |" + " ---: |" * (len(head) - 1)]
    for name in rows:
        cells = [f"{scores[name][s]:.{judges.DIGITS.get(s, 2)}f}" for s in SHOWN]
        size = f"{sizes[name] / 1e6:.2f}" if name in sizes else ""
        lines.append(line([name, size, *cells, f"{costs[name]:.3f}"]))
    hop = 1_000 * HOP / SR
    names = ["a block of 16 ms", *(f"{p:g} % within" for p in PERCENTILES), "the worst", "over 16 ms", "grew by"]
    blocks = [line(names), "| --- |" + " ---: |" * (len(names) - 1)]
    for name, (took, grown) in times.items():
        cells = [f"{np.percentile(took, p):.2f} ms" for p in PERCENTILES]
        late = f"{(took > hop).sum()} of {len(took)}"
        blocks.append(line([name, *cells, f"{took.max():.2f} ms", late, f"{grown:.1f} MB"]))
    edges = [0, *(2.0 ** np.arange(-2, 6)), np.inf]
    histogram = [line(["ms", *times]), "| --- |" + " ---: |" * len(times)]
    for low, high in zip(edges, edges[1:]):
        counts = [int(((took >= low) & (took < high)).sum()) for took, _ in times.values()]
        histogram.append(line([f"{low:g} to {high:g}", *map(str, counts)]))
    seconds = {backend: start_up(backend, found[0][1]) for backend in ("torch", "onnx")}
    table, stream, counts = "\n".join(lines), "\n".join(blocks), "\n".join(histogram)
    write_section(
        "device",
        f"""## On the device

{len(found)} held-out mixtures at {", ".join(SNRS)} from {source(args.manifest)}; all in one run, clip by clip in turn.
"onnxruntime" is the graph that `wavelldm export` writes, one hop at a time for base16k; "bytes" is `--int8`,
"calibrated bytes" `--int8 static`.

{table}

A stream of {args.minutes:g} minutes, block by block:

{stream}

How many blocks took how long:

{counts}

One second of sound from the shell, file to file: {seconds["onnx"]:.2f} s with onnxruntime,
{seconds["torch"]:.2f} s with PyTorch.

{made_by("device.py", args.manifest, f"--clips {args.clips}", f"--minutes {args.minutes:g}")}.""",
    )


if __name__ == "__main__":
    main()
