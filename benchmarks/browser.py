"""The browser app beside PyTorch and onnxruntime: the same recording through all three, and an hour of it.

python benchmarks/browser.py [--hours 1] [--no-hour] [--threads 2]

Needs Chromium and `pip install playwright`. Writes wavelldm/course/browser.csv and browser.png, which notebook 19
shows, and sections of benchmarks/README.md. `--hours`: how long the file is whose memory is watched. `--threads`:
times the page on one thread and on so many, and writes nothing; it needs as many free cores.
"""

import argparse
import csv
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import soundfile as sf
import torch
from playwright.sync_api import Page, sync_playwright
from report import line, made_by, write_section
from tqdm import tqdm

import wavelldm
from wavelldm import plots
from wavelldm.app.web_server import PAGE, Server
from wavelldm.cli import demo
from wavelldm.denoise import denoiser
from wavelldm.light import denoiser as light

SR = 16_000
REPEATS = 4  # of the clip: what happens only once should not count
TRIES = 3  # of each way; the least CPU time counts
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
OUT = Path(wavelldm.__file__).parent / "course"
MB = 1e6


@contextmanager
def opened(folder: Path, threads: int = 1) -> Iterator[Page]:
    """The page in a browser that keeps its files in `folder`, as a user's does; a private window has no disk."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("there is no Chromium; install it: apt-get install chromium")
    with Server(0) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=program, args=FLAGS, accept_downloads=True
        )
        page = context.new_page()
        page.set_default_timeout(0)
        page.goto(f"{server.address}?threads={threads}")
        yield page
        context.close()
        server.shutdown()


def renderers(page: Page) -> dict[int, float]:
    """Processes of the browser that run pages -> CPU seconds, as the devtools protocol tells."""
    session = page.context.browser.new_browser_cdp_session() if page.context.browser else None
    session = session or page.context.new_cdp_session(page)
    info = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return {row["id"]: row["cpuTime"] for row in info if row["type"] == "renderer"}


def by_browser(page: Page, path: Path) -> tuple[np.ndarray, float, float]:
    """A file through the page -> the cleaned samples (1, N), and the CPU and wall seconds of a second run, when all is
    loaded: of some, the least."""
    page.set_input_files("#file", path)
    page.wait_for_selector("#download:not([disabled])")
    took = []
    for strength in ("0.95", "1") * TRIES:
        before, began = renderers(page), time.perf_counter()
        page.locator("#file-strength").fill(strength)
        page.wait_for_selector("#working:not([hidden])")
        page.wait_for_selector("#working", state="hidden")
        wall = time.perf_counter() - began
        took.append((sum(renderers(page).values()) - sum(before.values()), wall))
    with page.expect_download() as download:
        page.click("#download")
    return sf.read(download.value.path(), dtype="float32", always_2d=True)[0].T, *map(min, zip(*took))


def timed(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    run()
    took = []
    for _ in range(TRIES):
        began = time.process_time()
        wav = run()
        took.append(time.process_time() - began)
    return wav, min(took)


def size_of(*packages: str) -> float:
    """MB of installed packages."""
    files = [f for name in packages for f in metadata.files(name) or []]
    return sum(f.locate().stat().st_size for f in files if f.locate().is_file()) / MB


def compare(page: Page, folder: Path) -> list[dict]:
    """The three ways: size of what has to be there, CPU seconds per second of sound, difference to PyTorch."""
    _, noisy = demo.clip(SR)
    noisy = noisy.repeat(1, REPEATS)
    seconds = noisy.shape[1] / SR
    path = folder / "noisy.wav"
    sf.write(path, noisy[0].numpy(), SR, subtype="FLOAT")
    best, lean = denoiser.load("studio16k"), light.load("studio16k")
    ways = {
        "PyTorch": (timed(lambda: best.enhance(noisy, SR).numpy()), size_of("torch")),
        "onnxruntime": (timed(lambda: lean.enhance(noisy.numpy(), SR)), size_of("onnxruntime")),
    }
    runtime = sum((PAGE / name).stat().st_size for name in ("ort.wasm.gz", "worker.js", "main.js")) / MB
    ways["browser"] = (by_browser(page, path)[:2], runtime)
    (reference, _), _ = ways["PyTorch"]
    rows = []
    for name, ((wav, took), size) in ways.items():
        largest = float(np.abs(wav - reference).max())
        rows.append({"way": name, "runtime_mb": size, "cpu_s_per_s": took / seconds, "largest_difference": largest})
    picture(noisy.numpy(), {name: wav for name, ((wav, _), _) in ways.items()}, rows)
    return rows


def by_threads(numbers: list[int]) -> None:
    """What the page needs on some numbers of threads."""
    _, noisy = demo.clip(SR)
    noisy, first = noisy[0].repeat(REPEATS).numpy(), None
    for threads in numbers:
        with tempfile.TemporaryDirectory() as name, opened(Path(name) / "profile", threads) as page:
            sf.write(Path(name) / "noisy.wav", noisy, SR, subtype="FLOAT")
            wav, *took = by_browser(page, Path(name) / "noisy.wav")
        cpu, wall = (seconds * SR / len(noisy) for seconds in took)
        first = wav if first is None else first
        print(f"{threads} threads: {wall:.3f} s and {cpu:.3f} CPU s per s; differs by {np.abs(wav - first).max():.0e}")


def picture(noisy: np.ndarray, found: dict[str, np.ndarray], rows: list[dict]) -> None:
    """Spectrograms of the clip, and below them what each way costs."""
    shown = slice(0, noisy.shape[1] // REPEATS)
    figure = plt.figure(figsize=(12, 5.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.4, 1))
    difference_axes, *bars = below.subplots(1, 3)
    for ax, (name, wav) in zip(above.subplots(1, 4), {"noisy": noisy, **found}.items(), strict=True):
        plots.spectrogram(ax, torch.from_numpy(wav[:, shown]), SR, name)
    difference = np.abs(found["browser"] - found["PyTorch"])[0, shown]
    difference_axes.plot(np.arange(len(difference)) / SR, difference, color=plots.INK, lw=0.5)
    difference_axes.set(title="browser minus PyTorch", xlabel="s", yscale="log", ylim=(1e-9, 1e-2))
    difference_axes.axhline(1e-3, color=plots.ACCENT)
    titles = {"runtime_mb": "size of the runtime in MB", "cpu_s_per_s": "CPU s per s of sound"}
    for ax, (key, title) in zip(bars, titles.items()):
        values = [row[key] for row in rows]
        ax.barh([row["way"] for row in rows], values, color=plots.ACCENT, log=key == "runtime_mb")
        for i, value in enumerate(values):
            ax.text(value, i, f" {value:.3g}", va="center", fontsize=8)
        ax.margins(x=0.25)
        ax.invert_yaxis()
        ax.set_title(title)
    figure.savefig(OUT / "browser.png", dpi=90)
    plt.close(figure)


def resident(pids: list[int]) -> float:
    """MB of memory that processes hold."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids if Path(f"/proc/{pid}").exists()]
    return sum(pages) * 4096 / MB


