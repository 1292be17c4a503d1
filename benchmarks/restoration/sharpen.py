"""The flow's first step made enough: one pass from a noisy guess, drawn by a critic towards what real latents look
like.

The critic is small and sees patches of the log-mel that a latent stands for, with how much of each frame is known.
Real: the clean latent; not real: the same with the generated frames in place of the lost ones. Least squares (LSGAN)
on lost frames only, and the distance of the critic's features.

    python sharpen.py OUT --latent FILE --predictor FILE --flow FILE [--minutes 15]
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from assembly import known_share
from cached import Latents, blurred, read
from flow import Filler, FlowConfig
from latent import HOP, SR, Latent, LatentConfig
from loop import Plan, publish, restored, sources, train
from material import MANIFEST
from torch import Tensor, nn

from wavelldm.data.degrade import dropouts


@dataclass(frozen=True)
class CriticConfig:
    channels: tuple = (16, 32, 48)
    lr: float = 4e-4
    pull: float = 0.2  # of the critic's opinion, against the distances
    features: float = 1.0
    near: float = 0.15  # of the squared distance of latents
    coarse: float = 0.4  # of the distance of 20 bands


class Critic(nn.Module):
    """Log-mel (B, 80, T) and known share (B, T) -> opinions (B, bands, T) and features."""

    def __init__(self, c: CriticConfig):
        super().__init__()
        sizes, norm = (2, *c.channels), nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(norm(nn.Conv2d(a, b, (5, 5), (2, 1), (2, 2))) for a, b in zip(sizes, sizes[1:]))
        self.out = norm(nn.Conv2d(sizes[-1], 1, 3, 1, 1))

    def forward(self, mel: Tensor, share: Tensor) -> tuple[Tensor, list]:
        x = torch.stack([0.5 * (mel.clamp(-7, 6) + 1), share[:, None].expand_as(mel)], 1)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.out(x)[:, 0], features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--latent", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--flow", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--pull", type=float, default=0.2)
    parser.add_argument("--stop", type=float)
    parser.add_argument("--batch", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    build = lambda d: Filler(FlowConfig(**{**d, "dilations": tuple(d["dilations"])}))  # noqa: E731
    latent = restored(args.latent, lambda c: Latent(LatentConfig(**c)))
    mark = args.latent.parent.name
    predictor, model = restored(args.predictor, build), restored(args.flow, build).requires_grad_(True)
    c, k = model.config, CriticConfig(pull=args.pull)
    speech, held = Latents("speech-train", latent, mark), Latents("speech-valid", latent, mark)
    frames = round(c.seconds * SR / HOP)
    torch.manual_seed(0)
    critic = Critic(k)
    judge = torch.optim.AdamW(critic.parameters(), k.lr, betas=(0.5, 0.9))
    louder = latent.encoder.direct.weight[: c.size, :, 0].sum(1)
    coarse = lambda mel: mel.unflatten(1, (20, 4)).mean(2)  # noqa: E731

    def batch(count, data, rng):
        z, pitch = data.batch(count, frames, rng)
        z = z + louder[:, None] * torch.from_numpy(rng.uniform(-1.0, 1.0, (count, 1, 1))).float()
        g = torch.Generator().manual_seed(int(rng.integers(2**31)))
        gaps = dropouts(torch.zeros(count, 1, (frames - 1) * HOP), SR, g, (1, 6), (0.03, 0.45))[1][:, 0]
        t = blurred(latent, z, pitch, known_share(gaps))
        return t, z, predictor(t)[0].float()

    def draw(model, t, guess):
        return model(t, guess + c.spread * torch.randn_like(guess), torch.zeros(len(guess)), guess)[0].float()

    def loss_of(model, rng, step):
        with torch.no_grad():
            t, true, guess = batch(args.batch, speech, rng)
        lost = (t["share"] < 0.8).float()[:, None]
        mean = lambda x: (x.mean(1, keepdim=True) * lost).sum() / lost.sum().clamp_min(1)  # noqa: E731
        z = draw(model, t, guess)
        ours, real = read(latent, z), read(latent, true)
        made = torch.where(lost > 0, ours, real)
        opinion_real, _ = critic(real, t["share"])
        opinion_made, _ = critic(made.detach(), t["share"])
        judged = mean((opinion_real.float() - 1).square()) + mean(opinion_made.float().square())
        judge.zero_grad(set_to_none=True)
        judged.backward()
        judge.step()
        critic.requires_grad_(False)
        with torch.no_grad():
            _, features_real = critic(real, t["share"])
        opinion, features = critic(made, t["share"])
        critic.requires_grad_(True)
        fooled = mean((opinion.float() - 1).square())
        like = sum(mean((a.float() - b.float()).abs().mean(1)) for a, b in zip(features, features_real)) / len(features)
        near, rough = mean((z - true).square()), mean((coarse(ours) - coarse(real)).abs())
        loss = (
            k.near * near
            + k.coarse * rough
            + k.pull * min(1.0, step / 300) * fooled
            + k.features * min(1.0, step / 100) * like
        )
        return loss, {"near": near, "coarse": rough, "critic": judged, "fooled": fooled, "like": like}

    with torch.no_grad():
        torch.manual_seed(5)
        vt, vtrue, vguess = batch(48, held, np.random.default_rng(80))
    lost = (vt["share"] < 0.5).float()[:, None]
    mean = lambda x: (x.mean(1, keepdim=True) * lost).sum() / lost.sum()  # noqa: E731

    def lively(z):
        d = read(latent, z).diff(dim=-1).abs().mean(1, keepdim=True)
        return (d * lost[..., 1:]).sum() / lost[..., 1:].sum()

    def validate(model):
        torch.manual_seed(3)
        z, other = draw(model, vt, vguess), draw(model, vt, vguess)
        rows = {
            "near": mean((z - vtrue).square()),
            "coarse": mean((coarse(read(latent, z)) - coarse(read(latent, vtrue))).abs()),
        }
        return {
            **rows,
            "drawn": mean((z - other).square()) / 2,
            "lively": lively(z) / lively(vtrue),
            "lively_guess": lively(vguess) / lively(vtrue),
        }

    plan = Plan(minutes=args.minutes, lr=args.lr, warmup=50, ema=0.995)
    average = train(args.out, model, loss_of, validate, plan, args.stop, {"critic": critic, "judge": judge})
    publish(
        args.out / "flow",
        average,
        c,
        {
            "what": "one step from a noisy guess, sharpened by a critic",
            "latent": mark,
            "sources": sources(MANIFEST),
            "critic": asdict(k),
        },
    )


if __name__ == "__main__":
    main()
