import math

import pytest
import torch

from wavelldm.codec.fsq import ABSENT, code_to_digits
from wavelldm.course import codes as analysis
from wavelldm.errors import WavelldmError

SR, HOP = 16_000, 256
LEVELS = (8, 8, 8, 6, 5)


def seeded(*shape, high, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def test_usage_and_perplexity_counted_by_hand():
    codes = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3], [5, 5, 5, 5], [0, 0, 0, 1]])
    assert analysis.usage(codes, 8).tolist() == [2, 4, 1, 2]
    assert analysis.perplexity(codes, 8).tolist() == pytest.approx([2, 4, 1, 4 / 3**0.75])
    assert analysis.entropy(codes, 8).tolist() == pytest.approx([1, 2, 0, 2 - 0.75 * math.log2(3)])


def test_batches_count_together_and_absent_codes_not_at_all():
    codes = seeded(3, 2, 50, high=10)
    joined = torch.cat(list(codes), dim=-1)
    assert torch.equal(analysis.counts(codes, 10), analysis.counts(joined, 10))
    assert torch.equal(analysis.counts(codes, 10).sum(-1), torch.tensor([150, 150]))
    codes[:, 1] = ABSENT
    assert analysis.usage(codes, 10)[1] == 0 and analysis.entropy(codes, 10)[1] == 0


def test_equal_use_has_the_perplexity_of_the_codebook():
    assert analysis.perplexity(torch.arange(15_360)[None], 15_360).item() == pytest.approx(15_360)


def test_flip_rate():
    a = torch.tensor([[[1, 2, 3, 4], [1, 2, 3, 4]]])
    b = torch.tensor([[[1, 2, 3, 4], [1, 0, 0, 0]]])
    assert analysis.flip_rate(a, b).tolist() == [0, 0.75]
    with pytest.raises(WavelldmError, match="one shape"):
        analysis.flip_rate(a, b[..., :3])


@pytest.mark.parametrize("code, number", [(0, 5), (math.prod(LEVELS) - 1, 5), (1 + 8 + 64 + 512 + 3072, 10)])
def test_neighbours_differ_by_one_step_in_one_digit(code, number):
    near = analysis.neighbours(code, LEVELS)
    away = (code_to_digits(near, LEVELS) - code_to_digits(torch.tensor(code), LEVELS)).abs()
    assert len(near.unique()) == number
    assert torch.equal(away.sum(-1), torch.ones(number, dtype=torch.long))
    assert all(code in analysis.neighbours(n, LEVELS) for n in near.tolist())


def test_information_is_the_entropy_of_what_is_known_and_zero_of_what_is_not():
    classes = torch.tensor([0, 0, 1, 2]).repeat(25)
    assert analysis.information(classes, classes) == pytest.approx(1.5)
    assert analysis.information(3 - classes, classes) == pytest.approx(1.5)
    assert analysis.information(torch.arange(4).repeat_interleave(25), classes.reshape(25, 4).T.reshape(-1)) > 1
    coin = torch.tensor([0, 1]).repeat_interleave(100)
    assert analysis.information(coin, classes.repeat(2)) == pytest.approx(0, abs=1e-12)


def test_features_of_a_sine():
    t = torch.arange(SR) / SR
    features = analysis.frame_features(0.5 * torch.sin(2 * math.pi * 1000 * t + 0.3)[None], SR, HOP)
    assert features.shape == (math.ceil(SR / HOP), 3)
    level, crossings, centre = features[5:50].mean(0).tolist()
    assert level == pytest.approx(10 * math.log10(0.125), abs=0.05)
    assert crossings == pytest.approx(2000, rel=0.02)
    assert centre == pytest.approx(1000, rel=0.01)


def test_a_voice_a_hiss_and_silence_are_told_apart():
    t = torch.arange(SR) / SR
    voice = sum(torch.sin(2 * math.pi * 150 * k * t) / k**2 for k in range(1, 20))
    noise = torch.randn(SR, generator=torch.Generator().manual_seed(0))
    hiss = 0.1 * torch.nn.functional.conv1d(noise[None, None], torch.tensor([[[1.0, -2.0, 1.0]]]), padding=1)[0, 0]
    wav = torch.cat([voice, hiss, torch.zeros(SR)])[None]
    classes = analysis.frame_classes(wav, SR, HOP)
    assert len(classes) == math.ceil(3 * SR / HOP)
    second = SR / HOP
    for start, name in enumerate(("vowel", "fricative", "silence")):
        inside = classes[round(start * second) + 2 : round((start + 1) * second) - 2]
        assert (inside == analysis.CLASSES.index(name)).all(), name


def test_classes_do_not_depend_on_the_volume():
    wav = 0.3 * torch.randn(1, SR, generator=torch.Generator().manual_seed(1)) * torch.linspace(0, 1, SR) ** 4
    assert torch.equal(analysis.frame_classes(wav, SR, HOP), analysis.frame_classes(wav / 4, SR, HOP))


@pytest.mark.parametrize("n", (1, HOP - 1, HOP, HOP + 1, 10 * HOP + 7))
@pytest.mark.parametrize("hop", (HOP, 441, 7))
def test_there_is_a_frame_for_every_latent_frame(n, hop):
    features = analysis.frame_features(torch.zeros(1, n), SR, hop)
    assert features.shape == (math.ceil(n / hop), 3) and features.isfinite().all()
    assert (analysis.frame_classes(torch.zeros(1, n), SR, hop) == analysis.SILENCE).all()


def test_the_change_rate_counts_neighbouring_frames():
    codes = torch.tensor([[5, 5, 6, 6, 5], [1, 2, 3, 4, 5], [7, 7, 7, 7, 7]])
    assert analysis.change_rate(codes).tolist() == [0.5, 1.0, 0.0]


def test_frames_get_the_phoneme_in_their_middle():
    marks = [(0.02, "ʃ"), (0.105, "ˈiː"), (0.15, "")]
    assert analysis.frame_phonemes(marks, 9, 50.0) == ["", "ʃ", "ʃ", "ʃ", "ʃ", "iː", "iː", "", ""]


def test_what_a_digit_still_carries():
    """Nothing, if it repeats itself; all, if it is drawn anew each time."""
    assert analysis.given_before(torch.tensor([0, 1, 2, 3] * 50)) == pytest.approx(0, abs=1e-9)
    assert analysis.given_before(seeded(20_000, high=4)) == pytest.approx(2, abs=0.01)
