"""What the page of `wavelldm app` does with a recording, without the page: files in, files, tables and pictures out.

Every result is what the module and the command line give. Recordings are bounded in length, so that nobody waits long.
"""

import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import plots, weights
from ..audio import files
from ..codec.fsq import ABSENT
from ..codec.model import Codec
from ..denoise import denoiser
from ..denoise.chain import Settings
from ..errors import AudioError, WavelldmError
from ..metrics.folders import TOLERANCE
from ..metrics.scores import METRICS, measure
from ..refine.files import Choices, refine
from ..refine.prior import SpeechPrior
from ..restore.find import Damage, entries, read_gaps, sentence
from ..text.text2audio import DEFAULT as SOUNDS
from ..text.text2audio import SHORTEST, kept, named_after

LONGEST = {"denoise": 180.0, "restore": 60.0, "codec": 30.0, "refine": 12.0, "compare": 30.0, "words": 20.0}  # s
KEPT = 3600  # seconds that a result stays
SCORES = ("pesq_wb", "stoi", "si_sdr", "dnsmos_ovrl")
PLACES = re.compile(r"\s*\d+(\.\d+)?\s*-\s*\d+(\.\d+)?\s*(,\s*\d+(\.\d+)?\s*-\s*\d+(\.\d+)?\s*)*")
EDITS = ("as they are", "one code", "the first code held", "at random", "played backwards")


@dataclass(frozen=True)
class Outcome:
    """`versions`: names and files of what can be heard in step; `picture`: a PNG; `table`: cells, the first row a head;
    `notes`: sentences."""

    versions: dict[str, Path]
    picture: Path | None = None
    table: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


