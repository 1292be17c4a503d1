"""Long files: packed ones are decoded packet by packet, and what is long is written to the disk."""

import base64
import struct

import numpy as np
import pytest
import soundfile as sf
from signals import speechlike

SR = 44_100
MOST = 1 << 19  # bytes that may be read at a time

DECODE = """
const file = new File([Uint8Array.from(atob(a.bytes), (c) => c.charCodeAt(0))], a.name);
const whole = OfflineAudioContext.prototype.decodeAudioData, read = Blob.prototype.arrayBuffer;
const out = { most: 0, told: 0 };
Blob.prototype.arrayBuffer = function () { out.most = Math.max(out.most, this.size); return read.call(this); };
if (!a.whole) OfflineAudioContext.prototype.decodeAudioData = () => { throw new Error("whole"); };
try {
  const wav = await p.decoded(file, (done) => (out.told = Math.max(out.told, done)));
  Object.assign(out, { sr: wav.sr, coding: wav.coding });
  out.rows = (await p.read(wav, 0, a.frames ?? wav.frames)).map((row) => [...row]);
  out.frames = wav.frames;
} catch (error) { out.sentence = p.explain(error); }
OfflineAudioContext.prototype.decodeAudioData = whole;
Blob.prototype.arrayBuffer = read;
return out;
"""


def decoded(parts, data: bytes, name: str, **options) -> dict:
    return parts(DECODE, bytes=base64.b64encode(data).decode(), name=name, **options)


def sound(seconds: float, sr: int, channels: int) -> np.ndarray:
    """(N, C), as loud as it can be."""
    rows = [speechlike(seconds, sr, seed=c) for c in range(channels)]
    return np.stack([0.99 * row / np.abs(row).max() for row in rows], axis=1)


def packed(path, x: np.ndarray, sr: int, **options) -> bytes:
    with sf.SoundFile(path, "w", sr, x.ndim if x.ndim == 1 else x.shape[1], **options) as file:
        for at in range(0, len(x), sr):  # libsndfile fails on much Vorbis at once
            file.write(x[at : at + sr])
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "sr", "channels", "options"),
    [
        ("x.flac", SR, 2, {}),
        ("x.flac", 96_000, 1, {"subtype": "PCM_24"}),
        ("x.mp3", SR, 2, {}),
        ("x.mp3", 22_050, 1, {}),
        ("x.mp3", 16_000, 1, {"bitrate_mode": "VARIABLE"}),
        ("x.ogg", SR, 2, {}),
        ("x.ogg", 48_000, 1, {"subtype": "OPUS"}),
    ],
)
def test_packets_become_the_sound_that_python_reads(parts, tmp_path, name, sr, channels, options):
    data = packed(tmp_path / name, sound(2.5, sr, channels), sr, **options)
    found = decoded(parts, data, name)
    assert "sentence" not in found
    wanted = sf.read(tmp_path / name, always_2d=True)[0].T
    assert (found["sr"], np.shape(found["rows"])) == (sr, wanted.shape)
    if name == "x.flac":
        np.testing.assert_array_equal(np.float32(found["rows"]), np.float32(wanted))
    else:
        assert np.abs(np.clip(wanted, -1, 1) - found["rows"]).max() < (5e-3 if "subtype" in options else 1e-3)


@pytest.mark.parametrize(("name", "options"), [("x.flac", {}), ("x.mp3", {}), ("x.ogg", {})])
def test_a_long_file_is_read_in_pieces(parts, tmp_path, name, options):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 15 * SR) if name == "x.flac" else sound(90, SR, 1)[:, 0]
    data = packed(tmp_path / name, noise, SR, **options)
    found = decoded(parts, data, name, frames=10)
    assert found["frames"] == len(noise)
    assert 0 < found["most"] <= MOST < len(data) and found["told"] > 0.5


