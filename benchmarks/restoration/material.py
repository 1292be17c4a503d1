"""Speech and noise decoded once, with the pitch of every frame, and crops drawn from them with every kind of damage.

python material.py [--manifest TABLE] [--cache FOLDER]    decodes, tracks the pitch, and writes
FOLDER/{speech,noise}-{train,valid}.*
"""

import argparse
import csv
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from wavelldm.audio import pitch
from wavelldm.paths import data_home

SR, HOP = 16_000, 256
CACHE = data_home() / "restoration"
MANIFEST = Path(os.environ.get("WAVELLDM_MANIFEST", "manifest.tsv"))


@dataclass(frozen=True)
class DamageConfig:
    """How likely each damage is, and how strong. Every item has its own."""

    gaps: float = 0.8  # share of items with dropouts
    gap_count: tuple = (1, 5)
    gap_seconds: tuple = (0.02, 0.45)
    band: float = 0.15
    cutoff: tuple = (2_500.0, 6_500.0)
    clip: float = 0.15
    clip_share: tuple = (0.01, 0.25)  # of the samples
    room: float = 0.15
    noise: float = 0.5
    snr: tuple = (5.0, 30.0)
    level_db: tuple = (-12.0, 12.0)  # around the usual one, noisy and clean alike


def track(wavs: list) -> list:
    """Sounds (N,) -> float16 (2, 1 + N // HOP) each: octaves above 60 Hz (-1: no pitch) and how well the sound
    repeats."""
    longest = max(len(w) for w in wavs)
    batch = torch.zeros(len(wavs), 1, longest + HOP)
    for row, wav in zip(batch, wavs):
        row[0, HOP // 2 : HOP // 2 + len(wav)] = torch.from_numpy(wav)  # so that frame t lies around sample t * HOP
    score = pitch.scores(batch, SR, HOP)  # (B, S, T)
    path = pitch.track(score)  # (B, T)
    voiced = path < pitch.COUNT
    at = path.clamp(1, pitch.COUNT - 2)
    a, b, c = (score.gather(1, (at + k)[:, None])[:, 0] for k in (-1, 0, 1))
    place = at + (0.5 * (a - c) / (a - 2 * b + c).clamp_max(-1e-6)).clamp(-0.5, 0.5)  # the top of a parabola
    octaves = place * (np.log2(pitch.HIGH / pitch.LOW) / (pitch.COUNT - 1))
    octaves = torch.where(voiced, octaves, -1.0)
    both = torch.stack([octaves, score.amax(1)], 1).half().numpy()
    return [both[i, :, : 1 + len(w) // HOP] for i, w in enumerate(wavs)]


def build(cache: Path, manifest: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(open(manifest), delimiter="\t"))
    for kind in ("speech", "noise"):
        for split in ("valid", "train"):
            mine = [r for r in rows if r["kind"] == kind and r["split"] == split]
            mine.sort(key=lambda r: float(r["seconds"]))
            name, began, table, start = f"{kind}-{split}", time.time(), [], 0
            with open(cache / f"{name}.i16", "wb") as sound, open(cache / f"{name}.f0", "wb") as f0:
                for i in range(0, len(mine), 24):
                    wavs = []
                    for r in mine[i : i + 24]:
                        x, sr = soundfile.read(manifest.parent / r["path"], dtype="float32", always_2d=True)
                        assert sr == SR, r["path"]
                        wavs.append(x.mean(1)[: 60 * SR])
                    tracks = track(wavs) if kind == "speech" else [np.zeros((2, 0), np.float16)] * len(wavs)
                    for r, x, t in zip(mine[i : i + 24], wavs, tracks):
                        sound.write((x * 32767).round().clip(-32768, 32767).astype(np.int16).tobytes())
                        f0.write(t.T.tobytes())
                        power = float(np.mean(x**2))
                        table.append(
                            {
                                "path": r["path"],
                                "source": r["source"],
                                "start": start,
                                "n": len(x),
                                "frames": t.shape[1],
                                "power": power,
                            }
                        )
                        start += len(x)
            (cache / f"{name}.json").write_text(json.dumps(table))
            print(name, len(table), f"{start / SR / 3600:.2f} h", f"{time.time() - began:.0f} s", flush=True)


class Sounds:
    """All recordings of one kind and split; crops are loud at some place, never a pause alone."""

    def __init__(self, name: str, cache: Path = CACHE):
        self.table = [r for r in json.loads((cache / f"{name}.json").read_text()) if r["power"] > 1e-8]
        self.wav = np.memmap(cache / f"{name}.i16", np.int16, "r")
        f0 = cache / f"{name}.f0"
        self.f0 = np.memmap(f0, np.float16, "r").reshape(-1, 2) if f0.stat().st_size else None
        frames = json.loads((cache / f"{name}.json").read_text())
        place, self.place = 0, {}
        for r in frames:
            self.place[r["path"]] = place
            place += r["frames"]
        weight = np.minimum([r["n"] for r in self.table], 20 * SR)
        self.odds = np.cumsum(weight)

    def item(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        r = self.table[i]
        wav = self.wav[r["start"] : r["start"] + r["n"]].astype(np.float32) / 32767
        f0 = (
            None
            if self.f0 is None
            else np.asarray(self.f0[self.place[r["path"]] : self.place[r["path"]] + r["frames"]], np.float32)
        )
        return wav, f0

    def crop(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """n samples (a multiple of HOP) from a multiple of HOP on, and the pitch of n // HOP + 1 frames (n // HOP +
        1, 2). Short ones are followed by others."""
        wavs, tracks, have = [], [], 0
        while have < n:
            r = self.table[int(np.searchsorted(self.odds, rng.integers(self.odds[-1]), side="right"))]
            for _ in range(4):
                start = HOP * int(rng.integers(0, max(1, (r["n"] - n) // HOP + 1)))
                piece = (
                    self.wav[r["start"] + start : r["start"] + min(r["n"], start + n - have)].astype(np.float32) / 32767
                )
                if np.mean(piece**2) > 0.1 * r["power"]:
                    break
            piece = piece[: len(piece) // HOP * HOP]
            if not len(piece):
                continue
            if self.f0 is not None:
                at = self.place[r["path"]] + start // HOP
                tracks.append(np.asarray(self.f0[at : at + len(piece) // HOP], np.float32))
            elif len(piece) < n:  # noise: repeat it
                piece = np.tile(piece, -(-(n - have) // len(piece)))[: n - have]
            wavs.append(piece)
            have += len(piece)
        track = None
        if tracks:
            track = np.concatenate(tracks)
            track = np.concatenate([track, track[-1:]])
        return np.concatenate(wavs), track

    def batch(self, size: int, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """-> wav (B, n), pitch (B, 2, 1 + n // HOP)"""
        both = [self.crop(n, rng) for _ in range(size)]
        wav = torch.from_numpy(np.stack([b[0] for b in both]))
        return wav, None if both[0][1] is None else torch.from_numpy(np.stack([b[1] for b in both])).transpose(
            1, 2
        ).contiguous()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    build(args.cache, args.manifest)
