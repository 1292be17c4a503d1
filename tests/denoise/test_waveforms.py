"""SEGAN and the waveform denoiser from the command line: a folder of clean sound in, weights that `wavelldm denoise`
takes."""

import json

import pytest
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.audio.levels import active_level
from wavelldm.cli import main
from wavelldm.data import corpora, voices
from wavelldm.denoise import denoiser
from wavelldm.denoise.segan import Segan
from wavelldm.denoise.waveform import WaveDenoiser
from wavelldm.errors import DataError, WavelldmError
from wavelldm.training.mixtures import mixtures
from wavelldm.training.presets import preset

SR = 16_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Clean speech alone, and the embedded corpus, small, for the noise that is added to it."""
    root = tmp_path_factory.mktemp("waveforms")
    for i in range(4):
        files.save(root / "clean" / f"s{i}.wav", torch.from_numpy(speechlike(2.0, seed=i))[None].float(), SR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAVELLDM_DATA", str(root / "data"))
        gather = voices.build_corpus
        patch.setattr(voices, "build_corpus", lambda folder=None, minutes=0.5: gather(folder, minutes=0.5))
        yield root


def built(kind, seed=0):
    torch.manual_seed(seed)
    net = Segan(preset("tiny").segan) if kind == "segan" else WaveDenoiser(preset("tiny").waveform)
    if kind == "waveform":
        torch.nn.init.normal_(net.up[-1].weight, std=0.05)
    return net.eval()


@pytest.fixture(scope="module", params=["segan", "waveform"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine"
    return denoiser.load(weights.save(path, built(request.param)))


def test_the_signal_to_noise_ratio_is_exact(folders):
    heard = corpora.gather(clean=folders / "clean")
    assert heard.noise and not heard.recorded
    for wanted in (-5.0, 12.5):
        stream, held = mixtures(heard, SR, 1.0, 4, snr=(wanted, wanted))
        batches = iter(stream(0))
        for noisy, clean in [next(batches), next(batches), *held[:1]]:
            measured = active_level(clean, SR) - active_level(noisy - clean, SR)
            assert (measured - wanted).abs().max() < 0.02, measured
            assert active_level(clean, SR).std() < 10  # both were scaled alike, or the ratio would be another
    noisy, clean = next(iter(mixtures(heard, SR, 1.0, 32)[0](0)))
    measured = active_level(clean, SR) - active_level(noisy - clean, SR)
    assert measured.min() > -5.1 and measured.max() < 20.1 and measured.std() > 4  # without --snr: the recipe's range
    with pytest.raises(DataError, match="LOW to HIGH"):
        mixtures(heard, SR, 1.0, 4, snr=(5, 0))
    recorded = corpora.Corpus(heard.speech, None, heard.valid_speech, None, True)
    with pytest.raises(DataError, match="leave --snr out"):
        mixtures(recorded, SR, 1.0, 4, snr=(0, 5))


@pytest.mark.parametrize("network", ["segan", "waveform"])
def test_from_a_folder_of_clean_sound_to_a_cleaned_file(folders, network, capsys, monkeypatch):
    monkeypatch.setattr("wavelldm.training.mixtures.VALID_SECONDS", 0.5)
    out = folders / network
    argv = f"train {network} --preset tiny --batch_size 2 --seconds 0.256 --steps 2 --snr 5 15 --no-half --json"
    paths = ["--clean_data_path", str(folders / "clean"), "--output", str(out)]
    assert main.main([*argv.split(), *paths]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 2
    plan = weights.about(out / f"tiny-{network}.safetensors")["plan"]
    assert plan["lr"] == (1e-4 if network == "waveform" else 2e-4) and plan["rise"] == (
        0.3 if network == "waveform" else 0
    )
    files.save(folders / f"{network}.wav", 0.1 * torch.randn(2, 10_001), 22_050)
    command = ["denoise", str(folders / f"{network}.wav"), "--model", str(out / f"tiny-{network}.safetensors")]
    assert main.main(command) == 0
    assert files.info(folders / f"{network}.denoised.wav") == files.info(folders / f"{network}.wav")
    assert main.main([*argv.replace("--steps 2", "--steps 3").split(), *paths]) == 0  # goes on
    longer = ["--start", str(out / f"tiny-{network}.safetensors"), "--output", str(folders / "again")]
    wrong = ["--set", "widths=8,16"]
    assert main.main([*argv.split(), *paths[:2], *longer, *wrong]) == 1
    assert "another size" in capsys.readouterr().err


@pytest.mark.parametrize("n, sr", [(1, 16_000), (15_999, 16_000), (16_001, 8_000), (30_001, 44_100), (7_777, 48_000)])
def test_length_rate_and_channels_stay(model, n, sr):
    wav = 0.1 * torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    out = model.enhance(wav, sr)
    assert out.shape == wav.shape and torch.isfinite(out).all()
    assert torch.equal(out, model.enhance(wav, sr))  # the same again
    alone = model.enhance(wav[1], sr) if n > 100 else None
    assert alone is None or alone.shape == (n,)


def test_as_loud_as_it_was(model):
    wav = torch.from_numpy(speechlike(1.5)).float()[None]
    loud, quiet = model.enhance(wav, SR), model.enhance(0.01 * wav, SR)
    assert (loud - 100 * quiet).abs().max() < 1e-3 * loud.abs().max()


def test_what_lies_above_the_band_follows_its_highest_quarter():
    t = torch.arange(48_000) / 48_000
    wav = 0.1 * (
        torch.randn(1, 48_000, generator=torch.Generator().manual_seed(0)) + torch.sin(2 * torch.pi * 15_000 * t)
    )
    idle = built("waveform")
    torch.nn.init.zeros_(idle.up[-1].weight)
    kept = denoiser.WindowDenoiser(idle).enhance(wav, 48_000)
    assert (kept - wav).abs().max() < 1e-5
    idle.clean = lambda noisy, steps: 0 * noisy
    gone = denoiser.WindowDenoiser(idle).enhance(wav, 48_000)
    assert gone.abs()[:, 100:-100].max() < 0.02 * wav.abs().max()  # resampling the gain rings at the ends


def test_settings_that_mean_nothing_are_refused(model):
    wav, settings = torch.zeros(1, 4_000) + 0.1, denoiser.Settings
    with pytest.raises(WavelldmError, match="cannot change the strength"):
        model.enhance(wav, SR, settings(strength=2.0))
    if isinstance(model.network, Segan):
        with pytest.raises(WavelldmError, match="cannot take several steps"):
            model.stream(SR, settings=settings(steps=2))
    noisy = 0.1 * torch.randn(1, 9_000, generator=torch.Generator().manual_seed(0))
    assert (model.enhance(noisy, SR, settings(background=1.0)) - noisy).abs().max() < 1e-4


def test_models_by_name_and_by_file(tmp_path, capsys):
    for name in ("segan", "waveform"):
        if (weights.SHIPPED / f"{name}16k.safetensors").exists():
            assert denoiser.load(name) is denoiser.load(name) and denoiser.load(f"{name}16k").name == f"{name}16k"
        else:
            with pytest.raises(WavelldmError, match=f"{name}16k"):
                denoiser.load(name)
    with pytest.raises(WavelldmError, match="or a .safetensors file"):
        denoiser.load("magic")
    with pytest.raises(WavelldmError, match="does not exist"):
        denoiser.load(tmp_path / "nothing.safetensors")
    with pytest.raises(WavelldmError, match="do not clean by themselves"):
        denoiser.load(weights.SHIPPED / "voice16k.safetensors")
    same = denoiser.load(weights.SHIPPED / "base16k-mask.safetensors")
    wav = 0.1 * torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(same.enhance(wav, SR), denoiser.load("base16k").enhance(wav, SR))
    path = weights.save(tmp_path / "mine", built("waveform"))
    first = denoiser.load(path).enhance(wav, SR)
    weights.save(tmp_path / "mine", built("waveform", seed=1), force=True)
    assert not torch.equal(denoiser.load(path).enhance(wav, SR), first)  # read anew
