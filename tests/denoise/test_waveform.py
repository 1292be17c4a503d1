import csv
from dataclasses import replace

import pytest
import torch
from signals import speechlike

from wavelldm.denoise.waveform import WaveDenoiser, level
from wavelldm.diffusion.schedule import make as make_schedule
from wavelldm.diffusion.schedule import q_sample
from wavelldm.errors import WavelldmError
from wavelldm.training import loop
from wavelldm.training.presets import preset
from wavelldm.training.waveform import LAST, LOSS_WEIGHTS, WaveOptions, WaveTask, distances, spectral

TINY = preset("tiny").waveform
FULL = WaveOptions(half=False)
CLEAN, NOISE = (
    torch.tensor([1.0, -1.0]).repeat(50)[None, None],
    torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(25)[None, None],
)  # power 1, unrelated


def make(config=TINY, seed=0, lively=True):
    torch.manual_seed(seed)
    net = WaveDenoiser(config).eval()
    if lively and not config.spectral:  # as if trained: its last layer begins with zeros
        torch.nn.init.normal_(net.up[-1].weight, std=0.05)
    return net


def batch(n=2, samples=4_000, seed=0):
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(samples) / 16_000
    clean = 0.2 * torch.sin(2 * torch.pi * torch.tensor([220.0, 330.0, 440.0][:n])[:, None, None] * t)
    return clean + 0.1 * torch.randn(clean.shape, generator=g), clean


def speech(samples, seeds=(0, 1), noise=0.02):
    clean = torch.stack([torch.from_numpy(speechlike(samples / 16_000, seed=seed)).float()[None] for seed in seeds])
    return clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)), clean


def test_the_seeds_numbers():
    net = WaveDenoiser()
    assert [tuple(conv.weight.shape) for conv in net.down] == [
        (64, 1, 15),
        (128, 64, 15),
        (256, 128, 15),
        (512, 256, 15),
    ]
    assert net.dropout.p == 0.1 and preset("wave48k").waveform.sr == 48_000 and preset("base16k").waveform.sr == 16_000
    assert preset("wave48k").waveform.widths == net.config.widths


@pytest.mark.parametrize("n", [1, 63, 64, 65, 5_003])
@pytest.mark.parametrize("change", [{}, {"skips": False}, {"spectral": True}, {"leveled": False}, {"stride": 2}])
def test_as_long_as_the_input(n, change):
    net = make(replace(TINY, **change))
    wav = 0.1 * torch.randn(2, 1, n)
    out = net(wav)
    assert out.shape == (2, 1, n) and torch.isfinite(out).all()
    assert net(wav, torch.tensor([3.0, 700.0])).shape == (2, 1, n)


def test_it_begins_by_changing_nothing():
    wav = torch.randn(1, 1, 999)
    assert torch.equal(make(lively=False)(wav), wav)


@pytest.mark.parametrize("skips", [True, False])
def test_all_is_heard_equally_loud(skips):
    net, wav = make(replace(TINY, skips=skips)), torch.randn(1, 1, 999, generator=torch.Generator().manual_seed(0))
    out, guess = net.clean_and_estimate(wav)
    for gain in (0.01, 30.0):
        louder, same = net.clean_and_estimate(gain * wav)
        assert (louder - gain * out).abs().max() < 1e-4 * gain and (same - guess).abs() < 0.01
    assert torch.equal(net(0 * wav), 0 * wav) and (out - wav).abs().max() > 0.01


# --- t is the noise level
# -----------------------------------------------------------------------------------------------


def test_t_of_a_mixture_made_at_step_t_is_t():
    """q_sample mixes a z0 + s eps; from the two parts alone the step is found again."""
    cosine, t = make_schedule("cosine", 1000), torch.arange(1000)
    a, s = cosine.at(t)
    assert (level(a * CLEAN, s * NOISE) - t).abs().max() < 1e-3
    z_t = q_sample(cosine, CLEAN.expand(1000, 1, 100), t, NOISE.expand(1000, 1, 100))
    assert (level(a * CLEAN, z_t - a * CLEAN)[5:990] - t[5:990]).abs().max() < 0.01  # float32 differences at the ends


