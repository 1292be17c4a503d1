"""Do critics at the end help the denoiser for files? Trains weights on, with critics or, with --share 0, without.

python critics.py FOLDER [--manifest TABLE] [--start studio16k] [--steps 400] [--share 0.4]

Critics hear the spectrum of what came in beside that of the clean speech or of what was made of it, at three
resolutions: least squares and feature matching, as HiFi-GAN's (arXiv 2010.05646, eqs. 1 to 4). `share`: the size of
their gradient, where that of the other losses is 1.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import recurrence
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from wavelldm.audio.stft import magnitude, stft
from wavelldm.codec.losses import adversarial_loss, critic_loss, feature_loss
from wavelldm.data.corpora import gather
from wavelldm.training import loop
from wavelldm.training.mask import MaskOptions, MaskTask, weighed
from wavelldm.training.presets import preset

CHANGES = ["both_ways=True", "full=True", "ahead=4"]
WIDTH, RESOLUTIONS, FEATURES, SEED = 12, (256, 512, 1024), 2.0, 41


class SpectrumCritic(nn.Module):
    """Compressed magnitudes of one resolution, noisy ones beside them: 2-D convolutions that shrink the frequencies."""

    def __init__(self, n_fft: int):
        super().__init__()
        self.n_fft, sizes = n_fft, [2, WIDTH, WIDTH, 2 * WIDTH, 2 * WIDTH]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (7, 3), (2, 1), (3, 1))) for a, b in zip(sizes, sizes[1:])
        )
        self.out = weight_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, wav: Tensor, noisy: Tensor) -> list[Tensor]:
        specs = (stft(x[:, 0], self.n_fft, self.n_fft // 2, self.n_fft, "center") for x in (wav, noisy))
        x = torch.stack([magnitude(s.real, s.imag).clamp_min(1e-3) ** 0.3 for s in specs], dim=1)  # (B, 2, F, T)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return [*features, self.out(x)]  # the last one is the verdict


class SpectrumCritics(nn.ModuleList):
    def __init__(self):
        super().__init__(SpectrumCritic(n) for n in RESOLUTIONS)

    def forward(self, wav: Tensor, noisy: Tensor) -> list[list[Tensor]]:
        return [critic(wav, noisy) for critic in self]


class JudgedTask(MaskTask):
    """The mask network's training with critics beside its other losses."""

    share = 0.4

    def losses(self, batch: tuple) -> Iterator:
        net, critics = self.networks["model"], self.networks["critics"]
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        wav = net(noisy)
        yield "critics", critic_loss(critics(clean, noisy), critics(wav.detach(), noisy)), {}
        parts = self.distances_of(net, wav, clean)
        real, fake = critics(clean, noisy), critics(wav, noisy)
        judged = {"adversarial": adversarial_loss(fake), "features": feature_loss(real, fake)}
        rest, extra = weighed(parts), judged["adversarial"] + FEATURES * judged["features"]
        ours, theirs = (torch.autograd.grad(loss, wav, retain_graph=True)[0].norm() for loss in (rest, extra))
        figures = {k: v.detach() for k, v in (parts | judged).items()}
        yield "mask", rest + self.share * ours / theirs.clamp_min(1e-9) * extra, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--start", default="studio16k", help="weights to begin with (default: studio16k)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.4, help="of the critics' gradient; 0: none (default: 0.4)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recurrence.install()
    options = MaskOptions(batch_size=4, half=True, hissy=0.33, harmless=0.1)  # as when it was tried
    task = (JudgedTask if args.share else MaskTask).create(preset("base16k"), CHANGES, options, "cpu", SEED)
    task.start_from(args.start)
    if args.share:
        torch.manual_seed(SEED)
        task.share = args.share
        task.networks["critics"], task.groups["critics"] = SpectrumCritics(), ["critics"]
    task.read(gather(manifest=args.manifest))
    plan = task.plan(args.steps, lr=1e-4, warmup=50, final=0.02, ema=0.99, valid_every=100, save_every=50)
    print(loop.fit(task, plan, args.folder))
    print(loop.write_weights(task, plan, args.folder, "studio", eight_bits=True))


if __name__ == "__main__":
    main()
