"""What notebook 03 builds by hand is what the module has."""

import math

import pytest
import torch
from lift import definitions

from wavelldm.codec import fsq
from wavelldm.codec.model import CodecConfig

HAND = definitions("03")
LEVELS = HAND["LEVELS"]
CHOICES = [LEVELS, (5, 3, 7), (2,), (4, 9)]


def some(*shape, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def test_the_levels_are_the_codecs():
    assert LEVELS == CodecConfig().levels and math.prod(LEVELS) == CodecConfig().entries


def test_the_definitions_are_the_notebooks_own():
    for name in ("FSQ", "ResidualFSQ", "GFSQ", "straight_through", "digits_to_code", "code_to_digits"):
        assert HAND[name] is not getattr(fsq, name)


def test_the_straight_through_step_is_the_modules():
    x = some(1000).requires_grad_()
    for step in (HAND["straight_through"], fsq.straight_through):
        out = step(3 * x, (3 * x).round())
        assert torch.equal(out, (3 * x).round())
        assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.full_like(x, 3.0))


@pytest.mark.parametrize("levels", CHOICES)
def test_digits_and_codes_are_the_modules(levels):
    codes = torch.arange(math.prod(levels))
    digits = HAND["code_to_digits"](codes, levels)
    assert torch.equal(digits, fsq.code_to_digits(codes, levels))
    assert torch.equal(HAND["digits_to_code"](digits, levels), codes)


@pytest.mark.parametrize("levels", CHOICES)
def test_fsq_is_the_modules(levels):
    x, y = some(500, len(levels)).requires_grad_(), some(500, len(levels)).requires_grad_()
    mine, theirs = HAND["FSQ"](levels), fsq.FSQ(levels)
    (vector, code), (want, index) = mine(x), theirs(y)
    assert torch.equal(vector, want) and torch.equal(code, index)
    assert torch.equal(HAND["bound"](x, theirs.size), theirs.bound(x))
    assert torch.equal(mine.decode(code), theirs.decode(code))
    (vector * vector).sum().backward()
    (want * want).sum().backward()
    assert torch.equal(x.grad, y.grad) and x.grad.any()


@pytest.mark.parametrize("stages", (1, 3))
@pytest.mark.parametrize("levels", CHOICES)
def test_residual_fsq_is_the_modules(levels, stages):
    x, y = some(500, len(levels), seed=1).requires_grad_(), some(500, len(levels), seed=1).requires_grad_()
    mine, theirs = HAND["ResidualFSQ"](levels, stages), fsq.ResidualFSQ(levels, stages)
    (vector, codes), (want, index) = mine(x), theirs(y)
    assert torch.equal(vector, want) and torch.equal(codes, index)
    for k in range(1, stages + 1):
        assert torch.equal(mine.decode(codes[:, :k]), theirs.decode(codes[:, :k]))
    (vector * vector).sum().backward()
    (want * want).sum().backward()
    assert torch.equal(x.grad, y.grad) and x.grad.any()


@pytest.mark.parametrize("groups, residuals", [(4, 1), (2, 3)])
def test_gfsq_is_the_modules_with_the_same_weights(groups, residuals):
    torch.manual_seed(2)
    mine, theirs = HAND["GFSQ"](48, groups, residuals), fsq.GFSQ(48, groups, residuals)
    theirs.load_state_dict(mine.state_dict())
    z = some(2, 48, 100, seed=3)
    (z_q, codes), (want, index) = mine(z), theirs(z)
    assert torch.equal(z_q, want) and torch.equal(codes, index)
    assert codes.shape == (2, groups * residuals, 100)


def test_usage_counted_by_hand():
    assert HAND["usage"](torch.tensor([0, 0, 1, 1]), 8) == (2, pytest.approx(2.0))
    assert HAND["usage"](torch.tensor([0, 0, 0, 1]), 8) == (2, pytest.approx(4 / 3**0.75))
