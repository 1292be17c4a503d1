"""Listening tests: from folders of systems to a folder that holds everything a listener needs.

Kinds: "acr", one sound at a time, 1 to 5 (ITU-T P.800); "mushra", all versions of a clip side by side, 0 to 100, with
the hidden reference and two low-passed anchors (ITU-R BS.1534-3); "ab", which of two is better; "abx", which of two is
X (ITU-R BS.1116 calls it a forced choice).

A test is a folder: `public/` (the page, its sounds under names that tell nothing, `test.js`), and `test.json`, the key:
which sound is of which system. The key never leaves the computer of whoever makes the test.
"""

import hashlib
import itertools
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.signal import fftconvolve, firwin, kaiserord
from torch import Tensor

from ..audio import files
from ..audio.files import sound_files
from ..audio.loudness import at_loudness, loudness
from ..errors import DataError, WavelldmError
from ..progress import progress_bar

KINDS = {"acr": "How good is the sound?", "mushra": "How close to the reference?", "ab": "Which sounds better?"}
KINDS["abx"] = "Which of the two is X?"
TARGET = -26.0  # LUFS, of all sounds; less if a peak would not fit
PEAK = 0.97
LONGEST, MOST_TRIALS = 30.0, 400  # seconds of a clip, trials of a test
ANCHORS = {"anchor35": 3_500, "anchor70": 7_000}  # Hz (BS.1534-3, section 5.1)
REFERENCE = "reference"
CHECK = "check"  # the system of sounds that are bad on purpose
PRACTICE, CHECKS = 2, 3  # trials
PAGES = Path(__file__).parent / "pages"
FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """What a listener is asked at once. `stimuli`: names of sounds; `reference`: the one that is shown as such."""

    id: str
    clip: str
    stimuli: tuple[str, ...]
    reference: str | None = None
    check: bool = False  # an attention check: what a listener answers is known beforehand
    practice: bool = False


@dataclass(frozen=True)
class ListeningTest:
    """The key of a listening test: everything in `test.json`."""

    id: str
    kind: str
    title: str
    sr: int
    systems: tuple[str, ...]
    trials: tuple[Trial, ...]
    sounds: dict[str, tuple[str, str]]  # name of a sound -> system, clip
    folder: Path = field(default=Path("."), compare=False)

    def trial(self, name: str) -> Trial | None:
        return self._by_id.get(name)

    @property
    def _by_id(self) -> dict[str, Trial]:
        if "_trials" not in self.__dict__:
            object.__setattr__(self, "_trials", {trial.id: trial for trial in self.trials})
        return self.__dict__["_trials"]

    def refuse(self, trial: str, item: str, value: object) -> str | None:
        """Why an answer does not belong to this test, or None."""
        found = self.trial(trial) if isinstance(trial, str) else None
        if found is None or found.practice:
            return "there is no such trial"
        if item == "done":
            return None if value == 1 else "a trial is done with 1"
        whole = isinstance(value, int) and not isinstance(value, bool)
        if self.kind in ("acr", "mushra"):
            low, high = (1, 5) if self.kind == "acr" else (0, 100)
            fits = item in found.stimuli and whole and low <= value <= high
            return None if fits else f"an answer is one of the trial's sounds and a whole number from {low} to {high}"
        if self.kind == "ab":
            fits = item == "prefer" and value in (*found.stimuli, "same")
            return None if fits else "an answer is one of the trial's two sounds, or 'same'"
        fits = isinstance(item, str) and item[:2] == "x:" and item[2:] in found.stimuli and value in found.stimuli
        return None if fits else "an answer names the sound that was X and the one that was chosen"


# --- sounds


