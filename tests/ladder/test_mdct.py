import pytest
import torch

from wavelldm.ladder.autoencoder import basis, frames, imdct, mdct


@pytest.mark.parametrize("n,hop", [(1, 4), (7, 4), (1000, 16), (3201, 320), (640, 320)])
def test_perfect_reconstruction_at_critical_sampling(n, hop):
    wav = torch.randn(2, 1, n, generator=torch.Generator().manual_seed(n))
    x = mdct(wav, hop)
    assert x.shape == (2, hop, frames(n, hop)) and x.shape[-1] <= n / hop + 2
    assert (imdct(x, n) - wav).abs().max() < 2e-6 * max(1, wav.abs().max())


def test_errors_keep_their_energy():
    wav = torch.randn(1, 1, 3_200)
    x = mdct(wav, 320)
    assert x.square().sum().item() == pytest.approx(wav.square().sum().item(), rel=1e-5)
    noise = torch.zeros_like(x)
    noise[:, :, 3:7] = torch.randn(1, 320, 4)
    heard = imdct(x + noise, 3_200) - wav
    assert heard.square().sum().item() == pytest.approx(noise.square().sum().item(), rel=1e-4)


def test_one_frame_alone_is_aliased_and_two_are_not():
    hop = 64
    b = basis(hop).double()
    assert (b.T @ b - torch.eye(hop)).abs().max() < 1e-5  # orthonormal columns
    alone = b @ b.T
    n = torch.arange(2 * hop) + 0.5
    window = torch.sin(torch.pi * n / (2 * hop)).double()
    first = alone[:hop, :hop]  # of the first half: w^2 on the diagonal, minus w times w mirrored across it
    wanted = torch.diag(window[:hop] ** 2) - torch.diag(window[:hop] * window[:hop].flip(0)).flip(1)
    assert (first - wanted).abs().max() < 1e-5
    assert (
        alone[:hop, :hop] + alone[hop:, hop:] - torch.eye(hop)
    ).abs().max() < 1e-5  # the neighbour's aliasing is the opposite


def test_a_tone_lies_where_it_should():
    t = torch.arange(16_000) / 16_000
    x = mdct(torch.sin(2 * torch.pi * 1_000 * t)[None, None], 320)
    assert x[0, :, 5:-5].square().sum(1).argmax().item() in (39, 40)  # 8000 Hz / 320 = 25 Hz apart
