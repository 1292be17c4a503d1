import math

import pytest
import torch
from signals import speechlike

from wavelldm.errors import WavelldmError
from wavelldm.ladder import phase
from wavelldm.metrics.scores import correlation, snr


def test_the_bound_and_its_inverse():
    assert phase.best_snr(0) == 0 and phase.best_snr(1) == math.inf
    assert phase.best_snr(-0.6) == pytest.approx(-10 * math.log10(0.64))
    assert phase.needed_correlation(5) == pytest.approx(0.827, abs=1e-3) and phase.needed_correlation(
        10
    ) == pytest.approx(0.949, abs=1e-3)
    assert phase.best_snr(phase.needed_correlation(7)) == pytest.approx(7)
    for wrong in (lambda: phase.best_snr(1.1), lambda: phase.needed_correlation(-1)):
        with pytest.raises(WavelldmError):
            wrong()


def test_no_gain_passes_the_bound_and_one_reaches_it():
    rng = torch.Generator().manual_seed(0)
    s = torch.randn(1, 1, 8_000, generator=rng)
    s -= s.mean()
    for mix in (0.1, 0.5, 0.9):
        y = mix * s + (1 - mix) * torch.randn(1, 1, 8_000, generator=rng)
        y -= y.mean()
        bound = phase.best_snr(correlation(s[0, 0], y[0, 0], 16_000))
        best = phase.best_gain(s, y)
        reached = [snr(s[0, 0], (g * best * y)[0, 0], 16_000) for g in (0.5, 0.9, 1.0, 1.1, 2.0)]
        assert max(reached) == reached[2] == pytest.approx(bound, abs=1e-3) and reached[1] < bound


def test_unrelated_phases_give_minus_three_decibels():
    wav = torch.from_numpy(speechlike(2.0)).float()[None, None]
    other = phase.forget_phase(wav)
    assert (
        other.square().sum().item() == pytest.approx(wav.square().sum().item(), rel=1e-4)
        and (other - wav).abs().max() > 0.1
    )
    facts = phase.experiment(wav, draws=30)
    assert facts["snr"] == pytest.approx(-3.01, abs=0.15)
    assert 0 <= facts["at_best_gain"] < 0.1 and facts["at_best_gain"] == pytest.approx(facts["bound"], abs=1e-3)
    assert facts["rho"] < 0.1
