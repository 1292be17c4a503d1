"""The front door: `load()` a denoiser, `enhance` a recording in memory, or `enhance_file` one of any length on disk."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from . import audio
from .errors import AudioError, WavelldmError
from .logmmse import LogMMSE

# name -> (what makes a streaming denoiser for a rate, what a user should know of it)
MODELS = {
    "logmmse": (LogMMSE, "log-MMSE spectral gain (Ephraim and Malah 1985), a classical method, not trained on anything"),
}
BEST = "logmmse"  # what runs when nobody asks for another


@dataclass(frozen=True)
class Denoiser:
    """A named denoiser; `stream(sr)` gives an object with `push(wav (C, n))` and `finish()`."""

    name: str
    training: str
    stream: type

    def enhance(self, wav: Tensor, sr: int) -> Tensor:
        """(N,) or (C, N) -> cleaned, of the same shape, at the same rate."""
        if wav.ndim > 2 or wav.shape[-1] == 0:
            raise AudioError(f"enhance takes wav (N,) or (C, N) with samples in it, not {tuple(wav.shape)}")
        if not torch.isfinite(wav).all():
            raise AudioError("the recording holds NaN or infinite samples; repair it first")
        stream = self.stream(sr)
        rows = wav.float().reshape(-1, wav.shape[-1])  # (C, N)
        return torch.cat([stream.push(rows), stream.finish()], dim=1).reshape(wav.shape).to(wav.device)

    def enhance_file(self, source, target, force: bool = False, progress: bool = True):
        """Clean a file block by block in constant memory, keeping length, rate, channels and sample format."""
        facts = audio.info(source)
        stream = self.stream(facts.sr)

        def blocks():
            with tqdm(total=facts.frames, unit="sample", unit_scale=True, disable=not progress, delay=1.0, leave=False) as bar:
                for block in audio.read_blocks(source, seconds=10.0):
                    yield stream.push(block)
                    bar.update(block.shape[1])
            yield stream.finish()

        audio.save_blocks(target, blocks(), facts.sr, like=facts, force=force)
        return facts


def load(name: str = "best") -> Denoiser:
    name = BEST if name == "best" else name
    if name not in MODELS:
        raise WavelldmError(f"there is no denoiser '{name}'; choose one of best, {', '.join(MODELS)}")
    stream, training = MODELS[name]
    return Denoiser(name, training, stream)


def jobs(inputs: list, output=None) -> list[tuple[Path, Path]]:
    """Which file becomes which: `x.wav` -> `x.denoised.wav` beside it, or under `output` with its place in the folder kept."""
    found = []  # (source, its path relative to the folder it was found in)
    for name in map(Path, inputs):
        if name.is_dir():
            inside = sorted(p for p in name.rglob("*") if p.suffix.lower() in audio.SUFFIXES and ".denoised" not in p.suffixes)
            if not inside:
                raise AudioError(f"{name} holds no sound files ({', '.join(audio.SUFFIXES)})")
            found += [(p, p.relative_to(name)) for p in inside]
        else:
            found.append((name, Path(name.name)))
    if output is None:
        pairs = [(source, source.with_suffix(f".denoised{source.suffix}")) for source, _ in found]
    elif len(found) == 1 and not Path(inputs[0]).is_dir() and not Path(output).is_dir():
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
