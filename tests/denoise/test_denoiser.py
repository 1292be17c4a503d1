import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.cli.options import jobs_of
from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.denoise import denoiser
from wavelldm.denoise.chain import Session, Settings
from wavelldm.denoise.logmmse import LogMMSE
from wavelldm.denoise.mask import MaskNet
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.errors import AudioError, WavelldmError
from wavelldm.training.presets import preset

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
    both = denoiser.load().enhance(torch.cat([a, 0.1 * b]), SR)
    assert torch.allclose(both[:1], denoiser.load().enhance(a, SR), atol=1e-6)


def test_bad_tensors_and_names_are_refused():
    with pytest.raises(AudioError, match="NaN"):
        denoiser.load().enhance(torch.tensor([0.0, float("nan")]), SR)
    for shape in ((1, 0), (0, 5), (1, 1, 5)):
        with pytest.raises(AudioError, match="samples in it"):
            denoiser.load().enhance(torch.zeros(shape), SR)
    with pytest.raises(WavelldmError, match="logmmse"):
        denoiser.load("magic")


def test_an_empty_stream_is_empty():
    assert LogMMSE(SR).finish().shape == (0, 0)
    stream = LogMMSE(SR)
    assert stream.push(torch.zeros(2, 0)).shape == (2, 0) and stream.finish().shape == (2, 0)


@pytest.mark.parametrize("kind, scale", [(torch.int16, 2**15), (torch.int32, 2**31)])
def test_whole_numbers_are_scaled(kind, scale):
    wav = (0.1 * scale * torch.randn(1, 3_000, dtype=torch.float64, generator=generator())).to(kind)
    out = denoiser.load("logmmse").enhance(wav, SR)
    assert out.dtype == torch.float32
    assert torch.equal(out, denoiser.load("logmmse").enhance((wav.double() / scale).float(), SR))
    session = denoiser.load("logmmse").stream(SR)
    joined = torch.cat([session.push(wav), session.finish()], dim=1)
    assert torch.allclose(joined, out, atol=1e-6)


def test_rates_are_whole_numbers_in_any_form():
    wav, model = 0.1 * torch.randn(1, 3_000, generator=generator()), denoiser.load()
    assert torch.equal(model.enhance(wav, 16_000.0), model.enhance(wav, 16_000))
    for rate in (16_000.5, 0, -8_000, 1, 10**7):
        with pytest.raises(AudioError, match="rate"):
            model.enhance(wav, rate)


def test_settings_that_a_model_does_not_have_are_refused():
    wav = 0.1 * torch.randn(1, 3_000, generator=generator())
    refused = {
        "best": (Settings(sampler="magic"), Settings(sampler="ddim"), Settings(steps=2), Settings(rounded=True)),
        "wavelldm": (Settings(strength=0.5),),
        "segan": (Settings(steps=2), Settings(strength=0.5), Settings(bold=True), Settings(sampler="ddim")),
        "waveform": (Settings(strength=0.5), Settings(bold=True)),
        "logmmse": (Settings(steps=2), Settings(strength=0.5), Settings(restore=True)),
    }
    for name, wrong in refused.items():
        for settings in wrong:
            for use in (lambda m, s: m.enhance(wav, SR, s), lambda m, s: m.stream(SR, 1, s)):
                with pytest.raises(WavelldmError, match="cannot .*; choose another --model"):
                    use(denoiser.load(name), settings)
    with pytest.raises(WavelldmError, match="does not sample this model"):
        denoiser.load("wavelldm").enhance(wav, SR, Settings(sampler="magic"))


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_channel_does_not_spoil_the_other(silent):
    """Of 0.01 times full scale: at a level that the network was not made for it would clean worse."""
    clean = 0.1 * voiced()
    noisy = clean + 0.002 * torch.randn(clean.shape, generator=generator())
    both = torch.cat([noisy, noisy])
    both[silent] = 0
    out, alone = denoiser.load().enhance(both, SR), denoiser.load().enhance(noisy, SR)
    assert (out[1 - silent] - alone[0]).abs().max() < 1e-6 and not out[silent].any()
    look = denoiser.look_at([both], SR)
    assert look.levels[1 - silent] == pytest.approx(denoiser.look_at([noisy], SR).levels[0])


