import numpy as np
import pytest
import torch
from signals import noisy, speechlike

from wavelldm.audio import files
from wavelldm.errors import AudioError, WavelldmError
from wavelldm.light import denoiser, live

SR = 16_000


@pytest.fixture(scope="module")
def model():
    return denoiser.load("live")


def sound(seconds=2.0, sr=SR):
    return noisy(speechlike(seconds, sr), 5.0)[None].astype(np.float32)


def run(stream, wav, size=256):
    return np.concatenate([stream.process(b) for b in np.split(wav, range(size, wav.shape[1], size), axis=1)], axis=1)


@pytest.mark.parametrize("sr", [16_000, 48_000])
def test_what_is_heard_is_the_cleaned_sound_a_fixed_delay_late(model, sr):
    wav = sound(1.5, sr)
    stream = live.Live(model, sr)
    out = run(stream, wav, sr // 100)
    session = model.stream(sr)
    whole = np.concatenate([session.push(wav), session.finish()], axis=1)
    start = stream.delay + round((live.FADE + 0.02) * sr)  # once the first fade is over
    assert np.abs(out[:, 2 * start :] - whole[:, 2 * start - stream.delay : -stream.delay]).max() < 1e-5


def test_bypass_is_the_sound_itself_equally_late_and_fades(model):
    wav = sound()
    stream = live.Live(model, SR, bypass=True)
    out = run(stream, wav)
    assert np.array_equal(out[:, stream.delay :], wav[:, : -stream.delay])
    stream = live.Live(model, SR)
    run(stream, wav)
    stream.bypass = True
    tone = 0.1 * np.sin(np.arange(4_096) * 0.05, dtype=np.float32)[None]
    steps = np.abs(np.diff(run(stream, tone, 128), axis=1)).max()
    assert steps < 0.2, "no click where one fades into the other"
    assert stream.share == 0.0


def test_a_computer_that_is_too_slow_hears_the_sound_as_it_is_and_tries_again(model):
    now, slow = [0.0], [1.5]

    def clock():
        now[0] += slow[0] * 256 / SR  # between two readings
        return now[0]

    stream, wav = live.Live(model, SR, clock=clock), sound(0.5)
    run(stream, wav)
    assert stream.overloads == 1 and stream.resting > 0 and "too slow" in stream.status()
    out = run(stream, wav)
    late = np.concatenate([wav, wav], axis=1)[:, wav.shape[1] - stream.delay : -stream.delay]
    assert np.array_equal(out, late), "bypass, without a gap"
    slow[0] = 0.3
    for _ in range(6):
        run(stream, wav)
    assert stream.overloads == 1 and not stream.resting and stream.share == 1.0
    assert "cleaning" in stream.status() and stream.load < 1


def test_a_file_takes_as_long_as_a_microphone_would(model, tmp_path):
    import time

    files.save(tmp_path / "a.wav", torch.from_numpy(sound(0.5)), SR)
    began = time.perf_counter()
    found = live.from_file(model, tmp_path / "a.wav", tmp_path / "b.wav")
    assert time.perf_counter() - began > 0.48
    assert files.info(tmp_path / "b.wav").frames == 8_000 and 0 < found.load
    with pytest.raises(AudioError, match="--force"):
        live.from_file(model, tmp_path / "a.wav", tmp_path / "b.wav", pace=False)


def test_the_command(model, tmp_path, monkeypatch, capsys):
    from wavelldm.cli.main import main

    files.save(tmp_path / "a.wav", torch.from_numpy(sound(0.3)), SR)
    code = main(["live", "--input", str(tmp_path / "a.wav"), "--output", str(tmp_path / "b.wav")])
    assert code == 0 and "ms late" in capsys.readouterr().out
    for words, message in (
        (["--input", "a.wav"], "belong together"),
        (["--input", "a", "--output", "b", "--microphone", "1"], "not both"),
        (["--force"], "there is none"),
        (["--model", "studio16k"], "choose base16k"),
        ([], "needs a terminal"),
    ):
        assert main(["live", *words]) == 1 and message in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "sounddevice", None)
    assert main(["live", "--devices"]) == 1 and "wavelldm[live]" in capsys.readouterr().err


def test_a_machine_without_a_sound_card_says_so(model, monkeypatch):
    class Card:
        class PortAudioError(Exception):
            pass

        def query_devices(self, device, kind):
            raise self.PortAudioError("Error querying device -1")

    monkeypatch.setattr(live, "sound_card", Card)
    with pytest.raises(WavelldmError, match="no sound device that can be used.*--input"):
        live.from_microphone(model)