def low_passed(wav: Tensor, sr: int, edge: float) -> Tensor:
    """wav (..., N) without what lies above `edge` Hz: flat up to it, 60 dB down 500 Hz above, no delay. BS.1534-3 asks
    for 25 dB at 4 kHz and 50 dB at 4.5 kHz of an edge of 3.5 kHz."""
    if edge + 500 >= sr / 2:
        raise WavelldmError(
            f"an anchor of {edge / 1000:g} kHz needs more than {2 * (edge + 500) / 1000:g} kHz, and the clips have "
            f"{sr / 1000:g} kHz; use clips of a higher rate, or another kind of test"
        )
    taps, beta = kaiserord(60, 500 / (sr / 2))
    filter_ = firwin(taps | 1, edge + 250, window=("kaiser", beta), fs=sr)
    return torch.from_numpy(fftconvolve(wav.double().numpy(), filter_[None], mode="same", axes=-1)).float()


def spoiled(wav: Tensor, sr: int) -> Tensor:
    """For attention checks: the low-passed clip under noise of its own envelope (as ITU-T P.810's MNRU at 0 dB)."""
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    return low_passed(wav + wav * noise, sr, min(1_000.0, sr / 2 - 600))


def rate_of(folders: dict[str, dict[str, Path]], clips: Sequence[str]) -> int:
    """The highest rate of all clips: no system loses anything."""
    return max(files.info(found[clip]).sr for found in folders.values() for clip in clips)


def read(path: Path, sr: int) -> Tensor:
    """One clip (1, N); a sentence about what a test cannot use."""
    wav = files.load(path, sr=sr, mono=True)[0]
    seconds = wav.shape[-1] / sr
    if not 0.2 <= seconds <= LONGEST:
        raise DataError(f"{path} lasts {seconds:.2f} s; a clip of a listening test lasts 0.2 to {LONGEST:g} s: cut it")
    if loudness(wav, sr) == -math.inf:
        raise DataError(f"{path} is silent; remove it from the test")
    return wav


# --- the plan


def named_folders(systems: Sequence[str | Path]) -> dict[str, Path]:
    """'NAME=FOLDER' or 'FOLDER', whose own name is then the system's -> {name: folder}."""
    found: dict[str, Path] = {}
    for given in map(str, systems):
        name, equals, folder = given.partition("=")
        path = Path(folder if equals and not Path(given).exists() else given)
        name = name if equals and not Path(given).exists() else path.resolve().name
        if not name.strip() or len(name) > 80 or not name.isprintable():
            raise DataError(
                f"'{name[:90]}' is no name for a system; give NAME=FOLDER with up to 80 printable characters"
            )
        if name in found or name in (REFERENCE, CHECK, *ANCHORS):
            raise DataError(f"two systems would be called '{name}'; give them names as NAME=FOLDER")
        found[name] = path
    return found


