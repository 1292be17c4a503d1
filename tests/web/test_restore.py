"""Damage that the page finds and repairs, against the same in Python."""

import numpy as np
import pytest
import soundfile as sf
import soxr
from signals import noisy, speechlike

from wavelldm.data.voices import speak
from wavelldm.light import bend, clip, denoiser, gaps, pitch, restorer
from wavelldm.light.find import find

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


def level(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


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


def lossy(sr: int, seconds: float, seed: int) -> np.ndarray:
    """(N,): speech in faint noise that loses pieces to silence, at once and faded, to a held value and to faint noise,
    one of them across the windows in which the finder looks."""
    wav = noisy(speechlike(seconds, sr, seed=seed), 20, seed=seed).astype(np.float32)
    rng, fade = np.random.default_rng(seed), np.linspace(1, 0, sr // 500, dtype=np.float32)
    for k, start in enumerate(np.arange(0.31, seconds - 0.4, 0.853)):
        a, b = round(start * sr), round((start + rng.uniform(0.01, 0.3)) * sr)
        if k % 4 == 1:
            wav[a - len(fade) : a] *= fade
            wav[b : b + len(fade)] *= fade[::-1]
        wav[a:b] = (0, 0, wav[a], 1e-4 * rng.standard_normal(b - a))[k % 4]
    return np.round(wav * 32_768).astype(np.float32) / 32_768


FIND = (
    "const rows = a.rows.map((row) => Float32Array.from(row));"
    "return p.findDamage(a.sr, rows[0].length, rows.length,"
    " async (from, count) => rows.map((row) => row.subarray(from, from + count)));"
)


@pytest.mark.parametrize(("sr", "seconds"), [(SR, 19.0), (44_100, 3.0), (8000, 9.0)])
def test_damage_is_found_where_python_finds_it(parts, sr, seconds):
    rows = np.stack([lossy(sr, seconds, 0), lossy(sr, seconds, 1).clip(-0.2, 0.15), speechlike(seconds, sr)])
    rows = rows.astype(np.float32)
    ours, theirs = parts(FIND, rows=rows, sr=sr), find(rows, sr)
    assert [[tuple(gap) for gap in damage["gaps"]] for damage in ours] == [list(damage.gaps) for damage in theirs]
    assert len(theirs[0].gaps) > seconds / 2 and theirs[2].gaps == ()
    peaks = [damage["peaks"] for damage in ours]
    assert peaks[0]["ceiling"] is peaks[2]["ceiling"] is theirs[0].ceiling is None
    np.testing.assert_allclose(peaks[1]["ceiling"], theirs[1].ceiling, rtol=1e-6)
    assert peaks[1]["curve"] is None


def test_a_gate_is_no_loss_here_either(parts):
    wav = speechlike(6.0, SR).astype(np.float32)
    wav[np.abs(wav) < 2e-3] = 0
    (ours,), (theirs,) = parts(FIND, rows=wav[None], sr=SR), find(wav[None], SR)
    assert [tuple(gap) for gap in ours["gaps"]] == list(theirs.gaps)


@pytest.mark.parametrize("sr", [SR, 44_100])
def test_peaks_are_put_back_as_python_puts_them_back(parts, sr):
    wav = speechlike(1.2, sr).astype(np.float32)
    low, high = np.float32([-0.2]), np.float32([0.15])
    wav = wav.clip(low, high)
    wanted = clip.declip(wav[None], low, high, sr)[0]
    found = parts(
        "const row = Float32Array.from(a.wav), out = [];"
        "for await (const block of p.declipped(a.sr, row.length, [{ ceiling: a.ends, curve: null }],"
        " async (from, count) => [row.slice(from, from + count)])) out.push(...block[0]);"
        "return out;",
        wav=wav,
        sr=sr,
        ends=[float(low[0]), float(high[0])],
    )
    assert len(found) == len(wav) and np.abs(wanted - wav).max() > 0.02
    assert np.abs(np.array(found) - wanted).max() < 1e-3


BENT = {
    "tanh": lambda x: 0.25 * np.tanh(x / 0.25),
    "knee 3": lambda x: x / (1 + np.abs(x / 0.3) ** 3) ** (1 / 3),
    "not at all": lambda x: x,
}


@pytest.mark.parametrize(("shape", "sr"), [("tanh", SR), ("knee 3", 44_100), ("not at all", SR)])
def test_a_soft_overload_is_found_and_undone_as_python_does_it(parts, shape, sr):
    clean = 2 * speechlike(2.5, sr)
    wav = BENT[shape](clean).astype(np.float32)
    (theirs,) = bend.find_curves(wav[None], sr)
    ours, straight = parts(
        "const row = Float32Array.from(a.wav), loudest = new p.Loudest(a.sr);"
        "for (let at = 0; at < row.length; at += 5000) loudest.push(row.subarray(at, at + 5000));"
        "const curve = loudest.curve(); return [curve, curve && [...p.straighten(row, curve)]];",
        wav=wav,
        sr=sr,
    )
    if shape == "not at all":
        assert ours is theirs is None
        return
    assert ours["shape"] == theirs.shape
    assert ours["ceiling"] == pytest.approx(theirs.ceiling, rel=1e-3)
    assert ours["gain"] == pytest.approx(theirs.gain, abs=1e-3)
    wanted = bend.straighten(wav[None], [theirs])[0]
    assert np.abs(np.array(straight) - wanted).max() < 0.01 * np.abs(wanted).max()
    assert np.abs(wanted - clean).max() < 0.5 * np.abs(wav - clean).max()


def test_what_is_found_on_the_page_is_repaired(visit, tmp_path):
    wav = 2 * np.stack([noisy(speechlike(4.0, SR, seed=c), 25, seed=c) for c in (0, 1)], axis=1)
    lost = [slice(20_000, 22_000), slice(27_000, 27_600)]
    for gap in lost:
        wav[gap, 0] = 0
    wav[:, 1] = wav[:, 1].clip(-0.5, 0.5)
    sf.write(tmp_path / "talk.wav", wav, SR)
    page = visit()
    page.set_input_files("#file", tmp_path / "talk.wav")
    page.wait_for_selector("#download:not([disabled])")
    plain = saved(page, tmp_path / "plain.wav")
    page.click("#restore")
    page.wait_for_selector("#unfill:not([disabled])")
    assert page.inner_text("#file-status").endswith("2 gaps are filled.")
    assert "an overload took are put back" in page.inner_text("#file-status")
    repaired = saved(page, tmp_path / "repaired.wav")
    heard = np.float32(sf.read(tmp_path / "talk.wav")[0].T)
    wanted = denoiser.load("best").enhance(heard, SR, repair=restorer.Repair())
    for gap in lost:
        left, filled, by_python = (level(x) for x in (plain[gap, 0], repaired[gap, 0], wanted[0, gap]))
        assert filled == pytest.approx(by_python, rel=0.25)
        assert filled > 3 * left, "a denoiser alone puts little into a gap"
    assert (
        np.abs(repaired[:, 1]).max() > 1.05 * np.abs(plain[:, 1]).max()
        and sf.info(tmp_path / "repaired.wav").subtype == "FLOAT"
    )
    page.click("#restore")  # all is found already
    page.wait_for_selector("#unfill:not([disabled])")
    np.testing.assert_array_equal(saved(page, tmp_path / "again.wav"), repaired)
    page.click("#unfill")
    page.wait_for_selector("#unfill[disabled]")
    page.wait_for_selector("#download:not([disabled])")
    np.testing.assert_array_equal(saved(page, tmp_path / "plain-again.wav"), plain)
