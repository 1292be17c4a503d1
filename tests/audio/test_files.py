import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
import torch

from wavelldm.audio import files
from wavelldm.audio.blocks import resample_blocks
from wavelldm.errors import AudioError
from wavelldm.light import files as arrays

SR = 16_000


def tone(n=SR, channels=1, sr=SR, hz=440.0):
    t = torch.arange(n, dtype=torch.float64) / sr
    return (0.5 * torch.sin(2 * torch.pi * hz * t)).float().repeat(channels, 1)


# --- reading what is out there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", files.SUFFIXES)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_goes_round(tmp_path, suffix, channels):
    sr = 48_000 if suffix == ".opus" else 44_100
    wav = tone(sr, channels, sr)
    files.save(tmp_path / f"a{suffix}", wav, sr)
    back, rate = files.load(tmp_path / f"a{suffix}")
    assert rate == sr and back.shape[0] == channels and abs(back.shape[1] - sr) <= 2_400  # MP3 pads
    level = back.std() / wav.std()
    assert 0.9 < level < 1.1


@pytest.mark.parametrize(
    "subtype, error", [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0.0), ("DOUBLE", 0.0)]
)
def test_bit_depths(tmp_path, subtype, error):
    wav = tone()
    sf.write(tmp_path / "a.wav", wav.T.numpy(), SR, subtype=subtype)
    back, _ = files.load(tmp_path / "a.wav")
    assert (back - wav).abs().max() <= error
    files.save(tmp_path / "b.wav", back, SR, like=files.info(tmp_path / "a.wav"))
    assert sf.info(tmp_path / "b.wav").subtype == subtype


def test_six_channels_stay_apart_and_mix_to_their_mean(tmp_path):
    wav = torch.stack([torch.full((800,), 0.1 * i) for i in range(6)])
    files.save(tmp_path / "a.wav", wav, 8_000, like=files.AudioInfo(8_000, 6, 800, "WAV", "FLOAT"))
    back, sr = files.load(tmp_path / "a.wav")
    assert sr == 8_000 and torch.equal(back, wav)
    mono, _ = files.load(tmp_path / "a.wav", mono=True)
    assert mono.shape == (1, 800) and torch.allclose(mono, wav.mean(0, keepdim=True))


def test_a_part_of_a_file(tmp_path):
    ramp = torch.arange(SR) / SR
    files.save(tmp_path / "a.wav", ramp, SR, like=files.AudioInfo(SR, 1, SR, "WAV", "FLOAT"))
    part, _ = files.load(tmp_path / "a.wav", start=0.25, seconds=0.5)
    assert torch.equal(part[0], ramp[4_000:12_000])
    with pytest.raises(AudioError, match="from 2 s on"):
        files.load(tmp_path / "a.wav", start=2.0)


