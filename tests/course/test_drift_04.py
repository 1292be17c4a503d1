"""What notebook 04 builds by hand is what the module has."""

from dataclasses import replace

import pytest
import torch
from lift import definitions

from wavelldm.audio import pitch
from wavelldm.codec.model import Codec, make_encoder
from wavelldm.nn import layers
from wavelldm.training.presets import PRESETS, preset

torch.set_num_threads(1)
HAND = definitions("04")


@pytest.fixture(autouse=True)
def seeded():
    """Weights are drawn where they are built: the same ones whatever ran before."""
    torch.manual_seed(0)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def same(mine, theirs, atol=1e-4):
    assert mine.shape == theirs.shape
    assert torch.allclose(mine, theirs, atol=atol), f"differ by {(mine - theirs).abs().max():.2g}"
    assert mine.std() > 0


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("depthwise", (True, False))
@pytest.mark.parametrize("kernel, stride, dilation", [(7, 1, 1), (3, 1, 5), (4, 4, 1), (7, 3, 2), (1, 1, 1)])
def test_the_convolution(kernel, stride, dilation, depthwise, causal):
    mine = HAND["Conv"](6, 6, kernel, stride, dilation, depthwise, causal)
    theirs = layers.Conv1d(6, 6, kernel, stride, dilation, 6 if depthwise else 1, causal)
    theirs.load_state_dict(mine.state_dict())
    for n in (1, 2, 41, 48):
        same(mine(noise(2, 6, n)), theirs(noise(2, 6, n)), 1e-5)


@pytest.mark.parametrize("sizes", ([41], [1] * 41, [5, 1, 20, 15]), ids=str)
def test_the_streaming_convolution_and_its_state(sizes):
    mine, theirs = HAND["Conv"](6, 4, 7, dilation=2), layers.Conv1d(6, 4, 7, dilation=2, causal=True)
    theirs.load_state_dict(mine.state_dict())
    parts, state, state_theirs = [], mine.initial_state(2), theirs.initial_state(2)
    for chunk in noise(2, 6, 41).split(sizes, dim=-1):
        y, state = mine.step(chunk, state)
        _, state_theirs = theirs.step(chunk, state_theirs)
        assert torch.equal(state, state_theirs)
        parts.append(y)
    same(torch.cat(parts, dim=-1), theirs(noise(2, 6, 41)), 1e-5)


def shaken(network):
    """Weights that are still 1, 0 or 0.1 would hide a mistake."""
    for i, p in enumerate(network.parameters()):
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return network


@pytest.mark.parametrize("causal", (True, False))
def test_the_block(causal):
    mine, theirs = shaken(HAND["Block"](12, 3, causal)), layers.ConvNeXtBlock(12, 3, causal)
    theirs.load_state_dict(mine.state_dict())
    same(mine(noise(2, 12, 30)), theirs(noise(2, 12, 30)), 1e-5)


def variant(**codec):
    return replace(preset("tiny").codec, **codec)


@pytest.mark.parametrize(
    "p", [variant(), variant(causal=True, strides=(2, 3)), variant(latent_dim=40)], ids=["tiny", "strides", "projected"]
)
def test_the_encoder(p):
    mine, theirs = shaken(HAND["my_encoder"](p)), make_encoder(p)
    theirs.load_state_dict(mine.state_dict())
    same(mine(noise(2, 100, 31)), theirs(noise(2, 100, 31)))


def test_the_encoder_that_hears_the_pitch():
    p = variant(pitch_input=True)
    mine = shaken(HAND["my_encoder"](p, heard=p.mel.n_mels + pitch.COUNT))
    theirs = make_encoder(p)
    theirs.load_state_dict(mine.state_dict())
    same(mine(noise(2, 260, 31)), theirs(noise(2, 260, 31)))


@pytest.mark.parametrize("name", PRESETS)
def test_the_bitrate_and_the_count_of_parameters(name):
    p = preset(name).codec
    assert HAND["my_bitrate"](p) == pytest.approx(p.bitrate())
    with torch.device("meta"):
        assert sum(HAND["parts_of"](p).values()) == layers.count_parameters(Codec(p))


@pytest.mark.parametrize("chunk, longest", [(64, 640), (256, 640), (512, 896)])
def test_the_stream_and_its_delay(chunk, longest):
    torch.manual_seed(0)
    codec = Codec(variant(causal=True)).eval()
    wav = 0.1 * noise(1, 1, 8000)
    joined, steps = HAND["stream"](codec, wav, chunk)
    with torch.no_grad():
        same(joined, codec(wav).wav)
    assert HAND["delays"](steps) == longest