@pytest.mark.parametrize("gain", [1e-3, 1.0, 30.0])
def test_t_depends_on_the_ratio_alone_and_rises_with_the_noise(gain):
    ratios = torch.tensor([40.0, 20.0, 10.0, 5.0, 0.0, -5.0, -20.0])
    t = level(gain * CLEAN * (10 ** (ratios / 20))[:, None, None], gain * NOISE.expand(7, 1, 100))
    assert torch.equal(t, t.sort().values) and t.unique().numel() == 7
    alpha_bar = make_schedule("cosine", 1000).alpha_bar[t[4].round().long()]
    assert alpha_bar == pytest.approx(0.5, abs=1e-3)  # as much noise as signal
    assert (
        level(0 * CLEAN, NOISE) == LAST
        and level(CLEAN, 0 * NOISE) == 0
        and torch.isfinite(level(0 * CLEAN, 0 * NOISE)).all()
    )


def test_training_tells_the_true_t_to_half_and_lets_the_others_guess():
    noisy, clean = batch(3)
    noisy, clean = noisy.repeat(20, 1, 1), clean.repeat(20, 1, 1)
    task, heard = WaveTask(replace(TINY, dropout=0.0), FULL), {}
    both = task.networks["model"].clean_and_estimate

    def listening(wav, t, own):
        heard.update(t=t, own=own)
        return both(wav, t, own)

    task.networks["model"].clean_and_estimate = listening
    ((_, loss, parts),) = task.losses((noisy, clean))
    assert torch.equal(heard["t"], level(clean, noisy - clean)) and 15 < heard["own"].sum() < 45
    guess = both(noisy, heard["t"], heard["own"])[1]
    assert parts["level"].item() == pytest.approx(((guess - heard["t"]).abs().mean() / LAST).item(), rel=1e-5)
    seeds = WaveTask(replace(TINY, leveled=False), FULL)
    both = seeds.networks["model"].clean_and_estimate
    seeds.networks["model"].clean_and_estimate = listening
    ((_, _, parts),) = seeds.losses((noisy, clean))
    t = heard["t"]
    assert (
        "level" not in parts and t.min() >= 0 and t.max() <= LAST and t.unique().numel() == 60
    )  # unrelated to the noise


def test_what_is_used_is_what_was_told_or_guessed():
    net, (noisy, _) = make(), batch()
    guess = net.clean_and_estimate(noisy)[1]
    told = torch.tensor([10.0, 900.0])
    assert torch.equal(net(noisy), net(noisy, guess)) and (net(noisy) - net(noisy, told)).abs().max() > 1e-5
    mixed = net.clean_and_estimate(noisy, told, torch.tensor([True, False]))[0]
    assert torch.equal(mixed[:1], net(noisy, torch.stack([guess[0], told[1]]))[:1])
    assert torch.equal(mixed[1:], net(noisy, told)[1:])


def test_further_steps_read_t_off_what_was_taken_away():
    net, (noisy, _) = make(), batch()
    with torch.no_grad():
        first = net(noisy)
        assert torch.equal(net.clean(noisy, 2), net(noisy, level(first, noisy - first))) and not torch.equal(
            net.clean(noisy, 2), first
        )
    with pytest.raises(WavelldmError, match="no noise level"):
        make(replace(TINY, leveled=False)).clean_long(noisy, steps=2)
    with pytest.raises(WavelldmError, match="odd"):
        WaveDenoiser(replace(TINY, kernel=14))


# --- switches
# -----------------------------------------------------------------------------------------------------------


