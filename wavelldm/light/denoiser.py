"""Cleaning without PyTorch: the graphs that `wavelldm export` writes, run by onnxruntime, on arrays.

    sound -> resample to the graph's rate -> graph, hop by hop or span by span -> resample back -> mix

It does what `denoise/denoiser.py` and `denoise/chain.py` do with a mask network, and gives the same. `load()` gives a
`Denoiser` with `enhance`, `enhance_file` and `stream`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from ..errors import AudioError, WavelldmError
from ..progress import progress_bar
from . import files
from .find import Damage, Finder
from .gaps import HOP, SR
from .levels import active_power
from .resample import Resampler
from .restorer import BLOCK, MARGIN, Peaks, Repair, Restorer, at_rate, headroom, inside, wanted
from .run import SHIPPED, facts_of, run_by_onnx

BEST, LIVE = "studio16k", "base16k"  # what runs when nobody asks for another: for recordings, and for streams
LEVEL = -26.0  # dB of active speech, in the middle of what the networks were trained on
QUIETEST = -70.0  # dB: below this there is nothing to bring up
SECONDS = 4.0  # of sound that are worked on at a time, where nobody waits
SPAN, AFTER = 625, 125  # frames of a recording that go through at a time, and those heard after them: 10 s, 2 s


class Graph:
    """The graph of a denoiser, ready to run on one thread."""

    def __init__(self, path: str | Path, threads: int = 1):
        self.session = run_by_onnx(path, threads)
        self.facts = facts_of(self.session.get_modelmeta().custom_metadata_map, path)
        self.describe()

    def describe(self) -> None:
        """What goes in and comes out."""
        self.outputs = [out.name for out in self.session.get_outputs()]
        self.shapes = {put.name: put.shape for put in self.session.get_inputs()}

    def silence(self) -> dict[str, np.ndarray]:
        """Of each input that has an output of the same name, the state before the first call."""
        return {n: np.zeros(self.shapes[n], np.float32) for n in self.shapes if f"{n}_out" in self.outputs}

    def __call__(self, states: dict[str, np.ndarray], **inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cleaned samples (n,) and the gains of the highest band, one a frame; `states` move on."""
        found = dict(zip(self.outputs, self.session.run(None, {**states, **inputs})))
        for name in states:
            states[name] = found[f"{name}_out"]
        return found["cleaned"][0], found["top"]


