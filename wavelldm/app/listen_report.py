"""What the ratings of a listening test tell, and how sure it is.

Intervals resample listeners and clips both, so that they hold for other listeners and other clips (Owen, "The
pigeonhole bootstrap", 2007). Differences are tested listener by listener with flipped signs, corrected for the number
of pairs (Holm 1979). AB and ABX: binomial tests with exact intervals (Clopper and Pearson 1934).
"""

import csv
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from ..audio import files
from ..errors import DataError
from ..metrics.folders import columns
from ..metrics.intervals import sign_flip
from .listen import CHECK, REFERENCE, ListeningTest, open_test
from .listen_store import NAME, Store

DRAWS = 2_000
MOST_BYTES = 8 * 2**20  # of a file that a listener sent
FAILED = 1 / 3  # a listener is left out who fails more than this share of the checks
HIDDEN, SHARE = 90, 0.15  # MUSHRA (BS.1534-3, 4.1.2): the hidden reference below 90 in more than 15 % of the trials
RULES = {
    "acr": "left out: who rates more than a third of the sounds that are bad on purpose 3 or better",
    "mushra": "left out: who rates the hidden reference below 90 in more than 15 % of the trials (ITU-R BS.1534-3)",
    "ab": "left out: who fails to prefer the good sound in more than a third of the checks",
    "abx": "left out: who is wrong in more than a third of the trials that anybody hears",
}


@dataclass(frozen=True)
class Ratings:
    """All of one listener: {trial: {item: value}}."""

    listener: str
    name: str
    answers: dict[str, dict[str, int | str]]


@dataclass(frozen=True)
class Score:
    """A system's mean with its 95 % interval."""

    system: str
    mean: float
    low: float
    high: float
    ratings: int


@dataclass(frozen=True)
class Pair:
    """Two systems: the first less the second (ACR, MUSHRA), or how often the first was preferred, or X was known."""

    a: str
    b: str
    value: float
    low: float
    high: float
    p: float | None
    count: int
    same: int = 0


