"""What batches cost: the same files in a plain loop, with one worker and with two, and what the engine adds.

`python benchmarks/scale.py [--files 30] [--seconds 4] [--workers 1 2]`. On a busy machine compare the CPU times,
not the times on the clock. `--memory 8` measures instead what is held in memory, of a source of 8 files of a minute at
192 kHz (46 MB each) and of one with four times as many.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from batched import most_held  # noqa: E402
from signals import speechlike  # noqa: E402

from wavelldm.batch import processes, run  # noqa: E402
from wavelldm.batch.tasks import Settings  # noqa: E402
from wavelldm.light import denoiser  # noqa: E402

SR = 16_000
TICK = os.sysconf("SC_CLK_TCK")


SEEN: dict[tuple[int, int], float] = {}  # a process, by number and start -> CPU seconds when it was last seen


def used() -> float:
    """CPU seconds of this process and of all that it started, those that have ended since the last look as well."""
    family = processes.family(os.getpid()) | {os.getpid(): 0}
    for pid, began in family.items():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        SEEN[pid, began] = (int(fields[11]) + int(fields[12])) / TICK
    return sum(SEEN.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--empty", type=int, default=200, help="batches with nothing to do, for the engine's own cost")
    parser.add_argument("--memory", type=int, metavar="FILES", help="measure what is held in memory")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="wavelldm-scale-"))
    try:
        if args.memory:
            memory(args.memory, folder, max(args.workers))
        else:
            measure(args, folder)
    finally:
        shutil.rmtree(folder)


def measure(args: argparse.Namespace, folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "in").mkdir()
    wav = np.asarray(speechlike(args.seconds), np.float32)
    for i in range(args.files):
        noisy = wav + 0.02 * rng.standard_normal(len(wav)).astype(np.float32)
        sf.write(folder / f"in/{i:04d}.wav", noisy, SR, subtype="PCM_16")
    found = denoiser.load()
    began, cpu = time.perf_counter(), time.process_time()
    for path in sorted((folder / "in").iterdir()):
        found.enhance_file(path, folder / "loop" / path.name, progress=False)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"loop: {args.files / wall:.2f} files/s, {cpu / args.files:.3f} CPU s per file", flush=True)

    began, before = time.perf_counter(), used()
    with run.ray_ready(run.Cluster(max(args.workers))):
        print(f"Ray: started in {time.perf_counter() - began:.1f} s, {used() - before:.1f} CPU s", flush=True)
        for workers in args.workers:
            rows: list[dict] = []
            stamps: list[float] = []
            source, target = str(folder / "in"), str(folder / f"out{workers}")
            began, before = time.perf_counter(), used()

            def seen(row: dict, rows: list = rows, stamps: list = stamps) -> None:
                rows.append(row)
                stamps.append(time.perf_counter())

            run.run(source, target, Settings("denoise", source), run.Cluster(workers), seen=seen)
            wall, whole = time.perf_counter() - began, used() - before
            files, inside = sum(r["files"] for r in rows), sum(r["cpu"] for r in rows)
            steady = sum(r["files"] for r in rows[1:]) / max(1e-9, stamps[-1] - stamps[0])
            print(
                f"{workers} workers: {files / wall:.2f} files/s with the start of the workers, {steady:.2f} after it; "
                f"{inside / files:.3f} CPU s per file in the workers, {whole:.1f} CPU s in all, "
                f"{max(r['megabytes'] for r in rows):.0f} MB in a worker",
                flush=True,
            )
        empty(args.empty, folder, max(args.workers))


def empty(count: int, folder: Path, workers: int) -> None:
    """Batches whose one file is not there: what remains is the engine, and the ledger."""
    table = "path\n" + "".join(f"none{i}.wav\n" for i in range(count))
    (folder / "none.tsv").write_text(table)
    run.SHARE, share = 10**9, run.SHARE  # every file a batch of its own
    before, stamps, inside = used(), [], []

    def seen(row: dict) -> None:
        stamps.append((time.perf_counter(), used() if len(stamps) in (0, count - 1) else 0.0))
        inside.append(row["cpu"])

    source = str(folder / "none.tsv")
    run.run(source, str(folder / "none"), Settings("denoise", source), run.Cluster(workers), seen=seen)
    run.SHARE = share
    wall, cpu = stamps[-1][0] - stamps[0][0], stamps[-1][1] - stamps[0][1]
    print(
        f"engine: {(count - 1) / wall:.0f} empty batches/s, {1000 * cpu / (count - 1):.1f} CPU ms per batch, of which "
        f"{1000 * sum(inside) / count:.1f} in the worker (ledger); {used() - before:.1f} CPU s with the workers' start"
    )


def memory(count: int, folder: Path, workers: int) -> None:
    """A source, and one four times as large."""
    rng = np.random.default_rng(0)
    wav = np.repeat(np.asarray(speechlike(60.0), np.float32), 12)
    with run.ray_ready(run.Cluster(workers)):
        for number in (count, 4 * count):
            source, target, rows = folder / f"in{number}", folder / f"out{number}", []
            source.mkdir()
            for i in range(number):
                noise = 0.02 * rng.standard_normal(len(wav), np.float32)
                sf.write(source / f"{i:04d}.wav", wav + noise, 12 * SR, subtype="FLOAT")
            size = sum(path.stat().st_size for path in source.iterdir()) / 1e6
            with most_held() as found:
                run.run(
                    str(source), str(target), Settings("denoise", str(source)), run.Cluster(workers), seen=rows.append
                )
            print(
                f"{number} files, {size:.0f} MB of sound: driver {found['driver']:.0f} MB, a worker "
                f"{max(row['megabytes'] for row in rows):.0f} MB, Ray's store {found['store']:.1f} MB",
                flush=True,
            )
            shutil.rmtree(source)
            shutil.rmtree(target)


if __name__ == "__main__":
    main()