class Studio:
    """Works in a folder of its own, where each result has a folder with a name that cannot be guessed, for an hour."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()

    def _new(self) -> Path:
        for old in self.folder.iterdir():
            if old.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _own(self, source: str | Path | None, tab: str, need: str = "record or drop a file first") -> tuple[Path, Path]:
        """A recording of the tab's length, copied as WAV that every browser plays -> its folder, its path."""
        if not source:
            raise AudioError(need)
        facts = files.info(source)
        if facts.seconds > LONGEST[tab]:
            raise AudioError(
                f"this recording lasts {facts.seconds:.0f} s, and here {LONGEST[tab]:.0f} s is the most; "
                f"cut it, or use the command line, which takes any length"
            )
        if facts.frames == 0:
            raise AudioError("this recording holds no samples; choose another")
        folder = self._new()
        wav, sr = files.load(source)
        files.save(folder / "before.wav", wav, sr, like=facts)
        return folder, folder / "before.wav"

    def denoise(
        self,
        source: str | None,
        model: str = "studio16k",
        strength: float = 1.0,
        background: float = 0.0,
        restore: bool = False,
        clean: str | None = None,
    ) -> Outcome:
        """As `wavelldm denoise`."""
        folder, before = self._own(source, "denoise")
        chosen, settings = denoiser.load(model), Settings(strength=strength, background=background, restore=restore)
        start = time.perf_counter()
        facts = chosen.enhance_file(before, folder / "cleaned.wav", progress=False, settings=settings)
        took = time.perf_counter() - start
        versions = {"before": before, "cleaned": folder / "cleaned.wav"}
        table = scores(clean, versions) if clean else ()
        return Outcome(versions, self._drawn(folder, versions), table, (speed(took, facts.seconds),))

    def restore(self, source: str | None, places: str = "", steps: int = 1, silence: bool = False) -> Outcome:
        """As `wavelldm restore`. `places`: such as 1.20-1.45, or nothing: then damage is looked for. `silence`: lose
        these places first, to try it on a recording that is whole."""
        folder, before = self._own(source, "restore")
        facts, gaps = files.info(before), None
        if places.strip():
            if not PLACES.fullmatch(places):
                raise AudioError(f"'{places[:60]}' names no places; write seconds such as 1.20-1.45, 3.0-3.2")
            gaps = read_gaps(places, facts.sr, facts.frames, facts.channels)
        elif silence:
            raise AudioError("mark what is to be lost first, or switch that off")
        versions = {}
        if silence:
            wav, sr = files.load(before)
            versions["whole"] = before
            for a, b in gaps[0]:
                wav[:, a:b] = 0.0
            before = files.save(folder / "lost.wav", wav, sr)
        settings, target = Settings(steps, restore=True), folder / "restored.wav"
        look = denoiser.look_at_file(before, target, settings, gaps)
        start = time.perf_counter()
        denoiser.Untouched().enhance_file(before, target, progress=False, settings=settings, look=look)
        took = time.perf_counter() - start
        versions |= {"before": before, "restored": target}
        found = [entry for i, damage in enumerate(look.damages) for entry in entries(i, damage, facts.sr)]
        notes = [f"Channel {e['channel'] + 1}: {sentence(e)}." for e in found[:20]]
        notes += [f"And {len(found) - 20} more places."] * (len(found) > 20)
        notes = notes or ["Nothing was found to be damaged; the sound is as it was."]
        picture = self._drawn(folder, versions, spans_of(look.damages, facts.sr))
        return Outcome(versions, picture, notes=(*notes, speed(took, facts.seconds)))

    def codec(
        self,
        source: str | None,
        books: int = 4,
        edit: str = EDITS[0],
        book: int = 1,
        start: float = 0.0,
        end: float = 1.0,
        code: int = 0,
    ) -> Outcome:
        """A recording through the codec with the first `books` codebooks; on request with codes of one codebook changed
        between two times, to hear what they hold."""
        codec = shipped_codec()
        books, book, code = int(books), int(book), int(code)
        folder, before = self._own(source, "codec")
        if not 1 <= book <= books <= codec.config.codebooks:
            raise WavelldmError(
                f"choose 1 to {codec.config.codebooks} codebooks, and to edit one of those that are kept"
            )
        if edit not in EDITS:
            raise WavelldmError(f"there is no edit '{edit}'; choose one of: {', '.join(EDITS)}")
        if not 0 <= code < codec.config.entries:
            raise WavelldmError(f"codes go from 0 to {codec.config.entries - 1}, not {code}; choose one of these")
        wav = files.load(before, sr=codec.sr, mono=True)[0]  # (1, N)
        with torch.inference_mode():
            codes = codec.quantise(codec.encode(wav[None], codec.sr))[1][:, :books]  # (1, Q, T)
            versions = {
                "before": files.save(folder / "mono.wav", wav, codec.sr),
                "decoded": files.save(folder / "decoded.wav", codec.codes_to_wav(codes, wav.shape[-1])[0], codec.sr),
            }
            if edit != EDITS[0]:
                changed = edited(codes, edit, book - 1, *frames_of(start, end, codec, codes.shape[-1]), code, codec)
                heard = codec.codes_to_wav(changed, wav.shape[-1])[0]
                versions["edited"] = files.save(folder / "edited.wav", heard, codec.sr)
                codes = changed
        picture = folder / "codes.png"
        raster(codes[0], codec, picture)
        seconds = wav.shape[-1] / codec.sr
        size = codec.config.bitrate(books) * seconds / 8
        raw = 2 * wav.shape[-1]
        notes = (
            f"{codec.config.bitrate(books) / 1000:.2f} kbit/s: {size:.0f} bytes for {seconds:.1f} s, "
            f"{raw / max(size, 1):.0f} times less than 16-bit samples.",
        )
        return Outcome(versions, picture, notes=notes)

    def refine(self, source: str | None, first: str = "segan", steps: int = 10, clean: str | None = None) -> Outcome:
        """As `wavelldm refine --first`."""
        folder, before = self._own(source, "refine")
        if not 1 <= steps <= 60:
            raise WavelldmError(f"choose 1 to 60 steps, not {steps}")
        wav, sr = files.load(before)
        cleaned = denoiser.load(first).enhance(wav, sr)
        begun = time.perf_counter()
        refined = refine(shipped_prior(), wav, cleaned, sr, Choices(int(steps)))
        took = time.perf_counter() - begun
        versions = {
            "before": before,
            first: files.save(folder / "first.wav", cleaned, sr),
            "refined": files.save(folder / "refined.wav", refined, sr),
        }
        table = scores(clean, versions) if clean else ()
        return Outcome(versions, self._drawn(folder, versions), table, (speed(took, wav.shape[-1] / sr),))

    def compare(self, source: str | None, models: Sequence[str], clean: str | None = None) -> Outcome:
        """Many denoisers on one recording, in the order in which the module lists them."""
        chosen = [name for name in denoiser.MODELS if name in models]
        if not chosen:
            raise WavelldmError("choose at least one model to compare")
        folder, before = self._own(source, "compare")
        versions, took = {"before": before}, {}
        for name in chosen:
            start = time.perf_counter()
            denoiser.load(name).enhance_file(before, folder / f"{name}.wav", progress=False)
            took[name] = time.perf_counter() - start
            versions[name] = folder / f"{name}.wav"
        seconds = files.info(before).seconds
        table = scores(clean, versions)
        head, *rows = table
        rows = [(*row, f"{took[row[0]] / seconds:.2f}" if row[0] in took else "") for row in rows]
        return Outcome(versions, self._drawn(folder, versions), ((*head, "seconds per second"), *rows))

    def words(
        self,
        text: str | None,
        seconds: float = 4.0,
        guidance: float = 3.5,
        steps: int = 50,
        seed: int = 0,
        negative: str = "",
    ) -> Outcome:
        """As `wavelldm generate`: the sound that a sentence describes."""
        text, negative, most = (text or "").strip(), (negative or "").strip(), LONGEST["words"]
        if not SHORTEST <= seconds <= most:
            raise WavelldmError(f"choose {SHORTEST:g} to {most:g} seconds, not {seconds:g}")
        if not 1 <= steps <= 200:
            raise WavelldmError(f"choose 1 to 200 steps, not {steps}")
        if seed is None or not 0 <= seed < 2**63:
            raise WavelldmError("choose a seed, a whole number from 0 on")
        maker = kept(SOUNDS, "cpu")
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of unknown words: they are named below
            wav, sr = maker.generate(text, seconds, guidance, int(steps), int(seed), negative)
        took = time.perf_counter() - begun
        folder = self._new()
        versions = {"sound": files.save(folder / named_after(text), wav, sr)}
        unknown = maker.pair.text.unknown(f"{text} {negative}")
        names = ", ".join(f"'{word[:40]}'" for word in unknown[:8])
        notes = [f"This model never met {names}, so the sound may leave that out."] * bool(unknown)
        return Outcome(versions, self._drawn(folder, versions), notes=(*notes, speed(took, seconds)))

    def _drawn(self, folder: Path, versions: dict[str, Path], spans: Sequence[tuple[float, float]] = ()) -> Path:
        wavs = {name: files.load(path, mono=True) for name, path in versions.items()}
        sr = next(iter(wavs.values()))[1]
        picture = folder / "picture.png"
        figure = plots.compare({name: wav for name, (wav, _) in wavs.items()}, sr)
        for ax in figure.axes[: len(wavs)]:
            for a, b in spans:
                ax.axvspan(a, b, ymax=0.04, color="#7fe0ff", lw=0)
        figure.savefig(picture)
        plots.pyplot().close(figure)
        return picture

    def waveform(self, source: str | None) -> Path | None:
        """A picture of the whole width, on which a place in pixels is a time."""
        if not source:
            return None
        folder, before = self._own(source, "restore")
        wav, sr = files.load(before, mono=True)
        plt = plots.pyplot()
        figure = plt.figure(figsize=(10, 2.4), layout="none")
        ax = figure.add_axes((0, 0.14, 1, 0.86))
        count = max(1, wav.shape[-1] // 2000)
        blocks = wav[0, : wav.shape[-1] // count * count].reshape(-1, count)  # (P, n)
        at = np.arange(len(blocks)) * count / sr
        low, high = blocks.amin(1).clamp(max=0), blocks.amax(1).clamp(min=0)  # from the zero line on
        ax.fill_between(at, low.numpy(), high.numpy(), color=plots.ACCENT, lw=0.5)
        ax.set(xlim=(0, wav.shape[-1] / sr), yticks=[])
        ax.spines["left"].set_visible(False)
        figure.savefig(folder / "waveform.png")
        plt.close(figure)
        return folder / "waveform.png"


def place_of(click: float, width: float, seconds: float) -> float:
    """Pixels across a waveform's picture -> seconds."""
    return round(min(max(click / width, 0.0), 1.0) * seconds, 2)


@lru_cache(maxsize=1)
def shipped_codec() -> Codec:
    return weights.load("voice16k", Codec)


@lru_cache(maxsize=1)
def shipped_prior() -> SpeechPrior:
    return weights.load("prior16k", SpeechPrior)


def speed(took: float, seconds: float) -> str:
    return f"{seconds:.1f} s of sound in {took:.1f} s of computing."


def spans_of(damages: Sequence[Damage], sr: int) -> list[tuple[float, float]]:
    return [(a / sr, b / sr) for damage in damages[:1] for a, b in damage.gaps or ()]


def scores(clean: str | None, versions: dict[str, Path]) -> tuple[tuple[str, ...], ...]:
    """A table: a row for each version. Without a clean reference only what needs none."""
    names = SCORES if clean else tuple(n for n in SCORES if n.startswith("dnsmos"))
    reference = files.load(clean, mono=True) if clean else None
    rows = [("", *(METRICS[name].label for name in names))]
    for name, path in versions.items():
        sr = reference[1] if reference else files.info(path).sr
        wav = files.load(path, sr=sr, mono=True)[0][0]  # (N,)
        against = reference[0][0] if reference else wav
        if abs(len(wav) - len(against)) > TOLERANCE * sr:
            raise AudioError(
                f"the clean reference lasts {len(against) / sr:.2f} s and the recording {len(wav) / sr:.2f} s; "
                f"choose the reference of this recording"
            )
        n = min(len(wav), len(against))
        try:
            found = measure(against[:n].numpy(), wav[:n].numpy(), sr, names)[0]
        except WavelldmError as error:
            if clean:
                raise
            return ((f"no scores: {error}",),)
        rows.append((name, *("-" if found[m] is None else f"{found[m]:.2f}" for m in names)))
    return tuple(rows)


# --- codes


def frames_of(start: float, end: float, codec: Codec, frames: int) -> tuple[int, int]:
    """Two times in seconds -> the first latent frame and one past the last."""
    first, last = (round(t * codec.config.latent_rate) for t in (start, end))
    if not 0 <= first < min(last, frames):
        raise WavelldmError(
            f"{start:g} to {end:g} s holds no frame of this recording of {frames / codec.config.latent_rate:.2f} s; "
            "choose times inside it"
        )
    return first, min(last, frames)


def edited(codes: Tensor, edit: str, book: int, first: int, last: int, code: int, codec: Codec) -> Tensor:
    """codes (1, Q, T) with those of one codebook changed in the frames first..last."""
    out = codes.clone()
    part = out[:, book, first:last]
    if edit == "one code":
        out[:, book, first:last] = code
    elif edit == "the first code held":
        out[:, book, first:last] = part[:, :1]
    elif edit == "at random":
        drawn = torch.randint(codec.config.entries, part.shape, generator=torch.Generator().manual_seed(0))
        out[:, book, first:last] = drawn
    elif edit == "played backwards":
        out[:, book, first:last] = part.flip(-1)
    return out


def raster(codes: Tensor, codec: Codec, path: Path) -> None:
    """codes (Q, T) as a picture: a row for each codebook, a colour for each code."""
    plt = plots.pyplot()
    figure, ax = plt.subplots(figsize=(8, 0.9 + 0.42 * len(codes)))
    shown = np.ma.masked_equal(codes.numpy(), ABSENT)
    seconds = codes.shape[-1] / codec.config.latent_rate
    ax.imshow(
        shown, aspect="auto", interpolation="nearest", cmap="twilight", extent=(0, seconds, len(codes) + 0.5, 0.5)
    )
    ax.set(yticks=range(1, len(codes) + 1), xlabel="seconds", ylabel="codebook")
    figure.savefig(path)
    plt.close(figure)


def table_html(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head. Everything is shown as text."""
    if not rows:
        return ""
    line = "<tr>{}</tr>".format
    head = line("".join(f"<th>{escape(cell)}</th>" for cell in rows[0]))
    body = "".join(line("".join(f"<td>{escape(cell)}</td>" for cell in row)) for row in rows[1:])
    return f'<table class="scores"><thead>{head}</thead><tbody>{body}</tbody></table>'
