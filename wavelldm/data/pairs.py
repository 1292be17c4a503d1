"""Write a folder of noisy and clean pairs, each at a known signal-to-noise ratio."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import files as audio
from ..audio.levels import active_level
from ..errors import AudioError, DataError, WavelldmError
from ..progress import progress_bar
from .corpora import Item
from .degrade import Degradation, degrade

COLUMNS = ("name", "speech", "noise", "snr", "measured", "seconds")


def _cut(path: Path, n: int, sr: int, rng: np.random.Generator) -> Tensor:
    """n samples (1, n) from a random place of a file; a shorter file is repeated."""
    have, need = audio.info(path).seconds, n / sr
    start = rng.uniform(0, have - need) if have > need else 0.0
    wav = audio.load(path, sr, mono=True, start=start, seconds=need)[0]
    return audio.fit(wav.repeat(1, -(-n // wav.shape[-1])), n)


def _audible(items: list[Item], n: int, sr: int, rng: np.random.Generator) -> tuple[Path, Tensor]:
    """A random file and n samples of it that are not silent."""
    for _ in range(30):
        path = items[rng.integers(len(items))].path
        wav = _cut(path, n, sr, rng)
        if active_level(wav, sr) > -80:
            return path, wav
    raise DataError(f"thirty cuts from {len(items)} noise files, the last {path}, were silent; give other noise")


def _pair(
    k: int, path: Path, noise: list[Item], recipe: Degradation, snr: float, sr: int, seconds: float | None, seed: int
) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Pair k -> noisy, target (1, n) and its row of the table."""
    rng = np.random.default_rng([seed, k])
    whole = seconds is None
    clean = audio.load(path, sr, mono=True)[0] if whole else _cut(path, round(seconds * sr), sr, rng)  # (1, n)
    if not active_level(clean, sr) > -80:
        raise DataError(f"{path} is silent there; without speech there is no signal-to-noise ratio: remove the file")
    source, noise_wav = _audible(noise, clean.shape[-1], sr, rng)
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    recipe = replace(recipe, noise=1.0, snr=(snr, snr))
    noisy, target = (wav[0] for wav in degrade(clean[None], noise_wav[None], recipe, sr, generator))  # (1, n)
    measured = float(active_level(target, sr) - active_level(noisy - target, sr))
    row = (f"{k:05d}_{path.stem}", path, source, f"{snr:g}", f"{measured:.2f}", f"{clean.shape[-1] / sr:.3f}")
    return noisy, target, dict(zip(COLUMNS, map(str, row), strict=True))


def _done(table: Path) -> list[dict]:
    """The rows of an earlier run, without an incomplete last one."""
    if not table.exists():
        return []
    lines = [line for line in table.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _prepare(out: Path, settings: dict, force: bool) -> list[dict]:
    """Make the folder ready -> the rows that are already there. Other pairs in it are an error, or removed by force."""
    note, table = out / "mix.json", out / "pairs.tsv"
    rows = _done(table)
    same = note.exists() and json.loads(note.read_text()) == settings
    if force:
        for row in rows:  # files of an earlier run with another count would otherwise stay as false pairs
            for side in ("clean", "noisy"):
                (out / side / f"{row['name']}.wav").unlink(missing_ok=True)
        table.unlink(missing_ok=True)
    elif not same and any((out / name).exists() for name in ("clean", "noisy", "pairs.tsv", "mix.json")):
        raise DataError(f"{out} holds other pairs; choose another folder, or pass --force to overwrite them")
    with audio.writing(note, force=True) as part:
        part.write_text(json.dumps(settings, indent=1))
    return [row for row in rows if all((out / side / f"{row['name']}.wav").exists() for side in ("clean", "noisy"))]


def write_pairs(
    speech: list[Item],
    noise: list[Item],
    out: str | Path,
    snrs: Iterable[float],
    count: int | None = None,
    seed: int = 0,
    sr: int = 16_000,
    seconds: float | None = None,
    recipe: Degradation | None = None,
    force: bool = False,
    on_error: Callable[[WavelldmError], None] | None = None,
) -> Path:
    """Write OUT/clean/NAME.wav, OUT/noisy/NAME.wav and OUT/pairs.tsv -> the path of the table.

    Pair k is the k-th speech file in an order drawn from the seed (all of them once, if no count is given), cut to
    `seconds` if given, with a random noise at snrs[k % len(snrs)] dB on active speech. If that would clip, both are
    scaled down alike. The recipe may add other degradations, which the table's `measured` ratio then includes. Called
    again with the same arguments, an interrupted run is continued. A pair whose files cannot be used is left out and
    `on_error` is told why; without it the error is raised.
    """
    out, recipe = Path(out), recipe or Degradation()
    snrs = [float(snr) for snr in snrs]
    if not speech or not noise or not snrs:
        raise DataError("mixing takes at least one speech file, one noise file and one signal-to-noise ratio")
    count = len(speech) if count is None else count
    if count < 1:
        raise DataError(f"the number of pairs is at least 1, not {count}")
    files = hashlib.sha256("\n".join(str(item.path) for item in [*speech, *noise]).encode()).hexdigest()
    settings = {"seed": seed, "sr": sr, "seconds": seconds, "snrs": snrs, "recipe": asdict(recipe), "files": files}
    settings = json.loads(json.dumps({**settings, "count": count}))  # as it will be read back: lists for tuples
    rows = _prepare(out, settings, force)
    made = {row["name"] for row in rows}
    order = np.random.default_rng(seed).permutation(len(speech))
    with audio.writing(out / "pairs.tsv", force=True) as part:
        lines = ["\t".join(row[c] for c in COLUMNS) + "\n" for row in rows]
        part.write_text("\t".join(COLUMNS) + "\n" + "".join(lines), encoding="utf-8")
    for k in progress_bar(range(count), desc="mixing", unit="pair"):
        path = speech[order[k % len(speech)]].path
        if f"{k:05d}_{path.stem}" in made:
            continue
        try:
            noisy, target, row = _pair(k, path, noise, recipe, snrs[k % len(snrs)], sr, seconds, seed)
        except (AudioError, DataError) as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        audio.save(out / "clean" / f"{row['name']}.wav", target, sr, force=True)  # at most a pair cut off half-way
        audio.save(out / "noisy" / f"{row['name']}.wav", noisy, sr, force=True)
        with open(out / "pairs.tsv", "a", encoding="utf-8") as file:
            file.write("\t".join(row[c] for c in COLUMNS) + "\n")
    return out / "pairs.tsv"
