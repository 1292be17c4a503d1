from dataclasses import replace

import pytest
import torch

from wavelldm.denoise.segan import (
    Critic,
    Segan,
    SeganConfig,
    critic_loss,
    deemphasise,
    emphasise,
    generator_loss,
)
from wavelldm.errors import WavelldmError
from wavelldm.training import loop
from wavelldm.training.presets import preset
from wavelldm.training.segan import SeganOptions, SeganTask

TINY = preset("tiny").segan
FULL = SeganOptions(half=False)


def make(config=TINY, seed=0):
    torch.manual_seed(seed)
    return Segan(config).eval()


def batch(n=2, samples=4_096, seed=0):
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(samples) / 16_000
    clean = 0.2 * torch.sin(2 * torch.pi * torch.tensor([220.0, 330.0, 440.0][:n])[:, None, None] * t)
    return clean + 0.1 * torch.randn(clean.shape, generator=g), clean


def test_no_layer_has_more_than_256_channels():
    net = Segan()
    assert max(max(conv.weight.shape[:2]) for conv in net.down) == 256
    assert all(conv.kernel_size == (31,) and conv.stride == (2,) for conv in [*net.down, *net.up])
    assert net.config.window == 16_384 and net.config.emphasis == 0.95


@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize("n", [1, 15, 16, 4_097, 9_999])
def test_as_long_as_the_input(latent, n):
    net = make(replace(TINY, latent=latent))
    out = net(0.1 * torch.randn(2, 1, n))
    assert out.shape == (2, 1, n) and torch.isfinite(out).all()
    assert net.generate(torch.randn(2, 1, n), net.draw(2, n)).shape == (2, 1, n)


def test_emphasis_and_back():
    wav = torch.randn(2, 1_000, generator=torch.Generator().manual_seed(0))
    y = emphasise(wav, 0.95)
    assert torch.allclose(y[:, 1:], wav[:, 1:] - 0.95 * wav[:, :-1]) and torch.equal(y[:, 0], wav[:, 0])
    assert (deemphasise(y, 0.95) - wav).abs().max() < 1e-5
    assert torch.allclose(emphasise(wav[:, 300:], 0.95, wav[:, 299:300]), y[:, 300:])
    assert (deemphasise(y[:, 300:], 0.95, wav[:, 299:300]) - wav[:, 300:]).abs().max() < 1e-5


def test_every_skip_is_used():
    """A change in any layer of the encoder reaches the output even when all deeper layers are cut off."""
    net = make()
    torch.nn.init.zeros_(net.up[0].weight)
    torch.nn.init.zeros_(net.up[0].bias)  # nothing passes through the bottleneck now
    x = torch.randn(1, 1, 4_096).requires_grad_()
    net.generate(x).square().sum().backward()
    assert x.grad.abs().max() > 0
    for conv in net.down[:-1]:
        assert conv.weight.grad.abs().max() > 0
    assert net.down[-1].weight.grad.abs().max() == 0


def test_z_is_drawn_from_the_seed_and_only_where_there_is_one():
    with_z, without, wav = make(replace(TINY, latent=True)), make(), 0.1 * torch.randn(1, 9_000)

    def run(net, seed):
        return net.clean(wav[None], torch.Generator().manual_seed(seed))

    assert torch.equal(run(with_z, 1), run(with_z, 1)) and not torch.equal(run(with_z, 1), run(with_z, 2))
    assert torch.equal(run(without, 1), run(without, 2))
    both = with_z.clean(wav.expand(2, -1)[:, None], torch.Generator().manual_seed(1))
    assert (both[0] - both[1]).abs().max() < 1e-6, "equal channels stay equal"
    with pytest.raises(WavelldmError, match="needs a z"):
        with_z.generate(wav[None])
    with pytest.raises(WavelldmError, match="takes no z"):
        without.generate(wav[None], with_z.draw(1, 9_000))
    with pytest.raises(WavelldmError, match="multiple of 16"):
        Segan(replace(TINY, window=1_000))


def test_least_squares_by_hand():
    true, false = torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.5])
    assert critic_loss(true, false) == pytest.approx(0.5 * 0.125 + 0.5 * 0.125)
    assert critic_loss(torch.ones(3), torch.zeros(3)) == 0 and critic_loss(torch.zeros(3), torch.ones(3)) == 1
    assert (
        generator_loss(torch.ones(3)) == 0
        and generator_loss(torch.zeros(3)) == 0.5
        and generator_loss(torch.full((3,), 0.5)) == pytest.approx(0.125)
    )