class Stage:
    """One channel through a graph. `push(wav, last)` gives what is certain: (2, m), sound and gain above its band."""

    def __init__(self, graph: Graph, strength: float):
        self.graph, self.facts, self.states = graph, graph.facts, graph.silence()
        self.strength = np.array([strength], np.float32)
        self.side = self.facts.hop // 2  # samples that a frame sees on either side of its own hop
        self.received = self.frames = 0  # samples in, frames that went through
        self.made = -self.side  # samples: the first frame reaches back beyond the beginning
        self.top = None  # of the last frame
        self.held = np.zeros(0, np.float32)
        self.ramp = np.arange(1, self.facts.hop + 1, dtype=np.float32) / self.facts.hop

    def push(self, wav: np.ndarray, last: bool = False) -> np.ndarray:
        self.received += len(wav)
        self.held = np.concatenate([self.held, wav])
        parts = list(self.answers(last))
        sound, tops = (
            parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts)) if parts else (self.ramp[:0],) * 2
        )
        if not len(tops):
            return np.zeros((2, 0), np.float32)
        points = np.concatenate([tops[:1] if self.top is None else self.top, tops])
        self.top = tops[-1:]
        tracks = np.empty((2, len(sound)), np.float32)
        tracks[0] = sound
        tracks[1] = (points[:-1, None] + (points[1:] - points[:-1])[:, None] * self.ramp).ravel()
        skipped = min(max(0, -self.made), len(sound))
        tracks = tracks[:, skipped:]
        self.made += len(sound)
        return tracks[:, : self.received - self.made + tracks.shape[1]] if last else tracks

    def answers(self, last: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The sound and the gains of all frames that can be answered now."""
        raise NotImplementedError


class StreamStage(Stage):
    """Hop by hop, as the sound arrives."""

    def __init__(self, graph: Graph, strength: float):
        super().__init__(graph, strength)
        self.held = np.zeros(self.side, np.float32)
        self.all = np.ones(self.facts.chunk, np.float32)

    def answers(self, last: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        f, size, end = self.facts, self.facts.hop * self.facts.chunk, math.inf
        if last:
            end = -(-self.received // f.hop)  # the frame that begins behind the sound
            left = -(-(self.received + self.side) // f.hop) + f.ahead - self.frames
            needed = f.hop + -(-left // f.chunk) * size
            self.held = np.pad(self.held, (0, max(0, needed - len(self.held))))[:needed]
        while len(self.held) >= f.hop + size:
            if self.frames == 0:
                self.states["past"] = self.held[None, : f.hop]
            inside, early, first = self.all, 0, self.frames - f.ahead  # of the frames that are answered
            if first < 0 or first + f.chunk > end:
                numbers = first + np.arange(f.chunk)
                inside = ((numbers >= 0) & (numbers < end)).astype(np.float32)
                early = int((numbers < 0).sum())
            sound = self.held[None, f.hop : f.hop + size]
            wav, tops = self.graph(self.states, sound=sound, inside=inside, strength=self.strength)
            self.held, self.frames = self.held[size:], self.frames + f.chunk
            yield wav[early * f.hop :], tops[early:]


class RecordingStage(Stage):
    """Span by span, each with what is heard after it."""

    def __init__(self, graph: Graph, strength: float):
        super().__init__(graph, strength)
        self.held = np.zeros(self.facts.taps * self.facts.hop + self.side, np.float32)

    def answers(self, last: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        f = self.facts
        if last:
            left = -(-self.received // f.hop) - self.frames + f.ahead  # frames, and those ahead of the last one
            size = (f.taps + left + 1) * f.hop
            self.held = np.pad(self.held, (0, max(0, size - len(self.held))))[:size]
        while True:
            have = len(self.held) // f.hop - 1 - f.taps  # whole frames
            more = have >= SPAN + AFTER
            if not more and not (last and have > f.ahead):
                return
            count = min(have, SPAN + AFTER) - f.ahead
            keep = SPAN if more else count
            wav, tops = self.graph(
                self.states,
                sound=self.held[None, : (f.taps + count + f.ahead + 1) * f.hop],
                begun=np.array([float(self.frames > 0)], np.float32),
                keep=np.array([keep]),
                strength=self.strength,
            )
            self.held, self.frames = self.held[keep * f.hop :], self.frames + keep
            yield wav[: keep * f.hop], tops[:keep]
            if last and not more:  # the second half of the last frame
                tail, envelope = self.states["tail"]
                yield tail / envelope.clip(1e-3), tops[:1] * 0
                return


class Session:
    """One recording being cleaned as it arrives: `push` blocks (C, any), then `finish`; what comes out, joined, is as
    long as what went in. `latency`: the most samples that are in and not yet out.

    Without a graph nothing is cleaned. With `repair`, what `damages` say of each channel is repaired; where nobody has
    looked for gaps (None), they are looked for as the sound comes. A hole disturbs a network, so where gaps are known
    straight lines are drawn across them before it, and they are filled after it.
    """

    def __init__(
        self,
        graph: Graph | None,
        sr: int,
        levels: Sequence[float],
        strength: float,
        background: float,
        repair: Repair | None = None,
        damages: Sequence[Damage] = (),
    ):
        self.sr, self.channels, self.background = sr, len(levels), background
        self.low_sr = SR if graph is None else graph.facts.sr
        self.peaks = self.restorer = self.bridged = self.only = None
        if repair is not None:
            if self.low_sr != SR:
                raise WavelldmError(f"only networks at {SR} Hz restore, not one at {self.low_sr} Hz; choose another")
            self._prepare(graph, repair, wanted(damages, repair.kinds))
        self.stages: list[Stage | None] = [None] * self.channels  # None: nothing is cleaned
        if graph is not None and (strength > 0 or self.restorer):
            kind = {"stream": StreamStage, "recording": RecordingStage}[graph.facts.form]
            self.stages = [kind(graph, strength) for _ in levels]
        self.idle = self.stages[0] is None and self.restorer is None
        self.gain = np.array([[10 ** ((LEVEL - level) / 20)] for level in levels], np.float32)  # (C, 1)
        self.down, self.up = (
            Resampler(sr, self.low_sr, self.channels),
            Resampler(self.low_sr, sr, 3 * self.channels),
        )
        self.original = np.zeros((self.channels, 0), np.float32)
        self.low = self.original
        self.received = self.given = 0
        self.finished = False
        late = 0 if graph is None else graph.facts.latency
        late += (MARGIN + BLOCK) * HOP * ((self.restorer is not None) + (self.bridged is not None))
        late += 0 if sr == self.low_sr else self.up.lookahead
        self.latency = math.ceil(late * sr / self.low_sr) + self.down.lookahead
        if self.peaks is not None and self.peaks.declipper is not None:
            windows = self.peaks.declipper.windows
            self.latency += (windows.margin + windows.size) * windows.hop

    def _prepare(self, graph: Graph | None, repair: Repair, damages: Sequence[Damage]) -> None:
        """What repairs, where there is something to repair."""
        if any(d.ceiling or d.curve for d in damages):
            self.peaks = Peaks(damages, self.sr)
        if any(d.gaps is None or d.gaps for d in damages):
            low = [at_rate(d, self.sr, SR) for d in damages]
            self.restorer = Restorer(low, repair.steps, repair.seed, repair.bold)
            if all(d.gaps is not None for d in damages):
                self.bridged = Restorer(low, 0) if graph is not None else None
                self.only = [d.gaps for d in damages] if graph is None else None

    def push(self, block: np.ndarray) -> np.ndarray:
        block = np.atleast_2d(np.asarray(block, np.float32))
        if self.finished:
            raise WavelldmError("this session is finished; begin another one for another recording")
        if block.ndim != 2 or len(block) != self.channels:
            raise AudioError(f"this session takes blocks of {self.channels} channels (C, any), not {block.shape}")
        if not np.isfinite(block).all():
            raise AudioError("the recording holds NaN or infinite samples; repair it first")
        return self._through(block, False)

    def finish(self) -> np.ndarray:
        if self.finished:
            raise WavelldmError("this session is finished already")
        self.finished = True
        return self._through(np.zeros((self.channels, 0), np.float32), True)

    def _through(self, block: np.ndarray, last: bool) -> np.ndarray:
        if self.peaks is not None:
            block = self.peaks.push(block, last)
        self.received += block.shape[1]
        if self.idle or self.received == 0:
            return block
        self.original = np.concatenate([self.original, block], axis=1)
        low = through(self.down, self.gain * block, last)
        self.low = np.concatenate([self.low, low], axis=1)
        if self.bridged is not None:
            low = self.bridged.push(np.stack([low, np.ones_like(low), low]), last)[0]
        cleaned, above = np.stack([self._cleaned(*pair, last) for pair in zip(self.stages, low)], axis=1)  # (C, n)
        low, self.low = np.split(self.low, [cleaned.shape[1]], axis=1)
        cleaned, above = cleaned + self.background * (low - cleaned), above + self.background * (1 - above)
        if self.restorer is not None:
            cleaned, above, low = self.restorer.push(np.stack([cleaned, above, low]), last)
        mixed, original = self._mixed(cleaned, above, low, last)
        first, self.given = self.given, self.given + original.shape[1]
        if self.only is None:
            return mixed
        return np.where(np.stack([inside(gaps, first, original.shape[1]) for gaps in self.only]), mixed, original)

    def _cleaned(self, stage: Stage | None, row: np.ndarray, last: bool) -> np.ndarray:
        return np.stack([row, np.ones_like(row)]) if stage is None else stage.push(row, last)

    def _mixed(
        self, cleaned: np.ndarray, above: np.ndarray, low: np.ndarray, last: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The original with what changes at the graph's rate, and without: (C, n) each, at its own rate."""
        if self.sr == self.low_sr:
            original, self.original = np.split(self.original, [cleaned.shape[1]], axis=1)
            return original + (cleaned - low) / self.gain, original
        if self.sr < self.low_sr:  # nothing lies above the network's band
            above = np.zeros_like(above)
        changes = through(self.up, np.concatenate([cleaned - low, above - 1, low]), last)[:, : self.original.shape[1]]
        original, self.original = np.split(self.original, [changes.shape[1]], axis=1)
        change, top, low = np.split(changes, 3)
        return original + (change + top.clip(-1, 0) * (self.gain * original - low)) / self.gain, original


def through(stage: Resampler, block: np.ndarray, last: bool) -> np.ndarray:
    out = stage.push(block)
    return np.concatenate([out, stage.finish()], axis=1) if last else out


Block = TypeVar("Block")  # an array, or a tensor


class Cleaner(Protocol[Block]):
    """What cleans one recording, block by block."""

    def push(self, block: Block) -> Block: ...

    def finish(self) -> Block: ...


def cleaned_blocks(
    session: Cleaner[Block], blocks: Iterable[Block], seen: Callable[[int], None] | None = None
) -> Iterator[Block]:
    """Blocks (C, any) through a session, to its end. `seen` is told how many samples of each are done."""
    for block in blocks:
        yield session.push(block)
        if seen is not None:
            seen(block.shape[1])
    yield session.finish()


def levels_of(blocks: Iterable[np.ndarray], sr: int) -> list[float]:
    """The level of the loudest tenth of all seconds of each channel, of blocks (C, any)."""
    powers = [
        [active_power(row, sr) for row in block[:, i : i + sr]]
        for block in blocks
        for i in range(0, block.shape[1], sr)
    ]
    loudest = np.sort(np.array(powers), axis=0)[-max(1, len(powers) // 10) :].mean(0)
    return [10 * math.log10(p) if p > 10 ** (QUIETEST / 10) else LEVEL for p in loudest]


def look_at(blocks: Iterable[np.ndarray], sr: int, damage: bool) -> tuple[list[float], tuple[Damage, ...]]:
    """The levels of blocks (C, any), as `levels_of` gives them, and with `damage` what is damaged in each channel."""
    if not damage:
        return levels_of(blocks, sr), ()
    finder = Finder(sr)

    def seen() -> Iterator[np.ndarray]:
        for block in blocks:
            finder.push(block)
            yield block

    return levels_of(seen(), sr), finder.finish()


@dataclass(frozen=True)
class Look:
    """What a first look at a recording found."""

    levels: Sequence[float]
    damages: Sequence[Damage] = ()
    gain: float = 1.0  # of the whole recording, so that peaks that are put back fit into its file


def look_at_file(
    source: str | Path,
    target: str | Path,
    repair: Repair | None = None,
    gaps: Sequence[tuple[tuple[int, int], ...]] | None = None,
) -> Look:
    """The first look at a file that is to become `target`. `gaps`: of each channel, in place of those found."""
    facts, gain = files.info(source), 1.0
    levels, found = look_at(files.read_blocks(source, 10.0), facts.sr, repair is not None)
    if repair is None:
        return Look(levels)
    damages = wanted(found, repair.kinds)
    if gaps is not None:
        damages = tuple(replace(damage, gaps=named) for damage, named in zip(damages, gaps, strict=True))
    if any(d.ceiling or d.curve for d in damages) and not files.keeps_peaks(target, facts.sr, facts):
        gain = headroom(files.read_blocks(source, SECONDS), damages, facts.sr)
    return Look(levels, damages, gain)


class Denoiser:
    """A graph by name, for recordings and streams. `strength` and `background` mean what `wavelldm denoise` says.
    Without a graph nothing is cleaned: for those who want to restore alone, with `repair`."""

    def __init__(self, name: str, graph: Graph | None):
        self.name, self.graph = name, graph

    def stream(
        self,
        sr: int,
        channels: int = 1,
        strength: float = 1.0,
        background: float = 0.0,
        level: float | Sequence[float] = LEVEL,
        repair: Repair | None = None,
        damages: Sequence[Damage] | None = None,
    ) -> Session:
        """A session. `level`: of its speech in dB, of all channels or of each. With `repair`, gaps are looked for as
        the sound comes, unless `damages` name those of each channel."""
        if not (0 <= strength <= 4 and 0 <= background <= 1):
            raise WavelldmError("strength lies between 0 and 4, and the kept background between 0 and 1")
        levels = [float(level)] * channels if isinstance(level, int | float) else list(level)
        if channels < 1 or len(levels) != channels:
            raise WavelldmError("a stream has one channel or more, and one level or one for each")
        damages = (Damage(None),) * channels if damages is None else damages
        return Session(self.graph, files.check_rate(sr), levels, strength, background, repair, damages)

    def enhance(
        self,
        wav: np.ndarray,
        sr: int,
        strength: float = 1.0,
        background: float = 0.0,
        repair: Repair | None = None,
        damages: Sequence[Damage] | None = None,
    ) -> np.ndarray:
        """(N,) or (C, N), floats -> cleaned, of the same shape. `damages`: of each channel, for those who know."""
        rows = np.atleast_2d(np.asarray(wav, np.float32))
        if rows.ndim != 2 or rows.size == 0:
            raise AudioError(f"enhance takes an array (N,) or (C, N) with samples in it, not {np.shape(wav)}")
        if not np.isfinite(rows).all():
            raise AudioError("the recording holds NaN or infinite samples; repair it first")
        levels, found = look_at([rows], files.check_rate(sr), repair is not None and damages is None)
        session = self.stream(
            sr, len(rows), strength, background, levels, repair, found if damages is None else damages
        )
        return np.concatenate([session.push(rows), session.finish()], axis=1).reshape(np.shape(wav))

    def enhance_file(
        self,
        source: str | Path,
        target: str | Path,
        force: bool = False,
        progress: bool = True,
        strength: float = 1.0,
        background: float = 0.0,
        live: bool = False,
        repair: Repair | None = None,
        look: Look | None = None,
    ) -> files.AudioInfo:
        """Clean a file block by block in constant memory, keeping length, loudness, rate, channels and sample format.
        `live`: as a stream is cleaned, without a first look. `look`: what `look_at_file` has found already. Where peaks
        are put back that do not fit into the file, the whole recording is turned down."""
        facts = files.info(source)
        if live:
            look, damages = Look([LEVEL] * facts.channels), None
        else:
            look = look or look_at_file(source, target, repair)
            damages = look.damages
        session = self.stream(facts.sr, facts.channels, strength, background, look.levels, repair, damages)
        with progress_bar(show=progress, total=facts.frames, desc="cleaning", unit="sample", unit_scale=True) as bar:
            blocks = cleaned_blocks(session, files.read_blocks(source, SECONDS), bar.update)
            blocks = blocks if look.gain == 1 else (np.float32(look.gain) * block for block in blocks)
            frames = files.save_blocks(target, blocks, facts.sr, like=facts, force=force)
        return replace(facts, frames=frames)  # a file that was cut short holds fewer than its header says


def untouched() -> Denoiser:
    """Cleans nothing: for restoring alone. What is not damaged stays as it is to the bit."""
    return Denoiser("untouched", None)


@lru_cache(maxsize=4)
def shipped(name: str) -> Denoiser:
    return Denoiser(name, Graph(SHIPPED / f"{name}.onnx"))


def names() -> list[str]:
    """Of the denoisers that ship as graphs; what is part of something else has a dash in its name."""
    return sorted(path.stem for path in SHIPPED.glob("*.onnx") if "-" not in path.stem)


def knows(name: str) -> bool:
    """Whether this name, or file, is one that `load` takes."""
    return name in ("best", "live") or name.endswith(".onnx") or name in names()


def load(name: str | Path = "best") -> Denoiser:
    """A denoiser by name (studio16k for recordings, base16k for streams: "best", "live"), or by the path of a graph."""
    name = {"best": BEST, "live": LIVE}.get(str(name), str(name))
    if name in names():
        return shipped(name)
    if not name.endswith(".onnx"):
        known = ", ".join(names())
        raise WavelldmError(f"'{name}' does not run without PyTorch; choose one of {known}, or an .onnx file")
    graph = Graph(name)
    if graph.facts.form == "whole":
        raise WavelldmError(f"{name} takes a recording at once and keeps no state; export it with --streaming")
    return Denoiser(Path(name).stem, graph)
