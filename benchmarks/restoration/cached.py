"""The cheap way through many steps: latents of all clean speech computed once, gaps cut into the latent itself;
predictor and flow learn on these, and `flow.py --from` goes on from there with sound and every other damage.

What a damaged sound would show is put together from the clean latent: frames of which less than HALF is known lie on
straight lines, others are a little blurred, and the log-mels of half-seen frames are those of their better-known
neighbours.

    python cached.py OUT --latent FILE [--kind predictor | flow] [--predictor FILE] [--begin FILE] [--minutes 20]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from assembly import interpolate, known_share
from flow import HALF, KNOWN, Filler, FlowConfig, distances, sample, straight
from latent import HOP, SR, Latent, LatentConfig, level, spectrum
from loop import Plan, publish, restored, sources, train
from material import CACHE, MANIFEST, Sounds
from torch import Tensor

from wavelldm.data.degrade import dropouts


class Latents:
    """z of every recording (float16, frames in a row as the pitch lies), computed once per latent."""

    def __init__(self, name: str, latent: Latent, mark: str):
        self.sounds = Sounds(name)
        path = CACHE / f"{name}-{mark}.z"
        size = latent.config.size
        if not path.exists():
            with (
                open(path.with_suffix(".part"), "wb") as file,
                torch.inference_mode(),
                torch.autocast("cpu", torch.bfloat16),
            ):
                done = 0
                for r in sorted(self.sounds.table, key=lambda r: r["start"]):
                    wav = torch.from_numpy(
                        self.sounds.wav[r["start"] : r["start"] + r["n"]].astype(np.float32) / 32767
                    )[None]
                    place = self.sounds.place[r["path"]]
                    if place > done:
                        file.write(np.zeros((place - done, size), np.float16).tobytes())
                    z = latent.encode(spectrum(wav * level(wav)))[0][0].float().T[: r["frames"]].half().numpy()
                    file.write(np.ascontiguousarray(z).tobytes())
                    done = place + len(z)
            path.with_suffix(".part").rename(path)
        self.z = np.memmap(path, np.float16, "r").reshape(-1, size)

    def batch(self, count: int, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """-> z (B, size, T), pitch (B, 2, T). Short recordings are followed by others."""
        s, zs, pitches = self.sounds, [], []
        for _ in range(count):
            z, pitch, have = [], [], 0
            while have < frames:
                r = s.table[int(np.searchsorted(s.odds, rng.integers(s.odds[-1]), side="right"))]
                start = int(rng.integers(0, max(1, r["frames"] - (frames - have) + 1)))
                at = slice(s.place[r["path"]] + start, s.place[r["path"]] + min(r["frames"], start + frames - have))
                z.append(self.z[at]), pitch.append(s.f0[at])
                have += at.stop - at.start
            zs.append(np.concatenate(z)), pitches.append(np.concatenate(pitch))
        turn = lambda x: torch.from_numpy(np.stack(x).astype(np.float32)).transpose(1, 2).contiguous()  # noqa: E731
        return turn(zs), turn(pitches)


def read(latent: Latent, z: Tensor) -> Tensor:
    """The log-mel that a latent stands for: linear, (B, 80, T)."""
    return latent.decoder.read(z)


def blurred(latent: Latent, z: Tensor, pitch: Tensor, share: Tensor, noise: float = 0.15) -> dict:
    """`flow.told`, from clean latents and the share of each frame that is known."""
    seen = z + noise * (1.05 - share)[:, None] * torch.randn_like(z)
    start = interpolate(seen, share, HALF)
    mel = read(latent, seen)
    left, right = F.pad(mel, (1, 0))[..., :-1], F.pad(mel, (0, 1))[..., 1:]
    more = (F.pad(share, (1, 0))[:, :-1] > F.pad(share, (0, 1))[:, 1:])[:, None]
    half = (share < HALF)[:, None]
    mel = torch.where(half, torch.where(more, left, right) + 0.3 * torch.randn_like(mel), mel)
    mel = (mel + 2) / 2 * (share > 0.1)[:, None]
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
    return {"z": start, "line": line, "share": share, "context": context}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--latent", type=Path, required=True)
    parser.add_argument("--kind", choices=("predictor", "flow"), default="predictor")
    parser.add_argument(
        "--predictor", type=Path, help="whose guess the flow starts from, and with whose weights it begins"
    )
    parser.add_argument(
        "--begin", type=Path, help="weights of the same kind to go on from, without the optimiser's state"
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--stop", type=float, help="seconds since 1970")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=2.56)
    args = parser.parse_args()
    torch.set_num_threads(1)
    latent = restored(args.latent, lambda c: Latent(LatentConfig(**c)))
    mark = args.latent.parent.name
    speech, held = Latents("speech-train", latent, mark), Latents("speech-valid", latent, mark)
    c = FlowConfig(kind=args.kind, size=latent.config.size, batch=args.batch, width=args.width, seconds=args.seconds)
    frames = round(c.seconds * SR / HOP)
    torch.manual_seed(0)
    model, predictor = Filler(c), None
    if args.predictor:
        predictor = restored(args.predictor, lambda d: Filler(FlowConfig(**{**d, "dilations": tuple(d["dilations"])})))
        print("begins anew:", model.load_state_dict(predictor.state_dict(), strict=False).missing_keys, flush=True)
        if args.kind == "flow":
            # the guess is the predictor's already
            torch.nn.init.zeros_(model.out.weight), torch.nn.init.zeros_(model.out.bias)
    if args.begin:
        model.load_state_dict(
            restored(args.begin, lambda d: Filler(FlowConfig(**{**d, "dilations": tuple(d["dilations"])}))).state_dict()
        )
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    louder = latent.encoder.direct.weight[: c.size, :, 0].sum(1)  # what a neper does to the latent
    coarse = lambda mel: mel.unflatten(1, (20, 4)).mean(2)  # noqa: E731
    wide = latent.decoder.wide

    def batch(count, data, rng):
        z, pitch = data.batch(count, frames, rng)
        z = z + louder[:, None] * torch.from_numpy(rng.uniform(-1.0, 1.0, (count, 1, 1))).float()
        g = torch.Generator().manual_seed(int(rng.integers(2**31)))
        gaps = dropouts(torch.zeros(count, 1, (frames - 1) * HOP), SR, g, (1, 6), (0.03, 0.45))[1][:, 0]
        t = blurred(latent, z, pitch, known_share(gaps))
        return t, z, pitch

    def far(z, true, t):
        w = ((t["share"] < 0.9).float() * (1.2 - t["share"]) + 0.02)[:, None]
        mean = lambda x: (x.mean(1, keepdim=True) * w).sum() / w.sum()  # noqa: E731
        ours, real = read(latent, z), read(latent, true)
        loud = lambda mel: (0.3 * (mel - wide).clamp(max=6)).exp()  # noqa: E731
        return {
            "near": mean((z - true).square()),
            "mel": mean((ours - real).abs()),
            "coarse": mean((coarse(ours) - coarse(real)).abs()),
            "loud": mean((loud(ours) - loud(real)).abs()),
        }

    def voice(answer, pitch, t):
        w = ((t["share"] < 0.9).float() + 0.02)[:, None]
        voiced = (pitch[:, :1] >= 0).float()
        octaves = ((answer[:, :1] - pitch[:, :1]).abs().clamp(max=0.5) * voiced * w).sum() / (
            voiced * w
        ).sum().clamp_min(1)
        return octaves, (
            F.binary_cross_entropy_with_logits(answer[:, 1:], voiced, reduction="none") * w
        ).sum() / w.sum()

    def weigh(parts):
        return 0.5 * parts["near"] + 0.4 * parts["mel"] + 0.6 * parts["coarse"] + 2 * parts["loud"]

    def loss_of(model, rng, step):
        with torch.no_grad():
            t, true, pitch = batch(c.batch, speech, rng)
        if c.kind == "predictor":
            z, answer = model(t)
            parts = far(z.float(), true, t)
            octaves, voicing = voice(answer, pitch, t)
            return weigh(parts) + octaves + 0.3 * voicing, {**parts, "octaves": octaves, "voicing": voicing}
        with torch.no_grad():
            guess, _ = predictor(t)
        when = torch.from_numpy(rng.beta(1.0, 1.5, c.batch)).float().clamp(max=0.95)
        mix = when[:, None, None]
        x = (1 - mix) * (guess + c.spread * torch.randn_like(guess)) + mix * true
        z, _ = model(t, x, when, guess)
        parts = far(z.float(), true, t)  # the mean of what is possible, which a flow needs, is what squares ask for
        return parts["near"] + 0.1 * parts["mel"], parts

    with torch.no_grad():
        torch.manual_seed(5)
        vt, vtrue, vpitch = batch(48, held, np.random.default_rng(80))
    lost = (vt["share"] < 0.5).float()[:, None]

    def lively(z):
        d = read(latent, z).diff(dim=-1).abs().mean(1, keepdim=True)
        return (d * lost[..., 1:]).sum() / lost[..., 1:].sum()

    def validate(model):
        if c.kind == "predictor":
            z, answer = model(vt)
            octaves, voicing = voice(answer, vpitch, vt)
            return {**far(z, vtrue, vt), "octaves": octaves, "voicing": voicing, "lively": lively(z) / lively(vtrue)}
        guess, _ = predictor(vt)
        rows = {}
        for steps in (1, 4, 8):
            z = sample(model, vt, guess, steps)
            parts = far(z, vtrue, vt)
            rows |= {
                f"near{steps}": parts["near"],
                f"coarse{steps}": parts["coarse"],
                f"lively{steps}": lively(z) / lively(vtrue),
            }
        return rows

    def show(z):
        found = {**far(z, vtrue, vt), "lively": lively(z) / lively(vtrue)}
        return {k: round(float(v), 4) for k, v in found.items()}

    with torch.no_grad():
        print("interpolated:", show(vt["z"]), flush=True)
        if predictor is not None:
            print("predictor:", show(predictor(vt)[0]), flush=True)
    average = train(args.out, model, loss_of, validate, Plan(minutes=args.minutes, lr=args.lr), args.stop)
    publish(
        args.out / c.kind,
        average,
        c,
        {"what": f"{c.kind} of lost latents, on clean speech", "latent": mark, "sources": sources(MANIFEST)},
    )


if __name__ == "__main__":
    main()
