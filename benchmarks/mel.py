"""Time the log-mel front end against librosa's and torchaudio's, and Griffin-Lim; write it into benchmarks/README.md.

python benchmarks/mel.py [--repeats 40]
"""

import argparse
import platform
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import torch

from wavelldm.audio.mel import MELS, LogMel, griffin_lim, mel_to_magnitude

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from reference import torchaudio  # noqa: E402
from report import write_section  # noqa: E402

CASES = {"1 × 60 s": (1, 60), "16 × 1 s": (16, 1)}  # clips in the batch, seconds each


def front_ends(config):
    """Three functions wav (B, 1, N) -> log-mel (B, M, F) that compute the same numbers."""
    c = config
    mine = LogMel(c)
    other = torchaudio.transforms.MelSpectrogram(
        c.sr, c.n_fft, c.win, c.hop, c.fmin, c.fmax, n_mels=c.n_mels, power=c.power, norm="slaney", mel_scale="slaney"
    )

    def with_librosa(wav):
        mel = librosa.feature.melspectrogram(
            y=wav[:, 0].numpy(), sr=c.sr, n_fft=c.n_fft, hop_length=c.hop, win_length=c.win, power=c.power,
            n_mels=c.n_mels, fmin=c.fmin, fmax=c.fmax, pad_mode="reflect",
        )  # fmt: skip
        return torch.from_numpy(np.log(np.maximum(mel, c.floor)))

    return {
        "wavelldm": lambda wav: mine(wav, c.sr),
        "torchaudio": lambda wav: other(wav[:, 0]).clamp_min(c.floor).log(),
        "librosa": with_librosa,
    }


def medians(functions, wav, repeats):
    """Median milliseconds of each function; they take turns, so that a busy moment of the machine meets all of them."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function(wav)
            if turn >= 2:  # the first two warm up
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def mel_table(repeats):
    lines = [
        "| preset | batch | wavelldm | torchaudio | librosa | against torchaudio | against librosa |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, config in MELS.items():
        config = replace(config, padding="center")  # the one padding that all three have
        functions = front_ends(config)
        for case, (clips, seconds) in CASES.items():
            wav = 0.05 * torch.randn(clips, 1, seconds * config.sr, generator=torch.Generator().manual_seed(0))
            mine, *others = (function(wav) for function in functions.values())
            assert all((mine - other).abs().max() < 1e-4 for other in others), "the front ends disagree"
            ms = medians(functions, wav, repeats)
            ratios = [f"{ms[other] / ms['wavelldm']:.2f} × as fast" for other in ("torchaudio", "librosa")]
            cells = [name, case] + [f"{value:.1f} ms" for value in ms.values()] + ratios
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def griffin_table():
    config, seconds = MELS["base16k"], 10
    wav = 0.05 * torch.randn(1, 1, seconds * config.sr, generator=torch.Generator().manual_seed(0))
    mel = LogMel(config)(wav, config.sr)
    spectrum = mel_to_magnitude(mel, config)
    steps = {
        "mel to magnitude, 50 updates": lambda _: mel_to_magnitude(mel, config),
        "Griffin-Lim, 32 iterations": lambda _: griffin_lim(spectrum, config, 32),
        "Griffin-Lim, 60 iterations": lambda _: griffin_lim(spectrum, config, 60),
    }
    ms = medians(steps, wav, 5)
    rows = [f"| {name} | {value / seconds:.1f} ms | {1e3 * seconds / value:.0f} |" for name, value in ms.items()]
    return ["| base16k, batch 1 | per second of sound | times real time |", "| --- | ---: | ---: |", *rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="measurements of each front end (default 40)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    versions = [f"{package.__name__} {package.__version__}" for package in (torch, torchaudio, librosa)]
    with torch.no_grad():
        lines = [
            "## Mel front end",
            "",
            f"wav to log-mel, median of {repeats} runs taken in turns, one CPU thread, centre padding, equal results",
            "(1e-4); librosa is called as usual, `feature.melspectrogram`, which builds its mel bank anew each time.",
            "",
            *mel_table(repeats),
            "",
            *griffin_table(),
            "",
            f"Python {platform.python_version()}, {', '.join(versions)}. Made by `python benchmarks/mel.py`.",
        ]
    section = "\n".join(lines)
    print(section)
    write_section("mel", section)


if __name__ == "__main__":
    main()
