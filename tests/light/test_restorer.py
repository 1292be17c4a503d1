"""Restoration without PyTorch: the same sound as with it, from files, streams and arrays."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from signals import speechlike

from wavelldm.denoise import denoiser as torch_side
from wavelldm.denoise.chain import Settings
from wavelldm.errors import WavelldmError
from wavelldm.light import denoiser, files, gaps, pitch, restorer
from wavelldm.light.find import Damage
from wavelldm.light.restorer import Repair
from wavelldm.restore import filler as torch_filler
from wavelldm.restore import gaps as torch_gaps
from wavelldm.restore.latent import heard_pitch
from wavelldm.restore.restorer import networks

SR = 16_000
GAPS = ((20_000, 22_400), (36_000, 38_000))


def damaged(sr: int = SR, seconds: float = 4.0) -> np.ndarray:
    wav = speechlike(seconds, sr, 0).astype(np.float32)[None]
    for a, b in GAPS:
        wav[:, a * sr // SR : b * sr // SR] = 0
    return wav


def decibels(mine: np.ndarray, theirs: np.ndarray, of: np.ndarray) -> float:
    return 10 * np.log10(np.square(mine - theirs).sum() / np.square(of).sum() + 1e-30)


def test_spectra_shares_lines_and_pitch_are_those_of_tensors():
    wav = damaged()[0]
    lost = restorer.inside(GAPS, 0, len(wav))
    rows, mask = torch.from_numpy(wav)[None], torch.from_numpy(lost)[None]
    assert np.abs(gaps.known_share(lost) - torch_gaps.known_share(mask)[0].numpy()).max() < 1e-5
    theirs = torch_gaps.straight(rows, mask)[0].T.numpy()
    assert np.abs(gaps.straight(wav, lost) - theirs).max() < 1e-4 * theirs.max()
    heard, other = pitch.heard(wav), heard_pitch(rows)[0].numpy()
    assert ((heard[0] < 0) == (other[0] < 0)).mean() > 0.99 and np.median(np.abs(heard - other)) < 1e-4
    line, share = restorer.on_lines(other, gaps.known_share(lost)), torch_gaps.known_share(mask)
    assert np.abs(line - torch_filler.on_lines(torch.from_numpy(other)[None], share)[0].numpy()).max() < 1e-4


def test_the_predictor_leaves_the_least():
    rng = np.random.default_rng(0)
    sound = np.convolve(rng.standard_normal(4_000), [1.0, -0.6, 0.3, 0.2])
    lags = np.array([sound[k:] @ sound[: len(sound) - k] for k in range(21)])
    table = lags[np.abs(np.arange(20)[:, None] - np.arange(20))]
    assert np.allclose(gaps.predictor(lags)[1:], -np.linalg.solve(table, lags[1:]), atol=1e-8)


@pytest.mark.parametrize("with_network", [False, True])
def test_gaps_are_filled_as_with_torch(with_network):
    wav = damaged()[0]
    lost = restorer.inside(GAPS, 0, len(wav))
    mine = restorer.fill(wav, lost, restorer.shipped() if with_network else None)
    latent, net = networks(torch.device("cpu"))
    rows, mask = torch.from_numpy(wav)[None], torch.from_numpy(lost)[None]
    noise = torch_filler.FrameNoise(shared=True)
    theirs = torch_filler.fill(latent, net, rows, mask, int(with_network), noise=noise)[0].numpy()
    assert np.array_equal(mine[~lost], wav[~lost]) and np.abs(mine[lost]).max() > 0
    assert decibels(mine[lost], theirs[lost], theirs[lost]) < -50


@pytest.mark.parametrize("sr", [SR, 44_100])
def test_what_is_found_is_restored_as_with_torch(sr):
    wav = damaged(sr)
    ceiling = 0.6 * np.abs(wav).max()
    wav = wav.clip(-ceiling, ceiling)
    mine = denoiser.untouched().enhance(wav, sr, repair=Repair())
    theirs = torch_side.Untouched().enhance(torch.from_numpy(wav), sr, Settings(restore=True)).numpy()
    assert np.abs(mine).max() > 1.01 * ceiling, "peaks come back"
    for a, b in GAPS:
        assert np.abs(mine[:, a * sr // SR + 100 : b * sr // SR - 100]).max() > 0, "gaps are filled"
    assert decibels(mine, theirs, theirs - wav) < -40


@pytest.mark.parametrize("name", ["base16k", "studio16k"])
def test_cleaned_and_restored_as_with_torch(name):
    wav = damaged() + 0.003 * np.random.default_rng(0).standard_normal((1, 4 * SR)).astype(np.float32)
    repair, named = Repair(), [Damage(GAPS)]
    mine = denoiser.load(name).enhance(wav, SR, repair=repair, damages=named)
    settings = Settings(restore=True)
    theirs = torch_side.load(name).enhance(torch.from_numpy(wav), SR, settings, damages=named).numpy()
    assert mine.shape == wav.shape and decibels(mine, theirs, theirs) < -50


def test_a_stream_finds_gaps_as_they_come_and_keeps_its_latency():
    wav = np.tile(damaged(), 4)
    session, given, late = denoiser.load("base16k").stream(SR, repair=Repair()), [], 0
    for i in range(0, wav.shape[1], 4_000):
        given.append(session.push(wav[:, i : i + 4_000]))
        late = max(late, i + 4_000 - sum(part.shape[1] for part in given))
    given.append(session.finish())
    out = np.concatenate(given, axis=1)
    assert out.shape == wav.shape and 11 * SR < late <= session.latency < 13 * SR
    other = torch_side.load("base16k").stream(SR, 1, Settings(restore=True))
    theirs = torch.cat([other.push(torch.from_numpy(wav)), other.finish()], dim=1).numpy()
    assert decibels(out, theirs, theirs) < -40


def test_the_command_restores_without_torch(tmp_path):
    files.save_blocks(tmp_path / "a.wav", [damaged()], SR)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['scipy'] = None\n"
        "from wavelldm.cli.main import main\n"
        "main(['restore', 'a.wav', '--gaps', '1.25-1.4,2.25-2.375', '--backend', 'onnx'])\n"
        "sys.exit(main(['denoise', 'a.wav', '--restore', '--backend', 'onnx']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, (after, _) = damaged(), files.load(tmp_path / "a.restored.wav")
    a, b = GAPS[0]
    assert np.abs(after[:, a:b]).max() > 0.01 and np.abs((after - before)[:, :a]).max() < 1e-4
    assert (tmp_path / "a.denoised.wav").is_file()


def test_what_needs_torch_says_so(tmp_path):
    with pytest.raises(WavelldmError, match="3 steps need PyTorch"):
        Repair(steps=3)
    with pytest.raises(WavelldmError, match="no kind of damage called 'hum'"):
        Repair(kinds=("hum",))
    with pytest.raises(WavelldmError, match="export restore16k-filler"):
        restorer.Filler(denoiser.SHIPPED / "base16k.onnx")
    with pytest.raises(WavelldmError, match="longer than the 1 s"):
        denoiser.untouched().enhance(damaged(), SR, repair=Repair(), damages=[Damage(((0, 2 * SR),))])
