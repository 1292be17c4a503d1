"""`wavelldm refine`: any program's output, late, too loud or wrong, and the errors that say so."""

import contextlib
import json

import numpy as np
import pytest
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.audio import files as audio
from wavelldm.cli import main
from wavelldm.denoise import denoiser
from wavelldm.errors import AudioError
from wavelldm.refine import files as refiner
from wavelldm.refine import prior as p
from wavelldm.refine.prior import SpeechPrior
from wavelldm.training.presets import preset

SR = 16_000


def clean_and_noisy(seconds=2.0, channels=1, sr=SR):
    clean = torch.from_numpy(np.stack([speechlike(seconds, sr, k) for k in range(channels)])).float() * 0.3
    return clean, clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    model = p.SpeechPrior(preset("tiny").prior)
    for weight in model.unet.parameters():
        torch.nn.init.normal_(weight, std=0.05) if weight.ndim > 1 else None
    return weights.save(tmp_path_factory.mktemp("prior") / "mine", model)


def run(capsys, *argv):
    code = main.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


# --- delay and level
# ----------------------------------------------------------------------------------------------------


def test_what_fits_is_left_alone():
    clean, noisy = clean_and_noisy(channels=2)
    matched, notes = refiner.match(noisy, clean, SR)
    assert torch.equal(matched, clean) and notes == []


@pytest.mark.parametrize("late", [480, -37])
def test_a_delay_is_found_and_taken_out(late):
    clean, noisy = clean_and_noisy(channels=2)
    matched, (note,) = refiner.match(noisy, torch.roll(clean, late, dims=1), SR)
    inside = slice(500, -500)
    assert f"{abs(late)} samples too {'late' if late > 0 else 'early'}" in note
    assert matched.shape == clean.shape and torch.allclose(matched[:, inside], clean[:, inside], atol=1e-5)


def test_half_a_sample_is_found_too():
    clean, noisy = clean_and_noisy()
    spec = torch.fft.rfft(clean)
    late = torch.fft.irfft(
        spec * torch.exp(-2j * torch.pi * torch.arange(spec.shape[-1]) / clean.shape[-1] * 20.5), clean.shape[-1]
    )
    matched, (note,) = refiner.match(noisy, late, SR)
    assert "20.5 samples too late" in note
    assert (matched - clean)[:, 500:-500].square().mean() < 1e-3 * clean.square().mean()


@pytest.mark.parametrize("gain, words", [(0.5, "6.0 dB too quiet"), (4.0, "12.0 dB too loud")])
def test_a_wrong_level_is_found_and_put_right(gain, words):
    clean, noisy = clean_and_noisy()
    matched, (note,) = refiner.match(noisy, gain * clean, SR)
    assert words in note and float(matched.norm() / clean.norm()) == pytest.approx(1, abs=0.02)


def test_what_does_not_follow_the_waveform_is_left_alone_and_named():
    clean, noisy = clean_and_noisy()
    other = torch.from_numpy(speechlike(2.0, SR, 7)).float()[None]
    matched, (note,) = refiner.match(
        noisy, other * torch.randn(other.shape, generator=torch.Generator().manual_seed(1)), SR
    )
    assert "does not follow the noisy one" in note


def test_a_few_samples_more_or_less_are_named_and_more_are_refused():
    clean, noisy = clean_and_noisy()
    for n, words in ((-160, "160 samples too short"), (100, "100 samples too long")):
        matched, (note,) = refiner.match(noisy, audio.fit(clean, clean.shape[1] + n), SR)
        assert words in note and matched.shape == noisy.shape
    with pytest.raises(AudioError, match="lasts 2.00 s and the enhanced one 1.50 s"):
        refiner.match(noisy, clean[:, :24_000], SR)
    with pytest.raises(AudioError, match="1 channels and the enhanced one 2"):
        refiner.match(noisy, clean.repeat(2, 1), SR)
    for pair in ((noisy, 0 * clean), (0 * noisy, clean)):
        with pytest.raises(AudioError, match="silent"):
            refiner.match(*pair, SR)