# --- rates and lengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sr_in, sr_out", [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (16_000, 44_100), (22_050, 48_000)]
)
def test_resampling_keeps_pitch_level_and_a_known_length(sr_in, sr_out):
    for n in (sr_in, sr_in + 1, 12_345):
        out = files.resample(tone(n, 2, sr_in), sr_in, sr_out)
        assert out.shape == (2, -(-n * sr_out // sr_in))
    inner = slice(sr_out // 20, -sr_out // 20)
    wanted = tone(out.shape[1], 2, sr_out)
    assert (out - wanted)[:, inner].abs().max() < 1e-3


def test_resampling_does_not_alias():
    high = tone(48_000, 1, 48_000, hz=10_000.0)
    assert (
        files.resample(high, 48_000, 16_000)[:, 800:-800].abs().max() < 1e-4
    )  # the ends are steps, which hold all frequencies


def test_fit_crops_and_pads():
    x = torch.ones(1, 5)
    assert torch.equal(files.fit(x, 3), torch.ones(1, 3))
    assert torch.equal(files.fit(x, 7), torch.tensor([[1.0, 1, 1, 1, 1, 0, 0]]))


@pytest.mark.parametrize("sr", [None, 16_000, 44_100])
def test_blocks_are_the_whole(tmp_path, sr):
    wav = 0.1 * torch.randn(2, 100_003, generator=torch.Generator().manual_seed(0))
    wav = files.resample(files.resample(wav, 22_050, 12_000), 12_000, 22_050)  # up to 6 kHz, where all filters agree
    files.save(tmp_path / "a.wav", wav, 22_050, like=files.AudioInfo(22_050, 2, 0, "WAV", "FLOAT"))
    whole, _ = files.load(tmp_path / "a.wav", sr)
    read = files.read_blocks(tmp_path / "a.wav", 0.37)
    blocks = torch.cat(list(read if sr is None else resample_blocks(read, 22_050, sr)), dim=1)
    assert blocks.shape == whole.shape
    assert (blocks - whole)[:, 300:-300].abs().max() < (1e-5 if sr is None else 1e-4)


def test_three_hours_in_little_memory(tmp_path):
    """A three-hour file is worked through in a process that could not hold half of it."""
    path, hours = tmp_path / "long.flac", 3
    with sf.SoundFile(path, "w", 8_000, 1, "PCM_16", format="FLAC") as file:
        block = np.zeros(8_000 * 600, np.int16)
        block[::1000] = 3_000
        for _ in range(hours * 6):
            file.write(block)
    code = (
        "import resource, sys; from wavelldm.audio import files as audio\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"n = audio.save_blocks({str(tmp_path / 'out.flac')!r}, audio.read_blocks({str(path)!r}), 8_000)\n"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    frames, grew = map(
        int, subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert frames == hours * 3_600 * 8_000
    assert grew < 120_000  # kB; the whole file as float32 would be 337,500


def test_many_channels_come_in_shorter_blocks(tmp_path):
    """Memory goes with the samples of all channels, not with the seconds."""
    files.save(tmp_path / "many.wav", torch.zeros(255, 3 * 16_000 + 5), 16_000)
    sizes = [block.shape for block in files.read_blocks(tmp_path / "many.wav", seconds=10.0)]
    assert sizes == [(255, 16_000)] * 3 + [(255, 5)]


# --- files that are not what they should be -------------------------------------------------------------------------


def test_missing_empty_folder_and_text(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio at all, but it is called wav" * 10)
    with pytest.raises(AudioError, match="does not exist"):
        files.load(tmp_path / "no.wav")
    with pytest.raises(AudioError, match="0 bytes"):
        files.load(tmp_path / "empty.wav")
    with pytest.raises(AudioError, match="is a folder"):
        files.load(tmp_path)
    with pytest.raises(AudioError, match="convert it to wav or flac"):
        files.load(tmp_path / "text.wav")


def test_a_header_without_samples(tmp_path):
    sf.write(tmp_path / "a.wav", np.zeros((0, 1)), SR)
    with pytest.raises(AudioError, match="no samples"):
        files.load(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="no samples"):
        list(files.read_blocks(tmp_path / "a.wav"))


def test_silence_is_sound(tmp_path):
    files.save(tmp_path / "a.wav", torch.zeros(1, SR), SR)
    assert torch.equal(files.load(tmp_path / "a.wav")[0], torch.zeros(1, SR))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_named_with_its_place(tmp_path, bad):
    wav = np.zeros((SR, 2), np.float32)
    wav[4_000, 1] = bad
    sf.write(tmp_path / "a.wav", wav, SR, subtype="FLOAT")
    for read in (files.load, lambda p: list(files.read_blocks(p, 0.1))):
        with pytest.raises(AudioError, match=r"1 NaN or infinite samples, the first at 0\.250 s"):
            read(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="NaN"):
        files.save(tmp_path / "b.wav", torch.from_numpy(wav.T), SR)
    assert os.listdir(tmp_path) == ["a.wav"]


def cut(path, share=0.5):
    """The beginning of a file, as a copy that was broken off leaves it."""
    data = path.read_bytes()
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(data[: int(share * len(data))])
    return short


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64", "AIFF", "W64", "AU", "FLAC", "MP3", "OGG", "OPUS"])
def test_a_file_cut_short_gives_what_is_there_and_one_warning(tmp_path, caplog, format):
    wav = 0.1 * torch.randn(2, 4 * SR, generator=torch.Generator().manual_seed(0))
    path = tmp_path / f"a.{'wav' if format in arrays.WAV_FAMILY else format.lower()}"
    files.save(path, wav, SR, like=files.AudioInfo(SR, 2, 0, format, "PCM_16"))
    whole, _ = files.load(path)
    list(files.read_blocks(path))
    assert not caplog.messages, "a whole file is read without a word"
    back, _ = files.load(cut(path))
    assert 0.2 * whole.shape[1] < back.shape[1] < 0.6 * whole.shape[1]
    n = back.shape[1] - 2_000  # a lossy decoder smears its last frame
    assert torch.allclose(back[:, :n], whole[:, :n], atol=1e-3)
    assert torch.equal(torch.cat(list(files.read_blocks(tmp_path / f"cut{path.suffix}", 0.1)), dim=1), back)
    (message,) = caplog.messages  # not one for each time that it is read
    assert f"cut{path.suffix} is cut short" in message and f"holds {back.shape[1] / SR:.2f} s" in message
    assert format in ("OGG", "OPUS") or "promises 4.00 s" in message


def test_a_part_from_before_the_cut_needs_no_warning(tmp_path, caplog):
    files.save(tmp_path / "a.wav", tone(), SR)
    files.load(cut(tmp_path / "a.wav"), start=0.1, seconds=0.2)
    assert not caplog.messages


def test_damage_in_the_middle_of_a_flac_file_ends_it(tmp_path, caplog):
    files.save(tmp_path / "a.flac", 0.1 * torch.randn(1, 4 * SR, generator=torch.Generator().manual_seed(0)), SR)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    (tmp_path / "a.flac").write_bytes(data)
    assert SR < files.load(tmp_path / "a.flac")[0].shape[1] < 2.5 * SR
    assert "promises 4.00 s" in caplog.text


def flac_with_length(path, frames):
    """Rewrite the 36 bits of the STREAMINFO block that tell the number of samples."""
    data = bytearray(path.read_bytes())
    data[21] = data[21] & 0xF0 | frames >> 32
    data[22:26] = struct.pack(">I", frames & 0xFFFFFFFF)
    path.write_bytes(data)


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path, caplog):
    """So encoders write it that read from a pipe."""
    path = tmp_path / "a.flac"
    files.save(path, tone(channels=2), SR)
    whole, _ = files.load(path)
    flac_with_length(path, 0)
    assert files.info(path).frames == SR and files.info(path).seconds == 1.0
    assert torch.equal(files.load(path)[0], whole)
    assert torch.equal(torch.cat(list(files.read_blocks(path, 0.3)), dim=1), whole)
    assert torch.equal(files.load(path, start=0.5)[0], whole[:, SR // 2 :])
    assert not caplog.messages


def test_a_length_that_no_file_has_costs_no_memory(tmp_path, caplog):
    path = tmp_path / "a.flac"
    files.save(path, tone(), SR)
    flac_with_length(path, 2**36 - 1)
    assert files.load(path)[0].shape == (1, SR)
    assert "holds 1.00 s" in caplog.text


@pytest.mark.parametrize("sr", [1, 3_999, 384_001])
def test_a_rate_that_no_recording_has_is_refused(tmp_path, sr):
    sf.write(tmp_path / "a.wav", np.zeros(800), sr)
    for read in (files.info, files.load, lambda path: list(files.read_blocks(path))):
        with pytest.raises(AudioError, match=f"a.wav has a sample rate of {sr} Hz; rates from 4000 to 384000 Hz"):
            read(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=f"a sample rate of {sr} Hz"):
        files.save(tmp_path / "b.wav", tone(), sr)
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("size", [0, 2**31 - 4096, 2**32 - 1])
def test_the_header_of_a_wav_from_a_pipe_promises_nothing(tmp_path, caplog, size):
    files.save(tmp_path / "a.wav", tone(), SR)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(data)
    if size:
        assert files.load(tmp_path / "a.wav")[0].shape == (1, SR)
    else:
        with pytest.raises(AudioError, match="no samples"):
            files.load(tmp_path / "a.wav")
    assert not caplog.messages


def test_clipped_audio_is_read_as_it_is_and_never_wraps(tmp_path):
    loud = 3 * tone()
    files.save(tmp_path / "a.wav", loud, SR)  # 16 bit: clamped, not wrapped round
    back, _ = files.load(tmp_path / "a.wav")
    assert torch.allclose(back, loud.clamp(-1, 1), atol=1e-4)
    files.save(tmp_path / "f.wav", loud, SR, like=files.AudioInfo(SR, 1, 0, "WAV", "FLOAT"))
    assert torch.equal(files.load(tmp_path / "f.wav")[0], loud)  # float keeps it


# --- what kind of file comes back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_a_wav_file_keeps_its_header(tmp_path, format, subtype):
    sf.write(tmp_path / "a.wav", tone(channels=2).T.numpy(), SR, format=format, subtype=subtype)
    files.save(tmp_path / "b.wav", tone(channels=2), SR, like=files.info(tmp_path / "a.wav"))
    facts = files.info(tmp_path / "b.wav")
    assert (facts.format, facts.subtype) == (format, subtype)
    files.save(tmp_path / "c.flac", tone(), SR, like=facts)  # another suffix asks for another kind of file
    assert files.info(tmp_path / "c.flac").format == "FLAC"


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".opus"])
def test_a_compressed_file_can_become_a_wav_file(tmp_path, suffix):
    files.save(tmp_path / f"a{suffix}", tone(), SR)
    files.save(tmp_path / "b.wav", tone(), SR, like=files.info(tmp_path / f"a{suffix}"))
    assert files.info(tmp_path / "b.wav").subtype == "PCM_16"


@pytest.mark.parametrize(
    "format, subtype", [("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "DOUBLE")]
)
def test_a_wav_file_past_its_limit_goes_on_as_rf64(tmp_path, monkeypatch, format, subtype):
    wav = 0.1 * torch.randn(2, 5 * arrays.PIECE + 17, generator=torch.Generator().manual_seed(0))
    like = files.AudioInfo(SR, 2, 0, format, subtype)
    files.save(tmp_path / "a.wav", wav, SR, like)
    monkeypatch.setattr(arrays, "WAV_LIMIT", 9 * 2 * arrays.PIECE)
    files.save_blocks(tmp_path / "b.wav", wav.split(10_000, dim=1), SR, like)
    facts = files.info(tmp_path / "b.wav")
    assert (facts.format, facts.subtype, facts.frames) == ("RF64", subtype, wav.shape[1])
    assert torch.equal(files.load(tmp_path / "b.wav")[0], files.load(tmp_path / "a.wav")[0])
    with pytest.raises(AudioError, match="limit of AIFF"):
        files.save(tmp_path / "c.aiff", wav, SR)
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "b.wav"]


# --- samples that are integers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, full", [(torch.int16, 2**15), (torch.int32, 2**31)])
def test_integer_samples_are_scaled(tmp_path, dtype, full):
    wav = tone()
    whole = (wav.double() * full).to(dtype)
    assert (files.as_float(whole) - wav).abs().max() <= 1 / full + 1e-6
    assert (files.as_float(whole.numpy()) - wav).abs().max() <= 1 / full + 1e-6
    assert (files.resample(whole, SR, 8_000) - files.resample(wav, SR, 8_000)).abs().max() < 1e-4
    files.save(tmp_path / "a.wav", whole, SR)
    assert (files.load(tmp_path / "a.wav")[0] - wav).abs().max() < 1e-4


def test_samples_of_other_kinds_are_refused():
    assert torch.equal(files.as_float(torch.tensor([0, 128, 192], dtype=torch.uint8)), torch.tensor([-1.0, 0.0, 0.5]))
    for wrong in (torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.cfloat)):
        with pytest.raises(AudioError, match="samples are floats between -1 and 1"):
            files.as_float(wrong)


def test_rates_may_be_floats_if_they_are_whole(tmp_path):
    assert torch.equal(files.resample(tone(), 16_000.0, 8_000.0), files.resample(tone(), 16_000, 8_000))
    files.save(tmp_path / "a.wav", tone(), 16_000.0)
    assert files.info(tmp_path / "a.wav").sr == SR
    for wrong in (0, -1, 16_000.5):
        with pytest.raises(AudioError, match="rate"):
            files.resample(tone(), SR, wrong)
        with pytest.raises(AudioError, match="rate"):
            files.save(tmp_path / "b.wav", tone(), wrong)
    with pytest.raises(AudioError, match=r"not \(1, 1, 16000\)"):
        files.save(tmp_path / "b.wav", tone()[None], SR)


# --- writing whole or not at all ------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_forced(tmp_path):
    path = tmp_path / "a.wav"
    files.save(path, tone(), SR)
    before = path.read_bytes()
    with pytest.raises(AudioError, match="--force"):
        files.save(path, 0 * tone(), SR)
    assert path.read_bytes() == before
    files.save(path, 0 * tone(), SR, force=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_old_file_and_no_half_one(tmp_path, error):
    path = tmp_path / "a.wav"
    files.save(path, tone(), SR)
    before = path.read_bytes()

    def blocks():
        yield tone()
        raise error

    with pytest.raises(error):
        files.save_blocks(path, blocks(), SR, force=True)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.wav"]


def test_a_full_disk_changes_nothing(tmp_path):
    """A limit on the size of files stands in for the full disk."""
    path = tmp_path / "a.wav"
    files.save(path, tone(), SR)
    before = path.read_bytes()
    code = f"""
import resource, torch
from wavelldm.audio import files as audio
from wavelldm.errors import AudioError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    audio.save({str(path)!r}, torch.zeros(1, 1_000_000), 16_000, force=True)
except AudioError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "nothing was changed" in said
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.wav"]


def test_formats_and_rates_that_cannot_be_written(tmp_path):
    with pytest.raises(AudioError, match="use one of"):
        files.save(tmp_path / "a.m4a", tone(), SR)
    with pytest.raises(AudioError, match="Opus knows the rates"):
        files.save(tmp_path / "a.opus", tone(), 44_100)
    with pytest.raises(AudioError, match="no samples"):
        files.save(tmp_path / "a.wav", torch.zeros(1, 0), SR)
    assert os.listdir(tmp_path) == []


def test_a_written_file_has_ordinary_permissions(tmp_path):
    files.save(tmp_path / "a.wav", tone(), SR)
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode
