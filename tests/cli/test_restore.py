import json

import pytest
import torch
from signals import speechlike

from wavelldm.audio import files
from wavelldm.cli.main import main

SR = 16_000


@pytest.fixture
def broken(tmp_path):
    wav = 0.3 * torch.from_numpy(speechlike(3.0, SR, 0)).float()[None]
    wav = wav + 0.003 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    wav[:, 20_000:21_600] = 0
    files.save(tmp_path / "call.wav", wav, SR)
    return tmp_path / "call.wav"


def test_it_says_what_it_found_and_draws_it(broken, capsys):
    picture = broken.with_name("call.png")
    assert main(["restore", str(broken), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "call.restored.wav (3.0 s of sound)" in out and "channel 1: gap of 100 ms at 1.250 s, filled" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    before, after = (files.load(p)[0] for p in (broken, broken.with_name("call.restored.wav")))
    assert torch.equal(before[:, :20_000], after[:, :20_000]) and torch.equal(before[:, 21_600:], after[:, 21_600:])
    assert (after[:, 20_000:21_600].abs() > 1e-4).float().mean() > 0.5


def test_it_overwrites_nothing(broken, capsys):
    assert main(["restore", str(broken)]) == 0
    assert main(["restore", str(broken)]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["restore", str(broken), "--force"]) == 0


def test_what_is_whole_stays_as_it_is(broken, capsys):
    wav, _ = files.load(broken)
    whole = broken.with_name("whole.wav")
    files.save(whole, wav[:, :19_000], SR)
    assert main(["restore", str(whole), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["found"] == [] and row["error"] is None and row["seconds"] == pytest.approx(19_000 / SR, abs=1e-3)
    assert whole.with_name("whole.restored.wav").read_bytes() == whole.read_bytes()


def test_gaps_by_hand(broken, capsys):
    assert main(["restore", str(broken), "--gaps", "0.5-0.6", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["found"] == [{"channel": 0, "kind": "gap", "start": 0.5, "end": 0.6}]
    after, _ = files.load(broken.with_name("call.restored.wav"))
    assert (after[:, 20_000:21_600] == 0).all()


def test_a_file_that_cannot_be_read_does_not_end_the_run(broken, capsys):
    bad = broken.with_name("bad.wav")
    bad.write_bytes(b"nothing")
    assert main(["restore", str(bad), str(broken), "-o", str(broken.with_name("out"))]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 files were not restored" in captured.err and (broken.with_name("out") / "call.wav").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["-"], "hears a recording twice, so it takes files"),
        (["{}", "--only", "hum"], "no kind of damage called 'hum'"),
        (["{}", "--gaps", "2-1"], "no gap from 2 to 1 s"),
        (["{}", "{}.wav", "--picture", "x.png"], "--picture draws one recording"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(broken, capsys, words, message):
    assert main(["restore", *(word.replace("{}", str(broken)) for word in words)]) == 1
    assert message in capsys.readouterr().err
