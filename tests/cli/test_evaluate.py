"""Protocols on stand-in corpora of the same layout, and the comparison of two systems."""

import json

import numpy as np
import pytest
import torch
from signals import noisy, speechlike

from wavelldm.audio import files
from wavelldm.metrics import scores
from wavelldm.metrics.folders import compared, evaluate, verdict

SR = 16_000


def save(path, wav, sr=SR):
    wav = torch.as_tensor(np.asarray(wav)).float()
    files.save(path, wav if sr == SR else files.resample(wav, SR, sr), sr)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """VoiceBank+DEMAND's and LJSpeech's folders with a few clips, at their rates; results of a better system and a
    worse one."""
    root = tmp_path_factory.mktemp("corpora")
    for i in range(6):
        clean, name = 0.5 * speechlike(1.5, seed=i), f"p232_{i:03d}"
        save(root / f"vb/clean_testset_wav/{name}.wav", clean, 48_000)
        save(root / f"vb/noisy_testset_wav/{name}.wav", noisy(clean, 5 + i, seed=i), 48_000)
        save(root / f"good/{name}.wav", noisy(clean, 20 + i, seed=i))
        save(root / f"bad/{name}.wav", noisy(clean, 10 + i, seed=i + 9))
    for name in ("LJ001-0001", "LJ002-0001", "LJ003-0001"):
        save(root / f"lj/wavs/{name}.wav", 0.5 * speechlike(1.5, seed=len(name)), 22_050)
    save(root / "vocoder/LJ001-0001.wav", noisy(0.5 * speechlike(1.5, seed=10), 15), 22_050)
    return root


def test_voicebank_prints_the_row_of_papers_at_16_khz(corpora, cli):
    code, out, err = cli("evaluate", "--protocol", "voicebank", corpora / "vb", corpora / "good", "--workers", 1)
    assert code == 0 and err == ""
    lines = out.splitlines()
    head = "system WB-PESQ CSIG CBAK COVL STOI SI-SDR segmental SNR"
    assert " ".join(lines[2].split()) == head
    rows = {line.split()[0].split("/")[-1]: line.split()[1:] for line in lines[3:7]}
    assert "6 clips, and the test set has 824" in out
    clean, given = (
        files.load(corpora / f"{d}/p232_00{i}.wav", sr=SR)[0][0] for d, i in (("vb/clean_testset_wav", 0), ("good", 0))
    )
    expected = [
        np.mean(
            [
                scores.METRICS[name].function(
                    files.load(corpora / f"vb/clean_testset_wav/p232_{i:03d}.wav", sr=SR)[0],
                    files.load(corpora / f"good/p232_{i:03d}.wav", sr=SR)[0],
                    SR,
                )
                for i in range(6)
            ]
        )
        for name in ("pesq_wb", "stoi", "si_sdr")
    ]
    assert [float(rows["good"][i]) for i in (0, 4, 5)] == pytest.approx(expected, abs=0.006)
    assert float(rows["good"][0]) > float(rows["noisy"][0])
    assert len(clean) == len(given)


def test_voicebank_runs_a_denoiser_by_name_and_gives_what_it_gives(corpora, cli, tmp_path):
    for path in sorted((corpora / "vb/noisy_testset_wav").iterdir()):
        from wavelldm import load

        save(tmp_path / "own" / path.name, load("logmmse").enhance(files.load(path, sr=SR, mono=True)[0], SR)[0])
    words = ("evaluate", "--protocol", "voicebank", corpora / "vb")
    named, own = (
        json.loads(cli(*words, system, "--json", "--workers", 1)[1]) for system in ("logmmse", tmp_path / "own")
    )
    for name in ("pesq_wb", "stoi", "si_sdr"):
        assert named["means"][name]["enhanced"] == pytest.approx(own["means"][name]["enhanced"], abs=0.01)
    assert named["protocol"] == "voicebank" and named["clips"] == 6


@pytest.mark.parametrize(
    "words",
    [
        ("--protocol", "voicebank", "vb", "good", "logmmse"),
        ("vb", "--protocol", "voicebank", "good", "logmmse"),
        ("good", "logmmse", "--protocol", "voicebank", "vb"),
        ("good", "--protocol", "voicebank", "vb", "--workers", "1", "logmmse"),
    ],
)
def test_the_corpus_and_any_number_of_systems_are_told_apart_in_any_order(corpora, cli, monkeypatch, words):
    monkeypatch.chdir(corpora)
    code, out, err = cli("evaluate", "--workers", 1, *words)
    assert code == 0 and err == "" and "6 clips" in out
    assert [line.split()[0] for line in out.splitlines()[3:9:2]] == ["noisy", "good", "logmmse"]


def test_a_corpus_alone_is_measured_with_the_model_that_ships(corpora, cli, monkeypatch):
    monkeypatch.chdir(corpora)
    found = json.loads(cli("evaluate", "--protocol", "ljspeech", "lj", "--workers", 1, "--json")[1])
    named = json.loads(cli("evaluate", "--protocol", "ljspeech", "lj", "voice16k", "--workers", 1, "--json")[1])
    assert found == named and found["clips"] == 2
    code, out, _ = cli("evaluate", "vb", "--workers", 1, "--protocol", "voicebank")
    assert code == 0 and "noisy" in out and "studio16k" in out


def test_a_corpus_that_was_fetched_need_not_be_named(corpora, cli, monkeypatch, tmp_path):
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path))
    words = ("evaluate", "--workers", 1, "--protocol", "voicebank", corpora / "good", "--json")
    assert cli(*words)[0] == 1
    (tmp_path / "voicebank-demand").symlink_to(corpora / "vb")
    assert json.loads(cli(*words)[1])["clips"] == 6


