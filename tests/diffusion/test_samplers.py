import math
from dataclasses import replace

import diffusers
import pytest
import torch

from wavelldm.diffusion.samplers import (
    SAMPLERS,
    FrameNoise,
    ancestral,
    ddim,
    ddpm,
    dpmpp_2m,
    inpaint,
    noise_like,
    one_step,
    timesteps,
)
from wavelldm.diffusion.schedule import convert, make, q_sample
from wavelldm.errors import WavelldmError

torch.set_num_threads(1)
COMMON = dict(num_train_timesteps=1000, timestep_spacing="trailing", prediction_type="sample")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


MIX = some(3, 3, seed=99) / 2


def network(z_t, t):
    """Some z0 estimate, smooth, of z_t and t alike."""
    return torch.tanh(MIX.to(z_t) @ z_t + (t / 500 - 1)[:, None, None].to(z_t))


def theirs(cls, kind="linear", **more):
    name = {"cosine": "squaredcos_cap_v2"}.get(kind, kind)
    return getattr(diffusers, cls)(beta_schedule=name, beta_start=1e-4, beta_end=0.02, **COMMON, **more)


def sampled_by(library, z, steps, **more):
    library.set_timesteps(steps)
    for t in library.timesteps:
        z = library.step(network(z, t.expand(len(z))), t, z, **more).prev_sample
    return z


def gaussian(schedule, mean, var):
    """The best possible z0 estimate if z0 is Gaussian with this mean and variance (conditional mean of a Gaussian)."""

    def denoise(z_t, t):
        a, s = schedule.at(t, z_t.dtype)
        return mean + a * var / (a**2 * var + s**2) * (z_t - a * mean)

    return denoise


