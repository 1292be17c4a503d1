"""What `wavelldm denoise` takes as a user runs it: a minute and an hour of sound, from the shell, file to file.

python benchmarks/shell.py [--manifest TABLE] [--minutes 1 60]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from report import made_by, write_section

from wavelldm.audio import files
from wavelldm.data import corpora, voices

SR = 16_000
WAYS = {"default": [], "`--stream`": ["--stream"]}


def recording(manifest, minutes: float, path: Path) -> None:
    """Held-out voices with held-out noise, again and again until the time is full."""
    speech, noise = (
        corpora.read_manifest(manifest or voices.build_corpus(), "valid", (kind,))[0][:40]
        for kind in ("speech", "noise")
    )
    wavs = [
        np.concatenate([files.load(item.path, SR, mono=True)[0][0].numpy() for item in items])
        for items in (speech, noise)
    ]
    size = min(map(len, wavs))
    mixed = wavs[0][:size] + 0.3 * wavs[1][:size] * wavs[0].std() / wavs[1].std()
    mixed *= 0.5 / abs(mixed).max()
    with sf.SoundFile(path, "w", SR, 1, "PCM_16") as file:
        left = round(60 * minutes * SR)
        while left > 0:
            file.write(mixed[:left])
            left -= len(mixed)


def measure(command: list) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, MB at the most."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(process.stderr.read().decode())
    return (
        time.perf_counter() - began,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / (1e3 if sys.platform == "linux" else 1e6),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 60.0])
    args = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            source = Path(folder) / "noisy.wav"
            recording(args.manifest, minutes, source)
            for name, options in WAYS.items():
                command = [
                    sys.executable,
                    "-m",
                    "wavelldm",
                    "denoise",
                    str(source),
                    "-o",
                    str(Path(folder) / "clean.wav"),
                    "--force",
                    *options,
                ]
                wall, cpu, most = measure(command)
                lines.append(
                    f"| {minutes:g} min | {name} | {wall:.1f} | {cpu:.1f} | {60 * minutes / wall:.0f} | {most:.0f} |"
                )
    text = "\n".join(
        [
            "## From the shell",
            "",
            "`wavelldm denoise noisy.wav -o clean.wav`, everything included: starting Python, reading the weights, "
            "both files. 16 kHz, one channel, one thread.",
            "",
            "| sound | way | seconds | CPU seconds | × real time | most memory, MB |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
            *lines,
            "",
            f"{made_by('shell.py', args.manifest)}.",
        ]
    )
    print(text)
    write_section("shell", text)


if __name__ == "__main__":
    main()
