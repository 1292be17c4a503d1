import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from wavelldm.audio import files
from wavelldm.cli import main

SR = 16_000
COMMANDS = (
    *("demo", "denoise", "refine", "compress", "decompress", "generate", "tag"),
    *("train", "evaluate", "data", "mix", "ladder", "info"),
)


def python(*argv, **more):
    return subprocess.run([sys.executable, *map(str, argv)], capture_output=True, text=True, **more)


def test_help_reads_like_a_manual(cli):
    code, text, _ = cli("--help")
    assert code == 0 and "examples:" in text and "exit codes:" in text
    for command in COMMANDS:
        assert re.search(rf"^    {command} +\w", text, re.M)
        code, page, _ = cli(command, "--help")
        assert code == 0 and len(page) > 400 and "exit codes:" in page and "--debug" in page
        assert command == "train" or all(len(line) < 115 for line in page.splitlines())
    assert cli()[0] == 0


def test_help_needs_neither_torch_nor_numpy():
    code = (
        "import sys, contextlib, io; from wavelldm.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main.main(['--help'])\n"
        "print(sorted({'torch', 'numpy', 'tqdm', 'scipy', 'soundfile'} & set(sys.modules)))"
    )
    assert python("-c", code).stdout.strip() == "[]"


def test_help_comes_at_once():
    """In seconds of computing, so that a busy machine does not matter."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "wavelldm", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.3


@pytest.mark.parametrize(
    "argv, words",
    [
        (["denoize", "x"], "did you mean 'denoise'?"),
        (["zzzz"], "there is no command 'zzzz'"),
        (["denoise", "x.wav", "--strenght", "3"], "did you mean '--strength'?"),
        (["denoise", "x.wav", "--strengt", "3"], "did you mean '--strength'?"),  # no silent abbreviations either
        (["mix", "pairs", "--count", "3"], "'pairs' is one word too many"),
        (["denoise"], "required: input"),
        (["denoise", ""], "one of the words is empty"),  # it would clean the current folder
        (["evaluate", "a.wav", "b.wav", "--metrics", ""], "one of the words is empty"),
    ],
)
def test_a_mistyped_word_is_named_with_the_nearest_one(cli, argv, words):
    code, out, err = cli(*argv)
    assert code == 2 and words in err and "--help" in err and not out and len(err.splitlines()) == 2


@pytest.mark.parametrize(
    "argv",
    [
        ["mix", "--count", "-1"],
        ["mix", "--count", "0"],
        ["mix", "--seed", "-1"],
        ["mix", "--minutes", "nan"],
        ["mix", "--snr", "nan"],
        ["mix", "--snr", "0", "1e9"],
        ["mix", "--split", "test"],
        ["mix", "-o", "{wav}"],
        ["ladder", "-o", "{wav}"],
        ["demo", "-o", "{wav}"],
        ["data", "get", "embedded", "--minutes", "0"],
        ["ladder", "--clips", "0"],
        ["ladder", "--clips", "-3"],
        ["denoise", "{wav}", "--steps", "0"],
        ["denoise", "{wav}", "--strength", "-1"],
        ["denoise", "{wav}", "--strength", "inf"],
        ["denoise", "{wav}", "--keep-background", "2"],
        ["denoise", "{wav}", "--seed", "9999999999999999999999"],
        ["refine", "{wav}", "{wav}", "--steps", "0"],
        ["refine", "{wav}", "{wav}", "--eta_a", "7"],
        ["refine", "{wav}", "{wav}", "--eta_b", "nan"],
        ["compress", "{wav}", "--codebooks", "0"],
        ["compress", "{wav}", "--search", "-5"],
        ["evaluate", "{wav}", "{wav}", "--workers", "0"],
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_sentence(cli, tmp_path, monkeypatch, noise, argv):
    monkeypatch.chdir(tmp_path)
    files.save(tmp_path / "a.wav", noise(), SR)
    code, out, err = cli(*[a.format(wav=tmp_path / "a.wav") for a in argv])
    assert code == 2 and any(words in err for words in ("give a", "invalid choice", "is a file; name a folder"))
    assert not out and os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    "argv, words",
    [
        (["denoise", "nowhere.wav"], "nowhere.wav does not exist"),
        (["denoise", "{text}"], "cannot be read as sound"),
        (["denoise", "{empty}"], "holds no sound files"),
        (["denoise", "{wav}", "--model", "magic"], "no denoiser 'magic'"),
        (["denoise", "{wav}", "-o", "{empty}/x.m4a"], "use one of"),
        (["denoise", "{wav}", "--device", "tpu"], "no device 'tpu'"),
        (["compress", "{wav}", "--device", "tpu"], "no device 'tpu'"),
        (["decompress", "{wav}", "--device", "cuda:77", "--model", "voice16k"], "no device 'cuda:77'"),
        (["demo", "--device", "cuda:77"], "no device 'cuda:77'"),
        (["denoise", "{wav}", "{text}", "-o", "{wav}"], "is a file"),
        (["compress", "{wav}", "-o", "{empty}/a.wav"], "goes to a .wll file"),
        (["compress", "{wav}", "--model", "{empty}/a.safetensors"], "a.safetensors does not exist"),
        (["denoise", "-", "{wav}"], "comes alone"),
        (["denoise", "-", "--json"], "no room for --json"),
        (["denoise", "-", "--force"], "--force"),
        (["refine", "{wav}"], "--first"),
        (["refine", "{wav}", "{wav}", "--eta_c", "0.5"], "--plus"),
        (["compress", "{wav}", "--codebooks", "9", "-o", "{empty}/a.wll"], "1 to 4"),
        (["decompress", "{wav}", "-o", "{empty}/a.wav"], "a.wav"),
        (["evaluate", "{empty}", "{empty}"], "holds no sound files"),
        (["evaluate", "{wav}", "{wav}", "--metrics", "loudness"], "loudness"),
        (["evaluate", "{wav}", "{wav}", "--per-file", "--json"], "--per-file"),
        (["evaluate", "{wav}", "{wav}", "--force"], "-o"),
        (["data", "list", "embedded"], "data list"),
        (["data", "get"], "data list"),
        (["data", "get", "imagenet"], "imagenet"),
        (["data", "get", "ljspeech", "--minutes", "3"], "--minutes"),
        (["mix", "--speech", "{empty}"], "--noise"),
        (["mix", "--speech", "{empty}", "--noise", "{empty}", "--manifest", "x"], "not both"),
        (["mix", "--speech", "{empty}", "--noise", "{empty}", "--split", "valid"], "--split"),
        (["mix", "--speech", "{empty}", "--noise", "{empty}", "--minutes", "3"], "--minutes"),
        (["mix", "-o", "{empty}/out", "--manifest", "{empty}/none.tsv"], "does not exist"),
        (["ladder", "{wav}", "--manifest", "x.tsv"], "not both"),
        (["ladder", "{wav}", "--rungs", "lift"], "no rung 'lift'"),
        (["ladder", "{empty}/x.wav"], "does not exist"),
        (["demo", "--input", "{text}", "-o", "{empty}/demo"], "cannot be read as sound"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_1(cli, tmp_path, monkeypatch, noise, argv, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.wav").write_text("no audio" * 50)
    files.save(tmp_path / "a.wav", noise(), SR)
    names = {"text": tmp_path / "t.wav", "empty": tmp_path / "empty", "wav": tmp_path / "a.wav"}
    code, out, err = cli(*[a.format(**names) for a in argv])
    assert code == 1 and words in err and err.startswith(f"wavelldm {argv[0]}: ")
    assert "Traceback" not in err and len(err.strip().splitlines()) <= 2
    assert os.listdir(tmp_path / "empty") == [] and sorted(os.listdir(tmp_path)) == ["a.wav", "empty", "t.wav"]


def test_with_json_an_error_is_json_too(cli, tmp_path):
    code, out, err = cli("compress", tmp_path / "nowhere.wav", "--json")
    assert code == 1 and "does not exist" in json.loads(out)["error"] and "does not exist" in err


def test_a_missing_extra_is_named(cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    code, _, err = cli("demo", "-o", tmp_path / "demo")
    assert code == 1 and "pip install 'wavelldm[metrics]'" in err and "matplotlib" in err


def test_debug_shows_where_it_happened():
    with pytest.raises(Exception, match="does not exist"):
        main.main(["denoise", "nowhere.wav", "--debug"])


def test_a_fault_of_the_program_is_exit_code_3(cli, monkeypatch):
    from wavelldm.cli import info

    monkeypatch.setattr(info, "facts", lambda: 1 // 0)
    code, _, err = cli("info")
    assert code == 3 and "ZeroDivisionError" in err and "--debug" in err


def test_nobody_reads_on():
    """As in `wavelldm data list | head -1`: no complaint, whatever the reader leaves unread."""
    command = f"{sys.executable} -m wavelldm data list --json | (exec 0<&-; sleep 1)"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_standard_output_is_named():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wavelldm", "data", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


def listening_to_signals():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background inherit that it is ignored


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_nothing_half_written(tmp_path, noise, number, code):
    files.save(tmp_path / "a.wav", noise(1.0), SR)
    files.save(tmp_path / "long.wav", torch.cat([noise(60.0)] * 20, dim=1), SR)
    command = [sys.executable, "-m", "wavelldm", "denoise", str(tmp_path), "--json"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=listening_to_signals
    )
    for _ in range(1200):  # until the second file has begun to be written
        if len(os.listdir(tmp_path)) > 3:
            break
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err
    assert sorted(os.listdir(tmp_path)) == ["a.denoised.wav", "a.wav", "long.wav"]
    assert [row["error"] for row in json.loads(out)] == [None]  # what is done is reported all the same
