"""The front door: `load()` a denoiser; `enhance` recordings in memory, `enhance_file` on disk, `stream` live ones."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import weights
from ..audio import files
from ..audio.levels import active_power
from ..codec.model import Codec
from ..diffusion.latent import LatentDiffusion
from ..errors import AudioError, WavelldmError
from ..light.denoiser import BEST, LIVE, QUIETEST, SECONDS, cleaned_blocks
from ..progress import progress_bar
from ..restore.find import Damage, Finder
from ..restore.gaps import SR
from ..restore.restorer import Peaks, Restorer, at_rate, headroom, wanted
from .chain import (
    DEFAULTS,
    LEVEL,
    ClassicalStage,
    DecoderStage,
    IdleStage,
    LatentStage,
    MaskStage,
    RecordingStage,
    Session,
    Settings,
    Stage,
    WindowStage,
    check_samples,
)
from .mask import MaskNet
from .segan import Segan
from .waveform import WaveDenoiser

CHANNELS = 4  # that are worked on for so long; of more, shorter blocks
AT_ONCE, SOON = 256, 8  # latent frames that are worked on at a time: of a whole recording, and while somebody waits
CAN = {  # what a denoiser that lacks a setting does not do
    "steps": "take several steps",
    "sampler": "choose a sampler",
    "strength": "change the strength",
    "restore": "restore what is missing",
    "kinds": "choose what to repair without --restore",
    "bold": "draw without --restore",
    "rounded": "round latents to codes",
}


@dataclass(frozen=True)
class Look:
    """What a first look at a recording found, for each of its channels."""

    levels: tuple[float, ...]  # dB of active speech; that which the networks know, where there is nothing to bring up
    damages: tuple[Damage, ...]  # gaps in samples of the recording; none, if nobody asked
    gain: float = 1.0  # of the whole recording, so that peaks that are put back fit into its file


def look_at(blocks: Iterable[Tensor], sr: int, damage: bool = False) -> Look:
    """The first look at wav blocks (C, any). Levels are those of the loudest tenth of all seconds. `damage`: look for
    that, too."""
    powers, finder, channels = [], Finder(sr) if damage else None, 0
    for block in blocks:
        channels = len(block)
        if finder is not None:
            finder.push(block)
        for part in block.float().split(sr, dim=1):
            powers.append(active_power(part, sr))  # (C,)
    loudest = torch.stack(powers).sort(dim=0).values[-max(1, len(powers) // 10) :].mean(0)  # (C,)
    levels = [10 * math.log10(p) if p > 10 ** (QUIETEST / 10) else LEVEL for p in loudest.tolist()]
    return Look(tuple(levels), (Damage(),) * channels if finder is None else finder.finish())


def look_at_file(
    source: str | Path,
    target: str | Path,
    settings: Settings = DEFAULTS,
    gaps: Sequence[tuple[tuple[int, int], ...]] | None = None,
) -> Look:
    """The first look at a file that is to become `target`. `gaps`: of each channel, in place of those found."""
    facts = files.info(source)
    look = look_at(files.read_blocks(source, seconds=10.0), facts.sr, settings.restore)
    damages = wanted(look.damages, settings.kinds)
    if gaps is not None:
        damages = tuple(replace(damage, gaps=named) for damage, named in zip(damages, gaps, strict=True))
    gain = 1.0
    if any(d.ceiling or d.curve for d in damages) and not files.keeps_peaks(target, facts.sr, facts):
        gain = headroom(files.read_blocks(source, seconds=SECONDS), damages, facts.sr)
    return Look(look.levels, damages, gain)


class Denoiser:
    """A named denoiser. Each kind says how it works on a recording (`stage`) and which settings it has (`honours`).

    Channels are cleaned apart. The networks know speech at one level, so that of each channel is measured first; a
    stream cannot, and takes it as told. What comes out is as loud as what went in.
    """

    pads = False  # recordings of different length can be cleaned together
    changes = True  # what is not damaged, too

    def __init__(self, name: str, training: str, device: torch.device | str = "cpu"):
        self.name, self.training, self.device = name, training, torch.device(device)

    def rate(self, sr: int) -> int:
        """The rate at which a recording of rate `sr` is worked on."""
        raise NotImplementedError

    def honours(self, settings: Settings) -> set[str]:
        """The names of the settings that change something, beside background and seed."""
        raise NotImplementedError

    def stage(self, sr: int, settings: Settings, size: int, lengths: Tensor | None) -> Stage:
        """Ready for one recording. `size`: latent frames at a time; `lengths`: where padded channels end."""
        raise NotImplementedError

    @property
    def restores(self) -> bool:
        """Whether it works at the rate at which damage is repaired."""
        return False

    def check(self, settings: Settings) -> None:
        """Refuse settings that this denoiser cannot honour."""
        honoured = self.honours(settings) | ({"restore"} if self.restores else set())
        honoured |= {"steps", "kinds", "bold"} if settings.restore else set()
        for name, deed in CAN.items():
            changed = getattr(settings, name) != getattr(DEFAULTS, name)
            if changed and name not in honoured:
                raise WavelldmError(
                    f"{self.name} cannot {deed}; choose another --model, or leave the option '{name}' out"
                )

    def stream(
        self,
        sr: int,
        channels: int = 1,
        settings: Settings = DEFAULTS,
        level: float | Sequence[float] = LEVEL,
    ) -> Session:
        """A session for one recording as it arrives: `push(block)`, `finish()`, `latency`.

        `level`: of its speech in dB (of each channel, or of all), which nobody can measure before it is there. With
        what `look_at` finds, or the same level for both, a stream gives what `enhance` gives. With `restore`, gaps are
        looked for as the sound comes; an overload is not.
        """
        levels = (float(level),) * channels if isinstance(level, int | float) else tuple(level)
        if channels < 1 or len(levels) != channels:
            raise WavelldmError(f"a stream has one channel or more, and one level or one for each, not {len(levels)}")
        return self._session(files.check_rate(sr), settings, Look(levels, (Damage(None),) * channels), SOON)

    def _session(self, sr: int, settings: Settings, look: Look, size: int, lengths: Tensor | None = None) -> Session:
        self.check(settings)
        stage, peaks, restorer, bridged, only, rate = None, None, None, None, None, self.rate(sr)
        damages = wanted(look.damages, settings.kinds) if settings.restore else ()
        if any(d.ceiling or d.curve for d in damages):
            peaks = Peaks(damages, sr)
        if any(d.gaps is None or d.gaps for d in damages):
            low = tuple(at_rate(d, sr, rate) for d in damages)
            restorer = Restorer(low, settings.steps, settings.seed, settings.bold, self.device)
            if all(d.gaps is not None for d in damages):
                bridged = Restorer(low, 0, device=self.device) if self.changes else None
                only = None if self.changes else [d.gaps for d in damages]
        if (self.changes and settings.strength > 0) or restorer is not None:
            ends = None if lengths is None else -(-lengths * rate // sr)
            stage = self.stage(sr, settings, size, ends)
        return Session(
            stage, sr, rate, look.levels, settings.background, restorer, lengths, self.device, only, peaks, bridged
        )

    def enhance(
        self,
        wav: Tensor | Sequence[Tensor],
        sr: int,
        settings: Settings = DEFAULTS,
        level: float | None = None,
        damages: Sequence[Damage] | None = None,
    ) -> Tensor | list[Tensor]:
        """(N,) or (C, N), or a list of such -> cleaned, each of the same shape, as loud as it was, on the same device.

        `level`: of the speech in dB; by default that of each channel is measured. `damages`: of each channel of one
        recording, for those who know; by default they are looked for, if they are to be restored.
        """
        sr = files.check_rate(sr)
        if isinstance(wav, Tensor):
            return self._together([wav], sr, settings, level, damages)[0]
        if damages is not None:
            raise WavelldmError("damages are those of one recording; give recordings one by one")
        found: list = [None] * len(wav)
        for group in self._groups(wav, settings):
            for i, cleaned in zip(group, self._together([wav[i] for i in group], sr, settings, level)):
                found[i] = cleaned
        return found

    def _groups(self, clips: Sequence[Tensor], settings: Settings) -> list[list[int]]:
        """The numbers of the clips that can be cleaned together: all, or those of one length."""
        if self.pads and not settings.restore:
            return [list(range(len(clips)))] if len(clips) else []
        lengths = [clip.shape[-1] for clip in clips]
        return [[i for i, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]

    def _together(
        self,
        clips: Sequence[Tensor],
        sr: int,
        settings: Settings,
        level: float | None,
        damages: Sequence[Damage] | None = None,
    ) -> list[Tensor]:
        """All channels of all clips as the channels of one recording."""
        each = [self._rows(clip) for clip in clips]  # (C, N)
        levels: list[float] = []
        found: list[Damage] = []
        for rows in each:
            seek = settings.restore and damages is None
            if level is None or seek:
                look = look_at([rows], sr, seek)
            else:
                look = Look((LEVEL,) * len(rows), (Damage(),) * len(rows))
            levels += look.levels if level is None else [float(level)] * len(rows)
            found += look.damages
        look = Look(tuple(levels), tuple(found if damages is None else check_count(damages, len(found))))
        longest = max(rows.shape[1] for rows in each)
        lengths = torch.tensor([rows.shape[1] for rows in each for _ in rows], device=self.device)
        padded = torch.cat([files.fit(rows, longest) for rows in each])
        alike = len({rows.shape[1] for rows in each}) == 1
        session = self._session(sr, settings, look, AT_ONCE, None if alike else lengths)
        size = max(1, round(SECONDS * sr * share_of(len(padded))))
        parts = [session.push(part) for part in padded.split(size, dim=1)]
        cleaned = torch.cat([*parts, session.finish()], dim=1).split([len(rows) for rows in each])
        return [
            out[:, : clip.shape[-1]].reshape(clip.shape).to(clip.device, files.as_float(clip[..., :0]).dtype)
            for out, clip in zip(cleaned, clips)
        ]

    def _rows(self, wav: Tensor) -> Tensor:
        """A clip as float (C, N), where the networks are."""
        if wav.ndim not in (1, 2) or wav.numel() == 0:
            raise AudioError(f"enhance takes wav (N,) or (C, N) with samples in it, not {tuple(wav.shape)}")
        if wav.device.type not in ("cpu", self.device.type):
            raise WavelldmError(
                f"the sound is on {wav.device} and {self.name} on {self.device}; load it there, or move one"
            )
        return check_samples(wav).to(self.device, torch.float32).reshape(-1, wav.shape[-1])

    def enhance_file(
        self,
        source: str | Path,
        target: str | Path,
        force: bool = False,
        progress: bool = True,
        settings: Settings = DEFAULTS,
        live: bool = False,
        look: Look | None = None,
    ) -> files.AudioInfo:
        """Clean a file block by block in constant memory, keeping length, loudness, rate, channels and sample format.

        `live`: as a stream is cleaned, without a first look. `look`: what `look_at_file` has found already. Where peaks
        are put back that do not fit into the file, the whole recording is turned down.
        """
        facts = files.info(source)
        self.check(settings)
        share, gain = share_of(facts.channels), 1.0
        if live:
            session = self.stream(facts.sr, facts.channels, settings)
        else:
            look = look or look_at_file(source, target, settings)
            gain, session = look.gain, self._session(facts.sr, settings, look, max(SOON, round(AT_ONCE * share)))
        with progress_bar(show=progress, total=facts.frames, desc="cleaning", unit="sample", unit_scale=True) as bar:
            blocks = cleaned_blocks(session, files.read_blocks(source, seconds=share * SECONDS), bar.update)
            blocks = blocks if gain == 1 else (gain * block for block in blocks)
            frames = files.save_blocks(target, blocks, facts.sr, like=facts, force=force)
        return replace(facts, frames=frames)  # a file that was cut short holds fewer than its header says


def check_count(damages: Sequence[Damage], channels: int) -> Sequence[Damage]:
    if len(damages) != channels:
        raise WavelldmError(f"this recording has {channels} channels; name the damage of each, not of {len(damages)}")
    return damages


def share_of(channels: int) -> float:
    """How much shorter the blocks of many channels are, so that they take no more memory."""
    return min(1.0, CHANNELS / channels)


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


class MaskDenoiser(Denoiser):
    """A mask network, alone or, if it was built with a guide, behind the latent diffusion.

    `latent`: a function that gives the guide's codec and diffusion.
    """

    def __init__(
        self,
        mask: MaskNet,
        latent: Callable[[], tuple[Codec, LatentDiffusion]] | None = None,
        name: str = "mask network",
        training: str = "",
    ):
        super().__init__(name, training, device_of(mask))
        self.mask, self.latent, self.guided = mask, latent, mask.config.latent_dim > 0
        self.pads = not (self.guided or mask.config.both_ways)
        if self.guided:
            if latent is None:
                raise WavelldmError("this mask network is guided by a latent; give its codec and diffusion too")
            check_guide(mask, *latent())

    def rate(self, sr: int) -> int:
        return self.mask.config.sr

    def honours(self, settings: Settings) -> set[str]:
        return {"strength", "steps", "sampler"} if self.guided else {"strength"}

    @property
    def restores(self) -> bool:
        return self.mask.config.sr == SR

    def stage(self, sr: int, settings: Settings, size: int, lengths: Tensor | None) -> Stage:
        if self.mask.config.both_ways:
            return RecordingStage(self.mask, settings)
        guide = LatentStage(*self.latent(), settings, size) if self.guided else None
        return MaskStage(self.mask, settings, guide, lengths)


class LatentDenoiser(Denoiser):
    """The latent diffusion, and the codec's decoder, as in WaveLLDM: the whole sound is made anew."""

    def __init__(self, codec: Codec, diffusion: LatentDiffusion, name: str = "latent diffusion", training: str = ""):
        super().__init__(name, training, device_of(diffusion))
        self.codec, self.diffusion = codec, diffusion

    def check(self, settings: Settings) -> None:
        super().check(settings)
        self.diffusion.checked(settings.sampler, settings.steps)

    def rate(self, sr: int) -> int:
        return self.codec.sr

    def honours(self, settings: Settings) -> set[str]:
        return {"steps", "sampler", "rounded"}

    @property
    def restores(self) -> bool:
        return self.codec.sr == SR

    def stage(self, sr: int, settings: Settings, size: int, lengths: Tensor | None) -> Stage:
        return DecoderStage(self.codec, self.diffusion, settings, size)


