import math

import diffusers
import pytest
import torch

from wavelldm.diffusion.schedule import KINDS, Schedule, convert, make, min_snr, q_sample, snr
from wavelldm.errors import WavelldmError

torch.set_num_threads(1)
ALL = [(kind, zero) for kind in ("linear", "scaled_linear", "cosine") for zero in (False, True)]
BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.0015, 0.0195), "cosine": (1e-4, 0.02)}


def some(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def theirs(kind, zero=False, cls="DDIMScheduler", **more):
    name = "squaredcos_cap_v2" if kind == "cosine" else kind
    start, end = BETAS[kind]
    return getattr(diffusers, cls)(
        beta_schedule=name, beta_start=start, beta_end=end, rescale_betas_zero_snr=zero, **more
    )


# --- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, zero", ALL)
def test_tables_equal_diffusers(kind, zero):
    mine, want = make(kind, zero_terminal=zero).alpha_bar, theirs(kind, zero).alphas_cumprod.double()
    assert mine.dtype == torch.float64 and mine.shape == (1000,)
    torch.testing.assert_close(mine.sqrt(), want.sqrt(), rtol=1e-4, atol=2e-6)  # theirs are float32


def test_linear_by_hand():
    table = make("linear").alpha_bar
    assert table[0].item() == pytest.approx(1 - 1e-4, abs=1e-15)
    assert table[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)  # the value DDPM's authors had


def test_cosine_is_the_formula_until_the_clip():
    def f(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    table = make("cosine").alpha_bar
    for t in (0, 1, 500, 998):
        assert table[t].item() == pytest.approx(f(t + 1) / f(0), rel=1e-9)
    assert (1 - table[999] / table[998]).item() == pytest.approx(0.999, abs=1e-12)


@pytest.mark.parametrize("kind", BETAS)
def test_other_step_counts_make_about_the_same_noise(kind):
    a = {steps: make(kind, steps).alpha_bar for steps in (100, 1000, 4000)}
    for steps, table in a.items():
        assert len(table) == steps and (table.diff() < 0).all()
        for share in (0.25, 0.5, 1):
            assert table[int(share * steps) - 1].item() == pytest.approx(
                a[1000][int(share * 1000) - 1].item(), abs=0.01
            )


@pytest.mark.parametrize("kind, zero", [k for k in ALL if k[1]])
def test_zero_terminal_ends_at_zero_and_begins_as_before(kind, zero):
    before, after = make(kind), make(kind, zero_terminal=True)
    assert after.alpha_bar[-1] == 0 and after.alpha_bar[-2] > 0
    assert after.alpha_bar[0].item() == pytest.approx(before.alpha_bar[0].item(), abs=1e-14)
    a, b = before.alpha_bar.sqrt(), after.alpha_bar.sqrt()
    torch.testing.assert_close(
        b.diff() / a.diff(), torch.full((999,), (a[0] / (a[0] - a[-1])).item()).double()
    )  # a straight line


def test_at_gives_columns_in_the_wanted_precision():
    schedule = make("linear")
    t = torch.tensor([0, 3, 999])
    a, s = schedule.at(t)
    assert a.shape == s.shape == (3, 1, 1) and a.dtype == torch.float32
    a, s = schedule.at(t, torch.float64)
    assert torch.equal(a.flatten() ** 2, schedule.alpha_bar[t].sqrt() ** 2)
    torch.testing.assert_close(a**2 + s**2, torch.ones(3, 1, 1, dtype=torch.float64), rtol=0, atol=1e-15)


def test_s_is_right_where_float32_would_cancel():
    """1 - alpha_bar in float32 is off by up to 6e-8, which is a lot of 1e-6; computed in float64 nothing is lost."""
    schedule = Schedule(torch.tensor([1 - 1e-8, 0.5], dtype=torch.float64))
    assert schedule.at(torch.tensor([0]))[1].item() == pytest.approx(1e-4, rel=1e-6)


# --- noise and conversions ------------------------------------------------------------------------------------------


def test_q_sample_has_the_powers_of_the_schedule():
    schedule, t = make("cosine"), torch.tensor([100, 500, 900])
    z0, eps = some(3, 4, 100_000, seed=1) * 2, some(3, 4, 100_000, seed=2)
    z_t = q_sample(schedule, z0, t, eps)
    alpha_bar = schedule.alpha_bar[t]
    torch.testing.assert_close(z_t.var((1, 2)), 4 * alpha_bar + 1 - alpha_bar, rtol=0.01, atol=0)
    want = theirs("cosine").add_noise(z0.float(), eps.float(), t)
    torch.testing.assert_close(z_t.float(), want, rtol=1e-4, atol=1e-4)


def test_q_sample_is_t_single_steps():
    """alpha_bar_t is the product of the alphas: noise added step by step has the same mean factor and variance."""
    schedule = make("linear", 50)
    mean, var, before = 1.0, 0.0, 1.0
    for t, now in enumerate(schedule.alpha_bar.tolist()):
        mean, var, before = mean * math.sqrt(now / before), var * now / before + 1 - now / before, now
        a, s = schedule.at(torch.tensor([t]), torch.float64)
        assert (a.item(), s.item() ** 2) == (pytest.approx(mean), pytest.approx(var))


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("kind", BETAS)
def test_conversions_say_the_truth(kind, source, target):
    schedule, t = make(kind), torch.tensor([0, 1, 400, 990])
    z0, eps = some(4, 3, 7, seed=3), some(4, 3, 7, seed=4)
    z_t = q_sample(schedule, z0, t, eps)
    a, s = schedule.at(t, torch.float64)
    truth = {"z0": z0, "eps": eps, "v": a * eps - s * z0}
    torch.testing.assert_close(
        convert(schedule, truth[source], z_t, t, source, target), truth[target], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_conversions_there_and_back(source, target):
    schedule, t = make("cosine"), torch.tensor([5, 300, 950])
    prediction, z_t = some(3, 2, 9, seed=5), some(3, 2, 9, seed=6)  # a network may say anything
    there = convert(schedule, prediction, z_t, t, source, target)
    torch.testing.assert_close(convert(schedule, there, z_t, t, target, source), prediction, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("source, name", [("eps", "epsilon"), ("v", "v_prediction"), ("z0", "sample")])
def test_z0_estimates_equal_diffusers(source, name):
    schedule, library = (
        make("linear"),
        theirs("linear", prediction_type=name, clip_sample=False, timestep_spacing="trailing"),
    )
    library.set_timesteps(1000)
    prediction, z_t = some(1, 3, 9, seed=7, dtype=torch.float32), some(1, 3, 9, seed=8, dtype=torch.float32)
    for t in (0, 10, 500, 900):
        want = library.step(prediction, t, z_t).pred_original_sample
        torch.testing.assert_close(
            convert(schedule, prediction, z_t, torch.tensor([t]), source, "z0"), want, rtol=2e-4, atol=2e-4
        )


def test_v_works_where_eps_cannot():
    schedule, z_t = make("cosine", zero_terminal=True), some(2, 3, 5)
    t = torch.tensor([10, 999])
    v = some(2, 3, 5, seed=1)
    assert torch.equal(convert(schedule, v, z_t, t, "v", "z0")[1], -v[1])
    assert torch.equal(convert(schedule, v, z_t, t, "v", "eps")[1], z_t[1])
    assert torch.isfinite(convert(schedule, v, z_t, t, "z0", "v")).all()
    for target in ("z0", "v"):
        with pytest.raises(WavelldmError, match="alpha_bar is 0: predict v or z0"):
            convert(schedule, v, z_t, t, "eps", target)
        assert torch.isfinite(convert(schedule, v, z_t, t - 1, "eps", target)).all()


def test_half_precision_is_widened():
    schedule, t = make("linear"), torch.tensor([0, 999])
    z0, eps = some(2, 3, 5).half(), some(2, 3, 5, seed=1).half()
    z_t = q_sample(schedule, z0, t, eps)
    assert z_t.dtype == torch.float32
    torch.testing.assert_close(z_t, q_sample(schedule, z0.float(), t, eps.float()))


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, zero", ALL)
def test_min_snr_is_one_loss_said_in_three_ways(kind, zero):
    """A network that errs by d in z0 errs by other amounts in eps and v; weighted, all three losses are the same."""
    schedule, t = make(kind, zero_terminal=zero), torch.arange(0, 999, 37)
    z0, eps = some(len(t), 2, 3, seed=9), some(len(t), 2, 3, seed=10)
    z_t = q_sample(schedule, z0, t, eps)
    wrong = z0 + 0.1 * some(len(t), 2, 3, seed=11)
    loss = {}
    for said in KINDS:
        truth, guess = (convert(schedule, z, z_t, t, "z0", said) for z in (z0, wrong))
        loss[said] = min_snr(schedule, t, said).double() * (guess - truth).square().mean((1, 2))
    want = snr(schedule)[t].clamp(max=5) * (wrong - z0).square().mean((1, 2))
    for said in KINDS:
        torch.testing.assert_close(loss[said], want, rtol=1e-5, atol=1e-12)


def test_min_snr_by_hand():
    schedule = Schedule(torch.tensor([0.9, 0.5, 0.0]))  # SNR 9, 1, 0
    t = torch.arange(3)
    assert min_snr(schedule, t, "z0").tolist() == pytest.approx([5, 1, 0])
    assert min_snr(schedule, t, "eps").tolist() == pytest.approx([5 / 9, 1, 1])
    assert min_snr(schedule, t, "v").tolist() == pytest.approx([0.5, 0.5, 0])
    assert min_snr(schedule, t, "eps", gamma=3.0).tolist() == pytest.approx([1 / 3, 1, 1])
    assert min_snr(schedule, t, "v", gamma=3.0).tolist() == pytest.approx([0.3, 0.5, 0])


# --- bad input ------------------------------------------------------------------------------------------------------


def test_bad_input_says_what_to_do():
    schedule, z = make("cosine", 10), torch.zeros(1, 2, 3)
    for call, message in [
        (lambda: make("quadratic"), "choose linear, scaled_linear or cosine"),
        (lambda: make(steps=0), "at least 1, not 0"),
        (lambda: make(steps=1, zero_terminal=True), "at least 2, not 1"),
        (lambda: Schedule(torch.tensor([0.1, 0.9])), "below 1 that fall"),
        (lambda: Schedule(torch.tensor([0.9, 0.5, 0.5])), "below 1 that fall"),
        (lambda: Schedule(torch.tensor([1.0, 0.9])), "below 1 that fall"),
        (lambda: Schedule(torch.tensor([0.5, -0.1])), "to 0 at most"),
        (lambda: Schedule(torch.tensor([0.5, math.nan])), "below 1 that fall"),
        (lambda: Schedule(torch.zeros(0)), "a row of numbers"),
        (lambda: Schedule(torch.tensor([[0.5]])), "a row of numbers"),
        (lambda: schedule.at(torch.tensor([10])), "0 to 9"),
        (lambda: schedule.at(torch.tensor([-1])), "0 to 9"),
        (lambda: schedule.at(torch.tensor([0.5])), "long tensor"),
        (lambda: schedule.at(torch.tensor(3)), "long tensor"),
        (lambda: convert(schedule, z, z, torch.tensor([1]), "eps", "x0"), "not 'x0'"),
        (lambda: min_snr(schedule, torch.tensor([1]), "score"), "not 'score'"),
    ]:
        with pytest.raises(WavelldmError, match=message):
            call()


def test_a_schedule_is_not_changed_from_outside():
    table = torch.tensor([0.9, 0.5], dtype=torch.float64)
    schedule = Schedule(table)
    table[0] = 0.1
    assert schedule.alpha_bar[0] == pytest.approx(0.9) and schedule.steps == 2
