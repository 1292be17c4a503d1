import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from signals import noisy, speechlike

from wavelldm.audio import files
from wavelldm.denoise import denoiser as with_torch
from wavelldm.denoise.chain import Settings
from wavelldm.errors import AudioError, WavelldmError
from wavelldm.light import denoiser

SR = 16_000


def sound(seconds=2.3, sr=SR, channels=1):
    rows = [noisy(speechlike(seconds, sr, seed=i), 5.0) * 0.3 ** (i + 1) for i in range(channels)]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("sr, channels", [(16_000, 1), (8_000, 1), (44_100, 2), (48_000, 1)])
def test_recordings_come_out_as_with_torch(sr, channels):
    wav = sound(1.6, sr, channels)
    theirs = with_torch.load("studio16k").enhance(torch.from_numpy(wav), sr).numpy()
    mine = denoiser.load("studio16k").enhance(wav, sr)
    assert mine.shape == wav.shape and np.abs(mine - theirs).max() < 2e-5


@pytest.mark.parametrize("strength, background", [(0.5, 0.2), (1.7, 0.0), (0.0, 0.5)])
def test_strength_and_background_do_what_they_do_with_torch(strength, background):
    wav = sound(1.2)
    for name in ("studio16k", "base16k"):
        settings = Settings(strength=strength, background=background)
        session = with_torch.load(name).stream(SR, settings=settings)
        theirs = torch.cat([session.push(torch.from_numpy(wav)), session.finish()], dim=1).numpy()
        session = denoiser.load(name).stream(SR, strength=strength, background=background)
        mine = np.concatenate([session.push(wav), session.finish()], axis=1)
        assert np.abs(mine - theirs).max() < 2e-5, name


def test_a_stream_does_not_depend_on_its_blocks_and_keeps_its_latency():
    wav, late = sound(1.3)[:, :20_011], 0
    whole = denoiser.load("live").stream(SR)
    whole = np.concatenate([whole.push(wav), whole.finish()], axis=1)
    session, parts, given, taken = denoiser.load("live").stream(SR), [], 0, 0
    for block in np.split(wav, np.sort(np.random.default_rng(1).integers(0, 20_011, 60)), axis=1):
        parts.append(session.push(block))
        taken, given = taken + block.shape[1], given + parts[-1].shape[1]
        late = max(late, taken - given)
    parts.append(session.finish())
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert late <= session.latency < late + 256


@pytest.mark.parametrize("n", [1, 100, 255, 256, 257, 700, 4_001])
@pytest.mark.parametrize("name", ["studio16k", "base16k"])
def test_any_length_stays_and_is_as_with_torch(name, n):
    wav = sound(1.0)[:, 3_000 : 3_000 + n]
    theirs = with_torch.load(name).enhance(torch.from_numpy(wav), SR).numpy()
    mine = denoiser.load(name).enhance(wav, SR)
    assert mine.shape == (1, n) and np.abs(mine - theirs).max() < 2e-5


def test_long_recordings_go_through_in_spans(monkeypatch):
    from wavelldm.denoise import chain

    for module in (chain, denoiser):
        monkeypatch.setattr(module, "SPAN", 40)
        monkeypatch.setattr(module, "AFTER", 12)
    wav = sound(3.0)
    theirs = with_torch.load("studio16k").enhance(torch.from_numpy(wav), SR).numpy()
    session = denoiser.load("studio16k").stream(SR, level=denoiser.levels_of([wav], SR))
    parts = [session.push(block) for block in np.array_split(wav, 9, axis=1)]
    mine = np.concatenate([*parts, session.finish()], axis=1)
    assert any(part.shape[1] for part in parts), "spans come out before the end"
    assert np.abs(mine - theirs).max() < 2e-5


def test_files_without_torch(tmp_path):
    """The command, where PyTorch and what belongs to it cannot be imported."""
    wav = sound(1.0, 44_100, 2)
    files.save(tmp_path / "a.wav", torch.from_numpy(wav), 44_100, like=files.AudioInfo(44_100, 2, 0, "WAV", "FLOAT"))
    blocked = "torch scipy safetensors soxr librosa espeakng_loader onnx".split()
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); from wavelldm.cli.main import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "denoise", "--json"]
    done = subprocess.run([*command, "a.wav", "--backend", "onnx"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert json.loads(done.stdout)[0]["model"] == "studio16k"
    theirs = with_torch.load().enhance(torch.from_numpy(wav), 44_100)
    assert (files.load(tmp_path / "a.denoised.wav")[0] - theirs).abs().max() < 2e-5
    data = (tmp_path / "a.wav").read_bytes()
    done = subprocess.run([*command[:-1], "-", "--backend", "onnx"], cwd=tmp_path, capture_output=True, input=data)
    assert done.returncode == 0 and len(done.stdout) == 44 + 2 * 2 * wav.shape[1] and done.stderr == b""


def test_bad_input_gets_a_sentence(tmp_path):
    model = denoiser.load("live")
    with pytest.raises(AudioError, match="NaN"):
        model.enhance(np.array([0.0, np.nan], np.float32), SR)
    with pytest.raises(AudioError, match="samples in it"):
        model.enhance(np.zeros(0, np.float32), SR)
    with pytest.raises(AudioError, match="rates from"):
        model.enhance(np.zeros(10, np.float32), 1_000)
    with pytest.raises(AudioError, match="2 channels"):
        model.stream(SR, 2).push(np.zeros((1, 10), np.float32))
    with pytest.raises(WavelldmError, match="strength lies"):
        model.stream(SR, strength=5.0)
    session = model.stream(SR)
    session.finish()
    with pytest.raises(WavelldmError, match="finished"):
        session.push(np.zeros((1, 10), np.float32))
    with pytest.raises(WavelldmError, match="without PyTorch; choose one of base16k, studio16k"):
        denoiser.load("segan")
    with pytest.raises(WavelldmError, match="does not exist"):
        denoiser.load("nothing.onnx")
    (tmp_path / "cut.onnx").write_bytes((denoiser.SHIPPED / "base16k.onnx").read_bytes()[:-10_000])
    with pytest.raises(WavelldmError, match="cannot be run by onnxruntime"):
        denoiser.load(str(tmp_path / "cut.onnx"))


def test_silence_stays_silence():
    for name in ("best", "live"):
        assert np.abs(denoiser.load(name).enhance(np.zeros(5_000, np.float32), SR)).max() < 1e-6
