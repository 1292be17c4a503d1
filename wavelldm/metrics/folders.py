"""Score a folder of enhanced clips against the clean ones, in parallel: means, a row per clip, change from the noisy
input.

A pair that cannot be read or compared is listed in `Result.failed`; the others are scored.
"""

import csv
import json
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..audio import files
from ..audio.files import sound_files
from ..errors import AudioError, DataError, WavelldmError
from ..progress import progress_bar
from . import alignment
from .intervals import Difference, compare, interval
from .scores import METRICS, choose, measure
from .signals import MetricError

TOLERANCE = 0.1  # seconds that a pair may differ in length: the longer one's end is cut (mp3 pads that much)
MAX_DELAY = 0.1  # seconds that `align` looks to either side
CLIPS_PER_WORKER = 4  # a process takes about two seconds to start; below this many clips it does not pay


@dataclass(frozen=True)
class Row:
    """One clip. A metric that refuses it has the score None and its reason in `refused`."""

    name: str
    sr: int
    seconds: float
    enhanced: dict[str, float | None]
    refused: dict[str, str]
    delay: float | None = None  # samples, where aligned
    noisy: dict[str, float | None] | None = None  # the unprocessed input's scores
    noisy_refused: dict[str, str] | None = None


@dataclass(frozen=True)
class Failure:
    """A clip that could not be read, or whose files do not belong together."""

    name: str
    reason: str


@dataclass(frozen=True)
class Result:
    """What `evaluate` found: the metrics asked for, a row for every scored clip, and the clips that failed."""

    metrics: list[str]
    rows: list[Row]
    failed: list[Failure] = field(default_factory=list)

    @property
    def has_noisy(self) -> bool:
        return bool(self.rows) and self.rows[0].noisy is not None

    def means(self) -> dict[str, dict]:
        """{metric: {"enhanced": mean, "interval": (low, high), "clips": how many}}, with a noisy folder also "noisy",
        "change" and "change_interval". The intervals are those of 95 % of the bootstrap; None without clips.

        A clip that a metric refuses is left out of that mean alone; "change" is the mean over clips that have both.
        """
        out = {}
        for name in self.metrics:
            values = self.column(name)
            out[name] = {"enhanced": _mean(values), "interval": _reach(values)}
            out[name]["clips"] = sum(v is not None for v in values)
            if self.has_noisy:
                before = [row.noisy[name] for row in self.rows]
                both = [v - b for v, b in zip(values, before) if v is not None and b is not None]
                out[name] |= {"noisy": _mean(before), "change": _mean(both), "change_interval": _reach(both)}
        return out

    def column(self, name: str) -> list[float | None]:
        """A metric of all rows."""
        return [row.enhanced[name] for row in self.rows]

    def left_out(self) -> list[dict]:
        """Every refusal: which clip, of which folder, by which metric, and why."""
        return [
            {"clip": row.name, "of": which, "metric": metric, "reason": reason}
            for row in self.rows
            for which, refused in (("enhanced", row.refused), ("noisy", row.noisy_refused or {}))
            for metric, reason in refused.items()
        ]


def _mean(values: Iterable[float | None]) -> float | None:
    scored = [v for v in values if v is not None]
    return math.fsum(scored) / len(scored) if scored else None


def _reach(values: Iterable[float | None]) -> list[float] | None:
    """Where 95 % of the bootstrap's means lie."""
    mean, low, high = interval(list(values))
    return None if math.isnan(mean) else [low, high]


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def pairs(
    clean_dir: str | Path, enhanced_dir: str | Path, noisy_dir: str | Path | None = None, some: bool = False
) -> list[tuple[str, Path, Path, Path | None]]:
    """Pair by name: (name, clean, enhanced, noisy or None). Clean and enhanced match one to one, or with `some` clean
    may hold more; noisy may hold more.

    Given single files instead of folders, these are the pair, whatever their names.
    """
    given = [Path(x) for x in (clean_dir, enhanced_dir, noisy_dir) if x is not None]
    if all(path.is_file() for path in given):
        return [(given[1].stem, given[0], given[1], given[2] if len(given) == 3 else None)]
    clean, enhanced = sound_files(clean_dir), sound_files(enhanced_dir)
    noisy = None if noisy_dir is None else sound_files(noisy_dir)
    if some and set(enhanced) & set(clean):
        clean = {name: path for name, path in clean.items() if name in enhanced}
    if missing := set(clean) - set(enhanced):
        raise DataError(f"{enhanced_dir} has no partner for {_some(missing)} of {clean_dir}; enhance or remove these")
    if missing := set(enhanced) - set(clean):
        raise DataError(f"{clean_dir} has no partner for {_some(missing)} of {enhanced_dir}; add or remove these")
    if noisy is not None and (missing := set(clean) - set(noisy)):
        raise DataError(f"{noisy_dir} has no partner for {_some(missing)} of {clean_dir}; add these")
    return [(name, clean[name], enhanced[name], noisy and noisy[name]) for name in sorted(clean)]


