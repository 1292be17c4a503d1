"""The codec that streams, in the browser: what Python gives, and a microphone that is heard through it."""

import numpy as np
import pytest
import soundfile as sf
import soxr
from signals import speechlike

from wavelldm.data.voices import speak
from wavelldm.light import packets, talk
from wavelldm.metrics.scores import stoi

SR, HOP = 16_000, 256
SENTENCE = "A traveller came along wrapped in a warm cloak, and the north wind blew as hard as it could."

THROUGH = """
const names = ["encoder", "decoder"].map((part) => `/models/voice16k-live-${part}.onnx`);
const [encoder, decoder] = await Promise.all(names.map((name) => p.Graph.load(name)));
let turn = 0;
const voice = new p.Talk(encoder, decoder, { next: () => a.gone.includes(turn++) });
const out = [];
const wav = Float32Array.from(a.wav);
for (let at = 0; at < wav.length; at += a.size) {
  const { sound, above } = await voice.push(wav.slice(at, at + a.size));
  if (above.length !== sound.length || above.some((x) => x !== 0)) throw new Error("something above the band");
  out.push(...sound);
}
return { sound: out, waiting: voice.waiting };
"""


@pytest.mark.parametrize("size, gone", [(HOP, []), (100, [3, 4, *range(20, 36), 60])], ids=["whole", "lost"])
def test_it_gives_what_python_gives(parts, size, gone):
    coder, wav = talk.load(), speechlike(1.5).astype(np.float32)
    found = parts(THROUGH, wav=wav, size=size, gone=gone)
    encoder, receiver = coder.encoder(), packets.Receiver(coder)
    receiver.next = 0
    receiver.frames = {i: row for i, row in enumerate(encoder.push(wav)) if i not in gone}
    frames = len(wav) // HOP - 1
    expected = np.concatenate([receiver.take() for _ in range(frames)])
    assert len(found["sound"]) == len(expected) and found["waiting"] == len(wav) - len(expected)
    assert np.abs(np.array(found["sound"]) - expected).max() < 1e-3
    if gone:
        start = 32 * HOP - HOP // 2  # the thirteenth that is lost in a row
        assert not np.any(found["sound"][start : start + 4 * HOP]), "after a long gap there is silence"


def test_packets_get_lost_as_often_as_asked_in_gaps_of_two(parts):
    code = """
      const losses = new p.Losses();
      const rows = [];
      for (let i = 0; i < 40000; i++) rows.push(losses.next(a.share) ? 1 : 0);
      return rows;
    """
    for share in (0.0, 0.05, 0.3):
        gone = np.array(parts(code, share=share))
        assert gone.mean() == pytest.approx(share, abs=0.015 if share else 0.0)
        if share:
            assert gone.sum() / (np.diff(gone, prepend=0) == 1).sum() == pytest.approx(2, abs=0.2)


@pytest.fixture(scope="module")
def spoken(launch, tmp_path_factory):
    """A browser whose microphone hears a sentence, and that sentence at 48 kHz."""
    wav = soxr.resample(speak(SENTENCE, sr=SR).numpy()[0], SR, 3 * SR)[: 5 * 3 * SR]
    wav = np.pad(0.3 * wav / np.abs(wav).max(), (0, 5 * 3 * SR - len(wav)))
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    sf.write(path, wav, 3 * SR, subtype="PCM_16")
    browser = launch(path)
    yield browser, wav
    browser.close()


def heard(page, path) -> np.ndarray:
    """Seven seconds. A busy machine may need the original for a while; then they are recorded again."""
    for _ in range(3):
        page.click("#record")
        page.wait_for_timeout(7000)
        page.click("#record")
        page.locator("#live-status", has_text="Recorded").wait_for()
        if page.is_hidden("#live-notice"):
            break
    with page.expect_download() as download:
        page.click("#keep")
    download.value.save_as(path)
    wav, sr = sf.read(path)
    return soxr.resample(wav, sr, SR)


def understood(loop: np.ndarray, wav: np.ndarray) -> list[float]:
    """STOI of each second and a half, laid where the loudness of both rises and falls alike."""
    loudness = [np.sqrt(np.convolve(x * x, np.ones(512) / 512, "same")) for x in (np.tile(loop, 3), wav)]
    size, found = 3 * SR // 2, []
    for begin in range(SR, len(wav) - size, SR // 2):
        piece = loudness[1][begin : begin + size]
        places = np.correlate(loudness[0][::64], piece[::64] - piece.mean(), "valid")
        at = 64 * int(np.argmax(places[: 2 * len(loop) // 64]))
        near = [
            stoi(np.tile(loop, 3)[max(0, at + d) :][:size], wav[begin : begin + size], SR) for d in range(-64, 65, 16)
        ]
        found.append(max(near))
    return found


def test_the_microphone_is_heard_as_in_a_call(visit, spoken, tmp_path):
    browser, wav = spoken
    page = visit(browser=browser, permissions=["microphone"])
    page.click("#tab-live")
    page.select_option("#buffer", "1000")
    page.select_option("#through", "talk")
    assert page.is_visible("#live-lost") and page.is_hidden("#live-strength")
    page.click("#start")
    page.wait_for_selector("#record:not([disabled])")
    assert page.is_disabled("#through")
    loop = soxr.resample(wav, 3 * SR, SR)
    whole = heard(page, tmp_path / "whole.wav")
    late = int(page.inner_text("#latency").split()[0])
    assert 1040 < late < 1200  # 40 ms of the codec, and the buffer
    page.fill("#live-lost", "0.3")
    assert page.inner_text("#live-lost-value") == "30 %"
    page.wait_for_timeout(1500)
    torn = heard(page, tmp_path / "torn.wav")
    page.click("#start")
    assert page.is_enabled("#through")
    good, bad = understood(loop, whole), understood(loop, torn)
    assert 75 < max(good) < 97, f"STOI {np.round(good)}"  # the original would have more
    # chance decides which packets are lost: the means differ by 10 to 16, and by 1 without losses
    assert np.mean(bad) < np.mean(good) - 3, f"STOI {np.round(good)}, with losses {np.round(bad)}"
