"""One recording through a denoiser, block by block, in constant memory: `Session`.

    sound -> resample to the network's rate -> network -> [restorer] -> resample back -> mix with the delayed sound

All stages have one form: `push(block, last)` takes the next block (..., any) and gives what is certain by now, or
with `last` all that is left; `ready(counts)` says how many samples are out when so many are in. What comes out does
not depend on how the sound is cut into blocks: it equals what the networks make of the whole recording at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio import files
from ..audio.blocks import CrossFade, Resampler, Windows
from ..audio.stft import stft
from ..codec.compress import MARGINS, decoder_margin, encoder_margin
from ..codec.model import Codec
from ..diffusion.latent import LatentDiffusion
from ..diffusion.samplers import FrameNoise
from ..errors import AudioError, WavelldmError
from ..light.denoiser import AFTER, LEVEL, SPAN
from ..restore.restorer import KINDS, Peaks, Restorer, as_mask
from .logmmse import LogMMSE
from .mask import MaskNet, MaskState
from .segan import deemphasise, emphasise

TOGETHER = 2  # channels that go through a span at a time, so that many need no more memory
FRAME = 512  # samples over which the gain of the highest bins of a waveform is measured


@dataclass(frozen=True)
class Settings:
    """What a user may choose. A denoiser refuses what it cannot do."""

    steps: int = 1  # of the diffusion's sampler, and of what fills gaps: 0 draws straight lines across them
    sampler: str | None = None  # default: the one the model was made for
    strength: float = 1.0  # the mask's gain in decibels, times this: 0 changes nothing
    background: float = 0.0  # share of what was removed that is put back
    seed: int = 0
    restore: bool = False  # repair what is damaged too
    kinds: tuple[str, ...] = KINDS  # of damage that is repaired
    bold: bool = False  # fill gaps by drawing even where noise is louder than speech by 7 dB
    rounded: bool = False  # without a mask: round the clean latent to codes before it is decoded

    def __post_init__(self):
        if not (self.steps >= (not self.restore) and 0 <= self.strength <= 4 and 0 <= self.background <= 1):
            raise WavelldmError(
                "steps begin at 1 (at 0 where gaps are filled), strength lies between 0 and 4, and the kept background "
                "between 0 and 1"
            )
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown:
            raise WavelldmError(f"there is no kind of damage called '{unknown[0]}'; choose of {', '.join(KINDS)}")


DEFAULTS = Settings()


class Stage(Protocol):
    """A network at work on one recording, at its own rate."""

    def push(self, wav: Tensor, last: bool = False) -> Tensor:
        """wav (C, n) -> (2, C, m): the cleaned sound, and the gain for what lies above the network's band."""

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""


class Queue:
    """Samples or frames (..., any) that wait until they are taken."""

    def __init__(self):
        self.held: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.held is None else self.held.shape[-1]

    def push(self, x: Tensor) -> None:
        self.held = x if self.held is None else torch.cat([self.held, x], dim=-1)

    def take(self, count: int) -> Tensor:
        """The first `count`, which then wait no longer."""
        first, self.held = self.held[..., :count], self.held[..., count:]
        return first


def through(stage: Resampler | CrossFade, block: Tensor, last: bool) -> Tensor:
    """The next block through a stage of audio/blocks.py; with `last` all that is left too."""
    out = stage.push(block)
    return torch.cat([out, stage.finish().to(out)], dim=-1) if last else out


class LatentStage:
    """wav (C, n) -> clean latents (C, D, frames): the codec's encoder on overlapping windows, then the diffusion."""

    def __init__(self, codec: Codec, diffusion: LatentDiffusion, settings: Settings, size: int):
        self.codec, self.diffusion, self.settings = codec, diffusion, settings
        self.windows = Windows(codec.hop, encoder_margin(codec), size)
        self.state = None

    def push(self, wav: Tensor, last: bool = False) -> Tensor:
        if self.state is None:
            s, noise = self.settings, FrameNoise(self.settings.seed, shared=True)  # channels get the same
            self.state = self.diffusion.initial_state(len(wav), s.steps, s.sampler, noise)
        latents = [wav.new_zeros(len(wav), self.diffusion.config.latent_dim, 0)]
        for window, before, count in self.windows.push(wav) + (self.windows.finish() if last else []):
            z = self.codec.encode(window[:, None], self.codec.sr)[..., before : before + count]
            z, self.state = self.diffusion.step(z, self.state)
            latents.append(z)
        return torch.cat(latents, dim=-1)

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return self.windows.ready(counts)  # in samples, not frames


