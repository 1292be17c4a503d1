"""Embedded speech: the same in every process, like speech in its numbers; a corpus that is complete or not there."""

import concurrent.futures
import csv
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import pytest
import soundfile as sf
import torch

from wavelldm import paths
from wavelldm.data import voices as synth
from wavelldm.data.noises import NOISES
from wavelldm.data.sentences import LANGUAGES, sentence
from wavelldm.data.voices import ACCENTS, COLUMNS, SPEAKERS, Espeak, build_corpus, shorten_pauses, speak
from wavelldm.errors import DataError

TEXT = "The old fisherman repairs the wooden chair near the harbour."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build_corpus(tmp_path_factory.mktemp("corpus"), minutes=1, progress=False)


def rows(manifest):
    with open(manifest, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def digest(manifest):
    files = sorted(p for p in manifest.parent.rglob("*") if p.is_file())
    return [(p.relative_to(manifest.parent), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


def test_speech_is_speech_like():
    wav = speak(TEXT)
    assert wav.shape[0] == 1 and wav.dtype == torch.float32 and wav.abs().max() < 1
    assert 2 < wav.shape[-1] / 16_000 < 6
    levels = wav[0, : wav.shape[-1] // 160 * 160].reshape(-1, 160).square().mean(1).sqrt()  # of 10 ms
    assert levels.max() > 0.03 and levels.median() > 1e-3  # it sounds most of the time
    assert levels.quantile(0.05) < 0.1 * levels.max()  # and has gaps
    spectrum = torch.fft.rfft(wav[0]).abs().square()
    f = torch.fft.rfftfreq(wav.shape[-1], 1 / 16_000)
    assert spectrum[f < 4000].sum() > 0.8 * spectrum.sum() and spectrum[f < 50].sum() < 0.05 * spectrum.sum()


def test_arguments_are_heard():

    def seconds(*args, **more):
        return speak(*args, **more).shape[-1]

    assert seconds(TEXT + " " + TEXT) > 1.8 * seconds(TEXT)
    assert seconds(TEXT, rate=130) > 1.2 * seconds(TEXT, rate=190)
    assert seconds(TEXT, sr=22_050) == pytest.approx(seconds(TEXT) * 22_050 / 16_000, rel=0.02)
    voices = [speak(TEXT, voice) for voice in ("en-us+f3", "en-us+m3", "en-gb-x-rp+m3")]
    n = min(wav.shape[-1] for wav in voices)
    a, b, c = (wav[0, :n] / wav[0, :n].norm() for wav in voices)
    assert abs(a @ b) < 0.5 and abs(b @ c) < 0.5

    def pitch(wav):  # the strongest delay between 2.5 and 14 ms of the autocorrelation
        correlation = torch.fft.irfft(torch.fft.rfft(wav[0], 1 << 18).abs().square())
        return 16_000 / (40 + int(correlation[40:225].argmax()))

    assert pitch(voices[0]) > 1.5 * pitch(voices[1])
    assert pitch(speak(TEXT, "en-us+m3", pitch=80)) > 1.2 * pitch(voices[1])


def test_the_same_whatever_was_said_before_and_whoever_asks():
    first = speak(TEXT, "en-us+f3")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # espeak-ng itself bears but one thread
        voices = ["en-us+f3", "de+m1", "en-us+f3", "fr+f1"]
        wavs = list(pool.map(lambda voice: speak(TEXT, voice), voices))
    assert torch.equal(first, wavs[0]) and torch.equal(first, wavs[2]) and not torch.equal(wavs[1], wavs[3])
    time.sleep(1.1)  # the library would take the second of the clock as its seed
    assert torch.equal(first, speak(TEXT, "en-us+f3"))


def test_every_voice_speaks_every_language():
    with Espeak() as espeak:
        for accents in ACCENTS.values():
            for accent in accents:
                for speaker in SPEAKERS["train"] + SPEAKERS["valid"]:
                    wav = espeak.say("Olá, 42 às 7.", f"{accent}+{speaker}", 165, 50, 16_000)
                    assert 0.5 < wav.shape[-1] / 16_000 < 6 and 0.02 < wav.abs().max() < 1, (accent, speaker)


def test_text_is_utf8():
    assert not torch.equal(speak("Müßiggang", "de"), speak("Mussiggang", "de"))
    assert speak("Le garçon, l'été", "fr").shape[-1] > 8_000


def test_errors_say_what_to_do(monkeypatch):
    for voice in ("martian", "en-us+martian", "en-us+", ""):
        with pytest.raises(DataError, match=f"no voice '{re.escape(voice)}'"):
            speak(TEXT, voice)
    with pytest.raises(DataError, match="nothing to say"):
        speak("")
    with pytest.raises(DataError, match="choose one of en, de"):
        sentence(0, "martian")
    with pytest.raises(DataError, match="minutes above 0"):
        build_corpus(minutes=0)
    import espeakng_loader

    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: __file__)  # not a library
    with pytest.raises(DataError, match="stopped .*reinstall it"):
        speak(TEXT)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DataError, match="pip install espeakng-loader"):
        speak(TEXT)


def test_an_espeak_that_dies_is_reported():
    with Espeak() as espeak, pytest.raises(DataError, match="stopped"):
        espeak.process.kill()
        espeak.process.wait()
        espeak.say(TEXT, "en", 165, 50, 16_000)


def test_pauses_are_shortened_and_nothing_else():
    tone = 0.5 * torch.sin(torch.arange(8000) * 0.3)
    pause = torch.zeros
    wav = torch.cat([pause(16_000), tone, pause(3200), tone, pause(32_000), tone, pause(800)])[None]
    short = shorten_pauses(wav, 16_000, longest=0.3)
    assert short.shape[-1] == 2400 + 8000 + 3200 + 8000 + 4800 + 8000 + 800  # half a pause at the start
    assert torch.equal(short[short != 0], wav[wav != 0])
    assert torch.equal(shorten_pauses(tone[None, :7999], 16_000), tone[None, :7999])


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences(language):
    assert sentence(5, language) == sentence(5, language)
    texts = {sentence(seed, language) for seed in range(50)}
    assert len(texts) > 45
    for text in texts:
        assert text[0].isupper() and text.endswith(".") and "|" not in text and "  " not in text and "\t" not in text
    assert language in ACCENTS


def test_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "here"))
    assert paths.data_home() == tmp_path / "here"
    assert build_corpus(minutes=0.05, progress=False).parent.parent == tmp_path / "here"
    monkeypatch.delenv("WAVELLDM_DATA")
    checkout = tmp_path / "checkout"
    (checkout / "wavelldm").mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(checkout / "wavelldm" / "paths.py"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "user")
    assert paths.data_home() == tmp_path / "user" / ".cache" / "wavelldm"
    (checkout / "data").mkdir()
    (checkout / "pyproject.toml").touch()
    assert paths.data_home() == checkout / "data"