def test_the_task_shows_the_critic_the_right_pairs_and_weighs_l1():
    """With a critic that answers by what it is shown: clean 3, enhanced 2 (both, if the condition is the noisy
    sound)."""
    noisy, clean = batch()
    task = SeganTask(TINY, SeganOptions(l1=7.0, half=False))
    shown = []

    class Fixed(torch.nn.Module):
        def forward(self, condition, other):
            assert torch.equal(condition, emphasise(noisy, 0.95))
            real = torch.equal(other, emphasise(clean, 0.95))
            shown.append((real, other.requires_grad))
            return torch.full((2, 1, 4), 3.0 if real else 2.0)

    task.networks["critic"] = Fixed()
    (first, verdict, _), (second, total, parts) = task.losses((noisy, clean))
    made = task.networks["model"].generate(emphasise(noisy, 0.95))
    l1 = (made - emphasise(clean, 0.95)).abs().mean()
    assert (first, second) == ("critic", "generator") and shown == [(True, False), (False, False), (False, True)]
    assert verdict == pytest.approx(0.5 * 4 + 0.5 * 4) and parts["adversarial"] == pytest.approx(0.5)
    assert total.item() == pytest.approx(0.5 + 7 * l1.item(), rel=1e-5)
    assert SeganTask(TINY).l1 == 100


def test_critic_and_generator_each_get_their_own_gradients():
    task = SeganTask(TINY, FULL)
    for group, loss, _ in task.losses(batch()):
        for network in task.networks.values():
            network.zero_grad()
        loss.backward()
        moved = {
            name: any(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
            for name, net in task.networks.items()
        }
        assert moved["critic" if group == "critic" else "model"] and (group != "critic" or not moved["model"])


def test_the_critic_learns_to_tell_pairs_apart():
    torch.manual_seed(0)
    critic, (noisy, clean) = Critic(TINY), batch()
    optimiser = torch.optim.AdamW(critic.parameters(), 3e-3, SeganTask.plan(1).betas)
    for _ in range(80):
        optimiser.zero_grad()
        critic_loss(critic(noisy, clean), critic(noisy, noisy)).backward()
        optimiser.step()
    assert critic(noisy, clean).mean() > critic(noisy, noisy).mean() + 0.4


PLAN = SeganTask.plan(6, lr=1e-3, warmup=2, valid_every=3, save_every=2)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    config = replace(TINY, latent=True)  # z is drawn, and has to be drawn the same

    def stream(first):
        return (batch(seed=i) for i in range(first, 99))

    def task(batches):
        return SeganTask(config, FULL).with_data(batches, [batch(samples=9_000)])

    def broken(first):
        for i, x in enumerate(stream(first), first):
            if i == 5:
                raise OSError("power cut")
            yield x

    loop.fit(task(stream), PLAN, tmp_path / "whole", progress=False)
    with pytest.raises(OSError):
        loop.fit(task(broken), PLAN, tmp_path / "parts", progress=False)
    loop.fit(task(stream), PLAN, tmp_path / "parts", progress=False)
    a, b = (loop.load_checkpoint(tmp_path / x / "last.pt")["networks"] for x in ("whole", "parts"))
    for network in ("model", "critic"):
        for name in a[network]:
            assert torch.equal(a[network][name], b[network][name]), f"{network}.{name}"


def test_one_batch_is_overfitted(tmp_path):
    pair = batch()
    task = SeganTask(TINY, FULL).with_data(lambda first: iter([pair] * 99), [pair])
    before = task.validate(task.networks["model"])
    plan = SeganTask.plan(60, lr=3e-3, warmup=5, valid_every=60, ema=0.8)
    loop.fit(task, plan, tmp_path, progress=False)
    after = task.validate(task.networks["model"])
    assert after["valid_l1"] < 0.4 * before["valid_l1"] and after["valid_si_sdr"] > 5
    assert task.samples(task.networks["model"])["cleaned"].shape == (1, 4_096)


def test_full_size_has_the_papers_depth_as_an_option():
    net = Segan(SeganConfig(widths=(16, 32, 32, 64, 64, 128, 128, 256, 256, 256, 256)))
    assert net.generate(torch.zeros(1, 1, 16_384)).shape == (1, 1, 16_384)
