"""The explorer of codes, without a browser: values are set and buttons pressed from code; and its handlers in one."""

import io

import numpy as np
import pytest
import soundfile
import torch

from wavelldm.codec.fsq import code_to_digits
from wavelldm.codec.model import Codec
from wavelldm.course import explorer
from wavelldm.errors import WavelldmError
from wavelldm.training.presets import preset

LEVELS = (8, 8, 8, 6, 5)


def some_codes(frames=40, seed=0):
    return torch.randint(15_360, (4, frames), generator=torch.Generator().manual_seed(seed))


def some_recording(frames=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    places = torch.randn(frames, 2, generator=g) + 10 * seed
    phonemes = ["", "ʃ", "iː", "s"] * (frames // 4)
    return explorer.Recording(
        0.1 * torch.randn(1, 256 * frames, generator=g), some_codes(frames, seed), places, phonemes
    )


def made(folder, frames=40):
    torch.manual_seed(0)
    codec = Codec(preset("tiny").codec).eval()
    recordings = {"low": some_recording(frames), "high voice": some_recording(48, 1)}
    return explorer.Explorer(codec, recordings, [some_recording(40, seed) for seed in (0, 2)], folder)


@pytest.fixture
def widget(tmp_path):
    return made(tmp_path)


def pixel(widget, what, x, y):
    """Where data (x, y) of one of the pictures lies, as shares from the upper left corner of the whole."""
    ax = widget._axes[what]
    across, up = ax.transData.transform((x, y)) / ax.figure.bbox.size
    return across, 1 - up


def press(widget, label):
    widget.buttons[label].click()


def test_digits_are_set_where_they_should():
    codes = some_codes()
    out = explorer.set_digits(codes, LEVELS, [1, 3], [None, 7, None, 0, None], 10, 20)
    assert torch.equal(out[[0, 2]], codes[[0, 2]]) and torch.equal(out[:, :10], codes[:, :10])
    before, after = (code_to_digits(x[[1, 3], 10:20], LEVELS) for x in (codes, out))
    assert (after[..., 1] == 7).all() and (after[..., 3] == 0).all()
    assert torch.equal(after[..., [0, 2, 4]], before[..., [0, 2, 4]]) and torch.equal(out[:, 20:], codes[:, 20:])


def test_a_digit_that_there_is_not_is_refused():
    with pytest.raises(WavelldmError, match="digit 4 goes from 0 to 5"):
        explorer.set_digits(some_codes(), LEVELS, [0], [None, None, None, 6, None], 0, 5)


def test_a_transplant_takes_frames_as_far_as_there_are():
    codes, other = some_codes(40), some_codes(25, 1)
    out = explorer.transplant(codes, other, [0, 2], 20, 40)
    assert torch.equal(out[[0, 2], 20:25], other[[0, 2], 20:25]) and torch.equal(out[:, 25:], codes[:, 25:])
    assert torch.equal(out[[1, 3]], codes[[1, 3]]) and torch.equal(out[:, :20], codes[:, :20])


def test_the_gallery_finds_every_use_and_shows_some():
    recordings = [some_recording(40, seed) for seed in range(3)]
    for r in recordings:
        r.codes[1, ::4] = 77
    places, count = explorer.same_code(recordings, 77, 1, most=5)
    assert count == 30 and len(places) == 5 and len({i for i, _ in places}) == 3
    assert all(recordings[i].codes[1, t] == 77 for i, t in places)


@pytest.mark.parametrize("what", ("spectrogram", "codes", "digits"))
def test_a_click_selects_the_frame_and_the_codebook_under_it(widget, what):
    y = 4.0 if what == "spectrogram" else 2.5  # kHz, or the third codebook
    widget.click(*pixel(widget, what, 17.5 / widget.rate, y))
    assert widget.chosen == ("low", 17)
    assert widget.codebook.value == (1 if what == "spectrogram" else 3)
    q = widget.codebook.value - 1
    assert f"code {some_codes()[q, 17]}," in widget.heard.value and "[ʃ]" in widget.heard.value
    assert "1 of 80 frames of the corpus" in widget.heard.value and widget.gallery.value.count("<audio") == 1


def test_a_click_on_the_map_selects_the_nearest_frame(widget):
    place = widget.corpus[1].places[5]
    widget.click(*pixel(widget, "map", *place.tolist()))
    assert widget.chosen == (1, 5) and "sentence 2 of the corpus" in widget.heard.value


def test_a_click_beside_the_pictures_does_nothing(widget):
    before = widget.chosen, widget.heard.value
    widget.click(0.001, 0.999)
    assert (widget.chosen, widget.heard.value) == before


def test_the_page_sends_clicks_through_the_text_field(widget):
    x, y = pixel(widget, "codes", 3.5 / widget.rate, 1.5)
    widget.place.value = f"{x} {y} 1234567"
    assert widget.chosen == ("low", 3) and widget.codebook.value == 2


def test_without_a_click_the_fields_do_the_same(widget):
    widget.frame.value, widget.codebook.value = 9, 4
    widget.hear.click()
    assert widget.chosen == ("low", 9) and f"code {some_codes()[3, 9]}," in widget.heard.value


def test_the_held_frame_is_what_its_codes_make(widget):
    widget.select("low", 12)
    held = some_codes()[:, 12:13].repeat(1, round(explorer.HELD * widget.rate))
    assert torch.equal(widget.sounds["held"], widget.decode(held))
    with pytest.raises(WavelldmError, match="frames 0 to 39"):
        widget.select("low", 40)


def test_digits_set_by_value_are_heard_and_can_be_undone(widget):
    first = widget.sounds["edited"]
    assert torch.equal(first, widget.sounds["original"])
    widget.codebooks.value, widget.frames.value = (1, 2), (5, 9)
    widget.digits[0].value = 7
    press(widget, "set digits")
    digits = code_to_digits(widget.edited["low"], LEVELS)
    assert (digits[:2, 5:10, 0] == 7).all() and torch.equal(digits[2:], code_to_digits(some_codes(), LEVELS)[2:])
    assert not torch.equal(widget.sounds["edited"], first)
    press(widget, "undo")
    assert torch.equal(widget.edited["low"], some_codes()) and torch.equal(widget.sounds["edited"], first)
    press(widget, "undo")  # nothing is left to undo
    assert torch.equal(widget.edited["low"], some_codes())


def test_codes_go_from_one_recording_to_the_other(widget):
    widget.codebooks.value, widget.frames.value, widget.other.value = (1,), (0, 39), "high voice"
    press(widget, "transplant")
    assert torch.equal(widget.edited["low"][0], some_codes(48, 1)[0, :40])
    assert torch.equal(widget.edited["low"][1:], some_codes()[1:])
    widget.recording.value = "high voice"
    assert widget.frames.value == (0, 47) and torch.equal(widget.sounds["edited"], widget.sounds["original"])
    press(widget, "undo")  # goes back to where the change was made
    assert widget.name == "low" and torch.equal(widget.edited["low"], some_codes())


def test_saving_writes_the_sound_and_the_codes(widget, tmp_path):
    widget.recording.value = "high voice"
    widget.digits[1].value = 0
    press(widget, "set digits")
    press(widget, "save")
    wav, sr = soundfile.read(tmp_path / "high_voice.wav", dtype="float32")
    assert sr == 16_000 and np.abs(wav - widget.sounds["edited"][0].clamp(-1, 1).numpy()).max() < 1e-3
    assert np.array_equal(np.load(tmp_path / "high_voice.npy"), widget.edited["high voice"].numpy())


def test_a_saved_notebook_shows_the_picture(widget, monkeypatch):
    from PIL import Image

    shown = []
    monkeypatch.setattr(explorer, "display", lambda data, raw: shown.append(data))
    widget.show()
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert Image.open(io.BytesIO(widget.png())).size == (880, 368)


def test_the_handlers_in_a_browser(playwright, tmp_path):
    """The picture writes the place of a click into the text field; the key x goes over from one player to the other."""
    from pages import CHROMIUM, SWITCHES

    assert CHROMIUM, "install chromium for this test"
    widget = made(tmp_path, frames=200)  # long enough to go on playing
    page_text = f'<div class="{widget._name}"><input></div>{widget.image.value}{widget.ab.value}'
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=[*SWITCHES, "--autoplay-policy=no-user-gesture-required"]
    )
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    page.set_content(page_text)
    box = page.locator("img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    sent = [float(part) for part in page.locator("input").input_value().split()]
    assert sent[:2] == pytest.approx([0.25, 0.5], abs=0.01)
    page.locator(".ab").focus()
    playing = "[...document.querySelectorAll('audio')].map(a => !a.paused)"
    seen = []
    for _ in range(3):
        page.keyboard.press("x")
        page.wait_for_timeout(150)
        seen.append(page.evaluate(playing))
    browser.close()
    assert seen == [[True, False], [False, True], [True, False]]
    widget.place.value = " ".join(map(str, sent))  # what the kernel gets
    assert widget.chosen[0] == "low"
