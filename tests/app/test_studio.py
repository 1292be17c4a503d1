"""What the page does, without the page: results equal the module's, mistakes are sentences."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from signals import noisy, speechlike

import wavelldm
from wavelldm import weights
from wavelldm.app.studio import LONGEST, Studio, edited, place_of, shipped_codec, table_html
from wavelldm.audio import files
from wavelldm.codec.model import Codec
from wavelldm.denoise.chain import Settings
from wavelldm.errors import WavelldmError
from wavelldm.metrics import scores
from wavelldm.refine.files import Choices, refine
from wavelldm.refine.prior import SpeechPrior
from wavelldm.text.text2audio import generate

SR = 16_000


@pytest.fixture
def studio(tmp_path):
    (tmp_path / "kept").mkdir()
    return Studio(tmp_path / "kept")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    clean = 0.4 * speechlike(1.2)
    files.save(root / "clean.wav", torch.as_tensor(clean).float(), SR)
    files.save(root / "noisy.wav", torch.as_tensor(noisy(clean, 8)).float(), SR)
    return {"clean": str(root / "clean.wav"), "noisy": str(root / "noisy.wav")}


def same(path, wav):
    """Equal up to the rounding to 16 bits."""
    return (files.load(path)[0] - wav.clamp(-1, 1)).abs().max() < 1e-4


def test_denoise_is_the_modules(studio, clips):
    wav, sr = files.load(clips["noisy"])
    found = studio.denoise(clips["noisy"], "base16k", 1.3, 0.2, clean=clips["clean"])
    expected = wavelldm.load("base16k").enhance(wav, sr, Settings(strength=1.3, background=0.2))
    assert list(found.versions) == ["before", "cleaned"]
    assert same(found.versions["before"], wav) and same(found.versions["cleaned"], expected)
    assert found.picture.read_bytes()[:4] == b"\x89PNG"
    head, before, cleaned = found.table
    score = scores.si_sdr(*(files.load(p)[0] for p in (clips["clean"], found.versions["cleaned"])), SR)
    assert cleaned[head.index("SI-SDR")] == f"{score:.2f}" and before[0] == "before"


def test_restore_fills_what_is_marked_and_finds_what_is_not(studio, clips):
    found = studio.restore(clips["clean"], "0.30-0.36", steps=1, silence=True)
    whole, lost, restored = (files.load(p)[0] for p in found.versions.values())
    assert not lost[:, 4800:5760].any() and restored[:, 4900:5660].abs().mean() > 0
    assert torch.equal(restored[:, 8000:], whole[:, 8000:])
    assert any("gap of 60 ms at 0.300 s, filled" in note for note in found.notes)
    assert "Nothing was found" in studio.restore(clips["noisy"]).notes[0]


def test_codec_is_the_modules_and_edits_are_heard_where_they_are(studio, clips):
    codec = weights.load("voice16k", Codec)
    wav = files.load(clips["clean"])[0]
    with torch.inference_mode():
        codes = codec.quantise(codec.encode(wav[None], SR))[1]
        expected = codec.codes_to_wav(codes[:, :2], wav.shape[-1])[0]
    found = studio.codec(clips["clean"], 2, "one code", 1, 0.6, 0.9, 7)
    assert same(found.versions["decoded"], expected)
    change = (files.load(found.versions["edited"])[0] - files.load(found.versions["decoded"])[0]).abs()[0]
    assert change[int(0.62 * SR) : int(0.88 * SR)].mean() > 20 * change[: int(0.2 * SR)].mean()
    assert f"{codec.config.bitrate(2) / 1000:.2f} kbit/s" in found.notes[0]


def test_edits_change_one_codebook_between_two_frames_alone():
    codes = torch.randint(100, (1, 4, 20), generator=torch.Generator().manual_seed(1))
    for edit in ("one code", "the first code held", "at random", "played backwards"):
        out = edited(codes, edit, 2, 5, 9, 3, shipped_codec())
        mask = torch.zeros_like(codes, dtype=torch.bool)
        mask[:, 2, 5:9] = True
        assert torch.equal(out[~mask], codes[~mask]) and not torch.equal(out[mask], codes[mask])
        if edit == "one code":
            assert (out[mask] == 3).all()
        if edit == "played backwards":
            assert torch.equal(out[0, 2, 5:9], codes[0, 2, 5:9].flip(0))


def test_refine_is_the_modules(studio, clips, tmp_path):
    wav, sr = files.load(clips["noisy"])
    files.save(tmp_path / "short.wav", wav[:, : SR // 2], sr)
    wav = wav[:, : SR // 2]
    found = studio.refine(str(tmp_path / "short.wav"), "logmmse", 2)
    first = wavelldm.load("logmmse").enhance(wav, sr)
    expected = refine(weights.load("prior16k", SpeechPrior), wav, first, sr, Choices(2))
    assert same(found.versions["logmmse"], first) and same(found.versions["refined"], expected)


def test_words_are_the_modules_and_the_same_seed_is_the_same_sound(studio):
    choices = ("two low beeps, then a violin", 1.0, 3.5, 4)
    found = studio.words(*choices, 7, "rain and xyzzy")
    with pytest.warns(UserWarning, match="violin"):
        expected = generate(*choices, 7, "rain and xyzzy")[0]
    assert same(found.versions["sound"], expected)
    assert "'violin', 'xyzzy'" in found.notes[0] and found.picture.read_bytes()[:4] == b"\x89PNG"
    other = studio.words(*choices, 8, "rain and xyzzy").versions["sound"]
    assert not same(other, files.load(found.versions["sound"])[0])


@pytest.mark.parametrize(
    "tab, choices",
    [("denoise", ()), ("codec", ()), ("refine", ("logmmse", 1)), ("words", (0.5, 3.5, 1))],
)
def test_after_the_start_a_first_result_waits_for_the_model_alone(studio, clips, tmp_path, tab, choices):
    """Whatever is loaded or imported for a result is loaded before anybody asks for one."""
    look = f"""
