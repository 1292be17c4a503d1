"""The half of the page for recordings."""

import struct

import numpy as np
import pytest
import soundfile as sf
from signals import noisy, speechlike

from wavelldm.light import denoiser


def recording(sr: int, channels: int, seconds: float = 3.0) -> np.ndarray:
    """(N, C): speech in noise, differently loud in each channel."""
    rows = [noisy(speechlike(seconds, sr, seed=c), 5.0, seed=c) * 0.5**c for c in range(channels)]
    return 0.4 * np.stack(rows, axis=1)


def until(page, condition: str, seconds: float = 60) -> None:
    """Waits for a condition on the page, whose rules forbid Playwright's own way of doing so."""
    for _ in range(round(20 * seconds)):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"it never came to be that {condition}")


def clean(page, path) -> None:
    page.set_input_files("#file", path)
    page.wait_for_selector("#download:not([disabled])")


def saved(page, path) -> np.ndarray:
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(path)
    return sf.read(path)[0]


@pytest.mark.parametrize(
    ("sr", "channels", "subtype", "settings"),
    [
        (48_000, 2, "PCM_16", {}),
        (44_100, 1, "PCM_24", {"strength": 0.5, "background": 0.2}),
        (8000, 1, "FLOAT", {}),
        (192_000, 1, "PCM_16", {}),
    ],
)
def test_the_page_gives_what_python_gives(visit, tmp_path, sr, channels, subtype, settings):
    sf.write(tmp_path / "talk.wav", recording(sr, channels), sr, subtype=subtype)
    page = visit()
    page.set_input_files("#file", tmp_path / "talk.wav")
    page.wait_for_selector("#recording:not([hidden])")
    for name, value in settings.items():
        page.locator(f"#file-{name}").fill(str(value))  # it begins anew
    page.wait_for_selector("#download:not([disabled])")
    found = saved(page, tmp_path / "found.wav")
    noisy_wav = sf.read(tmp_path / "talk.wav", always_2d=True)[0].T
    wanted = denoiser.load("best").enhance(noisy_wav, sr, **settings).T.reshape(found.shape)
    assert sf.info(tmp_path / "found.wav").subtype == subtype
    assert np.abs(found - wanted).max() < 1e-3
    assert np.abs(found - noisy_wav.T.reshape(found.shape)).max() > 0.05  # something was done


def test_a_longer_recording_is_cleaned_across_spans(visit, tmp_path):
    sf.write(tmp_path / "talk.wav", recording(8000, 1, 15.0), 8000, subtype="FLOAT")
    page = visit()
    clean(page, tmp_path / "talk.wav")
    found = saved(page, tmp_path / "found.wav")
    wanted = denoiser.load("best").enhance(sf.read(tmp_path / "talk.wav")[0], 8000)
    assert np.abs(found - wanted).max() < 1e-3


def test_two_threads_give_what_one_gives(visit, tmp_path):
    sf.write(tmp_path / "talk.wav", recording(16_000, 1, 1.0), 16_000, subtype="FLOAT")
    wanted, most = denoiser.load("best").enhance(sf.read(tmp_path / "talk.wav")[0], 16_000), 0
    for number in range(5):  # on a busy machine the second thread now and then does not begin
        page = visit("?threads=2")
        clean(page, tmp_path / "talk.wav")
        assert np.abs(saved(page, tmp_path / f"found{number}.wav") - wanted).max() < 1e-3
        session = page.context.browser.new_browser_cdp_session()
        targets = session.send("Target.getTargets", {"filter": [{}]})["targetInfos"]
        most = max(most, sum(x["type"] == "worker" and "worker.js?threads=2" in x["url"] for x in targets))
        if most >= 2:
            break
    assert most >= 2  # the page's own, and onnxruntime's


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg"])
def test_packed_files_are_opened_at_their_own_rate(visit, tmp_path, suffix):
    sf.write(tmp_path / f"talk.{suffix}", recording(44_100, 1, 1.0), 44_100)
    page = visit()
    clean(page, tmp_path / f"talk.{suffix}")
    found = saved(page, tmp_path / "found.wav")
    assert sf.info(tmp_path / "found.wav").samplerate == 44_100
    assert abs(len(found) - 44_100) < 3000  # packers add some silence
    if suffix == "flac":  # packed without a loss
        wanted = denoiser.load("best").enhance(sf.read(tmp_path / "talk.flac")[0], 44_100)
        assert np.abs(found - wanted).max() < 1e-3


