"""What belongs into a gap: a predictor of the latent, and a flow from its guess (or from the interpolated latent) to
speech. One network, two uses.

Everything it is told comes from the damaged sound with magnitudes interpolated across what is lost: their latent, the
pitch on straight lines, how much of each frame is known, how far the next known frame lies, and 80 log-mels as they
stand. It answers with a correction of latent and pitch. The flow is told its place x_t on the way from a noisy guess
to the clean latent, and t; it answers with the end of the way.

    python flow.py OUT --latent FILE [--kind predictor | flow] [--from PREDICTOR] [--minutes 30]
"""

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from assembly import interpolate, known_share
from latent import HOP, SR, Latent, LatentConfig, level, spectrum
from loop import Plan, publish, restored, sources, train
from material import MANIFEST, DamageConfig, Sounds
from torch import Tensor, nn

from wavelldm.audio.levels import mix_at_snr
from wavelldm.data.degrade import band_limit, dropouts, reverberate, room_response
from wavelldm.nn.attention import RotaryAttention
from wavelldm.nn.layers import ChannelNorm, Conv1d

KNOWN = 0.97  # share of a frame's window from which on it counts as known
# and from which on its magnitudes, brought to full length, are better than a straight line past it (measured:
# bench.py)
HALF = 0.6


@dataclass(frozen=True)
class FlowConfig:
    kind: str = "predictor"  # or flow
    size: int = 48  # of the latent
    width: int = 224
    expansion: int = 2
    dilations: tuple = (1, 2, 4, 0, 1, 2, 4, 0, 1, 2)  # 0: attention
    heads: int = 4
    spread: float = 0.5  # standard deviation of the noise around the guess where the flow begins
    batch: int = 12
    seconds: float = 2.304