class WindowDenoiser(Denoiser):
    """SEGAN or the waveform denoiser, on windows of fixed length."""

    def __init__(self, network: Segan | WaveDenoiser, name: str = "waveform network", training: str = ""):
        super().__init__(name, training, device_of(network))
        self.network = network

    def rate(self, sr: int) -> int:
        return self.network.sr

    def honours(self, settings: Settings) -> set[str]:
        return {"steps"} if isinstance(self.network, WaveDenoiser) and self.network.config.leveled else set()

    @property
    def restores(self) -> bool:
        return self.network.sr == SR

    def stage(self, sr: int, settings: Settings, size: int, lengths: Tensor | None) -> Stage:
        net = self.network
        if isinstance(net, Segan):
            clean = partial(net.clean, generator=torch.Generator().manual_seed(settings.seed))
            return WindowStage(clean, net.window, net.overlap, net.config.emphasis)
        return WindowStage(partial(net.clean, steps=settings.steps), net.window, net.overlap)


class Untouched(Denoiser):
    """Cleans nothing: for restoring alone. What is not damaged stays as it is to the bit."""

    changes = False

    def __init__(self, device: torch.device | str = "cpu"):
        super().__init__("untouched", "nothing is cleaned, only what is damaged is repaired", device)

    def rate(self, sr: int) -> int:
        return SR

    def honours(self, settings: Settings) -> set[str]:
        return set()

    @property
    def restores(self) -> bool:
        return True

    def stage(self, sr: int, settings: Settings, size: int, lengths: Tensor | None) -> Stage:
        return IdleStage()