# --- equality with diffusers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 8, 50, 1000])  # of other numbers the library uses the rounded-down step length
def test_ddim_equals_diffusers(kind, steps):
    library, z = theirs("DDIMScheduler", kind, clip_sample=False), some(2, 3, 5)
    library.set_timesteps(steps)
    assert timesteps(make(kind), steps) == library.timesteps.tolist()
    torch.testing.assert_close(ddim(network, z, make(kind), steps), sampled_by(library, z, steps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise_equals_diffusers(eta):
    library, z = theirs("DDIMScheduler", clip_sample=False), some(2, 3, 5)
    mine = ddim(network, z, make("linear"), 20, generator=seeded(1), eta=eta)
    torch.testing.assert_close(mine, sampled_by(library, z, 20, eta=eta, generator=seeded(1)), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(mine, ddim(network, z, make("linear"), 20), atol=0.1)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 10, 30, 1000])
def test_ddpm_equals_diffusers(kind, steps):
    library, z = theirs("DDPMScheduler", kind, clip_sample=False), some(2, 3, 5)
    mine = ddpm(network, z, make(kind), steps, generator=seeded(1))
    torch.testing.assert_close(mine, sampled_by(library, z, steps, generator=seeded(1)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 25])
def test_dpmpp_2m_equals_diffusers(kind, steps):
    library, z = theirs("DPMSolverMultistepScheduler", kind), some(2, 3, 5)
    library.set_timesteps(steps)
    assert timesteps(make(kind), steps) == library.timesteps.tolist()
    torch.testing.assert_close(
        dpmpp_2m(network, z, make(kind), steps), sampled_by(library, z, steps), rtol=1e-3, atol=1e-3
    )


def test_zero_terminal_equals_diffusers():
    library, z = theirs("DDIMScheduler", clip_sample=False, rescale_betas_zero_snr=True), some(2, 3, 5)
    mine = ddim(network, z, make("linear", zero_terminal=True), 10)
    torch.testing.assert_close(mine, sampled_by(library, z, 10), rtol=1e-4, atol=1e-4)


# --- what must hold whatever the network ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind, zero", [("linear", False), ("cosine", False), ("cosine", True)])
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_the_true_noise_leads_back_to_z0(sampler, kind, zero, steps):
    """An oracle that knows eps: from z_T any number of steps goes along a straight line to z0."""
    schedule = make(kind, zero_terminal=zero)
    z0, eps = (some(2, 4, 6, seed=seed, dtype=torch.float64) for seed in (1, 2))
    z_T = q_sample(schedule, z0, torch.tensor([999, 999]), eps)
    seen = []

    def denoise(z_t, t):
        if zero and t[0] == 999:
            return z0  # eps says nothing here
        return convert(schedule, eps, z_t, t, "eps", "z0")

    def callback(i, t, z_t, estimate):
        torch.testing.assert_close(z_t, q_sample(schedule, z0, torch.tensor([t, t]), eps), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(estimate, z0, rtol=1e-5, atol=1e-5)
        seen.append((i, t))

    torch.testing.assert_close(sampler(denoise, z_T, schedule, steps, callback), z0, rtol=1e-6, atol=1e-6)
    assert seen == list(enumerate(timesteps(schedule, steps))) and seen[0][1] == 999


@pytest.mark.parametrize("steps", [None, 10])
def test_ddim_at_eta_one_is_ddpm(steps):
    schedule, z = make("linear", 200), some(2, 3, 5, dtype=torch.float64)
    mine = ddim(network, z, schedule, steps, generator=seeded(1), eta=1.0)
    torch.testing.assert_close(mine, ddpm(network, z, schedule, steps, generator=seeded(1)), rtol=1e-9, atol=1e-9)


def test_the_noise_of_ddim_at_eta_one_is_the_posterior_of_ddpm():
    """Every single step of all 20, from z_t = 0 and z0 = 0: what is left is the fresh noise, and its variance is
    DDPM's."""
    schedule = make("linear", 20)
    states = []

    def nothing(z, t):
        return torch.zeros_like(z)

    ddim(
        nothing, torch.zeros(1, 1, 200_000), schedule, 20, lambda i, t, z, z0: states.append((t, z)), seeded(2), eta=1.0
    )
    before = torch.cat([torch.ones(1), schedule.alpha_bar[:-1]])
    library = diffusers.DDPMScheduler(20, trained_betas=(1 - schedule.alpha_bar / before).numpy())
    for (t, z_t), (_, after) in zip(states, states[1:]):
        now, then = (schedule.alpha_bar[k].item() for k in (t, t - 1))
        left = math.sqrt(now / then) * (1 - then) / (1 - now)  # the posterior mean's share of z_t (DDPM, eq. 7)
        want = (1 - then) / (1 - now) * (1 - now / then)
        assert want == pytest.approx(library._get_variance(t).item(), rel=1e-3)
        assert (after - left * z_t).var().item() == pytest.approx(want, rel=0.015)


def test_one_ancestral_step_keeps_the_marginal():
    """If z_t has the distribution q(z_t | z0), then a draw from the posterior has q(z_then | z0)."""
    now, then, z0 = 0.3, 0.7, torch.full((1, 1, 400_000), 2.0)
    z_t = math.sqrt(now) * z0 + math.sqrt(1 - now) * some(1, 1, 400_000, seed=3)
    z = ancestral(z_t, z0, now, then, seeded(4))
    assert z.mean().item() == pytest.approx(math.sqrt(then) * 2, abs=0.005)
    assert z.var().item() == pytest.approx(1 - then, rel=0.01)


@pytest.mark.parametrize(
    "sampler, steps, kind, zero",
    [(ddpm, 500, "linear", False), (ddpm, 300, "cosine", True), (dpmpp_2m, 30, "linear", False),
     (dpmpp_2m, 30, "cosine", True), (ddim, 200, "cosine", False)],
)  # fmt: skip
def test_a_gaussian_is_sampled_with_its_mean_and_variance(sampler, steps, kind, zero):
    schedule = make(kind, zero_terminal=zero)
    mean, var = torch.tensor([1.5, -2.0])[:, None], torch.tensor([0.25, 2.25])[:, None]
    z = sampler(gaussian(schedule, mean, var), some(20_000, 2, 1, seed=5), schedule, steps, generator=seeded(6))
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(z.std(0), var.sqrt(), rtol=0.03, atol=0)


def test_the_second_order_pays():
    """On the same Gaussian at 20 steps, DPM-Solver++(2M) comes much nearer to the exact map than DDIM."""
    schedule = make("linear")
    mean, var, z = torch.tensor(1.5).double(), torch.tensor(0.25).double(), some(500, 1, 1, seed=7, dtype=torch.float64)
    alpha_bar = schedule.alpha_bar[-1]
    exact = (
        mean + (z - alpha_bar.sqrt() * mean) * (var / (alpha_bar * var + 1 - alpha_bar)).sqrt()
    )  # the flow keeps quantiles
    error = {
        f: (f(gaussian(schedule, mean, var), z, schedule, 20) - exact).abs().mean().item() for f in (ddim, dpmpp_2m)
    }
    assert error[dpmpp_2m] < error[ddim] / 3


def test_one_step_is_the_estimate_at_the_last_step():
    schedule, z, seen = make("cosine", zero_terminal=True), some(2, 3, 5), []
    want = network(z, torch.tensor([999, 999]))
    assert torch.equal(one_step(network, z, schedule, callback=lambda *a: seen.append(a[:2])), want)
    assert seen == [(0, 999)]
    assert torch.equal(ddim(network, z, schedule, 1), want) and torch.equal(dpmpp_2m(network, z, schedule, 1), want)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_are_deterministic_and_leave_their_input_alone(name):
    schedule, z = make("cosine", 60, zero_terminal=True), some(2, 3, 1)  # any T: here a single frame
    sampler, steps, before, kept = SAMPLERS[name], 1 if name == "one_step" else 12, z.clone(), []
    first = sampler(
        network,
        z,
        schedule,
        steps=steps,
        generator=seeded(8),
        callback=lambda i, t, z_t, z0: kept.append((z_t, z_t.clone())),
    )
    assert torch.equal(z, before) and first.shape == z.shape and first.dtype == z.dtype and not first.requires_grad
    assert all(torch.equal(now, then) for now, then in kept)  # what a callback kept is not overwritten later
    torch.randn(7)  # the global generator plays no part
    assert torch.equal(first, sampler(network, z, schedule, steps=steps, generator=seeded(8)))
    if name == "ddpm":
        assert not torch.equal(first, sampler(network, z, schedule, steps=steps, generator=seeded(9)))
    else:
        assert torch.allclose(first[:1], sampler(network, z[:1], schedule, steps=steps), atol=1e-6)  # items do not mix


def test_timesteps_by_hand():
    assert timesteps(make("linear", 10), 5) == [9, 7, 5, 3, 1]
    assert timesteps(make("linear", 10), 3) == [9, 6, 2]
    assert timesteps(make("linear", 10), None) == list(range(9, -1, -1))
    for total in (7, 100):
        for steps in range(1, total + 1):
            times = timesteps(make("cosine", total), steps)
            assert (
                times[0] == total - 1
                and len(set(times)) == steps
                and times == sorted(times, reverse=True)
                and times[-1] >= 0
            )


# --- inpainting -----------------------------------------------------------------------------------------------------

RHO = 0.9


def pair(schedule):
    """The best z0 estimate for two numbers, each of mean 0 and variance 1, with correlation RHO."""
    covariance = torch.tensor([[1.0, RHO], [RHO, 1.0]])

    def denoise(z_t, t):
        a, s = (float(x[0]) for x in schedule.at(t, torch.float64))
        gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(2))
        return gain.to(z_t) @ z_t

    return denoise


def fill(resample, steps=100, jump=5, count=4000):
    schedule = make("cosine", 200, zero_terminal=True)
    known = torch.full((count, 2, 1), 1.5)
    mask = torch.tensor([True, False])[None, :, None]
    return inpaint(pair(schedule), known, mask, schedule, steps, generator=seeded(10), jump=jump, resample=resample)


def test_inpainting_draws_from_the_conditional_distribution():
    z = fill(resample=10)
    assert torch.equal(z[:, 0], torch.full((4000, 1), 1.5))
    assert z[:, 1].mean().item() == pytest.approx(RHO * 1.5, abs=0.06)
    assert z[:, 1].std().item() == pytest.approx(math.sqrt(1 - RHO**2), rel=0.1)


def test_resampling_is_what_makes_the_parts_fit():
    """Without it the free part listens to a noisy version of the known one only, and comes out too near to 0."""
    assert fill(resample=1)[:, 1].mean() < RHO * 1.5 - 0.15


def test_inpaint_keeps_the_known_part_whatever_the_mask():
    schedule, known = make("cosine", 50), some(2, 3, 9, seed=11)
    before = known.clone()
    nothing, everything = torch.zeros(1, 1, 1).bool(), torch.ones(2, 3, 9).bool()
    for mask in (torch.rand(2, 1, 9, generator=seeded(12)) < 0.5, nothing, everything):
        seen = []
        z = inpaint(
            network, known, mask, schedule, 5, lambda i, t, z_t, z0: seen.append((i, t)), seeded(13), jump=2, resample=3
        )
        assert torch.equal(torch.where(mask, z, 0), torch.where(mask, known, 0)) and torch.equal(known, before)
        assert torch.equal(z, inpaint(network, known, mask, schedule, 5, generator=seeded(13), jump=2, resample=3))
        assert [t for _, t in seen] == [49, 39] * 3 + [29, 19] * 3 + [9] * 3 and [i for i, _ in seen] == list(range(15))


def test_the_known_part_carries_the_noise_of_its_step():
    schedule, known, seen = make("cosine", 50), torch.full((1, 1, 50_000), 2.0), []
    everything = torch.ones(1, 1, 1, dtype=torch.bool)

    def show(i, t, z_t, z0):
        return seen.append((t, z_t))

    inpaint(lambda z, t: torch.zeros_like(z), known, everything, schedule, 10, show, seeded(15), jump=3, resample=2)
    assert [t for t, _ in seen[:8]] == [49, 44, 39, 49, 44, 39, 34, 29]
    for t, z_t in seen[1:]:
        alpha_bar = schedule.alpha_bar[t].item()
        assert z_t.mean().item() == pytest.approx(2 * math.sqrt(alpha_bar), abs=0.02)
        assert z_t.var().item() == pytest.approx(1 - alpha_bar, rel=0.03)


# --- noise and bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 7, 32), (16, 24), (40,), (0, 39, 1)])
@pytest.mark.parametrize("dim", [3, 24])  # no multiple of what a processor draws at once
def test_noise_of_a_frame_depends_on_its_place_alone(sizes, dim):
    z = torch.zeros(2, dim, 40)
    noise, parts = FrameNoise(3), []
    for part in z.split(sizes, dim=-1):
        parts.append(FrameNoise(3, first=noise.first)(part))
        noise = replace(noise, first=noise.first + part.shape[-1])
    assert torch.equal(torch.cat(parts, dim=-1), FrameNoise(3)(z))
    assert torch.equal(FrameNoise(3)(z[:1]), FrameNoise(3)(z)[:1]), "nor on how many items there are"


def test_frame_noise_is_standard_normal_and_independent():
    source, z = FrameNoise(-1), torch.zeros(2, 50, 400)
    first, second, other = source(z), source(z), FrameNoise(1)(z)
    for x in (first, second, other):
        assert abs(float(x.mean())) < 0.02 and float(x.std()) == pytest.approx(1, abs=0.02)
    series = torch.stack([first[0], first[1], second[0], other[0]]).flatten(1)
    assert (torch.corrcoef(series) - torch.eye(4)).abs().max() < 0.03
    assert (torch.corrcoef(first[0].T) - torch.eye(400)).abs().max() < 0.8  # no two frames are alike
    shared = FrameNoise(-1, shared=True)(z)
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[0], first[0])


