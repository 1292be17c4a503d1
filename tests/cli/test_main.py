import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.cli import demo, main
from wavelldm.codec.model import Codec
from wavelldm.metrics import scores
from wavelldm.training.presets import preset

SR = 16_000


def run(capsys, *argv):
    code = main.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


def noise(seconds=1.0, sr=SR, channels=1):
    return 0.1 * torch.randn(channels, int(seconds * sr), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two small folders, of speech-like and of noise files."""
    root = tmp_path_factory.mktemp("sounds")
    t = torch.arange(2 * SR) / SR
    for i in range(3):
        voice = sum(torch.sin(2 * torch.pi * (120 + 20 * i) * k * t) / k for k in range(1, 20)) * (
            torch.sin(6 * t) > -0.5
        )
        files.save(root / "speech" / f"s{i}.wav", 0.1 * voice[None], SR)
        files.save(root / "noise" / f"n{i}.wav", noise(), SR)
    return root


def test_help_reads_like_a_manual(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "examples:" in text and "exit codes:" in text
    for command in ("info", "data", "mix", "evaluate", "denoise", "compress", "decompress", "demo"):
        assert re.search(rf"^    {command} +\w", text, re.M)
        with pytest.raises(SystemExit):
            main.main([command, "--help"])
        page = capsys.readouterr().out
        assert len(page) > 400 and "exit codes:" in page
    assert main.main([]) == 0


def test_info(capsys):
    code, out, _ = run(capsys, "info")
    assert code == 0 and "base16k" in out and "kbit/s" in out
    code, out, _ = run(capsys, "info", "--json")
    facts = json.loads(out)
    assert facts["presets"]["paper44k"]["entries"] == 15_360
    assert facts["presets"]["base16k"]["bitrate"] == pytest.approx(4 * 13.907 * 62.5, abs=1)
    assert facts["presets"]["tiny"]["codec_parameters"] > 10_000
    assert facts["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_denoise_keeps_what_it_was_given_and_never_overwrites(capsys, tmp_path):
    files.save(tmp_path / "a.flac", noise(0.7, 44_100, 2), 44_100)
    code, out, err = run(capsys, "denoise", tmp_path / "a.flac")
    assert code == 0 and "a.denoised.flac" in out and "model base16k" in out
    assert files.info(tmp_path / "a.denoised.flac") == files.info(tmp_path / "a.flac")
    before = (tmp_path / "a.denoised.flac").read_bytes()
    code, out, err = run(capsys, "denoise", tmp_path / "a.flac")
    assert code == 1 and "--force" in err and "Traceback" not in err
    assert (tmp_path / "a.denoised.flac").read_bytes() == before
    assert run(capsys, "denoise", tmp_path / "a.flac", "--force")[0] == 0


def test_denoise_a_folder_as_json(capsys, tmp_path, folders):
    code, out, _ = run(capsys, "denoise", folders / "noise", "-o", tmp_path / "out", "--json")
    rows = json.loads(out)
    assert code == 0 and [r["seconds"] for r in rows] == [1.0] * 3
    assert sorted(os.listdir(tmp_path / "out")) == ["n0.wav", "n1.wav", "n2.wav"]


@pytest.mark.parametrize(
    "argv, words",
    [
        (["denoise", "nowhere.wav"], "nowhere.wav does not exist"),
        (["denoise", "{text}"], "cannot be read as sound"),
        (["denoise", "{empty}"], "holds no sound files"),
        (["denoise", "{wav}", "--model", "magic"], "no denoiser 'magic'"),
        (["denoise", "{wav}", "-o", "{empty}/x.m4a"], "use one of"),
        (["evaluate", "{empty}", "{empty}"], ""),
        (["data", "get"], "data list"),
        (["data", "get", "imagenet"], "imagenet"),
        (["mix", "out", "--speech", "{empty}"], "--noise"),
        (["mix", "{empty}/out", "--manifest", "{empty}/none.tsv"], "does not exist"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_1(capsys, tmp_path, argv, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.wav").write_text("no audio" * 50)
    files.save(tmp_path / "a.wav", noise(), SR)
    names = {"text": tmp_path / "t.wav", "empty": tmp_path / "empty", "wav": tmp_path / "a.wav"}
    code, out, err = run(capsys, *[a.format(**names) for a in argv])
    assert code == 1 and words in err and err.startswith(f"wavelldm {argv[0]}: ")
    assert "Traceback" not in err and len(err.strip().splitlines()) <= 2
    assert os.listdir(tmp_path / "empty") == []


def test_compress_and_decompress(capsys, tmp_path):
    torch.manual_seed(0)
    model = weights.save(tmp_path / "mine", Codec(preset("tiny").codec))
    files.save(tmp_path / "a.flac", noise(9.0, 44_100, 2), 44_100)
    code, out, _ = run(capsys, "compress", tmp_path / "a.flac", "--model", model, "--codebooks", 3)
    assert code == 0 and "a.wll" in out and "9.0 s of sound, 2 x 44100 Hz, 3 codebooks" in out
    code, out, err = run(capsys, "compress", tmp_path / "a.flac", "--model", model)
    assert code == 1 and "--force" in err
    code, out, _ = run(capsys, "compress", tmp_path / "a.flac", tmp_path / "b.wll", "--model", model, "--json")
    facts, size = json.loads(out), (tmp_path / "b.wll").stat().st_size
    assert code == 0 and facts["bytes"] == size and facts["bits_per_second"] == pytest.approx(8 * size / 9)
    assert facts["plain_bits_per_second"] == pytest.approx(2 * 3476.7, abs=0.1) and facts["codebooks"] == 4

    code, out, _ = run(capsys, "decompress", tmp_path / "b.wll", "--model", model)
    back = files.info(tmp_path / "b.decoded.wav")
    assert code == 0 and (back.sr, back.channels, back.frames) == (44_100, 2, 9 * 44_100)
    code, _, err = run(capsys, "decompress", tmp_path / "b.wll", "--model", model)
    assert code == 1 and "--force" in err
    code, _, err = run(capsys, "decompress", tmp_path / "b.wll", tmp_path / "c.wav")
    assert code == 1 and "no weights called 'mine'" in err and not (tmp_path / "c.wav").exists()

    (tmp_path / "b.wll").write_bytes((tmp_path / "b.wll").read_bytes()[:-1])
    code, out, err = run(capsys, "decompress", tmp_path / "b.wll", tmp_path / "c.flac", "--model", model, "--json")
    assert code == 1 and json.loads(out)["seconds"] == 8.192 and not json.loads(out)["complete"] and "cut short" in err
    assert files.info(tmp_path / "c.flac").frames == pytest.approx(8.192 * 44_100, abs=1)
    assert run(capsys, "decompress", tmp_path / "a.flac", "--model", model)[0] == 1


def test_a_missing_extra_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    code, _, err = run(capsys, "demo", "--out", tmp_path / "demo")
    assert code == 1 and "pip install 'wavelldm[metrics]'" in err and "matplotlib" in err


def test_debug_shows_where_it_happened(capsys):
    with pytest.raises(Exception, match="does not exist"):
        main.main(["denoise", "nowhere.wav", "--debug"])


def test_an_unknown_option_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["denoise", "--loud"])
    assert stop.value.code == 2


def test_mix_and_evaluate_and_denoise_fit_together(capsys, tmp_path, folders):
    pairs = tmp_path / "pairs"
    argv = ["mix", pairs, "--speech", folders / "speech", "--noise", folders / "noise", "--snr", 0, 10, "--count", 4]
    code, out, _ = run(capsys, *argv)
    assert code == 0 and len(os.listdir(pairs / "clean")) == len(os.listdir(pairs / "noisy")) == 4
    assert run(capsys, "denoise", pairs / "noisy", "-o", tmp_path / "cleaned")[0] == 0
    evaluate = [
        "evaluate",
        pairs / "clean",
        tmp_path / "cleaned",
        pairs / "noisy",
        "--metrics",
        "si_sdr,lsd",
        "--workers",
        1,
    ]
    code, out, _ = run(capsys, *evaluate, "--csv", tmp_path / "rows.csv")
    assert code == 0 and "SI-SDR" in out
    assert len((tmp_path / "rows.csv").read_text().splitlines()) >= 5
    code, out, _ = run(capsys, *evaluate, "--json")
    assert code == 0 and isinstance(json.loads(out), dict)
    code, _, err = run(capsys, *evaluate, "--csv", tmp_path / "rows.csv")
    assert code == 1 and "--force" in err


def test_data_list(capsys):
    code, out, _ = run(capsys, "data", "list")
    assert code == 0 and all(
        name in out for name in ("voicebank-demand", "ljspeech", "librispeech-dev-clean", "embedded")
    )
    assert {r["name"] for r in json.loads(run(capsys, "data", "list", "--json")[1])["sources"]} >= {"ljspeech"}


def test_data_get_embedded(capsys, tmp_path):
    code, out, _ = run(capsys, "data", "get", "embedded", "--folder", tmp_path, "--minutes", 0.5)
    assert code == 0 and "manifest.tsv" in out


def test_the_demo_writes_sounds_a_picture_and_figures(capsys, tmp_path):
    code, out, _ = run(capsys, "demo", "--out", tmp_path / "demo", "--json")
    facts = json.loads(out)
    assert code == 0 and set(os.listdir(tmp_path / "demo")) == {
        "clean.wav",
        "noisy.wav",
        "denoised.wav",
        "before_after.png",
    }
    clean, noisy, denoised = (
        files.load(tmp_path / "demo" / f"{name}.wav")[0] for name in ("clean", "noisy", "denoised")
    )
    lost = demo.drop(torch.ones_like(clean), SR) == 0
    before, after = (scores.si_sdr(clean[~lost], wav[~lost], SR) for wav in (noisy, denoised))
    assert after > before + 3  # where something is left, the noise is taken away
    wanted, found = (wav[lost].square().mean().log10() for wav in (clean, denoised))
    assert (
        not noisy[lost].any() and found > wanted - 1.5
    )  # and where nothing is, something of a voice's loudness is put
    assert facts["scores"]["denoised"]["si_sdr"] > facts["scores"]["noisy"]["si_sdr"]
    assert facts["scores"]["denoised"]["pesq_wb"] > facts["scores"]["noisy"]["pesq_wb"]
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for who, row in facts["scores"].items():
        shown = re.search(rf"^{who} +([\d. ]+)$", readme, re.M)[1].split()
        assert [float(x) for x in shown] == pytest.approx(list(row.values()), abs=0.03), "the README shows another demo"
    files.save(tmp_path / "mine.wav", noise(3.0, 22_050, 2), 22_050)
    code, out, _ = run(capsys, "demo", "--input", tmp_path / "mine.wav", "--out", tmp_path / "demo2")
    assert code == 0 and "dnsmos" in out and "pesq" not in out


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    files.save(tmp_path / "long.wav", noise(1200.0), SR)
    command = [sys.executable, "-m", "wavelldm", "denoise", str(tmp_path / "long.wav")]
    heeding = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heeding)
    for _ in range(600):  # until it has begun to write
        if len(os.listdir(tmp_path)) > 1:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped" in err and "Traceback" not in err
    assert os.listdir(tmp_path) == ["long.wav"]


def test_the_command_line_starts_quickly():
    """--help must not wait for torch."""
    code = "import sys, wavelldm.cli.main as c; c.parser(c.RUNS); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
