"""What training the waveform denoiser means: STFT magnitude, phase and L1, and a head that learns how noisy its input is."""

from dataclasses import replace

import torch
from torch import Tensor

from ..audio.stft import POWER, magnitude, stft
from ..data.corpora import Material
from ..denoise.waveform import LAST, WaveConfig, WaveDenoiser, level
from ..metrics.scores import validation_scores
from ..weights import load
from . import parallel
from .loop import Plan, adopt, fast_half, train_to_weights
from .mixtures import mixtures
from .presets import Preset

WEIGHTS = {"magnitude": 2.0, "phase": 1.0, "l1": 20.0, "level": 1.0}
LR, WARMUP, RISE, FINAL = 1e-4, 0.05, 0.3, 1e-3  # 5 % warm-up, then OneCycle: 30 % up, down to a thousandth
OWN = 0.5  # share of items that are not told t but use what the head makes out, as all do later


def schedule(plan: Plan) -> Plan:
    """The same plan with the seed's course of the learning rate, as one curve without jumps: see `train.learning_rate`."""
    return replace(plan, warmup=max(1, round(WARMUP * plan.steps)), rise=RISE, final=FINAL)


def share(error: Tensor, of: Tensor) -> Tensor:
    """(B, F, T) each -> the mean over items of the error's sum as a share of the other's."""
    return (error.sum((1, 2)) / of.sum((1, 2)).clamp_min(1e-3)).mean()


def spectral(wav: Tensor, clean: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """(B, 1, N) each -> how far compressed magnitudes lie apart, and phases.

    The latter is 1 - cos of the angle between both spectra, each bin weighted by its clean magnitude: 0 where all phases agree,
    1 where they are unrelated. The cosine needs no angles, so it has no jump at 180 degrees.
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


class WaveTask:
    """Batches are (noisy, clean); t is the noise level of each item, or, as in the seed, drawn at random (`leveled` False)."""

    def __init__(self, config: WaveConfig, valid: list, device="cpu", seed: int = 0, half: bool = True):
        torch.manual_seed(seed)
        self.config, self.sr, self.valid, self.device = config, config.sr, valid, torch.device(device)
        self.half = half and fast_half(self.device)
        self.networks = {"model": WaveDenoiser(config).to(device)}
        self.groups = {"wave": ["model"]}

    def losses(self, batch):
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        drawn = torch.rand(len(noisy) * parallel.world(), 2)  # for everybody, so that several processes draw as one
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
            sum(WEIGHTS[name] * part for name, part in parts.items()),
            {k: v.detach() for k, v in parts.items()},
        )

    @torch.no_grad()
    def validate(self, model: WaveDenoiser) -> dict:
        """Cleaned as later, in overlapping segments, with nobody telling t. The score is the loss less WB-PESQ, where that can be measured:
        at good signal-to-noise ratios the loss alone prefers a network that does nothing."""
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
        heard = validation_scores(torch.cat([clean for _, clean in self.valid]), torch.cat(cleaned), self.sr)
        loss = sum(WEIGHTS[name] * value for name, value in means.items() if name != "level")
        return {
            "score": loss - heard.get("pesq_wb", 0.0),
            "valid_loss": loss,
            **{f"valid_{name}": value for name, value in (means | heard).items()},
        }

    @torch.no_grad()
    def samples(self, model: WaveDenoiser) -> dict:
        noisy, clean = (x[:1] for x in self.valid[0])
        return {"noisy": noisy[0], "clean": clean[0], "cleaned": model(noisy.to(self.device))[0].cpu()}


def run(
    preset: Preset,
    material: Material,
    plan: Plan,
    folder,
    batch: int = 8,
    seconds: float = 1.0,
    snr: tuple | None = None,
    start: str | None = None,
    workers: int = 0,
    progress: bool = True,
    half: bool = True,
) -> dict:
    """Train the waveform denoiser in `folder`, or go on where it stopped; the result is in best.pt. Returns what `train.fit` does.

    `snr`: the range of decibels, on active speech, that noise is mixed at. `start`: weights to begin with."""
    device, config = parallel.begin(), preset.waveform
    stream, valid = mixtures(material, config.sr, seconds, batch, plan.seed, workers, snr)
    task = WaveTask(config, valid, device, plan.seed, half)
    if start:
        adopt(task.networks["model"], load(start, WaveDenoiser), start)
    return train_to_weights(task, stream, plan, folder, f"{preset.name}-waveform", progress=progress)
