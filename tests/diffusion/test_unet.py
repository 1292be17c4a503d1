import pytest
import torch

from wavelldm.config import override
from wavelldm.diffusion.unet import UNet, UNetConfig, step_embedding
from wavelldm.errors import WavelldmError
from wavelldm.nn.layers import count_parameters
from wavelldm.training.presets import preset

SMALL = UNetConfig(dims=(32, 32, 48), cond_dim=16, embedding=32, window=4)


def make(config=SMALL, dim=24, seed=0):
    """A U-Net whose every weight counts, also those that begin at zero."""
    torch.manual_seed(seed)
    net = UNet(config, dim).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2) if p.ndim > 1 else None
    return net


def inputs(frames, dim=24, seed=1):
    g = torch.Generator().manual_seed(seed)
    z, cond = torch.randn(2, 2, dim, frames, generator=g)
    return z, torch.tensor([3, 700]), cond


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 37])
@pytest.mark.parametrize("dims", [(32,), (32, 48), (32, 32, 48)])
def test_any_number_of_frames(frames, dims):
    net = make(UNetConfig(dims=dims, cond_dim=16, embedding=32))
    z, t, cond = inputs(frames)
    assert net(z, t, cond).shape == net(z, t).shape == z.shape


@pytest.mark.parametrize("frame", [0, 7, 20, 36])
def test_causal_by_gradient(frame):
    net = make()
    z, t, cond = inputs(37)
    z.requires_grad_(), cond.requires_grad_()
    net(z, t, cond)[..., frame].square().sum().backward()
    for x in (z, cond):
        assert x.grad[..., frame + 1 :].abs().sum() == 0
        assert (x.grad[..., max(0, frame - 4) : frame + 1].abs().sum((0, 1)) > 0).all()


def test_without_causality_it_looks_ahead():
    net = make(UNetConfig(dims=(32, 48), cond_dim=16, embedding=32, causal=False))
    z, t, cond = inputs(16)
    z.requires_grad_()
    net(z, t, cond)[..., 5].sum().backward()
    assert z.grad[..., 6].abs().sum() > 0
    with pytest.raises(WavelldmError, match="cannot stream"):
        net.initial_state(2)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 64])
@pytest.mark.parametrize("conditioned", [True, False])
def test_streaming_equals_the_whole(size, conditioned):
    net = make()
    z, t, cond = inputs(45)
    cond = cond if conditioned else None
    with torch.no_grad():
        whole, state, parts = net(z, t, cond), net.initial_state(2), []
        for i in range(0, 45, size):
            part = slice(i, i + size)
            y, state = net.step(z[..., part], t, None if cond is None else cond[..., part], state)
            parts.append(y)
            empty, state = net.step(z[..., :0], t, None if cond is None else cond[..., :0], state)
            assert empty.shape[-1] == 0
    joined = torch.cat(parts, dim=-1)
    apart = (joined - whole).abs().amax((0, 1))
    assert apart.max() < 1e-4, f"first difference at frame {int((apart > 1e-4).nonzero()[0])}"


def test_everything_stays_on_its_device():
    """`meta` tensors have no values: whatever leaves their device fails."""
    net = make().to("meta")
    z, t, cond = (x.to("meta") for x in inputs(9))
    y, _ = net.step(z, t, cond, net.initial_state(2))
    assert y.device.type == net(z, t, cond, drop=t > 5).device.type == "meta"


def test_step_and_condition_matter_and_dropping_the_condition_is_having_none():
    net = make()
    with torch.no_grad():
        net.nothing.normal_()
        z, t, cond = inputs(12)
        y = net(z, t, cond)
        assert (y - net(z, t + 100, cond)).abs().max() > 1e-3
        assert (y - net(z, t, cond + 1)).abs().max() > 1e-3
        dropped = net(z, t, cond, drop=torch.tensor([True, False]))
        assert torch.allclose(dropped[0], net(z, t)[0], atol=1e-5) and torch.allclose(dropped[1], y[1], atol=1e-5)


def test_it_begins_by_predicting_nothing():
    torch.manual_seed(0)
    z, t, cond = inputs(9)
    assert UNet(SMALL, 24)(z, t, cond).abs().max() == 0


def test_attention_reaches_exactly_its_window():
    """One rate, kernel 1: only attention mixes frames, so the reach is the window."""
    net = make(UNetConfig(dims=(32,), cond_dim=16, embedding=32, kernel=1, window=5, heads=2))
    z, t, cond = inputs(20)
    z.requires_grad_()
    net(z, t, cond)[..., 15].square().sum().backward()
    seen = (z.grad.abs().sum((0, 1)) > 1e-9).nonzero()[:, 0]
    assert seen.tolist() == list(range(11, 16))


def test_sizes_from_half_a_million_to_the_papers():
    sizes = [
        count_parameters(UNet(preset(name).diffusion.unet, 384)) / 1e6 for name in ("small", "base16k", "paper44k")
    ]
    assert 0.4 < sizes[0] < 0.8 and 2 < sizes[1] < 5 and 13 < sizes[2] < 15.5, sizes
    assert override(preset("tiny"), ["diffusion.unet.dims=16,24"]).diffusion.unet.dims == (16, 24)


def test_the_step_embedding_tells_all_steps_apart():
    e = step_embedding(torch.arange(1000), 64)
    assert e.shape == (1000, 64) and torch.cdist(e, e).fill_diagonal_(9).min() > 0.05
    assert torch.allclose(e[0], torch.cat([torch.zeros(32), torch.ones(32)]))


@pytest.mark.parametrize("z, t, cond", [
    ((2, 24, 5), (2,), (2, 24, 6)), ((2, 23, 5), (2,), None), ((2, 24, 5), (1,), None), ((24, 5), (2,), None),
])  # fmt: skip
def test_wrong_shapes_are_named(z, t, cond):
    with pytest.raises(WavelldmError, match="batch"):
        make()(torch.zeros(z), torch.zeros(t, dtype=torch.long), None if cond is None else torch.zeros(cond))
