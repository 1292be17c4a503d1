"""Gaps that the page fills, against the same in Python."""

import numpy as np
import pytest
import soundfile as sf
import soxr

from wavelldm.data.voices import speak
from wavelldm.light import denoiser, gaps, pitch, restorer

SR = 16_000
LOST = (1.16, 1.28)  # seconds


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    wav = speak("The north wind blew as hard as it could.", sr=SR).numpy()[0][: round(2.4 * SR)]
    return (0.3 * wav / np.abs(wav).max()).astype(np.float32)


@pytest.fixture(scope="module")
def mask(speech) -> np.ndarray:
    mask = np.zeros(len(speech), bool)
    mask[round(LOST[0] * SR) : round(LOST[1] * SR)] = True
    return mask


def breath(n: int) -> np.ndarray:
    """The noise that Python takes."""
    return np.random.default_rng(0).standard_normal(n)


SETUP = "const wav = Float64Array.from(a.wav), gaps = Uint8Array.from(a.gaps);"


def test_what_the_network_is_told_is_what_python_tells_it(parts, speech, mask):
    known = np.where(mask, 0, speech)
    share, straight, octaves, rings = parts(
        SETUP
        + "return [p.knownShare(gaps), p.straight(wav, gaps), p.octaves(wav), p.ringing(wav.slice(a.from, a.to), 500)]"
        ".map((x) => [...x]);",
        wav=known,
        gaps=mask.astype(int),
        **{"from": 18_000, "to": 19_600},
    )
    np.testing.assert_allclose(share, gaps.known_share(mask), atol=1e-5)
    np.testing.assert_allclose(np.reshape(straight, (-1, 513)), gaps.straight(known, mask), rtol=2e-2, atol=2e-4)
    theirs = pitch.heard(known)[0]
    same = np.abs(np.array(octaves) - theirs) < 1e-2
    assert same.mean() > 0.97 and (theirs > 0).mean() > 0.3
    np.testing.assert_allclose(rings, gaps.ringing(known[18_000:19_600].astype(float), 500), atol=1e-4)


def test_phases_are_found_as_python_finds_them(parts, speech, mask):
    known = np.where(mask, 0, speech).astype(np.float32)
    size = gaps.straight(known, mask)
    code = SETUP + "return [...p.assemble(wav, gaps, Float64Array.from(a.size), Float64Array.from(a.breath))];"
    found = np.array(parts(code, wav=known, gaps=mask.astype(int), size=size.ravel(), breath=breath(len(known))))
    wanted = gaps.assemble(known, mask, size)
    np.testing.assert_array_equal(found[~mask].astype(np.float32), known[~mask])
    assert np.abs(found - wanted).max() < 1e-3 < 0.05 < np.abs(wanted[mask]).max()


def test_a_gap_is_filled_as_python_fills_it(parts, speech, mask, monkeypatch):
    monkeypatch.setattr(restorer, "frame_noise", lambda seed, first, count, dim: np.zeros((count, dim), np.float32))
    code = (
        SETUP + "const net = await p.Graph.load('/models/restore16k-filler.onnx');"
        "return [...await p.fill(net, wav, wav, gaps, Float64Array.from(a.breath))];"
    )
    found = np.array(parts(code, wav=speech, gaps=mask.astype(int), breath=breath(len(speech))))
    wanted = restorer.fill(speech, mask, restorer.shipped())
    np.testing.assert_array_equal(found[~mask].astype(np.float32), speech[~mask])
    assert np.abs(found - wanted).max() < 2e-3 < 0.05 < np.abs(wanted[mask]).max()


def test_where_noise_drowns_speech_the_network_is_not_asked(parts, speech, mask):
    code = (
        SETUP + "const noisy = wav.map((x, i) => x + 0.5 * Math.sin(i * i)), none = { call: () => { throw 'asked'; } };"
        "return [...await p.fill(none, wav, noisy, gaps, Float64Array.from(a.breath))];"
    )
    found = np.array(parts(code, wav=speech, gaps=mask.astype(int), breath=breath(len(speech))))
    assert np.abs(found - restorer.fill(speech, mask)).max() < 1e-3


def saved(page, path) -> np.ndarray:
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(path)
    return sf.read(path)[0]


@pytest.mark.parametrize("sr", [16_000, 44_100])
def test_a_gap_that_is_marked_on_the_page_is_filled(visit, speech, tmp_path, sr):
    wav = soxr.resample(speech, SR, sr)
    wav = wav + 0.003 * np.random.default_rng(0).standard_normal(len(wav))
    lost = slice(round(LOST[0] * sr), round(LOST[1] * sr))
    wav[lost] = 0
    sf.write(tmp_path / "talk.wav", wav, sr, subtype="FLOAT")
    page = visit()
    page.set_input_files("#file", tmp_path / "talk.wav")
    page.wait_for_selector("#download:not([disabled])")
    plain = saved(page, tmp_path / "plain.wav")
    assert page.is_disabled("#fill")
    page.fill("#gap-from", str(LOST[0]))
    page.fill("#gap-to", str(LOST[1]))
    page.click("#fill")
    page.wait_for_selector("#unfill:not([disabled])")
    assert page.inner_text("#file-status") == "One gap is filled."
    filled = saved(page, tmp_path / "filled.wav")
    near = slice(lost.start - sr // 100, lost.stop + sr // 100)  # resampling reaches a little further
    outside = np.ones(len(wav), bool)
    outside[near] = False
    assert np.abs(filled - plain)[outside].max() < 1e-4
    mask = np.zeros(round(len(wav) * SR / sr), bool)
    mask[round(LOST[0] * SR) : round(LOST[1] * SR)] = True
    cleaned = denoiser.load("best").enhance(np.float32(soxr.resample(wav, sr, SR)), SR)[: len(mask)]
    wanted = restorer.fill(cleaned, mask, restorer.shipped())[mask]
    level = lambda x: np.sqrt(np.mean(np.square(x)))  # noqa: E731
    assert level(filled[lost]) == pytest.approx(level(wanted), rel=0.25)
    assert level(plain[lost]) < 0.1 * level(filled[lost])
    page.click("#unfill")
    page.wait_for_selector("#unfill[disabled]")
    page.wait_for_selector("#working", state="hidden")
    np.testing.assert_array_equal(saved(page, tmp_path / "again.wav"), plain)


def test_a_gap_is_marked_with_a_pointer_and_too_long_a_one_refused(visit, speech, tmp_path):
    sf.write(tmp_path / "talk.wav", speech, SR)
    page = visit()
    page.set_input_files("#file", tmp_path / "talk.wav")
    page.wait_for_selector("#download:not([disabled])")
    box = page.locator("#picture-before").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 40)
    page.mouse.up()
    length = len(speech) / SR
    assert float(page.input_value("#gap-from")) == pytest.approx(0.2 * length, abs=0.02)
    assert float(page.input_value("#gap-to")) == pytest.approx(0.8 * length, abs=0.02)
    page.click("#fill")
    assert "Mark 1 s at most" in page.inner_text("#file-message")