@dataclass(frozen=True)
class Report:
    test: ListeningTest
    listeners: int
    left_out: tuple[str, ...]
    answers: int
    scores: tuple[Score, ...] = ()
    pairs: tuple[Pair, ...] = ()
    rows: tuple[tuple, ...] = ()  # listener, trial, clip, system(s), value, kept
    notes: tuple[str, ...] = ()
    spread: dict[str, list[float]] = field(default_factory=dict)  # {system: ratings} for the picture

    def facts(self) -> dict:
        return {
            "test": self.test.title,
            "kind": self.test.kind,
            "listeners": self.listeners,
            "left_out": list(self.left_out),
            "rule": RULES[self.test.kind],
            "answers": self.answers,
            "systems": [asdict(score) for score in self.scores],
            "pairs": [asdict(pair) for pair in self.pairs],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        head = f"{self.test.title} ({self.test.kind}): {self.answers} answers of {self.listeners} listeners"
        parts = [head, f"{RULES[self.test.kind]}: {', '.join(self.left_out) or 'nobody'}"]
        if self.scores:
            label = "MOS" if self.test.kind == "acr" else "score"
            rows = [["system", label, "95 %", "ratings"]]
            rows += [
                [s.system, f"{s.mean:.2f}", f"{s.low:.2f}..{s.high:.2f}", str(s.ratings)]
                for s in sorted(self.scores, key=lambda s: -s.mean)
            ]
            parts.append(columns(rows))
        if self.pairs:
            heads = {"ab": ["A preferred", "same"], "abx": ["X known", ""]}.get(self.test.kind, ["A - B", ""])
            rows = [["A", "B", heads[0], "95 %", "p", "of", *([heads[1]] if heads[1] else [])]]
            for pair in self.pairs:
                share = self.test.kind in ("ab", "abx")
                show = (lambda v: f"{100 * v:.0f} %") if share else (lambda v: f"{v:+.2f}")
                p = "-" if pair.p is None else "<0.001" if pair.p < 0.001 else f"{pair.p:.3f}"
                cells = [show(pair.value), f"{show(pair.low)}..{show(pair.high)}", p, str(pair.count)]
                rows.append([pair.a, pair.b, *cells, *([str(pair.same)] if heads[1] else [])])
            parts.append(columns(rows))
        return "\n\n".join([*parts, *self.notes])


# --- who said what


def gather(test: ListeningTest, sent: Sequence[str | Path] = ()) -> list[Ratings]:
    """The ratings of the test's own file, and of files that listeners saved and sent."""
    found = []
    if (test.folder / NAME).exists() or not sent:
        store = Store(test, write=False)
        found = [Ratings(*one) for one in store.everything()]
        store.close()
    found += from_files(test, sent)
    if not found:
        raise DataError(f"nobody has rated {test.folder} yet; there is nothing to report")
    return found


def from_files(test: ListeningTest, sent: Iterable[str | Path]) -> list[Ratings]:
    """Files that the static page saved. Two of one listener count as one: the later answer stays."""
    merged: dict[str, tuple[str, dict[str, dict]]] = {}
    for path in map(Path, sent):
        facts = read_file(path)
        if facts["test"] != test.id:
            raise DataError(f"{path} holds ratings of another test; leave it out, or name its own test")
        who, answers = facts["listener"], facts["answers"]
        held = merged.setdefault(str(who["id"]), (str(who.get("name", "")), {}))[1]
        for answer in answers:
            if reason := test.refuse(answer["trial"], answer["item"], answer["value"]):
                raise DataError(f"{path} holds an answer that does not belong to the test ({reason}); leave it out")
            held[answer["client"]] = answer
    found = []
    for number, (name, answers) in enumerate(merged.values(), 1):
        trials: dict[str, dict] = {}
        for answer in answers.values():
            trials.setdefault(answer["trial"], {})[answer["item"]] = answer["value"]
        found.append(Ratings(f"file {number}", name, trials))
    return found


def read_file(path: Path) -> dict:
    """One saved file, with all the fields that it must have."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError
        facts = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(facts["test"], str) and isinstance(facts["listener"]["id"], str)
        whole = whole and all(isinstance(a[k], str) for a in facts["answers"] for k in ("client", "trial", "item"))
        whole = whole and all("value" in a for a in facts["answers"])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name files that listeners sent") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise DataError(f"{path} is no file of ratings, or is damaged; leave it out, or ask the listener again")
    return facts


def fails(test: ListeningTest, ratings: Ratings) -> bool:
    """Whether a listener is left out by the rule of RULES."""
    asked = failed = 0
    for trial in test.trials:
        answers = ratings.answers.get(trial.id, {})
        if test.kind == "mushra":
            hidden = [v for item, v in answers.items() if item != "done" and test.sounds[item][0] == REFERENCE]
            asked, failed = asked + len(hidden), failed + sum(v < HIDDEN for v in hidden)
        elif trial.check:
            for item, value in answers.items():
                if item == "done":
                    continue
                asked += 1
                if test.kind == "acr":
                    failed += value >= 3
                elif test.kind == "ab":
                    failed += value == "same" or test.sounds[value][0] == CHECK
                else:
                    failed += value != item[2:]
    return asked > 0 and failed / asked > (SHARE if test.kind == "mushra" else FAILED)


# --- how sure


def two_way(x: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(listeners, clips) with NaN where nobody rated -> mean of the ratings, and where 95 % of the means of resampled
    listeners and clips lie."""
    there = ~np.isnan(x)
    if not there.any():
        return math.nan, math.nan, math.nan
    rng, (rows, cols) = np.random.default_rng(seed), x.shape
    wl = rng.multinomial(rows, np.full(rows, 1 / rows), DRAWS)  # (D, L)
    wc = rng.multinomial(cols, np.full(cols, 1 / cols), DRAWS)  # (D, C)
    total = ((wl @ np.where(there, x, 0.0)) * wc).sum(1)
    count = ((wl @ there) * wc).sum(1)
    low, high = np.percentile(total[count > 0] / count[count > 0], [2.5, 97.5])
    return float(x[there].mean()), float(low), float(high)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p of several tests, each raised so that all hold together (Holm 1979)."""
    order = sorted((i for i, p in enumerate(ps) if p is not None), key=lambda i: ps[i])
    out: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * ps[i]))
        out[i] = highest
    return out


def difference(a: np.ndarray, b: np.ndarray) -> tuple[tuple[float, float, float], float | None, int]:
    """(L, C) each -> mean difference with its interval, p of flipped signs over the listeners' means, ratings."""
    x = a - b
    there = ~np.isnan(x)
    means = [row[mask].mean() for row, mask in zip(x, there) if mask.any()]
    p = sign_flip(means)
    return two_way(x), None if math.isnan(p) else p, int(there.sum())


def report(test: ListeningTest, everybody: Sequence[Ratings], keep_all: bool = False) -> Report:
    """The report of a test. `keep_all`: nobody is left out."""
    out = {r.listener for r in everybody if not keep_all and fails(test, r)}
    kept = [r for r in everybody if r.listener not in out]
    number = sum(item != "done" for r in everybody for answers in r.answers.values() for item in answers)
    rows = tuple(row for r in everybody for row in rows_of(test, r, r.listener not in out))
    more = rated(test, kept) if test.kind in ("acr", "mushra") else chosen(test, kept)
    notes = []
    if not kept:
        notes.append("nobody is left: every listener failed the checks")
    elif len(kept) < 6 and test.kind in ("acr", "mushra"):
        notes.append(f"with {len(kept)} listeners no difference can have p < 0.05; ask at least 6")
    if test.kind in ("ab", "abx") and len(kept) > 1:
        notes.append("p takes answers as independent; several of one listener are less than that")
    return Report(test, len(everybody), tuple(sorted(out)), number, rows=rows, notes=tuple(notes), **more)


def rows_of(test: ListeningTest, ratings: Ratings, kept: bool) -> Iterable[tuple]:
    for trial in test.trials:
        for item, value in ratings.answers.get(trial.id, {}).items():
            if item == "done":
                continue
            of = [test.sounds[s][0] for s in ([item] if item in test.sounds else trial.stimuli)]
            if test.kind == "abx":
                value = "right" if value == item[2:] else "wrong"
            elif test.kind == "ab":
                value = "same" if value == "same" else test.sounds[value][0]
            yield ratings.listener, trial.id, trial.clip, " / ".join(of), value, kept


def rated(test: ListeningTest, kept: Sequence[Ratings]) -> dict:
    """Scores of the systems and their differences, of ratings in numbers."""
    clips = sorted({trial.clip for trial in test.trials})
    column, tables = {clip: i for i, clip in enumerate(clips)}, {}
    for row, ratings in enumerate(kept):
        for trial in test.trials:
            for item, value in ratings.answers.get(trial.id, {}).items():
                system = CHECK if item == "done" else test.sounds[item][0]
                if system != CHECK:
                    table = tables.setdefault(system, np.full((len(kept), len(clips)), np.nan))
                    table[row, column[trial.clip]] = value
    scores = [Score(name, *two_way(table), int((~np.isnan(table)).sum())) for name, table in sorted(tables.items())]
    named = [name for name in test.systems if name in tables]
    both = list(itertools.combinations(named, 2))
    found = [difference(tables[a], tables[b]) for a, b in both]
    ps = holm([p for _, p, _ in found])
    pairs = [Pair(a, b, *reach, p, count) for (a, b), (reach, _, count), p in zip(both, found, ps) if count]
    spread = {name: table[~np.isnan(table)].tolist() for name, table in tables.items()}
    return {"scores": tuple(scores), "pairs": tuple(pairs), "spread": spread}


def chosen(test: ListeningTest, kept: Sequence[Ratings]) -> dict:
    """Pairs of systems, of choices. AB: the share that prefers the first, among those who prefer one, two-sided. ABX:
    the share that knows X, one-sided against guessing."""
    counts: dict[tuple[str, str], list[int]] = {}
    for ratings in kept:
        for trial in test.trials:
            if trial.check or trial.practice:
                continue
            a, b = (test.sounds[s][0] for s in trial.stimuli)
            for item, value in ratings.answers.get(trial.id, {}).items():
                if item == "done":
                    continue
                count = counts.setdefault((a, b), [0, 0, 0])
                first = value == (item[2:] if test.kind == "abx" else trial.stimuli[0])
                count[2 if value == "same" else 0 if first else 1] += 1
    pairs = []
    side = "two-sided" if test.kind == "ab" else "greater"
    for (a, b), (yes, no, same) in counts.items():
        n = yes + no
        if not n:
            pairs.append(Pair(a, b, 0.5, 0.0, 1.0, None, 0, same))
            continue
        reach = binomtest(yes, n).proportion_ci(0.95)
        pairs.append(Pair(a, b, yes / n, reach.low, reach.high, binomtest(yes, n, alternative=side).pvalue, n, same))
    ps = holm([pair.p for pair in pairs])
    return {"pairs": tuple(Pair(**{**asdict(pair), "p": p}) for pair, p in zip(pairs, ps))}


def mos(folder: str | Path) -> dict[str, tuple[float, float, float]]:
    """{system: (MOS, low, high)} of a test of kind acr, for `wavelldm evaluate --mos`."""
    test = open_test(folder)
    if test.kind != "acr":
        raise DataError(f"{folder} is a test of kind {test.kind}, and MOS needs one of kind acr; name another")
    return {s.system: (s.mean, s.low, s.high) for s in report(test, gather(test)).scores}


# --- files


def plain(name: str) -> str:
    """A name that matplotlib does not take for mathematics."""
    return name.replace("$", r"\$")


def picture(found: Report, path: Path) -> None:
    from ..plots import ACCENT, INK, SOFT, pyplot

    plt = pyplot()
    rows = max(2, len(found.scores) or len(found.pairs))
    fig, ax = plt.subplots(figsize=(7, 1.2 + 0.5 * rows))
    if found.scores:
        ordered = sorted(found.scores, key=lambda s: s.mean)
        rng = np.random.default_rng(0)
        for y, score in enumerate(ordered):
            points = np.array(found.spread[score.system])
            wide = 0.12 if found.test.kind == "acr" else 0.0
            at = points + rng.uniform(-wide, wide, len(points)), y + rng.uniform(-0.25, 0.25, len(points))
            ax.plot(*at, ".", color=SOFT, alpha=0.35, ms=4, zorder=1)
            ax.plot([score.low, score.high], [y, y], color=ACCENT, lw=2.5, solid_capstyle="round", zorder=2)
            ax.plot(score.mean, y, "o", color=ACCENT, ms=7, zorder=3)
            ax.annotate(
                f"{score.mean:.2f}", (score.mean, y), (0, 8), textcoords="offset points", ha="center", color=INK
            )
        ax.set_yticks(range(len(ordered)), [plain(s.system) for s in ordered])
        ax.set(xlim=(0.7, 5.3) if found.test.kind == "acr" else (-2, 102), ylim=(-0.6, len(ordered) - 0.3))
        ax.set_xlabel("MOS" if found.test.kind == "acr" else "score")
    else:
        for y, pair in enumerate(reversed(found.pairs)):
            ax.plot([100 * pair.low, 100 * pair.high], [y, y], color=ACCENT, lw=2.5, solid_capstyle="round")
            ax.plot(100 * pair.value, y, "o", color=ACCENT, ms=7)
        ax.axvline(50, color=SOFT, ls="--", lw=1)
        names = [plain(f"{p.a} or {p.b}" if found.test.kind == "abx" else f"{p.a} over {p.b}") for p in found.pairs]
        ax.set_yticks(range(len(names)), names[::-1])
        ax.set(xlim=(0, 100), ylim=(-0.6, max(1, len(names)) - 0.4))
        ax.set_xlabel("X known, %" if found.test.kind == "abx" else "preferred, %")
    kept = found.listeners - len(found.left_out)
    ax.set_title(plain(f"{found.test.title} · {kept} listeners, bars: 95 %"))
    fig.savefig(path)
    plt.close(fig)


def write(found: Report, folder: str | Path, force: bool = False) -> None:
    """report.txt, report.png and ratings.csv. The CSV numbers listeners; their names stay in the test's own file."""
    folder = Path(folder)
    with files.writing(folder / "report.txt", force) as part:
        part.write_text(found.text() + "\n", encoding="utf-8")
    with files.writing(folder / "report.png", force) as part:
        picture(found, part)
    with files.writing(folder / "ratings.csv", force) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["listener", "trial", "clip", "system", "value", "kept"])
        writer.writerows(found.rows)