def test_manifest_tells_the_truth(corpus):
    assert corpus.read_text(encoding="utf-8").splitlines()[0] == "\t".join(COLUMNS)
    table = rows(corpus)
    speech = [row for row in table if row["kind"] == "speech"]
    noise = [row for row in table if row["kind"] == "noise"]
    assert len(table) == len(speech) + len(noise)
    on_disk = {p.relative_to(corpus.parent).as_posix() for p in corpus.parent.rglob("*.wav")}
    assert on_disk == {row["path"] for row in table} and len(on_disk) == len(table)
    for row in table:
        wav, sr = sf.read(corpus.parent / row["path"])
        assert sr == 16_000 and wav.ndim == 1 and float(row["seconds"]) == pytest.approx(len(wav) / sr, abs=1e-3)
        assert 0.003 < (wav**2).mean() ** 0.5 < 0.11 and abs(wav).max() < 0.96  # audible, loud enough, not clipped
        assert row["licence"] and row["source"] and row["split"] in ("train", "valid")
    assert sum(float(row["seconds"]) for row in speech) >= 60
    assert {row["label"] for row in noise} == set(NOISES)
    assert {row["language"] for row in speech} <= set(LANGUAGES) and {row["language"] for row in noise} == {"-"}


def test_splits_share_no_speaker_and_no_noise(corpus):
    assert not set(SPEAKERS["train"]) & set(SPEAKERS["valid"])
    by_split = {split: [row for row in rows(corpus) if row["split"] == split] for split in ("train", "valid")}
    for kind in ("speech", "noise"):
        train, valid = ([row for row in by_split[split] if row["kind"] == kind] for split in ("train", "valid"))
        sounds = [{(corpus.parent / row["path"]).read_bytes() for row in split} for split in (train, valid)]
        assert len(train) > len(valid) > 0 or kind == "noise" and len(train) == len(valid) > 0
        assert not sounds[0] & sounds[1]
        if kind == "speech":
            assert not {row["label"] for row in train} & {row["label"] for row in valid}
    for label in NOISES:
        assert all(any(row["label"] == label for row in split) for split in by_split.values())


def test_loudness_varies(corpus):
    levels = [(sf.read(corpus.parent / row["path"])[0] ** 2).mean() for row in rows(corpus) if row["kind"] == "speech"]
    assert max(levels) > 2 * min(levels)


