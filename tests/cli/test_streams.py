import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
import torch

from wavelldm.audio import files
from wavelldm.cli import streams
from wavelldm.denoise import denoiser
from wavelldm.denoise.chain import Settings
from wavelldm.errors import AudioError

SR = 16_000


def sound(n, channels=2, seed=0):
    return 0.1 * torch.randn(channels, n, generator=torch.Generator().manual_seed(seed))


def wave(wav, sr, subtype, kind="WAV"):
    file = io.BytesIO()
    sf.write(file, wav.T.numpy(), sr, subtype=subtype, format=kind)
    return file.getvalue()


class Dripping(io.BytesIO):
    """A pipe that brings a few bytes at a time."""

    def read1(self, size=-1):
        return super().read1(min(size, 7))


@pytest.mark.parametrize("pipe", [io.BytesIO, Dripping])
@pytest.mark.parametrize(
    "subtype, error",
    [("PCM_U8", 1e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 1e-7), ("DOUBLE", 1e-7)],
)
def test_wav_streams_of_all_kinds_are_read(pipe, subtype, error):
    wav = sound(5_001)
    for kind in ("WAV", "WAVEX"):
        stream = pipe(wave(wav, 44_100, subtype, kind))
        form = streams.read_format(stream)
        back = torch.from_numpy(np.concatenate(list(streams.read_blocks(stream, form)), axis=1))
        assert (form.sr, form.channels) == (44_100, 2) and back.shape == wav.shape and (back - wav).abs().max() < error


def test_what_follows_the_samples_is_not_sound():
    """A file with notes after its samples, through `cat`: the notes are no click at the end."""
    data = wave(sound(1_000, 1), SR, "PCM_16") + b"LIST" + (64).to_bytes(4, "little") + b"\x7f" * 64
    stream = io.BytesIO(data)
    blocks = list(streams.read_blocks(stream, streams.read_format(stream)))
    assert sum(block.shape[1] for block in blocks) == 1_000


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_stream_of_unknown_length_is_read_to_its_end(size):
    data = bytearray(wave(sound(1_000, 1), SR, "PCM_16"))
    data[40:44] = size.to_bytes(4, "little")
    stream = io.BytesIO(bytes(data))
    blocks = list(streams.read_blocks(stream, streams.read_format(stream)))
    assert sum(block.shape[1] for block in blocks) == 1_000


def begin(model):
    return lambda sr, channels: streams.Arrays(model.stream(sr, channels, Settings()))


@pytest.mark.parametrize("model", ["base16k", "logmmse"])
def test_through_a_pipe_as_through_a_file(model, tmp_path):
    wav, model = sound(20_000, 1), denoiser.load(model)
    sink = io.BytesIO()
    streams.denoise(begin(model), io.BytesIO(wave(wav, SR, "FLOAT")), sink)
    files.save(tmp_path / "a.wav", wav, SR, like=files.AudioInfo(SR, 1, 0, "WAV", "FLOAT"))
    model.enhance_file(tmp_path / "a.wav", tmp_path / "b.wav", progress=False, live=True)
    out = np.frombuffer(sink.getvalue()[44:], "<i2") / 32767
    assert np.abs(out - files.load(tmp_path / "b.wav")[0][0].numpy()).max() < 1e-4
    sf.read(io.BytesIO(sink.getvalue()))  # programs that expect a length get along
    seconds = streams.denoise_to_file(begin(model), Dripping(wave(wav, SR, "FLOAT")), tmp_path / "c.wav")
    assert seconds == 1.25 and files.info(tmp_path / "c.wav").frames == 20_000
    again = files.load(tmp_path / "c.wav")[0][0].numpy()
    assert np.abs(out - again).max() < 1e-4  # however the sound drips in


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "nothing arrived"),
        (b"ID3 something else", "not a WAV stream"),
        (wave(sound(10), SR, "PCM_16")[:30], "not known|before its samples"),
        (wave(sound(10), SR, "ULAW"), "not known here"),
        (wave(sound(10), 1, "PCM_16"), "sample rate of 1 Hz"),
        (wave(torch.tensor([[0.0, float("nan")]]), SR, "FLOAT"), "NaN"),
    ],
    ids=["empty", "mp3", "short", "ulaw", "slow", "nan"],
)
def test_bad_streams_are_named(data, message):
    with pytest.raises(AudioError, match=message):
        streams.denoise(begin(denoiser.load("logmmse")), io.BytesIO(data), io.BytesIO())


def denoise(*more, **kwargs):
    command = [sys.executable, "-m", "wavelldm", "denoise", "-", "--model", "logmmse", *map(str, more)]
    return subprocess.run(command, stderr=subprocess.PIPE, **{"stdout": subprocess.PIPE, **kwargs})


def test_the_command_in_a_pipe(tmp_path):
    data = wave(sound(8_000, 1), SR, "PCM_16")
    done = denoise(input=data)
    assert done.returncode == 0 and len(done.stdout) == 44 + 16_000 and done.stderr == b""
    done = denoise("-o", tmp_path / "x.flac", "--json", input=data)
    assert b'"seconds": 0.5' in done.stdout and files.info(tmp_path / "x.flac").frames == 8_000
    assert denoise("--strength", "2", input=data).returncode == 1


def test_a_damaged_stream_leaves_no_file(tmp_path):
    data = wave(torch.tensor([[0.0] * 9_000 + [float("inf")]]), SR, "FLOAT")
    done = denoise("-o", tmp_path / "x.wav", input=data)
    assert done.returncode == 1 and b"NaN or infinite" in done.stderr and os.listdir(tmp_path) == []


def test_nobody_listens_any_more():
    data = wave(sound(SR * 60, 1), SR, "PCM_16")
    reader, writer = os.pipe()
    os.close(reader)
    done = denoise(input=data, stdout=writer)
    os.close(writer)
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_a_terminal_is_neither_listened_to_nor_played_to():
    controller, terminal = os.openpty()
    done = denoise(stdin=terminal)
    assert done.returncode == 1 and b"standard input is a terminal" in done.stderr
    done = denoise(input=wave(sound(100, 1), SR, "PCM_16"), stdout=terminal)
    assert done.returncode == 1 and b"standard output is a terminal" in done.stderr
    os.close(controller)
    os.close(terminal)


def test_sound_comes_out_while_the_pipe_is_still_open():
    """After one second has gone in, all of it but the 64 ms of latency is out, and nobody has to close anything."""
    data = wave(sound(SR, 1), SR, "PCM_16")
    command = [sys.executable, "-m", "wavelldm", "denoise", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(data)
        process.stdin.flush()
        wanted = 44 + 2 * (SR - SR * 64 // 1000)
        assert len(process.stdout.read(wanted)) == wanted
        process.stdin.close()
        assert len(process.stdout.read()) == 44 + 2 * SR - wanted
    assert process.returncode == 0
