import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from wavelldm.audio import files

SR = 16_000


def test_mix_and_evaluate_and_denoise_fit_together(cli, tmp_path, folders):
    pairs = tmp_path / "pairs"
    argv = ["mix", "--speech", folders / "speech", "--noise", folders / "noise", "--snr", -5, 10, "--count", 4]
    code, out, _ = cli(*argv, "-o", pairs)
    assert code == 0 and len(os.listdir(pairs / "clean")) == len(os.listdir(pairs / "noisy")) == 4
    assert cli("denoise", pairs / "noisy", "-o", tmp_path / "cleaned")[0] == 0
    evaluate = ["evaluate", pairs / "clean", tmp_path / "cleaned", pairs / "noisy"]
    evaluate += ["--metrics", "si_sdr,lsd", "--workers", 1]
    code, out, _ = cli(*evaluate, "-o", tmp_path / "rows.csv")
    assert code == 0 and "SI-SDR" in out
    assert len((tmp_path / "rows.csv").read_text().splitlines()) >= 5
    code, out, _ = cli(*evaluate, "--json")
    assert code == 0 and isinstance(json.loads(out), dict)
    code, _, err = cli(*evaluate, "-o", tmp_path / "rows.csv")
    assert code == 1 and "--force" in err


def test_one_damaged_clip_does_not_end_an_evaluation(cli, tmp_path, folders):
    for side in ("clean", "cleaned"):
        for name in "abc":
            wav, sr = files.load(folders / "speech" / "s0.wav")
            files.save(tmp_path / side / f"{name}.wav", wav + 0.01 * (side == "cleaned") * torch.randn(wav.shape), sr)
    (tmp_path / "cleaned" / "b.wav").write_text("no audio" * 50)
    argv = ["evaluate", tmp_path / "clean", tmp_path / "cleaned", "--metrics", "si_sdr", "--workers", 1]
    code, out, err = cli(*argv)
    assert code == 1 and "2/2" in out and "b.wav cannot be read" in out and "1 of 3 clips" in err
    code, out, _ = cli(*argv, "--json")
    facts = json.loads(out)
    assert code == 1 and [row["name"] for row in facts["files"]] == ["a", "c"]
    assert facts["failed"][0]["clip"] == "b" and "cannot be read" in facts["failed"][0]["reason"]
    assert facts["means"]["si_sdr"]["clips"] == 2
    code, out, _ = cli(*argv, "--per-file", "-o", tmp_path / "rows.csv")
    assert code == 1 and len((tmp_path / "rows.csv").read_text().splitlines()) == 3


def test_one_damaged_file_does_not_end_mixing(cli, tmp_path, folders):
    shutil.copytree(folders, tmp_path / "in")
    (tmp_path / "in" / "speech" / "s1.wav").write_text("no audio" * 50)
    argv = ["mix", "--speech", tmp_path / "in" / "speech", "--noise", tmp_path / "in" / "noise", "--count", 6]
    code, out, err = cli(*argv, "-o", tmp_path / "pairs", "--json")
    assert code == 1 and json.loads(out)["count"] == 4 and len(json.loads(out)["errors"]) == 1
    assert err.count("s1.wav cannot be read as sound") == 1 and "2 of 6 pairs" in err
    assert len(os.listdir(tmp_path / "pairs" / "clean")) == len(os.listdir(tmp_path / "pairs" / "noisy")) == 4


def test_json_of_an_evaluation_is_nothing_but_json(tmp_path, folders):
    """Also with standard error in it: progress bars are for terminals."""
    command = [sys.executable, "-m", "wavelldm", "evaluate", folders / "speech", folders / "speech", "--json"]
    done = subprocess.run(
        [*map(str, command), "--metrics", "si_sdr,lsd"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0 and json.loads(done.stdout)["clips"] == 3


def test_negative_counts_are_refused_by_the_library_too(tmp_path, folders):
    from wavelldm.data import corpora, pairs
    from wavelldm.errors import DataError
    from wavelldm.ladder import report

    items = corpora.folders(folders / "speech", folders / "noise")
    with pytest.raises(DataError, match="at least 1"):
        pairs.write_pairs(*items, tmp_path / "pairs", snrs=[0], count=-1)
    assert os.listdir(tmp_path) == []
    with pytest.raises(DataError, match="at least 1"):
        report.clips([folders / "speech"], number=0)


def test_data_list(cli):
    code, out, _ = cli("data", "list")
    assert code == 0
    assert all(name in out for name in ("voicebank-demand", "ljspeech", "librispeech-dev-clean", "embedded"))
    assert {row["name"] for row in json.loads(cli("data", "list", "--json")[1])["sources"]} >= {"ljspeech"}


def test_data_get_embedded(cli, tmp_path):
    code, out, _ = cli("data", "get", "embedded", "-o", tmp_path, "--minutes", 0.5)
    assert code == 0 and "manifest.tsv" in out


def test_info(cli):
    code, out, _ = cli("info")
    assert code == 0 and "base16k" in out and "kbit/s" in out
    facts = json.loads(cli("info", "--json")[1])
    assert facts["presets"]["paper44k"]["entries"] == 15_360
    assert facts["presets"]["base16k"]["bitrate"] == pytest.approx(4 * 13.907 * 62.5, abs=1)
    assert facts["presets"]["tiny"]["codec_parameters"] > 10_000
    assert facts["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