def test_skips_carry_the_sound_past_the_bottleneck():
    for skips in (True, False):
        net = make(replace(TINY, skips=skips))
        torch.nn.init.zeros_(net.up[0].weight)
        x = torch.randn(1, 1, 640).requires_grad_()
        net(x, torch.zeros(1)).square().sum().backward()
        assert (x.grad.abs().max() > 0) == skips


def test_spectral_normalisation_bounds_every_layer():
    net = WaveDenoiser(replace(TINY, spectral=True)).train()
    for _ in range(30):
        net(torch.randn(1, 1, 256))
    for conv in [*net.down, *net.up]:
        weight = conv.weight.detach() if isinstance(conv, torch.nn.Conv1d) else conv.weight.detach().transpose(0, 1)
        assert torch.linalg.matrix_norm(weight.flatten(1), 2) == pytest.approx(1.0, abs=0.05)
    plain = WaveDenoiser(TINY)
    assert not hasattr(plain.down[0], "parametrizations")


def test_segments_overlap():
    net, wav = make(), 0.1 * torch.randn(2, 40_001, generator=torch.Generator().manual_seed(0))
    one = net.clean_long(wav[:, None])[:, 0]
    assert one.shape == wav.shape
    with torch.no_grad():
        second = net(wav[:, None, 12_000:28_000])[:, 0]  # this segment is alone from its first to its last quarter
    assert (one[:, 16_000:24_000] - second[:, 4_000:12_000]).abs().max() < 1e-5
    jumps = (one - wav).diff(dim=1).abs()
    assert jumps[:, 11_990:16_010].max() < 1.5 * jumps.max()


# --- losses
# -------------------------------------------------------------------------------------------------------------


def test_phase_loss_is_one_minus_the_cosine():
    t = torch.arange(16_000) / 16_000

    def tone(angle):
        return torch.cos(2 * torch.pi * 1_000 * t + angle)[None, None]  # 32 periods in each window

    for angle in (0.0, 0.5, torch.pi / 2, torch.pi, 3 * torch.pi):
        expected = 1 - torch.cos(torch.tensor(angle)).item()
        for gain in (1.0, 7.0):  # loudness is not its business
            assert spectral(gain * tone(angle), tone(0.0), 512)[1].item() == pytest.approx(expected, abs=0.02)
    x = torch.zeros(1, 1, 4_000).requires_grad_()
    sum(spectral(x, torch.randn(1, 1, 4_000), 256)).backward()
    assert torch.isfinite(x.grad).all()


def test_magnitudes_are_compared_compressed_and_at_any_level():
    noise = torch.randn(1, 1, 8_000, generator=torch.Generator().manual_seed(0))
    for gain in (0.5, 2.0):
        magnitudes, phases = spectral(gain * noise, noise, 256)
        assert magnitudes.item() == pytest.approx(abs(gain**0.3 - 1), rel=1e-3) and phases.item() == pytest.approx(
            0, abs=1e-5
        )
        assert spectral(0.1 * gain * noise, 0.1 * noise, 256)[0].item() == pytest.approx(magnitudes.item(), rel=1e-2)


def test_one_resolution_or_several():
    noisy, clean = batch()
    single, several = (distances(noisy, clean, windows) for windows in ((512,), (256, 512, 1024)))
    each = [spectral(noisy, clean, w) for w in (256, 512, 1024)]
    for i, name in enumerate(("magnitude", "phase")):
        assert single[name] == each[1][i] and several[name].item() == pytest.approx(
            sum(e[i] for e in each).item() / 3, rel=1e-5
        )
    assert single["l1"] == several["l1"] == (noisy - clean).abs().mean()
    task = WaveTask(replace(TINY, resolutions=(512,)), FULL)
    ((_, loss, parts),) = task.losses((noisy, clean))
    assert (
        loss.item() == pytest.approx(sum(LOSS_WEIGHTS[k] * v.item() for k, v in parts.items()), rel=1e-5)
        and len(parts) == 4
    )


