"""Synthetic speech from espeak-ng, and the embedded corpus: the small set of speech and noise that is the default
everywhere.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio.files import resample, save
from ..errors import DataError
from ..paths import data_home
from ..progress import progress_bar
from .noises import NOISES
from .sentences import LANGUAGES, sentence

# The accents of each language, and the speakers: espeak's voice variants without whispers, robots and overdriven ones.
ACCENTS = {
    "en": ("en", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc"),
    "de": ("de",),
    "fr": ("fr", "fr-be", "fr-ch"),
    "es": ("es", "es-419"),
    "it": ("it",),
    "pt": ("pt", "pt-br"),
    "nl": ("nl",),
}
SPEAKERS = {
    "train": "f1 f2 f3 f4 m1 m2 m3 m4 m6 m8 Alex Alicia Annie Denis Diogo Mike Reed RicishayMax adam aunty belinda "
    "linda marcelo max miguel pablo sandro shelby travis victor".split(),
    "valid": "f5 m5 m7 Andrea michel quincy".split(),
}
COLUMNS = ("path", "kind", "source", "licence", "label", "language", "seconds", "split", "note")
RECIPE = 1  # raise it whenever the same seed gives other sounds, so that an old folder is not taken for a new one
CLIP = 10.0  # seconds of one noise file
LONGEST_PAUSE = 0.3  # seconds


class Espeak:
    """One espeak-ng process (see espeak.py), for a `with` block: the same text always gives the same samples."""

    def __enter__(self) -> "Espeak":
        try:
            import espeakng_loader
        except ImportError:
            raise DataError("the embedded voices need espeak-ng; run: pip install espeakng-loader") from None
        library = os.path.abspath(espeakng_loader.get_library_path())
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("espeak.py")), library]
        self.log = tempfile.TemporaryFile()  # a pipe that nobody reads could fill up
        place, pipe = espeakng_loader.get_data_path(), subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=place, stdin=pipe, stdout=pipe, stderr=self.log)
        self.sr = self._number()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def _number(self) -> int:
        answer = self.process.stdout.read(4)
        if len(answer) == 4:
            return struct.unpack("=i", answer)[0]
        self.log.seek(0)
        said = self.log.read().decode(errors="replace").strip().splitlines()
        self.__exit__()
        why = said[-1] if said else "without a word"
        raise DataError(f"espeak-ng stopped ({why}); reinstall it: pip install --force-reinstall espeakng-loader")

    def _answer(self, text: str, voice: str, rate: int, pitch: int) -> tuple[Tensor, list]:
        """What the process says -> wav (1, n) at its own rate, and where each phoneme begins: [sample, phoneme]."""
        with suppress(BrokenPipeError):  # `_number` reports the reason
            self.process.stdin.write(json.dumps([text, voice, int(rate), int(pitch)]).encode() + b"\n")
            self.process.stdin.flush()
        count = self._number()
        samples = np.frombuffer(self.process.stdout.read(2 * max(0, count)), np.int16)
        marks = json.loads(self.process.stdout.read(self._number()))
        if count < 0:
            raise DataError(f"espeak-ng has no voice '{voice}'; name a language and a variant, such as en-us+f3")
        wav = torch.from_numpy(samples / np.float32(32768))[None]  # (1, n)
        if count == 0 or not wav.any():
            raise DataError(f"espeak-ng finds nothing to say in {text!r}; give it some words")
        return wav, marks

    def say(self, text: str, voice: str, rate: int, pitch: int, sr: int) -> Tensor:
        """Text -> wav (1, N). espeak works at 22,050 Hz, so there is nothing above 11 kHz at any `sr`."""
        wav, _ = self._answer(text, voice, rate, pitch)
        return shorten_pauses(resample(wav, self.sr, sr), sr)

    def say_phonemes(self, text: str, voice: str, rate: int, pitch: int, sr: int) -> tuple[Tensor, list]:
        """Text -> wav (1, N) with its pauses as they are, and [(second, phoneme), ...]: where each begins, in IPA. A
        pause is an empty phoneme."""
        wav, marks = self._answer(text, voice, rate, pitch)
        return resample(wav, self.sr, sr), [(sample / self.sr, phoneme) for sample, phoneme in marks]


def speak(text: str, voice: str = "en-us", rate: int = 165, pitch: int = 50, sr: int = 16_000) -> Tensor:
    """Say `text` at `rate` (80 to 450) words per minute, `pitch` 0 to 99 -> wav (1, N), always the same samples."""
    with Espeak() as espeak:
        return espeak.say(text, voice, rate, pitch, sr)


def shorten_pauses(wav: Tensor, sr: int, longest: float = LONGEST_PAUSE) -> Tensor:
    """Remove the middle of long pauses: (1, N) -> (1, shorter). A pause is 10 ms frames 50 dB under the peak."""
    size = max(1, sr // 100)
    frames = torch.nn.functional.pad(wav, (0, -wav.shape[-1] % size)).reshape(-1, size)  # (T, size)
    quiet = frames.abs().amax(1) < 10 ** (-50 / 20) * wav.abs().max()  # (T,)
    place = torch.arange(len(quiet))
    before = torch.where(quiet, -len(quiet), place).cummax(0).values  # the last loud frame so far
    after = torch.where(quiet, 2 * len(quiet), place).flip(0).cummin(0).values.flip(0)  # the next one
    near = torch.minimum(place - before, after - place) <= max(1, round(longest / 2 * 100))
    return frames[near].reshape(1, -1)[:, : wav.shape[-1]]


def _at_level(wav: Tensor, level_db: float) -> Tensor:
    """Scale to a root mean square of `level_db` dB below full scale, less if the peak would pass 0.95."""
    gain = 10 ** (level_db / 20) / wav.square().mean().sqrt()
    return wav * torch.minimum(gain, 0.95 / wav.abs().max())


def _row(path: str, kind: str, label: str, language: str, wav: Tensor, sr: int, split: str, note: str) -> tuple:
    source = "espeak-ng" if kind == "speech" else "wavelldm/data/noises.py"
    return path, kind, source, "CC0 1.0", label, language, f"{wav.shape[-1] / sr:.3f}", split, note


def _write(folder: Path, minutes: float, seed: int, sr: int, progress: bool) -> None:
    """Fill `folder`: speech until there are `minutes` of it, as much noise, and the manifest."""
    rows, voices, goal = [], {"train": [], "valid": []}, minutes * 60
    clips = max(2, round(goal / CLIP / len(NOISES)))  # of each noise
    total = int(goal) + clips * round(CLIP) * len(NOISES)
    with progress_bar(show=progress, total=total, desc="embedded corpus", unit="s") as bar, Espeak() as espeak:
        spoken, i = 0.0, 0
        while spoken < goal or i < 6:
            split = "valid" if i % 6 == 5 else "train"
            generator = np.random.default_rng([seed, 0, i])
            language = LANGUAGES[generator.integers(len(LANGUAGES))] if generator.random() < 0.7 else "en"
            speaker = SPEAKERS[split][generator.integers(len(SPEAKERS[split]))]
            accent = ACCENTS[language][generator.integers(len(ACCENTS[language]))]
            text, rate, pitch = sentence(generator, language), generator.integers(130, 201), generator.integers(35, 66)
            wav = espeak.say(text, f"{accent}+{speaker}", rate, pitch, sr)  # (1, N)
            wav = _at_level(wav, generator.uniform(-30, -20))
            name = f"speech/{i:05d}_{accent}_{speaker}.wav"
            save(folder / name, wav, sr)
            rows.append(_row(name, "speech", speaker, language, wav, sr, split, text))
            voices[split].append(wav.numpy()[0])
            spoken, i = spoken + wav.shape[-1] / sr, i + 1
            bar.update(int(min(spoken, goal)) - bar.n)
        for number, (kind, make) in enumerate(NOISES.items(), start=1):
            for k in range(clips):
                split = "valid" if k % 6 == 1 else "train"
                generator = np.random.default_rng([seed, number, k])
                more = {"voices": voices[split]} if kind == "babble" else {}
                noise = torch.from_numpy(make(round(CLIP * sr), sr, generator, **more))[None]  # (1, N)
                noise = _at_level(noise, generator.uniform(-30, -20))
                name = f"noise/{kind}_{k:04d}.wav"
                save(folder / name, noise, sr)
                rows.append(_row(name, "noise", kind, "-", noise, sr, split, ""))
                bar.update(round(CLIP))
    (folder / "manifest.tsv").write_bytes("".join("\t".join(row) + "\n" for row in (COLUMNS, *rows)).encode())


def build_corpus(
    folder: str | Path | None = None, minutes: float = 5, seed: int = 0, sr: int = 16_000, progress: bool = True
) -> Path:
    """The embedded corpus -> its manifest.tsv, made on the first call and found on every later one.

    `minutes` of speech and as many of noise, 16-bit wav, in a folder of `folder` (the data folder by default) that is
    named after the other arguments. No speaker, and no recording of a noise, is in both splits. All is made in a
    hidden folder beside its place and moved there when complete.
    """
    if minutes <= 0 or sr < 8_000 or seed < 0:
        wrong = f"not {minutes:g} minutes, {sr} Hz, seed {seed}"
        raise DataError(f"the corpus needs minutes above 0, a rate of 8000 Hz or more and a seed from 0 on; {wrong}")
    home = data_home() if folder is None else Path(folder)
    place = home / f"embedded-{minutes:g}min-{sr}hz-seed{seed}-v{RECIPE}"
    manifest = place / "manifest.tsv"
    if manifest.is_file():
        return manifest
    try:
        home.mkdir(parents=True, exist_ok=True)
        for left in home.glob(".embedded-*"):  # of a build that was killed
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)
        part = Path(tempfile.mkdtemp(dir=home, prefix=".embedded-"))
    except OSError as error:
        raise DataError(f"{home} cannot be written ({error.strerror}); set WAVELLDM_DATA to another folder") from None
    try:
        _write(part, minutes, seed, sr, progress)
        part.chmod(0o755)  # mkdtemp makes it private
        if not manifest.is_file():
            shutil.rmtree(place, ignore_errors=True)  # a folder without a manifest is not a corpus
        try:
            part.rename(place)
        except OSError:
            if not manifest.is_file():  # if it is, somebody else was faster, with the same sounds
                raise DataError(f"{place} could not be put in place; remove it and try again") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest
