"""Parts of the page against their models in Python."""

import math

import numpy as np
import pytest
import soundfile as sf
from signals import speechlike

from wavelldm.light.levels import active_power
from wavelldm.light.resample import Resampler

PAIRS = [(44_100, 16_000), (16_000, 44_100), (48_000, 16_000), (16_000, 48_000), (8000, 16_000), (192_000, 16_000),
         (16_000, 16_000), (44_101, 16_000), (16_000, 44_101)]  # fmt: skip


@pytest.mark.parametrize(("sr_in", "sr_out"), PAIRS)
def test_the_resampler_gives_what_python_gives_however_sound_is_cut(parts, sr_in, sr_out):
    x = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    theirs = Resampler(sr_in, sr_out, 2)
    theirs = np.concatenate([theirs.push(x), theirs.finish()], axis=1)
    ours = parts(
        """const r = new p.Resampler(a.from, a.to, 2, 64), out = [[], []];
        const take = (n) => out.forEach((row, c) => row.push(...r.out[c].subarray(0, n)));
        for (let at = 0, size = 1; at < a.x[0].length; at += size, size = (7 * size) % 331 + 1)
          take(r.push(a.x.map((row) => Float32Array.from(row.slice(at, at + size)))));
        take(r.finish());
        return out;""",
        **{"from": sr_in, "to": sr_out, "x": x},
    )
    assert np.shape(ours) == theirs.shape == (2, math.ceil(3000 * sr_out / sr_in))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_the_resampler_agrees_with_soxr(parts):
    import soxr

    t = np.arange(8000) / 44_100
    x = np.sin(2 * np.pi * 440 * t) + 0.5 * np.sin(2 * np.pi * 5000 * t)
    code = "return [...new p.Resampler(44100, 16000).through([Float32Array.from(a.x)], true)[0]];"
    ours = np.array(parts(code, x=x))
    theirs = soxr.resample(x, 44_100, 16_000, "VHQ")
    inner = slice(200, 2600)  # the ends see a step
    assert np.abs(ours[: len(theirs)] - theirs)[inner].max() < 2e-4


@pytest.mark.parametrize("sr", [8000, 44_100, 48_000])
def test_levels_are_those_of_python(parts, sr):
    x = speechlike(2.3, sr).astype(np.float32)
    ours = parts("return p.activePower(Float32Array.from(a.x), a.sr);", x=x, sr=sr)
    assert ours == pytest.approx(active_power(x, sr), rel=1e-5)
    assert parts("return p.activePower(new Float32Array(1000), 8000);") == 0
    assert parts("return [p.levelOf([0, 0]), p.levelOf([0.01, ...new Array(18).fill(0), 0.001])];") == pytest.approx(
        [-26, 10 * math.log10(0.0055)]
    )


def test_the_transform_is_fouriers(parts):
    x = np.random.default_rng(1).standard_normal(64)
    re, im = parts(
        "const re = Float32Array.from(a.x), im = new Float32Array(64); p.fft(re, im); return [[...re], [...im]];", x=x
    )
    np.testing.assert_allclose(np.array(re) + 1j * np.array(im), np.fft.fft(x), atol=1e-5)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_wav_files_are_read_and_written_as_soundfile_does(parts, tmp_path, subtype, form):
    x = np.random.default_rng(2).uniform(-1, 1, (50, 3))
    sf.write(tmp_path / "x.wav", x, 22_050, subtype=subtype, format=form)
    wanted = sf.read(tmp_path / "x.wav", dtype="float32")[0]
    found = parts(
        """const wav = await p.opened(new Blob([Uint8Array.from(a.bytes)]));
        const block = await p.read(wav, 7, 1000), all = await p.read(wav, 0, wav.frames);
        const writer = new p.Writer(wav.sr, wav.channels, wav.coding);
        await writer.add(all);
        const made = new Uint8Array(await (await writer.finish()).blob.arrayBuffer());
        return [wav.sr, wav.channels, wav.frames, block.map((row) => [...row]), [...made]];""",
        bytes=list((tmp_path / "x.wav").read_bytes()),
    )
    assert found[:3] == [22_050, 3, 50]
    np.testing.assert_allclose(np.array(found[3]).T, wanted[7:], atol=1e-7)
    (tmp_path / "y.wav").write_bytes(bytes(found[4]))
    assert sf.info(tmp_path / "y.wav").subtype == subtype
    np.testing.assert_array_equal(sf.read(tmp_path / "y.wav", dtype="float32")[0], wanted)


@pytest.mark.parametrize(("suffix", "sr"), [("flac", 44_100), ("flac", 96_000), ("ogg", 22_050), ("mp3", 32_000),
                                            ("mp3", 22_050)])  # fmt: skip
