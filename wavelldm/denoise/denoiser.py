"""The front door: `load()` a denoiser, `enhance` a recording in memory, or `enhance_file` one of any length on disk."""

import glob
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .. import weights
from ..audio import files
from ..audio.levels import active_power
from ..codec.model import Codec
from ..diffusion.latent import LatentDiffusion
from ..errors import AudioError, WavelldmError
from .chain import BLOCK, LIVE, Look, Networks, Settings, clean_blocks
from .logmmse import LogMMSE
from .mask import MaskNet
from .restore import find_cutoff
from .segan import Segan
from .waveform import WaveDenoiser

LEVEL = -26.0  # dB of active speech, in the middle of what the networks were trained on
QUIETEST = -70.0  # dB: below this there is nothing to bring up


@dataclass(frozen=True)
class Denoiser:
    """A named denoiser; `clean(blocks, sr, settings, look, size)` turns wav blocks (C, any) into as many cleaned samples."""

    name: str
    training: str
    clean: Callable

    def enhance(self, wav: Tensor, sr: int, settings: Settings = Settings()) -> Tensor:
        """(N,) or (C, N) -> cleaned, of the same shape, at the same rate, as loud as it was."""
        if wav.ndim > 2 or wav.shape[-1] == 0:
            raise AudioError(f"enhance takes wav (N,) or (C, N) with samples in it, not {tuple(wav.shape)}")
        if not torch.isfinite(wav).all():
            raise AudioError("the recording holds NaN or infinite samples; repair it first")
        rows = wav.float().cpu().reshape(-1, wav.shape[-1])  # (C, N)
        blocks = self.clean(iter([rows]), sr, settings, look_at([rows], sr), BLOCK)
        return torch.cat(list(blocks), dim=1).reshape(wav.shape).to(wav.device)

    def enhance_file(
        self, source, target, force: bool = False, progress: bool = True, settings: Settings = Settings(), live: bool = False
    ):  # fmt: skip
        """Clean a file block by block in constant memory, keeping length, loudness, rate, channels and sample format.

        `live`: as a stream is cleaned, in small blocks and without a first look at the level.
        """
        facts = files.info(source)
        look = Look() if live else look_at(files.read_blocks(source, seconds=10.0), facts.sr)

        def blocks():
            with tqdm(
                total=facts.frames, unit="sample", unit_scale=True, disable=None if progress else True, delay=1.0, leave=False
            ) as bar:
                for block in files.read_blocks(source, seconds=10.0):
                    yield block
                    bar.update(block.shape[1])

        files.save_blocks(
            target,
            self.clean(blocks(), facts.sr, settings, look, LIVE if live else BLOCK),
            facts.sr,
            like=facts,
            force=force,
        )
        return facts


