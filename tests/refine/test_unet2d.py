import math
from dataclasses import replace

import pytest
import torch

from wavelldm.errors import WavelldmError
from wavelldm.nn.layers import count_parameters
from wavelldm.refine.prior import PriorConfig
from wavelldm.refine.unet2d import ACTIVATIONS, UNet2d, convolution, fold, unfold
from wavelldm.training.presets import preset

SMALL = PriorConfig(n_fft=64, dims=(8, 12, 16), shrink_bins=(4, 2), shrink_frames=(1, 2), embedding=16)  # 32 bins


def make(config=SMALL, seed=0):
    """A U-Net whose every weight counts, also those that begin at zero."""
    torch.manual_seed(seed)
    net = UNet2d(config).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2) if p.ndim > 1 else None
    return net


def inputs(frames=12, seed=1, bins=32):
    return torch.randn(2, 2, bins, frames, generator=torch.Generator().manual_seed(seed)), torch.tensor([3, 700])


@pytest.mark.parametrize("kernel", [(3, 3), (7, 3), (1, 5)])
@pytest.mark.parametrize("d_in, d_out", [(8, 8), (12, 20)])
def test_separable_convolutions_have_as_many_weights_as_the_formula_says(kernel, d_in, d_out):
    """W H d_in + d_in d_out against W H d_in d_out, and one bias per output channel for both."""
    w_h = math.prod(kernel)
    assert count_parameters(convolution(d_in, d_out, kernel, separable=True)) == w_h * d_in + d_in * d_out + d_out
    assert count_parameters(convolution(d_in, d_out, kernel, separable=False)) == w_h * d_in * d_out + d_out
    x = torch.randn(1, d_in, 8, 8)
    shapes = {convolution(d_in, d_out, kernel, (2, 1), separable)(x).shape for separable in (True, False)}
    assert shapes == {(1, d_out, 4, 8)}


def test_the_whole_network_shrinks_by_what_its_convolutions_save():
    sizes = [count_parameters(UNet2d(replace(SMALL, separable=s))) for s in (True, False)]
    saved = 0
    for module in UNet2d(replace(SMALL, separable=False)).network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size != (1, 1):
            w_h, d_in, d_out = math.prod(module.kernel_size), module.in_channels, module.out_channels
            saved += w_h * d_in * d_out - w_h * d_in - d_in * d_out
    assert saved > 0 and sizes[1] - sizes[0] == saved
    assert 0.7e6 < count_parameters(UNet2d(preset("base16k").prior)) < 1.5e6


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 37])
@pytest.mark.parametrize("separable", [True, False])
def test_any_number_of_frames(frames, separable):
    x, t = inputs(frames)
    assert make(replace(SMALL, separable=separable))(x, t).shape == x.shape


def test_neighbouring_bins_are_taken_together_and_apart_again():
    x, _ = inputs(5)
    folded = fold(x, 4)
    assert folded.shape == (2, 8, 8, 5) and torch.equal(unfold(folded, 4), x)
    for k in range(8):
        assert torch.equal(folded[:, :, k], x[:, :, 4 * k : 4 * k + 4].flatten(1, 2))


@pytest.mark.parametrize("patch", [1, 2])
def test_the_finest_level_changes_only_what_is_near(patch):
    net, (x, t) = make(replace(SMALL, patch=patch)), inputs(16)
    torch.nn.init.zeros_(net.network.up.weight)  # so that the coarser ones do not speak
    moved = x.clone()
    moved[:, :, 20, 8] += 1
    changed = (net(moved, t) - net(x, t)).abs().sum((0, 1, 3)) > 1e-6  # (bins,)
    first, last = int(changed.nonzero()[0]), int(changed.nonzero()[-1])
    assert (first, last) == (20 - 6 * patch, min(31, 20 + 7 * patch - 1)), (
        "six convolutions that each see one place on either side"
    )


def test_one_level_is_enough():
    config = replace(SMALL, dims=(8,), shrink_bins=(), shrink_frames=())
    x, t = inputs(3)
    assert make(config)(x, t).shape == x.shape


def test_it_begins_by_predicting_nothing():
    torch.manual_seed(0)
    assert UNet2d(SMALL)(*inputs()).abs().max() == 0


def test_every_weight_learns_and_every_step_counts():
    net, (x, t) = make(), inputs()
    y = net(x, t)
    y.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []
    later = net(x, t + 100)
    assert ((later - y).abs().amax((1, 2, 3)) > 1e-3).all()
    for block in (m for m in net.modules() if hasattr(m, "by_step")):
        torch.nn.init.zeros_(block.by_step.weight)
    torch.nn.init.zeros_(net.past.weight)
    assert torch.equal(net(x, t), net(x, t + 100)), "the step has another way in"


def test_attention_reaches_where_no_convolution_does():
    """The gradient of the last frame with respect to the first: there with attention, gone without."""

    def reach(net):
        x, t = inputs(120)
        x.requires_grad_()
        net(x, t)[..., -1].square().sum().backward()
        return float(x.grad[..., 0].abs().sum())

    net = make()
    assert reach(net) > 0
    torch.nn.init.zeros_(net.network.below.below.attention.out.weight)
    assert reach(net) == 0


def test_bins_are_told_apart():
    net, (x, t) = make(), inputs()
    flat = torch.ones_like(x)
    with torch.no_grad():
        torch.nn.init.zeros_(net.place)
        middle = net(flat, t)[:, :, 12:20, 6]
        net.place.normal_()
        assert (net(flat, t)[:, :, 12:20, 6] - middle).abs().max() > 1e-2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_what_they_are_called(name):
    net = make(replace(SMALL, activation=name))
    kinds = {type(m) for m in net.network.modules() if type(m).__module__ == "torch.nn.modules.activation"}
    assert kinds == {ACTIVATIONS[name]} and type(net.leave[1]) is ACTIVATIONS[name]


@pytest.mark.parametrize("change, words", [
    ({"activation": "tanh"}, "silu, relu, gelu"), ({"shrink_bins": (4,)}, "one fewer"), ({"dims": ()}, "one fewer"),
    ({"shrink_bins": (3, 2)}, "divisor"), ({"heads": 3}, "multiple of the heads"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_named(change, words):
    with pytest.raises(WavelldmError, match=words):
        UNet2d(replace(SMALL, **change))


@pytest.mark.parametrize(
    "x, t", [((2, 2, 31, 4), 2), ((2, 1, 32, 4), 2), ((2, 2, 32, 4), 1), ((2, 2, 32, 0), 2), ((2, 32, 4), 2)]
)
def test_wrong_shapes_are_named(x, t):
    with pytest.raises(WavelldmError, match="frames"):
        make()(torch.zeros(x), torch.zeros(t, dtype=torch.long))