def _score(clean: Tensor, sr: int, path_clean: Path, path: Path, metrics: list[str], align: bool) -> tuple:
    """Read `path` at the clean clip's rate, cut to equal length, align, measure -> scores, refused, delay."""
    wav = files.load(path, sr=sr, mono=True)[0][0]  # (N,)
    apart = abs(len(wav) - len(clean)) / sr
    if apart > TOLERANCE:
        raise DataError(
            f"{path} is {len(wav) / sr:.2f} s long and {path_clean} {len(clean) / sr:.2f} s; "
            f"they may differ by {TOLERANCE} s: cut them alike"
        )
    n = min(len(wav), len(clean))
    clean, wav, found = clean[:n].numpy(), wav[:n].numpy(), None
    if align:
        try:
            found = alignment.align(clean, wav, round(MAX_DELAY * sr), subsample=True)
            clean, wav = alignment.undelay(clean, wav, found)
        except MetricError:  # silence has no delay; each metric has its own answer to it
            found = None
    return *measure(clean, wav, sr, metrics), found


def _row(job: tuple) -> Row | Failure:
    (name, clean_path, enhanced_path, noisy_path), metrics, align, rate = job
    try:
        wav, sr = files.load(clean_path, sr=rate, mono=True)
        scores, refused, found = _score(wav[0], sr, clean_path, enhanced_path, metrics, align)
        noisy, noisy_refused = None, None
        if noisy_path is not None:
            noisy, noisy_refused, _ = _score(wav[0], sr, clean_path, noisy_path, metrics, align)
    except (AudioError, DataError) as error:
        return Failure(name, str(error))
    return Row(name, sr, wav.shape[1] / sr, scores, refused, found, noisy, noisy_refused)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in here use one thread each, as the files are processed in parallel."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def evaluate(
    clean_dir: str | Path,
    enhanced_dir: str | Path,
    noisy_dir: str | Path | None = None,
    metrics: Iterable[str] | None = None,
    align: bool = False,
    workers: int | None = None,
    progress: bool = True,
    sr: int | None = None,
    some: bool = False,
) -> Result:
    """Score every clip of `enhanced_dir` (and of `noisy_dir`) against its namesake in `clean_dir`.

    `metrics`: names of METRICS or GROUPS, None for all. Channels are averaged; clips are compared at the
    clean one's rate, or at `sr` (PESQ, composite, DNSMOS and PLCMOS at 16 kHz). `align` removes a constant delay of up
    to 0.1 s. Lengths may differ by 0.1 s. `workers` processes, by default as many as there are cores. `some`: the clean
    folder may hold clips that the enhanced one lacks.
    """
    names = choose(metrics)
    jobs = [(pair, names, align, sr) for pair in pairs(clean_dir, enhanced_dir, noisy_dir, some)]
    if workers is not None and workers < 1:
        raise WavelldmError(f"workers is a number of processes, at least 1, not {workers}")
    workers = min(workers, len(jobs)) if workers else min(os.cpu_count() or 1, math.ceil(len(jobs) / CLIPS_PER_WORKER))

    def finish(rows: Iterable[Row | Failure]) -> Result:
        found = list(progress_bar(rows, progress, total=len(jobs), desc="measuring", unit="clip"))
        scored = [row for row in found if isinstance(row, Row)]
        return Result(names, scored, [row for row in found if isinstance(row, Failure)])

    if workers == 1:
        return finish(map(_row, jobs))
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
    try:
        with _one_thread_each(), ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
            return finish(pool.map(_row, jobs))
    except BrokenProcessPool:
        raise WavelldmError(
            "a worker process ended unexpectedly; in a script call evaluate under `if __name__ == '__main__':`, "
            "or pass workers=1"
        ) from None


