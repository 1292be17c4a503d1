import pytest
import torch

from wavelldm.ladder import refinement
from wavelldm.training.presets import preset


def mels(seed=0):
    g = torch.Generator().manual_seed(seed)
    return -5 + 3 * torch.randn(2, 100, 30, generator=g)


def test_it_begins_as_nothing_and_improves_its_training_batch():
    torch.manual_seed(0)
    net, wanted = refinement.Refinement(preset("tiny").refinement), mels()
    coarse = torch.nn.functional.avg_pool2d(wanted[:, None], 3, 1, 1)[:, 0]
    assert torch.equal(net(coarse), coarse)
    before = float((coarse - wanted).abs().mean())
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        out = net(coarse)
        ((out - wanted).abs().mean() + refinement.edges(out, wanted)).backward()
        optimiser.step()
    assert float((net(coarse) - wanted).detach().abs().mean()) < 0.9 * before


def test_edges_see_blur_that_a_mean_does_not():
    wanted = mels()
    assert float(refinement.edges(wanted, wanted)) == 0
    assert float(refinement.edges(wanted + 0.5, wanted)) == pytest.approx(0, abs=1e-6)
    blurred = torch.nn.functional.avg_pool2d(wanted[:, None], 3, 1, 1)[:, 0]
    by_hand = [(blurred.diff(dim=a) - wanted.diff(dim=a)).abs().mean() for a in (1, 2)]
    assert float(refinement.edges(blurred, wanted)) == pytest.approx(float(sum(by_hand)) / 2)


def test_the_post_filter_sharpens_and_keeps_the_energy():
    bands = torch.arange(64.0)
    mel = (-6 + 3 * torch.cos(bands / 4))[None, :, None].repeat(1, 1, 5)
    out = refinement.post_filter(mel, 0.5)
    assert torch.allclose(torch.logsumexp(2 * out, 1), torch.logsumexp(2 * mel, 1), atol=1e-5)
    assert out.std(1).mean() > 1.02 * mel.std(1).mean()
    assert torch.allclose(refinement.post_filter(mel, 0.0), mel, atol=1e-5)