def test_noise_like():
    z = torch.zeros(2, 3, 5, dtype=torch.float64)
    assert torch.equal(noise_like(z, seeded(1)), some(2, 3, 5, seed=1, dtype=torch.float64))
    torch.manual_seed(3)
    first = noise_like(z)
    torch.manual_seed(3)
    assert torch.equal(first, noise_like(z))


def test_bad_input_says_what_to_do():
    schedule, z = make("cosine", 10), torch.zeros(1, 2, 3)
    mask = torch.ones(1, 1, 3, dtype=torch.bool)
    for call, message in [
        (lambda: ddim(network, z, schedule, 11), "1 to 10 steps, not 11"),
        (lambda: ddpm(network, z, schedule, 0), "1 to 10 steps, not 0"),
        (lambda: dpmpp_2m(network, z, schedule, 2.5), "not 2.5"),
        (lambda: ddim(lambda z, t: z, z, schedule, 2, eta=1.5), "eta lies between 0"),
        (lambda: one_step(network, z, schedule, 4), "choose ddim or dpmpp_2m"),
        (lambda: ddim(lambda z, t: z[:, :1], z, schedule, 2), r"\(1, 1, 3\) for a z_t of \(1, 2, 3\)"),
        (lambda: inpaint(network, z, mask.float(), schedule, 2), "the mask is boolean"),
        (lambda: inpaint(network, z, torch.ones(2, 1, 3).bool(), schedule, 2), "the mask is boolean"),
        (lambda: inpaint(network, z, torch.ones(1, 1, 4).bool(), schedule, 2), "the mask is boolean"),
        (lambda: inpaint(network, z, mask, schedule, 2, jump=0), "from 1 on"),
        (lambda: inpaint(network, z, mask, schedule, 11), "1 to 10 steps"),
    ]:
        with pytest.raises(WavelldmError, match=message):
            call()
