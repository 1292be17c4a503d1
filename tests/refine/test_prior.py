import csv
from dataclasses import replace

import pytest
import torch
from signals import speechlike

from wavelldm.config import override
from wavelldm.data.clips import Clips
from wavelldm.denoise.mask import MaskNet
from wavelldm.errors import AudioError, WavelldmError
from wavelldm.refine import prior as p
from wavelldm.refine.prior import SpeechPrior
from wavelldm.refine.updates import noise_map
from wavelldm.training import loop
from wavelldm.training.presets import preset
from wavelldm.training.prior import PriorOptions, PriorTask, deviations

SR = 16_000
TINY = preset("tiny").prior
KINDS = {"v": {}, "z0": {"predicts": "z0"}, "eps": {"predicts": "eps", "schedule": "linear"}}


def make(seed=0, **change):
    torch.manual_seed(seed)
    model = p.SpeechPrior(replace(TINY, **change)).eval()
    for weight in model.unet.parameters():
        torch.nn.init.normal_(weight, std=0.1) if weight.ndim > 1 else None
    model.measure(0.1 + torch.rand(TINY.bins))
    return model


def noise(*shape, seed=0):
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def without_dc(model, wav):
    """What is left of wav (B, N) when every frame's bin of 0 Hz is taken out: by torch's own transform."""
    c, window, n = model.config, torch.hann_window(model.config.n_fft), wav.shape[-1]
    padded = torch.nn.functional.pad(wav[:, None], ((c.n_fft - c.hop) // 2,) * 2, mode="reflect")[:, 0]
    spec = torch.stft(padded, c.n_fft, c.hop, window=window, center=False, return_complex=True)
    spec[:, 0] = 0
    frames = torch.fft.irfft(spec.transpose(1, 2), c.n_fft) * window
    total, weight = torch.zeros(len(wav), padded.shape[-1]), torch.zeros(padded.shape[-1])
    for k in range(frames.shape[1]):
        total[:, k * c.hop : k * c.hop + c.n_fft] += frames[:, k]
        weight[k * c.hop : k * c.hop + c.n_fft] += window**2
    return (total / weight.clamp_min(1e-6))[:, (c.n_fft - c.hop) // 2 :][:, :n]


def test_spectra_go_round_but_for_what_lay_at_zero_hertz():
    model, wav = make(), noise(2, 20 * 256)
    spec = model.spectrum(wav)
    assert spec.shape == (2, 2, 256, 20)
    assert torch.allclose(model.to_wav(spec), without_dc(model, wav), atol=1e-5)
    for n in (1, 255, 256, 5_001):
        wav = torch.sin(torch.arange(n) * 2.0)[None]
        assert model.to_wav(model.spectrum(wav), n).shape == wav.shape
    tone = torch.sin(2 * torch.pi * 1_000 / SR * torch.arange(8_000))[None]  # nothing at 0 Hz
    assert (model.to_wav(model.spectrum(tone), 8_000) - tone)[:, 600:-600].abs().max() < 1e-4


def test_the_scale_is_linear_measured_and_kept_with_the_weights():
    model, a, b = make(), noise(1, 4_000, seed=1), noise(1, 4_000, seed=2)
    assert torch.allclose(model.spectrum(2 * a + b), 2 * model.spectrum(a) + model.spectrum(b), atol=1e-4)
    pairs = [(noise(4, 1, 16_000, seed=k),) for k in range(3)]
    model.measure(deviations(TINY, pairs))
    scaled = torch.cat([model.spectrum(wav[:, 0]) for (wav,) in pairs])
    assert (scaled.square().mean((0, 1, 3)) - 1).abs().max() < 1e-3
    assert "deviation" in model.state_dict()
    empty = torch.ones(TINY.bins).index_fill(0, torch.tensor([255]), 0.0)
    model.measure(empty)
    assert float(model.deviation.min()) == pytest.approx(1e-3)
    for bad in (torch.zeros(TINY.bins), torch.full((TINY.bins,), torch.inf), torch.ones(3)):
        with pytest.raises(WavelldmError, match="check the data"):
            model.measure(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_network_predicts_is_turned_into_x0(kind):
    """With an oracle in the network's place `denoise` gives x0, whatever the oracle says it as; in windows too."""
    model = make(**KINDS[kind])
    x0, eps = (torch.randn(2, 2, 256, 300, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    t = torch.tensor([400, 900])
    x_t = model.noised(x0, t, eps)
    a, s = (part[..., None] for part in model.schedule.at(t))
    assert torch.allclose(x_t, a * x0 + s * eps, atol=1e-6)
    whole = {"eps": eps, "z0": x0, "v": a * eps - s * x0}[kind]
    starts = iter(range(0, 300, p.WINDOW - p.OVERLAP))

    def oracle(part, t):
        first = next(starts)
        return whole[..., first : first + part.shape[-1]]

    model.unet.forward = oracle
    assert torch.allclose(model.denoise(x_t, t), x0, atol=2e-3)


def test_eps_with_a_schedule_that_ends_in_nothing_but_noise_is_refused():
    with pytest.raises(WavelldmError, match="prior.schedule=linear"):
        p.SpeechPrior(replace(TINY, predicts="eps"))
    with pytest.raises(WavelldmError, match="predicts v or z0"):
        p.SpeechPrior(replace(TINY, predicts="x"))


def test_seen_in_windows_is_seen_whole(monkeypatch):
    """Attention aside, which is meant to look no further than its window, a frame away from the ends of windows has
    the same estimate."""
    model = make()
    torch.nn.init.zeros_(model.unet.network.below.below.attention.out.weight)
    x, t = torch.randn(1, 2, 256, 150, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    with torch.no_grad():
        whole = model.denoise(x, t)
        monkeypatch.setattr(p, "WINDOW", 64)
        monkeypatch.setattr(p, "OVERLAP", 16)
        parts = model.denoise(x, t)
    apart = (parts - whole).abs().amax((0, 1, 2))
    near = torch.zeros(150, dtype=torch.bool)
    for start in (0, 48, 96):
        near[max(0, start - 24) : start + 40] = (
            start > 0
        )  # where two windows meet, and as far as a convolution sees from there
    assert near.sum() == 112 and apart[~near].max() < 1e-4 and apart[near].max() > 1e-4


# --- refining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [700, 16_000])
def test_with_nothing_taken_away_the_noisy_recording_comes_back(n):
    wav = noise(2, n) + 0.01
    assert (make().refine_wav(wav, wav, 4, eta_b=1.0) - wav).abs().max() < 1e-5
    near = make().refine_wav(wav, wav, 4)  # eta_b 0.9: a tenth of the prior's estimate
    assert 1e-4 < (near - wav).abs().max() < 0.3 * wav.abs().max()


def test_what_was_taken_away_is_drawn_anew():
    wav = noise(1, 8_000)
    model = make()
    first, again, other = (model.refine_wav(wav, 0.3 * wav, 4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and (first - other).abs().max() > 1e-3
    plus = model.refine_wav(wav, 0.3 * wav, 4, 0.4, 0.6, 0.0)
    assert (plus - first).abs().max() > 1e-3


def test_channels_are_refined_alike_and_shapes_are_kept():
    model, wav = make(), noise(8_000)
    one = model.refine_wav(wav, 0.5 * wav, 3)
    two = model.refine_wav(torch.stack([wav, wav]), 0.5 * torch.stack([wav, wav]), 3)
    assert one.shape == wav.shape and two.shape == (2, 8_000)
    assert torch.allclose(two[0], two[1]) and torch.allclose(one, two[0], atol=1e-6)


def test_loudness_is_taken_out_and_put_back():
    model, wav = make(), torch.from_numpy(speechlike(1.0)).float()
    noisy = wav + noise(16_000)
    loud, quiet = model.refine_wav(noisy, wav, 3), model.refine_wav(0.01 * noisy, 0.01 * wav, 3)
    assert torch.allclose(100 * quiet, loud, atol=1e-4)
    assert not torch.isnan(model.refine_wav(noisy, torch.zeros_like(noisy), 3)).any()


def test_the_network_sees_speech_at_its_nominal_level(monkeypatch):
    model, wav = make(), 0.003 * torch.from_numpy(speechlike(2.0)).float()
    heard = []
    monkeypatch.setattr(p, "refine", lambda denoise, noisy, sigma, *rest: heard.append((noisy, sigma)) or noisy)
    cleaned = 0.5 * wav
    model.refine_wav(wav, cleaned)
    ((noisy, sigma),) = heard
    gain = 10 ** (p.NOMINAL_DB / 20) / float(p.active_power(cleaned[None], SR)) ** 0.5
    assert torch.allclose(noisy, model.spectrum(gain * wav[None]), rtol=1e-3, atol=1e-4)
    assert torch.allclose(sigma, noise_map(noisy, noisy / 2), rtol=1e-3, atol=1e-4)


def test_long_recordings_go_piece_by_piece(monkeypatch):
    model, wav = make(), noise(1, 40 * 256)
    whole = model.refine_wav(wav, wav, 3, eta_b=1.0)
    sizes, spectrum = [], model.spectrum
    monkeypatch.setattr(model, "spectrum", lambda x: sizes.append(x.shape[-1]) or spectrum(x))
    monkeypatch.setattr(p, "PIECE", 16)
    monkeypatch.setattr(p, "OVERLAP", 4)
    parts = model.refine_wav(wav, wav, 3, eta_b=1.0)
    assert max(sizes) == 16 * 256 and len(sizes) == 3 and (parts - whole).abs().max() < 1e-5


def test_sampling_is_seeded_and_as_long_as_asked():
    model = make()
    a, b = model.sample(2, 9, 3), model.sample(2, 9, 3, torch.Generator().manual_seed(5))
    assert a.shape == (2, 9 * 256) and torch.equal(a, model.sample(2, 9, 3)) and (a - b).abs().max() > 1e-3


@pytest.mark.parametrize(
    "noisy, cleaned", [((100,), (101,)), ((1, 1, 100), (1, 1, 100)), ((0,), (0,)), ((2, 100), (1, 100))]
)
def test_recordings_that_do_not_fit_are_named(noisy, cleaned):
    with pytest.raises(AudioError, match="alike"):
        make().refine_wav(torch.zeros(noisy), torch.zeros(cleaned))


def test_settings_can_be_changed():
    changed = override(
        preset("tiny"), ["prior.dims=8,8", "prior.shrink_bins=8", "prior.shrink_frames=2", "prior.separable=false"]
    ).prior
    assert changed.dims == (8, 8) and changed.shrink_bins == (8,) and not changed.separable


# --- training ---------------------------------------------------------------------------------------------------------


def buzzes(count=4, n=16 * 256, seed=0):
    """(count, 1, n): harmonics, which a prior can learn at once."""
    g, t = torch.Generator().manual_seed(seed), torch.arange(n) / SR
    pitch = 100 + 100 * torch.rand(count, 1, generator=g)
    return 0.05 * sum(torch.sin(2 * torch.pi * k * pitch * t) for k in range(1, 9))[:, None]


def task(kind="v", seed=0, **change):
    config = replace(TINY, **KINDS[kind], **change)
    held = [(buzzes(),)]
    return PriorTask(config, PriorOptions(half=False), seed=seed).measure(held).with_data(None, held)


@pytest.mark.parametrize("kind", KINDS)
def test_one_batch_is_overfitted(tmp_path, kind):
    job = task(kind, dims=(16, 24, 32))
    batch, plan = (buzzes(),), loop.Plan(steps=60, lr=5e-3, warmup=5, valid_every=60, ema=0.9)
    before = job.validate(job.networks["model"])
    job.batches = lambda start: iter([batch] * 60)
    result = loop.fit(job, plan, tmp_path, progress=False)
    (row,) = csv.DictReader(open(tmp_path / "log.csv"))
    assert result["best"] < {"v": 0.5, "z0": 0.5, "eps": 0.3}[kind] * before["score"]
    assert {"score", "at_begin", "at_end", "prior"} <= set(row)


def test_the_loss_of_a_perfect_network_is_nothing_and_of_an_idle_one_is_known():
    for kind in KINDS:
        job = task(kind)
        model = job.networks["model"]
        wav, t = buzzes(), torch.tensor([0, 300, 600, 999])
        x0 = model.spectrum(wav[:, 0])
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
        a, s = (part[..., None] for part in model.schedule.at(t))
        wanted = {"eps": eps, "z0": x0, "v": a * eps - s * x0}[kind]
        assert torch.allclose(
            job.error(model, wav, t, eps), wanted.square().mean((1, 2, 3)), rtol=1e-3
        )  # it begins by predicting nothing
        model.unet.forward = lambda x_t, t: wanted
        assert job.error(model, wav, t, eps).max() < 1e-6


def test_validation_is_the_same_every_time_and_samples_are_sounds():
    job = task()
    model = job.networks["model"]
    torch.manual_seed(1)
    first = job.validate(model)
    torch.manual_seed(2)
    assert job.validate(model) == first
    model.sample = lambda count, frames, steps: torch.zeros(count, 256 * frames)
    assert {name: wav.shape[0] for name, wav in job.samples(model).items()} == {"clean": 1, "drawn": 1}


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    def run(folder, *ends):
        for end in ends:
            job, plan = task(), loop.Plan(steps=6, warmup=2, valid_every=3, save_every=min(end, 5))
            job.batches = lambda start, end=end: ((buzzes(seed=k),) for k in range(start, end))
            loop.fit(job, plan, folder, progress=False)
        return loop.load_checkpoint(folder / "last.pt")

    once, twice = run(tmp_path / "once", 6), run(tmp_path / "twice", 3, 6)
    assert once["step"] == twice["step"] == 6
    for part in (lambda run: run["networks"]["model"], lambda run: run["average"]):
        assert all(torch.equal(weight, part(twice)[name]) for name, weight in part(once).items())
    assert not torch.equal(once["networks"]["model"]["unet.enter.weight"], task().networks["model"].unet.enter.weight)


def test_trained_from_files_it_hears_clean_speech_at_many_levels_and_nothing_else(tmp_path, monkeypatch):
    from wavelldm import weights
    from wavelldm.audio import files
    from wavelldm.audio.levels import active_level
    from wavelldm.data import corpora
    from wavelldm.data.corpora import Corpus

    for name, split in (("a", "train"), ("b", "valid")):
        files.save(
            tmp_path / split / f"{name}.wav", torch.from_numpy(speechlike(3.0, seed=ord(name))).float()[None], SR
        )
    train_items = corpora.folder(tmp_path / "train")
    held = [replace(item, split="valid") for item in corpora.folder(tmp_path / "valid")]
    heard, error = [], PriorTask.error
    monkeypatch.setattr(
        PriorTask, "error", lambda self, model, wav, t, eps: heard.append(wav) or error(self, model, wav, t, eps)
    )
    plan = loop.Plan(steps=3, warmup=1, valid_every=3)
    job = PriorTask(TINY, PriorOptions(batch_size=8, seconds=0.5, half=False))
    job.read(Corpus(train_items, None, held, None, False))
    result = loop.fit(job, plan, tmp_path / "run", progress=False)
    loop.write_weights(job, plan, tmp_path / "run", "tiny-prior")
    model = weights.load(tmp_path / "run" / "tiny-prior.safetensors", SpeechPrior)
    assert result["step"] == 3 and model.config == TINY and model.deviation.std() > 0
    levels = torch.cat([active_level(wav, SR)[:, 0] for wav in heard[:3]])
    assert levels.max() < p.NOMINAL_DB + 7 and levels.min() > p.NOMINAL_DB - 11 and levels.max() - levels.min() > 8
    clips = Clips(train_items, SR)
    assert len(clips) == 1 and weights.about(tmp_path / "run" / "tiny-prior.safetensors")["kind"] == "SpeechPrior"
    with pytest.raises(WavelldmError, match="a SpeechPrior, not of a MaskNet"):
        weights.load(tmp_path / "run" / "tiny-prior.safetensors", MaskNet)


def test_everything_stays_on_its_device():
    """`meta` tensors have no values: whatever leaves their device fails."""
    model = make().to("meta")
    x0 = model.spectrum(torch.zeros(2, 300 * 256, device="meta"))
    t = torch.zeros(2, dtype=torch.long, device="meta")
    with torch.no_grad():
        drawn = model.denoise(model.noised(x0, t, torch.randn_like(x0)), t)
    assert drawn.device.type == model.to_wav(drawn).device.type == "meta" and drawn.shape == x0.shape
