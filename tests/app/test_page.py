"""The page of the models in Chromium: upload, record, result, error, two people at once."""

import re
import threading
import time

import pytest
import requests
import torch
from pages import free_port
from signals import noisy, speechlike

from wavelldm.app import page as app
from wavelldm.audio import files
from wavelldm.text.text2audio import load_maker as maker

SR = 16_000


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    app.warm()  # loading is not what is measured here
    blocks = app.launch(port=free_port(), folder=tmp_path_factory.mktemp("kept"), block=False)
    yield blocks.local_url
    blocks.close(verbose=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "talk.wav"
    files.save(path, torch.as_tensor(noisy(0.4 * speechlike(1.0), 8)).float(), SR)
    return str(path)


def open_tab(page, name):
    page.set_default_timeout(150_000)
    page.get_by_role("tab", name=app.TITLES.get(name, name.capitalize()), exact=True).click()
    page.wait_for_selector(f"#{name}-go", state="visible")
    return page.locator(f"div[role=tabpanel]:has(#{name}-go)")


def drop(page, name, path):
    panel = open_tab(page, name)
    panel.locator("input[type=file]").first.set_input_files(path)
    panel.get_by_label("Clear").first.wait_for()
    return panel


def computing(note):
    """Seconds of the model itself, as the notes under a result say."""
    return float(re.search(r"in ([\d.]+) s of computing", note)[1])


def go(page, name):
    page.click(f"#{name}-go")
    page.wait_for_selector(f"#{name}-players .step[data-at]")


def test_a_dropped_file_is_cleaned_and_before_and_after_play_in_step(visit, url, clip, tmp_path):
    page = visit(url)
    drop(page, "denoise", clip)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    began = time.perf_counter()
    go(page, "denoise")
    beside = time.perf_counter() - began - computing(page.inner_text("#denoise-notes"))
    assert len(asked) <= 8, asked  # to the server and back
    (tmp_path / "kept").mkdir()
    began = time.perf_counter()
    (note,) = app.Studio(tmp_path / "kept").denoise(clip).notes  # files and picture, without the page
    alone = time.perf_counter() - began - computing(note)
    assert beside < 15 * max(alone, 0.1), f"{beside:.1f} s beside the model, {alone:.1f} s of them without the page"
    step = page.locator("#denoise-players .step")
    page.click("#denoise-players .play")
    page.wait_for_function("() => document.querySelector('#denoise-players .step').dataset.time > 0.1")
    assert step.get_attribute("data-at") == "1"
    assert step.get_attribute("data-seconds") == "1 1"  # both start at one moment of one clock
    before = float(step.get_attribute("data-time"))
    page.click("#denoise-players .pick >> text=before")
    assert step.get_attribute("data-at") == "0" and float(step.get_attribute("data-time")) >= before  # it goes on
    page.wait_for_selector("#denoise-players .step:not(.on)")  # to the end
    wav = files.load(clip)[0]
    with page.expect_download() as saved:
        page.click("#denoise-players .save")
    assert saved.value.suggested_filename == "cleaned.wav" and files.load(saved.value.path())[0].shape == wav.shape


def test_the_microphone_is_heard(visit, url):
    page = visit(url, permissions=["microphone"])
    panel = open_tab(page, "denoise")
    panel.get_by_label("Record audio").first.click()
    panel.get_by_role("button", name="Record", exact=True).first.click()
    page.wait_for_timeout(1500)
    panel.get_by_role("button", name="Stop", exact=True).first.click()
    page.wait_for_timeout(1000)
    go(page, "denoise")
    assert "s of sound in" in page.inner_text("#denoise-notes")


def test_a_file_that_is_no_sound_is_a_sentence_and_the_page_goes_on(visit, url, clip, tmp_path):
    bad = tmp_path / "<img src=x>.wav"
    bad.write_bytes(b"no sound at all")
    page = visit(url)
    page.set_default_timeout(150_000)
    page.wait_for_selector("#denoise-go")
    page.click("#denoise-go")
    page.wait_for_selector("text=Record or drop a file first.")
    panel = open_tab(page, "denoise")
    panel.locator("input[type=file]").first.set_input_files(str(bad))
    page.wait_for_timeout(1500)
    page.click("#denoise-go")
    page.wait_for_selector("text=cannot be read as sound")
    said = page.inner_text("body")
    assert "Traceback" not in said and "/tmp/" not in said
    assert page.query_selector("img[src=x]") is None


def test_a_gap_is_marked_on_the_waveform_and_filled(visit, url, clip):
    page = visit(url)
    drop(page, "restore", clip)
    wave = page.locator("#wave img")
    wave.wait_for()
    box = wave.bounding_box()
    for share in (0.4, 0.5):
        wave.click(position={"x": share * box["width"], "y": box["height"] / 3})
        page.wait_for_timeout(700)
    field = page.get_by_label("Gaps in seconds (nothing: they are looked for)")
    page.wait_for_function(
        "() => [...document.querySelectorAll('textarea, input')].some((n) => /^0\\.\\d/.test(n.value))"
    )
    first, last = map(float, field.input_value().split("-"))
    assert first == pytest.approx(0.4, abs=0.03) and last == pytest.approx(0.5, abs=0.03)
    page.get_by_label("Lose these places first, to try it on a whole recording").check()
    go(page, "restore")
    assert page.locator("#restore-players .pick").all_inner_texts() == ["whole", "before", "restored"]
    assert "filled" in page.inner_text("#restore-notes")


def test_the_codec_and_the_comparison_answer(visit, url, clip):
    page = visit(url)
    drop(page, "codec", clip)
    go(page, "codec")
    assert "kbit/s" in page.inner_text("#codec-notes")
    drop(page, "compare", clip)
    go(page, "compare")
    assert len(page.query_selector_all("#compare-notes tr")) == 5


def test_two_people_at_once_each_get_their_own(visit, url, tmp_path):
    pages = []
    for seconds in (0.8, 1.4):
        path = tmp_path / f"{seconds}.wav"
        files.save(path, torch.as_tensor(0.4 * speechlike(seconds)).float(), SR)
        page = visit(url)
        drop(page, "denoise", str(path))
        pages.append(page)
    for page in pages:
        page.click("#denoise-go")
    for page, seconds in zip(pages, (0.8, 1.4)):
        page.wait_for_selector("#denoise-players .step[data-at]")
        page.click("#denoise-players .play")
        page.wait_for_selector("#denoise-players .step[data-seconds]")
        heard = page.get_attribute("#denoise-players .step", "data-seconds").split()
        assert list(map(float, heard)) == pytest.approx([seconds, seconds], abs=0.01)


def test_words_become_a_sound_and_unknown_ones_are_named(visit, url):
    page = visit(url)
    panel = open_tab(page, "words")
    panel.locator("#words-text textarea").fill("a violin, then a dog barking")
    panel.get_by_label("number input for Seconds").fill("2")
    panel.get_by_label("number input for Steps").fill("5")
    go(page, "words")
    assert "never met 'violin'," in page.inner_text("#words-notes")
    page.click("#words-players .play")
    page.wait_for_selector("#words-players .step[data-seconds='2']")
    with page.expect_download() as saved:
        page.click("#words-players .save")
    wav, sr = files.load(saved.value.path())
    expected = maker().generate("a violin, then a dog barking", 2.0, steps=5)[0]
    assert saved.value.suggested_filename == "a-violin-then-a-dog-barking.wav"
    assert sr == SR and (wav - expected).abs().max() < 1e-4  # as the command makes it, but for rounding to 16 bits
    panel.locator("#words-text textarea").fill("<b>xyzzy</b>")
    page.click("#words-go")
    page.wait_for_selector("text=No word of the text is known")


def test_it_fits_a_phone(visit, url):
    page = visit(url, viewport={"width": 390, "height": 844})
    page.wait_for_selector("#denoise-go")
    page.get_by_label("More tabs").click()
    page.get_by_text("Text to audio").last.click()
    page.wait_for_selector("#words-go", state="visible")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('#words-go').getBoundingClientRect().right") <= 390


@pytest.fixture
def narrow(tmp_path, monkeypatch):
    """A page with room for one that waits and for 100 kB a file, whose work lasts until it is let go."""
    let_go = threading.Event()
    work = app.Studio.denoise
    monkeypatch.setattr(app, "WAITING", 1)
    monkeypatch.setattr(app, "SIZE", 100_000)
    monkeypatch.setattr(app.Studio, "denoise", lambda *args: let_go.wait(60) and work(*args))
    blocks = app.launch(port=free_port(), folder=tmp_path, block=False)
    yield blocks.local_url, let_go
    let_go.set()
    blocks.close(verbose=False)


def test_more_requests_than_fit_are_told_so_and_the_others_are_answered(visit, narrow, clip):
    url, let_go = narrow
    pages = [visit(url) for _ in range(3)]
    for page in pages:
        drop(page, "denoise", clip)
    with pages[0].expect_response("**/queue/join*"):
        pages[0].click("#denoise-go")
    pages[0].wait_for_function("() => /processing/.test(document.body.innerText)")
    with pages[1].expect_response("**/queue/join*"):
        pages[1].click("#denoise-go")
    pages[2].click("#denoise-go")
    pages[2].wait_for_selector("text=This application is currently busy")
    assert "Traceback" not in pages[2].inner_text("body")
    let_go.set()
    for page in pages[:2]:
        page.bring_to_front()  # what is hidden need not be drawn
        page.wait_for_selector("#denoise-players .step[data-at]")
    go(pages[2], "denoise")  # there is room again


def test_a_file_that_is_too_large_is_a_sentence(visit, narrow, tmp_path):
    files.save(tmp_path / "long.wav", torch.zeros(1, 4 * SR) + 0.01, SR)
    page = visit(narrow[0])
    open_tab(page, "denoise").locator("input[type=file]").first.set_input_files(str(tmp_path / "long.wav"))
    page.wait_for_selector("text=exceed the maximum allowed size")


def test_requests_are_bounded(url):
    def status(path, **more):
        return requests.post(url + path, timeout=30, **more).status_code

    assert status("gradio_api/queue/join", data=b"x" * (app.BODY + 1)) == 413
    assert status("gradio_api/queue/join", data=iter([b"x" * 10])) == 411
    assert app.refused("/gradio_api/upload", {b"content-length": str(app.SIZE).encode()}) is None
    assert app.refused("/gradio_api/upload", {b"content-length": str(2 * app.SIZE).encode()})[0] == 413


def test_a_port_in_use_is_a_sentence(url, tmp_path):
    from wavelldm.errors import WavelldmError

    with pytest.raises(WavelldmError, match="choose another with --port"):
        app.launch(port=int(url.rstrip("/").rsplit(":", 1)[1]), folder=tmp_path, block=False)
