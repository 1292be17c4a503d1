import csv
import json
import math
import re
import shutil
import subprocess
import sys

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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pair_that_does_not_belong_together_is_named_and_the_others_are_scored(tmp_path, workers):
    for name, seconds in (("a", 1.7), ("b", 1.5)):
        write(tmp_path / "clean" / f"{name}.wav", speechlike(seconds))
        write(tmp_path / "enhanced" / f"{name}.wav", noisy(speechlike(1.5), 10))
    result = evaluate(tmp_path / "clean", tmp_path / "enhanced", metrics=["snr"], workers=workers, progress=False)
    assert [row.name for row in result.rows] == ["b"] and [x.name for x in result.failed] == ["a"]
    assert re.search(r"a\.wav is 1\.50 s long and .*a\.wav 1\.70 s", result.failed[0].reason)


def test_small_differences_in_length_are_cut(tmp_path):
    x = speechlike(1.0)
    write(tmp_path / "c.wav", x)
    write(tmp_path / "e.wav", np.r_[0.5 * x, np.ones(1500)])
    rows = evaluate(tmp_path / "c.wav", tmp_path / "e.wav", metrics=["snr"], progress=False).rows
    assert rows[0].enhanced["snr"] == pytest.approx(20 * math.log10(2), abs=1e-2)


def test_identical_clips_are_infinitely_good_and_therefore_left_out(tmp_path):
    write(tmp_path / "c.wav", speechlike(1.0))
    found = evaluate(tmp_path / "c.wav", tmp_path / "c.wav", metrics=["snr", "correlation"], progress=False)
    assert found.means()["snr"] == {"enhanced": None, "interval": None, "clips": 0}
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


@pytest.mark.parametrize("side", ["clean", "better", "noisy"])
def test_one_damaged_file_is_named_and_the_others_are_scored(folders, tmp_path, side):
    shutil.copytree(folders, tmp_path / "all")
    damaged = next((tmp_path / "all" / side).glob("a.*"))
    damaged.write_bytes(b"not sound")
    result = evaluate(*(tmp_path / "all" / x for x in ("clean", "better", "noisy")), ["snr"], workers=1, progress=False)
    assert [row.name for row in result.rows] == ["b", "deep/c.1"]
    (failure,) = result.failed
    assert failure.name == "a" and f"{damaged} cannot be read as sound" in failure.reason
    assert "failed: a: " in to_table(result)
    whole = json.loads(to_json(result))
    assert whole["clips"] == 2 and whole["failed"] == [{"clip": "a", "reason": failure.reason}]
    to_csv(result, tmp_path / "rows.csv")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3


def test_if_every_clip_fails_there_are_still_a_table_and_json(folders, tmp_path):
    (tmp_path / "e.wav").write_text("not sound")
    result = evaluate(folders / "clean/a.wav", tmp_path / "e.wav", metrics=["snr"], progress=False)
    assert result.rows == [] and len(result.failed) == 1 and not result.has_noisy
    assert "0/0" in to_table(result)
    assert json.loads(to_json(result))["means"]["snr"] == {"enhanced": None, "interval": None, "clips": 0}


def test_a_flac_of_unknown_length_is_scored(tmp_path):
    write(tmp_path / "c.flac", speechlike(1.0))
    write(tmp_path / "e.wav", noisy(speechlike(1.0), 10))
    data = bytearray((tmp_path / "c.flac").read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
    (tmp_path / "c.flac").write_bytes(data)
    row = evaluate(tmp_path / "c.flac", tmp_path / "e.wav", metrics=["snr"], progress=False).rows[0]
    assert row.seconds == 1.0 and row.enhanced["snr"] == pytest.approx(10, abs=0.1)


def test_two_files_cut_short_alike_are_scored_with_a_warning(tmp_path, caplog):
    write(tmp_path / "c.wav", speechlike(1.0))
    data = (tmp_path / "c.wav").read_bytes()
    (tmp_path / "c.wav").write_bytes(data[: len(data) // 2])
    write(tmp_path / "e.wav", noisy(speechlike(1.0), 10)[: SR // 2 - 22])
    result = evaluate(tmp_path / "c.wav", tmp_path / "e.wav", metrics=["snr"], progress=False)
    assert not result.failed and result.rows[0].seconds == pytest.approx(0.5, abs=0.01)
    assert "c.wav is cut short: its header promises 1.00 s and it holds 0.50 s" in caplog.text


def test_a_missing_package_and_a_wrong_number_of_workers_are_errors_of_the_whole_run(folders, monkeypatch):
    with pytest.raises(WavelldmError, match="at least 1"):
        evaluate(folders / "clean", folders / "better", metrics=["snr"], workers=0, progress=False)
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(WavelldmError, match="needs the package 'pesq'"):
        evaluate(folders / "clean", folders / "better", metrics=["pesq_wb"], workers=1, progress=False)


def test_progress_is_silent_where_nobody_watches(folders, capfd):
    evaluate(folders / "clean", folders / "better", metrics=["snr"], workers=1)
    out, err = capfd.readouterr()
    assert out == err == ""


def test_table_json_and_csv_say_the_same(result, tmp_path):
    mean = result.means()["stoi"]
    line = next(line for line in to_table(result).splitlines() if line.startswith("STOI"))
    numbers = [f"{mean['enhanced']:.3f}", f"{mean['interval'][0]:.3f}..{mean['interval'][1]:.3f}"]
    numbers += [f"{mean['noisy']:.3f}", f"{mean['change']:+.3f}"]
    numbers += ["{:+.3f}..{:+.3f}".format(*mean["change_interval"])]
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


def test_the_command_prints_whole_json_and_ends_with_an_error_if_a_clip_failed(folders, tmp_path):
    shutil.copytree(folders, tmp_path / "all")
    (tmp_path / "all/better/a.flac").write_bytes(b"not sound")
    command = [sys.executable, "-m", "wavelldm", "evaluate", "all/clean", "all/better", "--metrics", "snr", "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert [row["name"] for row in json.loads(run.stdout)["files"]] == ["b", "deep/c.1"]
    (line,) = run.stderr.splitlines()  # no progress bar, as nobody watches
    assert "1 of 3 clips could not be scored" in line and "a.flac cannot be read as sound" in line
