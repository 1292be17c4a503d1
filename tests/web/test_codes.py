"""The tab for codebooks: what it hears is what the codec's graphs give."""

import json
import re

import numpy as np
import onnxruntime
import pytest
import soundfile as sf

from wavelldm import weights
from wavelldm.app.web_server import WEIGHTS
from wavelldm.data.voices import speak

SR, HOP, ROWS = 16_000, 256, 4


def graph(part: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(WEIGHTS / f"voice16k-{part}.onnx"))


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    path = tmp_path_factory.mktemp("codes") / "talk.wav"
    sf.write(path, speak("The sun came out again.", sr=SR).numpy()[0][: 2 * SR], SR, subtype="FLOAT")
    return path


@pytest.fixture
def opened(visit, talk):
    page = visit()
    page.click("#tab-codes")
    page.set_input_files("#codes-file", talk)
    done(page)
    return page


def done(page) -> None:
    page.wait_for_selector("#codes-status", state="hidden")
    page.wait_for_selector("#codes-save:not([disabled])")


def heard(page, path) -> np.ndarray:
    done(page)
    with page.expect_download() as download:
        page.click("#codes-save")
    download.value.save_as(path)
    return sf.read(path, dtype="float32")[0]


def codes_of(talk) -> np.ndarray:
    wav = sf.read(talk, dtype="float32")[0]
    return graph("encoder").run(None, {"wav": wav[None, : len(wav) // HOP * HOP]})[0]  # (1, Q, T)


def sound_of(codes: np.ndarray) -> np.ndarray:
    return graph("decoder").run(None, {"codes": codes})[0][0]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_graphs_are_those_of_the_codec_that_ships(part):
    facts = json.loads(graph(part).get_modelmeta().custom_metadata_map["wavelldm"])
    assert (facts["form"], facts["hash"]) == (part, weights.about("voice16k")["hash"]), "export it again"


def test_sound_becomes_codes_and_sound_again(opened, talk, tmp_path):
    assert "4 codebooks of 15,360 entries, 62.5 times a second: 3.5 kbit/s" in opened.inner_text("#codes-about")
    wanted = sound_of(codes_of(talk))
    assert np.abs(heard(opened, tmp_path / "x.wav") - wanted).max() < 1e-3 < np.abs(wanted).max()
    size = opened.evaluate("(({ width, height }) => [width, height])(document.querySelector('#raster'))")
    assert size == [len(wanted) // HOP, ROWS]


def test_a_codebook_is_muted_swapped_and_put_back(opened, talk, tmp_path):
    codes = codes_of(talk)
    opened.locator("#codebooks select").nth(1).select_option("-1")
    muted = codes.copy()
    muted[:, 1] = -1
    assert np.abs(heard(opened, tmp_path / "a.wav") - sound_of(muted)).max() < 1e-3
    opened.locator("#codebooks select").nth(2).select_option("0")
    muted[:, 2] = codes[:, 0]
    found = heard(opened, tmp_path / "b.wav")
    assert np.abs(found - sound_of(muted)).max() < 1e-3 < np.abs(found - sound_of(codes)).max()
    opened.click("#back")
    assert np.abs(heard(opened, tmp_path / "c.wav") - sound_of(codes)).max() < 1e-3


def test_codes_are_changed_by_keyboard(opened, talk, tmp_path):
    codes = codes_of(talk)
    opened.locator("#raster").focus()
    for key in ("ArrowDown", "ArrowDown", *["ArrowRight"] * 30, *["Shift+ArrowRight"] * 9):
        opened.keyboard.press(key)
    assert opened.inner_text("#selected") == f"Codebook 3 at 0.48 s: code {codes[0, 2, 30]} and 9 more"
    opened.fill("#code", "77")
    opened.keyboard.press("Enter")
    codes[0, 2, 30:40] = 77
    assert np.abs(heard(opened, tmp_path / "x.wav") - sound_of(codes)).max() < 1e-3
    opened.fill("#code", "15360")
    opened.keyboard.press("Enter")
    assert "from 0 to 15359" in opened.inner_text("#codes-message")


def test_codes_are_chosen_with_a_pointer(opened):
    box = opened.locator("#raster").bounding_box()
    x, y = box["x"], box["y"] + 0.9 * box["height"]
    opened.mouse.move(x + 0.25 * box["width"], y)
    opened.mouse.down()
    opened.mouse.move(x + 0.5 * box["width"], y)
    opened.mouse.up()
    count = opened.evaluate("document.querySelector('#raster').width")
    chosen = re.match(r"Codebook 4 at ([\d.]+) s: code \d+ and (\d+) more", opened.inner_text("#selected"))
    assert float(chosen[1]) == pytest.approx(0.25 * count * HOP / SR, abs=0.02)
    assert int(chosen[2]) == pytest.approx(0.25 * count, abs=1)
    opened.click("#mute")
    done(opened)
    assert "says nothing" in opened.inner_text("#selected")


def test_a_file_that_is_no_sound_gets_a_sentence(visit, tmp_path):
    (tmp_path / "x.flac").write_bytes(b"fLaC" + bytes(100))
    page = visit()
    page.click("#tab-codes")
    page.set_input_files("#codes-file", tmp_path / "x.flac")
    page.wait_for_selector("#codes-message:not([hidden])")
    assert "no sound file that this browser can read" in page.inner_text("#codes-message")