def test_same_seed_same_bytes_other_arguments_other_folder(tmp_path):
    first = build_corpus(tmp_path / "a", minutes=0.1, seed=3, progress=False)
    again = build_corpus(tmp_path / "b", minutes=0.1, seed=3, progress=False)
    assert digest(first) == digest(again)
    other = build_corpus(tmp_path / "a", minutes=0.1, seed=4, progress=False)
    assert other != first and not {d for p, d in digest(first) if p.suffix == ".wav"} & {d for _, d in digest(other)}
    assert build_corpus(tmp_path / "a", minutes=0.1, seed=3, sr=22_050, progress=False) not in (first, other)
    assert build_corpus(tmp_path / "a", minutes=0.2, seed=3, progress=False) not in (first, other)


def test_second_call_only_looks(corpus, monkeypatch):
    monkeypatch.setattr(synth, "_write", lambda *_: pytest.fail("built again"))
    before = digest(corpus), corpus.stat().st_mtime_ns
    start = time.perf_counter()
    assert build_corpus(corpus.parent.parent, minutes=1, progress=False) == corpus
    assert time.perf_counter() - start < 0.1 and before == (digest(corpus), corpus.stat().st_mtime_ns)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 3, 20])  # files: none, in the speech, in the noise
def test_an_interrupted_build_leaves_nothing_and_the_next_one_succeeds(tmp_path, monkeypatch, error, after):
    written = []

    def failing(path, *args):
        if len(written) == after:
            raise error
        written.append(path)
        return save(path, *args)

    save = synth.save
    monkeypatch.setattr(synth, "save", failing)
    with pytest.raises(error):
        build_corpus(tmp_path, minutes=0.1, progress=False)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(synth, "save", save)
    assert len(rows(build_corpus(tmp_path, minutes=0.1, progress=False))) > 20


def test_a_killed_build_is_not_taken_for_complete(tmp_path):
    whole = build_corpus(tmp_path / "whole", minutes=0.05, progress=False)
    place = tmp_path / "killed" / whole.parent.name
    (place / "speech").mkdir(parents=True)
    (place / "speech" / "stray.wav").touch()  # files, but no manifest
    stale = tmp_path / "killed" / ".embedded-stale"
    stale.mkdir()
    os.utime(stale, (0, 0))
    fresh = tmp_path / "killed" / ".embedded-fresh"  # perhaps somebody builds there now
    fresh.mkdir()
    manifest = build_corpus(tmp_path / "killed", minutes=0.05, progress=False)
    assert digest(manifest) == digest(whole) and not stale.exists() and fresh.exists()


def test_two_builds_at_once_agree(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(build_corpus, tmp_path, minutes=0.1, progress=False) for _ in range(3)]
        manifests = {job.result() for job in jobs}
    assert len(manifests) == 1 and [p.name for p in tmp_path.iterdir()] == [manifests.pop().parent.name]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="WAVELLDM_DATA"):
        build_corpus(tmp_path / "file", progress=False)


def test_five_minutes_in_seconds(tmp_path):
    start = time.perf_counter()
    manifest = build_corpus(tmp_path, minutes=5, progress=False)
    assert time.perf_counter() - start < 20  # under one on an idle core
    assert sum(float(row["seconds"]) for row in rows(manifest) if row["kind"] == "speech") >= 300


def test_phonemes_lie_where_they_are_heard():
    """Fricatives change their sign often, vowels do not; and the sound is that of `say`."""
    text, sr = "She sees a fast ship.", 16_000
    with Espeak() as espeak:
        wav, marks = espeak.say_phonemes(text, "en-us+f4", 165, 50, sr)
    with Espeak() as espeak:
        assert torch.equal(wav[:, :sr], espeak.say(text, "en-us+f4", 165, 50, sr)[:, :sr])
    begins = [second for second, _ in marks]
    assert begins == sorted(begins) and begins[-1] <= wav.shape[-1] / sr
    assert [p.strip("ˈˌ") for _, p in marks][:6] == ["ʃ", "iː", "s", "iː", "z", "ɐ"]
    crossings = {}
    for (start, phoneme), (stop, _) in zip(marks, marks[1:]):
        piece = wav[0, round(start * sr) : round(stop * sr)]
        if len(piece) > 400:
            crossings.setdefault(phoneme.strip("ˈˌ"), []).append(((piece[1:] * piece[:-1]) < 0).float().mean().item())
    assert min(crossings["ʃ"] + crossings["s"]) > 2 * max(crossings["iː"] + crossings["æ"])
