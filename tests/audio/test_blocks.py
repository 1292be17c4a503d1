import pytest
import torch

from wavelldm.audio.blocks import cleaning, in_windows, top_gain


def whole(blocks, *args):
    return torch.cat(list(in_windows(blocks, *args)), dim=1)


@pytest.mark.parametrize("n", [1, 99, 100, 101, 175, 176, 1_000, 1_037])
@pytest.mark.parametrize("overlap", [25, 50])
def test_what_changes_nothing_gives_the_sound_back(n, overlap):
    wav = torch.randn(2, n, generator=torch.Generator().manual_seed(n))
    assert (whole([wav], 100, overlap, lambda x: x) - wav).abs().max() < 1e-6


@pytest.mark.parametrize("size", [1, 33, 100, 260])
def test_blocks_of_any_size_give_the_same(size):
    wav = torch.randn(2, 777, generator=torch.Generator().manual_seed(0))
    process = lambda x: x.cumsum(1) * x.abs().mean()  # looks at the whole window
    joined, one = whole(wav.split(size, dim=1), 100, 25, process), whole([wav], 100, 25, process)
    assert joined.shape == one.shape and (joined - one).abs().max() < 1e-5


def test_no_seam_where_windows_disagree():
    """Each window says another constant: hard joins would jump by 1, the fade takes no step larger than its steepest slope."""
    said = iter([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    out = whole([torch.zeros(1, 600)], 100, 40, lambda x: torch.full_like(x, next(said)))
    assert out.max() == 1 and out.min() == 0  # in the middles nothing is mixed
    assert out.diff(dim=1).abs().max() <= torch.pi / 2 / 41 + 1e-4


def test_windows_are_no_more_than_needed_and_the_last_is_filled_up():
    seen = []
    process = lambda x: seen.append(x.clone()) or x
    whole([torch.ones(1, 160)], 100, 40, process)  # 0 to 100, 60 to 160: the second ends where the sound does
    assert len(seen) == 2 and all(x.shape == (1, 100) for x in seen) and seen[1].sum() == 100
    seen.clear()
    whole([torch.ones(1, 161)], 100, 40, process)
    assert len(seen) == 3 and seen[2].sum() == 41


def test_background_comes_back_and_the_top_gain_follows_the_highest_quarter():
    t = torch.arange(8_192) / 16_000
    low, high = torch.sin(2 * torch.pi * 500 * t)[None], torch.sin(2 * torch.pi * 7_000 * t)[None]
    assert (top_gain(low + high, low + 0.3 * high) - 0.3).abs()[:, 1_000:-1_000].max() < 0.02
    assert (top_gain(low + high, 0.1 * low + high) - 1).abs()[:, 1_000:-1_000].max() < 0.02
    rows = cleaning(lambda x: low, background=0.25)(low + high)
    assert rows.shape == (2, 8_192) and (rows[:1] - low - 0.25 * high).abs().max() < 1e-6
    assert (rows[1:] - 0.25).abs()[:, 1_000:-1_000].max() < 0.02