def write_long(path: Path, seconds: float) -> None:
    """The clip, over and over."""
    _, noisy = demo.clip(SR)
    block = noisy[0].numpy()
    with sf.SoundFile(path, "w", SR, 1) as file:
        for _ in range(max(1, round(seconds * SR / len(block)))):
            file.write(block)


def watched(page: Page, path: Path) -> dict:
    """Memory of the page while it opens and cleans a long file, tenth by tenth of the way."""
    page.goto(page.url)
    page.wait_for_selector("#file", state="attached")
    tenths: dict[int, list[float]] = {}
    began = time.monotonic()
    page.set_input_files("#file", path)
    bar = tqdm(total=100, desc=path.name, unit="%")
    while not page.is_enabled("#download"):
        opening = page.inner_text("#file-status").startswith("Opening")
        done = page.evaluate("document.querySelector('#progress').value")
        bar.set_postfix_str("opening" if opening else "cleaning")
        bar.update(round(100 * done) - bar.n)
        if not opening and done > 0.05:
            tenths.setdefault(int(10 * done), []).append(resident(list(renderers(page))))
        if page.is_visible("#file-message"):
            raise SystemExit(page.inner_text("#file-message"))
        time.sleep(1)
    bar.close()
    frames = page.evaluate("document.querySelector('#time').textContent")
    middle = {tenth: float(np.median(values)) for tenth, values in sorted(tenths.items())}
    found = {"file": path.suffix[1:].upper(), "length": frames.split("/")[1].strip(), "mb": path.stat().st_size / MB}
    return {**found, "tenths": middle, "minutes": (time.monotonic() - began) / 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--hours", type=float, default=1.0, help="length of the long file (default: 1)")
    parser.add_argument("--no-hour", action="store_true", help="leaves out the long file")
    parser.add_argument("--threads", type=int, help="times the page on one thread and on so many")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.threads:
        return by_threads([1, args.threads])
    with tempfile.TemporaryDirectory() as name, opened(Path(name) / "profile") as page:
        rows = compare(page, Path(name))
        with open(OUT / "browser.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
        long = []
        for suffix in () if args.no_hour else ("wav", "mp3"):
            path = Path(name) / f"long.{suffix}"
            write_long(path, 3600 * args.hours)
            long.append(watched(page, path))
            print(long[-1], flush=True)
        version = page.evaluate("navigator.userAgent.match(/Chrome\\/(\\d+)/)[1]")
    report(rows, long, version)


def report(rows: list[dict], long: list[dict], version: str) -> None:
    table = [line(["studio16k by", "runtime, MB", "CPU s per s", "largest difference"]), "| --- | ---: | ---: | ---: |"]
    table += [
        line([r["way"], f"{r['runtime_mb']:.1f}", f"{r['cpu_s_per_s']:.3f}", f"{r['largest_difference']:.0e}"])
        for r in rows
    ]
    text = [
        "## In the browser",
        "The same recording by PyTorch, by onnxruntime and by the page of `wavelldm web`, which runs onnxruntime in "
        f"WebAssembly. Chromium {version}, onnxruntime {onnxruntime.__version__} in Python; CPU "
        "time, the least of some runs.",
        "\n".join(table),
    ]
    text.append(made_by("browser.py", None, "--no-hour") + ".")
    write_section("browser", "\n\n".join(text))
    if not long:
        return
    head = ["file", "length", "MB", *(f"{10 * k} %" for k in range(10))]
    table = [line(head), "| --- " + "| ---: " * (len(head) - 1) + "|"]
    for row in long:
        cells = [f"{row['tenths'][k]:.0f}" if k in row["tenths"] else "" for k in range(10)]
        table.append(line([row["file"], row["length"], f"{row['mb']:.0f}", *cells]))
    text = [
        "Memory of all processes of the browser in MB while the page cleans a long file, by how much is done:",
        "\n".join(table),
        made_by("browser.py", None) + ".",
    ]
    write_section("browser-hour", "\n\n".join(text))


if __name__ == "__main__":
    main()