def _cell(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _between(reach: list[float] | None, sign: str = "") -> str:
    return "-" if reach is None else "..".join(_cell(v, sign) for v in reach)


def columns(rows: list[list[str]]) -> str:
    """Text in columns: the first aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))] for row in rows
    )
    return "\n".join("  ".join(line) for line in lines)


def to_table(result: Result, per_file: bool = False) -> str:
    """The means as plain text, what was left out or failed, and on request a row for every clip."""
    more = ["noisy", "change", "95 %"] if result.has_noisy else []
    head = ["metric", "enhanced", "95 %", *more, "unit", "better", "clips"]
    rows = [head]
    for name, mean in result.means().items():
        metric = METRICS[name]
        gain = []
        if result.has_noisy:
            gain = [_cell(mean["noisy"]), _cell(mean["change"], "+"), _between(mean["change_interval"], "+")]
        better = "higher" if metric.higher_is_better else "lower"
        clips = f"{mean['clips']}/{len(result.rows)}"
        rows.append(
            [
                metric.label,
                _cell(mean["enhanced"]),
                _between(mean["interval"]),
                *gain,
                metric.unit or "-",
                better,
                clips,
            ]
        )
    parts = [columns(rows)]
    if per_file:
        each = [[row.name, *(_cell(row.enhanced[name]) for name in result.metrics)] for row in result.rows]
        parts.append(columns([["clip", *result.metrics], *each]))
    if left_out := result.left_out():
        lines = (f"left out: {x['metric']} of {x['clip']} ({x['of']}): {x['reason']}" for x in left_out)
        parts.append("\n".join(lines))
    if result.failed:
        parts.append("\n".join(f"failed: {x.name}: {x.reason}" for x in result.failed))
    return "\n\n".join(parts)


def to_json(result: Result) -> str:
    """Everything as one JSON object."""
    facts = {
        name: {"label": m.label, "unit": m.unit, "higher_is_better": m.higher_is_better}
        for name, m in ((name, METRICS[name]) for name in result.metrics)
    }
    whole = {
        "clips": len(result.rows),
        "metrics": facts,
        "means": result.means(),
        "left_out": result.left_out(),
        "failed": [{"clip": x.name, "reason": x.reason} for x in result.failed],
        "files": [asdict(row) for row in result.rows],
    }
    return json.dumps(whole, indent=2, allow_nan=False)


def to_csv(result: Result, path: str | Path, force: bool = False) -> None:
    """A row per clip: name, rate, seconds, delay, scores, the noisy input's as noisy_*. Refused scores are empty."""
    head = ["clip", "sr", "seconds", "delay", *result.metrics]
    head += [f"noisy_{name}" for name in result.metrics] if result.has_noisy else []
    with files.writing(path, force) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for row in result.rows:
            scores = [row.enhanced[name] for name in result.metrics]
            scores += [row.noisy[name] for name in result.metrics] if result.has_noisy else []
            writer.writerow([row.name, row.sr, row.seconds, row.delay, *scores])


def compared(a: Result, b: Result) -> dict[str, Difference]:
    """A less B, metric by metric, over the clips that both scored."""
    mine, other = ({row.name: row for row in result.rows} for result in (a, b))
    names = [name for name in mine if name in other]
    if not names:
        raise DataError("the two systems have no scored clip in common; compare results of the same clips")
    return {
        metric: compare([mine[n].enhanced[metric] for n in names], [other[n].enhanced[metric] for n in names])
        for metric in a.metrics
    }


def verdict(name: str, difference: Difference) -> str:
    """Which of the two is better by a metric, "A" or "B", or that the clips do not tell."""
    if not difference.sure:
        return "not told apart"
    return "A" if (difference.mean > 0) == METRICS[name].higher_is_better else "B"


def compared_table(a: Result, b: Result, names: tuple[str, str]) -> str:
    """Means of both, their difference clip by clip with its interval, p of the paired test, and which is better."""
    rows = [["metric", "A", "B", "A - B", "95 %", "p", "A higher on", "better", "clips"]]
    means = a.means(), b.means()
    for name, found in compared(a, b).items():
        both = [_cell(mean[name]["enhanced"]) for mean in means]
        p = "-" if found.p is None else "<0.001" if found.p < 0.001 else f"{found.p:.3f}"
        share = "-" if found.higher is None else f"{100 * found.higher:.0f} %"
        reach = None if found.low is None else [found.low, found.high]
        cells = [*both, _cell(found.mean, "+"), _between(reach, "+"), p, share, verdict(name, found)]
        rows.append([METRICS[name].label, *cells, str(found.clips)])
    told = "p: of the paired sign-flip test, for each metric by itself; 'better' needs p < 0.05"
    return "\n".join([f"A: {names[0]}", f"B: {names[1]}", "", columns(rows), "", told])
