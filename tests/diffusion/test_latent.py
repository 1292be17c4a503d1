import csv

import pytest
import torch

from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.diffusion.samplers import FrameNoise
from wavelldm.errors import WavelldmError
from wavelldm.training import loop
from wavelldm.training.diffusion import DiffusionOptions, DiffusionTask
from wavelldm.training.latents import Latents
from wavelldm.training.presets import preset

TINY = preset("tiny")
D = TINY.codec.latent_dim
FULL = DiffusionOptions(half=False)
PATHS = {
    "noise": ["diffusion.predicts=z0"],
    "v": ["diffusion.predicts=v"],
    "eps": ["diffusion.predicts=eps"],
    "bridge": ["diffusion.path=bridge", "diffusion.predicts=z0"],
    "none": ["diffusion.path=none", "diffusion.predicts=z0"],
}


def make(kind="noise", seed=0):
    torch.manual_seed(seed)
    model = LatentDiffusion(override(TINY, PATHS[kind]).diffusion).eval()
    for p in model.unet.parameters():
        torch.nn.init.normal_(p, std=0.1) if p.ndim > 1 else None
    model.measure(torch.randn(D), 0.5 + torch.rand(D))
    return model


def some(frames=21, seed=3, batch=2):
    return 2 * torch.randn(batch, D, frames, generator=torch.Generator().manual_seed(seed)) + 1


def test_the_scale_of_latents_is_taken_off_put_back_and_kept_with_the_weights():
    model, z = make(), some(500)
    model.measure(z.mean((0, 2)), z.std((0, 2)))
    scaled = model.normalise(z)
    assert scaled.mean((0, 2)).abs().max() < 1e-5 and (scaled.std((0, 2)) - 1).abs().max() < 1e-4
    assert torch.allclose(model.denormalise(scaled), z, atol=1e-5)
    assert {"mean", "deviation"} <= set(model.state_dict())
    with pytest.raises(WavelldmError, match="statistics"):
        model.measure(torch.zeros(D), torch.zeros(D))


@pytest.mark.parametrize("kind", ["noise", "v", "eps", "bridge"])
def test_who_knows_z0_gets_it_in_any_number_of_steps(kind):
    """With an oracle in the network's place every path ends at the clean latent exactly."""
    model, noisy, clean = make(kind), some(seed=1), some(seed=2)
    z0 = model.normalise(clean)
    model.denoise = lambda z_t, t, cond, guidance=1.0: z0
    for steps in (1, 2, 7):
        assert torch.allclose(model.sample(noisy, steps), clean, atol=1e-4)


@pytest.mark.parametrize("kind", ["noise", "bridge"])
def test_the_path_begins_and_ends_where_it_should(kind):
    model, noisy, clean = make(kind), model_latent(1), model_latent(2)
    eps = torch.randn(noisy.shape)
    last = torch.full((2,), model.schedule.steps - 1)
    assert torch.allclose(model.between(clean, noisy, last, eps), model.start(noisy, eps), atol=1e-5)
    near = model.between(clean, noisy, torch.zeros(2, dtype=torch.long), eps)
    assert (near - clean).abs().max() < 0.1


def model_latent(seed):
    return torch.randn(2, D, 11, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 4, 6, 16, 23])
@pytest.mark.parametrize(
    "kind, steps, sampler",
    [("noise", 1, None), ("noise", 3, "ddim"), ("noise", 4, "ddpm"), ("noise", 3, "dpmpp_2m"),
     ("bridge", 3, None), ("none", 1, None)],
)  # fmt: skip
def test_streaming_equals_the_whole(kind, steps, sampler, size):
    """For samplers that draw noise in every step, too."""
    model, noisy, noise = make(kind), some(23), FrameNoise(5)
    whole = model.sample(noisy, steps, sampler, noise=noise)
    state, parts = model.initial_state(len(noisy), steps, sampler, noise), []
    for part in noisy.split(size, dim=-1):
        z, state = model.step(part, state)
        parts.append(z)
        empty, state = model.step(part[..., :0], state)
        assert empty.shape == (*part.shape[:2], 0)
    apart = (torch.cat(parts, dim=-1) - whole).abs().amax((0, 1))
    assert apart.max() < 1e-3, f"first difference at frame {int((apart > 1e-3).nonzero()[0])}"