class ClassicalDenoiser(Denoiser):
    """log-MMSE, which works at any rate, and on the CPU."""

    pads = True

    def __init__(self, name: str = "logmmse", training: str = "", device: torch.device | str = "cpu"):
        super().__init__(name, training, device)
        if self.device.type != "cpu":
            raise WavelldmError(f"log-MMSE computes on the CPU, not on '{device}'; leave --device out")

    def rate(self, sr: int) -> int:
        return sr

    def honours(self, settings: Settings) -> set[str]:
        return set()

    def stage(self, sr: int, settings: Settings, size: int, lengths: Tensor | None) -> Stage:
        return ClassicalStage(sr)


def check_guide(mask: MaskNet, codec: Codec, diffusion: LatentDiffusion) -> None:
    """Refuse a codec and a diffusion whose latents cannot guide this network."""
    if codec.hop != mask.config.hop or codec.sr != mask.config.sr:
        raise WavelldmError(
            f"a latent frame has {codec.hop} samples at {codec.sr} Hz and a mask frame {mask.config.hop} at "
            f"{mask.config.sr} Hz; make them equal"
        )
    if diffusion.config.latent_dim != mask.config.latent_dim:
        raise WavelldmError(
            f"a latent has {diffusion.config.latent_dim} channels and the mask network is guided by "
            f"{mask.config.latent_dim}; give the diffusion that it was trained with"
        )


