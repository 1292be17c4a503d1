import pytest
import torch

from wavelldm.codec import losses as A

SR = 16_000


def wav(seed=0, n=8_000):
    g = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(2, 1, n, generator=g)


@pytest.mark.parametrize("loss", [A.MelLoss(SR), A.stft_loss], ids=["mel", "stft"])
def test_distances_are_zero_on_equal_input_grow_with_error_and_pull_towards_the_target(loss):
    x = wav()
    assert loss(x, x).item() < 1e-5
    worse = [loss(x + k * wav(1), x).item() for k in (0.01, 0.1, 1.0)]
    assert worse == sorted(worse) and worse[0] > 0
    y = (x + 0.5 * wav(1)).requires_grad_()
    for _ in range(3):
        value = loss(y, x)
        (grad,) = torch.autograd.grad(value, y)
        y = (y - 0.02 * grad / grad.norm()).detach().requires_grad_()
    assert loss(y, x) < loss(x + 0.5 * wav(1), x)


@pytest.mark.parametrize("loss", [A.MelLoss(SR), A.stft_loss], ids=["mel", "stft"])
def test_distances_have_finite_gradients_on_silence(loss):
    y = torch.zeros(1, 1, 4_000, requires_grad=True)
    loss(y, torch.zeros(1, 1, 4_000)).backward()
    assert torch.isfinite(y.grad).all()


def test_least_squares_by_hand():
    real, fake = [[torch.zeros(1), torch.tensor([0.8])]], [[torch.zeros(1), torch.tensor([0.3])]]
    assert A.critic_loss(real, fake).item() == pytest.approx(0.2**2 + 0.3**2)
    assert A.adversarial_loss(fake).item() == pytest.approx(0.7**2)


def test_feature_loss_ignores_the_scale_and_the_verdict():
    a, b = torch.ones(4), torch.full((4,), 1.5)
    assert A.feature_loss([[a, a]], [[b, a]]).item() == pytest.approx(0.5)
    assert A.feature_loss([[10 * a, a]], [[10 * b, 5 * b]]).item() == pytest.approx(0.5)
    assert A.feature_loss([[a, a]], [[a, b]]).item() == 0


def test_critics_at_full_size_are_the_papers():
    with torch.device("meta"):
        mpd = A.Critics(32, scales=())
        msd = A.Critics(32, periods=())
    assert sum(p.numel() for p in mpd.parameters()) == pytest.approx(41.1e6, rel=0.01)  # HiFi-GAN's MPD
    assert len(msd.critics) == 3


@pytest.mark.parametrize("n", [997, 8_000])
def test_critics_learn_to_tell_noise_from_tones(n):
    torch.manual_seed(0)
    critics = A.Critics(2)
    optimiser = torch.optim.AdamW(critics.parameters(), 2e-3)
    tone = 0.1 * torch.sin(torch.arange(n) * 0.1).expand(2, 1, n)
    losses = []
    for step in range(20):
        loss = A.critic_loss(critics(tone), critics(wav(step, n)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_period_critic_sees_columns_alone():
    """What is p samples apart is one column: changing one column leaves the features of the others alone."""
    critic = A.PeriodCritic(5, 2)
    x = wav(0, 500)[:1]
    y = x.clone()
    y[..., 2::5] += 1.0
    for a, b in zip(critic(x), critic(y)):
        changed = (a - b).abs().sum((0, 1, 2)) > 0
        assert changed.tolist() == [False, False, True, False, False]
