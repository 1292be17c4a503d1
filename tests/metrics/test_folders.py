import csv
import json
import math

import numpy as np
import pytest
import torch
from signals import noisy, speechlike

from wavelldm.audio import files as audio
from wavelldm.errors import AudioError, DataError, WavelldmError
from wavelldm.metrics import scores as metrics
from wavelldm.metrics.folders import evaluate, pairs, to_csv, to_json, to_table

SR = 16_000
FEW = ["si_sdr", "pesq_wb", "stoi"]


def write(path, wav, sr=SR):
    audio.save(path, torch.as_tensor(wav).float(), sr, force=True)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three clips, one in a folder below, in two formats; the second is too short for PESQ and STOI."""
    root = tmp_path_factory.mktemp("pairs")
    clips = {"a": speechlike(1.5, seed=1), "b": speechlike(0.2), "deep/c.1": speechlike(1.5, seed=2)}
    for name, clean in clips.items():
        write(root / "clean" / f"{name}.wav", clean)
        write(root / "better" / f"{name}.flac", noisy(clean, 20))
        write(root / "noisy" / f"{name}.wav", noisy(clean, 5))
    write(root / "noisy" / "unused.wav", clips["a"])
    return root


@pytest.fixture(scope="module")
def result(folders):
    return evaluate(folders / "clean", folders / "better", folders / "noisy", FEW, workers=1, progress=False)


def test_rows_hold_what_the_metrics_say(folders, result):
    assert [row.name for row in result.rows] == ["a", "b", "deep/c.1"]
    clean, better = (audio.load(folders / p)[0] for p in ("clean/deep/c.1.wav", "better/deep/c.1.flac"))
    for name in FEW:
        expected = metrics.METRICS[name].function(clean, better, SR)
        assert result.rows[2].enhanced[name] == pytest.approx(expected, abs=1e-9)
    assert result.rows[0].seconds == 1.5


def test_a_refused_clip_is_named_and_left_out_of_that_mean_alone(result):
    means = result.means()
    assert result.rows[1].enhanced["pesq_wb"] is None
    assert means["pesq_wb"]["clips"] == 2 and means["si_sdr"]["clips"] == 3
    for which in ("enhanced", "noisy"):
        scores = [getattr(row, which) for row in result.rows]
        assert means["pesq_wb"][which] == pytest.approx((scores[0]["pesq_wb"] + scores[2]["pesq_wb"]) / 2)
        assert means["si_sdr"][which] == pytest.approx(sum(s["si_sdr"] for s in scores) / 3)
    named = {(x["clip"], x["metric"], x["of"]) for x in result.left_out()}
    assert named == {("b", metric, which) for metric in ("pesq_wb", "stoi") for which in ("enhanced", "noisy")}
    assert "left out: pesq_wb of b (enhanced): PESQ refuses the clip" in to_table(result)


def test_the_change_is_the_mean_over_clips_that_have_both(result):
    gains = [row.enhanced["si_sdr"] - row.noisy["si_sdr"] for row in result.rows]
    assert result.means()["si_sdr"]["change"] == pytest.approx(sum(gains) / 3)
    assert result.means()["si_sdr"]["change"] == pytest.approx(15, abs=0.5)


def test_in_parallel_the_same_comes_out(folders, result):
    assert evaluate(folders / "clean", folders / "better", folders / "noisy", FEW, workers=2, progress=False) == result


def test_an_error_in_a_worker_arrives_whole(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "clean" / f"{name}.wav", speechlike(1.7))
        write(tmp_path / "enhanced" / f"{name}.wav", speechlike(1.5))
    with pytest.raises(DataError, match=r"a\.wav is 1\.50 s long and .*a\.wav 1\.70 s"):
        evaluate(tmp_path / "clean", tmp_path / "enhanced", metrics=["snr"], workers=2, progress=False)


def test_small_differences_in_length_are_cut(tmp_path):
    x = speechlike(1.0)
    write(tmp_path / "c.wav", x)
    write(tmp_path / "e.wav", np.r_[0.5 * x, np.ones(1500)])
    rows = evaluate(tmp_path / "c.wav", tmp_path / "e.wav", metrics=["snr"], progress=False).rows
    assert rows[0].enhanced["snr"] == pytest.approx(20 * math.log10(2), abs=1e-2)


def test_identical_clips_are_infinitely_good_and_therefore_left_out(tmp_path):
    write(tmp_path / "c.wav", speechlike(1.0))
    found = evaluate(tmp_path / "c.wav", tmp_path / "c.wav", metrics=["snr", "correlation"], progress=False)
    assert found.means()["snr"] == {"enhanced": None, "clips": 0}
    assert found.means()["correlation"]["enhanced"] == pytest.approx(1)
    assert "infinite" in found.left_out()[0]["reason"]
    assert " -  " in to_table(found) and json.loads(to_json(found))["means"]["snr"]["enhanced"] is None


def test_rates_and_channels_are_made_equal_to_the_clean_clip(tmp_path):
    x = torch.from_numpy(speechlike(1.0)).float()
    write(tmp_path / "c.wav", x)
    up = audio.resample(x, SR, 48_000)
    write(tmp_path / "e.wav", torch.stack([up, up]), 48_000)
    row = evaluate(tmp_path / "c.wav", tmp_path / "e.wav", metrics=["snr"], progress=False).rows[0]
    assert row.sr == SR and row.enhanced["snr"] > 30


def test_align_takes_out_a_delay(tmp_path):
    x = speechlike(1.0)
    write(tmp_path / "c.wav", x)
    write(tmp_path / "e.wav", np.r_[np.zeros(123), 0.8 * x])
    files = tmp_path / "c.wav", tmp_path / "e.wav"
    plain, aligned = (evaluate(*files, None, ["si_sdr"], align, progress=False).rows[0] for align in (False, True))
    assert plain.delay is None and plain.enhanced["si_sdr"] < 0
    assert aligned.delay == pytest.approx(123, abs=0.01) and aligned.enhanced["si_sdr"] > 40


def test_partners_must_exist(folders, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "some" / f"{name}.wav", speechlike(0.5))
    with pytest.raises(DataError, match=r"some has no partner for deep/c\.1 of"):
        pairs(folders / "clean", tmp_path / "some")
    with pytest.raises(DataError, match=r"some has no partner for deep/c\.1 of"):
        pairs(tmp_path / "some", folders / "clean")
    with pytest.raises(DataError, match=r"some has no partner for deep/c\.1 of"):
        pairs(folders / "clean", folders / "better", tmp_path / "some")
    with pytest.raises(DataError, match="does not exist"):
        pairs(folders / "clean", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no sound files"):
        pairs(tmp_path / "empty", folders / "clean")
    write(tmp_path / "some" / "a.flac", speechlike(0.5))
    with pytest.raises(DataError, match="same name"):
        pairs(tmp_path / "some", tmp_path / "some")


def test_a_file_that_is_not_sound_is_named(folders, tmp_path):
    (tmp_path / "e.wav").write_text("not sound")
    with pytest.raises(AudioError, match="e.wav cannot be read as sound"):
        evaluate(folders / "clean/a.wav", tmp_path / "e.wav", metrics=["snr"], progress=False)
    with pytest.raises(WavelldmError, match="at least 1"):
        evaluate(folders / "clean", folders / "better", metrics=["snr"], workers=0, progress=False)


def test_table_json_and_csv_say_the_same(result, tmp_path):
    mean = result.means()["stoi"]
    line = next(line for line in to_table(result).splitlines() if line.startswith("STOI"))
    numbers = [f"{mean['enhanced']:.3f}", f"{mean['noisy']:.3f}", f"{mean['change']:+.3f}"]
    assert line.split() == ["STOI", *numbers, "%", "higher", "2/3"]
    assert "deep/c.1" in to_table(result, per_file=True) and "deep/c.1" not in to_table(result)
    whole = json.loads(to_json(result))
    assert whole["means"] == result.means() and whole["clips"] == 3
    assert whole["files"][1]["enhanced"]["pesq_wb"] is None and "PESQ" in whole["files"][1]["refused"]["pesq_wb"]
    to_csv(result, tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [float(r["si_sdr"]) for r in rows] == [row.enhanced["si_sdr"] for row in result.rows]
    assert float(rows[0]["noisy_stoi"]) == result.rows[0].noisy["stoi"] and rows[1]["pesq_wb"] == ""
    with pytest.raises(AudioError, match="exists"):
        to_csv(result, tmp_path / "rows.csv")