# --- by name, or from weights -----------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def latent_networks(device: torch.device, name: str = "voice16k-diffusion") -> tuple[Codec, LatentDiffusion]:
    """A diffusion that ships, or is known by its path, and the codec that it was trained with."""
    diffusion = weights.load(name, LatentDiffusion, device)
    return weights.load(weights.needed(name, "codec"), Codec, device), diffusion


def studio16k(device: torch.device) -> Denoiser:
    return MaskDenoiser(weights.load("studio16k", MaskNet, device))


def base16k(device: torch.device) -> Denoiser:
    return MaskDenoiser(weights.load("base16k-mask", MaskNet, device))


def wavelldm(device: torch.device) -> Denoiser:
    return LatentDenoiser(*latent_networks(device))


def segan(device: torch.device) -> Denoiser:
    return WindowDenoiser(weights.load("segan16k", Segan, device))


def waveform(device: torch.device) -> Denoiser:
    return WindowDenoiser(weights.load("waveform16k", WaveDenoiser, device))


def logmmse(device: torch.device) -> Denoiser:
    return ClassicalDenoiser(device=device)


MODELS = {  # name -> what builds it
    "studio16k": studio16k,
    "base16k": base16k,
    "wavelldm": wavelldm,
    "segan": segan,
    "waveform": waveform,
    "logmmse": logmmse,
}
TRAINING = {  # name -> what a user should know of it
    "studio16k": "a complex mask and a filter on the noisy spectrum that hears a recording to its end, 16 kHz",
    "base16k": "the same for streams: it hears 16 ms ahead, 16 kHz",
    "wavelldm": "latent diffusion and the codec's decoder, as in WaveLLDM: the whole sound is made anew",
    "segan": "SEGAN, a generator that learnt from a critic, on the waveform, 16 kHz",
    "waveform": "the timestep-conditioned denoiser on the waveform, 16 kHz",
    "logmmse": "log-MMSE spectral gain (Ephraim and Malah 1985), a classical method, not trained on anything",
}