def test_the_rate_of_a_packed_file_is_found(parts, tmp_path, suffix, sr):
    sf.write(tmp_path / f"x.{suffix}", np.zeros(sr) + 1e-3, sr)
    head = list((tmp_path / f"x.{suffix}").read_bytes()[:5000])
    assert parts("return p.rateOf(Uint8Array.from(a.head));", head=head) == sr


def test_files_that_are_no_graphs_are_refused(parts, server):
    ask = "try { return p.factsOf(%s, 'x.onnx') } catch (error) { return p.explain(error) }"
    load = "const file = new Uint8Array(await (await fetch('/models/base16k.onnx')).arrayBuffer());"
    facts = parts(load + ask % "file")
    assert (facts["name"], facts["form"], facts["hop"]) == ("base16k", "stream", 256)
    assert "no graph of this program" in parts(ask % "new Uint8Array(1000).fill(200)")
    newer = (  # the metadata lies at the end of the file
        "const end = file.subarray(-2000), at = String.fromCharCode(...end).indexOf('\"format\": 1');"
        "if (at < 0) throw new Error('where is the format?'); end[at + 10] = 57;"
    )
    assert "another version" in parts(load + newer + ask % "file")


CHAIN = """
const sr = a.sr, late = p.lateness({ sr: 16000, latency: 0 }, sr, 0.02), n = 128;
const ring = (size) => new p.Ring(new SharedArrayBuffer(8 + 4 * size));
const to = ring(65536), from = ring(262144), recorded = ring(65536), panel = new Float32Array(p.PANEL);
const chain = new p.Chain(sr, 16000, late, to, from, recorded, panel);
const input = new Float32Array(n), heard = new Float32Array(n), delayed = new Float32Array(n);
const out = { late, heard: [], delayed: [], notices: 0 };
for (let at = 0; at + n <= a.seconds * sr; at += n) {
  for (let i = 0; i < n; i++) input[i] = 0.5 * Math.sin((2 * Math.PI * 440 * (at + i)) / sr);
  panel[p.KNOBS.bypass] = at / sr > a.bypass ? 1 : 0;
  chain.process(input, heard, delayed);
  out.heard.push(...heard);
  out.delayed.push(...delayed);
  if (at / sr >= a.stall[0] && at / sr < a.stall[1]) continue; // the worker is late
  const low = new Float32Array(to.filled);
  to.read(low, low.length);
  const packed = new Float32Array(3 * low.length);
  low.forEach((x, i) => { packed[3 * i] = -2 * x; packed[3 * i + 2] = x; }); // turned upside down
  from.write(packed, packed.length);
}
out.notices = panel[p.GAUGES.late];
return out;
"""


@pytest.mark.parametrize("sr", [16_000, 44_100, 48_000])
def test_a_late_worker_is_replaced_by_the_original_without_a_click(parts, sr):
    """The worker turns a tone upside down, and stops for 0.4 s: the worst that a change of sources can meet."""
    found = parts(CHAIN, sr=sr, seconds=3.5, stall=[1.0, 1.4], bypass=3.0)
    heard, delayed, late = np.array(found["heard"]), np.array(found["delayed"]), found["late"]
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / sr)
    np.testing.assert_allclose(delayed[late:], tone[:-late], atol=1e-6)  # bypass is in phase, to the sample
    span = lambda a, b: slice(round(a * sr), round(b * sr))  # noqa: E731
    cleaned = [span(0.2, 1.0), span(2.6, 3.0)]
    original = [span(1.1, 2.2), span(3.1, 3.4)]
    for part in cleaned:
        np.testing.assert_allclose(heard[part], -delayed[part], atol=2e-3)
    for part in original:
        np.testing.assert_array_equal(heard[part], delayed[part])
    slope = 2 * np.pi * 440 * 0.5 / sr + 2 * 0.5 / (0.006 * sr)  # of the tone, and of the change of sources
    assert np.abs(np.diff(heard[late + sr // 10 :])).max() < 1.05 * slope
    assert found["notices"] == 1


def test_a_worker_that_is_away_for_long_loses_no_moment(parts):
    found = parts(CHAIN, sr=16_000, seconds=11.0, stall=[0.5, 6.5], bypass=99)
    heard, delayed = np.array(found["heard"]), np.array(found["delayed"])
    np.testing.assert_array_equal(heard[16_000 : 6 * 16_000], delayed[16_000 : 6 * 16_000])
    end = slice(10 * 16_000, 11 * 16_000 - 128)
    np.testing.assert_allclose(heard[end], -delayed[end], atol=2e-3)
