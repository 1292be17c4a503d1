"""How long the page of `wavelldm app` keeps people waiting beside the model itself: from the click on Go to the
players, less the seconds of computing that the page states.

    python benchmarks/page.py [--runs 8]      # Chromium and Playwright

The first run is the first result after the page was opened. On a machine that does other things, too, the smallest
of several runs is nearest to the truth.
"""

import argparse
import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

import torch
from report import line, made_by, write_section

from wavelldm.app import page as app
from wavelldm.audio import files
from wavelldm.data import corpora, voices

SECONDS = 10.0


def recording(folder: Path) -> Path:
    """Ten seconds of a made voice in noise."""
    (speech,) = corpora.read_manifest(voices.build_corpus(), "valid", ("speech",))
    wav, sr = files.load(speech[0].path, sr=16_000, mono=True)
    wav = wav.repeat(1, 1 + round(SECONDS * sr) // wav.shape[-1])[:, : round(SECONDS * sr)]
    noise = 0.02 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    return files.save(folder / "talk.wav", wav + noise, sr)


def measure(runs: int, url: str, clip: Path) -> list[tuple[float, float]]:
    """(seconds from click to players, seconds of computing among them) for each run."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        page = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]).new_page()
        page.set_default_timeout(120_000)
        page.goto(url)
        page.locator("input[type=file]").first.set_input_files(str(clip))
        page.get_by_label("Clear").first.wait_for()
        for _ in range(runs):
            shown = page.locator("#denoise-players .sound").first
            before = shown.get_attribute("data-src") if shown.count() else ""
            began = time.perf_counter()
            page.click("#denoise-go")
            page.wait_for_function(
                "before => { const s = document.querySelector('#denoise-players .step[data-at] .sound');"
                " return s && s.dataset.src !== before; }",
                arg=before,
            )
            took = time.perf_counter() - began
            notes = page.inner_text("#denoise-notes")
            found.append((took, float(re.search(r"in ([\d.]+) s of computing", notes)[1])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    app.warm()
    with tempfile.TemporaryDirectory() as folder:
        clip = recording(Path(folder))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        blocks = app.launch(port=port, folder=folder, block=False)
        found = measure(args.runs, blocks.local_url, clip)
        blocks.close(verbose=False)
    beside = [took - computing for took, computing in found]
    rows = [
        ["", "first", "smallest", "median"],
        ["---", *["---:"] * 3],
        *(
            [name, *(f"{v:.1f}" for v in (values[0], min(values), sorted(values)[len(values) // 2]))]
            for name, values in (
                ("click to players, s", [took for took, _ in found]),
                ("the model itself, s", [computing for _, computing in found]),
                ("all else, s", beside),
            )
        ),
    ]
    text = f"""## The page of `wavelldm app`

What `wavelldm app` adds to the model: from the click on Go to the players, for {SECONDS:.0f} s of sound and
`studio16k`, in Chromium on the same machine, {args.runs} runs. All else: the way to the server and back, reading and
writing files, spectrograms, drawing the page. A load of {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores by other
programs makes every figure larger than on a free machine.

{chr(10).join(map(line, rows))}

{made_by("page.py", None, f"--runs {args.runs}")}."""
    print(text)
    write_section("page", text)


if __name__ == "__main__":
    main()