def test_delay_and_level_are_taken_from_where_it_is_loudest():
    wav = torch.zeros(100_000)
    wav[60_000:70_000] = 1.0
    part = refiner.loudest(wav, 20_000)
    assert part.start <= 60_000 and part.stop >= 70_000 and part.stop - part.start == 20_000
    assert refiner.loudest(wav, 10**6) == slice(0, 10**6)


# --- other rates
# --------------------------------------------------------------------------------------------------------


def test_above_the_priors_band_the_first_denoiser_is_believed(path):
    sr, model = 44_100, weights.load(path, SpeechPrior)
    clean, noisy = clean_and_noisy(1.0, 2, sr)
    whistle = 0.05 * torch.sin(2 * torch.pi * 12_000 / sr * torch.arange(sr))
    refined = refiner.refine(model, noisy, clean + whistle, sr, refiner.Choices(steps=3))
    assert refined.shape == noisy.shape and (refined - clean - whistle).abs().max() > 1e-3
    spectrum = torch.fft.rfft(refined - clean - whistle).abs()  # bins of 1 Hz
    assert spectrum[:, 9_000:].max() < 0.02 * spectrum.max()


@pytest.mark.parametrize("frames", [3, 255, 256, 257, 480, 481])
def test_the_progress_bar_ends_full(path, monkeypatch, frames):
    bars = []

    class Bar(contextlib.nullcontext):
        def __init__(self, total, **settings):
            super().__init__(self)
            bars.append([total, 0])

        def update(self, n=1):
            bars[-1][1] += n

    (
        monkeypatch.setattr(refiner, "progress_bar", Bar),
        monkeypatch.setattr(refiner, "PIECE", 256),
        monkeypatch.setattr(p, "PIECE", 256),
    )
    prior = weights.load(path, SpeechPrior)
    noisy = 0.1 * torch.randn(2, frames * prior.config.hop - 5)
    refiner.refine(prior, noisy, 0.5 * noisy, prior.config.sr, refiner.Choices(steps=2))
    assert bars == [[bars[0][1]] * 2] and bars[0][1] >= 4


def test_with_nothing_taken_away_the_noisy_file_comes_back_at_any_rate(path):
    _, noisy = clean_and_noisy(1.0, 1, 44_100)
    out = refiner.refine(weights.load(path, SpeechPrior), noisy, noisy, 44_100, refiner.Choices(steps=3, eta_b=1.0))
    assert torch.allclose(out, noisy, atol=1e-5)


# --- the command
# --------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    clean, noisy = clean_and_noisy(1.0, 2)
    audio.save(tmp_path / "noisy.flac", noisy, SR)
    audio.save(tmp_path / "enhanced.wav", 0.5 * torch.roll(clean, 100, dims=1), SR)
    return tmp_path / "noisy.flac", tmp_path / "enhanced.wav"


def test_refine_writes_the_same_kind_of_file_and_never_overwrites(capsys, files, path):
    noisy, enhanced = files
    code, out, _ = run(capsys, "refine", noisy, enhanced, "--prior", path, "--steps", 3)
    assert code == 0 and "noisy.refined.flac" in out and "100 samples too late" in out and "6.0 dB too quiet" in out
    target = noisy.with_suffix(".refined.flac")
    assert audio.info(target) == audio.info(noisy)
    before = target.read_bytes()
    code, _, err = run(capsys, "refine", noisy, enhanced, "--prior", path, "--steps", 3)
    assert code == 1 and "--force" in err and target.read_bytes() == before
    assert (
        run(capsys, "refine", noisy, enhanced, "--prior", path, "--steps", 3, "--force")[0] == 0
        and target.read_bytes() == before
    )


