"""How the waveform denoiser is trained: STFT magnitude, phase and L1, and a head that learns how noisy its input is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..audio.files import resample
from ..audio.stft import POWER, magnitude, stft
from ..data.corpora import Corpus
from ..denoise.waveform import LAST, WaveConfig, WaveDenoiser, level
from ..metrics.differentiable import disturbance, opinion
from ..metrics.scores import validation_scores
from . import parallel
from .loop import Plan, Task
from .mixtures import mixtures
from .options import SNR, HalfOptions, option

LOSS_WEIGHTS = {"magnitude": 2.0, "phase": 1.0, "l1": 20.0, "level": 1.0}
OWN = 0.5  # share of items that use the head's estimate of t instead of the true one, as all do later
JUDGED = 16_000  # Hz: the rate at which the validation listens, as WB-PESQ does


@dataclass(frozen=True)
class WaveOptions(HalfOptions):
    snr: tuple | None = option(None, SNR, float, metavar=("LOW", "HIGH"))


def share(error: Tensor, of: Tensor) -> Tensor:
    """(B, F, T) each -> the mean over items of the error's sum as a share of the other's."""
    return (error.sum((1, 2)) / of.sum((1, 2)).clamp_min(1e-3)).mean()


def spectral(wav: Tensor, clean: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """(B, 1, N) each -> how far compressed magnitudes lie apart, and phases.

    The latter is 1 - cos of the angle between both spectra, each bin weighted by its clean magnitude: 0 where all
    phases agree, 1 where they are unrelated. The cosine needs no angles, so it has no jump at 180 degrees.
    """
    a, b = (stft(x, window, window // 4, window, "center") for x in (wav, clean))  # (B, F, T)
    size_a, size_b = magnitude(a.real, a.imag), magnitude(b.real, b.imag)
    loud_a, loud_b = (size.clamp_min(1e-3) ** POWER for size in (size_a, size_b))
    product = (a.real * b.real + a.imag * b.imag) / size_a.clamp_min(1e-8)  # |b| cos(angle)
    return share((loud_a - loud_b).abs(), loud_b), share(size_b - product, size_b)


def distances(wav: Tensor, clean: Tensor, windows: tuple) -> dict:
    """`windows`: one STFT window is the seed's single resolution, several are what it recommends."""
    magnitudes, phases = zip(*(spectral(wav, clean, window) for window in windows))
    return {
        "magnitude": sum(magnitudes) / len(windows),
        "phase": sum(phases) / len(windows),
        "l1": (wav - clean).abs().mean(),
    }


def estimated_opinion(wav: Tensor, clean: Tensor, sr: int) -> Tensor:
    """About what WB-PESQ would say of wav beside clean (B, 1, N), without the package that measures it -> (B,)."""
    return opinion(disturbance(resample(wav, sr, JUDGED), resample(clean, sr, JUDGED), JUDGED))


class WaveTask(Task):
    """Batches are (noisy, clean); t is the noise level of each item, or, as in the original, drawn at random (`leveled`
    False)."""

    network, Network, Options = "waveform", WaveDenoiser, WaveOptions

    def __init__(
        self,
        config: WaveConfig,
        options: WaveOptions = WaveOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.config, self.sr = config, config.sr
        self.networks, self.groups = {"model": WaveDenoiser(config).to(device)}, {"wave": ["model"]}

    @classmethod
    def plan(cls, steps: int, **changes: Any) -> Plan:
        """5 % of warm-up, then OneCycle: 30 % up, down to a thousandth; one curve without jumps, see
        `loop.learning_rate`."""
        usual = {"lr": 1e-4, "warmup": max(1, round(0.05 * steps)), "rise": 0.3, "final": 1e-3}
        return super().plan(steps, **usual | changes)

    def read(self, corpus: Corpus) -> None:
        o = self.options
        self.reads_share = True
        self.batches, self.valid = mixtures(corpus, self.sr, o.seconds, o.batch_size, self.seed, o.num_workers, o.snr)

    def losses(self, batch: tuple) -> Iterator:
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        drawn = torch.rand(
            len(noisy) * parallel.parts()[1], 2
        )  # for the whole batch, so that several processes draw as one
        drawn = parallel.share((drawn,))[0].to(self.device)
        t = level(clean, noisy - clean) if self.config.leveled else LAST * drawn[:, 0]
        own = drawn[:, 1] < OWN if self.config.leveled else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            wav, guess = self.networks["model"].clean_and_estimate(noisy, t, own)
        parts = distances(wav, clean, self.config.resolutions)
        if self.config.leveled:
            parts["level"] = (guess - t).abs().mean() / LAST
        yield (
            "wave",
            sum(LOSS_WEIGHTS[name] * part for name, part in parts.items()),
            {k: v.detach() for k, v in parts.items()},
        )

    @torch.no_grad()
    def validate(self, model: WaveDenoiser) -> dict:
        """Cleaned as later, in overlapping segments, with nobody telling t. The score is the loss less an estimate of
        WB-PESQ: at good signal-to-noise ratios the loss alone prefers a network that does nothing."""
        rows, cleaned = [], []
        for noisy, clean in self.valid:
            noisy, clean = noisy.to(self.device), clean.to(self.device)
            wav = model.clean_long(noisy)
            off = (model.clean_and_estimate(noisy)[1] - level(clean, noisy - clean)).abs().mean() / LAST
            rows.append(
                distances(wav, clean, self.config.resolutions) | ({"level": off} if self.config.leveled else {})
            )
            cleaned.append(wav)
        means = {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]}
        cleaned, clean = torch.cat(cleaned), torch.cat([clean for _, clean in self.valid])
        means["opinion"] = float(estimated_opinion(cleaned, clean.to(self.device), self.sr).mean())
        loss = sum(LOSS_WEIGHTS[name] * means[name] for name in ("magnitude", "phase", "l1"))
        means |= {"loss": loss} | validation_scores(clean, cleaned, self.sr)
        return {"score": loss - means["opinion"], **{f"valid_{name}": value for name, value in means.items()}}

    @torch.no_grad()
    def samples(self, model: WaveDenoiser) -> dict:
        noisy, clean = (x[:1] for x in self.valid[0])
        return {"noisy": noisy[0], "clean": clean[0], "cleaned": model(noisy.to(self.device))[0].cpu()}