# --- devices ----------------------------------------------------------------------------------------------------------


def test_devices_that_are_not_there_are_refused_in_a_sentence():
    for name in ("cuda:99", "mps", "magic", "xpu"):
        if name == "mps" and torch.backends.mps.is_available():
            continue
        with pytest.raises(WavelldmError, match=f"device '{name}'|'{name}' is no device"):
            denoiser.load(device=name)
    with pytest.raises(WavelldmError, match="computes on the CPU"):
        denoiser.load("logmmse", device="meta")


@pytest.mark.parametrize("name", ["studio16k", "base16k", "segan", "waveform", "wavelldm"])
def test_a_denoiser_is_where_it_was_asked_to_be(name):
    model = denoiser.load(name, device="meta")  # a device whose tensors have no values
    assert model.device.type == "meta" and model is denoiser.load(name, device="meta")
    assert denoiser.load(name).device.type == "cpu"
    session = model.stream(SR)
    assert session.device.type == "meta" and session.latency == denoiser.load(name).stream(SR).latency


# --- weights of one's own ---------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    """As training leaves them: a codec, a diffusion over its latents, a mask network that it guides, in folders."""
    torch.manual_seed(0)
    p = preset("tiny")
    mask = MaskNet(override(p.mask, ["latent_dim=48"]))
    torch.nn.init.normal_(mask.guide_out.weight, std=0.3)
    weights.save(tmp_path / "codec/tiny", Codec(p.codec))
    codec = weights.load(tmp_path / "codec/tiny", Codec)
    weights.save(tmp_path / "diffusion/tiny-diffusion", LatentDiffusion(p.diffusion), needs={"codec": codec})
    diffusion = weights.load(tmp_path / "diffusion/tiny-diffusion", LatentDiffusion)
    weights.save(tmp_path / "mask/tiny-mask", mask, needs={"diffusion": diffusion, "codec": codec})
    return tmp_path


@pytest.mark.parametrize("name", ["diffusion/tiny-diffusion", "mask/tiny-mask"])
@pytest.mark.parametrize("ending", ["", ".safetensors"])
def test_trained_diffusions_and_guided_masks_find_what_they_need(runs, name, ending):
    wav = 0.1 * torch.randn(2, 9_000, generator=generator())
    model = denoiser.load(f"{runs / name}{ending}")
    out = model.enhance(wav, SR, Settings(steps=2, sampler="ddim"))
    assert out.shape == wav.shape and (out - wav).abs().max() > 1e-3
    files.save(runs / "a.wav", wav, SR)
    model.enhance_file(runs / "a.wav", runs / "b.wav", progress=False)
    assert files.info(runs / "b.wav") == files.info(runs / "a.wav")


def test_weights_whose_codec_is_gone_or_another_are_refused(runs):
    weights.save(runs / "codec/tiny", Codec(preset("tiny").codec), force=True)  # another one of the same name
    for name in ("diffusion/tiny-diffusion", "mask/tiny-mask"):
        with pytest.raises(WavelldmError, match="needs the codec 'tiny' .* copy it"):
            denoiser.load(runs / name)
    with pytest.raises(WavelldmError, match="do not clean by themselves"):
        denoiser.load(runs / "codec/tiny")