def test_a_predictor_takes_one_step():
    for ask in (make("none").sample, lambda z, steps: make("none").initial_state(2, steps)):
        with pytest.raises(WavelldmError, match="1 step"):
            ask(some(), 3)


def test_equal_channels_are_filled_with_the_same_speech():
    model, z = make(), some(30, batch=1).expand(2, -1, -1)
    missing = torch.zeros(2, 1, 30, dtype=torch.bool)
    missing[..., 10:15] = True
    for shared in (True, False):
        noise = FrameNoise(1, shared=shared)
        drawn = model.sample(z, 4, "ddpm", noise=noise), model.fill(z, missing, z, 5, noise)
        assert [torch.allclose(x[0], x[1], atol=1e-5) for x in drawn] == [shared, shared]


def test_the_same_seed_gives_the_same_and_another_another():
    model, z = make(), some()
    again = [model.sample(z, 3, "ddpm", noise=FrameNoise(seed)) for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1]) and (again[0] - again[2]).abs().max() > 1e-2
    assert torch.equal(model.sample(z), model.sample(z)), "also without a seed"


def test_everything_stays_on_its_device():
    """`meta` tensors have no values: whatever leaves their device fails."""
    model, z = make("v").to("meta"), some().to("meta")
    drawn, _ = model.step(z, model.initial_state(2, 2, "ddpm"))
    missing = torch.zeros(2, 1, 21, dtype=torch.bool, device="meta")
    for out in (drawn, model.sample(z, 2, guidance=2.0), model.fill(z, missing, z, 5)):
        assert out.device.type == "meta" and out.shape == z.shape


def test_guidance_one_is_none_and_zero_forgets_the_condition():
    model, z, t = make(), some(), torch.tensor([500, 900])
    with torch.no_grad():
        model.unet.nothing.normal_()
        one, zero, two = (model.denoise(z, t, z, g) for g in (1.0, 0.0, 2.0))
        assert torch.allclose(zero, model.denoise(z, t, None), atol=1e-5)
        assert torch.allclose(two - one, one - zero, atol=1e-3) and (one - zero).abs().max() > 1e-3


def test_filling_keeps_what_is_known():
    model, z = make(), some(30)
    missing = torch.zeros(2, 1, 30, dtype=torch.bool)
    missing[..., 10:15] = True
    filled = model.fill(z, missing, z, steps=5)
    kept = ~missing.expand_as(z)
    assert torch.allclose(filled[kept], z[kept], atol=1e-4) and (filled - z)[~kept].abs().min() > 0


def test_samplers_and_paths_that_do_not_fit_are_named():
    with pytest.raises(WavelldmError, match="does not sample this model; choose ddpm or ddim"):
        make().sample(some(), 1, "bridge")
    with pytest.raises(WavelldmError, match="choose bridge"):
        make("bridge").sample(some(), 1, "ddim")
    with pytest.raises(WavelldmError, match="pure noise"):
        make("bridge").fill(some(), torch.zeros(2, 1, 21, dtype=torch.bool), some())
    for wrong in (
        ["diffusion.path=tunnel"],
        ["diffusion.predicts=x"],
        ["diffusion.path=bridge", "diffusion.predicts=v"],
    ):
        with pytest.raises(WavelldmError, match="set predicts=z0|predicts eps"):
            LatentDiffusion(override(TINY, wrong).diffusion)


# --- training ---------------------------------------------------------------------------------------------------------


def latents(count=8, frames=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    clean = torch.randn(count, D, 1, generator=g) + 0.1 * torch.randn(count, D, frames, generator=g)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=g)
    return Latents(noisy.half().numpy(), clean.half().numpy(), clean.mean((0, 2)), clean.std((0, 2)))


