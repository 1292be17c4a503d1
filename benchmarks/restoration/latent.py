"""The latent that is made for generating: a spectrum of 513 magnitudes every 16 ms becomes 48 numbers of a bounded
rate, and a pitch.

The pitch draws the harmonics (a comb at whole multiples), the 48 numbers say how high they and the noise between them
stand. No phases: those come from Griffin-Lim, which holds what is known. Shapes: magnitudes (B, 513, T), latent (B,
48, T), pitch (B, 2, T): octaves above 60 Hz (-1: none), and how well the sound repeats.

    python latent.py OUT [--kbits 6] [--minutes 20]
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from loop import Plan, publish, restored, sources, train
from material import HOP, MANIFEST, SR, Sounds
from torch import Tensor, nn

from wavelldm.audio.mel import mel_bank
from wavelldm.audio.stft import magnitude, stft
from wavelldm.nn.layers import ChannelNorm, Conv1d, ConvNeXtBlock

N_FFT, BINS, BANDS = 1024, 513, 80
RMS = 0.05  # level at which everything is seen
UNIT = math.sqrt(384.0) * RMS  # magnitude of a bin of white noise at that level
FLOOR = 1e-3  # -60 dB


@dataclass(frozen=True)
class LatentConfig:
    size: int = 48
    kbits: float = 6.0  # KL to a standard normal, per second
    encoder_width: int = 192
    encoder_depth: int = 2
    width: int = 256
    depth: int = 5
    expansion: int = 2
    batch: int = 12
    seconds: float = 2.048


def spectrum(wav: Tensor) -> Tensor:
    """wav (B, N) at RMS -> magnitudes (B, 513, 1 + N // HOP), about 1 where there is speech."""
    spec = stft(wav, N_FFT, HOP, N_FFT, "center")
    return magnitude(spec.real, spec.imag) / UNIT


def level(wav: Tensor, known: Tensor | None = None) -> Tensor:
    """(B, N) -> gain (B, 1) that brings its known samples to RMS."""
    power = wav.square()
    mean = (
        power.mean(1, keepdim=True)
        if known is None
        else (power * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
    )
    return RMS / mean.clamp_min(1e-10).sqrt()


def comb(octaves: Tensor) -> Tensor:
    """Octaves above 60 Hz (B, T) -> logarithm of what harmonics at its whole multiples leave in each bin (B, 513, T);
    0 on top of one."""
    spacing = 60.0 * 2 ** octaves.clamp_min(0.0)[:, None] * (N_FFT / SR)  # bins
    bins = torch.arange(BINS, device=octaves.device, dtype=octaves.dtype)[:, None]
    off = (bins - spacing * (bins / spacing).round().clamp_min(1)).abs()
    lobe = (torch.sinc(off) / (1 - off.square()).clamp_max(-1e-3)).abs()  # outside of one bin
    inside = torch.sinc(off) / (1 - off.square()).clamp_min(1e-3)
    lobe = torch.where(off < 1 - 1e-3, inside, torch.where(off < 1 + 1e-3, 0.5, lobe))
    return torch.where(octaves[:, None] < 0, -8.0, lobe.clamp_min(0.02).log())


class Encoder(nn.Module):
    """Principal components of 80 log-mels, divided by their deviations, and a correction by a network that sees all
    magnitudes."""

    def __init__(self, c: LatentConfig):
        super().__init__()
        w = c.encoder_width
        self.direct = Conv1d(BANDS, 2 * c.size, 1)
        self.net = nn.Sequential(
            Conv1d(BINS, w, 1),
            ChannelNorm(w),
            *(ConvNeXtBlock(w, c.expansion) for _ in range(c.encoder_depth)),
            ChannelNorm(w),
            Conv1d(w, 2 * c.size, 1),
        )
        nn.init.zeros_(self.net[-1].weight), nn.init.zeros_(self.net[-1].bias)

    def forward(self, size: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """magnitudes, log-mel -> mean and logarithm of the variance, (B, size, T) each."""
        with torch.autocast("cpu", enabled=False):
            direct = self.direct(mel.float())
        mean, spread = (direct + self.net(0.5 * (size.clamp_min(FLOOR).log() + 2)).float()).chunk(2, 1)
        return mean, spread.clamp(-9, 2)


class Decoder(nn.Module):
    """The log-mel that the components stand for, drawn as an envelope of harmonics and one of noise, and a network's
    correction of both."""

    def __init__(self, c: LatentConfig, bank: Tensor):
        super().__init__()
        self.read = Conv1d(c.size, BANDS, 1)
        self.into = Conv1d(c.size + 2, c.width, 3)
        self.body = nn.Sequential(
            ChannelNorm(c.width), *(ConvNeXtBlock(c.width, c.expansion) for _ in range(c.depth)), ChannelNorm(c.width)
        )
        self.out = Conv1d(c.width, 2 * BINS, 1)
        nn.init.normal_(self.out.weight, std=0.002)
        with torch.no_grad():
            self.out.bias[:BINS], self.out.bias[BINS:] = 0.7, -0.5
        peak = (bank * torch.arange(BINS)).sum(1) / bank.sum(1)  # the middle of each band, in bins
        place = (torch.arange(BINS)[:, None] - peak).abs()
        near = place.argsort(1)[:, :2]
        near = near.sort(1).values
        left, right = peak[near[:, 0]], peak[near[:, 1]]
        mix = ((torch.arange(BINS) - left) / (right - left)).clamp(0, 1)
        spread = torch.zeros(BINS, BANDS)
        spread[torch.arange(BINS), near[:, 0]] = 1 - mix
        spread[torch.arange(BINS), near[:, 1]] += mix
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("wide", 0.5 * bank.sum(1).log()[:, None], persistent=False)

    def forward(self, z: Tensor, pitch: Tensor) -> Tensor:
        """latent (B, size, T), pitch (B, 2, T) -> logarithms of magnitudes (B, 513, T)."""
        octaves = pitch[:, 0]
        told = torch.stack([octaves.clamp_min(0) - 1.0, (octaves >= 0).to(z.dtype)], 1)
        with torch.autocast("cpu", enabled=False):
            base = self.spread @ (self.read(z.float()) - self.wide)
        tones, noise = self.out(self.body(self.into(torch.cat([z, told], 1)))).float().chunk(2, 1)
        return base + 0.5 * torch.logaddexp(2 * (tones + comb(octaves.float())), 2 * noise)


class Latent(nn.Module):
    def __init__(self, config: LatentConfig):
        super().__init__()
        self.config = config
        self.register_buffer("bank", mel_bank(SR, N_FFT, BANDS, 0.0, 8000.0, "htk", "none"), persistent=False)
        self.encoder, self.decoder = Encoder(config), Decoder(config, self.bank)

    def encode(self, size: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(size, self.mel(size))

    @torch.no_grad()
    def begin(self, sizes: Tensor, apart: float = 0.02) -> None:
        """Principal components of the log-mels of magnitudes (B, 513, T); `apart`: variance up to which a log-mel may
        be wrong."""
        mel = self.mel(sizes).transpose(1, 2).flatten(0, 1).double()
        middle = mel.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(mel.T))
        values, vectors = values.flip(0)[: self.config.size].clamp_min(1e-6), vectors.flip(1)[:, : self.config.size]
        into = (vectors / values.sqrt()).T  # (size, bands)
        direct, read, n = self.encoder.direct, self.decoder.read, self.config.size
        direct.weight.zero_(), direct.bias.zero_()
        direct.weight[:n, :, 0], direct.bias[:n] = into.float(), -(into @ middle).float()
        direct.bias[n:] = (apart / values).clamp(max=1.0).log().float()
        read.weight[..., 0], read.bias[:] = (vectors * values.sqrt()).float(), middle.float()
        print(
            "left out:",
            float(1 - values.sum() / torch.cov(mel.T).trace()),
            "kbit/s:",
            float(0.5 * (values / apart).clamp_min(1).log2().sum() * SR / HOP / 1000),
        )

    def mel(self, size: Tensor) -> Tensor:
        """magnitudes -> log energy of 80 bands."""
        return 0.5 * ((self.bank @ size.square()) + 1e-5).log()

    def apart(self, log_size: Tensor, size: Tensor, weight: Tensor | None = None) -> tuple[Tensor, dict]:
        """How far decoded magnitudes lie from the right ones. weight (B, 1, T): which frames count."""
        w = torch.ones_like(size[:, :1]) if weight is None else weight
        mean = lambda x: (x.abs().mean(1, keepdim=True) * w).sum() / w.sum().clamp_min(1)  # noqa: E731
        ours = log_size.clamp(max=6).exp()
        parts = {
            "loud": mean((ours + 1e-4) ** 0.3 - (size + 1e-4) ** 0.3),
            "mel": mean(self.mel(ours) - self.mel(size)),
            "log": mean(ours.clamp_min(FLOOR * 3).log() - size.clamp_min(FLOOR * 3).log()),
        }
        return 2 * parts["loud"] + 0.5 * parts["mel"] + 0.1 * parts["log"], parts


def griffin_lim(size: Tensor, length: int, rounds: int = 60, seed: int = 0) -> Tensor:
    """magnitudes as `spectrum` gives them -> wav (B, length)"""
    from wavelldm.audio.mel import MelConfig
    from wavelldm.audio.mel import griffin_lim as gl

    c = MelConfig(sr=SR, n_fft=N_FFT, win=N_FFT, hop=HOP, n_mels=80, fmin=0.0, fmax=8000.0, padding="center")
    return gl(size * UNIT, c, rounds, seed=seed, length=length)[:, 0]


def nested(z: Tensor, share: float = 0.2) -> Tensor:
    """Channel-span masking: of some items only the first channels are left."""
    b, c, _ = z.shape
    cut = torch.where(torch.rand(b) < share, torch.randint(4, c, (b,)), torch.full((b,), c))
    return z * (torch.arange(c) < cut[:, None])[..., None]


class Rate:
    """Turns the weight of the KL until the rate is what was asked for."""

    def __init__(self, kbits: float):
        self.kbits, self.log_beta = kbits, math.log(3e-4)

    def state_dict(self):
        return {"log_beta": self.log_beta}

    def load_state_dict(self, state):
        self.log_beta = state["log_beta"]

    def __call__(self, kbits: float) -> float:
        self.log_beta += 0.01 * max(-1.0, min(1.0, math.log(kbits / self.kbits)))
        self.log_beta = max(math.log(1e-6), min(math.log(1e-1), self.log_beta))
        return math.exp(self.log_beta)


KBITS = SR / HOP / math.log(2) / 1000  # nats per frame -> kbit/s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--kbits", type=float, default=6.0)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--begin", type=Path, help="weights to go on from, without the optimiser's state")
    parser.add_argument("--frozen", action="store_true", help="only the decoder learns: what was made of z stays valid")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--stop", type=float, help="seconds since 1970")
    args = parser.parse_args()
    torch.set_num_threads(1)
    c = LatentConfig(size=args.size, kbits=args.kbits)
    speech, held = Sounds("speech-train"), Sounds("speech-valid")
    torch.manual_seed(0)
    model, turn = Latent(c), Rate(args.kbits)
    n = round(c.seconds * SR / HOP) * HOP
    first, _ = speech.batch(400, n, np.random.default_rng(1))
    model.begin(spectrum(first * level(first)))
    if args.begin:
        model.load_state_dict(restored(args.begin, lambda d: Latent(LatentConfig(**d))).state_dict())
    if args.frozen:
        model.encoder.requires_grad_(False), model.decoder.read.requires_grad_(False)
    encoder, decoder = (sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.encoder, model.decoder))
    print(f"{encoder:.2f} M encoder, {decoder:.2f} M decoder", flush=True)

    def loss_of(model, rng, step):
        wav, f0 = speech.batch(c.batch, n, rng)
        gain = level(wav) * 10 ** (torch.from_numpy(rng.uniform(-10, 10, (c.batch, 1))).float() / 20)
        size = spectrum(wav * gain)
        lost = torch.from_numpy(rng.random((c.batch, 1)) < 0.05)  # sometimes there is no pitch
        f0[:, 0] = torch.where(lost, -1.0, f0[:, 0] + 0.003 * torch.randn(c.batch, 1) * (f0[:, 0] >= 0))
        mean, spread = model.encode(size)
        kl = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
        kbits = float(kl) * KBITS
        z = mean + torch.randn_like(mean) * (0.5 * spread).exp()
        far, parts = model.apart(model.decoder(nested(z), f0), size)
        beta = turn(max(kbits, 0.01))
        return far + beta * kl, {"far": far, **parts, "kbits": kbits, "beta1e4": beta * 1e4}

    rng = np.random.default_rng(77)
    vw, vf = held.batch(16, n, rng)
    vw = vw * level(vw)
    vs = spectrum(vw)

    def validate(model):
        mean, spread = model.encode(vs)
        g = torch.Generator().manual_seed(0)
        z = mean + torch.randn(mean.shape, generator=g) * (0.5 * spread).exp()
        far, parts = model.apart(model.decoder(z, vf), vs)
        kl = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
        return {"far": far, **parts, "kbits": float(kl) * KBITS}

    began = time.time()
    plan = Plan(minutes=args.minutes, lr=args.lr)
    average = train(args.out, model, loss_of, validate, plan, args.stop, {"rate": turn})
    publish(
        args.out / "latent",
        average,
        c,
        {
            "what": "latent16k: encoder and decoder",
            "sources": sources(MANIFEST),
            "seconds_last": round(time.time() - began),
        },
    )


if __name__ == "__main__":
    main()
