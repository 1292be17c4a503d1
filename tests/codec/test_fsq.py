import math

import pytest
import torch

from wavelldm.codec.fsq import (
    ABSENT,
    FSQ,
    GFSQ,
    ResidualFSQ,
    code_to_digits,
    digits_to_code,
    random_keep,
    random_losses,
)
from wavelldm.errors import WavelldmError

LEVELS = (8, 8, 8, 6, 5)
torch.set_num_threads(1)


def reference(cls, **kwargs):
    import vector_quantize_pytorch as vq

    return getattr(vq, cls)(**kwargs)


def test_a_code_computed_by_hand():
    # 7 + 0 * 8 + 1 * 64 + 5 * 512 + 4 * 3072 = 14,919
    assert digits_to_code(torch.tensor([7, 0, 1, 5, 4]), LEVELS) == 14_919
    assert code_to_digits(torch.tensor(14_919), LEVELS).tolist() == [7, 0, 1, 5, 4]


def test_values_rounded_by_hand():
    fsq = FSQ((3, 4))
    vector, code = fsq(torch.tensor([[0.0, 0.0], [9.0, 9.0], [-9.0, -9.0]]))
    # 3 levels: -1, 0, 1; 4 levels: -1, -0.5, 0, 0.5
    assert vector.tolist() == [[0.0, 0.0], [1.0, 0.5], [-1.0, -1.0]]
    assert code.tolist() == [1 + 3 * 2, 2 + 3 * 3, 0]


