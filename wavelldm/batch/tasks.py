"""What is done with a file: cleaned, compressed, turned into codes, or measured. Each task is made once in a worker,
with its model, and then takes files of this machine."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WavelldmError
from ..light import denoiser as light
from ..light import files
from .places import Place

if TYPE_CHECKING:
    from ..audio.files import AudioInfo

Job = tuple[Path, Path, str]  # a sound file, what to write, and the name of the item
Answer = dict[str, Any] | Exception  # facts for the report, or why it could not be done
Task = Callable[[Sequence[Job]], Iterator[Answer]]
SUFFIX = {"denoise": None, "compress": ".wll", "codes": ".npy", "evaluate": ""}  # of the outputs; None: as it was
LONG = 30.0  # seconds: longer files are worked through block by block, shorter ones together
BLOCK = 60.0  # seconds of a long file that are judged at a time
DNSMOS = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")
PAIRED = ("pesq_wb", "estoi", "si_sdr")


@dataclass(frozen=True)
class Settings:
    """What decides about the outputs: a run goes on only with the same ones."""

    task: str
    source: str
    model: str = "best"
    device: str = "cpu"
    strength: float = 1.0
    background: float = 0.0
    codebooks: int | None = None
    dnsmos: bool = False
    reference: str | None = None
    shards: bool = False
    batch_seconds: float = 600.0

    def marks(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k not in ("device", "batch_seconds")}


def with_onnx(settings: Settings) -> bool:
    """Whether onnxruntime does it, without PyTorch."""
    return settings.task == "denoise" and settings.device == "cpu" and light.knows(settings.model)


def make(settings: Settings) -> Task:
    """Load the model of a task."""
    if settings.task == "denoise":
        return partial(each, denoise_alone(settings)) if with_onnx(settings) else denoise_together(settings)
    if settings.task == "evaluate":
        return partial(each, evaluate(settings))
    return partial(each, with_codec(settings))


def each(work: Callable[[Path, Path, str], dict[str, Any]], jobs: Sequence[Job]) -> Iterator[Answer]:
    """One file after the other; what goes wrong with one is its answer."""
    for job in jobs:
        try:
            yield work(*job)
        except Exception as error:
            yield error


def facts_of(source: Path, info: "files.AudioInfo | AudioInfo", levels: Sequence[float]) -> dict[str, Any]:
    return {"seconds": info.seconds, "rate": info.sr, "channels": info.channels, "level": max(levels)}


def levels_of(source: Path) -> list[float]:
    return light.levels_of(files.read_blocks(source, 10.0), files.info(source).sr)


# --- denoise


def denoise_alone(settings: Settings) -> Callable[[Path, Path, str], dict[str, Any]]:
    found = light.load(settings.model)
    choices = {"strength": settings.strength, "background": settings.background}

    def work(source: Path, target: Path, name: str) -> dict[str, Any]:
        levels = levels_of(source)
        info = found.enhance_file(source, target, progress=False, look=light.Look(levels), **choices)
        return facts_of(source, info, levels) | before_and_after(settings, source, target)

    return work


def denoise_together(settings: Settings) -> Task:
    """With PyTorch: clips of about one length go through the network together, long files block by block."""
    import torch

    from ..audio import files as sounds
    from ..denoise import chain, denoiser

    torch.set_num_threads(1)
    found = denoiser.load(settings.model, settings.device)
    choices = chain.Settings(strength=settings.strength, background=settings.background)

    def alone(source: Path, target: Path, name: str) -> dict[str, Any]:
        look = denoiser.look_at_file(source, target, choices)
        info = found.enhance_file(source, target, progress=False, settings=choices, look=look)
        return facts_of(source, info, look.levels) | before_and_after(settings, source, target)

    def together(jobs: list[Job], infos: list) -> Iterator[Answer]:
        wavs = [sounds.load(source)[0] for source, *_ in jobs]  # (C, N) each
        cleaned = found.enhance(wavs, infos[0].sr, choices)
        for (source, target, _), info, wav, clean in zip(jobs, infos, wavs, cleaned):
            sounds.save(target, clean, info.sr, like=info)
            levels = light.levels_of([wav.numpy()], info.sr)
            yield facts_of(source, info, levels) | before_and_after(settings, source, target)

    def run(jobs: Sequence[Job]) -> Iterator[Answer]:
        answers: dict[int, Answer] = {}
        infos = {}
        for i, (source, *_) in enumerate(jobs):
            try:
                infos[i] = sounds.info(source)
            except Exception as error:
                answers[i] = error
        short = [i for i, info in infos.items() if info.seconds <= LONG]
        for group in grouped({i: infos[i] for i in short}, settings.batch_seconds):
            try:
                answers |= zip(group, together([jobs[i] for i in group], [infos[i] for i in group]))
            except Exception:  # one of them is bad: each by itself then
                for i in group:
                    jobs[i][1].unlink(missing_ok=True)
                answers |= zip(group, each(alone, [jobs[i] for i in group]))
        left = [i for i in range(len(jobs)) if i not in answers]
        answers |= zip(left, each(alone, [jobs[i] for i in left]))
        return iter([answers[i] for i in range(len(jobs))])

    return run


def grouped(infos: dict[int, Any], seconds: float) -> list[list[int]]:
    """Clips of one rate and of about one length, so many that, padded to the longest, they take at most `seconds`."""
    groups: list[list[int]] = []
    for i in sorted(infos, key=lambda i: (infos[i].sr, -infos[i].seconds)):
        if groups:
            longest = infos[groups[-1][0]]
            rows = sum(infos[k].channels for k in groups[-1]) + infos[i].channels
            if (
                longest.sr == infos[i].sr
                and rows * longest.seconds <= seconds
                and infos[i].seconds > longest.seconds / 2
            ):
                groups[-1].append(i)
                continue
        groups.append([i])
    return groups


# --- codes


def with_codec(settings: Settings) -> Callable[[Path, Path, str], dict[str, Any]]:
    """.wll files, or arrays of codes (C, Q, T)."""
    import torch

    from .. import weights
    from ..audio import files as sounds
    from ..audio.blocks import resample_blocks
    from ..codec import compress
    from ..codec.model import Codec

    torch.set_num_threads(1)
    codec = weights.load("voice16k" if settings.model == "best" else settings.model, Codec, settings.device)
    most = codec.config.codebooks
    if settings.codebooks is not None and not 1 <= settings.codebooks <= most:
        raise WavelldmError(f"this codec has 1 to {most} codebooks, not {settings.codebooks}; choose one of these")

    def work(source: Path, target: Path, name: str) -> dict[str, Any]:
        info, levels = sounds.info(source), levels_of(source)
        if settings.task == "compress":
            compress.compress_file(source, target, codec, settings.codebooks, progress=False)
        else:
            wav = resample_blocks(sounds.read_blocks(source, 10.0), info.sr, codec.sr)
            codes = torch.cat(list(compress.encode_blocks(codec, wav, settings.codebooks)), dim=-1)  # (C, Q, T)
            with files.writing(target) as part, open(part, "wb") as file:
                np.save(file, codes.cpu().numpy().astype(np.uint16))
        return facts_of(source, info, levels)

    return work


# --- measure


def evaluate(settings: Settings) -> Callable[[Path, Path, str], dict[str, Any]]:
    """DNSMOS of every file; beside a reference of the same name also what needs one."""
    import shutil
    import tempfile

    from ..metrics.scores import METRICS

    place = None if settings.reference is None else Place(settings.reference)

    def work(source: Path, target: Path, name: str) -> dict[str, Any]:
        levels = levels_of(source)
        row = facts_of(source, files.info(source), levels) | dnsmos_of(source)
        if place is None:
            return row
        with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
            with place.reading(name) as stream:
                shutil.copyfileobj(stream, file)
            file.flush()
            clean, sr = files.load(file.name)
        wav, its_sr = files.load(source)
        if sr != its_sr or clean.shape != wav.shape:
            raise WavelldmError(
                f"{name} and its reference differ in rate, channels or length; give the one it was made of"
            )
        return row | {metric: float(METRICS[metric].function(clean[0], wav[0], sr)) for metric in PAIRED}

    return work


def dnsmos_of(path: Path) -> dict[str, float]:
    """The means of DNSMOS over a file, a minute at a time, of all channels together."""
    from ..metrics.scores import dnsmos

    rate, sums, weight = files.info(path).sr, dict.fromkeys(DNSMOS, 0.0), 0
    for block in files.read_blocks(path, BLOCK):
        if weight and block.shape[1] < rate:  # too short an end to judge by itself
            continue
        found = dnsmos(block.mean(0), rate)
        for name in DNSMOS:
            sums[name] += block.shape[1] * found[name.removeprefix("dnsmos_").upper()]
        weight += block.shape[1]
    return {name: value / weight for name, value in sums.items()}


def before_and_after(settings: Settings, source: Path, target: Path) -> dict[str, float]:
    if not settings.dnsmos:
        return {}
    return {f"dnsmos_{when}": dnsmos_of(path)["dnsmos_ovrl"] for when, path in (("before", source), ("after", target))}


def bytes_of(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())
