"""How the network that fills gaps is trained: on latents of clean speech, computed once, into which gaps are cut.

What a damaged sound would show is put together from the clean latent: frames of which too little is known lie on
straight lines, others are a little blurred, and the log-mels of half-seen frames are those of their better-known
neighbours. So a step costs what the network costs, and no sound is decoded.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import override, to_dict
from ..data.clips import Clips
from ..data.corpora import Corpus
from ..data.degrade import dropouts
from ..errors import DataError
from ..paths import data_home
from ..progress import progress_bar
from ..restore.filler import Filler, FillerConfig, Told, context, on_lines
from ..restore.gaps import HALF, HOP, SR, interpolate, known_share
from ..restore.latent import BANDS, SpeechLatent, heard_pitch, level, seen
from ..weights import load
from . import parallel
from .loop import Task
from .options import HalfOptions, option
from .presets import Preset

GAPS, SECONDS = (1, 6), (0.03, 0.45)  # how many a crop has, and how long they are
BLUR, HALF_SEEN = 0.15, 0.3  # deviation of what is wrong in a frame that is not whole: in the latent, in its log-mels
LOUDER = 1.0  # nepers by which a crop may be louder or softer than it was
REST = 0.02  # weight of the frames that are known
LONGEST, TOGETHER = 60, 24  # seconds of a recording that are encoded, and recordings at a time
VERSION = 1  # of how the latents are made and kept
HELD_OUT = 48  # crops to validate on


@dataclass(frozen=True)
class FillerOptions(HalfOptions):
    batch_size: int = option(12, "crops in one step, over all processes", least=1)
    seconds: float = option(2.56, "length of a crop", above=0)
    latent: str = option(
        "restore16k-latent", "weights of the latent that is filled, by name or path", metavar="WEIGHTS"
    )
    drawn: float = option(0.6, "share of items that learn to draw; the others learn what to expect", least=0)


class SpeechFrames:
    """Latents and pitch of all frames of a list of recordings, in a row on disk.

    The name of the two files is a hash of everything that decides their content.
    """

    def __init__(self, latent: SpeechLatent, speech: Clips, cache: str | Path | None = None, progress: bool = True):
        digest = hashlib.sha256(json.dumps([VERSION, to_dict(latent.config), speech.path.name]).encode())
        for _, tensor in sorted(latent.encoder.state_dict().items()):
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
        folder = Path(cache or data_home() / "cache" / "filler") / digest.hexdigest()[:16]
        size, lengths = latent.config.size, np.minimum(speech.lengths, LONGEST * SR)
        self.counts = lengths // HOP  # frames whose whole hop is there
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        usable = np.where(speech.power > 1e-8, np.minimum(self.counts, 20 * SR // HOP), 0)
        if not usable.any():
            raise DataError("there is no speech to learn from; check the recordings")
        self.odds = np.cumsum(usable)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as part:
                self._encode(latent, speech, lengths, Path(part) / "made", progress)
                (Path(part) / "made").rename(folder)
        self.z = np.load(folder / "z.npy", mmap_mode="r")  # (frames, size)
        self.pitch = np.load(folder / "pitch.npy", mmap_mode="r")  # (frames, 2)
        assert self.z.shape == (self.starts[-1], size)

    @torch.no_grad()
    def _encode(self, latent: SpeechLatent, speech: Clips, lengths: np.ndarray, folder: Path, progress: bool) -> None:
        folder.mkdir()
        device, total = next(latent.parameters()).device, int(self.starts[-1])
        z, pitch = (
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (total, rows))
            for name, rows in (("z", latent.config.size), ("pitch", 2))
        )
        order = np.argsort(lengths)  # recordings of like length go together
        with progress_bar(show=progress, total=len(order), desc="latents", unit="file") as bar:
            for first in range(0, len(order), TOGETHER):
                group = order[first : first + TOGETHER]
                longest = int(lengths[group].max())
                wav = torch.zeros(len(group), longest)
                for row, i in zip(wav, group):
                    row[: lengths[i]] = torch.from_numpy(speech.rows(i)[0, : lengths[i]].astype(np.float32) / 32768)
                wav = wav.to(device)
                known = torch.arange(longest, device=device) < torch.tensor(lengths[group], device=device)[:, None]
                wav = wav * level(wav, known)
                heard, means = (
                    heard_pitch(wav).cpu(),
                    [latent.encode(seen(row[None, :n]))[0][0].cpu() for row, n in zip(wav, lengths[group])],
                )
                for i, p, mean in zip(group, heard, means):
                    at = slice(self.starts[i], self.starts[i + 1])
                    z[at], pitch[at] = mean.T[: self.counts[i]].half(), p.T[: self.counts[i]].half()
                bar.update(len(group))
        z.flush(), pitch.flush()

    def batch(self, step: int, size: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """z (B, size, T), pitch (B, 2, T), gaps (B, N) from (seed, step) alone. A short recording is followed by
        others."""
        rng, rows = np.random.default_rng([seed, step]), []
        for _ in range(size):
            z, pitch, have = [], [], 0
            while have < frames:
                i = int(np.searchsorted(self.odds, rng.integers(self.odds[-1]), side="right"))
                first = self.starts[i] + int(rng.integers(0, max(1, self.counts[i] - (frames - have) + 1)))
                at = slice(first, min(self.starts[i + 1], first + frames - have))
                z.append(self.z[at]), pitch.append(self.pitch[at])
                have += len(z[-1])
            rows.append((np.concatenate(z), np.concatenate(pitch)))
        z, pitch = (torch.from_numpy(np.stack(part).astype(np.float32)).transpose(1, 2) for part in zip(*rows))
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        gaps = dropouts(torch.zeros(size, 1, (frames - 1) * HOP), SR, generator, GAPS, SECONDS)[1][:, 0]
        return z.contiguous(), pitch.contiguous(), gaps


def told_of(latent: SpeechLatent, z: Tensor, pitch: Tensor, gaps: Tensor, blur: Tensor) -> Told:
    """What a damaged sound would show of a clean latent (B, size, T). `blur`: standard normal (B, size + 80, T)."""
    share, size = known_share(gaps), latent.config.size
    known = z + BLUR * (1.05 - share)[:, None] * blur[:, :size]
    mel = latent.read(known)
    left, right = F.pad(share, (1, 0))[:, :-1], F.pad(share, (0, 1))[:, 1:]
    before, after = F.pad(mel, (1, 0))[..., :-1], F.pad(mel, (0, 1))[..., 1:]
    other = torch.where((left > right)[:, None], before, after) + HALF_SEEN * blur[:, size:]
    mel = torch.where((share < HALF)[:, None], other, mel)
    line = on_lines(pitch, share)
    return Told(interpolate(known, share), line, share, context(line, share, mel))


class FillerTask(Task):
    """Batches are z (B, size, T) and pitch (B, 2, T) of clean speech, and the gaps (B, N) to be cut."""

    network, Network, Options, uses_noise = "filler", Filler, FillerOptions, False

    def __init__(
        self,
        config: FillerConfig,
        latent: SpeechLatent,
        options: FillerOptions = FillerOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr = SR
        self.latent = latent.to(device).eval().requires_grad_(False)
        self.networks, self.groups = {"model": Filler(config).to(device)}, {"filler": ["model"]}
        self.needs = {"latent": latent}

    @classmethod
    def create(
        cls,
        preset: Preset,
        changes: list[str],
        options: FillerOptions,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> "FillerTask":
        latent = load(options.latent, SpeechLatent, device)
        return cls(override(replace(preset.filler, size=latent.config.size), changes), latent, options, device, seed)

    def read(self, corpus: Corpus) -> None:
        """Encode a corpus, or find the latents that were encoded before."""

        def encode() -> tuple[SpeechFrames, SpeechFrames]:
            train, valid = (SpeechFrames(self.latent, Clips(x, SR)) for x in (corpus.speech, corpus.valid_speech))
            return train, valid

        self.with_frames(*parallel.in_turn(encode))

    def with_frames(self, train: SpeechFrames, valid: SpeechFrames) -> "FillerTask":
        """Train and validate on frames that are at hand."""
        o, frames = self.options, round(self.options.seconds * SR / HOP)
        return self.with_data(
            lambda first: (train.batch(step, o.batch_size, frames, self.seed) for step in count(first)),
            [valid.batch(0, HELD_OUT, frames, 1)],
        )

    def prepared(self, batch: tuple, louder: Tensor, blur: Tensor) -> tuple[Told, Tensor, Tensor]:
        """What the network is told, the right latent and the right pitch. louder (B,): nepers."""
        z, pitch, gaps = (x.to(self.device) for x in batch)
        step = self.latent.encoder.direct.weight[: z.shape[1], :, 0].sum(1)  # what a neper does to the latent
        z = z + louder.to(z)[:, None, None] * step[:, None]
        return told_of(self.latent, z, pitch, gaps, blur.to(z)), z, pitch

    def far(self, z: Tensor, true: Tensor, told: Told) -> dict:
        """How far latents (B, size, T) lie from the right ones where little is known, for each item (B,): squared, as
        log-mel, as 20 coarse bands, as loudness."""
        weight = (told.share < 0.9).float() * (1.2 - told.share) + REST  # (B, T)
        whole = parallel.mean_of_all(weight.sum() / len(z))
        ours, real, wide = self.latent.read(z), self.latent.read(true), self.latent.decoder.wide

        def mean(x: Tensor) -> Tensor:
            return (x.mean(1) * weight).sum(1) / whole

        coarse = (ours - real).unflatten(1, (20, -1)).mean(2)
        loud = [(0.3 * (mel - wide).clamp(max=6)).exp() for mel in (ours, real)]
        return {
            "near": mean((z - true).square()),
            "mel": mean((ours - real).abs()),
            "coarse": mean(coarse.abs()),
            "loud": mean((loud[0] - loud[1]).abs()),
        }

    def voice(self, answer: Tensor, pitch: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """Octaves off where there is a voice, and the cross-entropy of voicing."""
        weight = ((told.share < 0.9).float() + REST)[:, None]
        voiced = (pitch[:, :1] >= 0).float()
        off = (answer[:, :1] - pitch[:, :1]).abs().clamp(max=0.5) * voiced * weight
        doubt = F.binary_cross_entropy_with_logits(answer[:, 1:], voiced, reduction="none") * weight
        heard, whole = (parallel.mean_of_all(x.sum()) for x in (voiced * weight, weight))
        return off.sum() / heard.clamp_min(1 / parallel.world()), doubt.sum() / whole

    def losses(self, batch: tuple) -> Iterator:
        model, whole = self.networks["model"], len(batch[0]) * parallel.parts()[1]
        dim, frames = batch[0].shape[1:]
        chance, louder, place, eps, blur = parallel.share(
            (
                torch.rand(whole),
                LOUDER * (2 * torch.rand(whole) - 1),
                torch.rand(whole),
                torch.randn(whole, dim, frames),
                torch.randn(whole, dim + BANDS, frames),
            )
        )
        told, true, pitch = self.prepared(batch, louder, blur)
        drawing = (chance < self.options.drawn).to(true)
        t = drawing * (1 - (1 - place.to(true)).sqrt()).clamp(max=0.95)  # earlier places count more
        x = told.z + t[:, None, None] * (true - told.z)
        x = x + (1 - t)[:, None, None] * model.config.spread * eps.to(true)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            z, answer = model(told, x, t)
        parts = self.far(z.float(), true, told)
        octaves, voicing = self.voice(answer.float(), pitch, told)
        expected = 0.5 * parts["near"] + 0.4 * parts["mel"] + 0.6 * parts["coarse"] + 2 * parts["loud"]
        drawn = parts["near"] + 0.1 * parts["mel"]  # a way needs the mean of what is possible: squares ask for that
        loss = (drawing * drawn + (1 - drawing) * expected).mean() + octaves + 0.3 * voicing
        share = (1 - drawing).sum().clamp_min(1)
        figures = {k: ((1 - drawing) * v).sum().detach() / share for k, v in parts.items()}
        yield "filler", loss, {**figures, "octaves": octaves.detach(), "voicing": voicing.detach()}

    @torch.no_grad()
    def validate(self, model: Filler) -> dict:
        """How far one step and eight end from the truth, and how lively they are: how much the log-mel moves from frame
        to frame where it was lost, 1 for real speech."""
        (batch,) = self.valid
        generator = torch.Generator().manual_seed(1)
        dim, frames = batch[0].shape[1:]
        blur = torch.randn(len(batch[0]), dim + BANDS, frames, generator=generator)
        told, true, pitch = self.prepared(batch, torch.zeros(len(batch[0])), blur)
        lost = (told.share < 0.5)[:, None, 1:]

        def lively(z: Tensor) -> Tensor:
            return (self.latent.read(z).diff(dim=-1).abs().mean(1, keepdim=True) * lost).sum() / lost.sum()

        found = {}
        for steps in (1, 8):
            z, answer = model.sample(told, steps)
            parts = self.far(z, true, told)
            found |= {f"{k}_{steps}": float(v.mean()) for k, v in parts.items() if steps == 1 or k != "loud"}
            found[f"lively_{steps}"] = float(lively(z) / lively(true))
        first = {k: found[f"{k}_1"] for k in ("near", "mel", "coarse", "loud")}
        score = 0.5 * first["near"] + 0.4 * first["mel"] + 0.6 * first["coarse"] + 2 * first["loud"]
        lines = self.far(told.z, true, told)
        return {"score": score, "coarse_lines": float(lines["coarse"].mean()), **found}
