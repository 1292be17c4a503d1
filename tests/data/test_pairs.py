"""The written pairs are what the table says, the same for the same seed, and nothing is lost or overwritten."""

import csv
import math
import shutil

import numpy as np
import pytest
import torch

from wavelldm.audio import files
from wavelldm.audio.levels import active_level
from wavelldm.data import corpora, pairs
from wavelldm.data.degrade import Degradation
from wavelldm.errors import DataError

SR = 16_000


@pytest.fixture
def corpus(tmp_path):
    t = torch.arange(SR) / SR
    for i in range(4):  # swelling tones, the last one at full scale
        tone = torch.sin(2 * math.pi * (200 + 150 * i) * t) * (0.6 + 0.4 * torch.sin(6 * math.pi * t))
        files.save(tmp_path / "speech" / f"s{i}.wav", (0.3 if i < 3 else 1.0) * tone, SR)
    for i in range(2):
        noise = torch.randn(1, SR // 2 * (1 + 4 * i), generator=torch.Generator().manual_seed(i))
        files.save(tmp_path / "noise" / f"n{i}.wav", 0.1 * noise, SR)
    return corpora.folders(tmp_path / "speech", tmp_path / "noise")


def read(table) -> list[dict]:
    with open(table, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def pair(out, row):
    return [files.load(out / side / f"{row['name']}.wav")[0] for side in ("clean", "noisy")]


def contents(out) -> dict:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_the_files_have_the_ratio_of_the_table(corpus, tmp_path):
    rows = read(pairs.write_pairs(*corpus, tmp_path / "out", snrs=(0, 15), count=6))
    assert len(rows) == 6 and [float(row["snr"]) for row in rows] == [0, 15] * 3
    assert {row["speech"] for row in rows} == {str(item.path) for item in corpus[0]}
    for row in rows:
        clean, noisy = pair(tmp_path / "out", row)
        measured = float(active_level(clean, SR) - active_level(noisy - clean, SR))
        assert abs(measured - float(row["snr"])) < 0.05 and abs(float(row["measured"]) - float(row["snr"])) < 0.05
        assert clean.shape == noisy.shape == (1, SR) and float(row["seconds"]) == 1.0


def test_a_loud_pair_is_turned_down_alike_not_clipped(corpus, tmp_path):
    rows = read(pairs.write_pairs(*corpus, tmp_path / "out", snrs=[-10]))
    for row in rows:
        clean, noisy = pair(tmp_path / "out", row)
        assert noisy.abs().max() < 1 and (noisy.abs() > 0.998).sum() <= 2
        source = files.load(row["speech"])[0]
        gain = float((clean * source).sum() / source.square().sum())
        assert torch.allclose(clean, gain * source, atol=1e-4)


def test_the_seed_decides(corpus, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pairs.write_pairs(*corpus, tmp_path / name, snrs=[5], seed=seed, seconds=0.5)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b and a["pairs.tsv"] != c["pairs.tsv"]
    for seed in (0, 1):  # of one and the same file, too
        pairs.write_pairs(corpus[0][:1], corpus[1], tmp_path / f"one{seed}", snrs=[5], seed=seed)
    assert contents(tmp_path / "one0" / "noisy") != contents(tmp_path / "one1" / "noisy")
    assert len(files.load(next((tmp_path / "a" / "clean").iterdir()))[0][0]) == SR // 2


def test_an_interrupted_run_is_finished_by_the_same_call(corpus, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pairs.write_pairs(*corpus, whole, snrs=(0, 5), count=5)
    degrade, calls = pairs.degrade, []

    def stopped(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return degrade(*args)

    monkeypatch.setattr(pairs, "degrade", stopped)
    with pytest.raises(KeyboardInterrupt):
        pairs.write_pairs(*corpus, broken, snrs=(0, 5), count=5)
    assert len(read(broken / "pairs.tsv")) == 3
    row = (whole / "pairs.tsv").read_text().splitlines()[4]  # pair 3, as if cut off while its row was written
    for side in ("clean", "noisy"):
        shutil.copy(whole / side / f"{row.split()[0]}.wav", broken / side)
    with open(broken / "pairs.tsv", "a") as file:
        file.write(row[: len(row) // 2])
    pairs.write_pairs(*corpus, broken, snrs=(0, 5), count=5)
    assert len(calls) == 6  # two pairs were left to make
    assert contents(broken) == contents(whole)


def test_other_pairs_are_not_overwritten_unless_forced(corpus, tmp_path):
    out = tmp_path / "out"
    pairs.write_pairs(*corpus, out, snrs=[5], count=4)
    kept = contents(out)
    with pytest.raises(DataError, match="holds other pairs"):
        pairs.write_pairs(*corpus, out, snrs=[5], count=3, seed=1)
    assert contents(out) == kept
    pairs.write_pairs(*corpus, out, snrs=[5], count=3, seed=1, force=True)
    assert len(list((out / "clean").iterdir())) == len(list((out / "noisy").iterdir())) == 3
    other = tmp_path / "other"
    files.save(other / "clean" / "mine.wav", torch.zeros(1, 10), SR)
    with pytest.raises(DataError, match="holds other pairs"):
        pairs.write_pairs(*corpus, other, snrs=[5])


def test_the_recipe_adds_other_damage(corpus, tmp_path):
    rows = read(pairs.write_pairs(*corpus, tmp_path / "out", snrs=[10], recipe=Degradation(dropout=1.0)))
    for row in rows:
        clean, noisy = pair(tmp_path / "out", row)
        assert ((noisy == 0) & (clean != 0)).sum() > 0.04 * SR


def test_noise_that_is_mostly_silent_is_searched_for_sound(corpus, tmp_path):
    noise = torch.zeros(1, 20 * SR)
    noise[:, 5 * SR : 7 * SR] = 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal(2 * SR)).float()
    files.save(tmp_path / "rare" / "bark.wav", noise, SR)
    rows = read(pairs.write_pairs(corpus[0], corpora.folder(tmp_path / "rare"), tmp_path / "out", snrs=[5]))
    assert all(abs(float(row["measured"]) - 5) < 0.05 for row in rows)
    files.save(tmp_path / "nothing" / "quiet.wav", torch.zeros(1, SR), SR)
    with pytest.raises(DataError, match="were silent"):
        pairs.write_pairs(corpus[0], corpora.folder(tmp_path / "nothing"), tmp_path / "out2", snrs=[5])


def test_silent_speech_is_named(corpus, tmp_path):
    files.save(tmp_path / "quiet" / "hush.wav", torch.zeros(1, SR), SR)
    with pytest.raises(DataError, match="hush.wav is silent"):
        pairs.write_pairs(corpora.folder(tmp_path / "quiet"), corpus[1], tmp_path / "out", snrs=[5])
    with pytest.raises(DataError, match="at least one"):
        pairs.write_pairs(corpus[0], corpus[1], tmp_path / "out", snrs=[])