import sys
from wavelldm import weights
from wavelldm.app import page
page.warm()
before, load, read = set(sys.modules), weights.load, []
weights.load = lambda *args, **more: read.append(args[0]) or load(*args, **more)
outcome = page.Studio({str(tmp_path)!r}).{tab}({"rain" if tab == "words" else clips["noisy"]!r}, *{choices!r})
new = sorted({{name.split(".")[0] for name in set(sys.modules) - before}})
assert len(outcome.versions) > 0
print(read, new)
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] []"


def test_results_go_after_an_hour(studio, clips):
    first, second = (studio.waveform(clips["clean"]).parent for _ in range(2))
    os.utime(first, (0, 0))
    studio.waveform(clips["clean"])
    assert not first.exists() and second.exists()


def test_compare_lists_models_with_scores_and_cost(studio, clips):
    found = studio.compare(clips["noisy"], ["logmmse", "base16k"], clips["clean"])
    assert list(found.versions) == ["before", "base16k", "logmmse"]
    head, *rows = found.table
    assert [row[0] for row in rows] == list(found.versions) and head[-1] == "seconds per second"
    assert float(rows[1][head.index("SI-SDR")]) > float(rows[0][head.index("SI-SDR")])
    assert studio.compare(clips["noisy"], ["logmmse"]).table[0] == ("", "DNSMOS OVRL", "seconds per second")


@pytest.mark.parametrize(
    "tab, choices, said",
    [
        ("denoise", (None,), "record or drop a file first"),
        ("denoise", ("long",), "lasts 181 s, and here 180 s is the most"),
        ("denoise", ("broken",), "cannot be read as sound"),
        ("denoise", ("noisy", "nobody"), "there is no denoiser 'nobody'"),
        ("denoise", ("noisy", "logmmse", 1.5), "cannot change the strength"),
        ("denoise", ("noisy", "logmmse", 1.0, 0.0, False, "long"), "choose the reference of this recording"),
        ("restore", ("noisy", "/etc/passwd.json"), "names no places"),
        ("restore", ("noisy", "5-6"), "5"),
        ("restore", ("noisy", "", 1, True), "mark what is to be lost first"),
        ("codec", ("noisy", 2, "one code", 3), "one of those that are kept"),
        ("codec", ("noisy", 4, "one code", 1, 3.0, 4.0), "choose times inside it"),
        ("codec", ("noisy", 4, "one code", 1, 0.0, 1.0, 10**6), "codes go from 0 to"),
        ("codec", ("noisy", 4, "louder"), "there is no edit"),
        ("refine", ("noisy", "segan", 0), "1 to 60 steps"),
        ("compare", ("noisy", []), "choose at least one model"),
        ("words", ("",), "the text is empty"),
        ("words", ("xyzzy",), "no word of the text is known"),
        ("words", ("rain " * 300,), "too long"),
        ("words", ("rain", 21.0), "0.25 to 20 seconds"),
        ("words", ("rain", 1.0, 50.0), "guidance is a number from 0 to 20"),
        ("words", ("rain", 1.0, 3.5, 1000), "1 to 200 steps"),
        ("words", ("rain", 1.0, 3.5, 2, None), "choose a seed"),
    ],
)
def test_mistakes_are_sentences(studio, clips, tmp_path, tab, choices, said):
    files.save(tmp_path / "long.wav", torch.zeros(181 * 4000) + 0.01, 4000)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    given = {**clips, "long": str(tmp_path / "long.wav"), "broken": str(tmp_path / "broken.wav")}
    choices = [given.get(c, c) if isinstance(c, str) else c for c in choices]
    with pytest.raises(WavelldmError, match=said):
        getattr(studio, tab)(*choices)


def test_the_picture_of_a_waveform_is_a_scale_in_seconds(studio, clips):
    from PIL import Image

    wav = np.zeros(2 * SR)
    wav[SR : SR + 160] = 0.9  # at 1 s of 2
    path = files.save(studio.folder / "click.wav", torch.as_tensor(wav).float(), SR)
    picture = np.asarray(Image.open(studio.waveform(str(path))).convert("RGB")).astype(int)
    red = (picture[:, :, 0] - picture[:, :, 1] > 60).sum(0)
    assert place_of(int(red.argmax()), picture.shape[1], 2.0) == pytest.approx(1.0, abs=0.01)
    assert place_of(-5, 100, 2.0) == 0 and place_of(500, 100, 2.0) == 2.0
    assert picture.shape[1] == 1100 and studio.waveform(None) is None


def test_tables_show_text():
    assert "&lt;b&gt;" in table_html([("a", "<b>"), ("1", "2")]) and table_html(()) == ""
    assert LONGEST["refine"] < LONGEST["denoise"]