def paired(folders: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """{system: {clip: path}}; every system has every clip."""
    found = {name: sound_files(folder) for name, folder in folders.items()}
    everything = set().union(*found.values())
    for name, clips in found.items():
        if missing := sorted(everything - set(clips)):
            some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise DataError(f"{folders[name]} has no clip {some}, which another system has; add or remove these")
    return found


def trials_of(kind: str, clips: Sequence[str], systems: Sequence[str], hidden: Sequence[str]) -> list[tuple]:
    """(clip, the systems of its sounds) for each trial. `hidden`: what is rated beside the systems."""
    if kind == "acr":
        return [(clip, (system,)) for clip in clips for system in (*systems, *hidden)]
    if kind == "mushra":
        return [(clip, (*systems, *hidden)) for clip in clips]
    return [(clip, pair) for clip in clips for pair in itertools.combinations(systems, 2)]


def check_plan(kind: str, systems: dict, reference: str | Path | None) -> None:
    if kind not in KINDS:
        raise WavelldmError(f"there is no kind of test '{kind}'; choose among {', '.join(KINDS)}")
    if kind == "mushra" and reference is None:
        raise WavelldmError("a MUSHRA test needs the reference; give --reference FOLDER")
    if kind in ("ab", "abx") and reference is not None:
        raise WavelldmError(f"a test of kind {kind} has no reference; leave it out, or give it as one of the systems")
    if kind in ("ab", "abx") and len(systems) < 2:
        raise WavelldmError(f"a test of kind {kind} compares two systems; name two folders or more")
    if kind == "mushra" and len(systems) + 3 > 15:
        raise WavelldmError(f"{len(systems)} systems are too many for one page of MUSHRA; take 12 or fewer")
    if not systems:
        raise WavelldmError("name the folder of at least one system")


def build(
    output: str | Path,
    kind: str,
    systems: Sequence[str | Path],
    reference: str | Path | None = None,
    clips: int | None = None,
    title: str = "",
    seed: int = 0,
    checks: bool = True,
    progress: bool = True,
) -> ListeningTest:
    """Make a listening test of folders that hold the same clips. `clips`: so many of them, chosen at random by `seed`.

    All sounds become mono, one rate (the highest), and equally loud: -26 LUFS, or less where a peak would not fit.
    MUSHRA's anchors keep the gain of their reference. The folder appears whole, or not at all.
    """
    output = Path(output)
    named = named_folders(systems)
    check_plan(kind, named, reference)
    if output.exists():
        raise DataError(f"{output} exists, and may hold ratings; choose another name")
    if len(title) > 200 or not title.isprintable():
        raise WavelldmError("a title has up to 200 printable characters; choose another")
    found = paired(named | ({REFERENCE: Path(reference)} if reference is not None else {}))
    names = sorted(next(iter(found.values())))
    if clips is not None and not 1 <= clips <= len(names):
        raise WavelldmError(f"the folders have {len(names)} clips in common, not {clips}; choose a number up to that")
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.permutation(names)[: clips or len(names)].tolist())
    hidden = {"acr": (REFERENCE,) if reference is not None else (), "mushra": (REFERENCE, *ANCHORS)}.get(kind, ())
    plan = trials_of(kind, chosen, list(named), hidden)
    if len(plan) > MOST_TRIALS:
        raise WavelldmError(f"this makes {len(plan)} trials, and a test holds {MOST_TRIALS}; take fewer --clips")
    sr = rate_of(found, chosen)
    salt = secrets.token_hex(16)

    def sound(system: str, clip: str) -> str:
        return hashlib.sha256(f"{salt}/{system}/{clip}".encode()).hexdigest()[:20]

    sounds: dict[str, tuple[str, str]] = {}

    def trial(clip: str, of: tuple[str, ...], **more) -> Trial:
        stimuli = tuple(sound(system, clip) for system in of)
        sounds.update({name: (system, clip) for name, system in zip(stimuli, of)})
        shown = sound(REFERENCE, clip) if kind == "mushra" else None
        return Trial(secrets.token_hex(6), clip, stimuli, shown, **more)

    trials = [trial(clip, of) for clip, of in plan]
    spread = rng.permutation(len(plan))
    good = REFERENCE if reference is not None else next(iter(named))
    if checks and kind != "mushra":  # in MUSHRA the hidden reference is the check
        of = (CHECK,) if kind == "acr" else (good, CHECK)
        wanted = min(CHECKS, max(1, len(plan) // 4))
        trials += [trial(clip, of, check=True) for clip in [plan[i][0] for i in spread][:wanted]]
    trials += practice(kind, plan, spread, good, trial)
    test = ListeningTest(secrets.token_hex(8), kind, title or KINDS[kind], sr, tuple(named), tuple(trials), sounds)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        part = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name[:40]}-"))
        try:
            write_sounds(part / "public" / "audio", test, found, progress)
            write_page(part / "public", test)
            (part / "test.json").write_text(as_json(test), encoding="utf-8")
            os.chmod(part, 0o755)
            os.rename(part, output)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{output} could not be written ({error.strerror}); nothing was changed") from None
    return ListeningTest(**{**test.__dict__, "folder": output})


def practice(kind: str, plan: list, spread: np.ndarray, good: str, trial: Callable) -> list[Trial]:
    """Trials that do not count: the best and the worst there is to hear."""
    clips = [plan[i][0] for i in spread][:PRACTICE]
    if kind == "acr":
        return [trial(clips[0], (good,), practice=True), trial(clips[-1], (CHECK,), practice=True)]
    if kind == "mushra":
        return [trial(clips[0], plan[spread[0]][1], practice=True)]
    return [trial(clip, (good, CHECK), practice=True) for clip in clips[:1]]


def write_sounds(folder: Path, test: ListeningTest, found: dict[str, dict[str, Path]], progress: bool) -> None:
    """Every sound of the test, equally loud: 16 bits, one channel."""
    made: dict[str, Tensor] = {}
    for name, (system, clip) in progress_bar(test.sounds.items(), progress, desc="sounds", unit="sound"):
        good = REFERENCE if REFERENCE in found else test.systems[0]
        wav = read(found[system if system in found else good][clip], test.sr)
        if system in ANCHORS:
            made[name] = low_passed(at_loudness(wav, test.sr, TARGET), test.sr, ANCHORS[system])
        else:
            made[name] = at_loudness(spoiled(wav, test.sr) if system == CHECK else wav, test.sr, TARGET)
    gain = min(1.0, *(PEAK / float(wav.abs().max()) for wav in made.values()))
    for name, wav in made.items():
        files.save(folder / f"{name}.wav", wav * gain, test.sr)


def public(test: ListeningTest) -> dict:
    """What a listener's page knows: nothing of systems, clips or checks."""
    trials = [
        {"id": t.id, "stimuli": sorted(t.stimuli), "reference": t.reference, "practice": t.practice}
        for t in test.trials
    ]
    trials.sort(key=lambda t: t["id"])
    return {"id": test.id, "kind": test.kind, "title": test.title, "trials": trials}


def write_page(folder: Path, test: ListeningTest) -> None:
    for page in sorted(PAGES.iterdir()):
        if page.suffix in (".html", ".css", ".js"):
            shutil.copyfile(page, folder / page.name)
    text = json.dumps(public(test), ensure_ascii=True).replace("<", "\\u003c")
    (folder / "test.js").write_text(f"window.TEST = {text};\n", encoding="utf-8")
    (folder / "mode.js").write_text("window.SERVED = false;\n", encoding="utf-8")


# --- the key


def as_json(test: ListeningTest) -> str:
    whole = {"format": FORMAT, **{k: v for k, v in asdict(test).items() if k != "folder"}}
    return json.dumps(whole, indent=1)


def open_test(folder: str | Path) -> ListeningTest:
    """The key of a test by its folder."""
    folder = Path(folder)
    path = folder / "test.json"
    if not path.is_file():
        raise DataError(f"{folder} is no listening test (it has no test.json); make one with: wavelldm listen build")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.pop("format") != FORMAT:
            raise DataError(f"{path} is of another version of wavelldm; build the test again")
        trials = tuple(Trial(**{**t, "stimuli": tuple(t["stimuli"])}) for t in facts.pop("trials"))
        sounds = {name: tuple(of) for name, of in facts.pop("sounds").items()}
        test = ListeningTest(
            **{**facts, "systems": tuple(facts["systems"])}, trials=trials, sounds=sounds, folder=folder
        )
        whole = test.kind in KINDS and all(s in sounds for t in trials for s in t.stimuli)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        whole = False
    if not whole:
        raise DataError(f"{path} is damaged; put back a copy of it, or build the test again")
    if not trials:
        raise DataError(f"{path} holds no trials; build the test again")
    return test


def public_files(test: ListeningTest) -> dict[str, Path]:
    """{path in an address: file}: all that a server may show."""
    root = test.folder / "public"
    names = ["index.html", "listen.css", "listen.js", "test.js", *(f"audio/{name}.wav" for name in test.sounds)]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise DataError(f"{root} lacks {missing[0]}; put back a copy of the test, or build it again")
    assert all(re.fullmatch(r"[\w./]+", name) for name in names)
    return {name: root / name for name in names}