def test_a_flac_of_unknown_length_is_refined(capsys, files, path):
    """So encoders write it that read from a pipe: the header's 36 bits of samples are 0."""
    noisy, enhanced = files
    data = bytearray(noisy.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    noisy.write_bytes(data)
    code, out, err = run(capsys, "refine", noisy, enhanced, "--prior", path, "--steps", 2, "--json")
    assert code == 0, err
    assert json.loads(out)["seconds"] == 1.0 and audio.info(noisy.with_suffix(".refined.flac")).frames == SR


def test_every_option_reaches_the_refiner(capsys, files, path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        p.SpeechPrior, "refine_wav", lambda self, noisy, cleaned, *rest: seen.append(rest[:5]) or cleaned
    )
    given = (
        [],
        ["--plus"],
        ["--eta_a", "none", "--eta_b", "1"],
        ["--plus", "--eta_c", "0.5", "--steps", "7", "--seed", "3"],
        ["--eta_a", "0", "--eta_b", "0"],
    )
    for k, options in enumerate(given):
        assert run(capsys, "refine", *files, "--prior", path, "-o", files[0].with_name(f"{k}.wav"), *options)[0] == 0
    assert seen == [
        (30, 0.9, 0.9, None, 0),
        (30, 0.4, 0.6, 0.0, 0),
        (30, None, 1.0, None, 0),
        (7, 0.4, 0.6, 0.5, 3),
        (30, 0.0, 0.0, None, 0),
    ]


def test_one_of_our_denoisers_can_come_first(capsys, files, path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        p.SpeechPrior, "refine_wav", lambda self, noisy, cleaned, *rest: seen.append((noisy, cleaned)) or cleaned
    )
    code, out, _ = run(
        capsys, "refine", files[0], "--first", "logmmse", "--prior", path, "-o", files[0].with_name("out.wav"), "--json"
    )
    assert code == 0 and json.loads(out)["enhanced"] == "logmmse"
    ((noisy, cleaned),) = seen
    assert torch.allclose(cleaned, denoiser.load("logmmse").enhance(noisy, SR))


def test_mistakes_get_one_sentence(capsys, files, path):
    noisy, enhanced = files
    audio.save(noisy.with_name("slow.wav"), torch.zeros(2, 8_000) + 0.1, 8_000)
    target = noisy.with_name("out.wav")
    for argv, words in (
        ([noisy], "--first"),
        ([noisy, enhanced, "--first", "logmmse"], "one of the two"),
        ([noisy, noisy.with_name("slow.wav")], "16000 Hz and"),
        ([noisy, noisy.with_name("none.wav")], "does not exist"),
        ([noisy, "--first", "magic"], "no denoiser 'magic'"),
        ([noisy, enhanced, "--plus", "--eta_a", "none"], "no eta_c"),
    ):
        code, _, err = run(capsys, "refine", *argv, "--prior", path, "-o", target)
        assert code == 1 and words in err and "Traceback" not in err and not target.exists(), argv
    code, _, err = run(capsys, "refine", noisy, enhanced, "--prior", "base16k-mask", "-o", target)
    assert code == 1 and "of a MaskNet, not of a SpeechPrior" in err


def test_the_prior_that_ships_knows_speech_from_noise():
    """Of a half-noisy spectrum it brings speech back better than noise of the same colour."""
    prior = weights.load("prior16k", SpeechPrior)
    wav, _ = clean_and_noisy()
    x0 = prior.spectrum(0.05 * wav / wav.square().mean().sqrt())  # (1, 2, bins, T)
    colour = x0.square().mean((1, 3), keepdim=True).sqrt()
    other = colour * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    t, eps = torch.tensor([400]), torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        off = [(prior.denoise(prior.noised(x, t, eps), t) - x).square().mean() / x.square().mean() for x in (x0, other)]
    assert off[0] < 0.7 * off[1]


def test_a_prior_is_trained_from_the_command_line(capsys, tmp_path):
    argv = [
        "train",
        "prior",
        "--preset",
        "tiny",
        "--steps",
        2,
        "--batch_size",
        2,
        "--seconds",
        0.3,
        "--output",
        tmp_path / "run",
        "--no-half",
    ]
    code, out, err = run(capsys, *argv)
    assert code == 0 and "step 2 of 2" in out, err
    assert weights.load(tmp_path / "run" / "tiny-prior.safetensors", SpeechPrior).config == preset("tiny").prior
