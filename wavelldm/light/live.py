"""From a microphone to a loudspeaker, or from a file to a file at the same pace: blocks come when they come.

What is heard is either cleaned or, with `bypass` or while the computer is too slow, the sound as it came; both are
equally late, and one fades into the other, so that nothing clicks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import AudioError, WavelldmError
from . import files
from .denoiser import Denoiser

BLOCK = 0.016  # seconds
FADE = 0.02  # seconds from one to the other
PATIENCE = 12  # blocks, of which the median must not take longer than it lasts
REST = 2.0  # seconds of bypass after an overload
MISSING = "a microphone needs the package sounddevice; install it with: pip install 'wavelldm[live]'"


class Fifo:
    """Samples (C, any) that wait."""

    def __init__(self, channels: int, silent: int):
        self.held = np.zeros((channels, silent), np.float32)

    def push(self, block: np.ndarray) -> None:
        self.held = np.concatenate([self.held, block], axis=1)

    def take(self, count: int) -> np.ndarray:
        first, self.held = self.held[:, :count], self.held[:, count:]
        return first


@dataclass
class Live:
    """One stream: `process(block)` gives as many samples as it gets, `delay` samples late."""

    model: Denoiser
    sr: int
    channels: int = 1
    strength: float = 1.0
    background: float = 0.0
    bypass: bool = False
    clock: Callable[[], float] = time.perf_counter
    load: float = 0.0  # share of the time that a block lasts, smoothed
    worst: float = 0.0  # of one block
    overloads: int = 0
    levels: tuple[float, float] = (-120.0, -120.0)  # dB, in and out
    _shares: list = field(default_factory=list)

    def __post_init__(self):
        self._begin()
        self.delay = self.session.latency
        self.original = Fifo(self.channels, self.delay)
        self.share, self.resting = float(not self.bypass), 0  # of the cleaned sound in what is heard; samples of rest
        self.tired = False

    def _begin(self) -> None:
        self.session = self.model.stream(self.sr, self.channels, self.strength, self.background)
        self.cleaned = Fifo(self.channels, self.session.latency)
        self.known = 0  # samples that this session has given

    def process(self, block: np.ndarray) -> np.ndarray:
        """(C, n) -> (C, n)."""
        n, began = block.shape[1], self.clock()
        self.original.push(block)
        original = self.original.take(n)
        cleaned = self._clean(block, original)
        wanted = float(not (self.bypass or self.tired or self.resting) and self.known >= self.delay)
        step = n / (FADE * self.sr)
        end = self.share + float(np.clip(wanted - self.share, -step, step))
        shares = np.linspace(self.share, end, n, dtype=np.float32)
        self.share = end
        out = original + shares * (cleaned - original)
        self.levels = (level(block), level(out))
        self._watch((self.clock() - began) * self.sr / n)
        return out

    def _clean(self, block: np.ndarray, original: np.ndarray) -> np.ndarray:
        if self.resting:
            self.resting = max(0, self.resting - block.shape[1])
            if not self.resting:
                self._begin()
            return original
        self.cleaned.push(self.session.push(block))
        self.known += block.shape[1]
        return self.cleaned.take(block.shape[1])

    def _watch(self, share: float) -> None:
        """Give up for a while if blocks take longer than they last, once the cleaned sound has faded out."""
        self.load = share if not self.load else 0.95 * self.load + 0.05 * share
        self.worst = max(self.worst, share)
        self._shares = [*self._shares, share][-PATIENCE:]
        if not (self.tired or self.resting) and len(self._shares) == PATIENCE and np.median(self._shares) > 1:
            self.overloads, self.tired = self.overloads + 1, True
        if self.tired and self.share == 0:
            self.resting, self.tired, self._shares = round(REST * self.sr), False, []

    def status(self) -> str:
        """A line for a person."""
        state = "too slow: bypass" if self.resting or self.tired else "bypass" if self.bypass else "cleaning"
        into, out = self.levels
        late = 1_000 * (self.delay / self.sr + BLOCK)
        return f"{state:<16} in {into:6.1f} dB  out {out:6.1f} dB  load {100 * self.load:4.0f} %  {late:.0f} ms late"


def level(block: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(block)) + 1e-12)) if block.size else -120.0


def from_file(
    model: Denoiser,
    source: str | Path,
    target: str | Path,
    force: bool = False,
    shown: Callable[[Live], None] | None = None,
    pace: bool = True,
    **choices: float,
) -> Live:
    """A file as if it came from a microphone, at the pace at which it would; the result is as long, and late."""
    facts = files.info(source)
    live = Live(model, facts.sr, facts.channels, **choices)

    def blocks():
        began, due = time.perf_counter(), 0.0
        for block in files.read_blocks(source, BLOCK):
            due += block.shape[1] / facts.sr
            yield live.process(block)
            if pace:
                time.sleep(max(0.0, began + due - time.perf_counter()))
            if shown is not None:
                shown(live)

    files.save_blocks(target, blocks(), facts.sr, like=facts, force=force)
    return live


def sound_card() -> "object":
    """The package that talks to sound cards."""
    try:
        import sounddevice
    except ImportError:
        raise WavelldmError(MISSING) from None
    except OSError:
        raise WavelldmError("the library PortAudio is missing; install it (Debian: libportaudio2)") from None
    return sounddevice


def devices() -> str:
    """All sound devices, a line each, with the numbers that `from_microphone` takes."""
    return str(sound_card().query_devices()) or "there is no sound device"


def from_microphone(
    model: Denoiser,
    microphone: str | int | None = None,
    loudspeaker: str | int | None = None,
    shown: Callable[[Live], bool] | None = None,
    **choices: float,
) -> None:
    """Clean what a microphone hears until `shown`, called ten times a second, says that it is enough."""
    sd = sound_card()
    try:
        rate = int(sd.query_devices(microphone, "input")["default_samplerate"])
        live = Live(model, rate, **choices)

        def heard(into: np.ndarray, out: np.ndarray, frames: int, when: object, status: object) -> None:
            out[:] = live.process(into.T.copy()).T

        size = round(BLOCK * rate)
        with sd.Stream(rate, size, (microphone, loudspeaker), 1, "float32", callback=heard) as stream:
            while stream.active and not (shown is not None and shown(live)):
                time.sleep(0.1)
            if not stream.active:
                raise AudioError("the sound device stopped; is the microphone still plugged in?")
    except (sd.PortAudioError, ValueError) as error:
        raise AudioError(
            f"there is no sound device that can be used ({error}); name one with --microphone and --loudspeaker, see "
            "--devices, or give files with --input and --output"
        ) from None