def test_warm_up_and_one_cycle_are_one_curve():
    plan = WaveTask.plan(2_000)
    rates = [loop.learning_rate(s, plan) for s in range(2_000)]
    joint, peak = 100, 100 + round(0.3 * 1_900)
    assert rates[0] == pytest.approx(1e-4 / 25 / 100) and rates[joint - 1] == pytest.approx(1e-4 / 25) == pytest.approx(
        rates[joint]
    )
    assert max(rates) == pytest.approx(1e-4, rel=1e-4) and abs(rates.index(max(rates)) - peak) <= 1
    assert rates[-1] == pytest.approx(1e-7)
    steepest = 1e-4 * torch.pi / 2 / (0.3 * 1_899)  # of the cosine up
    assert max(abs(a - b) for a, b in zip(rates, rates[1:])) <= 1.01 * steepest  # no jump anywhere
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak + 1 :] == sorted(rates[peak + 1 :], reverse=True)


# --- training
# -----------------------------------------------------------------------------------------------------------


def test_one_batch_is_overfitted_and_the_best_checkpoint_is_whole(tmp_path):
    pair = speech(8_000, noise=0.05)
    task = WaveTask(TINY, FULL).with_data(lambda first: iter([pair] * 99), [pair])
    before = task.validate(task.networks["model"])
    plan = loop.Plan(steps=60, lr=6e-3, warmup=5, valid_every=30, ema=0.8)
    result = loop.fit(task, plan, tmp_path, progress=False)
    after = task.validate(task.networks["model"])
    assert after["valid_loss"] < 0.75 * before["valid_loss"] and after["valid_si_sdr"] > before["valid_si_sdr"] + 3
    assert after["valid_level"] < 0.05
    best = loop.load_checkpoint(tmp_path / "best.pt")
    assert {"model", "networks", "optimisers", "plan", "lr", "step", "score"} <= set(best)
    assert best["score"] == result["best"] and best["plan"]["lr"] == 6e-3 and best["step"] in (30, 60)
    assert best["lr"] == loop.learning_rate(best["step"] - 1, plan)
    assert best["optimisers"]["wave"]["state"][0]["step"] == best["step"]
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert min(float(row["score"]) for row in rows) == pytest.approx(best["score"], rel=1e-4)


def test_pesq_and_stoi_stand_in_the_validation_and_choose_nothing(monkeypatch):
    task = WaveTask(TINY, FULL).with_data(None, [speech(32_000, seeds=[0])])
    row = task.validate(make(lively=False))
    monkeypatch.setattr("wavelldm.training.waveform.validation_scores", lambda *_: {})  # as without the packages
    assert task.validate(make(lively=False))["score"] == row["score"]  # so the same checkpoint is the best
    assert abs(row["valid_opinion"] - row["valid_pesq_wb"]) < 0.7
    assert 1 < row["valid_pesq_wb"] < 4.65 and 30 < row["valid_stoi"] < 100


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):

    def stream(first):
        return (batch(seed=i) for i in range(first, 99))

    plan = WaveTask.plan(6, lr=1e-3, valid_every=3, save_every=2)

    def broken(first):
        for i, x in enumerate(stream(first), first):
            if i == 5:
                raise OSError("power cut")
            yield x

    def task(batches):
        return WaveTask(TINY, FULL).with_data(batches, [batch(samples=8_000)])

    loop.fit(task(stream), plan, tmp_path / "whole", progress=False)
    with pytest.raises(OSError):
        loop.fit(task(broken), plan, tmp_path / "parts", progress=False)
    loop.fit(task(stream), plan, tmp_path / "parts", progress=False)
    a, b = (loop.load_checkpoint(tmp_path / x / "last.pt") for x in ("whole", "parts"))
    for name, value in a["networks"]["model"].items():
        assert torch.equal(value, b["networks"]["model"][name]), name
    for name, value in a["average"].items():
        assert torch.equal(value, b["average"][name]), name