def damage(
    clean: Tensor, noise: Tensor, c: DamageConfig, rng: np.random.Generator, g: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """clean, noise (B, N) -> damaged, gaps (bool), target, (B, N) each.

    Order as in life: room, noise, level, overload, band, lost packets.
    """
    b = len(clean)
    hit = lambda p: torch.from_numpy(np.flatnonzero(rng.random(b) < p))  # noqa: E731
    draw = lambda n, bounds: torch.from_numpy(rng.uniform(*bounds, n)).float()  # noqa: E731
    clean = clean * level(clean) * 10 ** (draw(b, c.level_db)[:, None] / 20)
    target, wav = clean.clone(), clean.clone()
    at = hit(c.room)
    if len(at):
        rooms = room_response(draw(len(at), (0.15, 0.8)), draw(len(at), (-3.0, 9.0)), SR, g)
        far, near = reverberate(clean[at, None], rooms, SR)
        wav[at], target[at] = far[:, 0], near[:, 0]
    at = hit(c.noise)
    if len(at):
        wav[at] = mix_at_snr(wav[at, None], noise[at, None], draw(len(at), c.snr), SR)[:, 0]
    at = hit(c.clip)
    if len(at):
        share = draw(len(at), c.clip_share)
        ceiling = torch.stack([row.abs().quantile(1 - s) for row, s in zip(wav[at], share)])[:, None].clamp_min(1e-4)
        wav[at] = wav[at].clamp(-ceiling, ceiling)
    at = hit(c.band)
    if len(at):
        wav[at] = band_limit(wav[at, None], SR, draw(len(at), c.cutoff))[:, 0]
    gaps = torch.zeros(wav.shape, dtype=torch.bool)
    at = hit(c.gaps)
    if len(at):
        gaps[at] = dropouts(wav[at, None], SR, g, c.gap_count, c.gap_seconds)[1][:, 0]
    return wav.masked_fill(gaps, 0.0), gaps, target


def straight(pitch: Tensor, share: Tensor) -> Tensor:
    """pitch (B, 2, T), the first row octaves (-1: none) -> (B, 2, T): octaves on straight lines wherever there is
    none that is known, and voicing."""
    octaves, seen = pitch[:, 0], share >= 0.85
    voiced = ((octaves >= 0) & seen).float()
    line = interpolate(octaves[:, None], voiced, 0.5)
    line = torch.where(voiced.amax(1)[:, None, None] > 0, line, 1.0)
    return torch.cat([line, interpolate((octaves >= 0).float()[:, None], seen.float(), 0.5)], 1)


def distances(share: Tensor) -> Tensor:
    """How far the last and the next known frame lie, in steps that grow (B, 2, T)."""
    out = []
    for rows in (share, share.flip(1)):
        t = torch.arange(rows.shape[1])
        last = torch.where(rows >= KNOWN, t, -64).cummax(1).values
        out.append(((t - last).clamp(max=64).float() + 1).log() / 2)
    return torch.stack([out[0], out[1].flip(1)], 1)


def told(latent: Latent, damaged: Tensor, gaps: Tensor, pitch: Tensor) -> dict:
    """What the network gets to know of the damaged sound (B, N), in its latent's own terms."""
    share = known_share(gaps)
    size = spectrum(damaged)
    full = size / share.clamp_min(0.1).sqrt()[:, None]
    whole = interpolate(full.clamp_min(1e-4).log(), share, HALF).exp()
    z = latent.encode(whole)[0]
    seen = (share > 0.1).float()[:, None]
    mel = (latent.mel(full) + 2) / 2 * seen
    line = straight(pitch, share)
    context = torch.cat(
        [
            line - torch.tensor([1.0, 0.0])[:, None],
            share[:, None],
            (share < KNOWN).float()[:, None],
            distances(share),
            mel,
        ],
        1,
    )
    return {"z": z, "line": line, "share": share, "context": context, "size": size}


class Block(nn.Module):
    """ConvNeXt with a dilation, or attention; scale and shift from the time, if there is one."""

    def __init__(self, width: int, dilation: int, expansion: int, heads: int):
        super().__init__()
        self.mix = Conv1d(width, width, 7, dilation=dilation, groups=width) if dilation else None
        self.norm = nn.LayerNorm(width)
        if dilation:
            self.widen, self.narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        else:
            self.attention = RotaryAttention(width, heads)
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        self.table = nn.Parameter(torch.zeros(2, width))  # this block's own share of what the time says

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        y = x if self.mix is None else self.mix(x)
        y = self.norm(y.transpose(1, 2))
        if time is not None:
            y = y * (1 + time[:, None, 0] + self.table[0]) + time[:, None, 1] + self.table[1]
        if self.mix is None:
            y = self.attention(y.transpose(1, 2)).transpose(1, 2)
        else:
            y = self.narrow(F.gelu(self.widen(y)))
        return x + (self.scale * y).transpose(1, 2)


class Filler(nn.Module):
    def __init__(self, config: FlowConfig):
        super().__init__()
        c = self.config = config
        self.into = Conv1d(c.size + 6 + 80, c.width, 3)
        self.start = Conv1d(2 * c.size, c.width, 1) if c.kind == "flow" else None  # x_t and the guess
        self.time = (
            nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 2 * c.width)) if c.kind == "flow" else None
        )
        self.blocks = nn.ModuleList(Block(c.width, d, c.expansion, c.heads) for d in c.dilations)
        self.norm, self.out = ChannelNorm(c.width), Conv1d(c.width, c.size + 2, 1)
        nn.init.zeros_(self.out.weight), nn.init.zeros_(self.out.bias)
        if c.kind == "flow":
            nn.init.zeros_(self.start.weight), nn.init.zeros_(self.start.bias)
            nn.init.zeros_(self.time[-1].weight), nn.init.zeros_(self.time[-1].bias)

    def forward(
        self, t: dict, x: Tensor | None = None, when: Tensor | None = None, guess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """-> latent (B, size, T), pitch (B, 2, T): octaves, and logit of voicing."""
        y, time = self.into(torch.cat([t["z"], t["context"]], 1)), None
        if self.start is not None:
            y = y + self.start(torch.cat([x, guess], 1))
            angle = when[:, None] * torch.exp(torch.linspace(0, math.log(100.0), 16))
            time = self.time(torch.cat([angle.sin(), angle.cos()], 1)).unflatten(1, (2, -1))
        for block in self.blocks:
            y = block(y, time)
        y = self.out(self.norm(y)).float()
        begin = t["z"] if guess is None else guess
        octaves = t["line"][:, :1] + 0.3 * y[:, -2:-1]
        voiced = 4 * (t["line"][:, 1:] - 0.5) + y[:, -1:]
        return begin + y[:, :-2], torch.cat([octaves, voiced], 1)


def as_pitch(answer: Tensor) -> Tensor:
    """octaves and logit -> what the decoder takes: octaves, -1 where there is no voice."""
    octaves = torch.where(answer[:, 1:] > 0, answer[:, :1].clamp(0, 3.1), -1.0)
    return torch.cat([octaves, answer[:, 1:].sigmoid()], 1).detach()


@torch.no_grad()
def sample(
    flow: Filler, t: dict, guess: Tensor, steps: int = 4, spread: float | None = None, seed: int = 0, churn: float = 0.0
) -> Tensor:
    """From a noisy guess to the latent, in so many steps of Euler.

    Frames that are known well stay the guess's neighbours, nothing is held.
    """
    g = torch.Generator().manual_seed(seed)
    s = flow.config.spread if spread is None else spread
    x = guess + s * torch.randn(guess.shape, generator=g)
    for k in range(steps):
        now, then = k / steps, (k + 1) / steps
        end, _ = flow(t, x, torch.full((len(x),), now), guess)
        x = x + (end - x) * ((then - now) / (1 - now))
    return x


def weights_of(t: dict) -> Tensor:
    """Which frames count (B, 1, T): unknown ones fully, those that can be heard a little."""
    return (0.15 + 0.85 * (t["share"] < KNOWN).float() * (1 - 0.7 * t["share"]))[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--latent", type=Path, required=True)
    parser.add_argument("--kind", choices=("predictor", "flow"), default="predictor")
    parser.add_argument(
        "--from",
        dest="begin",
        type=Path,
        help="a predictor whose guess the flow starts from, and with whose weights it begins",
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--stop", type=float, help="seconds since 1970")
    parser.add_argument("--batch", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    latent = restored(args.latent, lambda c: Latent(LatentConfig(**c)))
    c, damages = FlowConfig(kind=args.kind, size=latent.config.size, batch=args.batch), DamageConfig()
    speech, noise = Sounds("speech-train"), Sounds("noise-train")
    held, held_noise = Sounds("speech-valid"), Sounds("noise-valid")
    torch.manual_seed(0)
    model, predictor = Filler(c), None
    if args.begin:
        predictor = restored(args.begin, lambda d: Filler(FlowConfig(**{**d, "dilations": tuple(d["dilations"])})))
        left = model.load_state_dict(predictor.state_dict(), strict=False)
        print("begins anew:", left.missing_keys, flush=True)
        if args.kind == "flow":
            nn.init.zeros_(model.out.weight), nn.init.zeros_(model.out.bias)  # the guess is the predictor's already
    n = round(c.seconds * SR / HOP) * HOP
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)

    def batch(size, speech, noise, rng):
        wav, pitch = speech.batch(size, n, rng)
        around, _ = noise.batch(size, n, rng)
        g = torch.Generator().manual_seed(int(rng.integers(2**31)))
        damaged, gaps, target = damage(wav, around, damages, rng, g)
        t = told(latent, damaged, gaps, pitch)
        size = spectrum(target)
        return t, size, latent.encode(size)[0], pitch

    def far(answer, z, t, size, true, pitch, generator=None):
        w, unknown = weights_of(t), (t["share"] < KNOWN).float()[:, None]
        voiced = (pitch[:, :1] >= 0).float()
        octaves = ((answer[:, :1] - pitch[:, :1]).abs().clamp(max=0.5) * voiced * w).sum() / (
            voiced * w
        ).sum().clamp_min(1)
        voicing = (F.binary_cross_entropy_with_logits(answer[:, 1:], voiced, reduction="none") * w).sum() / w.sum()
        pick = torch.rand(len(z), 1, 1, generator=generator) < 0.5
        with torch.autocast("cpu", torch.bfloat16):
            decoded = latent.decoder(z, torch.where(pick, as_pitch(answer), pitch))
        loss, parts = latent.apart(decoded, size, w)
        near = ((z - true).square().mean(1, keepdim=True) * w).sum() / w.sum()
        lost = ((z - true).square().mean(1, keepdim=True) * unknown).sum() / unknown.sum().clamp_min(1)
        return (
            loss,
            near,
            octaves,
            voicing,
            {**parts, "latent": near, "lost": lost, "octaves": octaves, "voicing": voicing},
        )

    def begin(t):
        with torch.no_grad():
            guess, answer = predictor(t)
        return guess, answer

    def loss_of(model, rng, step):
        with torch.no_grad():
            t, size, true, pitch = batch(c.batch, speech, noise, rng)
        if c.kind == "predictor":
            z, answer = model(t)
            loss, near, octaves, voicing, parts = far(answer, z, t, size, true, pitch)
            return loss + 0.2 * near + 2 * octaves + 0.2 * voicing, parts
        guess, answer = begin(t)
        when = torch.from_numpy(rng.beta(1.0, 1.5, c.batch)).float().clamp(max=0.95)
        mix = when[:, None, None]
        x = (1 - mix) * (guess + c.spread * torch.randn_like(guess)) + mix * true
        z, _ = model(t, x, when, guess)
        loss, near, _, _, parts = far(answer, z, t, size, true, pitch)
        return 0.5 * loss + near, parts

    rng = np.random.default_rng(78)
    vt, vsize, vtrue, vpitch = batch(32, held, held_noise, rng)

    def validate(model):
        if c.kind == "predictor":
            z, answer = model(vt)
            return far(answer, z, vt, vsize, vtrue, vpitch, torch.Generator().manual_seed(0))[-1]
        guess, answer = begin(vt)
        rows = {}
        for steps in (1, 4):
            z = sample(model, vt, guess, steps)
            parts = far(answer, z, vt, vsize, vtrue, vpitch, torch.Generator().manual_seed(0))[-1]
            rows |= {f"{k}{steps}": v for k, v in parts.items() if k in ("loud", "mel", "latent", "lost")}
        return rows

    with torch.no_grad():
        parts = far(
            torch.cat([vt["line"][:, :1], 4 * (vt["line"][:, 1:] - 0.5)], 1),
            vt["z"],
            vt,
            vsize,
            vtrue,
            vpitch,
            torch.Generator().manual_seed(0),
        )[-1]
    print("interpolated:", {k: round(float(v), 4) for k, v in parts.items()}, flush=True)
    average = train(args.out, model, loss_of, validate, Plan(minutes=args.minutes, lr=args.lr), args.stop)
    facts = {
        "what": f"{c.kind} of lost latents",
        "latent": str(args.latent),
        "sources": sources(MANIFEST, ("speech", "noise")),
        "damage": asdict(damages),
    }
    publish(args.out / c.kind, average, c, facts)


if __name__ == "__main__":
    main()
