import pytest
import torch

from wavelldm.audio import files
from wavelldm.denoise import denoiser
from wavelldm.denoise.logmmse import LogMMSE
from wavelldm.errors import AudioError, WavelldmError

SR = 16_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def voiced(seconds=3.0, sr=SR):
    """Half a second of a harmonic sound, half a second of nothing, and so on: loud enough in places, like speech."""
    t = torch.arange(int(seconds * sr)) / sr
    wave = sum(torch.sin(2 * torch.pi * 150 * k * t) / k for k in range(1, 12))
    return (0.1 * wave * ((t * 2).long() % 2)).unsqueeze(0)


def db(x):
    return 10 * torch.log10(x.square().mean()).item()


def test_noise_goes_and_the_voice_stays():
    clean = voiced()
    noisy = clean + 0.02 * torch.randn(clean.shape, generator=generator())
    out = denoiser.load("logmmse").enhance(noisy, SR)
    assert db(out - clean) < db(noisy - clean) - 4  # 4 dB less error
    late, gap = slice(SR, None), clean[0, SR:] == 0
    assert db(out[0, late][gap]) < db(noisy[0, late][gap]) - 8  # the pauses are quieter
    assert abs(db(out[0, late][~gap]) - db(clean[0, late][~gap])) < 1  # loudness kept


@pytest.mark.parametrize("size", [1, 37, 128, 1000, 16_000])
def test_blocks_of_any_size_give_the_same_result(size):
    wav = 0.1 * torch.randn(2, 5_003, generator=generator())
    whole = denoiser.load("logmmse").enhance(wav, SR)
    stream = LogMMSE(SR)
    parts = [stream.push(wav[:, i : i + size]) for i in range(0, wav.shape[1], size)]
    joined = torch.cat([*parts, stream.finish()], dim=1)
    assert joined.shape == wav.shape
    assert (joined - whole).abs().max() < 1e-5, (
        f"first difference at {(joined - whole).abs().amax(0).gt(1e-5).nonzero()[:1]}"
    )


@pytest.mark.parametrize("n", [1, 2, 100, 511, 512, 513, 7_777])
@pytest.mark.parametrize("sr", [8_000, 16_000, 44_100, 48_000])
def test_as_long_as_the_input_at_any_rate(n, sr):
    wav = 0.1 * torch.randn(n, generator=generator())
    out = denoiser.load().enhance(wav, sr)
    assert out.shape == wav.shape and torch.isfinite(out).all()


def test_without_noise_nothing_is_delayed():
    clean = voiced(1.0)
    out = denoiser.load("logmmse").enhance(clean, SR)
    spectrum = torch.fft.rfft(clean[0], 2 * SR).conj() * torch.fft.rfft(out[0], 2 * SR)
    assert torch.fft.irfft(spectrum).argmax() == 0


def test_silence_stays_silence_and_nothing_is_nan():
    assert torch.equal(denoiser.load().enhance(torch.zeros(1, SR), SR), torch.zeros(1, SR))
    burst = torch.zeros(1, SR)
    burst[0, 8_000] = 1.0
    assert torch.isfinite(denoiser.load().enhance(burst, SR)).all()


def test_channels_are_cleaned_apart():
    a, b = 0.1 * torch.randn(2, 1, 8_000, generator=generator())
    both = denoiser.load().enhance(torch.cat([a, b]), SR)
    assert torch.allclose(both[:1], denoiser.load().enhance(a, SR), atol=1e-6)


def test_bad_tensors_and_names_are_refused():
    with pytest.raises(AudioError, match="NaN"):
        denoiser.load().enhance(torch.tensor([0.0, float("nan")]), SR)
    with pytest.raises(AudioError, match="samples in it"):
        denoiser.load().enhance(torch.zeros(1, 0), SR)
    with pytest.raises(WavelldmError, match="logmmse"):
        denoiser.load("magic")


def test_a_file_keeps_its_rate_channels_length_and_format(tmp_path):
    wav = 0.1 * torch.randn(2, 50_001, generator=generator())
    files.save(tmp_path / "a.flac", wav, 44_100, like=files.AudioInfo(44_100, 2, 0, "FLAC", "PCM_24"))
    denoiser.load().enhance_file(tmp_path / "a.flac", tmp_path / "b.flac", progress=False)
    assert files.info(tmp_path / "b.flac") == files.info(tmp_path / "a.flac")
    whole = denoiser.load().enhance(files.load(tmp_path / "a.flac")[0], 44_100)
    assert torch.allclose(files.load(tmp_path / "b.flac")[0], whole, atol=1e-5)


def test_where_the_output_goes(tmp_path):
    for name in ("x/a.wav", "x/deep/b.flac", "x/c.txt", "x/old.denoised.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    a, b, x, out = tmp_path / "x/a.wav", tmp_path / "x/deep/b.flac", tmp_path / "x", tmp_path / "out"
    assert denoiser.jobs([a]) == [(a, tmp_path / "x/a.denoised.wav")]
    assert denoiser.jobs([a], tmp_path / "y.mp3") == [(a, tmp_path / "y.mp3")]
    assert denoiser.jobs([x], out) == [(a, out / "a.wav"), (b, out / "deep/b.flac")]
    with pytest.raises(WavelldmError, match="overwrite itself"):
        denoiser.jobs([a], a)
    with pytest.raises(WavelldmError, match="both become"):
        denoiser.jobs([a, x], out)
