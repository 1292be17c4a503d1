"""How small could the codec's files be? What its entropy coder spends, and what a small causal network would.

python benchmarks/entropy.py --manifest TABLE [--minutes 20] [--hours 3] [--looked 0.5]

The network sees all digits of earlier frames and those already known of this one, and says how likely each digit is.
Its cross-entropy on recordings that it never met is what a coder with this network would spend: so what the coder in
use leaves on the table is at least the difference. It learns the encoder's own codes first, then, for half as long,
codes that looks corrected; making these takes a quarter of the time that they last.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from codec import clips
from report import made_by, source, write_section
from torch import Tensor, nn
from tqdm import tqdm

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.codec import compress
from wavelldm.codec.fsq import code_to_digits
from wavelldm.codec.look import looks_of
from wavelldm.codec.model import Codec
from wavelldm.data.corpora import gather

SR, FRAMES, BATCH, WIDTH, EACH = 16_000, 128, 16, 192, 48


class Guess(nn.Module):
    """Digits (B, T, n) as numbers from -1 to 1 -> logits of each digit (B, T, n, most), from what came before it."""

    def __init__(self, levels: list[int]):
        super().__init__()
        n, most = len(levels), max(levels)
        self.past = nn.GRU(n, WIDTH, 2, batch_first=True)
        self.told = nn.Linear(WIDTH, n * EACH)
        self.known = nn.Parameter(torch.randn(n, EACH, n) / n**0.5)
        self.deep = nn.Parameter(torch.randn(n, EACH, EACH) / EACH**0.5)
        self.out = nn.Parameter(torch.zeros(n, most, EACH))
        self.register_buffer("before", torch.ones(n, n).tril(-1)[:, None])  # (n, 1, n): digit i sees those before it
        self.register_buffer("impossible", torch.arange(most) >= torch.tensor(levels)[:, None])  # (n, most)

    def forward(self, x: Tensor) -> Tensor:
        h = self.told(self.past(F.pad(x, (0, 0, 1, -1)))[0]).unflatten(-1, (-1, EACH))  # (B, T, n, EACH)
        h = F.gelu(h + torch.einsum("btm,nem->btne", x, self.known * self.before))
        h = F.gelu(h + torch.einsum("btne,nfe->btnf", h, self.deep))
        return torch.einsum("btne,nme->btnm", h, self.out).masked_fill(self.impossible, -1e9)

    def bits(self, digits: Tensor, levels: Tensor) -> Tensor:
        """digits (B, T, n) -> bits of each frame (B, T)."""
        logits = self(2 * digits / (levels - 1) - 1)
        nats = F.cross_entropy(logits.flatten(0, 2), digits.flatten(), reduction="none").view(digits.shape)
        return nats.sum(-1) / torch.log(torch.tensor(2.0))


def digits_of(codec: Codec, codes: Tensor) -> Tensor:
    """codes (Q, T) -> (T, Q * d)."""
    return code_to_digits(codes, codec.config.levels).transpose(0, 1).flatten(1)


@torch.no_grad()
def quick(codec: Codec, path: Path) -> Tensor:
    wav = files.load(path, SR, mono=True)[0][None]
    return digits_of(codec, codec.quantise(codec.encode(wav, SR))[1][0])


@torch.no_grad()
def looked(codec: Codec, path: Path) -> Tensor:
    wav = files.load(path, SR, mono=True)[0]
    return digits_of(codec, torch.cat(list(compress.encode_blocks(codec, [wav], looks=looks_of(codec))), dim=2)[0])


def stored(codec: Codec, items: list, quick: bool) -> float:
    """kbit/s in .wll files."""
    with tempfile.TemporaryDirectory() as folder:
        made = [
            compress.compress_file(i.path, Path(folder) / f"{k}.wll", codec, progress=False, quick=quick).header
            for k, i in enumerate(items)
        ]
    return sum(8 * h.size for h in made) / sum(h.seconds for h in made) / 1000


def codes_of(speech: list, hours: float, codec: Codec, way: Callable) -> Tensor:
    """Digits (T, n) of so much speech, as `way` codes it."""
    rows, frames = [], hours * 3600 * codec.config.latent_rate
    with tqdm(total=round(frames), desc=way.__name__, unit="frame", unit_scale=True) as bar:
        for item in speech:
            rows.append(way(codec, item.path))
            bar.update(len(rows[-1]))
            if bar.n >= frames:
                break
    return torch.cat(rows)


def learn(guess: Guess, train: Tensor, levels: Tensor, minutes: float, lr: float) -> list[float]:
    """Train it for so long -> bits a frame in each step."""
    optimiser, began, losses = torch.optim.AdamW(guess.parameters(), lr), time.monotonic(), []
    with tqdm(total=round(60 * minutes), desc="training", unit="s") as bar:
        while (gone := time.monotonic() - began) < 60 * minutes:
            starts = torch.randint(len(train) - FRAMES, (BATCH,))
            bits = guess.bits(torch.stack([train[s : s + FRAMES] for s in starts]), levels).mean()
            optimiser.param_groups[0]["lr"] = lr * (1 - 0.98 * gone / (60 * minutes))
            optimiser.zero_grad()
            bits.backward()
            nn.utils.clip_grad_norm_(guess.parameters(), 1.0)
            optimiser.step()
            losses.append(float(bits.detach()))
            bar.update(round(gone) - bar.n)
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="to train (default: 20)")
    parser.add_argument("--hours", type=float, default=3.0, help="of speech to train on (default: 3)")
    parser.add_argument(
        "--looked", type=float, default=0.5, help="hours of it whose codes are corrected (default: 0.5)"
    )
    parser.add_argument("--clips", type=int, default=36)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    codec = weights.load("voice16k", Codec)
    levels = torch.tensor(list(codec.config.levels) * codec.config.groups)
    found = gather(manifest=args.manifest).speech
    speech = [found[i] for i in torch.randperm(len(found)).tolist()]
    items, guess, rows = clips(args.manifest, args.clips), Guess(levels.tolist()), []
    rate, plain = codec.config.latent_rate / 1000, codec.config.bitrate() / 1000
    for name, way, hours, minutes, lr in (
        ("the encoder's (`--quick`)", quick, args.hours, args.minutes, 2e-3),
        ("corrected by its looks", looked, args.looked, args.minutes / 2, 1e-3),
    ):
        train = codes_of(speech, hours, codec, way)
        losses = learn(guess, train, levels, minutes, lr)
        with torch.no_grad():
            bits = torch.cat([guess.bits(way(codec, i.path)[None], levels)[0] for i in items]).mean()
        shown = sum(losses[-200:]) / len(losses[-200:])
        size, length = stored(codec, items, way is quick), len(train) / codec.config.latent_rate / 3600
        kbits = [plain, size, rate * float(bits), rate * shown]
        rows.append(f"| {name} | " + " | ".join(f"{x:.2f}" for x in kbits) + f" | {length:.1f} | {len(losses):,} |")
    table = "\n".join(rows)
    text = f"""## What is left in the codec's files

kbit/s of {args.clips} held-out clips from {source(args.manifest)}. The bound: cross-entropy of a causal network of
{sum(p.numel() for p in guess.parameters()) / 1e6:.2f} M parameters, which sees all digits before. It learnt the
encoder's codes of other speech, and then corrected ones.

| codes | plain | in .wll files, header and all | the bound | on what it learnt | hours | steps |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{table}

{made_by("entropy.py", args.manifest, *(f"--{x} {getattr(args, x):g}" for x in ("minutes", "hours", "looked")))}"""
    write_section("entropy", text)
    print(text)


if __name__ == "__main__":
    main()
