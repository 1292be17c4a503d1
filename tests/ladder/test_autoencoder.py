import pytest
import torch
from signals import speechlike

from wavelldm.config import override
from wavelldm.errors import WavelldmError
from wavelldm.ladder import autoencoder as ae
from wavelldm.metrics.scores import snr
from wavelldm.training.presets import preset

SR = 16_000


def voices(n=2, seconds=1.0):
    return torch.stack([torch.from_numpy(speechlike(seconds, seed=s)).float()[None] for s in range(n)])  # (n, 1, N)


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return ae.Autoencoder(preset("tiny").autoencoder).eval()


@pytest.fixture(scope="module")
def stirred(plain):
    """With weights in the layers that begin at zero."""
    torch.manual_seed(1)
    model = ae.Autoencoder(preset("tiny").autoencoder).eval()
    for network in (model.decoder, model.entropy):
        torch.nn.init.normal_(network[-1].weight, std=0.2)
    return model


@torch.no_grad()
def test_untrained_it_is_a_transform_coder(plain):
    wav = voices(1)
    coded = plain(wav, 0.5)
    assert coded.wav.shape == wav.shape and torch.equal(coded.numbers, coded.numbers.round())
    x = ae.mdct(wav, plain.hop)
    size = 0.5 * x.square().mean().sqrt()
    assert torch.equal(coded.numbers, (x / size).sign() * ((x / size).abs() + 0.4).floor())
    assert (coded.wav - ae.imdct(coded.numbers * size, wav.shape[-1])).abs().max() < 1e-5
    assert float(coded.error) == pytest.approx(float((x / size - coded.numbers).square().mean()), rel=1e-4)


@torch.no_grad()
def test_it_keeps_phase_smaller_steps_cost_more_and_give_more(plain):
    wav = voices(1)
    rows = [
        (ae.bits_per_second(c, wav.shape[-1], SR), snr(wav[0, 0], c.wav[0, 0], SR))
        for c in (plain(wav, s) for s in (0.25, 1.0, 3.0))
    ]
    assert rows[0][0] > rows[1][0] > rows[2][0] and rows[0][1] > rows[1][1] > rows[2][1]
    assert rows[0][1] > 10  # what no mel can do
    near = ae.at_bitrate(plain, wav, 6.0)
    assert ae.bits_per_second(near, wav.shape[-1], SR) == pytest.approx(6_000, rel=0.05)
    odd = plain(wav[..., :12_345], 1.0)
    assert odd.wav.shape == (1, 1, 12_345)


def test_bits_are_those_of_a_distribution():
    """Over all whole numbers the probabilities sum to one: nothing is claimed that no code could do."""
    numbers = torch.arange(-3_000, 3_001)[:, None].float()
    scale = torch.tensor([[0.05, 0.3, 2.0, 40.0]])
    total = (2 ** -ae.cost(numbers, scale)).sum(0)
    assert (total - 1).abs().max() < 2e-3
    assert (
        float(ae.cost(torch.zeros(1), torch.tensor([0.05])))
        < 0.1
        < 4
        < float(ae.cost(torch.tensor([5.0]), torch.tensor([0.05])))
    )
    assert float(ae.cost(torch.tensor([1e6]), torch.tensor([0.1]))) < 50  # finite


@torch.no_grad()
def test_a_decoder_could_follow(stirred):
    """What a number is expected to be depends on those sent before it alone: earlier frames, and lower ones of its
    own.
    """
    numbers = torch.randint(-3, 4, (1, stirred.hop, 9), generator=torch.Generator().manual_seed(0)).float()
    base = stirred.scales(numbers)
    assert base.min() > 0
    for k, t in ((5, 4), (200, 0), (319, 7)):
        changed = numbers.clone()
        changed[0, k, t] += 5
        moved = (stirred.scales(changed) - base).abs()[0] > 0  # (M, T)
        assert not moved[:, :t].any() and not moved[: k + 1, t].any(), (k, t)
        if t < 8:
            assert moved[:, t + 1].any()
        if k < 319:
            assert moved[k + 1, t]


def test_both_networks_learn():
    torch.manual_seed(0)
    model, wav = ae.Autoencoder(preset("tiny").autoencoder), voices(2, 0.5)
    step = torch.tensor([0.5, 1.5])
    before = float(sum(model.distances(wav, step).values()).detach())
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        parts = model.distances(wav, step)
        sum(parts.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimiser.step()
    assert set(parts) == {"error", "rate"} and float(sum(parts.values()).detach()) < 0.96 * before


@torch.no_grad()
def test_a_tilt_spends_bits_on_high_frequencies(plain):
    wav = voices(1) + 0.02 * torch.randn(1, 1, SR, generator=torch.Generator().manual_seed(0))
    tilted = ae.Autoencoder(override(preset("tiny"), ["autoencoder.tilt=1"]).autoencoder).eval()
    share = [float((c.numbers[:, 160:] != 0).float().mean()) for c in (plain(wav, 1.0), tilted(wav, 1.0))]
    assert share[1] > share[0]
    assert float(plain.weights.min()) == 1


@torch.no_grad()
def test_steps_may_follow_the_level_and_that_is_paid_for(plain):
    model = ae.Autoencoder(override(preset("tiny"), ["autoencoder.follow=1"]).autoencoder).eval()
    wav = voices(1)
    wav[..., SR // 2 :] *= 0.01
    fixed, followed = plain(wav, 1.0), model(wav, 1.0)
    quiet = slice(SR // 2 + 640, SR - 640)
    assert snr(wav[0, 0, quiet], followed.wav[0, 0, quiet], SR) > 3 > snr(wav[0, 0, quiet], fixed.wav[0, 0, quiet], SR)
    _, side = model.steps(ae.mdct(wav, 320), 1.0)
    assert side.shape == followed.bits.shape and side.min() > 0.5 and not plain.steps(ae.mdct(wav, 320), 1.0)[1].any()


@torch.no_grad()
def test_silence_and_wrong_shapes(plain):
    coded = plain(torch.zeros(1, 1, 4_000), 1.0)
    assert coded.wav.abs().max() < 1e-6 and coded.bits.isfinite().all() and float(coded.bits.mean()) < 0.2 * 320
    with pytest.raises(WavelldmError, match="channels into the batch"):
        plain(torch.zeros(2, 4_000), 1.0)


def test_the_plainest_latent(plain):
    wav = voices(1)
    levels = [snr(wav[0, 0], ae.lowest(wav, 320, keep)[0, 0], SR) for keep in (20, 80, 320)]
    assert levels[0] < levels[1] < levels[2] and levels[2] > 90
