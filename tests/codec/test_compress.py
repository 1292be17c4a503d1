import base64
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.audio import blocks as compress_blocks
from wavelldm.audio import files as audio
from wavelldm.codec import compress, container
from wavelldm.codec.model import Codec
from wavelldm.errors import WavelldmError
from wavelldm.training import presets

SR = 16_000


def make(seed=0, **changes):
    torch.manual_seed(seed)
    tiny = presets.preset("tiny")
    return Codec(replace(tiny.codec, **changes)).eval()


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """Saved and loaded, as a user has it."""
    codec = make()
    return weights.load(weights.save(tmp_path_factory.mktemp("weights") / "mine", codec), Codec)


def speech(seconds, channels=1):
    return torch.tensor(np.stack([speechlike(seconds, seed=s) for s in range(channels)])).float()  # (C, N)


VARIANTS = {
    "tiny": {},
    "causal": dict(causal=True),
    "strided": dict(strides=(2, 2)),
    "hifigan": dict(decoder="hifigan", decoder_dim=32, upsample=(8, 8, 2, 2)),
    "polished": dict(polish=8),
    "pulse": dict(decoder="pulse", pitch_input=True),
    "pulse, causal, ahead": dict(decoder="pulse", pitch_input=True, causal=True, ahead=1),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("n, piece", [(70_000, 9_999), (64 * 256 * 3, 64 * 256), (64 * 256 + 1, 100_000)])
def test_in_windows_as_in_one_go(monkeypatch, name, n, piece):
    """64 frames a block; the windows overlap by what the codec sees, so nothing tells them from the whole."""
    monkeypatch.setattr(compress, "BLOCK_FRAMES", 64)
    monkeypatch.setattr(compress, "MARGINS", 1)
    codec = make(**VARIANTS[name])
    wav = speech(n / SR, 2)[:, :n]
    with torch.no_grad():
        codes = codec.quantise(codec.encode(wav[:, None], SR))[1]
        whole = torch.cat([codec.codes_to_wav(channel[None], n)[:, 0] for channel in codes])
    blocks = list(compress.encode_blocks(codec, wav.split(piece, dim=1)))
    assert {b.shape[2] for b in blocks[:-1]} <= {64} and torch.equal(torch.cat(blocks, dim=2), codes)
    parts = list(compress.decode_blocks(codec, blocks))
    decoded = torch.cat(parts, dim=1)
    assert len(parts) == -(-codes.shape[2] // 64)
    assert decoded.shape[1] == codes.shape[2] * codec.hop
    close = 2e-3 if "pulse" in name else 1e-5  # phases add up their rounding errors
    assert (decoded[:, :n] - whole).abs().max() < close * max(1.0, float(whole.abs().max()))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_margins_cover_what_a_frame_sees(name):
    """Disturb everything from one frame on: further than the margin before it, nothing may change."""
    codec, at = make(**VARIANTS[name]), 200
    generator = torch.Generator().manual_seed(1)
    wav = 0.1 * torch.randn(1, 1, 400 * codec.hop, generator=generator)
    other = wav.clone()
    other[..., at * codec.hop :] = 0.5 * torch.randn(other[..., at * codec.hop :].shape, generator=generator)
    codes = torch.randint(0, 15_360, (2, 1, 4, 400), generator=generator)
    codes[1, ..., :at] = codes[0, ..., :at]
    with torch.no_grad():
        z = (codec.encode(wav, SR) - codec.encode(other, SR)).abs().amax(dim=(0, 1))
        sound = (codec.codes_to_wav(codes[0]) - codec.codes_to_wav(codes[1])).abs().flatten()
    for change, margin in (
        (z, compress.encoder_margin(codec)),
        (sound.view(400, -1).amax(1), compress.decoder_margin(codec)),
    ):
        assert change[: at - margin].max() < 1e-5 < change[at:].min()
        assert 2 <= margin <= 70


def test_ten_hours_of_codes_pass_through_windows_of_bounded_size(monkeypatch):
    """The decoder that looks farthest, with Griffin-Lim behind it. Nothing is decoded, windows are only counted."""
    codec = Codec(presets.preset("base16k").codec).eval()
    margin, seen = compress.decoder_margin(codec), []
    monkeypatch.setattr(codec.quantiser, "decode_codes", lambda codes: seen.append(codes.shape) or codes)
    monkeypatch.setattr(
        codec, "decode_window", lambda z, before, count, state: (torch.zeros(1, 1, 1).expand(1, 1, count * 256), None)
    )
    blocks = (
        torch.zeros(2, 4, container.BLOCK_FRAMES, dtype=torch.long)
        for _ in range(10 * 3_600 * 125 // 2 // container.BLOCK_FRAMES)
    )
    made = sum(wav.shape[1] for wav in compress.decode_blocks(codec, blocks))
    longest, done = max(shape[2] for shape in seen), sum(shape[2] for shape in seen) / 2
    assert {shape[0] for shape in seen} == {1} and longest <= max(
        container.BLOCK_FRAMES, 8 * margin
    ) + 2 * margin < 2_000
    assert done < 1.26 * made / 256


def test_ten_hours_pass_through_windows_of_bounded_size():
    block, margin = torch.zeros(1, 10 * SR), 20
    frames = longest = 0
    for window, before, count in compress_blocks.windows((block for _ in range(3_600)), 256, margin):
        longest = max(longest, window.shape[1])
        assert before <= margin and count <= container.BLOCK_FRAMES
        frames += count
    assert frames == 36_000 * SR / 256 and longest <= (container.BLOCK_FRAMES + 2 * margin) * 256


def test_a_file_comes_back_as_the_codec_hears_it(codec, tmp_path):
    wav = speech(20.0)
    audio.save(tmp_path / "a.wav", wav, SR)
    wav = audio.load(tmp_path / "a.wav")[0]
    result = compress.compress_file(tmp_path / "a.wav", tmp_path / "a.wll", codec)
    assert result.complete and result.seconds == 20 and result.header.model == "mine"
    assert compress.decompress_file(tmp_path / "a.wll", tmp_path / "b.wav", codec) == result
    with torch.no_grad():
        codes = codec.quantise(codec.encode(wav[None], SR))[1]
        whole = codec.codes_to_wav(codes, wav.shape[1])[0].clamp(-1, 1)
    assert torch.equal(torch.cat(list(container.read(tmp_path / "a.wll")[1]), dim=2), codes)
    assert (audio.load(tmp_path / "b.wav")[0] - whole).abs().max() < 2**-14


@pytest.mark.parametrize(
    "sr, channels, n", [(44_100, 2, 30_001), (8_000, 1, 3_000), (96_000, 3, 50_000), (22_050, 1, 100)]
)
@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_rate_channels_and_length_come_back(codec, tmp_path, sr, channels, n, suffix):
    audio.save(tmp_path / "a.wav", 0.1 * torch.randn(channels, n, generator=torch.Generator().manual_seed(0)), sr)
    result = compress.compress_file(tmp_path / "a.wav", tmp_path / "a.wll", codec, codebooks=2)
    compress.decompress_file(tmp_path / "a.wll", tmp_path / f"b{suffix}", codec)
    back = audio.info(tmp_path / f"b{suffix}")
    assert (back.sr, back.channels, back.frames) == (sr, channels, n)
    assert result.header.codebooks == 2 and result.header.size == (tmp_path / "a.wll").stat().st_size


@pytest.mark.parametrize("n", [1, 10, 255, 256, 257])
@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_silence_and_less_than_a_frame(codec, tmp_path, n, gain):
    audio.save(tmp_path / "a.wav", gain * torch.ones(1, n), SR)
    compress.compress_file(tmp_path / "a.wav", tmp_path / "a.wll", codec)
    compress.decompress_file(tmp_path / "a.wll", tmp_path / "b.wav", codec)
    assert audio.info(tmp_path / "b.wav").frames == n


def test_fewer_codebooks_make_smaller_files_of_the_same_codes(codec, tmp_path):
    audio.save(tmp_path / "a.wav", speech(4.0), SR)
    files = [tmp_path / f"{k}.wll" for k in (1, 2, 3, 4)]
    sizes = [compress.compress_file(tmp_path / "a.wav", f, codec, k + 1).header.size for k, f in enumerate(files)]
    assert sizes == sorted(set(sizes))
    codes = [torch.cat(list(container.read(f)[1]), dim=2) for f in files]
    assert all(torch.equal(c, codes[3][:, : k + 1]) for k, c in enumerate(codes))
    for k in (0, 5):
        with pytest.raises(WavelldmError, match="1 to 4 codebooks"):
            compress.compress_file(tmp_path / "a.wav", tmp_path / "x.wll", codec, k)


def test_the_identity_is_that_of_the_weights(tmp_path):
    codec = make()
    before = compress.identity(codec)
    loaded = weights.load(weights.save(tmp_path / "mine", codec), Codec)
    assert compress.identity(loaded) == before != compress.identity(make(seed=1)) and len(before) == 16
    with torch.no_grad():
        next(codec.parameters()).view(-1)[0] *= 1.01
    assert compress.identity(codec) != before


@pytest.fixture
def compressed(codec, tmp_path):
    """21 s in three blocks."""
    audio.save(tmp_path / "a.wav", speech(21.0), SR)
    compress.compress_file(tmp_path / "a.wav", tmp_path / "a.wll", codec)
    return tmp_path / "a.wll"


def test_a_truncated_file_gives_what_is_there(codec, compressed, tmp_path):
    compress.decompress_file(compressed, tmp_path / "whole.wav", codec)
    compressed.write_bytes(compressed.read_bytes()[:-10])
    result = compress.decompress_file(compressed, tmp_path / "part.wav", codec)
    assert (
        not result.complete
        and result.seconds == pytest.approx(1_024 * 256 / SR)
        and "only the first 16.4 of 21.0 s" in result.text()
    )
    part, whole = audio.load(tmp_path / "part.wav")[0], audio.load(tmp_path / "whole.wav")[0]
    sure = part.shape[1] - compress.decoder_margin(codec) * 256  # the sound near the cut misses what came next
    assert part.shape[1] == 1_024 * 256 and (part - whole[:, : part.shape[1]])[:, :sure].abs().max() < 2**-14
    compressed.write_bytes(compressed.read_bytes()[:200])
    with pytest.raises(WavelldmError, match="ends within its first block"):
        compress.decompress_file(compressed, tmp_path / "none.wav", codec)
    assert not (tmp_path / "none.wav").exists()


def test_a_damaged_file_and_other_weights_are_refused_and_nothing_is_written(codec, compressed, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WavelldmError, match="made with other weights"):
        compress.decompress_file(compressed, tmp_path / "b.wav", make(seed=1))
    data = bytearray(compressed.read_bytes())
    data[len(data) // 2] ^= 4
    compressed.write_bytes(data)
    with pytest.raises(WavelldmError, match="block 2 of 3"):
        compress.decompress_file(compressed, tmp_path / "b.wav", codec)
    with pytest.raises(WavelldmError, match="not a .wll file"):
        compress.decompress_file(tmp_path / "a.wav", tmp_path / "b.wav", codec)
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_older_weights_are_read_where_the_weights_say_so(codec, compressed, tmp_path):
    header, blocks = container.read(compressed)
    old = replace(header, weights="0123456789abcdef")
    container.write(tmp_path / "old.wll", old, blocks, lambda: header.samples)
    with pytest.raises(WavelldmError, match="made with other weights"):
        compress.decompress_file(tmp_path / "old.wll", tmp_path / "b.wav", codec)
    path = weights.save(tmp_path / "mine", codec, reads=[old.weights])
    compress.decompress_file(tmp_path / "old.wll", tmp_path / "b.wav", weights.load(path, Codec))
    compress.decompress_file(compressed, tmp_path / "c.wav", codec)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "c.wav").read_bytes()


# 0.6 s of speech, written when the weights that ship were 16-bit floats
OLD_FILE = (
    "cWi6`0SE;ILwPxE>V)YPfIa{K00961fIa{K0RR9b000000021w00000004GxX=7zEHfsm~2mlBG1^@*BNGeZG>;M1&0cmRO<5F?^hVafTvCDJ}"
    "Trg$yN0eM-YpjrV7^Y0wJ7qxXUGu;jNfl9G$HHOE+_TxdBa_Dm0z5Q(l+oSXijBs2eM>>{mCM{Va^uWun93go054)%qso;2bQb^ray&$mn3Rv$"
    "{|O+U5K+2+%Jz<lO&kpBu=IkMPnolX5v}o9w>gKy(bY1rI))({tG}f>g2s#_{I^dwb$ysR3!yN6O`&GWXG1NhLqPoW6~u^lz_3%aXU*S>dkVaW"
    "jOJ6y^Ak$?3aR-sy?FkFscC*}uiF->JHxCi4z><@YDl24nf%IPJbTC^O!2D#`T"
)
OLD_LEVELS = [0.0402, 0.0391, 0.0349, 0.0495]  # of the quarters of its sound, as those weights decoded it


def test_what_ships_reads_files_of_the_version_before(tmp_path):
    (tmp_path / "old.wll").write_bytes(base64.b85decode(OLD_FILE))
    compress.decompress_file(tmp_path / "old.wll", tmp_path / "old.wav")
    quarters = audio.load(tmp_path / "old.wav")[0][0].chunk(4)
    assert [float(x.square().mean().sqrt()) for x in quarters] == pytest.approx(OLD_LEVELS, rel=0.1)


def test_what_cannot_be_compressed(codec, tmp_path):
    (tmp_path / "empty.wav").touch()
    sf.write(tmp_path / "none.wav", np.zeros(0), SR)
    sf.write(tmp_path / "nan.wav", np.full(100, np.nan), SR, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no sound" * 99)
    cases = {
        "empty": "0 bytes",
        "none": "no samples",
        "nan": "NaN",
        "text": "cannot be read",
        "missing": "does not exist",
    }
    for name, words in cases.items():
        with pytest.raises(WavelldmError, match=words):
            compress.compress_file(tmp_path / f"{name}.wav", tmp_path / "a.wll", codec)
    audio.save(tmp_path / "a.wav", speech(0.5), SR)
    with pytest.raises(WavelldmError, match="0 steps"):
        compress.compress_file(tmp_path / "a.wav", tmp_path / "a.wll", codec, steps=-1)
    with pytest.raises(WavelldmError, match="overwrite itself"):
        compress.compress_file(tmp_path / "a.wav", tmp_path / "a.wav", codec, force=True)
    assert not (tmp_path / "a.wll").exists()