def look_at(blocks, sr: int) -> Look:
    """The first look at wav blocks (C, any). The level is that of the loudest tenth of its seconds, so that pauses do not count."""
    powers, spectrum = [], 0.0
    for block in blocks:
        for part in block.float().split(sr, dim=1):
            powers.append(active_power(part[:1], sr))
            if part.shape[1] == sr:
                spectrum = spectrum + torch.fft.rfft(part[0] * torch.hann_window(sr)).abs().square()  # bins of 1 Hz
    power = float(torch.cat(powers).sort().values[-max(1, len(powers) // 10) :].mean())
    gain = 10 ** (LEVEL / 20) / power**0.5 if power > 10 ** (QUIETEST / 10) else 1.0
    smooth = torch.nn.functional.avg_pool1d(spectrum[None, None], 50)[0, 0] if torch.is_tensor(spectrum) else None
    return Look(gain, None if smooth is None else find_cutoff(smooth, sr))


def classical(blocks, sr: int, settings: Settings, look: Look, size: int):
    """log-MMSE: no rate of its own and no weights."""
    if settings.strength != 1 or settings.steps != 1 or settings.restore:
        raise WavelldmError(
            "log-MMSE has no steps, no strength and restores nothing; choose another --model, or leave these options out"
        )
    stream, waiting = LogMMSE(sr), None
    for block in blocks:
        waiting = block if waiting is None else torch.cat([waiting, block], dim=1)
        out = stream.push(block)
        yield out + settings.background * (waiting[:, : out.shape[1]] - out)
        waiting = waiting[:, out.shape[1] :]
    out = stream.finish()
    yield out + settings.background * (waiting - out)


def neural(chain: Networks, restorer: Callable | None = None) -> Callable:
    """`restorer()`: the networks for somebody who wants to have restored what is missing, loaded only then."""
    chosen = lambda settings: restorer() if restorer and settings.restore else chain
    return lambda blocks, sr, settings, look, size: clean_blocks(chosen(settings), blocks, sr, settings, look, size)


def waveform(net) -> Callable:
    """A network with `stream(blocks, steps, seed, background)` at its rate `sr`, such as SEGAN."""

    def clean(blocks, sr: int, settings: Settings, look: Look, size: int):
        if settings.strength != 1 or settings.restore:
            raise WavelldmError(
                "a waveform network has no strength and restores nothing; choose another --model, or leave these options out"
            )
        rows = lambda net, wav, settings, size: net.stream(wav, settings.steps, settings.seed, settings.background)
        return clean_blocks(net, blocks, sr, settings, look, size, rows)

    return clean


def trained(name) -> Callable:
    """What weights of any denoiser (a name or a path) make of sound."""
    kind = weights.about(name)["kind"]
    if kind == "MaskNet":
        return neural(Networks(None, None, weights.load(name, MaskNet)))
    if kind in ("Segan", "WaveDenoiser"):
        return waveform(weights.load(name, Segan if kind == "Segan" else WaveDenoiser))
    raise WavelldmError(
        f"{name} holds weights ({kind}) that do not clean by themselves; choose those of a mask network, SEGAN or waveform denoiser"
    )


def base16k() -> Callable:
    mask = weights.load("base16k-mask", MaskNet)
    return neural(
        Networks(None, None, mask),
        lru_cache(
            lambda: Networks(weights.load("voice16k", Codec), weights.load("voice16k-diffusion", LatentDiffusion), mask)
        ),
    )


# name -> (what a user should know of it, what loads it)
MODELS = {
    "base16k": (
        "a complex mask and a filter on the noisy spectrum, and the latent diffusion for what is missing (--restore); trained on speech and noise, 16 kHz",
        base16k,
    ),
    "wavelldm": (
        "latent diffusion and the codec's decoder, as in WaveLLDM: the whole sound is made anew",
        lambda: neural(
            Networks(weights.load("voice16k", Codec), weights.load("voice16k-diffusion", LatentDiffusion), None)
        ),
    ),
    "segan": ("SEGAN, a generator that learnt from a critic, on the waveform, 16 kHz", lambda: trained("segan16k")),
    "waveform": ("the timestep-conditioned denoiser on the waveform, 16 kHz", lambda: trained("waveform16k")),
    "logmmse": (
        "log-MMSE spectral gain (Ephraim and Malah 1985), a classical method, not trained on anything",
        lambda: classical,
    ),
}
BEST = "base16k"  # what runs when nobody asks for another


@lru_cache(maxsize=4)
def named(name: str) -> Denoiser:
    training, build = MODELS[name]
    return Denoiser(name, training, build())


def load(name="best") -> Denoiser:
    """A denoiser by name, the same one when asked again; or by weights of your own, a .safetensors file, read each time."""
    name = BEST if name == "best" else str(name)
    if name in MODELS:
        return named(name)
    if Path(name).suffix == ".safetensors" or (weights.SHIPPED / f"{name}.safetensors").is_file():
        return Denoiser(name, "weights of your own" if Path(name).suffix else f"the weights {name}", trained(name))
    raise WavelldmError(
        f"there is no denoiser '{name}'; choose one of best, {', '.join(MODELS)}, or a .safetensors file"
    )


def jobs(inputs: list, output=None) -> list[tuple[Path, Path]]:
    """Which file becomes which: `x.wav` -> `x.denoised.wav` beside it, or under `output` with its place in the folder kept."""
    found = []  # (source, its path relative to the folder it was found in)
    for name in map(Path, inputs):
        if not name.exists() and any(c in str(name) for c in "*?["):  # a pattern that no shell has spread out
            matches = [
                Path(m) for m in sorted(glob.glob(str(name), recursive=True)) if ".denoised" not in Path(m).suffixes
            ]
            if not matches:
                raise AudioError(f"nothing matches '{name}'; check the pattern")
            found += [(m, Path(m.name)) for m in matches if m.is_file()]
        elif name.is_dir():
            inside = sorted(
                p for p in name.rglob("*") if p.suffix.lower() in files.SUFFIXES and ".denoised" not in p.suffixes
            )
            if not inside:
                raise AudioError(f"{name} holds no sound files ({', '.join(files.SUFFIXES)})")
            found += [(p, p.relative_to(name)) for p in inside]
        else:
            found.append((name, Path(name.name)))
    if output is None:
        pairs = [(source, source.with_suffix(f".denoised{source.suffix}")) for source, _ in found]
    elif len(found) == 1 and found[0][0] == Path(inputs[0]) and not Path(output).is_dir():
        pairs = [(found[0][0], Path(output))]
    else:
        pairs = [(source, Path(output) / place) for source, place in found]
    targets = [target for _, target in pairs]
    twice = next((t for t in targets if targets.count(t) > 1), None)
    if twice is not None:
        raise WavelldmError(f"two inputs would both become {twice}; give them in separate runs")
    same = next((s for s, t in pairs if s.resolve() == t.resolve()), None)
    if same is not None:
        raise WavelldmError(f"{same} would overwrite itself; name another output")
    return pairs
