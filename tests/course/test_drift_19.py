"""What notebook 19 builds by hand is what the module has."""

import numpy as np
import pytest
import torch
from lift import definitions
from signals import noisy, speechlike
from torch import nn

from wavelldm import weights
from wavelldm.course.steps_late import rounded
from wavelldm.denoise.mask import MaskConfig, MaskNet
from wavelldm.export import graphs, write
from wavelldm.light import denoiser as light

torch.set_num_threads(1)
HAND = definitions("19")


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [16, 512])
def test_the_transform(n):
    window = torch.hann_window(n).sqrt()
    mine, theirs = HAND["my_bases"](window), graphs.bases(window, torch.arange(float(n)))
    for a, b in zip(mine, theirs):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-5


def test_complex_products():
    z = noise(2, 3, 7)
    assert torch.equal(HAND["my_turned"](z), graphs.turned(z))
    real, imag = noise(2, 3, 7, seed=2)
    a = HAND["my_product"](real, imag, z)
    assert torch.allclose(torch.complex(*a), torch.complex(real, imag) * torch.complex(*z), atol=1e-6)


def test_frames_and_overlap_are_those_of_the_graph():
    graph = graphs.Whole(MaskNet(MaskConfig(width=8, blocks=1)))
    wav = noise(5 * 256)
    spec = graph.spectrum(wav[None])  # (2, T, bins)
    there, back = HAND["my_bases"](torch.hann_window(512).sqrt())
    mine = HAND["my_frames"](wav) @ there
    assert torch.allclose(mine, torch.cat([spec[0], spec[1]], dim=1), atol=1e-4)
    frames = graph.frames(spec).flatten(1)
    out, tail = HAND["my_overlap"](frames, torch.ones(256))
    assert torch.allclose(out[:256], frames[0, :256] + 1) and torch.allclose(tail, frames[-1, 256:])
    assert torch.allclose(out[256:], frames[1:, :256].flatten() + frames[:-1, 256:].flatten())


def test_the_recurrence():
    torch.manual_seed(0)
    gru, x, h = nn.GRU(6, 5), noise(3, 6), noise(3, 5, seed=2)
    with torch.no_grad():
        mine = HAND["my_gru_step"](x, h, gru)
        assert torch.allclose(mine, graphs.Recurrence(gru, "_l0")(x[None], h[None])[0], atol=1e-6)


def test_the_stream_by_hand_is_that_of_the_module():
    model = light.load("live")
    wav = noisy(speechlike(1.0), 5.0)[None, :12_345].astype(np.float32)
    stream = model.stream(16_000)
    theirs = np.concatenate([stream.push(wav), stream.finish()], axis=1)
    assert np.abs(HAND["my_stream"](model.graph.session, wav) - theirs).max() < 1e-6


def test_rounding():
    x = noise(7, 5)
    small, scale = weights.as_bytes(x)
    assert torch.allclose(rounded(x, 8), small * scale, atol=1e-6)
    assert max(len(row.unique()) for row in rounded(x, 2)) <= 3
    y = noise(4, 5, seed=3)
    exact = y @ x.T
    assert (HAND["my_product_in_bytes"](y, x) - exact).abs().max() < 0.02 * exact.abs().max()


def test_an_attribute_is_forgotten_and_an_input_is_not():
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    forgetful = HAND["exported"](HAND["Forgetful"](), (torch.ones(1),), ["x"], ["y"])
    assert forgetful.run(None, {"x": one}) == forgetful.run(None, {"x": one})
    honest = HAND["exported"](HAND["Honest"](), (torch.ones(1), torch.zeros(1)), ["x", "mean"], ["y", "mean_out"])
    first, mean = honest.run(None, {"x": one, "mean": zero})
    assert honest.run(None, {"x": one, "mean": mean})[0] == pytest.approx(0.19) and first == pytest.approx(0.1)
    assert write.TOLERANCE == 1e-4
