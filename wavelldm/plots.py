"""Figures: spectrograms that can be compared, because they share one colour scale and say what it is."""

import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

INK, ACCENT, SOFT = "#1b2a3a", "#d1495b", "#7a8ba3"


def pyplot() -> ModuleType:
    """matplotlib, set up alike for every figure of the course."""
    import matplotlib

    if "inline" not in matplotlib.get_backend().lower() and "ipympl" not in matplotlib.get_backend().lower():
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 90,
            "savefig.dpi": 110,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 10,
            "axes.labelcolor": INK,
            "figure.constrained_layout.use": True,
        }
    )
    return plt


def decibels(wav: Tensor, sr: int, cells: tuple = (128, 480)) -> np.ndarray:
    """wav (..., N) -> (F, T) power spectrogram in dB re full scale, first channel, 32 ms windows 8 ms apart, pooled
    to at most that many cells: more than a picture can show only makes it speckled and large."""
    win = round(0.032 * sr)
    wav = torch.as_tensor(wav).detach().cpu().float()
    wav = torch.nn.functional.pad(
        wav.reshape(-1, wav.shape[-1])[0], (win // 2, win // 2)
    )  # frame t in the middle of its sample
    window = torch.hann_window(win)
    power = torch.stft(wav, win, win // 4, window=window, center=False, return_complex=True).abs().square()  # (F, T)
    shape = [min(have, most) for have, most in zip(power.shape, cells)]
    power = torch.nn.functional.adaptive_avg_pool2d(power[None], shape)[0]
    return (10 * torch.log10(power / window.sum().square() * 4 + 1e-12)).numpy()


def spectrogram(ax: Any, wav: Tensor, sr: int, title: str = "", top: float = -15.0, span: float = 80.0) -> Any:
    """Draw one spectrogram; the colours run over `span` dB below `top`. Returns the image, for a colour bar."""
    image = ax.imshow(
        decibels(wav, sr),
        origin="lower",
        aspect="auto",
        extent=(0, wav.shape[-1] / sr, 0, sr / 2000),
        cmap="magma",
        vmin=top - span,
        vmax=top,
        interpolation="nearest",
    )
    ax.set(title=title, ylabel="kHz")
    return image


def compare(wavs: dict[str, Tensor], sr: int, path: str | Path | None = None, note: str = "") -> Any:
    """Spectrograms of several versions of one recording below each other, on one scale; saved as PNG if `path` is
    given."""
    plt = pyplot()
    figure, axes = plt.subplots(len(wavs), 1, figsize=(8, 1.75 * len(wavs) + 0.5), sharex=True, squeeze=False)
    for ax, (name, wav) in zip(axes[:, 0], wavs.items()):
        image = spectrogram(ax, wav, sr, name)
    axes[-1, 0].set_xlabel("seconds")
    figure.colorbar(image, ax=axes[:, 0], label="dB re full scale", pad=0.01, aspect=30)
    if note:
        figure.suptitle(textwrap.fill(note, 110), x=0.01, ha="left", fontsize=9, color=SOFT)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        plt.close(figure)
    return figure
