"""What notebook 14 builds by hand is what the module has."""

import pytest
import torch
from lift import definitions

from wavelldm.course.steps import deep_filter
from wavelldm.denoise import mask
from wavelldm.denoise.mask import MaskConfig, MaskNet

torch.set_num_threads(1)
HAND = definitions("14") | {"deep_filter": deep_filter}
for name in ("weights_of", "my_denoise", "my_features"):
    HAND[name].__globals__.update(deep_filter=deep_filter, sr=16_000, back=mask.banks(MaskConfig())[1])


def some(*shape, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(**changes) -> MaskNet:
    """Weights that are large enough for every part to matter."""
    torch.manual_seed(0)
    net = MaskNet(MaskConfig(width=8, blocks=2, **changes)).eval()
    for i, p in enumerate(net.parameters()):
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return net


def test_the_definitions_are_the_notebooks_own():
    for name in ("my_spectrum", "my_wave", "my_features", "my_banks", "my_gru", "MyBlock", "MyNet", "weights_of"):
        assert HAND[name].__module__ == "14_masks_and_deep_filtering"


@pytest.mark.parametrize("n", (4_000, 4_096, 700))
def test_the_spectrum_and_the_way_back(n):
    spec = HAND["my_spectrum"](some(1, n))
    torch.testing.assert_close(spec, network().spectrum(some(1, n)[None])[0])
    torch.testing.assert_close(HAND["my_wave"](spec, n), network().wave(spec[None], n)[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(HAND["my_wave"](spec, n), some(1, n), rtol=1e-4, atol=1e-6)


def test_the_features_and_the_bands():
    spec = HAND["my_spectrum"](some(1, 5_000))
    into, back = HAND["my_banks"](16_000)
    theirs = mask.banks(MaskConfig())
    assert torch.equal(into, theirs[0]) and torch.equal(back, theirs[1])
    torch.testing.assert_close(
        HAND["my_features"](spec) @ into, network().features(spec[None])[0], rtol=1e-4, atol=1e-4
    )


def test_the_gru():
    gru, x, h = torch.nn.GRU(6, 6), some(9, 4, 6), some(4, 6, seed=1)
    torch.testing.assert_close(HAND["my_gru"](x, gru, h), gru(x, h[None])[0], rtol=1e-5, atol=1e-6)


def by_hand(net: MaskNet):
    mine, state = HAND["MyNet"](net.config), net.state_dict()
    mine.load_state_dict({k: state[k].reshape(v.shape) for k, v in mine.state_dict().items()})
    return mine.eval()


@pytest.mark.parametrize("changes", ({}, {"taps": 2, "ahead": 2}, {"taps": 1, "ahead": 0}), ids=str)
def test_the_whole_network(changes):
    net, wav = network(**changes), some(1, 4_500)
    mine, used = HAND["my_denoise"](by_hand(net), wav, net.config)
    with torch.no_grad():
        theirs = net(wav[None])[0]
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert (mine - wav).abs().max() > 0.01 and used.shape[0] == 1 + net.config.taps + net.config.ahead


def test_without_the_filter_only_the_mask_is_left():
    net, wav = network(), some(1, 4_500)
    both, used = HAND["my_denoise"](by_hand(net), wav, net.config)
    alone, mask_only = HAND["my_denoise"](by_hand(net), wav, net.config, False)
    assert (both - alone).abs().max() > 1e-3
    assert mask_only[:4].abs().max() == mask_only[5:].abs().max() == 0 and torch.equal(mask_only[4], used[4])