class DecoderStage:
    """Clean latents through the codec's decoder. Above its band there is nothing."""

    def __init__(self, codec: Codec, diffusion: LatentDiffusion, settings: Settings, size: int):
        self.codec, self.rounded = codec, settings.rounded
        self.latents = LatentStage(codec, diffusion, settings, size)
        margin = decoder_margin(codec)
        self.windows = Windows(1, margin, max(size, MARGINS * margin))
        self.received = self.made = 0
        self.state = None

    def push(self, wav: Tensor, last: bool = False) -> Tensor:
        self.received += wav.shape[1]
        self.state = self.state or self.codec.initial_window_state(len(wav))
        z = self.latents.push(wav, last)
        if self.rounded and z.shape[-1]:
            z = self.codec.quantise(z)[0]
        parts = [wav[:, :0]]
        for window, before, count in self.windows.push(z) + (self.windows.finish() if last else []):
            out, self.state = self.codec.decode_window(window, before, count, self.state)
            parts.append(out[:, 0])
        out = torch.cat(parts, dim=1)[:, : self.received - self.made]
        self.made += out.shape[1]
        return torch.stack([out, torch.zeros_like(out)])

    def ready(self, counts: np.ndarray) -> np.ndarray:
        hop = self.codec.hop
        return self.windows.ready(self.latents.ready(counts) // hop) * hop


class MaskStage:
    """The mask network, alone or guided by clean latents.

    `lengths` (C,): where each channel ends, if some are padded; what follows then counts as if it were not there.
    """

    def __init__(
        self, net: MaskNet, settings: Settings, guide: LatentStage | None = None, lengths: Tensor | None = None
    ):
        self.net, self.strength, self.guide, self.lengths = net, settings.strength, guide, lengths
        self.waiting, self.spec, self.latents = Queue(), Queue(), Queue()  # samples, frames and latents not used up yet
        self.received = 0  # samples
        self.made = -net.side  # samples: the first frame reaches back beyond the beginning
        self.frames = 0  # that are cleaned
        self.state = self.tail = self.gain = None

    def push(self, wav: Tensor, last: bool = False) -> Tensor:
        c = self.net.config
        self.received += wav.shape[1]
        if self.state is None:
            self.state = self.net.initial_state(len(wav))
            self.waiting.push(wav.new_zeros(len(wav), self.net.side))
        if self.guide is not None:
            latents = self.guide.push(wav, last)
            self.latents.push(F.pad(latents, (0, c.ahead + 3)) if last else latents)
        if last:
            if self.lengths is None:
                self.lengths = torch.full((len(wav),), self.received, device=wav.device)
            wav = F.pad(wav, (0, (c.ahead + 1) * c.hop + c.n_fft))  # the last frame with a sample in it, and one more
        self.waiting.push(wav)
        self._transform()
        tracks = self._clean(wav, last)
        return tracks[..., : self.received - self.made + tracks.shape[-1]] if last else tracks

    def _transform(self) -> None:
        """All whole frames of the waiting samples."""
        c = self.net.config
        count = (len(self.waiting) - c.n_fft) // c.hop + 1
        if count > 0:
            samples = self.waiting.held[:, : c.n_fft + (count - 1) * c.hop]
            self.spec.push(self.net.frames(samples).transpose(1, 2))  # (C, bins, T)
            self.waiting.take(count * c.hop)

    def _answer(self, last: bool) -> tuple[Tensor, Tensor, Tensor] | None:
        """All frames that the network can answer now, noisy and cleaned, and their mask (C, T, bins)."""
        c = self.net.config
        asked = self.state.spec.shape[1] - c.taps  # frames that it knows and has not answered
        count = max(0, asked + len(self.spec) - c.ahead)
        count = count if self.guide is None else min(count, len(self.latents))
        if count == 0:
            return None
        spec = self.spec.take(count + c.ahead - asked).transpose(1, 2)  # (C, T, bins)
        latent = None if self.guide is None else self.guide.diffusion.normalise(self.latents.take(count))
        noisy = torch.cat([self.state.spec[:, c.taps :], spec], dim=1)[:, :count]
        (cleaned, mask), self.state = self.net.step(spec, self.state, latent)
        return noisy, cleaned, mask

    def _clean(self, wav: Tensor, last: bool) -> Tensor:
        """(2, C, n): the sound of all frames that the network can answer now, and the gain of its highest bins."""
        answer = self._answer(last)
        if answer is None:
            return wav.new_zeros(2, len(wav), 0)
        noisy, cleaned, mask = answer
        count = cleaned.shape[1]
        if self.strength != 1:
            cleaned, mask = strengthened(noisy, cleaned, mask, self.strength)
        sound, self.tail = self.net.overlap(cleaned, self.tail, self._inside(self.frames, count, self.net.config.hop))
        self.frames += count
        skipped = min(max(0, -self.made), sound.shape[1])
        tracks = torch.stack([sound, self._top_gain(mask)])[..., skipped:]
        self.made += skipped
        inside = self._inside(self.made, tracks.shape[-1], 1)
        self.made += tracks.shape[-1]
        if inside is None:
            return tracks
        return torch.stack([tracks[0] * inside, torch.where(inside, tracks[1], 1.0)])

    def _inside(self, first: int, count: int, unit: int) -> Tensor | None:
        """Which of the next frames (or samples) begin before the end of each channel (C, count)."""
        if self.lengths is None:
            return None
        return (first + torch.arange(count, device=self.lengths.device)) * unit < self.lengths[:, None]

    def _top_gain(self, mask: Tensor) -> Tensor:
        """mask (C, T, bins) -> the gain of its highest quarter, on straight lines between frames (C, T * hop)."""
        top = mask.abs()[..., -self.net.config.n_fft // 8 :].mean(-1).clamp(max=1)  # (C, T)
        points = torch.cat([top[:, :1] if self.gain is None else self.gain, top], dim=1)
        self.gain = top[:, -1:]
        ramp = torch.arange(1, self.net.config.hop + 1, device=mask.device) / self.net.config.hop
        return (points[:, :-1, None] * (1 - ramp) + points[:, 1:, None] * ramp).flatten(1)

    def ready(self, counts: np.ndarray) -> np.ndarray:
        c, side = self.net.config, self.net.side
        frames = ((counts + side - c.n_fft) // c.hop + 1 - c.ahead).clip(min=0)
        if self.guide is not None:
            frames = np.minimum(frames, self.guide.ready(counts) // c.hop)
        return (frames * c.hop - side).clip(min=0)


class RecordingStage(MaskStage):
    """A mask network that hears time both ways, SPAN frames at a time and AFTER more that come later.

    Memory stays constant. What it heard before goes on from one span to the next. Its way back begins AFTER frames
    behind each span, so that the result differs a little from that of the whole recording at once. One that is not
    longer than both is a single span.
    """

    def __init__(self, net: MaskNet, settings: Settings):
        super().__init__(net, settings)
        self.heard = 0  # frames
        self.states: list[MaskState] = []  # of every TOGETHER channels

    def _answer(self, last: bool) -> tuple[Tensor, Tensor, Tensor] | None:
        c, parts = self.net.config, []
        if last:  # the frames of the recording, and those ahead of its last one
            self.spec.held = self.spec.held[..., : -(-self.received // c.hop) - self.heard + c.ahead]
        while len(self.spec) >= SPAN + AFTER or (last and len(self.spec) > c.ahead):
            keep = SPAN if len(self.spec) >= SPAN + AFTER else len(self.spec) - c.ahead
            window = self.spec.held[..., : SPAN + AFTER].transpose(1, 2)  # (C, T, bins)
            groups = window.split(TOGETHER)
            self.states = self.states or [self.net.initial_state(len(group)) for group in groups]
            done = [self.net.step(group, state, keep=keep) for group, state in zip(groups, self.states, strict=True)]
            answers, self.states = (list(part) for part in zip(*done))
            parts.append((self.spec.take(keep).transpose(1, 2), *(torch.cat(part) for part in zip(*answers))))
            self.heard += keep
        if not parts:
            return None
        found = [torch.cat(part, dim=1) for part in zip(*parts)]
        return tuple(F.pad(x, (0, 0, 0, int(last))) for x in found)  # and one more, in which the last one ends

    def ready(self, counts: np.ndarray) -> np.ndarray:
        c, side = self.net.config, self.net.side
        frames = ((counts + side - c.n_fft) // c.hop + 1).clip(min=0)
        spans = ((frames - AFTER) // SPAN).clip(min=0)
        return (spans * SPAN * c.hop - side).clip(min=0)


def strengthened(noisy: Tensor, cleaned: Tensor, mask: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """The cleaned spectrum, and the mask that made it, with the mask's gain in decibels times `strength`.

    Below 1 its phase, and what the filter added from other frames, shrink as well, so that at 0 nothing has changed.
    """
    less = min(strength, 1.0)
    change = torch.polar(mask.abs().clamp_min(1e-4) ** (strength - 1), (less - 1) * mask.angle())
    alone = noisy * mask
    return change * (alone + less * (cleaned - alone)), mask * change


def top_gain(noisy: Tensor, cleaned: Tensor) -> Tensor:
    """(C, n) each -> (C, n): how far the highest quarter of the band was turned down, for what lies above."""
    before, after = (
        stft(x, FRAME, FRAME // 2, FRAME, "center")[..., -FRAME // 8 :, :].abs().square().sum(-2)
        for x in (noisy, cleaned)
    )
    gain = (after / before.clamp_min(1e-12)).sqrt().clamp(max=1)  # (C, T)
    return F.interpolate(gain[:, None], noisy.shape[1], mode="linear", align_corners=True)[:, 0]


class WindowStage:
    """A network that cleans windows of fixed length, which overlap and fade into each other.

    `clean` turns (C, 1, window) into the same; if it works on pre-emphasised sound, as SEGAN does, `emphasis` says
    how much.
    """

    def __init__(self, clean: Callable[[Tensor], Tensor], window: int, overlap: int, emphasis: float = 0.0):
        self.clean, self.emphasis = clean, emphasis
        self.joined = CrossFade(self._cleaned, window, overlap, pad=True)
        self.before_in = self.before_out = None  # the last samples (C, 1)

    def _cleaned(self, tracks: Tensor) -> Tensor:
        """(2, C, window), sound and gain, -> the same, cleaned."""
        noisy, gain = tracks
        cleaned = self.clean(noisy[:, None])[:, 0]
        return torch.stack([cleaned, gain * top_gain(noisy, cleaned)])

    def push(self, wav: Tensor, last: bool = False) -> Tensor:
        if not self.emphasis:
            return through(self.joined, torch.stack([wav, torch.ones_like(wav)]), last)
        lifted = emphasise(wav, self.emphasis, self.before_in)
        self.before_in = wav[:, -1:] if wav.shape[1] else self.before_in
        cleaned, above = through(self.joined, torch.stack([lifted, torch.ones_like(wav)]), last)
        cleaned = deemphasise(cleaned, self.emphasis, self.before_out)
        self.before_out = cleaned[:, -1:] if cleaned.shape[1] else self.before_out
        return torch.stack([cleaned, above])

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return self.joined.ready(counts)


class IdleStage:
    """Changes nothing, so that a recording can be restored alone."""

    def push(self, wav: Tensor, last: bool = False) -> Tensor:
        return torch.stack([wav, torch.ones_like(wav)])

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return counts


class ClassicalStage:
    """log-MMSE. It works at any rate, so nothing lies above its band."""

    def __init__(self, sr: int):
        self.stream = LogMMSE(sr)

    def push(self, wav: Tensor, last: bool = False) -> Tensor:
        out = self.stream.push(wav)
        if last:
            out = torch.cat([out, self.stream.finish()], dim=1)
        return torch.stack([out, torch.ones_like(out)])

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return self.stream.ready(counts)


class Session:
    """One recording being cleaned as it arrives: `push` blocks of any size, from one sample on, then `finish`.

    What comes out, joined, is as long as what went in, at the same rate, as loud, and aligned with it. `latency` says
    how many samples the output lags behind. `stage` is None if nothing is to be cleaned or filled, `peaks` if none are
    missing. `bridged` draws straight lines across gaps before cleaning, as a hole disturbs a denoiser; the restorer
    fills them after it. `only`: gaps of each channel in samples; then all else stays as it is to the bit.
    """

    def __init__(
        self,
        stage: Stage | None,
        sr: int,
        stage_sr: int,
        levels: Sequence[float],
        background: float = 0.0,
        restorer: Restorer | None = None,
        lengths: Tensor | None = None,
        device: torch.device | str = "cpu",
        only: Sequence[Sequence[tuple[int, int]]] | None = None,
        peaks: Peaks | None = None,
        bridged: Restorer | None = None,
    ):
        self.peaks, self.bridged = peaks, bridged
        self.stage, self.restorer, self.background, self.only = stage, restorer, background, only
        self.sr, self.stage_sr, self.channels, self.device = sr, stage_sr, len(levels), torch.device(device)
        self.gain = torch.tensor([[10 ** ((LEVEL - level) / 20)] for level in levels], device=device)  # (C, 1)
        self.down, self.up = Resampler(sr, stage_sr, self.channels), Resampler(stage_sr, sr, 3 * self.channels)
        self.adds_top = sr > stage_sr  # what lies above the network's band comes from the original
        self.original, self.low = Queue(), Queue()  # what waits for its cleaned twin, at both rates
        self.lengths = None if lengths is None else -(-lengths * stage_sr // sr)  # at the network's rate
        self.received = self.lowered = self.given = 0  # samples in, at both rates, and out
        self.finished = False
        self.like = torch.zeros(self.channels, 0)  # an empty block of the kind that is pushed

    def push(self, block: Tensor) -> Tensor:
        """(C, any), or (any,) of one channel -> what is certain by now, of the same kind and on the same device."""
        if self.finished:
            raise WavelldmError("this session is finished; begin another one for another recording")
        rows = block[None] if block.ndim == 1 else block
        if rows.ndim != 2 or len(rows) != self.channels:
            raise AudioError(
                f"this session takes blocks of {self.channels} channels (C, any), not {tuple(block.shape)}"
            )
        rows = check_samples(rows)
        self.like = rows[:, :0].reshape(*block.shape[:-1], 0)
        return self._given_back(self._through(rows.to(self.device, torch.float32), False))

    def finish(self) -> Tensor:
        """The rest, of the same kind as the blocks that were pushed."""
        if self.finished:
            raise WavelldmError("this session is finished already")
        self.finished = True
        return self._given_back(self._through(torch.zeros(self.channels, 0, device=self.device), True))

    def _given_back(self, rows: Tensor) -> Tensor:
        return rows.reshape(*self.like.shape[:-1], rows.shape[1]).to(self.like)

    @torch.no_grad()
    def _through(self, block: Tensor, last: bool) -> Tensor:
        if self.peaks is not None:
            block = self.peaks.push(block, last)
        if self.stage is None or (last and self.received + block.shape[1] == 0):
            return block
        self.received += block.shape[1]
        self.original.push(block)
        low = self._cut(through(self.down, self.gain * block, last))
        self.low.push(low)
        if self.bridged is not None:
            low = self.bridged.push(torch.stack([low, torch.ones_like(low), low]), last)[0]
        cleaned, above = self.stage.push(low, last)
        low = self.low.take(cleaned.shape[1])
        cleaned, above = cleaned + self.background * (low - cleaned), above + self.background * (1 - above)
        if self.restorer is not None:
            cleaned, above, low = self.restorer.push(torch.stack([cleaned, above, low]), last)
        if not self.adds_top:
            above = torch.zeros_like(above)
        changes = through(self.up, torch.cat([cleaned - low, above - 1, low]), last)  # (3 C, n)
        changes = changes.unflatten(0, (3, -1))[..., : len(self.original)]
        original = self.original.take(changes.shape[-1])
        mixed, first = self._mixed(*changes, original), self.given
        self.given += original.shape[1]
        if self.only is None:
            return mixed
        inside = torch.stack([as_mask(gaps, first, original.shape[1]) for gaps in self.only])
        return torch.where(inside.to(mixed.device), mixed, original)

    def _mixed(self, change: Tensor, top_change: Tensor, low: Tensor, original: Tensor) -> Tensor:
        """The original, plus what the network changes, plus what follows for all that the network did not hear."""
        if self.sr == self.stage_sr:
            return original + change / self.gain
        return original + (change + top_change.clamp(-1, 0) * (self.gain * original - low)) / self.gain

    def _cut(self, low: Tensor) -> Tensor:
        """Silence after the end of each channel, where resampling rings on."""
        first, self.lowered = self.lowered, self.lowered + low.shape[1]
        if self.lengths is None:
            return low
        return low * (first + torch.arange(low.shape[1], device=low.device) < self.lengths[:, None])

    @cached_property
    def latency(self) -> int:
        """The most samples that are in and not yet out, whatever the size of the blocks."""
        if self.stage is None and self.peaks is None:
            return 0
        horizon = 10 * self.sr
        while True:
            counts = np.arange(1, horizon + 1)
            waiting = int((counts - self._ready(counts)).max())
            if 3 * waiting <= horizon:
                return waiting
            horizon = 4 * waiting

    def _ready(self, counts: np.ndarray) -> np.ndarray:
        if self.peaks is not None:
            counts = self.peaks.ready(counts)
        if self.stage is None:
            return counts
        counts = self.down.ready(counts)
        if self.bridged is not None:
            counts = self.bridged.ready(counts)
        counts = self.stage.ready(counts)
        if self.restorer is not None:
            counts = self.restorer.ready(counts)
        return self.up.ready(counts)


def check_samples(wav: Tensor) -> Tensor:
    """Samples as floats from -1 to 1; whole numbers are scaled."""
    wav = files.as_float(wav)
    if not torch.isfinite(wav).all():
        raise AudioError("the recording holds NaN or infinite samples; repair it first")
    return wav