@pytest.mark.parametrize("kind", list(PATHS))
def test_one_batch_is_overfitted(tmp_path, kind):
    """In single precision, at a rate at which v is well under its bound (0.50).

    bfloat16, which the task takes where the processor has it, leads to other figures: with v and a rate of 4e-3 to
    0.74 of the first score instead of 0.81.
    """
    held, p = latents(4), override(TINY, [*PATHS[kind], "diffusion.unet.dims=64,96"])
    task = DiffusionTask(p.diffusion, Codec(p.codec), FULL).with_latents(held, held)
    batch = held.batch(0, 4, 40)
    task.batches = lambda start: iter([batch] * 200)
    plan = loop.Plan(steps=150, lr=1e-3, warmup=10, valid_every=150, ema=0.9)
    before = task.validate(task.networks["model"])
    result = loop.fit(task, plan, tmp_path, progress=False)
    (row,) = csv.DictReader(open(tmp_path / "log.csv"))
    assert (
        result["best"] < {"v": 0.8, "eps": 0.7}.get(kind, 0.5) * before["score"]
    )  # v and eps hold noise, which cannot be learnt
    if kind != "eps":  # where nothing of the signal is left, an error in eps becomes a hundred times as large in z0
        assert float(row["steps_1"]) < 0.6 * before["steps_1"]
    names = {"score", "at_end", "steps_1", "unet"} | (set() if kind == "none" else {"steps_5"})
    assert names <= set(row)


@pytest.mark.parametrize("decoder", ["istft", "pulse"])
def test_what_is_decoded_can_count_too(tmp_path, decoder):
    held, p = latents(4), override(TINY, ["diffusion.unet.dims=64,96", f"codec.decoder={decoder}"])
    options = DiffusionOptions(half=False, decoded=2.0)
    task = DiffusionTask(p.diffusion, Codec(p.codec), options).with_latents(held, held)
    batch, plan = held.batch(0, 4, 40), loop.Plan(steps=60, lr=4e-3, warmup=5, valid_every=60, ema=0.9)
    before = task.validate(task.networks["model"])
    task.batches = lambda start: iter([batch] * 99)
    loop.fit(task, plan, tmp_path, progress=False)
    after = task.validate(task.networks["model"])
    assert after["decoded_1"] < 0.8 * before["decoded_1"] and not any(q.requires_grad for q in task.codec.parameters())
    hifigan = override(TINY, ["codec.decoder=hifigan", "codec.decoder_dim=16", "codec.upsample=8,8,2,2"])
    with pytest.raises(WavelldmError, match="no outline"):
        DiffusionTask(hifigan.diffusion, Codec(hifigan.codec), DiffusionOptions(decoded=1.0))


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    held = latents()

    def run(folder, *ends):
        for end in ends:
            task = DiffusionTask(TINY.diffusion, Codec(TINY.codec), FULL).with_latents(held, held)
            task.batches = lambda start, end=end: (held.batch(k, 4, 20) for k in range(start, end))
            loop.fit(task, loop.Plan(steps=6, warmup=2, valid_every=3, save_every=end), folder, progress=False)
        return loop.load_checkpoint(folder / "last.pt")

    once, twice = run(tmp_path / "once", 6), run(tmp_path / "twice", 3, 6)
    assert once["step"] == twice["step"] == 6
    for name, weight in once["networks"]["model"].items():
        assert torch.equal(weight, twice["networks"]["model"][name]), name


def test_crops_depend_on_seed_and_step_alone_and_fit_their_twins():
    held = latents(count=5, frames=50)
    noisy, clean = held.batch(3, 6, 20, seed=1)
    again = held.batch(3, 6, 20, seed=1)
    assert noisy.shape == clean.shape == (6, D, 20) and torch.equal(noisy, again[0])
    assert not torch.equal(held.batch(4, 6, 20, seed=1)[0], noisy)
    for k in range(6):  # every crop lies at the same place of the same pair
        places = [
            (r, s) for r in range(5) for s in range(31)
            if torch.equal(torch.from_numpy(held.clean[r, :, s : s + 20].astype("float32")), clean[k])
        ]  # fmt: skip
        ((r, s),) = places
        assert torch.equal(torch.from_numpy(held.noisy[r, :, s : s + 20].astype("float32")), noisy[k])
