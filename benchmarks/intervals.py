"""How sure the means of the tables are: 95 % of the bootstrap over clips, from the rows that the benchmarks saved.

python benchmarks/intervals.py     # after any of denoise.py, codec.py, refine.py, ladder.py
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import judges
from report import line, write_section

HERE = Path(__file__).parent
USUAL = {f"{snr} dB" for snr in ("0", "2.5", "5", "7.5", "10", "12.5", "15", "17.5")}


@dataclass(frozen=True)
class Table:
    """A file of rows, which of them count, what a row is called, what a clip is called, and which scores are shown."""

    file: str
    title: str
    name: Callable[[dict], str]
    clip: Callable[[dict], str]
    scores: tuple[str, ...]
    counts: Callable[[dict], bool] = lambda row: True


TABLES = (
    Table(
        "denoise.csv",
        "Denoisers, 0 to 17.5 dB",
        lambda row: row["system"],
        lambda row: row["clip"],
        ("pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl"),
        lambda row: row["damage"] in USUAL,
    ),
    Table(
        "refine.csv",
        "Refining",
        lambda row: (
            " + ".join(filter(None, (row["first"], row["refined"]))) + (f", {row['steps']}" * bool(row["steps"]))
        ),
        lambda row: row["clip"],
        ("pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl"),
    ),
    Table(
        "codec.csv",
        "Codecs",
        lambda row: row["system"],
        lambda row: f"{row['source']}/{row['clip']}",
        ("pesq_wb", "estoi", "mel_distance", "dnsmos_ovrl"),
    ),
    Table(
        "ladder.csv",
        "The reconstruction ladder",
        lambda row: row["rung"],
        lambda row: row["clip"],
        ("pesq_wb", "stoi", "lsd", "mel_distance"),
    ),
)


def by_clip(rows: list[dict], score: str, clip: Callable[[dict], str]) -> list[float]:
    """The mean of each clip: its versions at several noise levels are not independent of each other."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row[score] and math.isfinite(float(row[score])):
            found.setdefault(clip(row), []).append(float(row[score]))
    return [sum(values) / len(values) for values in found.values()]


def section(table: Table, rows: list[dict]) -> str:
    names = list(dict.fromkeys(table.name(row) for row in rows))
    lines = [line(["", *(judges.LABELS[s] for s in table.scores), "clips"])]
    lines.append("| --- |" + " ---: |" * (len(table.scores) + 1))
    for name in names:
        mine = [row for row in rows if table.name(row) == name]
        columns = [by_clip(mine, score, table.clip) for score in table.scores]
        cells = [judges.cell(values, score) for values, score in zip(columns, table.scores)]
        lines.append(line([name, *cells, str(max(map(len, columns)))]))
    return f"{table.title}:\n\n" + "\n".join(lines)


def read(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parts = ["## How sure the means are", "In brackets where 95 % of the means of resampled clips lie (bootstrap)."]
    for table in TABLES:
        rows = [row for row in read(HERE / table.file) if table.counts(row)]
        parts.append(section(table, rows))
    parts.append("Made by `python benchmarks/intervals.py` from the rows of all clips in the CSV files beside it.")
    text = "\n\n".join(parts)
    print(text)
    write_section("intervals", text)


if __name__ == "__main__":
    main()