def wav_bytes(sr: int = 8000, coding: int = 1, bits: int = 16, data: bytes = b"abcd") -> bytes:
    """A WAV file, or what looks like one."""
    form = struct.pack("<HHIIHH", coding, 1, sr, sr * bits // 8, bits // 8, bits)
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data


GARBAGE = {
    "noise.mp3": (np.random.default_rng(0).bytes(5000), "no sound file that this browser can read"),
    "empty.wav": (b"", "is empty"),
    "short.wav": (wav_bytes()[:20], "ends before its samples begin"),
    "slow.wav": (wav_bytes(sr=1), "1 samples a second"),
    "silent.wav": (wav_bytes(data=b""), "holds no sound"),
    "nan.wav": (wav_bytes(coding=3, bits=32, data=struct.pack("<f", float("nan"))), "are no numbers"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_file_that_cannot_be_used_gets_a_sentence(visit, tmp_path, name):
    content, sentence = GARBAGE[name]
    (tmp_path / name).write_bytes(content)
    page = visit()
    page.set_input_files("#file", tmp_path / name)
    page.wait_for_selector("#file-message:not([hidden])")
    assert sentence in page.inner_text("#file-message")
    assert page.inner_text("#file-message").endswith(".")
    assert not page.is_visible("#working")


def test_it_can_be_stopped_and_begun_again(visit, tmp_path):
    sf.write(tmp_path / "long.wav", recording(8000, 1, 60.0), 8000)
    page = visit()
    page.set_input_files("#file", tmp_path / "long.wav")
    until(page, "document.querySelector('#progress').value > 0.05")
    page.click("#stop")
    assert not page.is_visible("#working") and page.is_disabled("#download")
    sf.write(tmp_path / "short.wav", recording(8000, 1, 1.0), 8000)
    clean(page, tmp_path / "short.wav")
    assert len(saved(page, tmp_path / "found.wav")) == 8000


def test_before_and_after_are_heard_at_the_same_place(visit, tmp_path):
    sf.write(tmp_path / "talk.wav", recording(16_000, 1, 4.0), 16_000)
    page = visit()
    clean(page, tmp_path / "talk.wav")
    assert page.is_checked("#hear-after")
    page.click("#play")
    place = "Number(document.querySelector('#position').value)"
    until(page, f"{place} > 0.15")
    before = page.evaluate(place)
    page.keyboard.press("b")
    assert page.is_checked("#hear-before")
    assert page.evaluate(place) >= before  # it plays on
    until(page, f"{place} > {before}")
    page.evaluate("(x => { x.value = 0.9; x.dispatchEvent(new Event('input')); })(document.querySelector('#position'))")
    until(page, "document.querySelector('#play').textContent === 'Play'")  # at the end it stops
    assert page.evaluate(place) == 1
    columns = "document.querySelector('#picture-%s').getContext('2d').getImageData(0, 0, 100, 100).data"
    brightness = [page.evaluate(f"Array.from({columns % w}).reduce((a, b) => a + b)") for w in ("before", "after")]
    assert brightness[1] < 0.9 * brightness[0]  # the noise is gone from the picture too


def test_the_page_works_by_keyboard_alone(visit, tmp_path):
    sf.write(tmp_path / "talk.wav", recording(8000, 1, 1.0), 8000)
    page = visit()
    clean(page, tmp_path / "talk.wav")
    page.locator("#tab-file").focus()
    reached = []
    while reached[-1:] != ["download"] and len(reached) < 30:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    wanted = ["file", "play", "position", "hear-after", "file-strength", "file-background", "download"]
    assert [name for name in reached if name in wanted] == wanted
    page.locator("#tab-file").focus()
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#panel-live") and page.evaluate("document.activeElement.id") == "tab-live"