def test_several_systems_as_json_and_clips_that_one_of_them_lacks(corpora, cli, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    (few / "p232_000.wav").symlink_to(corpora / "bad/p232_000.wav")
    words = ("evaluate", "--workers", 1, "--protocol", "voicebank", corpora / "vb", corpora / "good", few)
    assert f"{few}: 1 clips" in cli(*words)[1]
    found = json.loads(cli(*words, "--json")[1])
    assert [each["clips"] for each in found["systems"].values()] == [6, 1]


def test_ljspeech_takes_a_codec_by_name_or_a_folder_with_some_of_the_clips(corpora, cli):
    words = ("evaluate", "--protocol", "ljspeech", corpora / "lj")
    two, four = (json.loads(cli(*words, f"voice16k{books}", "--json", "--workers", 1)[1]) for books in (":1", ""))
    assert two["clips"] == four["clips"] == 2  # the chapters that are kept for tests
    assert two["means"]["mel_distance"]["enhanced"] > four["means"]["mel_distance"]["enhanced"]
    assert set(four["metrics"]) >= {"dnsmos_p808", "plcmos"}
    code, out, _ = cli("evaluate", "--protocol", "ljspeech", corpora / "lj", corpora / "vocoder", "--workers", 1)
    assert code == 0 and "1 clips at 16 kHz" in out and "PLCMOS" in out


def test_compare_tells_which_is_better_and_what_the_clips_do_not_tell(corpora, cli):
    words = ("evaluate", corpora / "vb/clean_testset_wav", "--metrics", "si_sdr,lsd", "--workers", 1, "--compare")
    code, out, _ = cli(*words, corpora / "good", corpora / "bad")
    line = next(line for line in out.splitlines() if line.startswith("SI-SDR")).split()
    assert code == 0 and line[-2:] == ["A", "6"] and float(line[3]) == pytest.approx(10, abs=0.5)
    assert next(line for line in out.splitlines() if line.startswith("LSD")).split()[-2] == "A"  # lower is better
    a, b = (
        evaluate(corpora / "vb/clean_testset_wav", corpora / x, None, ["si_sdr"], workers=1) for x in ("good", "bad")
    )
    found = compared(b, a)["si_sdr"]
    assert found.p == 2 / 2**6 and verdict("si_sdr", found) == "B" and found.high < 0
    same = compared(a, a)["si_sdr"]
    assert same.mean == 0 and verdict("si_sdr", same) == "not told apart"


def test_a_protocol_compares_named_systems(corpora, cli):
    words = ("evaluate", "--protocol", "voicebank", corpora / "vb", "--workers", 1, "--compare", corpora / "good")
    code, out, _ = cli(*words, "logmmse")
    assert code == 0 and "A - B" in out and "logmmse" in out and "segmental SNR" in out
    whole = json.loads(cli(*words, "logmmse", "--json")[1])
    assert whole["difference"]["si_sdr"]["better"] in ("A", "B", "not told apart")
    assert set(whole["systems"]) == {str(corpora / "good"), "logmmse"}


@pytest.mark.parametrize(
    "words, said",
    [
        (("vb",), "a folder ENHANCED"),
        (("vb", "good", "bad", "more"), "'more' is one word too many"),
        (("--compare", "good", "bad"), "name the folder CLEAN"),
        (("--protocol", "voicebank"), "name the folder of the corpus, with clean_testset_wav"),
        (("vb", "lj", "good", "--protocol", "ljspeech", "lj/."), "are both folders of the corpus"),
        (("vb", "good", "bad", "--protocol", "voicebank", "-o", "x.csv"), "-o writes the clips of one system"),
        (("vb", "bad", "--protocol", "voicebank", "--compare", "good", "logmmse"), "leave 'bad' out"),
        (("vb", "good", "--compare", "good", "bad"), "leave ENHANCED and NOISY out"),
        (("vb", "--compare", "good", "good"), "compared with itself"),
        (("vb", "good", "--protocol", "voicebank", "--align"), "leave --metrics and --align out"),
        (("lj", "good", "--protocol", "voicebank"), "is no folder with clean_testset_wav and noisy_testset_wav"),
        (("none", "good", "--protocol", "voicebank"), "none or good is no folder with clean_testset_wav"),
        (("vb", "nobody", "--protocol", "voicebank"), "there is no denoiser 'nobody'"),
        (("lj", "voice16k:9", "--protocol", "ljspeech"), "asks for '9' codebooks"),
        (("lj", "good", "--protocol", "ljspeech"), "has no partner"),
        (("vb", "good", "--mos", "x"), "--mos belongs to --protocol ljspeech"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(corpora, cli, monkeypatch, words, said):
    monkeypatch.chdir(corpora)
    monkeypatch.setenv("WAVELLDM_DATA", str(corpora / "nothing-fetched"))
    code, _, err = cli("evaluate", *words)
    assert code == 1 and said in err and len(err.splitlines()) == 1


def test_a_noisy_file_that_cannot_be_read_is_named_and_the_others_are_scored(corpora, cli, tmp_path):
    import shutil

    shutil.copytree(corpora / "vb", tmp_path / "vb")
    (tmp_path / "vb/noisy_testset_wav/p232_002.wav").write_bytes(b"not sound")
    code, out, err = cli("evaluate", "--protocol", "voicebank", tmp_path / "vb", "logmmse", "--workers", 1)
    assert code == 1 and "5 clips" in out and "p232_002.wav cannot be read" in err