def test_tags_around_an_mp3_are_passed_over(parts, tmp_path):
    plain = packed(tmp_path / "x.mp3", sound(1.0, SR, 1), SR)
    picture = np.random.default_rng(0).bytes(300_000)
    size = bytes(len(picture) >> shift & 127 for shift in (21, 14, 7, 0))
    tagged = b"ID3\4\0\0" + size + picture + plain + b"TAG" + bytes(125)
    found, wanted = decoded(parts, tagged, "x.mp3"), decoded(parts, plain, "x.mp3")
    np.testing.assert_array_equal(found["rows"], wanted["rows"])


@pytest.mark.parametrize("name", ["x.flac", "x.ogg"])
def test_a_damaged_file_is_left_to_the_browser(parts, tmp_path, name):
    """It may find more in it than we do; if it does not, there is a sentence."""
    data = bytearray(packed(tmp_path / name, sound(3.0, SR, 1), SR))
    data[len(data) // 2 : len(data) // 2 + 9000] = bytes(9000)
    found = decoded(parts, bytes(data), name)
    assert "no sound file that this browser can read" in found["sentence"]  # the browser was forbidden to
    found = decoded(parts, bytes(data), name, whole=True)
    assert found.get("frames", 0) > SR or "no sound file" in found["sentence"]


def test_a_flac_file_without_a_length_ends_where_it_ends(parts, tmp_path):
    x = sound(1.0, SR, 1)
    data = bytearray(packed(tmp_path / "x.flac", x, SR))
    data[21] &= 0xF0  # how many samples there are, in 36 bits
    data[22:26] = bytes(4)
    assert decoded(parts, bytes(data), "x.flac")["frames"] == len(x)


WRITE = """
const block = new Float32Array(1 << 20).map((_, i) => (i % 1000) / 1000);
const folders = async () => {
  const names = [];
  for await (const name of (await navigator.storage.getDirectory()).keys()) names.push(name);
  return names.filter((name) => name.startsWith("sound-"));
};
const files = async () => {
  const [folder] = await folders(), names = [];
  if (!folder) return [];
  const root = await navigator.storage.getDirectory();
  for await (const name of (await root.getDirectoryHandle(folder)).keys()) names.push(name);
  return names.sort();
};
const made = async (count) => {
  const writer = new p.Writer(48000, 1, "float32");
  for (let i = 0; i < count; i++) { block[0] = i; await writer.add([block]); }
  return writer.finish();
};
"""


def test_what_is_long_lies_on_the_disk_and_goes_away(parts):
    found = parts(
        WRITE
        + """await (await navigator.storage.getDirectory()).getDirectoryHandle("sound-left-behind", { create: true });
        await made(2);
        const none = await files(), long = await made(20), one = await files(), starts = [];
        for (let i = 0; i < 20; i++) starts.push((await p.read(long, i << 20, 2))[0][0]);
        const head = [...new Uint8Array(await long.blob.slice(0, 44).arrayBuffer())];
        const { frames, blob: { size } } = long;
        await made(9);
        await made(9);
        return { none, one, last: await files(), folders: await folders(), starts, head, frames, size };"""
    )
    assert found["none"] == [] and found["one"] == ["0"] and found["last"] == ["1", "2"]
    assert found["folders"] != [] and "sound-left-behind" not in found["folders"]
    assert found["starts"] == list(range(20))  # across what was written at different times
    assert found["size"] == 44 + 4 * found["frames"] == 44 + (20 << 22)
    assert struct.unpack("<I", bytes(found["head"][40:44]))[0] == 20 << 22


def test_without_a_disk_it_stays_in_memory(parts):
    found = parts(
        "navigator.storage.getDirectory = () => Promise.reject(new DOMException('private', 'SecurityError'));"
        + WRITE
        + """const wav = await made(20), starts = [];
        for (let i = 0; i < 20; i++) starts.push((await p.read(wav, i << 20, 2))[0][0]);
        return { starts, size: wav.blob.size };"""
    )
    assert found == {"starts": list(range(20)), "size": 44 + (20 << 22)}