def mask_from(name: str, device: torch.device) -> Denoiser:
    """A mask network, and if it is guided, the diffusion and the codec that its weights name."""
    mask = weights.load(name, MaskNet, device)
    if mask.config.latent_dim == 0:
        return MaskDenoiser(mask)
    return MaskDenoiser(mask, partial(latent_networks, device, str(weights.needed(name, "diffusion"))))


def diffusion_from(name: str, device: torch.device) -> Denoiser:
    latent_networks.cache_clear()  # weights of one's own are read each time
    return LatentDenoiser(*latent_networks(device, name))


def segan_from(name: str, device: torch.device) -> Denoiser:
    return WindowDenoiser(weights.load(name, Segan, device))


def waveform_from(name: str, device: torch.device) -> Denoiser:
    return WindowDenoiser(weights.load(name, WaveDenoiser, device))


KINDS = {  # kind of weights -> what builds a denoiser from them
    "MaskNet": mask_from,
    "LatentDiffusion": diffusion_from,
    "Segan": segan_from,
    "WaveDenoiser": waveform_from,
}


@lru_cache(maxsize=4)
def named(name: str, device: torch.device) -> Denoiser:
    denoiser = MODELS[name](device)
    denoiser.name, denoiser.training = name, TRAINING[name]
    return denoiser


def load(name: str | Path = "best", device: torch.device | str = "cpu") -> Denoiser:
    """A denoiser by name, the same one when asked again; or by the path of weights of your own, read each time. "best":
    the best for recordings; "live": the best that answers while somebody speaks.

    Sound goes to the denoiser's device to be cleaned, and comes back to where it was.
    """
    name, device = {"best": BEST, "live": LIVE}.get(str(name), str(name)), weights.check_device(device)
    if name in MODELS:
        return named(name, device)
    try:
        path = weights.locate(name)
    except WavelldmError:
        raise WavelldmError(
            f"there is no denoiser '{name}'; choose one of best, live, {', '.join(MODELS)}, or a .safetensors file"
        ) from None
    kind = weights.about(path)["kind"]
    if kind not in KINDS:
        raise WavelldmError(f"{name} holds weights ({kind}) that do not clean by themselves; choose others")
    denoiser = KINDS[kind](str(path), device)
    own = path.parent != weights.SHIPPED
    denoiser.name, denoiser.training = name, "weights of your own" if own else f"the weights {path.stem}"
    return denoiser