@pytest.mark.parametrize("levels", [LEVELS, (5, 3), (2,), (7, 4, 2)])
def test_every_code_goes_round_exactly(levels):
    codes = torch.arange(math.prod(levels))
    assert torch.equal(digits_to_code(code_to_digits(codes, levels), levels), codes)
    fsq, rfsq = FSQ(levels), ResidualFSQ(levels)
    assert torch.equal(digits_to_code(fsq.digits(fsq.decode(codes)), levels), codes)
    assert len(fsq.decode(codes).unique(dim=0)) == len(codes)
    # the vector of every code, quantised again, is that code: undo the bound first
    vector = fsq.decode(codes)
    half = (fsq.size - 1) * 1.001 / 2
    offset = torch.where(fsq.size % 2 == 0, 0.5, 0.0)
    before = torch.atanh((vector * (fsq.size // 2) + offset) / half) - torch.atanh(offset / half)
    again, code = fsq(before)
    assert torch.equal(code, codes) and torch.equal(again, vector)
    vector = rfsq.decode(codes[:, None])
    reach = 1 + 1 / (rfsq.size - 1)
    again, code = rfsq(torch.atanh(vector / reach) * reach)
    assert torch.equal(code[:, 0], codes) and torch.equal(again, vector)


@pytest.mark.parametrize("levels", [LEVELS, (5, 3, 7)])
def test_fsq_equals_the_reference(levels):
    theirs = reference("FSQ", levels=list(levels))
    x = torch.randn(2, 500, len(levels), generator=torch.Generator().manual_seed(0)) * 3
    vector, code = FSQ(levels)(x)
    want, index = theirs(x)
    assert torch.equal(code, index.long())
    assert torch.allclose(vector, want, atol=1e-6)
    assert torch.allclose(FSQ(levels).decode(code), theirs.indices_to_codes(index), atol=1e-6)


@pytest.mark.parametrize("groups, residuals", [(4, 1), (2, 3), (1, 2)])
def test_gfsq_equals_the_reference_on_copied_weights(groups, residuals):
    torch.manual_seed(1)
    theirs = reference("GroupedResidualFSQ", dim=48, groups=groups, num_quantizers=residuals, levels=list(LEVELS))
    theirs.eval()
    ours = GFSQ(48, groups, residuals, LEVELS)
    for g, rvq in enumerate(theirs.rvqs):
        ours.project_in[g].load_state_dict(rvq.project_in.state_dict())
        ours.project_out[g].load_state_dict(rvq.project_out.state_dict())
    z = torch.randn(2, 48, 300) * 2
    z_q, codes = ours(z)
    want, index = theirs(z.transpose(1, 2))  # (B, T, D), (G, B, T, R)
    assert codes.shape == (2, groups * residuals, 300)
    assert torch.equal(codes, index.permute(1, 0, 3, 2).reshape(codes.shape).long())
    assert torch.allclose(z_q, want.transpose(1, 2), atol=1e-5)
    assert torch.allclose(ours.decode_codes(codes), theirs.get_output_from_indices(index).transpose(1, 2), atol=1e-5)


def test_decoding_the_codes_gives_the_quantised_latent_to_the_bit():
    torch.manual_seed(2)
    gfsq = GFSQ(48, 4, 2)
    z_q, codes = gfsq(torch.randn(2, 48, 40))
    assert torch.equal(gfsq.decode_codes(codes), z_q)


def test_every_residual_stage_divides_the_error_by_four_or_more():
    x = torch.rand(1000, 5, generator=torch.Generator().manual_seed(3)) * 1.6 - 0.8
    rfsq = ResidualFSQ(LEVELS, 3)
    bounded = torch.tanh(x / (1 + 1 / (rfsq.size - 1))) * (1 + 1 / (rfsq.size - 1))
    codes = rfsq(x)[1]
    error = [(rfsq.decode(codes[:, :k]) - bounded).abs().amax() for k in (1, 2, 3)]
    assert error[0] < 0.26 and error[1] < error[0] / 4 and error[2] < error[1] / 4


@pytest.mark.parametrize("residuals", [1, 3])
def test_the_gradient_passes_straight_through(residuals):
    x = torch.linspace(-2, 2, 50)[:, None].repeat(1, 5).requires_grad_()
    rfsq = ResidualFSQ(LEVELS, residuals)
    rfsq(x)[0].sum().backward()
    expected = 1 - torch.tanh(x.detach() / (1 + 1 / (rfsq.size - 1))) ** 2  # the soft clamp's
    assert torch.allclose(x.grad, expected, atol=1e-6)
    y = torch.linspace(-2, 2, 50)[:, None].repeat(1, 5).requires_grad_()
    FSQ(LEVELS)(y)[0].sum().backward()
    assert (y.grad > 0).all()


def test_gradients_reach_every_parameter_and_the_input():
    torch.manual_seed(4)
    gfsq, z = GFSQ(48, 4), torch.randn(2, 48, 10, requires_grad=True)
    gfsq(z)[0].square().sum().backward()
    assert (z.grad != 0).all()
    assert all((p.grad != 0).any() for p in gfsq.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_huge_and_broken_inputs_never_leave_the_range(dtype):
    big = torch.finfo(dtype).max
    values = [0.0, 1e-8, 1.0, -1.0, 1e4, -1e4, big, -big, math.inf, -math.inf, math.nan]
    x = torch.tensor(values, dtype=dtype)[:, None].repeat(1, 5)
    for codes in (FSQ(LEVELS)(x)[1], ResidualFSQ(LEVELS, 3)(x)[1], GFSQ(5, 1)(x.T[None])[1]):
        assert codes.min() >= 0 and codes.max() < 15_360


def test_autocast_changes_nothing():
    torch.manual_seed(5)
    gfsq, z = GFSQ(48, 4), torch.randn(2, 48, 100)
    plain = gfsq(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gfsq(z)
        decoded = gfsq.decode_codes(inside[1])
    assert torch.equal(plain[1], inside[1]) and torch.equal(plain[0], inside[0]) and torch.equal(decoded, plain[0])


@pytest.mark.parametrize("groups, residuals", [(4, 1), (2, 2)])
def test_fewer_codebooks_decode_and_equal_training_with_dropout(groups, residuals):
    torch.manual_seed(6)
    gfsq, z = GFSQ(48, groups, residuals), torch.randn(4, 48, 20)
    full = gfsq(z)[1]
    z_q, codes = gfsq(z, keep=torch.tensor([1, 2, 3, 4]))
    for item, kept in enumerate([1, 2, 3, 4]):
        assert torch.equal(codes[item, :kept], full[item, :kept])
        assert (codes[item, kept:] == ABSENT).all()
        assert torch.equal(gfsq.decode_codes(full[item : item + 1, :kept]), z_q[item : item + 1])
    silent = gfsq.decode_codes(torch.full((1, 4, 1), ABSENT))[0, :, 0]  # no codebook at all: only the biases remain
    assert torch.equal(silent, torch.cat([out.bias for out in gfsq.project_out]))


def test_random_keep_covers_every_number_and_is_reproducible():
    keep = random_keep(2000, 4, 0.5, torch.Generator().manual_seed(7))
    counts = torch.bincount(keep, minlength=5)
    assert counts[0] == 0 and (counts[1:4] > 180).all() and 1150 < counts[4] < 1350  # 1/8 each, and 5/8
    assert torch.equal(keep, random_keep(2000, 4, 0.5, torch.Generator().manual_seed(7)))
    assert (random_keep(50, 4, 0.0) == 4).all()


def test_errors_say_what_to_do():
    for bad in ((), (1, 8), (2.5,), (4096,) * 3):
        with pytest.raises(WavelldmError, match="levels"):
            FSQ(bad)
    with pytest.raises(WavelldmError, match="groups"):
        GFSQ(50, 4)
    gfsq = GFSQ(48, 4)
    for codes in (torch.zeros(1, 5, 3).long(), torch.zeros(4, 3).long(), torch.zeros(1, 4, 3)):
        with pytest.raises(WavelldmError, match="codes are integers"):
            gfsq.decode_codes(codes)
    with pytest.raises(WavelldmError, match="15359"):
        gfsq.decode_codes(torch.full((1, 4, 3), 15_360))


def test_unrounded_is_where_ever_finer_levels_lead():
    torch.manual_seed(0)
    coarse, fine = GFSQ(12, 2, 1, (5, 5)), GFSQ(12, 2, 1, (4097, 4097))
    fine.load_state_dict(coarse.state_dict())
    z = torch.randn(2, 12, 7)
    errors = [(q(z)[0] - q.unrounded(z)).abs().max().item() for q in (coarse, fine)]
    assert errors[1] < 2e-3 < errors[0]


def test_losses_are_as_frequent_as_asked_and_come_in_gaps():
    lost = random_losses(4000, 80, 0.4, torch.Generator().manual_seed(0))
    share = lost.float().mean(1)
    assert lost.shape == (4000, 80) and (share == 0).float().mean() > 0.5, "every second item loses nothing"
    assert share.mean() == pytest.approx(0.1, abs=0.01), "the others 0 to 0.4 of their frames"
    first, last = lost[:, :8].float().mean(), lost[:, -8:].float().mean()
    assert first == pytest.approx(float(last), abs=0.01), "from beginning to end alike"
    ends = (lost[:, :-1] & ~lost[:, 1:]).sum() / lost[:, :-1].sum()
    assert ends == pytest.approx(0.5, abs=0.02), "gaps of two frames in the mean"
    assert not random_losses(4, 10, 0.0).any() and random_losses(100, 10, 1.0).any()