def test_networks_that_do_not_belong_together_are_refused():
    p = preset("tiny")
    codec, diffusion = Codec(p.codec).eval(), LatentDiffusion(p.diffusion).eval()
    guided = override(p.mask, ["latent_dim=48"])
    with pytest.raises(WavelldmError, match="guided by a latent"):
        denoiser.MaskDenoiser(MaskNet(guided))
    with pytest.raises(WavelldmError, match="make them equal"):
        denoiser.MaskDenoiser(MaskNet(override(guided, ["hop=128"])), lambda: (codec, diffusion))
    with pytest.raises(WavelldmError, match="has 48 channels"):
        denoiser.MaskDenoiser(MaskNet(override(guided, ["latent_dim=32"])), lambda: (codec, diffusion))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(AudioError, match="bad.wav"):
        denoiser.load("logmmse").enhance_file(tmp_path / "bad.wav", tmp_path / "out.wav", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.wav"]


def test_a_live_file_is_cleaned_as_a_stream(tmp_path):
    wav = 0.1 * torch.randn(1, 20_000, generator=generator())
    like = files.AudioInfo(SR, 1, 0, "WAV", "FLOAT")
    files.save(tmp_path / "a.wav", wav, SR, like=like)
    denoiser.load().enhance_file(tmp_path / "a.wav", tmp_path / "b.wav", progress=False, live=True)
    session = denoiser.load().stream(SR)
    streamed = torch.cat([session.push(wav), session.finish()], dim=1)
    assert (files.load(tmp_path / "b.wav")[0] - streamed).abs().max() < 1e-4
    assert (denoiser.load().enhance(wav, SR, level=-26.0) - streamed).abs().max() < 1e-4


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
    assert jobs_of([a]) == [(a, tmp_path / "x/a.denoised.wav")]
    assert jobs_of([a], tmp_path / "y.mp3") == [(a, tmp_path / "y.mp3")]
    assert jobs_of([x], out) == [(a, out / "a.wav"), (b, out / "deep/b.flac")]
    with pytest.raises(WavelldmError, match="overwrite itself"):
        jobs_of([a], a)
    with pytest.raises(WavelldmError, match="both become"):
        jobs_of([a, x], out)


def test_an_mp3_cut_short_is_cleaned_with_a_warning_and_its_true_length(tmp_path, caplog):
    files.save(tmp_path / "a.mp3", 0.1 * torch.randn(1, 64_000, generator=torch.Generator().manual_seed(0)), 16_000)
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(data[: len(data) // 2])
    facts = denoiser.load("logmmse").enhance_file(tmp_path / "cut.mp3", tmp_path / "out.wav", progress=False)
    (message,) = caplog.messages
    assert "cut.mp3 is cut short: its header promises 4.00 s" in message
    assert f"holds {facts.seconds:.2f} s" in message and files.info(tmp_path / "out.wav").frames == facts.frames


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64"])
def test_a_cleaned_wav_file_has_the_header_of_the_noisy_one(tmp_path, format):
    files.save(tmp_path / "a.wav", torch.zeros(2, 8_000), 16_000, like=files.AudioInfo(16_000, 2, 0, format, "PCM_24"))
    denoiser.load("logmmse").enhance_file(tmp_path / "a.wav", tmp_path / "b.wav", progress=False)
    facts = files.info(tmp_path / "b.wav")
    assert (facts.format, facts.subtype, facts.frames) == (format, "PCM_24", 8_000)


@pytest.mark.parametrize("channels", [2, 64])
def test_a_file_of_many_channels_is_cleaned_in_short_blocks(tmp_path, monkeypatch, channels):
    """All channels of a block go through the networks together: 64 of them took 1.4 GB, in blocks of 2 s."""
    files.save(tmp_path / "a.wav", torch.zeros(channels, 9 * SR), SR)
    pushed = []
    push = Session.push
    monkeypatch.setattr(Session, "push", lambda self, block: pushed.append(block.numel()) or push(self, block))
    denoiser.load("logmmse").enhance_file(tmp_path / "a.wav", tmp_path / "b.wav", progress=False)
    assert sum(pushed) == channels * 9 * SR and max(pushed) <= 16 * SR
